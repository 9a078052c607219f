"""The fields of configs and scenarios: leaves of a tree of frozen dataclasses, and their text."""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, TypeVar

from absl import flags

Config = TypeVar("Config")


def parse_value(text: str, annotation: Any) -> Any:
    """Read `text` as int, float, str, bool, Literal, `X | None` ("none") or `tuple[X, ...]`.

    Raises ValueError with what was expected; NaN is never accepted.
    """
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return parse_value(text, args[0])
    if origin is tuple:
        return tuple(parse_value(part.strip(), args[0]) for part in text.split(",")) if text else ()
    if origin in (typing.Union, types.UnionType):
        inner = next(arg for arg in args if arg is not types.NoneType)
        return None if text.lower() == "none" else parse_value(text, inner)
    if origin is Literal:
        if text not in args:
            raise ValueError(f"expected one of {', '.join(args)}")
        return text
    if annotation is bool:
        return flags.BooleanParser().parse(text)
    try:
        value = annotation(text)
    except ValueError:
        value = math.nan
    if value != value:
        raise ValueError(f"expected {describe(annotation)}, got {text!r}")
    return value


def describe(annotation: Any) -> str:
    """How help and error messages call a field's type."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return describe(args[0])
    if origin is tuple:
        return f"{describe(args[0])},..."
    if origin in (typing.Union, types.UnionType):
        inner = next(arg for arg in args if arg is not types.NoneType)  # that of `parse_value`
        return describe(inner) + (" or none" if types.NoneType in args else "")
    return "|".join(args) if origin is Literal else annotation.__name__


def render(value: Any) -> str:
    """A field's value as one would type it."""
    if isinstance(value, tuple):
        return ",".join(map(render, value))
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return "none" if value is None else str(value)


@dataclasses.dataclass(frozen=True)
class Field:
    """A leaf of a config: dotted name, annotation, value; help from `Annotated[X, help]`."""

    name: str
    annotation: Any
    value: Any

    @property
    def help(self) -> str:
        metadata = getattr(self.annotation, "__metadata__", ())
        return metadata[0] if metadata else ""


def walk(config: Any, prefix: str = "config.") -> Iterator[Field]:
    """The leaves of a dataclass tree, in order of definition, named `<prefix><field>.<field>`."""
    hints = _hints(type(config))  # type: ignore[arg-type]
    for field in dataclasses.fields(config):
        name, value = f"{prefix}{field.name}", getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from walk(value, f"{name}.")
        else:
            yield Field(name, hints[field.name], value)


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind, include_extras=True)


def replace(config: Config, changes: Mapping[str, Any]) -> Config:
    """`config` with some fields changed, read as their flags would be: 4 for a float is 4.0.

    Raises ValueError for a field that is not there, or a value of another type.
    """
    fields = {leaf.name: leaf.annotation for leaf in walk(config, "")}
    nested = {f.name for f in dataclasses.fields(config)} - {*fields}  # type: ignore[arg-type]
    for name in changes:
        if name not in fields and name not in nested:
            raise ValueError(f"no field {name!r}; there are {', '.join([*fields, *nested])}")
    values = {
        name: value
        if name in nested
        else parse_value(render(tuple(value) if isinstance(value, list) else value), fields[name])
        for name, value in changes.items()
    }
    return dataclasses.replace(config, **values)  # type: ignore[type-var]
