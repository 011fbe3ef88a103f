# SPDX-License-Identifier: Apache-2.0
"""Units that could not be built or loaded, by the digest of what was compiled, so that they are not tried again: not by this process, nor,
if the reason lasts, by the next one. On another kernel they are, since it may take them. Bounded; a file that is damaged or can't be
written costs time, never an error.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
from pathlib import Path

BOUND = 1000


class Refusals:
    """Digest -> reason."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lasting: dict[str, str] = {}
        self._passing: dict[str, str] = {}
        with contextlib.suppress(OSError, ValueError):
            stored = json.loads(path.read_text())
            if isinstance(stored, dict):
                self._lasting = {str(name): str(reason) for name, reason in stored.items()}

    def __contains__(self, digest: str) -> bool:
        return digest in self._passing or self._key(digest) in self._lasting

    def __getitem__(self, digest: str) -> str:
        return self._passing.get(digest) or self._lasting[self._key(digest)]

    def add(self, digest: str, reason: str, lasting: bool) -> None:
        """Remembers one; `lasting`: for the next process, too."""
        if not lasting:
            self._passing[digest] = reason
            return
        self._lasting[self._key(digest)] = reason
        while len(self._lasting) > BOUND:
            del self._lasting[next(iter(self._lasting))]
        draft = self._path.with_suffix(".new")
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_text(json.dumps(self._lasting, indent=1))
            os.replace(draft, self._path)

    def _key(self, digest: str) -> str:
        return f"{digest} {platform.release()}"
