"""What has to be planned: which models, on which cluster, with which profile, under which rules."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from beta_jax.profiles.profile import Profile
from beta_jax.types import PUBLISHED_RULES, Cluster, Model, Rules
from beta_jax.workloads.synthesis import split_rate


@dataclasses.dataclass(frozen=True)
class Problem:
    """A placement problem. A model's position in `models` is its index everywhere else.

    Raises ProfileError if a model's type is not in the profile.
    """

    models: tuple[Model, ...]
    cluster: Cluster
    profile: Profile
    rules: Rules = PUBLISHED_RULES

    def __post_init__(self) -> None:
        object.__setattr__(self, "models", tuple(self.models))
        names = [model.name for model in self.models]
        if not names:
            raise ValueError("a problem needs at least one model")
        if len(set(names)) < len(names):
            raise ValueError(
                f"model names must differ: {sorted({n for n in names if names.count(n) > 1})}"
            )
        for model in self.models:
            self.profile.configs(model.type)


def make_models(
    model_types: Sequence[str],
    profile: Profile,
    *,
    slo_scale: float,
    total_rate_rps: float = 0.0,
    split: str | Sequence[float] = "uniform",
    cv: float = 1.0,
) -> tuple[Model, ...]:
    """One model per entry of `model_types`, named `<type>-<index>`.

    The SLO is `slo_scale` times the type's single-device latency at batch size 1 (Beta, OSDI 2023,
    section 6.1); `total_rate_rps` is shared out by `split` (see `workload.split_rate`).
    """
    if not slo_scale > 0:
        raise ValueError(f"SLO scale must be > 0, got {slo_scale}")
    rates = split_rate(total_rate_rps, len(model_types), split)
    return tuple(
        Model(
            f"{kind}-{i}", kind, slo_scale * profile.single_device_latency_s(kind), float(rate), cv
        )
        for i, (kind, rate) in enumerate(zip(model_types, rates, strict=True))
    )
