"""Exact batch simulation and placement search for clusters that serve many large models.

    import beta_jax
    profile = beta_jax.load_profile("v100")

Names are imported when first used, so that `import beta_jax` alone does not load JAX. Editors and
type checkers see the imports themselves.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.2.0"

_EXPORTS = {
    "traits": ("Trait",),
    "dispatch": ("Dispatch", "DispatchRule", "power_of_two"),
    "types": ("GB", "Cluster", "Model", "ParallelConfig", "Pool", "Rules", "Workload"),
    "profiles.prefill": ("PrefillTable", "load_prefill"),
    "profiles.architectures": ("ARCHITECTURES", "Architecture"),
    "profiles.measure": ("Measured", "MeasureError", "MeasureSettings", "measure_profile"),
    "profiles.profile": ("Profile", "ProfileError", "load_profile", "save_profile"),
    "placement.problem": ("Problem", "make_models"),
    "placement.placement": (
        "Group",
        "Placement",
        "PlacementError",
        "Schedule",
    ),
    "placement.failures": ("Failure",),
    "placement.files": ("load_placement", "save_placement"),
    "placement.changes": ("Change", "GroupChange", "compare_placements"),
    "placement.partition": ("enumerate_partitions",),
    "workloads.synthesis": ("merge", "split_rate", "synthesize", "synthesize_many"),
    "workloads.requests": ("WorkloadError", "read_requests", "write_requests"),
    "simulator": (
        "SIMULATOR_VERSION",
        "Outcome",
        "SimulationError",
        "State",
        "Tally",
        "simulate",
        "simulate_part",
    ),
    "traces": ("TraceError", "load_trace"),
    "traces.replay": ("replay",),
    "planning.questions": ("plan",),
    "analysis.metrics": ("latency_summary", "utilisation"),
    "analysis.misses": ("MissReason", "miss_reasons"),
    "analysis.timeline": ("write_timeline",),
    "search": (
        "POLICIES",
        "Policy",
        "Result",
        "UnknownPolicyError",
        "attainment_bound",
        "place",
        "place_batch",
    ),
}
_MODULES = {"llm": "llm", "planning": "planning", "queueing": "theory.queueing", "traces": "traces"}
_HOME = {name: module for module, names in _EXPORTS.items() for name in names}
__all__ = sorted([*_HOME, *_MODULES])


if TYPE_CHECKING:
    from beta_jax import llm as llm
    from beta_jax import planning as planning
    from beta_jax import traces as traces
    from beta_jax.analysis.metrics import latency_summary as latency_summary
    from beta_jax.analysis.metrics import utilisation as utilisation
    from beta_jax.analysis.misses import MissReason as MissReason
    from beta_jax.analysis.misses import miss_reasons as miss_reasons
    from beta_jax.analysis.timeline import write_timeline as write_timeline
    from beta_jax.dispatch import Dispatch as Dispatch
    from beta_jax.dispatch import DispatchRule as DispatchRule
    from beta_jax.dispatch import power_of_two as power_of_two
    from beta_jax.placement.changes import Change as Change
    from beta_jax.placement.changes import GroupChange as GroupChange
    from beta_jax.placement.changes import compare_placements as compare_placements
    from beta_jax.placement.failures import Failure as Failure
    from beta_jax.placement.files import load_placement as load_placement
    from beta_jax.placement.files import save_placement as save_placement
    from beta_jax.placement.partition import enumerate_partitions as enumerate_partitions
    from beta_jax.placement.placement import Group as Group
    from beta_jax.placement.placement import Placement as Placement
    from beta_jax.placement.placement import PlacementError as PlacementError
    from beta_jax.placement.placement import Schedule as Schedule
    from beta_jax.placement.problem import Problem as Problem
    from beta_jax.placement.problem import make_models as make_models
    from beta_jax.planning.questions import plan as plan
    from beta_jax.profiles.architectures import ARCHITECTURES as ARCHITECTURES
    from beta_jax.profiles.architectures import Architecture as Architecture
    from beta_jax.profiles.measure import Measured as Measured
    from beta_jax.profiles.measure import MeasureError as MeasureError
    from beta_jax.profiles.measure import MeasureSettings as MeasureSettings
    from beta_jax.profiles.measure import measure_profile as measure_profile
    from beta_jax.profiles.prefill import PrefillTable as PrefillTable
    from beta_jax.profiles.prefill import load_prefill as load_prefill
    from beta_jax.profiles.profile import Profile as Profile
    from beta_jax.profiles.profile import ProfileError as ProfileError
    from beta_jax.profiles.profile import load_profile as load_profile
    from beta_jax.profiles.profile import save_profile as save_profile
    from beta_jax.search import POLICIES as POLICIES
    from beta_jax.search import Policy as Policy
    from beta_jax.search import Result as Result
    from beta_jax.search import UnknownPolicyError as UnknownPolicyError
    from beta_jax.search import attainment_bound as attainment_bound
    from beta_jax.search import place as place
    from beta_jax.search import place_batch as place_batch
    from beta_jax.simulator import SIMULATOR_VERSION as SIMULATOR_VERSION
    from beta_jax.simulator import Outcome as Outcome
    from beta_jax.simulator import SimulationError as SimulationError
    from beta_jax.simulator import State as State
    from beta_jax.simulator import Tally as Tally
    from beta_jax.simulator import simulate as simulate
    from beta_jax.simulator import simulate_part as simulate_part
    from beta_jax.theory import queueing as queueing
    from beta_jax.traces import TraceError as TraceError
    from beta_jax.traces import load_trace as load_trace
    from beta_jax.traces.replay import replay as replay
    from beta_jax.traits import Trait as Trait
    from beta_jax.types import GB as GB
    from beta_jax.types import Cluster as Cluster
    from beta_jax.types import Model as Model
    from beta_jax.types import ParallelConfig as ParallelConfig
    from beta_jax.types import Pool as Pool
    from beta_jax.types import Rules as Rules
    from beta_jax.types import Workload as Workload
    from beta_jax.workloads.requests import WorkloadError as WorkloadError
    from beta_jax.workloads.requests import read_requests as read_requests
    from beta_jax.workloads.requests import write_requests as write_requests
    from beta_jax.workloads.synthesis import merge as merge
    from beta_jax.workloads.synthesis import split_rate as split_rate
    from beta_jax.workloads.synthesis import synthesize as synthesize
    from beta_jax.workloads.synthesis import synthesize_many as synthesize_many
else:

    def __getattr__(name):
        if name in _MODULES:
            return import_module(f"beta_jax.{_MODULES[name]}")
        if name not in _HOME:
            raise AttributeError(f"module 'beta_jax' has no attribute {name!r}")
        return getattr(import_module(f"beta_jax.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
