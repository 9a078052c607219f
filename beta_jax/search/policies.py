"""The placement policies, each over many instances at once, and their names."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from beta_jax.placement.hosting import statics
from beta_jax.placement.problem import Problem
from beta_jax.search.exhaustive import exhaustive
from beta_jax.search.instances import (
    Training,
    as_one,
    fitting_configs,
    memory_table,
    weight_table,
)
from beta_jax.search.local.climb import local_search
from beta_jax.search.published.evolution import evolve
from beta_jax.search.published.integer_programs import mp_ilp, sr_ilp
from beta_jax.search.published.pipelines import (
    mp_equal,
    mp_greedy,
    mp_round_robin,
    mp_search,
    mp_search_within,
)
from beta_jax.search.published.replacing import mp_replace
from beta_jax.search.published.replication import sr_greedy, sr_replace, sr_search, sr_uniform
from beta_jax.search.published.separation import mp_search_sep, mp_search_sep_within
from beta_jax.search.result import Result
from beta_jax.types import GB


@dataclasses.dataclass(frozen=True)
class Policy:
    """A placement policy.

    place: from instances, each a problem and its training workload, to a `Result` each; further
    keyword arguments are the policy's options. trains_on_many: whether it tells several training
    workloads apart, and gets them all; for other policies they are joined into one. rounds: whether
    it chooses by rounded numbers, so that another processor or version of a library may find
    another placement; other policies count requests. replaces: whether it places anew as time goes,
    so that its placement is a `Schedule` and belongs to the very traffic that it was made for.

    A policy of your own is passed to `place`, or gets a name by `POLICIES["mine"] = Policy(mine)`.
    """

    place: Callable[..., list[Result]]
    trains_on_many: bool = False
    rounds: bool = False
    replaces: bool = False


NAMED_LEFT_OUT = 3
"""Models that a warning names; how many are left out it says, too."""

POLICIES: dict[str, Policy] = {
    "sr-greedy": Policy(sr_greedy),
    "sr-search": Policy(sr_search),
    "sr-uniform": Policy(sr_uniform),
    "sr-replace-<seconds>": Policy(sr_replace, replaces=True),
    "sr-ilp": Policy(sr_ilp, rounds=True),
    "mp-greedy-<stages>": Policy(mp_greedy),
    "mp-round-robin": Policy(mp_round_robin),
    "mp-equal-<pp>-<op>": Policy(mp_equal),
    "mp-ilp": Policy(mp_ilp, rounds=True),
    "mp-search": Policy(mp_search),
    "mp-search-within-<millionths>": Policy(mp_search_within),
    "mp-search-sep": Policy(mp_search_sep),
    "mp-search-sep-within-<millionths>": Policy(mp_search_sep_within),
    "mp-replace-<seconds>": Policy(mp_replace, replaces=True),
    "local-search": Policy(local_search, trains_on_many=True, rounds=True),
    "local-search-<budget_simulations>": Policy(local_search, trains_on_many=True, rounds=True),
    "exhaustive": Policy(exhaustive),
    "<policy>-evo": Policy(evolve, rounds=True),
}
"""Policies by name. A part in angle brackets is passed by that keyword: `<policy>` stands for
another policy, any other part for a whole number."""


class UnknownPolicyError(ValueError):
    """No policy has this name, or it does not have this option."""


def find_policy(policy: str | Policy, **options: Any) -> Policy:
    """The policy of a name such as `mp-equal-8-2`, or the one given, with options bound to it.

    Options are such as `seed=1` for `-evo`. Raises UnknownPolicyError with the nearest names, or
    the options that there are.
    """
    if not isinstance(policy, str | Policy):
        raise TypeError(f"expected a policy or its name, got {policy!r}: write Policy(function)")
    if isinstance(policy, Policy):
        return _with_options(policy, getattr(policy.place, "__name__", "policy"), {}, options)
    for pattern, found in POLICIES.items():
        if match := re.fullmatch(re.sub(r"<(\w+)>", _placeholder, pattern), policy):
            parts = {
                key: find_policy(part).place if key == "policy" else int(part)
                for key, part in match.groupdict().items()
            }
            return _with_options(found, policy, parts, options)
    nearest = difflib.get_close_matches(policy, POLICIES, n=3, cutoff=0.4)
    hint = f"nearest: {', '.join(nearest)}; " if nearest else ""
    raise UnknownPolicyError(f"unknown policy {policy!r}; {hint}known: {', '.join(POLICIES)}")


def _with_options(
    policy: Policy, name: str, parts: dict[str, Any], options: dict[str, Any]
) -> Policy:
    _, *parameters = inspect.signature(policy.place).parameters
    known = {*parameters} - parts.keys()
    for option in options.keys() - known:
        there_are = f"its options: {', '.join(sorted(known))}" if known else "it has none"
        raise UnknownPolicyError(f"{name}: unknown option {option!r}; {there_are}")
    bound = functools.partial(policy.place, **parts, **options)
    return dataclasses.replace(policy, place=bound)


def _placeholder(part: re.Match[str]) -> str:
    return f"(?P<{part[1]}>{'.+' if part[1] == 'policy' else '[1-9][0-9]*'})"


def place_batch(
    policy: str | Policy, problems: Sequence[Problem], training: Sequence[Training], **options: Any
) -> list[Result]:
    """Place many instances with one policy, their simulations as lanes of shared programs.

    policy: a name (see `POLICIES`), or a policy. training: the training workload, or workloads, of
    each problem. options: the policy's own, see its function; they have defaults. Every placement
    is valid; a warning counts the models left without a replica and names the first. Raises
    UnknownPolicyError, and TypeError for what is no policy.
    """
    chosen = find_policy(policy, **options)
    instances: list[Any] = list(zip(problems, training, strict=True))
    if not chosen.trains_on_many:
        instances = [(problem, as_one(problem, given)) for problem, given in instances]
    results = chosen.place(instances) if instances else []
    name = policy if isinstance(policy, str) else getattr(policy.place, "__name__", "policy")
    if len(results) != len(instances) or not all(isinstance(r, Result) for r in results):
        raise TypeError(f"{name} must return a Result for each of {len(instances)} instances")
    return [
        dataclasses.replace(r, warnings=(*r.warnings, *_left_out(name, problem, r)))
        for r, problem in zip(results, problems, strict=True)
    ]


def place(policy: str | Policy, problem: Problem, training: Training, **options: Any) -> Result:
    """Place the problem's models by a policy or its name, trained on one workload or on several.

    options: the policy's own; `help(beta_jax.POLICIES["local-search"].place)` explains those of
    the local search. Raises UnknownPolicyError. What fits nowhere is left out, with a warning in
    the result.
    """
    return place_batch(policy, [problem], [training], **options)[0]


def _left_out(policy: str, problem: Problem, result: Result) -> list[str]:
    static = statics(result.placement)
    hosted = {model for p in static for group in p.groups for model in group.models}
    missing = [model.name for index, model in enumerate(problem.models) if index not in hosted]
    if not missing:
        return []
    if not hosted:
        devices = f"{problem.cluster.num_devices} devices"
        return [f"{policy}: nothing could be placed on {devices}{_too_large(problem)}"]
    share = f"{len(missing)} of {len(problem.models)} models"
    named, more = missing[:NAMED_LEFT_OUT], len(missing[NAMED_LEFT_OUT:])
    names = ", ".join(named) + f" and {more} more" * (more > 0)
    return [f"{policy}: no replica of {share}: {names}"]


def _too_large(problem: Problem) -> str:
    """Why no model fits anywhere, whatever the policy; empty if some model does."""
    profiled = {
        config for model in problem.models for config in problem.profile.configs(model.type)
    }
    configs = fitting_configs(problem, profiled)
    if not configs:
        return ": every profiled configuration needs more"
    weights, memory = weight_table(problem, configs), memory_table(problem, configs)
    if (weights <= memory).any():
        return ""
    model, config = np.unravel_index(int((weights - memory).argmin()), weights.shape)
    needs, has = weights[model, config] / GB, memory[config] / GB
    return (
        f": no model fits a device's memory; {problem.models[model].name} at its widest needs "
        f"{needs:.3g} GiB of each device, which has {has:.3g}"
    )
