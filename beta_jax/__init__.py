"""Exact batch simulation and placement search for clusters that serve many large models.

    import beta_jax
    profile = beta_jax.load_profile("data/profiles/v100.json")

Names are imported when first used, so that `import beta_jax` alone does not load JAX.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_EXPORTS = {
    "types": ("GB", "Cluster", "Model", "ParallelConfig", "Rules", "Workload"),
    "profiles.profile": ("Profile", "ProfileError", "load_profile", "save_profile"),
    "placement.problem": ("Problem", "make_models"),
    "placement.placement": (
        "Group",
        "Placement",
        "PlacementError",
        "Schedule",
        "load_placement",
        "save_placement",
    ),
    "placement.changes": ("Change", "GroupChange", "compare_placements"),
    "placement.partition": ("enumerate_partitions",),
    "workloads.synthesis": ("merge", "split_rate", "synthesize", "synthesize_many"),
    "workloads.requests": ("WorkloadError", "read_requests", "write_requests"),
    "simulator": (
        "SIMULATOR_VERSION",
        "Dispatch",
        "Outcome",
        "SimulationError",
        "Tally",
        "simulate",
    ),
    "traces": ("TraceError", "load_trace", "replay"),
    "analysis.metrics": ("latency_summary", "utilisation"),
    "analysis.misses": ("MissReason", "miss_reasons"),
    "analysis.timeline": ("write_timeline",),
    "search": (
        "POLICIES",
        "Result",
        "UnknownPolicyError",
        "attainment_bound",
        "place",
        "place_batch",
    ),
}
_MODULES = {"planning": "planning", "queueing": "theory.queueing", "traces": "traces"}
_HOME = {name: module for module, names in _EXPORTS.items() for name in names}
__all__ = sorted([*_HOME, *_MODULES])


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"beta_jax.{_MODULES[name]}")
    if name not in _HOME:
        raise AttributeError(f"module 'beta_jax' has no attribute {name!r}")
    return getattr(import_module(f"beta_jax.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
