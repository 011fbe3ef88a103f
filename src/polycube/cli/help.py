# SPDX-License-Identifier: Apache-2.0
"""Help as tables: what the daemon tells about a path, and fixed texts for the built-in words."""

from __future__ import annotations

from polycube.cli.render import Paint, cell, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from polycube.cli.grammar import Command

COLUMNS = ["Keyword", "Type", "Description", "Example"]
COMMAND_TEXTS = {
    "add": "Add entry to a list",
    "set": "Set a value",
    "del": "Delete entry of a list",
    "show": "Show entry or list [-normal | -brief | -verbose | -json | -yaml]",
}
NO_HELP = "\nThere is no help for this command\n"
USAGE = """\
Usage: polycubectl [path ...] [add | del | show | set] [name=value ...] [flags]

  The command may stand anywhere in the path; a path without one calls an action.
  'polycubectl ?' lists what there is, and '?' at the end of any path goes on from there.

Flags:
  -normal -brief -verbose  how much 'show' prints (2, 1, 3 levels)
  -json -yaml              print data for programs
  -hide=a,b.c              leave out members
  -dry-run                 print what would be done, and do nothing
  -                        take the body from standard input, however long it takes to come
  -h, --help               print this
  --version                print the version of polycubectl alone

Other uses:
  polycubectl top [-interval SECONDS] [-count N]    packets and bytes per second of each port
  polycubectl events [kinds=KIND,...] [drops=RATE]  what happens, a line an event, until interrupted
  polycubectl completion bash|zsh|fish              print the completion for a shell

"""
BUILT_IN = (
    ("connect", "Connect ports"),
    ("disconnect", "Disconnect ports"),
    ("attach", "Attach a transparent cube to a port or netdev"),
    ("detach", "Detach a transparent cube"),
    ("services", "Show services"),
    ("cubes", "Show running cubes"),
    ("topology", "Show how cubes are connected"),
    ("metrics", "Show counters, as text for Prometheus"),
    ("netdevs", "Show net devices available"),
    ("version", "Show the versions of polycubectl and polycubed"),
    ("events", "Show what happens, as it happens"),
    ("requests", "Show what the daemon is answering, and what it waits for"),
    ("config", "Show the whole configuration, or apply one"),
    ("units", "Show the programs in the kernel: units of one cube, and fused ones"),
    ("fusing", "Show or switch whether chains become single programs"),
    ("openapi", "Show the description of the REST interface (OpenAPI 3.1)"),
    ("top", "Show traffic per port, every second"),
)
ENDPOINTS = (
    ("<from>", "cube:port or netdev", "Endpoint of the connection (e.g. br1:port1)"),
    ("<to>", "cube:port or netdev", "Endpoint of the connection (e.g. rt2:port2)"),
)
PLACES = (("<cube>", "string", "Transparent cube"), ("<port>", "cube:port or netdev", "Where it goes (e.g. br1:port1)"))
ORDERS = (
    ("position=value", "string", "auto (default), first or last"),
    ("before=value", "cube", "Put it before that cube"),
    ("after=value", "cube", "Put it after that cube"),
)
WORD_HELP = {
    ("connect", ""): (ENDPOINTS, "connect br1:port1 rt2:port2"),
    ("disconnect", ""): (ENDPOINTS, "disconnect br1:port1 rt2:port2"),
    ("attach", ""): (PLACES + ORDERS, "attach cube1 br1:port1 position=first"),
    ("detach", ""): (PLACES, "detach cube1 br1:port1"),
    ("top", ""): (
        (("-interval", "seconds", "Time between two readings (1)"), ("-count", "number", "End after so many readings")),
        "top -interval 0.5 -count 10",
    ),
    ("events", ""): (
        (
            ("kinds=value", "words", "Kinds of events, with commas (all): cube-added, port-up, port-down, alarm, ..."),
            ("drops=value", "number", "Dropped frames a second of a cube that are an event (none)"),
        ),
        "events kinds=port-up,port-down",
    ),
    ("config", ""): (
        (
            ("show", "command", "Show all that is configured, best with -yaml"),
            ("apply", "action", "Make what stands equal to a document on standard input; -dry-run shows what that takes"),
        ),
        "config apply -dry-run < polycube.yaml",
    ),
    ("units", ""): (
        (("show", "command", "Show all"), ("<name>", "unit", "Show one; `code` behind it: its instructions, with lines of C")),
        "units show br1:tc code",
    ),
    ("fusing", ""): (
        (("set enabled=value", "true or false", "Switch for all, until the daemon ends"), ("<cube>", "cube", "The same for a cube, kept")),
        "fusing br1 set enabled=false",
    ),
    ("openapi", ""): ((("show", "command", "Show it, best with -json"),), "openapi -json"),
    ("services", ""): (
        (
            ("show", "command", COMMAND_TEXTS["show"]),
            ("add", "command", "Load a service: name, and uri, its folder by the whole path or module:Class"),
            ("del", "command", "Unload a service that has no cubes"),
            ("<name> reload", "action", "Take its files as they are now, under traffic"),
        ),
        "services add name=mine uri=/srv/mine",
    ),
    ("metrics", ""): ((("show", "command", "Show counters of ports, drops and workers"),), ""),
    ("services", "show"): ((("<name>", "string", "Name of the service"),), "services show myservice"),
}


def word_help(command: Command, paint: Paint) -> str | None:
    """The fixed text for a built-in word, or None for everything the daemon knows better."""
    if len(command.path) != 1:
        return None
    entry = WORD_HELP.get((command.path[0], command.verb))
    if entry is None:
        return None
    rows, example = entry
    text = "\n" + lines([list(row) for row in rows], paint)
    return text + (f"\nExample:\n polycubectl {example}\n" if example else "")


def daemon_help(command: Command, data: object, paint: Paint) -> str:
    """The daemon's answer to OPTIONS ?help=..."""
    if not isinstance(data, dict):
        return NO_HELP
    rows: list[list[str]] = []
    example = ["polycubectl", *command.path, command.verb]
    parameters = members(data.get("params"))
    keys = {name: info for name, info in parameters.items() if info.get("type") == "key"}
    optional = members(data.get("optional-params"))
    if command.verb == "add" or (optional and not command.verb):  # the latter is an action
        rows += [describe(f"<{name}>" if name in keys else f"{name}=value", info) for name, info in parameters.items()]
        example += [("" if name in keys else f"{name}=") + cell(info.get("example", "")) for name, info in parameters.items()]
        if optional:
            rows += [[""]] if rows else []
            rows += [["Other parameters:"], *(describe(f"{name}=value", each) for name, each in optional.items())]
        telling = {name: info for name, info in optional.items() if info.get("example") and info.get("simpletype") != "boolean"}
        example += [f"{name}={cell(info['example'])}" for name, info in telling.items()] if command.verb else []
    elif command.verb == "set":
        rows += [describe(f"{name}=value", info) for name, info in parameters.items()]
    else:
        if not command.verb:
            rows += [[name, "command", COMMAND_TEXTS.get(name, "")] for name in names(data.get("commands"))]
        if command.verb != "del":
            suffix = "" if parameters else "=value"
            others = parameters or members(data.get("in"))
            rows += [describe(name + suffix, info) for name, info in others.items() if name not in keys]
        elements = data.get("elements")
        if isinstance(elements, list) and elements:
            rows += [element_row(element) for element in elements]
            example += element_row(elements[0])[:1]
        else:
            shown = parameters if command.verb == "del" else keys if keys == parameters else {}  # an entry's own key is known
            rows += [describe(f"<{name}>", info) for name, info in shown.items()]
            example += [cell(info.get("example", "")) for info in shown.values()]
        if not command.verb:
            rows += [[name, "action", ""] for name in names(data.get("actions"))]
    if not rows:
        return NO_HELP
    text = "\n" + lines(rows, paint)
    if command.verb in ("add", "del"):
        text += f"\nExample:\n {' '.join(filter(None, example))}\n"
    return text


def root_help(data: object, cubes: object, expert: bool, paint: Paint) -> str:
    """What there is: services, built-in words, running cubes. Without a daemon, the built-in words."""
    rows: list[list[str]] = []
    if isinstance(data, dict):
        rows += [describe(name, info) for name, info in members(data.get("params")).items()]
    rows += [[""], *([word, "command", text] for word, text in BUILT_IN if expert or word != "services")]
    if isinstance(cubes, dict) and cubes:
        rows += [[""], ["Running Services", "Type"]]
        for service, found in cubes.items():
            for cube in found if isinstance(found, list) else []:
                name = cube.get("name", "") if isinstance(cube, dict) else cube
                rows.append([cell(name), cell(service), "Running Service instance"])
    return "For help on keywords use '?'\n\n" + lines(rows, paint)


def lines(rows: list[list[str]], paint: Paint) -> str:
    """Rows under the header, the last column only where something fills it; a row of one cell is a heading."""
    columns = COLUMNS[: max((len(row) for row in rows), default=3)]
    cells = [dict(zip(columns, [f" {row[0]}", *row[1:]], strict=False)) for row in rows if len(row) > 1]
    header, *texts = table(columns, cells, paint=paint)
    found = [f" {row[0]}".rstrip() if len(row) == 1 else texts.pop(0) for row in rows]
    return "\n".join([header, *found]) + "\n"


def members(found: object) -> dict[str, dict[str, object]]:
    """A map of descriptions; anything else counts as none."""
    if not isinstance(found, dict):
        return {}
    return {str(name): info if isinstance(info, dict) else {} for name, info in found.items()}


def names(found: object) -> list[str]:
    return [cell(name) for name in found] if isinstance(found, list) else []


def describe(keyword: str, info: dict[str, object]) -> list[str]:
    kind = info.get("type")
    shown = {"list": "list", "complex": "container", "action": "action"}.get(str(kind), info.get("simpletype", ""))
    row = [cell(keyword), cell(shown), cell(info.get("description", ""))]
    example = info.get("example")
    return [*row, cell(example)] if example not in (None, "") else row


def element_row(element: object) -> list[str]:
    if not isinstance(element, dict):
        return [cell(element), "", ""]
    return [" ".join(map(cell, element.values())), " ".join(f"<{name}>" for name in element), ""]
