# SPDX-License-Identifier: Apache-2.0
"""The user page says what the program does."""

from __future__ import annotations

from pathlib import Path

from polycube.cli.config import BOOL_KEYS, TEXT_KEYS
from polycube.cli.grammar import FLAGS, WORDS
from polycube.cli.help import USAGE

PAGE = (Path(__file__).parents[2] / "docs" / "polycubectl.md").read_text()


def test_the_page_holds_the_current_usage() -> None:
    assert USAGE.strip() in PAGE


def test_the_page_names_every_word_flag_and_setting() -> None:
    for name in (*WORDS, *FLAGS, *(f"`{key}`" for key in (*TEXT_KEYS, *BOOL_KEYS))):
        assert name in PAGE, name
