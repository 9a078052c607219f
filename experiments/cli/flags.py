"""Typed command-line flags from a frozen dataclass: an absl flag per field, nested ones by dots.

A field `rates: Annotated[tuple[float, ...], "requests/s"]` of a config becomes the flag
`--config.rates=2,4,8`; a field of a nested dataclass becomes `--config.rules.dispatch=round_robin`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from absl import flags

from experiments.engine.fields import Config, describe, parse_value, walk


class _Parser(flags.ArgumentParser):
    def __init__(self, annotation: Any) -> None:
        self.annotation = annotation

    def parse(self, argument: Any) -> Any:
        return parse_value(argument, self.annotation) if isinstance(argument, str) else argument


def define_flags(config: Any, flag_values: flags.FlagValues) -> None:
    """Define one flag per leaf of `config`, with the leaf's value as default."""
    for leaf in walk(config):
        if describe(leaf.annotation) == "bool":
            flags.DEFINE_boolean(leaf.name, leaf.value, leaf.help, flag_values=flag_values)
        else:
            parser = _Parser(leaf.annotation)
            flags.DEFINE(parser, leaf.name, leaf.value, leaf.help, flag_values=flag_values)


def from_flags(config: Config, flag_values: flags.FlagValues, prefix: str = "config.") -> Config:
    """`config` with every leaf replaced by the value of its flag."""
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(config):  # type: ignore[arg-type]
        name, value = f"{prefix}{field.name}", getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            changes[field.name] = from_flags(value, flag_values, f"{name}.")
        else:
            changes[field.name] = flag_values[name].value
    return dataclasses.replace(config, **changes)  # type: ignore[type-var]
