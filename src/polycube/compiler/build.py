# SPDX-License-Identifier: Apache-2.0
"""Build time: C to LLVM bitcode, by clang.

Every `x.bpf.c` becomes `x.xdp.bc` and `x.tc.bc` beside it (a file that is for one hook only is called `x.xdp.bpf.c` or `x.tc.bpf.c` and
becomes `x.<hook>.bc`); the sources of VARIANTS also become `x_<variant>.*.bc`. Like in make, a result newer than its source, the
headers beside it, the library's headers and this file is kept. No path of the building machine gets into the result. Only the standard
library is used here, so that the build hook of the package can import this module before anything is installed.

    python -m polycube.compiler.build              the whole package
    python -m polycube.compiler.build FOLDER...    services outside it
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from polycube.compiler.errors import SourceError
from polycube.compiler.function import COMPILER, INCLUDE, PACKAGE, Hook

FLAGS = ("-O2", "-g", "-Wall", "-Werror", "-target", "bpfel", "-mcpu=v3", "-emit-llvm")
VARIANTS = {
    COMPILER / "unit.bpf.c": {"transparent": "PCN_TRANSPARENT", "span": "PCN_SPAN"},
    COMPILER / "member.bpf.c": {"transparent": "PCN_TRANSPARENT"},
    COMPILER / "timed.bpf.c": {"egress": "PCN_TIMED_EGRESS"},
}
MULTIARCH = sysconfig.get_config_var("MULTIARCH")  # asked for here, not in a thread: its lazy initialisation is not thread-safe


@dataclass(frozen=True)
class Target:
    """One run of clang."""

    source: Path
    output: Path
    hook: Hook
    defines: tuple[str, ...] = ()


def clang() -> str:
    """The compiler: $CLANG, or clang."""
    return os.environ.get("CLANG", "clang")


def available() -> bool:
    """Whether there is a compiler on this machine."""
    return shutil.which(clang()) is not None


def targets(folder: Path) -> Iterator[Target]:
    """What is built from a folder, subfolders included."""
    for source in sorted(folder.resolve().rglob("*.bpf.c")):
        stem = source.name.removesuffix(".bpf.c")
        for hook in Hook:
            other = {f".{h}" for h in Hook if h != hook}
            if Path(stem).suffix in other:
                continue
            base = stem.removesuffix(f".{hook}")
            yield Target(source, source.with_name(f"{base}.{hook}.bc"), hook)
            for name, define in VARIANTS.get(source, {}).items():
                yield Target(source, source.with_name(f"{stem}_{name}.{hook}.bc"), hook, (define,))


def fresh(target: Target) -> bool:
    """Whether the result is newer than all it may depend on."""
    try:
        built = target.output.stat().st_mtime_ns
    except FileNotFoundError:
        return False
    inputs = [target.source, Path(__file__), *target.source.parent.glob("*.h"), *INCLUDE.rglob("*.h")]
    return all(path.stat().st_mtime_ns <= built for path in inputs)


def command(target: Target, output: Path) -> list[str]:
    """The command line of one run, to be run in the folder of the source."""
    system = [f"-idirafter/usr/include/{MULTIARCH}"] if MULTIARCH else []
    return [
        clang(),
        *FLAGS,
        f"-DPCN_{target.hook.upper()}",
        *(f"-D{name}" for name in target.defines),
        f"-I{INCLUDE}",
        *system,
        f"-ffile-prefix-map={PACKAGE}=polycube",
        f"-ffile-prefix-map={target.source.parent}=.",
        "-fdebug-compilation-dir=.",
        "-c",
        target.source.name,
        "-o",
        str(output),
    ]


def compile_target(target: Target) -> None:
    """Compiles one target; its output appears whole or not at all."""
    handle, name = tempfile.mkstemp(prefix=f".{target.output.name}.", dir=target.output.parent)
    os.close(handle)
    try:
        run = subprocess.run(command(target, Path(name)), cwd=target.source.parent, capture_output=True, text=True)
        if run.returncode:
            raise SourceError(target.source.name, target.hook, run.stderr.strip())
        os.chmod(name, 0o644)
        os.replace(name, target.output)
    finally:
        Path(name).unlink(missing_ok=True)


def build(folders: Iterable[Path] = (PACKAGE,), *, force: bool = False) -> list[Path]:
    """Builds what is stale below the folders; returns what was built. Raises SourceError."""
    stale = [target for folder in folders for target in targets(folder) if force or not fresh(target)]
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        for _ in pool.map(compile_target, stale):
            pass
    return [target.output for target in stale]


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m polycube.compiler.build", description="Compile data planes to LLVM bitcode.")
    parser.add_argument("folders", nargs="*", type=Path, default=[PACKAGE], help="folders of services (default: the package)")
    parser.add_argument("--force", action="store_true", help="build what is fresh, too")
    arguments = parser.parse_args()
    try:
        for path in build(arguments.folders, force=arguments.force):
            print(path)
    except SourceError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
