# SPDX-License-Identifier: Apache-2.0
"""Completion: the daemon knows the next words, a few lines for each shell ask for them.

`polycubectl __complete -- words...` prints one candidate a line for the last word (which may be empty). A candidate in
angle brackets stands for a name the user has to think up. Whatever goes wrong, nothing is printed: nobody wants an
error message in the middle of a command line.
"""

from __future__ import annotations

from polycube.cli.client import Client
from polycube.cli.errors import CliError
from polycube.cli.grammar import COMMANDS, FORMS, WORDS, join

TYPE_CHECKING = False
if TYPE_CHECKING:
    from polycube.cli.config import Config

TIMEOUT = 2.0
LOCAL = ("attach", "detach", "top", "completion")
CHANGES = ("connect", "disconnect", "attach", "detach")
ATTACH_OPTIONS = ("position=auto", "position=first", "position=last", "before=", "after=")

BASH = r"""# bash completion for polycubectl:  source <(polycubectl completion bash)
_polycubectl() {
    local line=${COMP_LINE:0:COMP_POINT} words IFS=$' \t\n'
    read -ra words <<< "$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    local current=${words[-1]} found
    mapfile -t found < <("${words[0]}" __complete -- "${words[@]:1}" 2>/dev/null </dev/null)
    if [[ ${#found[@]} -eq 1 && ${found[0]} == "<"* ]]; then
        COMPREPLY=("${found[0]}" " ")  # two of them: shown, not typed
        return
    fi
    # bash takes "a=b" and "a:b" for several words and completes the last only
    local cut="" word
    [[ $current == *[=:]* ]] && cut=${current%"${current##*[=:]}"}
    COMPREPLY=()
    for word in "${found[@]}"; do
        [[ $word == *= || $word == "<"* ]] || word+=" "
        COMPREPLY+=("${word#"$cut"}")
    done
}
complete -o nospace -F _polycubectl polycubectl
"""
ZSH = r"""#compdef polycubectl
# zsh completion for polycubectl:  source <(polycubectl completion zsh)   (behind compinit)
_polycubectl() {
    local -a found open closed
    found=("${(@f)$(polycubectl __complete -- "${(@Q)words[2,CURRENT]}" 2>/dev/null </dev/null)}")
    if [[ ${#found} -eq 1 && $found[1] == "<"* ]]; then
        _message -r "$found[1]"
        return
    fi
    open=(${(M)found:#*=})
    closed=(${found:#*=})
    (( $#open )) && compadd -Q -S "" -- $open
    (( $#closed )) && compadd -Q -- ${closed:#"<"*}
}
if [[ $funcstack[1] == _polycubectl ]]; then
    _polycubectl "$@"
else
    compdef _polycubectl polycubectl
fi
"""
FISH = r"""# fish completion for polycubectl:  polycubectl completion fish | source
function __polycubectl_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -e words[1]
    polycubectl __complete -- $words "$current" 2>/dev/null </dev/null
end
complete -c polycubectl -f -a '(__polycubectl_complete)'
"""
STUBS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def complete(config: Config, words: list[str]) -> list[str]:
    """Candidates for the last of the words."""
    *before, current = words or [""]
    if current.startswith("-"):
        found = flags(before)
    elif before == ["completion"]:
        found = list(STUBS)
    else:
        config.debug = False
        try:
            found = ask(Client(config, TIMEOUT), before, current)
        except CliError:
            return []
    used = {word.partition("=")[0] for word in before if "=" in word}
    found = [word for word in found if not ("=" in word and word.partition("=")[0] in used)]
    found = [word for word in dict.fromkeys(found) if word.isprintable()]
    if len(found) == 1 and found[0].startswith("<"):
        return [] if current else found
    return [word for word in found if word.startswith(current)]


def flags(before: list[str]) -> list[str]:
    if "show" in before or before in (["cubes"], ["netdevs"], ["topology"], ["version"]):
        return [] if any(word in FORMS for word in before) else [*FORMS, "-hide="]
    return ["-dry-run"] if before else ["-h", "--help", "--version"]


def ask(client: Client, before: list[str], current: str) -> list[str]:
    path = [word for word in before if "=" not in word and word not in COMMANDS and not word.startswith("-")]
    verb = next((word for word in before if word in COMMANDS), "none")
    word = path[0] if path else ""
    if word in ("connect", "disconnect"):
        return [peer for peer in peers(client) if peer not in path] if len(path) < 3 else []
    if word in ("attach", "detach"):
        return attachment(client, path)
    if word == "events":
        return [each for each in ("kinds=", "drops=") if len(path) == 1]
    if path == ["topology"] and verb == "show":
        return netdevs(client)
    leaf, equals, _ = current.partition("=")
    if equals:
        return [f"{leaf}={value}" for value in values(client, path, leaf, verb)]
    if any("=" in each for each in before):
        return [each for each in options(client, path, verb) if each.endswith("=")]
    found = options(client, path, verb if path else "none")
    if not path and verb != "none":
        return [each for each in found if each not in WORDS or (verb == "show" and each not in CHANGES)]
    return [*found, *LOCAL] if found and not path and verb == "none" else found


def options(client: Client, path: list[str], verb: str) -> list[str]:
    response = client.request("OPTIONS", join(path, slash=False) + f"?help={verb.upper()}&completion")
    data = response.json() if response.ok else None
    return [str(word) for word in data if isinstance(word, str | int | float)] if isinstance(data, list) else []


def values(client: Client, path: list[str], leaf: str, verb: str) -> list[str]:
    """Values of a leaf. That of an entry still to be made is described with the entry."""
    found = options(client, [*path, *leaf.split(".")], verb)
    if not found and verb == "add":
        response = client.request("OPTIONS", join(path, slash=False) + "?help=ADD")
        data = response.json() if response.ok else None
        known = data.get("optional-params") if isinstance(data, dict) else None
        info = known.get(leaf) if isinstance(known, dict) else None
        if isinstance(info, dict):
            text = "true, false" if info.get("simpletype") == "boolean" else str(info.get("values", ""))
            found = [value.strip() for value in text.split(",") if value.strip()]
    return found or (peers(client) if leaf == "peer" else [])


def peers(client: Client) -> list[str]:
    return options(client, ["connect"], "none") + netdevs(client)


def netdevs(client: Client) -> list[str]:
    response = client.request("GET", "netdevs/")
    data = response.json() if response.ok else None
    entries = data if isinstance(data, list) else []
    return [str(entry["name"]) for entry in entries if isinstance(entry, dict) and "name" in entry]


def attachment(client: Client, path: list[str]) -> list[str]:
    if len(path) == 1:
        response = client.request("GET", "cubes/")
        data = response.json() if response.ok else None
        lists = [found for found in data.values() if isinstance(found, list)] if isinstance(data, dict) else []
        cubes = [cube for found in lists for cube in found if isinstance(cube, dict)]
        return [str(cube["name"]) for cube in cubes if "name" in cube and "ports" not in cube]
    if len(path) == 2:
        return peers(client)
    return list(ATTACH_OPTIONS) if path[0] == "attach" else []
