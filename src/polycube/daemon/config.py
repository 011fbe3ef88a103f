# SPDX-License-Identifier: Apache-2.0
"""The options of polycubed: defaults, then the configuration file, then the command line.

Names, defaults and the file's format are upstream's: one `longname: value` a line, `#` begins a comment, white space does not count.
Options of this daemon alone are at the end of the table. One table describes all of them, for the command line, the file and the help.

Invariants: what is wrong is said in one sentence that names the option and where it stands, as a `ConfigError`; nothing is guessed.
"""

# ruff: noqa: RUF009 (the defaults of Options are immutable)

from __future__ import annotations

import contextlib
import getopt
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import polycube
from polycube.daemon import quota
from polycube.daemon.quota import Quota
from polycube.daemon.store import DEFAULT as STORE
from polycube.daemon.workerslot import CPU, MEMORY
from polycube.model import PolycubeError, suggest

LEVELS = ("trace", "debug", "info", "warn", "err", "critical", "off")
CONFIGFILE = Path("/etc/polycube/polycubed.conf")
TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


class ConfigError(PolycubeError):
    """An option that does not work."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"Error loading config: {reason}")


def _text(value: str) -> str:
    if not value:
        raise ValueError("is empty")
    return value


def _path(value: str) -> Path:
    return Path(_text(value))


def _port(value: str) -> int:
    if not value.isascii() or not value.isdigit() or int(value) > 65535:
        raise ValueError(f"is {value!r}, expected a port number up to 65535 (0: no TCP)")
    return int(value)


def _level(value: str) -> str:
    if value.lower() not in LEVELS:
        raise ValueError(f"is {value!r}: {value} is not a valid logging level, expected {', '.join(LEVELS)}")
    return value.lower()


def _format(value: str) -> str:
    if value not in ("text", "json"):
        raise ValueError(f"is {value!r}, expected text or json")
    return value


def _flag(value: str) -> bool:
    if value.lower() not in TRUE + FALSE:
        raise ValueError(f"is {value!r}, expected true or false")
    return value.lower() in TRUE


def _names(value: str) -> tuple[str, ...]:
    return tuple(name for name in value.split(",") if name)


def _option(default: Any, parse: Callable[[str], Any], help: str, short: str = "") -> Any:
    return field(default=default, metadata={"parse": parse, "help": help, "short": short})


@dataclass(frozen=True)
class Options:
    """The settings of one run. The name of an option is that of its field, with dashes."""

    port: int = _option(9000, _port, "TCP port of the REST API", "p")
    addr: str = _option("localhost", _text, "address the REST API listens at", "a")
    loglevel: str = _option("info", _level, "what the daemon logs: this level and graver ones; cubes have levels of their own", "l")
    daemon: bool = _option(False, _flag, "run in the background", "d")
    cert: Path | None = _option(None, _path, "certificate (PEM) of the daemon: the TCP port speaks TLS", "c")
    key: Path | None = _option(None, _path, "private key of the certificate", "k")
    cacert: Path | None = _option(None, _path, "authority (PEM) that signs the certificates of clients")
    cert_whitelist: Path | None = _option(None, _path, "folder of client certificates that are accepted, whoever signed them")
    cert_blacklist: Path | None = _option(None, _path, "folder of client certificates that are refused, though the authority signed them")
    logfile: Path = _option(Path("/var/log/polycube/polycubed.log"), _path, "file to log to")
    pidfile: Path = _option(Path("/var/run/polycube.pid"), _path, "file that holds the pid while the daemon runs")
    configfile: Path = _option(CONFIGFILE, _path, "file to read options from")
    cubes_dump_enable: bool = _option(False, _flag, "cubes are always kept; this takes those of cubes-dump-file when there are none")
    cubes_dump_file: Path | None = _option(None, _path, "file of cubes, upstream's or what 'config show' gives (/etc/polycube/cubes.yaml)")
    cubes_dump_clean_init: bool = _option(False, _flag, "begin without any cube: those that stand are deleted")
    socket: Path = _option(Path("/run/polycube/polycubed.sock"), _path, "unix socket of the REST API")
    store: Path = _option(STORE, _path, "file that keeps cubes and their configuration")
    bpffs: Path = _option(Path("/sys/fs/bpf/polycube"), _path, "folder of pins, in a bpffs")
    cache: Path = _option(Path("/var/cache/polycube"), _path, "folder of compiled units")
    no_tcx: bool = _option(False, _flag, "attach by clsact even where the kernel has TCX")
    clean: bool = _option(False, _flag, "take everything of this daemon out of the kernel and exit; cubes stay in the store")
    tokens: Path | None = _option(None, _path, "file of tokens for the TCP port, 'TOKEN reader' or 'TOKEN admin' a line")
    cert_readonly: Path | None = _option(None, _path, "folder of client certificates that may only read")
    hostnames: tuple[str, ...] = _option((), _names, "further names of this host, with commas, that requests may call it by")
    no_fuse: bool = _option(False, _flag, "leave each cube a program of its own, instead of fusing chains in the background")
    logformat: str = _option("text", _format, "text, or json for one object a line")
    worker_memory: Quota = _option(MEMORY, quota.memory, "most memory of a worker, or infinity; also by service: 512M,router=2G")
    worker_cpu: Quota = _option(CPU, quota.processor, "most processor time of a worker, per cent of one; also by service: 50%,router=200%")


@dataclass(frozen=True)
class Loaded:
    """Options, and what to tell the user about how they came about."""

    options: Options
    warnings: tuple[str, ...] = ()
    exit_text: str | None = None  # of -v and -h: to be printed, then exit status 0


_FIELDS = {one.name.replace("_", "-"): one for one in fields(Options)}


def load(argv: Sequence[str], default_file: Path = CONFIGFILE) -> Loaded:
    """The options of a command line (without the program's name). Raises `ConfigError`."""
    given = _command_line(argv)
    if "version" in given:
        return Loaded(Options(), exit_text=f"polycubed version {polycube.__version__}")
    if "help" in given:
        return Loaded(Options(), exit_text=help_text())
    named = given.get("configfile")
    path = Path(named) if named else default_file
    if not path.exists():
        if named:
            raise ConfigError(f"the configuration file {path} does not exist")
        with contextlib.suppress(OSError):
            write_default(path)
    filed = _file(path)
    warnings = [
        f"'--{name}' also present on configuration file, overwritting it" for name in given if name in filed and name != "configfile"
    ]
    options = replace(Options(), configfile=path)
    for values, source in ((filed, f"in {path}"), (given, "on the command line")):
        options = replace(options, **{_FIELDS[name].name: _parsed(name, text, source) for name, text in values.items()})
    _check_tls(options)
    for name, needs in (("cubes-dump-file", options.cubes_dump_file), ("cubes-dump-clean-init", options.cubes_dump_clean_init)):
        if needs and not options.cubes_dump_enable:
            raise ConfigError(f"{name} needs cubes-dump-enable")
    return Loaded(options, tuple(warnings))


def _check_tls(options: Options) -> None:
    """What goes with what, as upstream has it; tokens are one more way to tell clients apart."""
    given = {name: getattr(options, one.name) is not None for name, one in _FIELDS.items()}
    trust = given["cacert"] or given["cert-whitelist"]
    rules = (
        (given["cert"] != given["key"], "cert and key go together"),
        (
            given["cert"] and not (given["cacert"] or given["cert-whitelist"] or given["tokens"]),
            "cert needs cacert, cert-whitelist or tokens",
        ),
        (given["cacert"] and not given["cert"], "cacert needs cert and key"),
        (given["cacert"] and given["cert-whitelist"], "cacert and cert-whitelist exclude each other"),
        (given["cert-whitelist"] and not given["cert"], "cert-whitelist needs cert and key"),
        (given["cert-whitelist"] and given["cert-blacklist"], "cert-whitelist and cert-blacklist exclude each other"),
        (given["cert-blacklist"] and not given["cacert"], "cert-blacklist needs cacert"),
        (given["cert-readonly"] and not trust, "cert-readonly needs cacert or cert-whitelist"),
    )
    for broken, sentence in rules:
        if broken:
            raise ConfigError(sentence)
    for name in ("cert-whitelist", "cert-blacklist", "cert-readonly"):
        folder = getattr(options, _FIELDS[name].name)
        if folder is not None and not folder.is_dir():
            raise ConfigError(f"{name} is {str(folder)!r}, which is no folder")


def help_text() -> str:
    """What -h prints."""
    lines = ["polycubed [OPTIONS]", ""]
    for name, one in _FIELDS.items():
        short = f"-{one.metadata['short']}, " if one.metadata["short"] else "    "
        value = "" if one.type == "bool" else f" {name.upper().replace('-', '_')}"
        default = "" if one.default in (False, None, ()) else f" (default: {one.default})"
        lines.append(f"  {short}--{name}{value}\n        {one.metadata['help']}{default}")
    lines += ["  -v, --version\n        show the version and exit", "  -h, --help\n        show this and exit"]
    return "\n".join(lines)


def describe(options: Options) -> list[str]:
    """One line an option, for the log at start."""
    return [f"{name}: {_shown(getattr(options, one.name))}" for name, one in _FIELDS.items()]


def write_default(path: Path) -> None:
    """A file that changes nothing and shows what can be changed."""
    lines = ["# configuration of polycubed: the options of the command line by their long names", ""]
    for name, one in _FIELDS.items():
        if name != "configfile":
            lines += [f"# {one.metadata['help']}", f"#{name}: {_shown(one.default)}".rstrip()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _command_line(argv: Sequence[str]) -> dict[str, str]:
    """Long name -> text. Flags may be given a value by `=`, as in -d=true and --daemon=false."""
    flags = {name for name, one in _FIELDS.items() if one.type == "bool"}
    shorts = {one.metadata["short"]: name for name, one in _FIELDS.items() if one.metadata["short"]} | {"v": "version", "h": "help"}
    given: dict[str, str] = {}
    plain = []
    for word in argv:
        flag, _, value = word.partition("=")
        name = shorts.get(flag[1:], "") if flag.startswith("-") and not flag.startswith("--") else flag[2:]
        if value and name in flags and flag.startswith("-"):
            given[name] = value
        else:
            plain.append(word)
    letters = "".join(letter + ("" if name in flags or name in ("version", "help") else ":") for letter, name in shorts.items())
    longs = [name if name in flags else f"{name}=" for name in _FIELDS] + ["version", "help"]
    try:
        found, rest = getopt.gnu_getopt(plain, letters, longs)
    except getopt.GetoptError as error:
        hint = suggest(error.opt, _FIELDS) if len(error.opt) > 1 and "not recognized" in error.msg else ""
        raise ConfigError(f"{error.msg}{hint}") from None
    if rest:
        raise ConfigError(f"{rest[0]!r} is no option")
    for option, value in found:
        word = option.lstrip("-")
        name = word if option.startswith("--") else shorts[word]
        given[name] = "true" if name in flags else value
    return given


def _file(path: Path) -> dict[str, str]:
    """Long name -> text."""
    try:
        text = path.read_text() if path.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the configuration file {path}: {error}") from None
    if path.suffix == ".toml":
        return _toml(path, text)
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        content = "".join(line.partition("#")[0].split())
        if not content:
            continue
        name, colon, value = content.partition(":")
        if not colon or name not in _FIELDS or name == "configfile":
            hint = suggest(name, [n for n in _FIELDS if n != "configfile"]) if name not in _FIELDS and colon else ""
            raise ConfigError(f"bad line in configuration file: {path}:{number} -> {line.strip()}{hint}")
        found[name] = value
    return found


def _toml(path: Path, text: str) -> dict[str, str]:
    """The same options as a TOML table; texts, numbers, booleans, and arrays for what takes several."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"the configuration file {path} is not TOML: {error}") from None
    found = {}
    for name, value in table.items():
        if name not in _FIELDS or name == "configfile":
            raise ConfigError(f"{path} has {name}, which is no option{suggest(name, [n for n in _FIELDS if n != 'configfile'])}")
        if isinstance(value, list) and all(isinstance(one, str) for one in value):
            value = tuple(value)
        if not isinstance(value, str | bool | int | tuple):
            raise ConfigError(f"{name} in {path} is {value!r}, expected text, a number, true or false")
        found[name] = _shown(value)
    return found


def _parsed(name: str, text: str, source: str) -> Any:
    try:
        return _FIELDS[name].metadata["parse"](text)
    except ValueError as error:
        raise ConfigError(f"{name} {source} {error}") from None
