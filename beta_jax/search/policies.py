"""The placement policies, each over many instances at once, and their names."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any

from beta_jax.placement.placement import Placement
from beta_jax.placement.problem import Problem
from beta_jax.search.exhaustive import exhaustive
from beta_jax.search.instances import Training, as_one
from beta_jax.search.local.search import beta
from beta_jax.search.published.evolution import evolve
from beta_jax.search.published.integer_programs import mp_ilp, sr_ilp
from beta_jax.search.published.pipelines import mp_equal, mp_greedy, mp_round_robin, mp_search
from beta_jax.search.published.replication import sr_greedy, sr_replace, sr_search, sr_uniform
from beta_jax.search.published.separation import mp_search_sep
from beta_jax.search.result import Result

POLICIES: dict[str, Callable[..., list[Result]]] = {
    "sr-greedy": sr_greedy,
    "sr-search": sr_search,
    "sr-uniform": sr_uniform,
    "sr-replace-<seconds>": sr_replace,
    "sr-ilp": sr_ilp,
    "mp-greedy-<stages>": mp_greedy,
    "mp-round-robin": mp_round_robin,
    "mp-equal-<pp>-<op>": mp_equal,
    "mp-ilp": mp_ilp,
    "mp-search": mp_search,
    "mp-search-sep": mp_search_sep,
    "beta": beta,
    "beta-<budget_simulations>": beta,
    "exhaustive": exhaustive,
    "<policy>-evo": evolve,
}
"""Policies by name. A part in angle brackets is passed by that keyword: `<policy>` stands for
another policy, any other part for a whole number."""
TRAIN_ON_MANY = (beta,)
"""Policies that tell several training workloads apart; for others these are joined into one."""
FLOATING_POINT = (beta, evolve, mp_ilp, sr_ilp)
"""Policies that choose by rounded numbers, so that another processor or version of a library may
find another placement; all others count requests."""


class UnknownPolicyError(ValueError):
    """No policy has this name, or it does not have this option."""


def find_policy(name: str, **options: Any) -> functools.partial[list[Result]]:
    """The policy of a name such as `mp-equal-8-2`, with options such as `seed=1` for `-evo`.

    Raises UnknownPolicyError with the nearest names, or the options that there are.
    """
    for pattern, function in POLICIES.items():
        if match := re.fullmatch(re.sub(r"<(\w+)>", _placeholder, pattern), name):
            parts = {
                key: find_policy(part) if key == "policy" else int(part)
                for key, part in match.groupdict().items()
            }
            known = inspect.signature(function).parameters.keys() - {"instances"} - parts.keys()
            for option in options.keys() - known:
                there_are = f"its options: {', '.join(sorted(known))}" if known else "it has none"
                raise UnknownPolicyError(f"{name}: unknown option {option!r}; {there_are}")
            return functools.partial(function, **parts, **options)
    nearest = difflib.get_close_matches(name, POLICIES, n=3, cutoff=0.4)
    hint = f"nearest: {', '.join(nearest)}; " if nearest else ""
    raise UnknownPolicyError(f"unknown policy {name!r}; {hint}known: {', '.join(POLICIES)}")


def _placeholder(part: re.Match[str]) -> str:
    return f"(?P<{part[1]}>{'.+' if part[1] == 'policy' else '[1-9][0-9]*'})"


def place_batch(
    policy: str, problems: Sequence[Problem], training: Sequence[Training], **options: Any
) -> list[Result]:
    """Place many instances with one policy, their simulations as lanes of shared programs.

    training: the training workload, or workloads, of each problem; pass the same object where it is
    the same. options: the policy's own, see its function; they have defaults. Every placement is
    valid; warnings name the models left without a replica.
    """
    function = find_policy(policy, **options)
    instances: list[Any] = list(zip(problems, training, strict=True))
    if function.func not in TRAIN_ON_MANY:
        instances = [(problem, as_one(problem, given)) for problem, given in instances]
    results = function(instances) if instances else []
    return [
        dataclasses.replace(r, warnings=(*r.warnings, *_left_out(policy, problem, r)))
        for r, problem in zip(results, problems, strict=True)
    ]


def place(policy: str, problem: Problem, training: Training, **options: Any) -> Result:
    """Place the problem's models by a named policy, trained on one workload or on several.

    options: the policy's own; `help(beta_jax.POLICIES["beta"])` explains those of `beta`.
    Raises UnknownPolicyError. What fits nowhere is left out, with a warning in the result.
    """
    return place_batch(policy, [problem], [training], **options)[0]


def _left_out(policy: str, problem: Problem, result: Result) -> list[str]:
    placement = result.placement
    static = (placement,) if isinstance(placement, Placement) else placement.placements
    hosted = {model for p in static for group in p.groups for model in group.models}
    missing = [model.name for index, model in enumerate(problem.models) if index not in hosted]
    if not missing:
        return []
    if not hosted:
        return [f"{policy}: nothing could be placed on {problem.cluster.num_devices} devices"]
    share = f"{len(missing)} of {len(problem.models)} models"
    return [f"{policy}: no replica of {share}: {', '.join(missing)}"]
