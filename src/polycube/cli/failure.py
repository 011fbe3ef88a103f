# SPDX-License-Identifier: Apache-2.0
"""A refusal by the daemon as sentences: its own message where it sends one, else one made of RFC 8040's error tag."""

from __future__ import annotations

from polycube.cli.errors import near
from polycube.cli.grammar import COMMANDS, WORDS
from polycube.cli.render import plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from polycube.cli.client import Response
    from polycube.cli.grammar import Command

SENTENCES = {
    "invalid-value": "the value of {} is not valid",
    "missing-attribute": "{} is missing",
    "missing-element": "{} is missing",
    "bad-attribute": "{} is not valid here",
    "bad-element": "{} is not known here",
    "unknown-element": "{} is not known here",
    "data-exists": "{} exists already",
    "data-missing": "{} does not exist",
    "operation-not-supported": "this operation is not supported on {}",
    "access-denied": "access to {} is denied",
}
HABITS = {
    **dict.fromkeys(("delete", "remove", "rm", "destroy"), "del"),
    **dict.fromkeys(("list", "ls", "get", "print", "display"), "show"),
    **dict.fromkeys(("create", "new", "insert"), "add"),
    **dict.fromkeys(("update", "modify", "change", "edit"), "set"),
}


def sentences(response: Response) -> list[str]:
    """What the daemon says; the status line when it says nothing."""
    data = response.json()
    if isinstance(data, dict):
        found = data.get("ietf-restconf:errors") or data.get("errors")
        errors = found.get("error") if isinstance(found, dict) else None
        if isinstance(errors, dict):
            errors = [errors]
        if isinstance(errors, list) and errors:
            return [sentence(error) for error in errors]
    if isinstance(data, str) and data.strip():
        return [plain(data.strip())]
    text = response.text.strip()
    return [plain(text)] if text else [f"{response.status} {response.reason}".strip()]


def sentence(error: object) -> str:
    if not isinstance(error, dict):
        return plain(error)
    message = error.get("error-message")
    if isinstance(message, str) and message:
        return plain(message)
    tag = str(error.get("error-tag", "error"))
    subject = name_in(error.get("error-info")) or name_in(error.get("error-path")) or "it"
    return plain(SENTENCES[tag].format(subject) if tag in SENTENCES else f"{tag}: {subject}")


def name_in(info: object) -> str:
    if isinstance(info, dict):
        return ", ".join(filter(None, (name_in(value) for value in info.values())))
    if isinstance(info, list):
        return ", ".join(filter(None, map(name_in, info)))
    return "" if info is None else plain(info)


def hint(command: Command, response: Response, said: str) -> str:
    """A word of the command line that was probably meant as another one, if the refusal can come from that."""
    if "did you mean" in said.lower():
        return ""
    for index, word in enumerate(command.path):
        if response.status not in (404, 405) and word not in said:
            continue
        guess = None if command.verb else HABITS.get(word.lower()) or near(word, COMMANDS)
        if not guess and index == 0 and word not in WORDS:
            guess = near(word, WORDS)
        if guess:
            return f"did you mean '{guess}' instead of '{word}'?"
    if command.path[:1] == ["top"] and response.status == 404:
        return "the live view is 'polycubectl top'"
    if not command.verb and not command.values and is_no_action(response, said):
        return f"to see it: polycubectl {' '.join(map(plain, command.path))} show"
    return ""


def is_no_action(response: Response, said: str) -> bool:
    """Whether a path without a command was refused because it is a leaf, a cube or a list."""
    return response.status == 405 or "exists already" in said or "/[0]/" in said
