"""What experiments ask of the placements that policies return."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from beta_jax.placement import Placement, Schedule
from beta_jax.search import Result


class NothingPlacedError(ValueError):
    """No model has a replica anywhere."""


def statics(placement: Placement | Schedule) -> Sequence[Placement]:
    """The placements of a schedule, or the one there is."""
    return placement.placements if isinstance(placement, Schedule) else (placement,)


def require_placed(results: Collection[Result]) -> None:
    """Raise NothingPlacedError if no model has a replica in any of the results."""
    if any(static.num_replicas for result in results for static in statics(result.placement)):
        return
    reasons = dict.fromkeys(warning for result in results for warning in result.warnings)
    raise NothingPlacedError("; ".join(list(reasons)[:2]) or "nothing could be placed")


def document(placement: Placement | Schedule) -> dict[str, Any]:
    """The placement as JSON, models by their index."""
    segments = [
        [
            {"op": g.config.op, "pp": g.config.pp, "models": list(map(int, g.models))}
            for g in static.groups
        ]
        for static in statics(placement)
    ]
    if isinstance(placement, Placement):
        return {"groups": segments[0]}
    return {"start_s": list(placement.start_s), "segments": segments}
