# SPDX-License-Identifier: Apache-2.0
"""The path language: arguments become one HTTP request. Pure functions; nothing here reads or sends.

Each argument is tested in this order: command word (anywhere in the path), flag, `name=value`, `?`, path element.
`parse` sorts the arguments, `expand` turns the built-in words (`connect A B`, `topology` ...) into plain requests,
`build` makes method, path and body. Which services, cubes or leaves exist is the daemon's business alone.
"""

from __future__ import annotations

import json
import os

from polycube.cli.errors import SyntaxProblem, near

COMMANDS = ("add", "del", "show", "set")
FORMS = ("-normal", "-brief", "-verbose", "-json", "-yaml")
FLAGS = (*FORMS, "-hide", "-dry-run", "-h", "--help")
WORDS = (
    "connect",
    "disconnect",
    "attach",
    "detach",
    "topology",
    "version",
    "services",
    "cubes",
    "netdevs",
    "metrics",
    "events",
    "requests",
    "openapi",
    "units",
    "fusing",
    "config",
    "top",
)
# shown without "show"
READABLE = [[word] for word in ("cubes", "netdevs", "topology", "services", "metrics", "requests", "openapi", "config", "units", "fusing")]
POSITIONS = ("auto", "first", "last")
METHODS = {"": "POST", "add": "POST", "set": "PATCH", "show": "GET", "del": "DELETE"}
SAFE = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~:@$&+=")
TRUE = frozenset(("t", "T", "true", "TRUE", "True"))
FALSE = frozenset(("f", "F", "false", "FALSE", "False"))
ATTACH_USAGE = "Bad syntax, usage: attach cube port [position=auto, first, last], [before=cube], [after=cube]"


class Command:
    """The arguments, sorted."""

    def __init__(self) -> None:
        self.verb = ""
        self.path: list[str] = []
        self.values: dict[str, str] = {}
        self.form = ""
        self.hide: frozenset[str] = frozenset()
        self.help = False
        self.dry_run = False
        self.stdin = False  # "-": the body is on standard input, however long it takes to come
        self.fixed: dict[str, str] | None = None  # the body of a built-in word: names, never numbers


class Request:
    """What goes to the daemon."""

    def __init__(self, method: str, path: str, body: bytes | None = None) -> None:
        self.method = method
        self.path = path
        self.body = body


def parse(arguments: list[str]) -> Command:
    """Sort the arguments into command, path, values and flags."""
    command = Command()
    command.help = not arguments
    for index, argument in enumerate(arguments):
        check_text(argument)
        if argument in COMMANDS:
            if command.verb:
                raise SyntaxProblem(f"Multiple commands found: {argument} and {command.verb}")
            if command.values:
                raise SyntaxProblem(f"{argument} is not valid after {arguments[index - 1]}")
            command.verb = argument
        elif argument == "-":
            command.stdin = True
        elif argument.startswith("-") and not is_number(argument):
            parse_flag(command, argument, len(arguments))
        elif "=" in argument:
            name, _, value = argument.partition("=")
            if not all(name.split(".")):
                raise SyntaxProblem(f"{argument} is not a valid format")
            if name in command.values:
                raise SyntaxProblem(f"Duplicated values for {name}")
            command.values[name] = value
        elif argument == "?":
            if index != len(arguments) - 1:
                raise SyntaxProblem("'?' must be the last argument")
            command.help = True
        else:
            if command.values:
                raise SyntaxProblem(f"{argument} is not valid after {arguments[index - 1]}")
            command.path.append(argument)
    return command


def check_text(argument: str) -> None:
    """Refuse what no URL and no JSON can carry. An empty element would address the parent: `del ""` the whole list."""
    if not argument:
        raise SyntaxProblem("An argument is empty; is a shell variable unset?")
    try:
        argument.encode()
    except UnicodeEncodeError:
        raise SyntaxProblem(f"{os.fsencode(argument)!r} is not valid UTF-8") from None


def parse_flag(command: Command, flag: str, count: int) -> None:
    if flag in FORMS:
        if command.form:
            raise SyntaxProblem(f"{flag} and -{command.form} cannot be used together")
        command.form = flag[1:]
    elif flag in ("-h", "--help"):
        if count != 1:
            raise SyntaxProblem(f"{flag} must be the only argument")
        command.help = True
    elif flag == "-dry-run":
        command.dry_run = True
    elif flag == "-hide" or flag.startswith("-hide="):
        names = flag[6:].split(",")
        if not all(names) or "=" in flag[6:]:
            raise SyntaxProblem("-hide usage: -hide=key0,key1,key")
        command.hide |= frozenset(names)
    else:
        guess = near(flag, FLAGS)
        raise SyntaxProblem(f"{flag} is not a valid flag" + (f"; did you mean {guess}?" if guess else ""))


def expand(command: Command) -> Command:
    """Turn the built-in words into plain requests and check what can only be checked with all arguments seen."""
    word = command.path[0] if command.path else ""
    if word == "version" and command.help:
        raise SyntaxProblem("There is no help for this command")
    if not command.help:
        if word in ("connect", "disconnect", "attach", "detach"):
            expand_link(command, word)
        elif word == "version":
            if len(command.path) != 1 or command.values or command.verb not in ("", "show"):
                raise SyntaxProblem("Bad syntax, usage: version [show]")
            command.verb = "show"
        elif command.verb == "" and command.path in READABLE:
            command.verb = "show"
        if command.path == ["topology"] and command.verb == "show" and not command.form:
            command.form, command.hide = "verbose", command.hide | {"uuid", "ports.uuid"}
    check(command)
    return command


def expand_link(command: Command, word: str) -> None:
    names = ("peer1", "peer2") if word in ("connect", "disconnect") else ("cube", "port")
    if len(command.path) != 3 or command.verb not in ("", "add") or (command.values and word != "attach"):
        raise SyntaxProblem(ATTACH_USAGE if word == "attach" else f"Bad syntax, usage: {word} {' '.join(names)}")
    if len(command.values) > 1:
        raise SyntaxProblem("Only one parameter is supported")
    for name, value in command.values.items():
        if name not in ("position", "before", "after"):
            raise SyntaxProblem(f"Parameter {name} is not valid")
        if name == "position" and value not in POSITIONS:
            raise SyntaxProblem(f"{value} is not valid for position argument")
    command.fixed = {names[0]: command.path[1], names[1]: command.path[2], **command.values}
    command.verb, command.path, command.values = "add", [word], {}


def check(command: Command) -> None:
    show = command.verb == "show"
    if command.form and not show and not command.dry_run:
        raise SyntaxProblem(f"-{command.form} can only be used with show command")
    if command.hide and not show:
        raise SyntaxProblem("-hide can only be used with show command")
    if command.hide and command.form in ("json", "yaml"):
        raise SyntaxProblem(f"-hide is not compatible with -{command.form}")
    if command.dry_run and (show or command.help):
        raise SyntaxProblem("-dry-run can only be used with commands that change something")
    if command.help:
        return
    if command.verb in ("show", "del") and (command.values or command.stdin):
        # Silently dropped by upstream, where "del route network=X" deletes every route.
        what = next((f"{name}=..." for name in command.values), "-")
        raise SyntaxProblem(f"{what} is not valid with {command.verb}")
    if not command.path and not show:
        example = {"add": "SERVICE add NAME", "del": "r1 del", "set": "r1 set loglevel=DEBUG"}.get(command.verb, "cubes show")
        raise SyntaxProblem(f"{command.verb or 'This'} needs a path, for example: polycubectl {example}")


def takes_stdin(command: Command, single: bool) -> bool:
    """Whether a body on standard input would replace the one made of the arguments."""
    if command.help or command.fixed is not None or command.verb in ("show", "del"):
        return False
    return command.stdin or not is_single(command, single)


def is_single(command: Command, single: bool) -> bool:
    """A `set` with exactly one value: the leaf itself is patched with the bare value."""
    return single and command.verb == "set" and len(command.values) == 1 and not command.stdin


def build(command: Command, stdin: bytes | None = None, single: bool = True) -> Request:
    """Make the request; `stdin` is the body found on standard input, as JSON."""
    query = "?dry-run=true" if command.dry_run else ""
    if command.help:
        return Request("OPTIONS", join(command.path, slash=False) + f"?help={(command.verb or 'none').upper()}")
    method = METHODS[command.verb]
    if method in ("GET", "DELETE"):
        return Request(method, join(command.path) + query)
    if command.fixed is not None:
        return Request(method, join(command.path) + query, encode(command.fixed))
    if is_single(command, single):
        [(name, value)] = command.values.items()
        return Request(method, join(command.path + name.split(".")) + query, encode(scalar(value)))
    return Request(method, join(command.path) + query, stdin if stdin is not None else encode(nest(command.values)))


def nest(values: dict[str, str]) -> dict[str, object]:
    """Make `a.b=1` an object inside an object."""
    body: dict[str, object] = {}
    for name, value in values.items():
        *parents, last = name.split(".")
        node = body
        for parent in parents:
            child = node.setdefault(parent, {})
            if not isinstance(child, dict):
                raise SyntaxProblem(f"{name} is given within {parent}, which has a value of its own")
            node = child
        if last in node:
            raise SyntaxProblem(f"{name} has a value of its own and others within it")
        node[last] = scalar(value)
    return body


def scalar(text: str) -> object:
    """A value as upstream reads it: integer, decimal, boolean, else text. Double quotes make it text for certain."""
    if len(text) > 1 and text[0] == text[-1] == '"':
        try:
            quoted = json.loads(text)
        except ValueError:
            return text
        return quoted
    if is_number(text):
        try:
            return int(text)
        except ValueError:
            number = float(text)
            return text if number in (float("inf"), float("-inf")) else number  # JSON has no infinity
    if text in TRUE or text in FALSE:
        return text in TRUE
    return text


def is_number(text: str) -> bool:
    """Whether it is a decimal number. Stricter than int() and float(), which take "1_0", " 1", "inf" and "nan"."""
    digits = text[1:] if text[:1] in ("+", "-") else text
    mantissa, mark, exponent = digits.replace("E", "e").partition("e")
    if mark and not is_digits(exponent[1:] if exponent[:1] in ("+", "-") else exponent):
        return False
    whole, _, fraction = mantissa.partition(".")
    return is_digits(whole + fraction)


def is_digits(text: str) -> bool:
    return text.isascii() and text.isdigit()


def encode(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def join(path: list[str], slash: bool = True) -> str:
    """Percent-encode each element, so that 10.0.0.0/24 stays one."""
    text = "/".join(quote(element) for element in path)
    return text + "/" if slash and text else text


def quote(element: str) -> str:
    return "".join(chr(byte) if byte in SAFE else f"%{byte:02X}" for byte in element.encode())
