"""Files of placements: JSON, models by their names."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from beta_jax.checks import read_bytes
from beta_jax.placement.codec import group_from_document, groups_to_document
from beta_jax.placement.placement import Placement, PlacementError, Schedule
from beta_jax.types import Model

FORMAT, VERSION = "beta_jax.placement", 1


def save_placement(
    path: str | os.PathLike[str],
    placement: Placement | Schedule,
    models: tuple[Model, ...],
    pools: Sequence[str] = (),
) -> None:
    """Write a placement or schedule, with its models, as JSON. Written whole or not at all.

    pools: the names of the cluster's pools (`Cluster.names`), which groups then name; with one or
    none they do not.
    """

    def groups(static: Placement) -> list[dict[str, Any]]:
        return groups_to_document(static, lambda model: models[model].name, pools)

    document: dict[str, Any] = {"format": FORMAT, "version": VERSION}
    document["models"] = [
        {"name": m.name, "type": m.type, "slo_s": m.slo_s if math.isfinite(m.slo_s) else "inf"}
        for m in models
    ]
    if isinstance(placement, Schedule):
        document["segments"] = [
            {"start_s": start, "groups": groups(static)}
            for start, static in zip(placement.start_s, placement.placements, strict=True)
        ]
    else:
        document["groups"] = groups(placement)
    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(document, indent=1) + "\n")
    temporary.replace(path)


def load_placement(
    path: str | os.PathLike[str], pools: Sequence[str] = ()
) -> tuple[Placement | Schedule, tuple[Model, ...]]:
    """Read what `save_placement` writes. Raises PlacementError naming the file and the place.

    pools: the names of the cluster's pools; a group that names none is in the first.
    """
    try:
        text = read_bytes(Path(path))
    except OSError as error:
        raise PlacementError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise PlacementError(f"{path}: {error}") from None
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PlacementError(f"{path}: not JSON: {error}") from None
    header = {"format": FORMAT, "version": VERSION}
    if not isinstance(document, dict) or not header.items() <= document.items():
        raise PlacementError(f"{path}: not a placement file (needs {json.dumps(header)})")
    with _place(path, "models"):
        models = tuple(Model(m["name"], m["type"], float(m["slo_s"])) for m in document["models"])
        index = {model.name: i for i, model in enumerate(models)}
        if len(index) < len(models):
            raise ValueError("two models have the same name")
    if "segments" not in document:
        return _read_groups(path, document, index, pools, ""), models
    with _place(path, "segments"):
        starts = tuple(float(segment["start_s"]) for segment in document["segments"])
        placements = tuple(
            _read_groups(path, segment, index, pools, f"segment {number}, ")
            for number, segment in enumerate(document["segments"])
        )
        return Schedule(starts, placements), models


def _read_groups(
    path: str | os.PathLike[str],
    owner: dict[str, Any],
    index: dict[str, int],
    pools: Sequence[str],
    where: str,
) -> Placement:
    groups = []
    with _place(path, f"{where}groups"):
        for number, row in enumerate(owner["groups"]):
            with _place(path, f"{where}group {number}"):
                groups.append(group_from_document(row, index.__getitem__, pools))
    return Placement(tuple(groups))


@contextlib.contextmanager
def _place(path: str | os.PathLike[str], place: str) -> Iterator[None]:
    """Name the file and the place in it in whatever goes wrong inside."""
    try:
        yield
    except PlacementError as error:
        named = str(error).startswith(str(path))
        raise PlacementError(str(error) if named else f"{path}: {place}: {error}") from None
    except KeyError as error:
        raise PlacementError(f"{path}: {place}: unknown or missing {error}") from None
    except (TypeError, ValueError, OverflowError) as error:
        raise PlacementError(f"{path}: {place}: {error}") from None
