# SPDX-License-Identifier: Apache-2.0
"""Where the daemon is and how to talk to it: defaults, then the user's file, then the environment.

The file is upstream's (`$HOME/.config/polycube/polycubectl_config.yaml`), read if it is there and never created. That it has upstream's
default for `url` in it says nothing about what its user wants.
It is flat, so twenty lines read it and a YAML parser (30 ms) is not needed.
"""

from __future__ import annotations

import os

from polycube.cli.errors import ConfigProblem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_URL = "unix:///run/polycube/polycubed.sock"
UPSTREAM_URL = "http://localhost:9000/polycube/v1/"  # which upstream writes into every user's file, unasked
FILE = ".config/polycube/polycubectl_config.yaml"
TEXT_KEYS = ("url", "cacert", "cert", "key", "token")
BOOL_KEYS = ("debug", "expert", "singleparameterworkaround")
TRUE = frozenset(("1", "t", "true", "yes", "on"))
FALSE = frozenset(("0", "f", "false", "no", "off"))


class Config:
    """Settings of one run."""

    def __init__(self) -> None:
        self.url = DEFAULT_URL
        self.debug = False
        self.expert = True
        self.singleparameterworkaround = True
        self.cacert = ""
        self.cert = ""
        self.key = ""
        self.token = ""

    def put(self, name: str, value: str, source: str) -> None:
        """Set one setting from text; names that are not ours (an older file's) are passed over."""
        if name in TEXT_KEYS:
            if value or name != "url":
                setattr(self, name, value)
        elif name in BOOL_KEYS:
            if value.lower() not in TRUE | FALSE:
                raise ConfigProblem(f"{source}: {name} is {value!r}, expected true or false")
            setattr(self, name, value.lower() in TRUE)

    def check(self) -> None:
        """Refuse what cannot work together."""
        if bool(self.cert) != bool(self.key):
            raise ConfigProblem("a client certificate needs both cert and key (POLYCUBECTL_CERT and POLYCUBECTL_KEY)")
        if not self.token.isascii() or not (self.token.isprintable()):
            raise ConfigProblem("the token (POLYCUBECTL_TOKEN) may hold printable ASCII characters only")


def load(environ: Mapping[str, str]) -> Config:
    """Read the user's file, if there is one, and the environment, which overrides it."""
    config = Config()
    home = environ.get("HOME")
    if home:
        path = os.path.join(home, FILE)
        try:
            with open(path, encoding="utf-8") as file:
                text = file.read()
        except (FileNotFoundError, NotADirectoryError):
            text = ""
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigProblem(f"cannot read {path}: {error}") from None
        for name, value, line in entries(text, path):
            if (name, value) != ("url", UPSTREAM_URL):
                config.put(name, value, f"{path} line {line}")
    for name in TEXT_KEYS + BOOL_KEYS:
        variable = f"POLYCUBECTL_{name.upper()}"
        found = environ.get(variable)
        if found:
            config.put(name, found, variable)
    config.check()
    return config


def entries(text: str, path: str) -> list[tuple[str, str, int]]:
    """Split `key: value` lines; comments, blank lines, document markers and quotes are understood."""
    found: list[tuple[str, str, int]] = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#") or line in ("---", "..."):
            continue
        name, colon, value = line.partition(":")
        value = value.strip()
        if not colon or (value and not line[len(name) + 1].isspace()):
            raise ConfigProblem(f"{path} line {number}: expected 'key: value', found {line!r}")
        if value[:1] in ('"', "'"):
            end = value.find(value[0], 1)
            if end < 0:
                raise ConfigProblem(f"{path} line {number}: the quote is not closed")
            value = value[1:end]
        else:
            value = value.partition(" #")[0].rstrip() if not value.startswith("#") else ""
        found.append((name.strip().lower(), value, number))
    return found
