# SPDX-License-Identifier: Apache-2.0
"""What an author writes a data model with: `Node`, the member helpers, `Keyed` lists and `Action`s.

Mechanism: a `Node` is a frozen pydantic model whose members are declared by `key`, `leaf`, `state`, `listing` and
`container`. The flags of a member travel in the field's JSON-schema extras (`x-key`, `x-init-only`, `readOnly`), so
that schema, help, YANG and docs read them from one place. Names on the wire are the attribute's with dashes.

Invariants: nodes and `Keyed` lists never change; edits make new ones that share all untouched parts, so identity is
a valid and cheap "nothing changed here". Every member has a description and was declared by one of the helpers.
A `Keyed` list is keyed by its element's key leaves: the bare key if there is one, else the tuple, in declaration order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, ItemsView, Iterable, Iterator, KeysView, Mapping, Sequence, ValuesView
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, ClassVar, Generic, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

INPUT = {"input": True}  # validation context of whatever users send: read-only members are refused

T = TypeVar("T", bound="Node")
E = TypeVar("E", bound="Node", covariant=True)


@dataclass(frozen=True)
class Metric:
    """How a member shows among the metrics: a list by the number of its elements, a leaf by its value, or 1 if that is no number.

    `kind` is "counter" (never goes down) or "gauge". Without a `name` it is called `polycube_<service>_<path>` and has the label `cube`
    and the keys of the lists it is in. With one (upstream's) it has that name, the label `cubeName`, and is the sum over those lists.
    """

    kind: str
    name: str = ""


COUNTER, GAUGE = Metric("counter"), Metric("gauge")


def wire_name(attribute: str) -> str:
    """The name on the wire of a Python attribute."""
    return attribute.strip("_").replace("_", "-")


def _member(kind: str, description: str, name: str | None, flags: Mapping[str, Any], **field: Any) -> Any:
    extra = {"x-kind": kind, **{flag: value for flag, value in flags.items() if value}}
    return Field(description=description, alias=name, json_schema_extra=extra, **field)


def leaf(
    description: str,
    *,
    default: Any = ...,
    init_only: bool = False,
    example: str | None = None,
    name: str | None = None,
    metric: Metric | None = None,
) -> Any:
    """A configured value; mandatory if it has no default. `init_only`: settable at creation only."""
    field: dict[str, Any] = {} if default is ... else {"default": default}
    if default == () and default is not ...:
        field["exclude_if"] = _empty
    return _member("leaf", description, name, {"x-init-only": init_only, "x-example": example, "x-metric": metric}, **field)


def key(description: str, *, example: str | None = None, name: str | None = None) -> Any:
    """A leaf that identifies the element in its list; keys count in the order of declaration."""
    return _member("leaf", description, name, {"x-key": True, "x-example": example})


def state(description: str, *, default: Any = None, name: str | None = None, metric: Metric | None = None) -> Any:
    """A read-only operational value: reported, never configured, never stored. Annotate it with `| None`."""
    return _member("leaf", description, name, {"readOnly": True, "x-metric": metric}, default=default)


def listing(
    description: str,
    *,
    init_only: bool = False,
    read_only: bool = False,
    keyless: bool = False,
    implied: bool = False,
    name: str | None = None,
    metric: Metric | None = None,
) -> Any:
    """A list of nodes, `Keyed[Element]`, empty by default. `keyless`, in the input of actions only: elements are told by their places.
    `implied`: elements are there of themselves, with their defaults, and are configured by changing them."""
    flags = {"x-init-only": init_only, "readOnly": read_only, "x-keyless": keyless, "x-implied": implied, "x-metric": metric}
    return _member("list", description, name, flags, default=(), validate_default=True, exclude_if=_empty)


def container(description: str, *, presence: bool = False, read_only: bool = False, name: str | None = None) -> Any:
    """A nested node that always exists; with `presence` (annotated `| None`) one that may be absent."""
    flags = {"x-presence": presence, "readOnly": read_only}
    if presence:
        return _member("container", description, name, flags, default=None)
    return _member("container", description, name, flags, default=_Default(), validate_default=True)


class _Default(dict[str, Any]):
    """The default of a container. A body never holds one (nor a tuple, the default of a list): nobody sent it."""


def _empty(value: Any) -> bool:
    return not value


class Action:
    """An operation on a node: `flush: ClassVar = Action("Removes the learned entries", output=Flushed)`.

    With `media`, a media type, it is a stream of bytes that is read (GET) until one side has enough.
    """

    name: str

    def __init__(
        self, description: str, *, input: type[Node] | None = None, output: type[Node] | None = None, media: str = "", name: str = ""
    ) -> None:
        self.description = description
        self.input = input
        self.output = output
        self.media = media
        self.name = name

    def __set_name__(self, owner: type, attribute: str) -> None:
        self.attr = attribute
        self.name = self.name or wire_name(attribute)


def _extra(info: Any) -> dict[str, Any]:
    extra = info.json_schema_extra
    return extra if isinstance(extra, dict) else {}


def _fields_of(schema: Any) -> dict[str, Any]:
    """The fields of a model's core schema, below whatever validators wrap it."""
    while schema["type"] != "model-fields":
        if "schema" not in schema:
            return {}
        schema = schema["schema"]
    return dict(schema["fields"])


def _without_bool(schema: Any) -> Any:
    """pydantic takes true for 1; a model says integer and means it."""
    if schema["type"] == "int":
        return core_schema.no_info_before_validator_function(refuse_bool, schema)
    if schema["type"] in ("nullable", "default"):
        return {**schema, "schema": _without_bool(schema["schema"])}
    return schema


def refuse_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise PydanticCustomError("int_type", "Input should be a valid integer")
    return value


def _refuse_state(value: Any, info: core_schema.ValidationInfo) -> Any:
    if info.context is INPUT and not isinstance(value, (tuple, _Default)):
        raise PydanticCustomError("read_only", "is read-only")
    return value


class Node(BaseModel):
    """A container or the element of a list. See the module's docstring."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=wire_name,
        validate_by_name=True,
        validate_by_alias=True,
        ignored_types=(Action,),
        allow_inf_nan=False,
    )

    key_attrs: ClassVar[tuple[str, ...]] = ()
    key_of: ClassVar[Callable[[Any], Any]]  # of an element: the bare value, or a tuple if there are several key leaves

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        for attribute, info in cls.model_fields.items():
            extra = info.json_schema_extra
            if not isinstance(extra, dict) or "x-kind" not in extra:
                raise TypeError(f"{cls.__name__}.{attribute}: declare it by leaf, key, state, listing or container")
            if not info.description:
                raise TypeError(f"{cls.__name__}.{attribute} has no description")
        cls.key_attrs = tuple(name for name, info in cls.model_fields.items() if (_extra(info)).get("x-key"))
        if cls.key_attrs:
            cls.key_of = attrgetter(*cls.key_attrs)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        fields = _fields_of(schema)
        for attribute, field in fields.items():
            info = cls.__pydantic_fields__.get(attribute)
            holder = field
            while holder["schema"]["type"] == "default":
                holder = holder["schema"]
            inner = _without_bool(holder["schema"])
            if info is not None and _extra(info).get("readOnly"):
                inner = core_schema.with_info_before_validator_function(_refuse_state, inner)
            holder["schema"] = inner
        return schema


def key_of(element: Node) -> Any:
    """The key of an element in its list: the bare value, or a tuple if there are several key leaves."""
    return type(element).key_of(element)


class Keyed(Mapping[Any, E], Generic[E]):
    """An immutable list of nodes keyed by their key leaves, or where they have none (in the input of actions) by their places.

    Iterates over keys, as mappings do.
    """

    __slots__ = ("_elements",)
    _elements: dict[Any, E]

    def __init__(self, elements: Iterable[E] = ()) -> None:
        self._elements = {}
        for element in elements:
            self._elements[key_of(element) if type(element).key_attrs else len(self._elements)] = element

    def adding(self, *elements: Node) -> Keyed[E]:
        """A copy with these elements added, or put in the place of those with the same key."""
        return self._with({key_of(element): element for element in elements}, ())

    def without(self, *keys: Any) -> Keyed[E]:
        """A copy without the elements of these keys."""
        return self._with({}, keys)

    def replaced(self, elements: Sequence[Any]) -> Keyed[E]:
        """A list of these elements, or the same one if they are its own."""
        same = len(elements) == len(self) and all(new is old for new, old in zip(elements, self.values(), strict=True))
        return self if same else Keyed(elements)

    @property
    def kept(self) -> Collection[E]:
        """The elements, in order, as the objects that an edit of others leaves alone, with the keys under which they are stored."""
        return self._elements.values()

    @classmethod
    def _of_input(cls, elements: list[Any]) -> Keyed[E]:
        return cls(elements)

    def _with(self, added: Mapping[Any, Any], removed: Iterable[Any]) -> Keyed[E]:
        copy: Keyed[E] = Keyed()
        elements = self._elements.copy()
        for gone in removed:
            del elements[gone]
        elements.update(added)
        copy._elements = elements
        return copy

    def __getitem__(self, key: Any) -> E:
        return self._elements[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._elements)

    def __len__(self) -> int:
        return len(self._elements)

    def __contains__(self, key: object) -> bool:
        return key in self._elements

    def keys(self) -> KeysView[Any]:
        return self._elements.keys()

    def values(self) -> ValuesView[E]:
        return self._elements.values()

    def items(self) -> ItemsView[Any, E]:
        return self._elements.items()

    def get(self, key: Any, default: Any = None) -> Any:
        return self._elements.get(key, default)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Keyed) and self._elements == other._elements)

    def __hash__(self) -> int:
        return hash(frozenset(self._elements.items()))

    def __repr__(self) -> str:
        return f"Keyed({list(self._elements.values())!r})"

    def __reduce__(self) -> Any:
        return Keyed, (list(self._elements.values()),)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        (element,) = get_args(source)
        schema = core_schema.list_schema(handler.generate_schema(element))

        def build(value: Any, validate: core_schema.ValidatorFunctionWrapHandler, info: core_schema.ValidationInfo) -> Keyed[Any]:
            if isinstance(value, Keyed):
                return value
            elements = validate(value)
            keyed: Keyed[Any] = cls._of_input(elements) if info.context is INPUT else cls(elements)
            if len(keyed) != len(elements):
                twice, _ = Counter(map(key_of, elements)).most_common(1)[0]
                raise PydanticCustomError("duplicate_key", "holds {key} twice", {"key": key_text(twice)})
            return keyed

        return core_schema.with_info_wrap_validator_function(
            build,
            schema,
            serialization=core_schema.plain_serializer_function_ser_schema(lambda keyed: list(keyed.values()), return_schema=schema),
        )


def key_text(key: Any) -> str:
    """A key in words, as in `10.0.0.0/24 10.0.1.1`."""
    return " ".join(str(part) for part in key) if isinstance(key, tuple) else str(key)
