# SPDX-License-Identifier: Apache-2.0
"""House rules that no linter knows. CONTRIBUTING.md has them in words."""

import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from polycube.core.registry import Installed, installed
from polycube.model import describe

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "polycube"
SERVICES = {name: one for name, one in installed()[0].items() if one.target.startswith("polycube.cubes.")}
CODE = {".py", ".c", ".h", ".sh"}
SOFT, HARD = 400, 700
# Sources over the soft limit
LONGER = {
    "daemon/keeper.py",
    "include/polycube/classify.h",
}
PLACES = ("/wor" + "k/", "/hom" + "e/[a-z]", "/roo" + "t/", "pypi" + r"\.org", "python" + "hosted", "/opt/" + "pypi")
FORBIDDEN = re.compile("|".join(PLACES))


def files() -> list[Path]:
    """What is, or is about to be, in the repository."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git repository")
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def relative(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


def lines(path: Path) -> int:
    return len(path.read_text().splitlines())


def test_code_says_its_licence() -> None:
    def missing(path: Path) -> bool:
        text = path.read_text()
        kernel = path.suffix in (".c", ".h") and path != SOURCE / "bpf" / "abi.h"  # which is read by cffi
        wanted = "SPDX-License-Identifier: " + ("(GPL-2.0-only OR Apache-2.0)" if kernel else "Apache-2.0")
        return bool(text.strip()) and wanted not in text[:300]

    code = [path for path in files() if path.suffix in CODE and (SOURCE in path.parents or ROOT / "tools" in path.parents)]
    assert relative([path for path in code if missing(path)]) == []


def test_files_are_short() -> None:
    code = [path for path in files() if path.suffix in CODE]
    assert relative([path for path in code if lines(path) > HARD]) == []
    long = {str(path.relative_to(SOURCE)) for path in code if SOURCE in path.parents and lines(path) > SOFT}
    assert long - LONGER == set(), f"over {SOFT} lines: split, or add to LONGER if there is no seam"


def test_the_kernels_trie_is_used_by_the_library_of_prefixes_only() -> None:
    sources = [path for pattern in ("*.h", "*.c") for path in SOURCE.rglob(pattern)]
    assert {path.name for path in sources if ", LPM_TRIE," in path.read_text()} == {"lpm_rules.h"}


def test_names_of_test_files_are_unique() -> None:
    """pytest imports them by their name alone."""
    names = Counter(path.name for path in files() if ROOT / "tests" in path.parents and path.name.startswith("test_"))
    assert [name for name, number in names.items() if number > 1] == []


def test_the_makefile_is_short() -> None:
    assert lines(ROOT / "Makefile") <= 60


def test_no_place_of_a_machine_is_named() -> None:
    found = []
    for path in files():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {line.strip()}" for line in text.splitlines() if FORBIDDEN.search(line)]
    assert found == []


def test_layers_hold() -> None:
    done = subprocess.run([ROOT / ".venv/bin/lint-imports"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_no_service_is_named_outside_its_folder() -> None:
    name = "|".join(SERVICES)
    pattern = re.compile(rf"""["'`]({name})["'`]|\bcubes[./]({name})\b""")
    found = []
    for path in files():
        inside = path.relative_to(SOURCE).parts if SOURCE in path.parents else ("testing",)
        if inside[0] in ("cubes", "testing") or path.suffix not in CODE:  # examples in docstrings of the harness are documentation
            continue
        found += [f"{'/'.join(inside)}: {line.strip()}" for line in path.read_text().splitlines() if pattern.search(line)]
    assert found == []


def undescribed(node: dict[str, Any], path: str = "") -> Iterator[str]:
    for member in [*node.get("members", ()), *node.get("actions", ())]:
        here = f"{path}/{member['name']}"
        if not member["description"].strip():
            yield here
        yield from undescribed(member, here)
        for part in ("input", "output"):
            yield from undescribed(member.get(part) or {}, f"{here} {part}")


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES.keys())
def test_every_member_of_a_model_has_a_description(service: Installed) -> None:
    assert list(undescribed(describe(service.config))) == []


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_has_page_example_and_packet_test(service: str) -> None:
    page = ROOT / "docs" / "cubes" / f"{service}.md"
    assert page.is_file(), "no page"
    assert "<!-- model -->" in page.read_text(), "no generated table of the model"
    examples = [path for path in (ROOT / "examples").glob("*/run.sh") if f"polycubectl {service} add" in path.read_text()]
    assert examples, "no example"
    tests = [path for path in (ROOT / "tests" / "cubes").glob("test_*.py") if f'"{service}"' in path.read_text()]
    packets = [path for path in (ROOT / "tests" / "cubes").glob(f"test_{service}*.py") if ".send(" in path.read_text()]
    assert tests or packets, "no packet test"


def test_tests_of_cubes_use_what_their_authors_have() -> None:
    """Whoever writes a service has polycube.testing, and what the service itself is written with: no insides of the framework."""
    found = []
    for path in sorted((ROOT / "tests" / "cubes").rglob("*.py")):
        own = [name for name in SERVICES if path.stem.removeprefix("test_").startswith(name)] or list(SERVICES)
        allowed = "|".join(["testing", "toolkit", "model", r"net\.addr", *(rf"cubes\.{name}" for name in own)])
        imports = re.findall(r"^\s*(?:from|import) (polycube[\w.]*)", path.read_text(), re.MULTILINE)
        found += [f"{path.name}: {name}" for name in imports if not re.match(rf"polycube\.({allowed})(\.|$)", name)]
    assert found == []


@pytest.mark.parametrize("service", SERVICES)
def test_every_drop_reason_is_explained(service: str) -> None:
    sources = [path.read_text() for path in (SOURCE / "cubes" / service).iterdir() if path.suffix in (".c", ".h")]
    own = re.sub(r"/\*.*?\*/", "", " ".join(re.findall(r"^DROPS\((.*?)\);", "\n".join(sources), re.MULTILINE | re.DOTALL)), flags=re.DOTALL)
    page = (ROOT / "docs" / "cubes" / f"{service}.md").read_text()
    assert [name for name in re.findall(r"\w+", own) if f"`{name.lower().replace('_', '-')}`" not in page] == []


def test_every_common_drop_reason_is_explained() -> None:
    found = re.findall(r"^\tPCN_DROP_(\w+),", (SOURCE / "include" / "polycube" / "abi.h").read_text(), re.MULTILINE)
    page = (ROOT / "docs" / "cubes" / "index.md").read_text()
    assert [name for name in found if f"`{name.lower().replace('_', '-')}`" not in page] == []


def test_the_smallest_service_is_small() -> None:
    folder = SOURCE / "cubes" / "helloworld"
    assert sum(lines(path) for path in folder.iterdir() if path.suffix in (".py", ".c")) < 80
