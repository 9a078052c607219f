"""Systems whose averages queueing theory gives exactly, as the simulator expresses them.

All of them share their traffic, and those without random work a block: Poisson arrivals of three
models, one request/s together, so that a load is a (mean) service time in seconds. Every stage and
SLO of `averages` is a multiple of 1/512 s, which neither float32 nor ticks round. Overheads are 0.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import scipy.stats

from beta_jax.placement.placement import Group, Placement
from beta_jax.placement.problem import Problem
from beta_jax.profiles.profile import FORMAT, VERSION, Profile
from beta_jax.simulator import Outcome, simulate
from beta_jax.theory import queueing
from beta_jax.theory.placements import Theory
from beta_jax.types import MAX_DEVICES, Cluster, Model, ParallelConfig, Rules
from beta_jax.workloads.synthesis import WorkDistribution, synthesize_many

RATES_RPS = (0.2, 0.3, 0.5)
ALL = (0, 1, 2)
FOREVER = math.inf
WARMUP_S = 400.0
"""Many relaxation times of the most loaded of `averages`, at 0.8."""
WORKLOADS_AT_ONCE = 8
EXPONENTIAL = scipy.stats.expon()
VARIED_CV = 2.0
VARIED = scipy.stats.gamma(VARIED_CV**-2, scale=VARIED_CV**2)
RULES = Rules(stage_overhead=0.0, request_overhead_s=0.0)
Stages = tuple[float, ...]
Groups = tuple[tuple[Stages, tuple[int, ...]], ...]
"""Stage latencies in seconds of each group, and the models that it hosts."""


class KnownAverage(NamedTuple):
    """A system, what is measured of each simulation, and what that is on average, exactly.

    max_batch: of strict batching; none: there is none. work: by which service times vary, with a
        mean of 1; none: they do not.
    """

    name: str
    quantity: str
    groups: Groups
    slo_s: float
    measure: Callable[[Outcome], float]
    exact: float
    max_batch: int | None = None
    work: WorkDistribution | None = None


class Comparison(NamedTuple):
    """Something simulated beside what it must be: an average, or, without an error, an equality.

    case, quantity: of which system, what. difference_in_se: in standard errors.
    """

    case: str
    quantity: str
    simulated: float
    exact: float
    standard_error: float | None = None
    difference_in_se: float | None = None


def attainment(outcome: Outcome) -> float:
    return float(outcome.good[slice(*outcome.counted)].mean())


def latency_mean_s(outcome: Outcome) -> float:
    return float(outcome.latency_s[slice(*outcome.counted)].mean())


def share_within(latency_s: float) -> Callable[[Outcome], float]:
    return lambda outcome: float((outcome.latency_s[slice(*outcome.counted)] <= latency_s).mean())


def found_present(outcome: Outcome) -> float:
    """How many others an arrival finds in a system that serves in order of arrival, on average."""
    left = outcome.finish.searchsorted(outcome.workload.arrival, side="right")
    return float((np.arange(len(left)) - left)[slice(*outcome.counted)].mean())


def compare(
    found: Sequence[KnownAverage],
    replications: int,
    duration_s: float,
    seed: int,
    warmup_s: float = WARMUP_S,
) -> list[Comparison]:
    """Simulate every system on as many independent workloads; one comparison each.

    warmup_s: left out at both ends; many relaxation times of the most loaded system.
    Raises ValueError for less than two replications, which have no standard error.
    """
    if replications < 2:
        raise ValueError(f"a standard error needs >= 2 replications, got {replications}")
    systems = Systems(stages for known in found for stages, _ in known.groups)
    problems = [systems.problem(known.slo_s, max_batch=known.max_batch) for known in found]
    placements = [systems.placement(known.groups) for known in found]
    measured: list[list[float]] = [[] for _ in found]
    for first in range(seed, seed + replications, WORKLOADS_AT_ONCE):
        seeds = range(first, min(first + WORKLOADS_AT_ONCE, seed + replications))
        workloads = {
            work: synthesize_many(
                problems[0].models,
                seeds=seeds,
                duration_s=duration_s,
                process="poisson",
                work=work,
            )
            for work in {known.work for known in found}
        }
        outcomes = simulate(
            problems * len(seeds),
            placements * len(seeds),
            [workloads[known.work][i] for i in range(len(seeds)) for known in found],
            warmup_s=warmup_s,
            outputs="requests",
        )
        for i, outcome in enumerate(outcomes):
            measured[i % len(found)].append(found[i % len(found)].measure(outcome))
    return [_compared(known, values) for known, values in zip(found, measured, strict=True)]


def _compared(known: KnownAverage, values: list[float]) -> Comparison:
    mean = float(np.mean(values))
    error = float(np.std(values, ddof=1)) / len(values) ** 0.5
    score = (mean - known.exact) / error if error else math.inf
    return Comparison(known.name, known.quantity, mean, known.exact, error, score)


def averages() -> list[KnownAverage]:
    """The systems; loads and SLOs below, at and above what they can serve."""
    systems = _waits(), _replicas(), _two_models(), _deadlines(), _pairs(), _random_work()
    return list(itertools.chain.from_iterable(systems))


def _waits() -> Iterable[KnownAverage]:
    for load in (0.25, 0.5, 0.75):
        name, groups = f"M/D/1, load {load:g}", (((load,), ALL),)
        yield mean_latency(name, groups)
    # More about the last of them, the most loaded. Little's law: at one request/s the mean number
    # present is the mean latency in seconds.
    present = "found by an arrival"
    yield mean_latency(name, groups)._replace(quantity=present, measure=found_present)
    theory = Systems.theory(groups)
    waits_s = (float(queueing.md1_wait_quantile_s(share, 1, load)) for share in (0.5, 0.9, 0.99))
    for wait_s in (0, *waits_s):
        quantity, measure = f"share within {load + wait_s:.3f} s", share_within(load + wait_s)
        (exact,) = theory.latency_cdf([load + wait_s]).tolist()
        yield KnownAverage(name, quantity, groups, FOREVER, measure, exact)
    for stages in ((0.25, 0.6875, 0.5), (0.375,) * 4):
        yield mean_latency(_pipeline(stages), ((stages, ALL),))


def _replicas() -> Iterable[KnownAverage]:
    """Requests go to the group that is free first, as from one queue."""
    for number, service_s in ((2, 1.5), (3, 2.25), (4, 2.0)):
        name = f"M/D/{number}, load {service_s / number:g} of each"
        yield mean_latency(name, (((service_s,), ALL),) * number)


def _two_models() -> Iterable[KnownAverage]:
    """The paper's two models on two devices, apart and pooled (section 3.1)."""
    for name, service_s, first in (("50:50", 1.25, (2,)), ("20:80", 1.0, (0,))):
        yield mean_latency(f"two models {name} apart", apart(service_s, first))
        pooled = (((service_s / 2, service_s / 2), ALL),)
        yield mean_latency(f"two models {name} pooled", pooled)


def _deadlines() -> Iterable[KnownAverage]:
    """Requests that would be late are turned away."""
    for stages, slo_s in (
        ((0.5,), 1.0),
        ((0.75,), 0.75),
        ((0.75,), 2.0),
        ((1.0,), 3.0),
        ((1.5,), 3.0),
        ((2.0,), 8.0),
        ((0.5, 0.5), 1.25),
        ((0.25, 0.75, 0.5), 2.0),
        ((0.625,) * 4, 3.0),
        ((1.25, 1.25), 4.0),
    ):
        kind = _pipeline(stages) if len(stages) > 1 else f"M/D/1, load {stages[0]:g}"
        name, groups = f"{kind}, SLO {slo_s:g} s", ((stages, ALL),)
        exact = Systems.theory(groups, slo_s).slo_attainment()
        yield KnownAverage(name, "SLO attainment", groups, slo_s, attainment, exact)


def _pairs() -> Iterable[KnownAverage]:
    """Two requests for a model take as long as one, if they are served together."""
    for service_s in (1.0, 3.0):
        groups = tuple(((service_s,), (model,)) for model in ALL)
        latency_s = queueing.md1_pairs_latency_s(np.array(RATES_RPS), service_s)
        exact = float(latency_s @ np.array(RATES_RPS))
        name = f"M/D/1 in pairs, loads {', '.join(f'{rate * service_s:g}' for rate in RATES_RPS)}"
        yield KnownAverage(name, "mean latency (s)", groups, FOREVER, latency_mean_s, exact, 2)


def _random_work() -> Iterable[KnownAverage]:
    """Requests of different length: exponential service times, and more varied ones."""

    def known(name: str, groups: Groups, exact: float, work: WorkDistribution) -> KnownAverage:
        return KnownAverage(
            name, "mean latency (s)", groups, FOREVER, latency_mean_s, exact, work=work
        )

    for load in (0.5, 0.75):
        groups: Groups = (((load,), ALL),)
        exact = load + float(queueing.mm1_wait_s(1, load))
        yield known(f"M/M/1, load {load:g}", groups, exact, EXPONENTIAL)
        exact = load + float(queueing.mg1_wait_s(1, load, VARIED_CV))
        yield known(f"M/G/1, CV {VARIED_CV:g}, load {load:g}", groups, exact, VARIED)
    # Latencies of M/M/1 are exponential.
    name, ones = f"M/M/1, load {load:g}", known("", groups, 0.0, EXPONENTIAL)
    for latency_s in (2.0, 6.0):
        yield ones._replace(
            name=name,
            quantity=f"share within {latency_s:g} s",
            measure=share_within(latency_s),
            exact=-math.expm1(-latency_s * (1 / load - 1)),
        )
    exact = load + float(queueing.mm1_wait_s(1, load))
    yield ones._replace(name=f"{name}, in batches of one", exact=exact, max_batch=1)
    for number, service_s in ((2, 1.5), (3, 2.25)):
        exact = service_s + float(queueing.mmc_wait_s(number, 1, service_s))
        name = f"M/M/{number}, load {service_s / number:g} of each"
        yield known(name, (((service_s,), ALL),) * number, exact, EXPONENTIAL)


def _pipeline(stages: Stages) -> str:
    return f"stages {'/'.join(f'{stage:g}' for stage in stages)} s"


def mean_latency(name: str, groups: Groups) -> KnownAverage:
    """The mean latency of a system without deadlines."""
    exact = Systems.theory(groups).latency_mean_s()
    return KnownAverage(name, "mean latency (s)", groups, FOREVER, latency_mean_s, exact)


def apart(service_s: float, first: tuple[int, ...]) -> Groups:
    """A device for the models in `first`, and one for the others."""
    others = tuple(model for model in ALL if model not in first)
    return ((service_s,), first), ((service_s,), others)


class Systems:
    """Problems and placements from stage latencies, with one profile, so that lanes share blocks.

    A configuration's number of operator-parallel devices is a mere label of its stage latencies.
    Two requests take as long as one.
    """

    def __init__(self, stages: Iterable[Stages], types: tuple[str, ...] = ("t", "t", "t")) -> None:
        """types: of each model; they cost the same, except that `slow` takes twice as long."""
        self._config = {
            latency_s: ParallelConfig(label, len(latency_s))
            for label, latency_s in enumerate(dict.fromkeys(stages), 1)
        }
        self._types = types
        document = {
            kind: {"configs": [_costs(c, s, 1 + (kind == "slow")) for s, c in self._config.items()]}
            for kind in set(types)
        }
        self._profile = Profile.from_dict({"format": FORMAT, "version": VERSION, "types": document})

    @staticmethod
    def theory(groups: Groups, slo_s: float = FOREVER) -> Theory:
        """What is known exactly of one system."""
        systems = Systems(stages for stages, _ in groups)
        return Theory(systems.problem(slo_s), systems.placement(groups))

    def problem(
        self, slo_s: float, dispatch: str = "earliest_free", max_batch: int | None = None
    ) -> Problem:
        """max_batch: see `KnownAverage`."""
        models = tuple(
            Model(f"m{i}", kind, slo_s, rate)
            for i, (kind, rate) in enumerate(zip(self._types, RATES_RPS, strict=True))
        )
        rules = dataclasses.replace(RULES, dispatch=dispatch)
        if max_batch is not None:
            rules = dataclasses.replace(rules, batching="strict", max_batch=max_batch)
        return Problem(models, Cluster(num_devices=MAX_DEVICES), self._profile, rules)

    def placement(self, groups: Groups) -> Placement:
        return Placement(tuple(Group(self._config[stages], hosted) for stages, hosted in groups))


def _costs(config: ParallelConfig, stages: Stages, factor: int) -> dict[str, object]:
    nothing = [0.0] * config.pp
    return {
        "op": config.op,
        "pp": config.pp,
        "stage_latency_s": {n: [factor * latency_s for latency_s in stages] for n in "12"},
        "weight_bytes": nothing,
        "act_bytes": {n: nothing for n in "12"},
    }
