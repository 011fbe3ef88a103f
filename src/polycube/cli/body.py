# SPDX-License-Identifier: Apache-2.0
"""A body on standard input: `polycubectl cubes add < cubes.yaml`, `generate | polycubectl fw set`.

The difficulty is to know whether standard input is meant for this command. It is not when it is a terminal or
/dev/null, nor when it belongs to the calling shell: in `list | while read x; do polycubectl svc add $x; done` and in
`curl ... | bash` the same pipe is the shell's own, and reading it would eat the loop's list or the rest of the script.
Three rules tell them apart:

* a file counts while it stands at its beginning (a shell that has read a line from it has moved it on);
* a pipe or socket counts unless a shell above us has the very same one as its own standard input
  (`cat f | sudo polycubectl ...`: sudo shares it, but the shell above sudo does not);
* a pipe or socket that stays silent for a moment counts as empty: ssh, systemd and cron leave such ones open.

The argument `-` overrides all three and waits for the end of input.
"""

from __future__ import annotations

import json
import os
import select
import stat

from polycube.cli.errors import SyntaxProblem

GRACE = 0.5  # seconds for a producer at the other end of the pipe to say its first word
GRACE_WITH_VALUES = 0.05  # the same when name=value arguments already make a body
SHELLS = frozenset(("ash", "bash", "busybox", "csh", "dash", "fish", "ksh", "mksh", "sh", "tcsh", "zsh"))


def read(force: bool, grace: float, fd: int = 0) -> bytes | None:
    """The body as JSON, or None when standard input holds none for us."""
    text = read_text(force, grace, fd)
    return to_json(text) if text and not text.isspace() else None


def read_text(force: bool, grace: float, fd: int) -> bytes:
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISREG(mode):
            return read_all(fd) if force or os.lseek(fd, 0, os.SEEK_CUR) == 0 else b""
        if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
            return read_all(fd) if force or (not is_shells_own(fd) and has_data(fd, grace)) else b""
        return read_all(fd) if force else b""
    except OSError as error:
        if force:
            raise SyntaxProblem(f"cannot read standard input: {error.strerror}") from None
        return b""  # closed, or not made for reading


def read_all(fd: int) -> bytes:
    parts = []
    while part := os.read(fd, 1 << 16):
        parts.append(part)
    return b"".join(parts)


def has_data(fd: int, grace: float) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return any(events & select.POLLIN for _, events in poll.poll(grace * 1000))


def is_shells_own(fd: int) -> bool:
    """Whether a shell among the ancestors that share this pipe or socket reads from it, too."""
    mine = os.readlink(f"/proc/self/fd/{fd}")
    pid = os.getppid()
    try:
        while pid > 1 and os.readlink(f"/proc/{pid}/fd/0") == mine:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                name, _, rest = file.read().partition("(")[2].rpartition(")")
            if name in SHELLS:
                return True
            pid = int(rest.split()[1])
    except OSError:
        pass  # gone, or another user's
    return False


def to_json(text: bytes) -> bytes:
    """JSON passes as it is; anything else is read as YAML (flow style, single quotes, trailing commas)."""
    try:
        decoded = text.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise SyntaxProblem("the body on standard input is not UTF-8 text") from None
    try:
        json.loads(decoded, parse_constant=reject)
        return decoded.encode()
    except ValueError:
        value = from_yaml(decoded)
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise SyntaxProblem(f"the body on standard input holds what JSON cannot express: {error}") from None


def reject(constant: str) -> object:
    raise ValueError(f"{constant} is not JSON")


def from_yaml(text: str) -> object:
    try:
        import yaml
    except ImportError:
        raise SyntaxProblem("the body on standard input is not JSON, and PyYAML is not there to read YAML") from None

    class Loader(yaml.SafeLoader):
        """YAML without dates and base-60 numbers, which would turn MAC addresses and times into something else."""

    import re

    replaced = ("timestamp", "int", "float")
    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in found if tag.rpartition(":")[2] not in replaced]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    integer = re.compile(r"^[-+]?(0x[0-9a-fA-F]+|0o?[0-7]+|0|[1-9][0-9]*)$")
    decimal = re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:int", integer, list("-+0123456789"))
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", decimal, list("-+.0123456789"))
    Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: yaml_integer(str(node.value)))
    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        raise SyntaxProblem(f"the body on standard input is neither JSON nor YAML{where}") from None


def yaml_integer(text: str) -> int:
    digits = text.lstrip("+-")
    if len(digits) > 1 and digits[0] == "0" and digits.isdigit():
        digits = "0o" + digits
    return -int(digits, 0) if text.startswith("-") else int(digits, 0)
