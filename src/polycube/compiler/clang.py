# SPDX-License-Identifier: Apache-2.0
"""Run time: C of an instance to LLVM bitcode, by clang, which only this needs.

clang gets the headers of the project, its own limits of time and memory, and no privileges: as root it would read any file that an
`#include` names and show it in an error. The result is kept by what went into it, so that a restart needs no clang.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

from polycube.compiler.build import MULTIARCH, available, clang
from polycube.compiler.code import Code, CodeError, Diagnostic
from polycube.compiler.function import INCLUDE, Hook

SECONDS = 10
MEMORY = 1 << 30  # bytes of address space
MAX_OUTPUT = 64 << 20
MAX_DIAGNOSTICS = 20
NOBODY = 65534
FLAGS = ("-O2", "-g", "-Wall", "-Werror=implicit-function-declaration", "-target", "bpfel", "-mcpu=v3", "-emit-llvm")
_DIAGNOSTIC = re.compile(r"(?P<file>[^:\n]+):(?P<line>\d+):(?P<column>\d+): (?:fatal )?error: (?P<message>.*)")


@lru_cache(1)
def identity() -> bytes:
    """What the result depends on beside the text and the hook."""
    digest = hashlib.sha256(" ".join(FLAGS).encode())
    for path in sorted(INCLUDE.rglob("*.h")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.digest()


def compile_c(code: Code, hook: Hook) -> bytes:
    """The bitcode of C text; polycube/cube.h is included. Raises CodeError."""
    if not available():
        raise CodeError(code, hook, Diagnostic(f"compiling C needs {clang()}, which is not on this machine: install the package clang"))
    with tempfile.TemporaryDirectory(prefix="polycube-") as name:
        folder = Path(name)
        source, output = folder / f"{code.name}.c", folder / "out.bc"
        source.write_text(code.text)
        shutil.copytree(INCLUDE, folder / "include")
        output.touch()
        if os.geteuid() == 0:
            folder.chmod(0o755)
            os.chown(output, NOBODY, NOBODY)
        failed = _run(code, hook, folder)
        if failed:
            raise CodeError(code, hook, *_diagnostics(code, failed))
        if output.stat().st_size > MAX_OUTPUT:
            raise CodeError(code, hook, Diagnostic(f"it becomes {output.stat().st_size} bytes of bitcode, at most {MAX_OUTPUT} are taken"))
        return output.read_bytes()


def _run(code: Code, hook: Hook, folder: Path) -> str:
    """Runs clang; what it said if it refused, else nothing."""
    command = [
        *("prlimit", f"--as={MEMORY}", f"--cpu={SECONDS}", f"--fsize={MAX_OUTPUT + 1}", "--core=0"),
        shutil.which(clang()) or clang(),
        *FLAGS,
        f"-DPCN_{hook.upper()}",
        "-Iinclude",
        *([f"-idirafter/usr/include/{MULTIARCH}"] if MULTIARCH else []),
        "-include",
        "polycube/cube.h",
        "-fdebug-compilation-dir=.",
        f"-ferror-limit={MAX_DIAGNOSTICS}",
        "-c",
        f"{code.name}.c",
        "-o",
        "out.bc",
    ]
    unprivileged = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
    process = subprocess.Popen(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={"PATH": os.environ.get("PATH", ""), "TMPDIR": "/tmp", "LC_ALL": "C"},
        start_new_session=True,
        **unprivileged,  # type: ignore[call-overload]
    )
    try:
        _, said = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return f"clang did not end within {SECONDS} s"
    if process.returncode < 0:
        return f"clang was ended by signal {signal.Signals(-process.returncode).name}: it may use {SECONDS} s and {MEMORY >> 20} MB"
    return said.decode(errors="replace") or f"clang ended with status {process.returncode}" if process.returncode else ""


def _diagnostics(code: Code, said: str) -> list[Diagnostic]:
    """What clang's words say about lines of the text."""
    lines = code.text.splitlines()
    found = []
    for match in _DIAGNOSTIC.finditer(said):
        number = int(match["line"])
        own = Path(match["file"]).name == f"{code.name}.c"
        if own and number <= len(lines):
            found.append(Diagnostic(match["message"], number, int(match["column"]), lines[number - 1]))
        else:
            found.append(Diagnostic(f"{match['message']} ({match['file']}:{number})"))
    return found[:MAX_DIAGNOSTICS] or [Diagnostic(said.strip()[-1000:])]
