"""What is asked of models and devices, doubted before anything is computed."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from beta_jax.placement.problem import Problem
from beta_jax.profiles.profile import Profile
from beta_jax.types import NO_DEADLINE, TICKS_PER_SECOND

V100_GIB = 13.0
"""Usable memory of a device where nothing says it."""
MEMORY_HELP = "usable memory of a device, GiB; 13 is that of a 16 GiB V100"


def require_types(types: Iterable[str], profile: Profile, source: str) -> None:
    """Raises ValueError naming the field for model types that a profile lacks."""
    lacking = [type for type in dict.fromkeys(types) if type not in profile.types]
    if lacking:
        raise ValueError(
            f"{source} has no type {', '.join(lacking)}: --config.model_types= takes one type for "
            f"all models, or one for each, of {', '.join(profile.types)}"
        )


def tell_type(source: str, names: Sequence[str], types: Sequence[str]) -> None:
    """Print which type all models of a log are taken to have, which a log does not say."""
    if len(types) == 1 and names:
        what = f"models {_names(names)} are" if len(names) > 1 else f"model {names[0]} is"
        print(f"{source}: {what} taken as {types[0]}; --config.model_types= says otherwise")


def warn(problem: Problem, memory_gib: float | None, *, slos: bool = True) -> None:
    """Print what makes results useless.

    memory_gib: None where pools say it. slos: False where SLOs that no cluster meets are refused.
    """
    tight = too_tight(problem) if slos else ""
    for line in (tight, doubted_memory(problem.profile, memory_gib)):
        if line:
            print(f"warning: {line}", file=sys.stderr)


def too_tight(problem: Problem) -> str:
    """Why models cannot serve any request in time, however they are placed; "" if all can."""
    least, late = _idle(problem)
    if not late.any():
        return ""
    models = [model for model, is_late in zip(problem.models, late, strict=True) if is_late]
    return (
        f"the SLO of {_names([model.name for model in models])} ({models[0].slo_s:.4g} s"
        f"{'' if len(models) == 1 else ' of the first'}) is shorter than a request takes alone "
        f"({least[late][0] / TICKS_PER_SECOND:.4g} s at least, "
        f"{problem.rules.request_overhead_s:g} s of it request overhead): none of its requests can "
        "be in time; see --config.rules.request_overhead_s, --config.rules.stage_overhead and the "
        "SLOs"
    )


def none_in_time(problem: Problem) -> bool:
    """Whether no model can serve any request in time."""
    return bool(_idle(problem)[1].all())


def doubted_memory(profile: Profile, memory_gib: float | None) -> str:
    """That a profile of another chip meets the memory of a V100; "" otherwise."""
    source = profile.measured
    if memory_gib != V100_GIB or source is None or "V100" in source.chip:
        return ""
    return (
        f"devices are taken to have {V100_GIB:g} GiB, as a V100 does; the profile is of "
        f"{source.chip}: --config.memory_gib=GIB says what it has"
    )


def _idle(problem: Problem) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The least that a request of each model takes alone, in ticks, and whether it is too long."""
    from beta_jax.simulator.engine import idle_ticks, slo_ticks

    configs = sorted(
        {
            config
            for model in problem.models
            for config in problem.profile.configs(model.type)
            if config.num_devices <= problem.cluster.num_devices
        }
    )
    least = idle_ticks(problem, configs).min(1, initial=NO_DEADLINE)
    return least, (least < NO_DEADLINE) & (least > slo_ticks(problem))


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
