# SPDX-License-Identifier: Apache-2.0
"""Runs the commands of a page of documentation.

Convention: in fenced blocks marked `console`, lines that begin with `$ ` are commands (`> ` continues one); what follows is their
output. All commands of a page run in one shell in one private world (tools/lab), in an empty folder. A command must succeed, unless a
comment `# refused` ends it. Output that is shown must come, line by line and in that order; `...` stands for anything, on a line of its
own for any number of lines; white space does not count. Blocks marked with a language and a path (`python hits/model.py`) are written to
that file first.
"""

import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MARK = "@@@@"


@dataclass
class Command:
    """One command of a page."""

    text: str
    output: list[str] = field(default_factory=list)

    @property
    def refused(self) -> bool:
        return self.text.endswith("# refused")


def parse(page: str) -> tuple[dict[str, str], list[Command]]:
    """The files and the commands of a page."""
    files, commands = {}, []
    for info, body in FENCE.findall(page):
        kind, _, path = info.strip().partition(" ")
        if path:
            files[path] = body
        if kind == "console":
            commands += parse_console(body)
    return files, commands


def parse_console(body: str) -> list[Command]:
    commands: list[Command] = []
    for line in body.splitlines():
        if line.startswith("$ "):
            commands.append(Command(line[2:]))
        elif line.startswith("> ") and not commands[-1].output:
            commands[-1].text += "\n" + line[2:]
        else:
            commands[-1].output.append(line)
    return commands


def script(commands: list[Command]) -> str:
    lines = ["exec 2>&1"]
    for number, command in enumerate(commands):
        lines += [f"echo; echo {MARK} begin {number}", command.text, f"_status=$?; echo; echo {MARK} end {number} $_status"]
    return "\n".join(lines) + "\n"


def run(page: Path, folder: Path) -> None:
    """Runs a page; AssertionError says what went otherwise than it says."""
    files, commands = parse(page.read_text())
    for path, body in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(body)
    (folder / ".script").write_text(script(commands))
    lab = [ROOT / "tools" / "lab", "bash", ".script"]
    done = subprocess.run(lab, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=250)
    for number, command in enumerate(commands):
        found = re.search(rf"{MARK} begin {number}\n(.*?)\n{MARK} end {number} (\d+)\n", done.stdout, re.DOTALL)
        assert found, f"{page.name}: no end of: {command.text}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        output, status = found[1], int(found[2])
        assert (status != 0) == command.refused, f"{page.name}: exit status {status} of: {command.text}\n{output}"
        missing = first_missing(command.output, output)
        assert missing is None, f"{page.name}: no line {missing!r} in the output of: {command.text}\n{output}"


def first_missing(expected: list[str], output: str) -> str | None:
    """The first expected line that does not come, or None. Lines must follow each other, unless `...` is between them."""
    lines = [squeeze(line) for line in output.splitlines() if line.strip()]
    at, gap = 0, True
    for line in (squeeze(line) for line in expected if line.strip()):
        if line == "...":
            gap = True
            continue
        pattern = re.compile(".*".join(re.escape(part) for part in line.split("...")))
        hits = [i for i in range(at, len(lines) if gap else min(at + 1, len(lines))) if pattern.fullmatch(lines[i])]
        if not hits:
            return line
        at, gap = hits[0] + 1, False
    return None


def squeeze(line: str) -> str:
    return " ".join(line.split())
