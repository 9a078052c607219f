"""Placement policies: `place("mp-search", problem, workload)`."""

from beta_jax import backend  # noqa: F401 - sets up JAX, so it comes first
from beta_jax.search.bounds.served import attainment_bound
from beta_jax.search.policies import (
    POLICIES,
    Policy,
    UnknownPolicyError,
    find_policy,
    place,
    place_batch,
)
from beta_jax.search.result import Result, published_score, score_placements

__all__ = [
    "POLICIES",
    "Policy",
    "Result",
    "UnknownPolicyError",
    "attainment_bound",
    "find_policy",
    "place",
    "place_batch",
    "published_score",
    "score_placements",
]
