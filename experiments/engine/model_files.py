"""Files that list the served models: a CSV with a header, or a JSON list of objects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.engine.files import read_rows


class ModelFileError(ValueError):
    """A file of models that makes no sense; the message names the file and the model."""


class ModelSpec(NamedTuple):
    """A served model as a file describes it; None where the file leaves it to the config.

    rate_share: proportional to its request rate. slo_s: its SLO in seconds; slo_scale: its SLO as a
    multiple of its type's single-device latency.
    """

    type: str
    name: str | None = None
    rate_share: float | None = None
    slo_s: float | None = None
    slo_scale: float | None = None


def read_models(path: Path) -> tuple[ModelSpec, ...]:
    """Read a file of models. Raises ModelFileError."""
    try:
        rows = read_rows(path)
    except ValueError as error:
        raise ModelFileError(str(error)) from None
    if not rows:
        raise ModelFileError(f"{path}: no models; a CSV with a header or a JSON list is expected")
    models = tuple(_spec(f"{path}, model {i}", row) for i, row in enumerate(rows, 1))
    _check(path, models)
    return models


def _spec(where: str, row: Any) -> ModelSpec:
    if not isinstance(row, Mapping) or not {*row} <= {*ModelSpec._fields}:
        raise ModelFileError(f"{where}: its columns must be among {', '.join(ModelSpec._fields)}")
    given: dict[str, Any] = {n: value for n, value in row.items() if value not in (None, "")}
    if "type" not in given:
        raise ModelFileError(f"{where} has no type")
    if {"slo_s", "slo_scale"} <= {*given}:
        raise ModelFileError(f"{where} has both slo_s and slo_scale")
    for name in {*given} - {"type", "name"}:
        try:
            given[name] = float(given[name])
        except (TypeError, ValueError, OverflowError):
            raise ModelFileError(f"{where}: {name} is {given[name]!r}, not a number") from None
    return ModelSpec(**given | {n: str(given[n]) for n in ("type", "name") if n in given})


def _check(path: Path, models: Sequence[ModelSpec]) -> None:
    """A share or a name for one model asks for all."""
    for what in ("rate_share", "name"):
        missing = [i for i, model in enumerate(models, 1) if getattr(model, what) is None]
        if 0 < len(missing) < len(models):
            raise ModelFileError(f"{path}: model {missing[0]} has no {what}, others have")


def shares(models: Iterable[ModelSpec]) -> list[float] | None:
    """The rate shares, or None where the file has none."""
    given = [model.rate_share for model in models if model.rate_share is not None]
    return given or None
