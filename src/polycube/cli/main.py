# SPDX-License-Identifier: Apache-2.0
"""Entry point of polycubectl. Answers go to standard output, everything else to standard error.

Exit codes: 0 the daemon answered 2xx; 1 no answer, or bad configuration; 2 any other status, or bad syntax.
"""

from __future__ import annotations

import os
import sys

from polycube.cli.config import load
from polycube.cli.errors import EXIT_NO_ANSWER, EXIT_OK, EXIT_REFUSED, CliError, SyntaxProblem, Unreachable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from polycube.cli.client import Client, Response
    from polycube.cli.config import Config
    from polycube.cli.grammar import Command


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure:
            reconfigure(errors="backslashreplace")
    try:
        code = dispatch(words)
        sys.stdout.flush()
        return code
    except CliError as error:
        sys.stdout.flush()
        print(error, file=sys.stderr)
        return error.code
    except BrokenPipeError:  # "| head" has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return EXIT_OK
    except KeyboardInterrupt:
        return 130


def dispatch(words: list[str]) -> int:
    if words[:1] == ["completion"] and len(words) < 3:
        from polycube.cli.complete import STUBS

        if words[-1] not in STUBS:
            raise SyntaxProblem(f"Bad syntax, usage: completion {'|'.join(STUBS)}")
        sys.stdout.write(STUBS[words[1]])
        return EXIT_OK
    if words == ["--version"]:
        print(f"polycubectl version {version()}")
        return EXIT_OK
    if words[:1] == ["__complete"]:
        return run_complete(words[2:] if words[1:2] == ["--"] else words[1:])
    config = load(os.environ)
    if words[:1] == ["top"]:
        from polycube.cli import top

        if top.is_top(words):
            return top.run(config, words[1:])
    if words[:1] == ["events"] and words[-1] != "?":
        from polycube.cli import events

        return events.run(config, words[1:])
    return run(config, words)


def run_complete(words: list[str]) -> int:
    from polycube.cli.complete import complete

    try:
        found = complete(load(os.environ), words)
    except CliError:
        return EXIT_NO_ANSWER
    sys.stdout.write("".join(f"{word}\n" for word in found))
    return EXIT_OK


def run(config: Config, words: list[str]) -> int:
    from polycube.cli.client import Client
    from polycube.cli.grammar import build, expand, parse, takes_stdin

    command = expand(parse(words))
    client = Client(config)
    if command.help:
        return run_help(client, command, full=words in (["-h"], ["--help"]))
    body = None
    single = config.singleparameterworkaround
    if takes_stdin(command, single):
        from polycube.cli import body as stdin

        complete = bool(command.values) and all(command.values.values())  # "rules=" announces what comes on stdin
        body = stdin.read(command.stdin, stdin.GRACE_WITH_VALUES if complete else stdin.GRACE)
        if body is None and command.stdin:
            raise SyntaxProblem("there is no body on standard input")
        if command.verb == "set" and body is None and not command.values:
            raise SyntaxProblem("set needs NAME=VALUE, for example: polycubectl r1 ports p1 set peer=veth1")
    request = build(command, body, single)
    own = {"version": version()} if command.path == ["version"] else None
    if own and command.form not in ("json", "yaml"):
        print(f"polycubectl:\n version: {own['version']}", flush=True)
    response = client.request(request.method, request.path, request.body)
    if not response.ok:
        return refuse(command, response)
    if command.dry_run:
        return show_operations(command, response)
    if command.verb in ("", "show"):
        show(command, response, own)
    return EXIT_OK


def version() -> str:
    from polycube import __version__

    return __version__


def show(command: Command, response: Response, own: dict[str, str] | None = None) -> None:
    """Print the data of an answer; what is not JSON is printed as it came."""
    from polycube.cli.render import paint_for, render

    text = response.text.strip()
    if not text or (not command.verb and text in ("{}", "null")):
        return
    data = response.json()
    if data is None and text != "null":
        print(text)
        return
    if own and command.form in ("json", "yaml"):
        data = {"polycubectl": own, **(data if isinstance(data, dict) else {"polycubed": data})}
    sys.stdout.write(render(data, command.form, command.hide, paint_for(sys.stdout)))


def flat(operation: object) -> object:
    """An operation whose members are short texts: `a/b` for lists, `a=1 b=2` for objects."""
    return {name: brief(value) for name, value in operation.items()} if isinstance(operation, dict) else operation


def brief(value: object) -> object:
    """A value in one line."""
    if isinstance(value, list):
        return "/".join(str(brief(item)) for item in value)
    if isinstance(value, dict):
        return " ".join(f"{name}={brief(item)}" for name, item in value.items() if item not in ("", 0, [], None))
    return value


def show_operations(command: Command, response: Response) -> int:
    """The plan of a dry run, as a table of whatever members its operations have."""
    from polycube.cli.render import columns_and_rows, paint_for, render, table

    data = response.json()
    operations = data.get("operations") if isinstance(data, dict) else data
    if response.status != 200 or not isinstance(operations, list):
        print("the daemon does not know -dry-run: the change may have been made", file=sys.stderr)
        return EXIT_REFUSED
    if command.form in ("json", "yaml"):
        sys.stdout.write(render(data, command.form))
    elif not operations:
        print("nothing to do")
    else:
        lines = table(*columns_and_rows([flat(operation) for operation in operations], 2), paint=paint_for(sys.stdout))
        sys.stdout.write("\n".join(lines) + "\n")
    return EXIT_OK


def refuse(command: Command, response: Response) -> int:
    """Say on standard error what the daemon said, and what was perhaps meant."""
    from polycube.cli.failure import hint, sentences

    said = "\n".join(sentences(response))
    advice = hint(command, response, said)
    sys.stdout.flush()
    print(f"{said}; {advice}" if advice else said, file=sys.stderr)
    return EXIT_REFUSED


def run_help(client: Client, command: Command, full: bool) -> int:
    from polycube.cli import help as texts
    from polycube.cli.grammar import build
    from polycube.cli.render import paint_for

    paint = paint_for(sys.stdout)
    fixed = texts.word_help(command, paint)
    if fixed is not None:
        sys.stdout.write(fixed)
        return EXIT_OK
    root = not command.path and not command.verb
    if full:
        sys.stdout.write(texts.USAGE)
    request = build(command)
    try:
        response = client.request(request.method, request.path)
        cubes = client.request("GET", "cubes/") if root and response.ok else None
    except Unreachable:
        if root:  # what polycubectl itself knows is still worth reading
            sys.stdout.write(texts.root_help(None, None, client.config.expert, paint))
        raise
    if not response.ok:
        return refuse(command, response)
    data = response.json()
    if root:
        running = cubes.json() if cubes is not None and cubes.ok else None
        sys.stdout.write(texts.root_help(data, running, client.config.expert, paint))
    else:
        sys.stdout.write(texts.daemon_help(command, data, paint))
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
