# SPDX-License-Identifier: Apache-2.0
"""Build time: C to bitcode."""

import os
import re
import shutil
import time

import pytest

from polycube.compiler import build
from polycube.compiler.bitcode import framework_bitcode, function_bitcode, recipe
from polycube.compiler.errors import BitcodeMissing, CompileError, SourceError
from polycube.compiler.function import COMPILER, PACKAGE, Function, Helper, Hook, UnitSpec

CLANGS = [name for name in ("clang", "clang-19") if shutil.which(name)]
SOURCE = """// SPDX-License-Identifier: Apache-2.0
#include <polycube/cube.h>
#include "own.h"
HANDLER(ingress) { return pcn_forward(pkt, OWN); }
"""


@pytest.fixture
def folder(tmp_path):
    service = tmp_path / "own"
    service.mkdir()
    (service / "own.bpf.c").write_text(SOURCE)
    (service / "own.h").write_text("#define OWN 1\n")
    return service


def names(paths):
    return sorted(path.name for path in paths)


@pytest.mark.parametrize("clang", CLANGS)
def test_a_folder_outside_the_package(folder, clang, monkeypatch):
    monkeypatch.setenv("CLANG", clang)
    assert names(build.build([folder])) == ["own.tc.bc", "own.xdp.bc"]
    assert function_bitcode(Function("own", folder), Hook.XDP).read_bytes()[:2] == b"BC"


def test_only_what_is_stale_is_built(folder):
    build.build([folder])
    assert build.build([folder]) == []
    later = time.time() + 5
    os.utime(folder / "own.h", (later, later))
    assert names(build.build([folder])) == ["own.tc.bc", "own.xdp.bc"]
    assert names(build.build([folder], force=True)) == ["own.tc.bc", "own.xdp.bc"]


def test_a_source_for_one_hook_only(folder):
    (folder / "own.bpf.c").rename(folder / "own.tc.bpf.c")
    assert names(build.build([folder])) == ["own.tc.bc"]


def test_errors_name_file_hook_and_line(folder):
    (folder / "own.bpf.c").write_text(SOURCE.replace("OWN", "UNKNOWN"))
    with pytest.raises(SourceError, match=r"own\.bpf\.c for (xdp|tc):\n(.|\n)*own\.bpf\.c:4"):
        build.build([folder])
    assert not list(folder.glob("*.bc")), "a failed run leaves nothing"
    assert not list(folder.glob(".*")), "a failed run leaves nothing"


def test_no_path_of_this_machine_gets_in(folder):
    build.build([PACKAGE, folder])
    for path in [*COMPILER.glob("*.bc"), *folder.glob("*.bc")]:
        content = path.read_bytes()
        for place in (str(PACKAGE), str(folder), os.getcwd()):
            assert not re.search(re.escape(place).encode(), content), (path, place)


def test_equal_sources_give_equal_bitcode_wherever_they_lie(folder, tmp_path):
    build.build([folder])
    other = shutil.copytree(folder, tmp_path / "elsewhere" / "own", ignore=shutil.ignore_patterns("*.bc"))
    build.build([other])
    assert (folder / "own.xdp.bc").read_bytes() == (other / "own.xdp.bc").read_bytes()


def test_what_is_linked(folder):
    build.build([folder])
    plain = recipe(UnitSpec(Function("own", folder), Hook.XDP))
    assert plain.frame == framework_bitcode("unit", Hook.XDP).read_bytes()
    assert [part.modules for part in plain.parts] == [((folder / "own.xdp.bc").read_bytes(),)]
    for variant in (Function("own", folder, transparent=True), Function("own", folder, span=True)):
        frame = recipe(UnitSpec(variant, Hook.TC)).frame
        assert frame == framework_bitcode("unit", Hook.TC, variant).read_bytes() != framework_bitcode("unit", Hook.TC).read_bytes()
    assert recipe(Helper("own", folder, Hook.TC)).parts == ()
    assert type(plain).unpack(plain.pack()) == plain


def test_missing_bitcode_says_what_to_do(folder):
    with pytest.raises(BitcodeMissing, match=r"own\.xdp\.bc is missing; run `python -m polycube\.compiler\.build`"):
        function_bitcode(Function("own", folder), Hook.XDP)


def test_a_hook_the_function_is_not_made_for(folder):
    with pytest.raises(CompileError, match="not made for this hook"):
        function_bitcode(Function("own", folder, hooks=frozenset({Hook.TC})), Hook.XDP)
