# SPDX-License-Identifier: Apache-2.0
"""The one family of errors, and the suggestion of a near name.

Mechanism: an error is a class with typed fields and an HTTP status; its sentence is made in the class, so that the
same mistake reads the same everywhere. `ModelError` carries any number of `Problem`s, each with the tag RESTCONF
(RFC 8040, section 7) and upstream use, and its status follows from the tags.

Invariants: a problem's message is a predicate ("cannot be -1: expected ..."), its path is relative to the cube, and the
sentence is path and predicate together; whoever knows the name of the cube adds it with `ModelError.within`.
"""

from __future__ import annotations

import difflib
import enum
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, ClassVar
from urllib.parse import quote


class PolycubeError(Exception):
    """Something a user can be told: one sentence, and the HTTP status that goes with it."""

    status: ClassVar[int] = 400

    def __reduce__(self) -> Any:
        # Errors cross process borders (workers): rebuild from the fields, whatever the signature of __init__ is.
        return _rebuild_error, (type(self), self.args, self.__dict__)


def _rebuild_error(cls: type[PolycubeError], args: tuple[Any, ...], fields: dict[str, Any]) -> PolycubeError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(fields)
    return error


class Tag(enum.StrEnum):
    """The error tags of RESTCONF that upstream uses."""

    INVALID_VALUE = "invalid-value"
    MISSING_ATTRIBUTE = "missing-attribute"
    MISSING_ELEMENT = "missing-element"
    BAD_ATTRIBUTE = "bad-attribute"
    BAD_ELEMENT = "bad-element"
    DATA_EXISTS = "data-exists"
    DATA_MISSING = "data-missing"
    OPERATION_NOT_SUPPORTED = "operation-not-supported"

    @property
    def status(self) -> int:
        if self in (Tag.DATA_EXISTS, Tag.DATA_MISSING):
            return 409
        return 405 if self is Tag.OPERATION_NOT_SUPPORTED else 400


Path = tuple[str, ...]
_SAFE = ":@,;=+$!*'()"
_PLAIN = re.compile(rf"[A-Za-z0-9_.~{_SAFE}-]*").fullmatch


def path_text(path: Iterable[str]) -> str:
    """Segments as one URL path; what would be mistaken for a separator is percent-encoded."""
    return "/".join(segment if _PLAIN(segment) else quote(segment, safe=_SAFE) for segment in path)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where, which kind, and a predicate that says what was expected."""

    tag: Tag
    path: Path
    message: str

    def __str__(self) -> str:
        return f"{'/'.join(self.path) or 'the request'} {self.message}"


class ModelError(PolycubeError):
    """A body, value or path does not fit the model."""

    problems: tuple[Problem, ...]

    def __init__(self, *problems: Problem) -> None:
        self.problems = problems
        super().__init__("; ".join(str(problem) for problem in problems))

    @property
    def status(self) -> int:  # type: ignore[override]
        return self.problems[0].tag.status

    def within(self, *prefix: str) -> ModelError:
        """The same problems seen from further up: `error.within("br0")`."""
        return ModelError(*(replace(problem, path=(*prefix, *problem.path)) for problem in self.problems))


def problem(tag: Tag, path: Path, message: str) -> ModelError:
    """A `ModelError` with one problem."""
    return ModelError(Problem(tag, path, message))


def suggest(name: str, candidates: Iterable[str], *, limit: int = 6) -> str:
    """The end of a sentence about an unknown name: `; did you mean port1?`, or what there is, or nothing."""
    known = list(candidates)
    near = difflib.get_close_matches(name.lower(), [k.lower() for k in known], n=1, cutoff=0.6)
    if near:
        return f"; did you mean {next(k for k in known if k.lower() == near[0])}?"
    if not known:
        return ""
    more = ", ..." if len(known) > limit else ""
    return f"; there {'is' if len(known) == 1 else 'are'} {', '.join(known[:limit])}{more}"
