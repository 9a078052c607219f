"""Which placements there are in what a policy returns, and whether they host anything."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from beta_jax.placement.placement import Placement, Schedule


class NothingPlacedError(ValueError):
    """No model has a replica anywhere."""


def statics(placement: Placement | Schedule) -> Sequence[Placement]:
    """The placements of a schedule, or the one there is."""
    return placement.placements if isinstance(placement, Schedule) else (placement,)


def hosts_any(placement: Placement | Schedule) -> bool:
    """Whether any model has a replica."""
    return any(static.num_replicas for static in statics(placement))


def require_placed(any_hosted: bool, warnings: Iterable[str]) -> None:
    """Raise NothingPlacedError, with why, unless some placement hosts a model."""
    if not any_hosted:
        first: dict[str, str] = {}  # of each reason, whichever policy had it
        for warning in warnings:
            first.setdefault(warning.partition(": ")[2], warning)
        reasons = "; ".join([*first.values()][:2])
        raise NothingPlacedError(f"no model is placed: {reasons or 'no policy says why'}")
