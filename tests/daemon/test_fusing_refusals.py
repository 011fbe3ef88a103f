# SPDX-License-Identifier: Apache-2.0
"""What could not be fused is remembered: for how long, by whom, and that the memory is bounded."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import pytest

from polycube.daemon.refusals import BOUND, Refusals


def test_what_lasts_is_known_to_the_next_process_and_what_passes_is_not(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "refused.json"
    one = Refusals(path)
    one.add("long", "more than 512 bytes of stack", lasting=True)
    one.add("short", "killed three times", lasting=False)
    assert "long" in one and "short" in one and "other" not in one
    assert (one["long"], one["short"]) == ("more than 512 bytes of stack", "killed three times")
    following = Refusals(path)
    assert following["long"] == "more than 512 bytes of stack"
    assert "short" not in following


def test_another_kernel_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Refusals(tmp_path / "refused.json").add("unit", "too complex", lasting=True)
    monkeypatch.setattr(platform, "release", lambda: "99.0")
    assert "unit" not in Refusals(tmp_path / "refused.json")


def test_the_oldest_go_first(tmp_path: Path) -> None:
    path = tmp_path / "refused.json"
    path.write_text(json.dumps({f"{number} {platform.release()}": "no" for number in range(BOUND)}))
    one = Refusals(path)
    one.add("last", "no", lasting=True)
    assert "0" not in one and "1" in one and "last" in one
    assert len(json.loads(path.read_text())) == BOUND


@pytest.mark.parametrize("content", ["{ damaged", "[]", ""])
def test_a_damaged_file_is_as_good_as_none(tmp_path: Path, content: str) -> None:
    path = tmp_path / "refused.json"
    path.write_text(content)
    one = Refusals(path)
    one.add("unit", "no", lasting=True)
    assert "unit" in Refusals(path)
