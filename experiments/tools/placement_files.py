"""Placement files that belong together: they share their models by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from beta_jax.placement.files import load_placement
from beta_jax.placement.hosting import statics
from beta_jax.placement.placement import Group, Placement, PlacementError, Schedule
from beta_jax.placement.problem import Problem
from beta_jax.types import Model
from experiments.engine.files import input_path


def require_valid(path: str, placement: Placement | Schedule, problem: Problem) -> None:
    """Raise PlacementError, naming the file, unless its placement is valid for the problem."""
    try:
        placement.check(problem)
    except PlacementError as error:
        raise PlacementError(f"{path}: {error}") from None


def read_placements(
    paths: Sequence[str], pools: Sequence[str] = ()
) -> tuple[dict[str, Placement | Schedule], tuple[Model, ...]]:
    """Placements by name, and the models of all files, which they share by name.

    The name is that of the file, or the path where file names are equal. pools: the names of the
    cluster's, where it has several. Raises PlacementError for
    bad files, the same file twice, and a model whose type or SLO is not the same everywhere.
    """
    if not paths or len({*paths}) < len(paths):
        raise PlacementError(f"placement files must be given, each once, got {', '.join(paths)}")
    stems = [Path(path).stem for path in paths]
    names = stems if len({*stems}) == len(stems) else paths
    loaded = {path: load_placement(input_path(path), pools) for path in paths}
    models: dict[str, Model] = {}
    for path, (_, listed) in loaded.items():
        for model in listed:
            known = models.setdefault(model.name, model)
            if (model.type, model.slo_s) != (known.type, known.slo_s):
                raise PlacementError(
                    f"{path}: {model.name} is {model.type} with an SLO of {model.slo_s:g} s, "
                    f"in a file before it {known.type} with {known.slo_s:g} s"
                )
    found: dict[str, Placement | Schedule] = {}
    for name, (placement, listed) in zip(names, loaded.values(), strict=True):
        parts = tuple(renumbered(part, listed, [*models.values()]) for part in statics(placement))
        found[name] = parts[0]
        if isinstance(placement, Schedule):
            found[name] = Schedule(placement.start_s, parts)
    return found, tuple(models.values())


def renumbered(placement: Placement, listed: Sequence[Model], models: Sequence[Model]) -> Placement:
    """A placement of the listed models, these known by the positions that `models` gives them."""
    index = {model.name: i for i, model in enumerate(models)}
    return Placement(
        tuple(
            Group(g.config, tuple(index[listed[m].name] for m in g.models))
            for g in placement.groups
        )
    )
