# SPDX-License-Identifier: Apache-2.0
"""Contents of maps as data, and data as OpenMetrics text. No I/O.

Data: a struct or union is an object of its members, an array a list, of `char` a text, an enumerator its name, any other number a number.
A map is a list: of values (arrays by index, queues and stacks in the order in which they were taken), or of `{"key", "value"}`. The value
of a per-CPU map is a list with one value for each CPU.

OpenMetrics (openmetrics.io, specification 1.0): a sample for each number in a value. What tells samples of a map apart becomes labels:
`direction` if both have a metric of the name, members of the key, `index` of an array that has more than one entry, `member` of a struct,
`element` of an array in a value, `cpu`. Of counters, the CPUs are added up. A histogram is an array of counts whose i-th entry has values
up to 2**i; a summary a struct with the members `sum` and `count`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from polycube.bpf import Layout
from polycube.cubes.dynmon.model import MetricType, OpenMetricsMetadata

Labels = tuple[tuple[str, str], ...]
TYPES = {
    MetricType.COUNTER: "counter",
    MetricType.GAUGE: "gauge",
    MetricType.HISTOGRAM: "histogram",
    MetricType.SUMMARY: "summary",
    MetricType.UNTYPED: "unknown",
}


@dataclass(frozen=True)
class Entry:
    """An entry of a map. `key` None: of an array, queue or stack, at `index`. `values`: one, or one for each CPU."""

    values: Sequence[Any]
    percpu: bool = False
    key: Any = None
    index: int = 0

    def as_data(self) -> Any:
        """As it stands in JSON."""
        value = list(self.values) if self.percpu else self.values[0]
        return value if self.key is None else {"key": self.key, "value": value}


def readable(layout: Layout, raw: bytes) -> Any:
    """Bytes of a C type as data."""
    if layout.kind == "enum":
        number = int.from_bytes(raw[: layout.size], "little", signed=layout.signed)
        return next((name for name, value in layout.names if value == number), number)
    if layout.kind in ("struct", "union"):
        return {one.name: readable(one.layout, raw[one.offset : one.offset + one.layout.size]) for one in layout.fields}
    if layout.kind == "array":
        assert layout.element
        if layout.element.char:
            return raw[: layout.size].split(b"\0", 1)[0].decode(errors="backslashreplace")
        step = layout.element.size
        return [readable(layout.element, raw[at : at + step]) for at in range(0, step * layout.count, step or 1)]
    return layout.unpack(raw)


def flat(value: Any, labels: Labels = ()) -> Iterator[tuple[Labels, int]]:
    """The numbers in a value, each with labels that say where it stands."""
    if isinstance(value, int):
        yield labels, value
    elif isinstance(value, dict):
        for name, member in value.items():
            yield from flat(member, _within(labels, "member", name))
    elif isinstance(value, list):
        for index, element in enumerate(value):
            yield from flat(element, _within(labels, "element", str(index)))


def key_labels(key: Any, name: str = "key") -> Labels:
    """Labels from a key: its members by their names."""
    if isinstance(key, dict):
        return tuple(label for member, value in key.items() for label in key_labels(value, member if name == "key" else f"{name}_{member}"))
    if isinstance(key, list):
        return ((name, ".".join(map(str, key))),)
    return ((name, str(key)),)


def open_metrics(families: Sequence[tuple[str, str, OpenMetricsMetadata, Sequence[Entry]]]) -> str:
    """The whole text, of metrics by direction and name. A name that comes twice is one family, of the first one's type."""
    found: dict[str, _Family] = {}
    directions: dict[str, set[str]] = {}
    for direction, name, about, _ in families:
        directions.setdefault(_base(name, about), set()).add(direction)
    for direction, name, about, entries in families:
        base = _base(name, about)
        family = found.setdefault(base, _Family(base, about.type, about.help))
        constant = tuple((label.name, label.value) for label in about.labels.values())
        if len(directions[base]) > 1:
            constant = _merged(constant, (("direction", direction),))
        family.samples.update({sample: value for sample, value in _samples(family.type, constant, entries)})
    return "".join(map(str, found.values())) + "# EOF\n"


def _base(name: str, about: OpenMetricsMetadata) -> str:
    return name.removesuffix("_total") if about.type is MetricType.COUNTER else name


@dataclass
class _Family:
    name: str
    type: MetricType
    help: str
    samples: dict[tuple[str, Labels], int] = field(default_factory=dict)  # suffix and labels -> value

    def __str__(self) -> str:
        lines = [f"# TYPE {self.name} {TYPES[self.type]}", f"# HELP {self.name} {_escaped(self.help)}"]
        for (suffix, labels), value in self.samples.items():
            inside = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels)
            lines.append(f"{self.name}{suffix}{{{inside}}} {value}" if inside else f"{self.name}{suffix} {value}")
        return "\n".join(lines) + "\n"


def _samples(type: MetricType, constant: Labels, entries: Sequence[Entry]) -> Iterator[tuple[tuple[str, Labels], int]]:
    if type is MetricType.HISTOGRAM:
        yield from _histogram(constant, entries)
        return
    suffix = "_total" if type is MetricType.COUNTER else ""
    for labels, value in _values(constant, entries, type):
        if type is MetricType.SUMMARY:
            if isinstance(value, dict):
                yield from ((("_" + part, labels), value[part]) for part in ("count", "sum") if isinstance(value.get(part), int))
            continue
        for more, number in flat(value, labels):
            yield (suffix, more), number


def _values(constant: Labels, entries: Sequence[Entry], type: MetricType) -> Iterator[tuple[Labels, Any]]:
    """Values with their labels; the CPUs' are one where they can be added up."""
    for entry in entries:
        own = key_labels(entry.key) if entry.key is not None else (("index", str(entry.index)),) if len(entries) > 1 else ()
        labels = _merged(constant, own)
        if entry.percpu and type is MetricType.GAUGE:
            for cpu, value in enumerate(entry.values):
                yield _within(labels, "cpu", str(cpu)), value
        else:
            yield labels, added(entry.values)


def added(values: Sequence[Any]) -> Any:
    """Values of the same shape, their numbers added up."""
    first = values[0]
    if isinstance(first, dict):
        return {name: added([value[name] for value in values]) for name in first}
    if isinstance(first, list):
        return [added(elements) for elements in zip(*values, strict=True)]
    return sum(values) if isinstance(first, int) else first


def _histogram(constant: Labels, entries: Sequence[Entry]) -> Iterator[tuple[tuple[str, Labels], int]]:
    """Of an array; keyed maps have one for each key, whose value is an array."""
    groups: list[tuple[Labels, list[Any]]] = []
    if entries and entries[0].key is None:
        groups.append((constant, [added(entry.values) for entry in entries]))
    else:
        groups += [(_merged(constant, key_labels(entry.key)), added(entry.values)) for entry in entries]
    for labels, counts in groups:
        if not isinstance(counts, list) or any(not isinstance(count, int) for count in counts):
            continue
        total = 0
        for power, count in enumerate(counts):
            total += count
            bound = "+Inf" if power == len(counts) - 1 else f"{float(1 << power)}"
            yield ("_bucket", _within(labels, "le", bound)), total


def _merged(constant: Labels, own: Labels) -> Labels:
    taken = {name for name, _ in constant}
    return (*constant, *((name, value) for name, value in own if name not in taken))


def _within(labels: Labels, name: str, value: str) -> Labels:
    """One more label; a name that is there already goes on with a dot."""
    known: Mapping[str, str] = dict(labels)
    if name in known:
        return tuple((n, f"{v}.{value}" if n == name else v) for n, v in labels)
    return (*labels, (name, value))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
