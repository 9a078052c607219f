"""What has to be planned: which models, on which cluster, with which profile, under which rules."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from beta_jax.checks import require_numbers
from beta_jax.profiles.profile import Profile, ProfileError
from beta_jax.types import PUBLISHED_RULES, Cluster, Model, Rules
from beta_jax.workloads.synthesis import split_rate


@dataclasses.dataclass(frozen=True, init=False)
class Problem:
    """A placement problem. A model's position in `models` is its index everywhere else.

    profile: of a cluster of several pools give one for each by name; they become one, which tells
    pools apart by the configuration (see `Profile.of_pools`).
    Raises ProfileError if a model's type is in no profile, and for pools without one.
    """

    models: tuple[Model, ...]
    cluster: Cluster
    profile: Profile
    rules: Rules = PUBLISHED_RULES

    def __init__(
        self,
        models: Iterable[Model],
        cluster: Cluster,
        profile: Profile | Mapping[str, Profile],
        rules: Rules = PUBLISHED_RULES,
    ) -> None:
        object.__setattr__(self, "models", tuple(models))
        object.__setattr__(self, "cluster", cluster)
        object.__setattr__(self, "profile", profile_of(cluster, profile))
        object.__setattr__(self, "rules", rules)
        names = [model.name for model in self.models]
        if not names:
            raise ValueError("a problem needs at least one model")
        if len(set(names)) < len(names):
            raise ValueError(
                f"model names must differ: {sorted({n for n in names if names.count(n) > 1})}"
            )
        for model in self.models:
            self.profile.configs(model.type)


def profile_of(cluster: Cluster, profile: Profile | Mapping[str, Profile]) -> Profile:
    """The one profile of a cluster, see `Problem`. Raises ProfileError unless each pool has one."""
    names = cluster.names
    if isinstance(profile, Profile):
        if max(len(profile.pools), 1) != len(names):
            raise ProfileError(f"give the profile of each pool by its name: {', '.join(names)}")
        return profile
    if {*profile} != {*names}:
        raise ProfileError(
            f"the pools are {', '.join(names)}; there are profiles for {', '.join(profile)}"
        )
    return Profile.of_pools([profile[name] for name in names])


def make_models(
    model_types: Sequence[str],
    profile: Profile | Mapping[str, Profile],
    *,
    slo_scale: float,
    total_rate_rps: float = 0.0,
    split: str | Sequence[float] = "uniform",
    cv: float = 1.0,
) -> tuple[Model, ...]:
    """One model per entry of `model_types`, named `<type>-<index>`.

    The SLO is `slo_scale` times the type's single-device latency at batch size 1 (Beta, OSDI 2023,
    section 6.1), of several profiles, by pool and in the order of these, in the first that has it;
    `total_rate_rps` is shared out by `split` (see `workload.split_rate`).
    """
    require_numbers(slo_scale=slo_scale)
    if not slo_scale > 0:
        raise ValueError(f"SLO scale must be > 0, got {slo_scale}")
    if not isinstance(profile, Profile):
        profile = Profile.of_pools([*profile.values()])
    rates = split_rate(total_rate_rps, len(model_types), split)
    return tuple(
        Model(
            f"{kind}-{i}", kind, slo_scale * profile.single_device_latency_s(kind), float(rate), cv
        )
        for i, (kind, rate) in enumerate(zip(model_types, rates, strict=True))
    )
