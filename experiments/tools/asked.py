"""What is asked of models and devices, doubted before anything is computed."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from beta_jax.placement.problem import Problem
from beta_jax.profiles.profile import Profile

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
    least_s = [_least_latency_s(problem, model.type) for model in problem.models]
    late = [
        (model, least)
        for model, least in zip(problem.models, least_s, strict=True)
        if model.slo_s < least
    ]
    if not late:
        return ""
    model, least = late[0]
    rules = problem.rules
    return (
        f"the SLO of {_names([model.name for model, _ in late])} ({model.slo_s:.4g} s"
        f"{'' if len(late) == 1 else ' of the first'}) is shorter than a request takes alone "
        f"({least:.4g} s at least, {rules.request_overhead_s:g} s of it request overhead): none of "
        "its requests can be in time; see --config.rules.request_overhead_s, "
        "--config.rules.stage_overhead and the SLOs"
    )


def none_in_time(problem: Problem) -> bool:
    """Whether no model can serve any request in time."""
    return all(model.slo_s < _least_latency_s(problem, model.type) for model in problem.models)


def doubted_memory(profile: Profile, memory_gib: float | None) -> str:
    """That a profile of another chip meets the memory of a V100; "" otherwise."""
    source = profile.measured
    if memory_gib != V100_GIB or source is None or "V100" in source.chip:
        return ""
    return (
        f"devices are taken to have {V100_GIB:g} GiB, as a V100 does; the profile is of "
        f"{source.chip}: --config.memory_gib=GIB says what it has"
    )


def _least_latency_s(problem: Problem, type: str) -> float:
    """Of a request alone, in the fastest configuration that the cluster has devices for."""
    profile, rules = problem.profile, problem.rules
    return rules.request_overhead_s + min(
        (
            float(profile.stage_latency_s(type, config, 1).sum())
            * (1 + rules.stage_overhead * config.pp)
            for config in profile.configs(type)
            if config.num_devices <= problem.cluster.num_devices
        ),
        default=0.0,
    )


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
