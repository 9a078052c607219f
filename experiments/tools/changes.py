"""What changes from one placement to others, as tables."""

from __future__ import annotations

from collections.abc import Mapping

from beta_jax.placement.changes import Change, compare_placements
from beta_jax.placement.placement import Placement, Schedule
from beta_jax.placement.problem import Problem
from beta_jax.types import GB
from experiments.report.tables import Row

FILE = "changes.csv"


def from_first(
    problem: Problem, placements: Mapping[str, Placement | Schedule]
) -> dict[str, Change]:
    """What changes from the first placement to each of them, by name; schedules are left out."""
    static = {name: p for name, p in placements.items() if isinstance(p, Placement)}
    first = static.get(next(iter(placements)))
    if first is None:
        return {}
    return {name: compare_placements(problem, first, p) for name, p in static.items()}


def moved(changes: Mapping[str, Change], name: str) -> dict[str, float]:
    """The column of a summary: GiB of weights to load; NaN where that is not known."""
    return {"moved_gib": changes[name].bytes_moved / GB if name in changes else float("nan")}


def rows(changes: Mapping[str, Change]) -> list[Row]:
    """A row per group of every change but the first, which is from a placement to itself."""
    if not changes:
        return []
    first, *others = changes
    return [
        {"from": first, "to": name, "change": group.kind, "from_group": group.old}
        | {"to_group": group.new, "from_config": group.old_config, "to_config": group.new_config}
        | {what: changes[name].names(getattr(group, what)) for what in ("kept", "dropped", "added")}
        | {"bytes_moved": group.bytes_moved}
        for name in others
        for group in changes[name].groups
    ]
