"""The same queues in SimPy, in Ciw and here: mean waits against theory, speed, lines of user code.

    python benchmarks/peers.py                # minutes; --requests 20000 --seeds 4 for a first look

Every program below is written as its library's users would, and does the same: about so many
requests from one seed, of which a tenth is left out (the first of them; here half a tenth at both
ends), to the mean wait of the others. Lines of code are those of its body and of the helpers that
it calls, without blanks and comments, as the formatter breaks them. Times are the processor's, on
one core, after one call that does not count (here it compiles), and include making the traffic.
Here it is the same function for one seed and for many at once, which are its lanes.

The queues: M/M/1 at load 0.8; M/D/2, one queue before two servers, at 0.8; a pipeline of two stages
of 0.4 and 0.6 s at 1.2 requests/s; two models with a device each, 0.8 and 0.4 requests/s of 1 s.
A wait is all the time that a request is not served.
"""

import argparse
import ast
import inspect
import math
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any, NamedTuple

if __name__ == "__main__":  # before anything starts its threads
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])

import ciw
import numpy as np
import scipy.stats
import simpy
from numpy.typing import NDArray

import beta_jax
from beta_jax import queueing

Floats = NDArray[np.float64]
WARMUP = 0.1


def mean_after_warmup(waits: Sequence[float]) -> float:
    return statistics.fmean(waits[round(WARMUP * len(waits)) :])


# --- SimPy ---------------------------------------------------------------------------------------


def simpy_mm1(seed: int, requests: int) -> float:
    rng, env, waits = random.Random(seed), simpy.Environment(), []
    server = simpy.Resource(env)

    def request():
        arrived = env.now
        with server.request() as turn:
            yield turn
            waits.append(env.now - arrived)
            yield env.timeout(rng.expovariate(1.0))

    def traffic():
        for _ in range(requests):
            yield env.timeout(rng.expovariate(0.8))
            env.process(request())

    env.process(traffic())
    env.run()
    return mean_after_warmup(waits)


def simpy_md2(seed: int, requests: int) -> float:
    rng, env, waits = random.Random(seed), simpy.Environment(), []
    servers = simpy.Resource(env, capacity=2)

    def request():
        arrived = env.now
        with servers.request() as turn:
            yield turn
            waits.append(env.now - arrived)
            yield env.timeout(1.0)

    def traffic():
        for _ in range(requests):
            yield env.timeout(rng.expovariate(1.6))
            env.process(request())

    env.process(traffic())
    env.run()
    return mean_after_warmup(waits)


def simpy_pipeline(seed: int, requests: int) -> float:
    rng, env, waits = random.Random(seed), simpy.Environment(), []
    stages = [(simpy.Resource(env), service_s) for service_s in (0.4, 0.6)]

    def request():
        arrived = env.now
        for stage, service_s in stages:
            with stage.request() as turn:
                yield turn
                yield env.timeout(service_s)
        waits.append(env.now - arrived - 1.0)

    def traffic():
        for _ in range(requests):
            yield env.timeout(rng.expovariate(1.2))
            env.process(request())

    env.process(traffic())
    env.run()
    return mean_after_warmup(waits)


def simpy_two_models(seed: int, requests: int) -> float:
    rng, env, waits = random.Random(seed), simpy.Environment(), []
    devices = [simpy.Resource(env), simpy.Resource(env)]

    def request(device):
        arrived = env.now
        with device.request() as turn:
            yield turn
            waits.append(env.now - arrived)
            yield env.timeout(1.0)

    def traffic():
        for _ in range(requests):
            yield env.timeout(rng.expovariate(1.2))
            env.process(request(devices[rng.random() < 1 / 3]))

    env.process(traffic())
    env.run()
    return mean_after_warmup(waits)


# --- Ciw -----------------------------------------------------------------------------------------


def ciw_mm1(seed: int, requests: int) -> float:
    ciw.seed(seed)
    network = ciw.create_network(
        arrival_distributions=[ciw.dists.Exponential(rate=0.8)],
        service_distributions=[ciw.dists.Exponential(rate=1.0)],
        number_of_servers=[1],
    )
    simulation = ciw.Simulation(network)
    simulation.simulate_until_max_customers(requests)
    records = sorted(simulation.get_all_records(), key=lambda record: record.arrival_date)
    return mean_after_warmup([record.waiting_time for record in records])


def ciw_md2(seed: int, requests: int) -> float:
    ciw.seed(seed)
    network = ciw.create_network(
        arrival_distributions=[ciw.dists.Exponential(rate=1.6)],
        service_distributions=[ciw.dists.Deterministic(value=1.0)],
        number_of_servers=[2],
    )
    simulation = ciw.Simulation(network)
    simulation.simulate_until_max_customers(requests)
    records = sorted(simulation.get_all_records(), key=lambda record: record.arrival_date)
    return mean_after_warmup([record.waiting_time for record in records])


def ciw_pipeline(seed: int, requests: int) -> float:
    ciw.seed(seed)
    network = ciw.create_network(
        arrival_distributions=[ciw.dists.Exponential(rate=1.2), None],
        service_distributions=[ciw.dists.Deterministic(0.4), ciw.dists.Deterministic(0.6)],
        routing=[[0.0, 1.0], [0.0, 0.0]],
        number_of_servers=[1, 1],
    )
    simulation = ciw.Simulation(network)
    simulation.simulate_until_max_customers(requests)
    records = sorted(simulation.get_all_records(), key=lambda record: record.arrival_date)
    return 2 * mean_after_warmup([record.waiting_time for record in records])


def ciw_two_models(seed: int, requests: int) -> float:
    ciw.seed(seed)
    network = ciw.create_network(
        arrival_distributions=[ciw.dists.Exponential(rate) for rate in (0.8, 0.4)],
        service_distributions=[ciw.dists.Deterministic(value=1.0)] * 2,
        routing=[[0.0, 0.0], [0.0, 0.0]],
        number_of_servers=[1, 1],
    )
    simulation = ciw.Simulation(network)
    simulation.simulate_until_max_customers(requests)
    records = sorted(simulation.get_all_records(), key=lambda record: record.arrival_date)
    return mean_after_warmup([record.waiting_time for record in records])


# --- here ----------------------------------------------------------------------------------------


def here_mm1(seeds: Sequence[int], requests: int) -> Floats:
    models = [beta_jax.Model("a", "t", slo_s=math.inf, rate_rps=0.8)]
    problem = beta_jax.Problem(models, beta_jax.Cluster(1), profile_of(1.0), RULES)
    placement = beta_jax.Placement([beta_jax.Group((1, 1), models=(0,))])
    duration_s = requests / 0.8
    traffic = beta_jax.synthesize_many(
        models, seeds=seeds, duration_s=duration_s, process="poisson", work=scipy.stats.expon()
    )
    tally = beta_jax.simulate(problem, placement, traffic, warmup_s=WARMUP / 2 * duration_s)
    return tally.latency_mean_s - 1.0


def here_md2(seeds: Sequence[int], requests: int) -> Floats:
    models = [beta_jax.Model("a", "t", slo_s=math.inf, rate_rps=1.6)]
    problem = beta_jax.Problem(models, beta_jax.Cluster(2), profile_of(1.0), RULES)
    placement = beta_jax.Placement([beta_jax.Group((1, 1), models=(0,))] * 2)
    duration_s = requests / 1.6
    traffic = beta_jax.synthesize_many(
        models, seeds=seeds, duration_s=duration_s, process="poisson"
    )
    tally = beta_jax.simulate(problem, placement, traffic, warmup_s=WARMUP / 2 * duration_s)
    return tally.latency_mean_s - 1.0


def here_pipeline(seeds: Sequence[int], requests: int) -> Floats:
    models = [beta_jax.Model("a", "t", slo_s=math.inf, rate_rps=1.2)]
    problem = beta_jax.Problem(models, beta_jax.Cluster(2), profile_of(0.4, 0.6), RULES)
    placement = beta_jax.Placement([beta_jax.Group((1, 2), models=(0,))])
    duration_s = requests / 1.2
    traffic = beta_jax.synthesize_many(
        models, seeds=seeds, duration_s=duration_s, process="poisson"
    )
    tally = beta_jax.simulate(problem, placement, traffic, warmup_s=WARMUP / 2 * duration_s)
    return tally.latency_mean_s - 1.0


def here_two_models(seeds: Sequence[int], requests: int) -> Floats:
    rates_rps = {"a": 0.8, "b": 0.4}
    models = [beta_jax.Model(name, "t", math.inf, rate) for name, rate in rates_rps.items()]
    problem = beta_jax.Problem(models, beta_jax.Cluster(2), profile_of(1.0), RULES)
    placement = beta_jax.Placement([beta_jax.Group((1, 1), models=(m,)) for m in (0, 1)])
    duration_s = requests / 1.2
    traffic = beta_jax.synthesize_many(
        models, seeds=seeds, duration_s=duration_s, process="poisson"
    )
    tally = beta_jax.simulate(problem, placement, traffic, warmup_s=WARMUP / 2 * duration_s)
    return tally.latency_mean_s - 1.0


RULES = beta_jax.Rules(stage_overhead=0, request_overhead_s=0)


def profile_of(*stage_s: float) -> beta_jax.Profile:
    stages = len(stage_s)
    costs = {"op": 1, "pp": stages, "stage_latency_s": {"1": list(stage_s)}}
    costs |= {"weight_bytes": [1.0] * stages, "act_bytes": {"1": [0.0] * stages}}
    head = {"format": "beta_jax.profile", "version": 1}
    return beta_jax.Profile.from_dict(head | {"types": {"t": {"configs": [costs]}}})


# --- the comparison ------------------------------------------------------------------------------


class Queue(NamedTuple):
    """A queue, its exact mean wait, and the programs that simulate it."""

    name: str
    theory_s: float
    simpy: Callable[[int, int], float]
    ciw: Callable[[int, int], float]
    here: Callable[[Sequence[int], int], Floats]


def queues() -> list[Queue]:
    both_s = float(queueing.simple_latency_s(1.2, 1.0, 2 / 3)) - 1.0
    pipeline_s = float(queueing.pipeline_latency_s(1.2, 1.0, 0.6)) - 1.0
    mm1_s, md2_s = float(queueing.mm1_wait_s(0.8, 1.0)), float(queueing.mdc_wait_s(2, 1.6, 1.0))
    return [
        Queue("M/M/1", mm1_s, simpy_mm1, ciw_mm1, here_mm1),
        Queue("M/D/2", md2_s, simpy_md2, ciw_md2, here_md2),
        Queue("pipeline", pipeline_s, simpy_pipeline, ciw_pipeline, here_pipeline),
        Queue("two models", both_s, simpy_two_models, ciw_two_models, here_two_models),
    ]


def lines_of(program: Callable[..., Any]) -> int:
    """Lines of its body without docstring, blanks and comments, and of the helpers it calls."""
    source = inspect.getsource(program)
    body = ast.parse(source).body[0]
    assert isinstance(body, ast.FunctionDef)
    first = body.body[1 if ast.get_docstring(body) else 0].lineno - 1
    own = [line.strip() for line in source.splitlines()[first:]]
    helpers = [mean_after_warmup, profile_of]
    called = [helper for helper in helpers if helper.__name__ in source and helper is not program]
    rules = "RULES" in source
    return sum(bool(line) and line[0] != "#" for line in own) + sum(map(lines_of, called)) + rules


class Row(NamedTuple):
    """What a program came to: the mean wait, half its 95 % interval, the median call's speed."""

    library: str
    wait_s: float
    half_s: float
    requests_per_s: float
    lines: int


def measure(queue: Queue, requests: int, seeds: int, lanes: int) -> list[Row]:
    """All programs in turns, a call that does not count before."""
    programs: dict[str, tuple[Callable[..., Any], Callable[[int], Any]]] = {
        "SimPy": (queue.simpy, lambda seed: queue.simpy(seed, requests)),
        "Ciw": (queue.ciw, lambda seed: queue.ciw(seed, requests)),
        "here, one lane": (queue.here, lambda seed: queue.here([seed], requests)[0]),
    }
    queue.simpy(0, 1000)
    queue.ciw(0, 1000)
    queue.here([0], requests)
    waits: dict[str, list[float]] = {name: [] for name in programs}
    taken: dict[str, list[float]] = {name: [] for name in programs}
    for seed in range(1, seeds + 1):
        for name, (_, call) in programs.items():
            begin = time.process_time()
            waits[name].append(float(call(seed)))
            taken[name].append(time.process_time() - begin)
    many = range(1, lanes + 1)
    queue.here(many, requests)
    name = f"here, {lanes} lanes"
    taken[name] = []
    for _ in range(3):
        begin = time.process_time()
        waits[name] = queue.here(many, requests).tolist()
        taken[name].append(time.process_time() - begin)
    return [
        Row(
            name,
            statistics.fmean(own),
            half_interval(own),
            requests * (lanes if "lanes" in name else 1) / statistics.median(taken[name]),
            lines_of(programs.get(name, (queue.here, None))[0]),
        )
        for name, own in waits.items()
    ]


def half_interval(values: Sequence[float]) -> float:
    quantile = scipy.stats.t.ppf(0.975, len(values) - 1)
    return float(quantile * statistics.stdev(values) / math.sqrt(len(values)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=50_000, help="of each call")
    parser.add_argument("--seeds", type=int, default=8, help="calls of each program")
    parser.add_argument("--lanes", type=int, default=64, help="seeds of the call with many")
    asked = parser.parse_args()
    found = " ".join(f"{name} {version(name)}" for name in ("simpy", "ciw", "jax"))
    print(f"{found}, Python {platform.python_version()}, {asked.requests} requests a call\n")
    print("queue       library          mean wait s, 95 %    theory   requests/s  lines of code")
    for queue in queues():
        for row in measure(queue, asked.requests, asked.seeds, asked.lanes):
            print(
                f"{queue.name:11} {row.library:15}  {row.wait_s:7.4f} +- {row.half_s:6.4f}  "
                f"{queue.theory_s:9.4f} {row.requests_per_s:12,.0f} {row.lines:14}",
                flush=True,
            )


if __name__ == "__main__":
    main()
