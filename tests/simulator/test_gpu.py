"""The kernel for GPUs, interpreted on a CPU: the engine and the oracle to the last bit."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from beta_jax import (
    DispatchRule,
    Group,
    ParallelConfig,
    Placement,
    Rules,
    place_batch,
    synthesize,
    synthesize_many,
)
from beta_jax.dispatch import RULES
from beta_jax.search.fill import greedy
from beta_jax.simulator.engine import (
    ArraySimulator,
    Kernel,
    join_requests,
    make_simulations,
    simulate_lanes,
)
from beta_jax.simulator.kernels import choose, gpu, unrolled
from beta_jax.simulator.kernels.choose import simulate_launch
from beta_jax.simulator.launches import pack_lanes, pack_launch

import documents
import golden
from instances import CONFIGS, instances, mixed_problem, worked

STICKY = documents.run("docs/extending.md", "A dispatch rule")["STICKY"]
NAMES = [name for name, rule in RULES.items() if not rule.max_unfinished]
"""`shortest_queue` needs queues, for which the kernel has no room: the CPU simulates it."""
relaxed = settings(
    max_examples=2,
    phases=[Phase.generate],  # examples are large, so that few programs are compiled
)


@pytest.fixture(autouse=True)
def compiled_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling takes longer here than what is compiled."""
    options = {"xla_backend_optimization_level": 0}
    names = "longest", "num_rows", "interpret"
    program = jax.jit(gpu.run, static_argnums=0, static_argnames=names, compiler_options=options)
    monkeypatch.setattr(choose, "simulate_launch", program)


@pytest.mark.parametrize("dispatch", NAMES)
@given(data=st.data())
@relaxed
def test_a_launch_of_many_workloads(dispatch: str, data: st.DataObject):
    own = instances((dispatch,), 4, CONFIGS[:2])
    found = [data.draw(own) for _ in range(30)] + [data.draw(worked(own)) for _ in range(10)]
    simulations = [make_simulations(*instance, 0.0)[0] for instance in found]
    lanes = [lane for simulation in simulations for lane in simulation.lanes]
    requests = simulate_lanes(lanes, keep_requests=True, kernel=Kernel.GPU)
    for instance, outcome in zip(found, join_requests(simulations, requests), strict=True):
        expected = instance.oracle()
        np.testing.assert_array_equal(outcome.good, expected.good)
        np.testing.assert_array_equal(outcome.finish, expected.finish)
        np.testing.assert_array_equal(outcome.group, expected.group)


def lowered_for_cuda(program: Any, *arguments: Any, **options: Any) -> str:
    """The program that a GPU would compile, made without one."""
    with contextlib.ExitStack() as stack:
        if gpu.MOSAIC:  # asks which GPU it is for
            h100 = jax.sharding.AbstractDevice("NVIDIA H100 80GB HBM3", None, "cuda")
            mesh = jax.sharding.AbstractMesh((1,), ("x",), abstract_device=h100)
            stack.enter_context(jax.sharding.use_abstract_mesh(mesh))
        traced = program.trace(*arguments, **options, interpret=False)
        return traced.lower(lowering_platforms=("cuda",)).as_text()


@pytest.mark.parametrize("dispatch", [*NAMES, STICKY], ids=str)
def test_lowers_for_a_gpu_without_one(dispatch: str | DispatchRule):
    """Of one clock per group and of a clock per stage, with one configuration and with several."""
    problem = mixed_problem()
    problem = dataclasses.replace(problem, rules=Rules(dispatch))
    workload = synthesize(problem.models, duration_s=10, seed=0)
    one, four = ParallelConfig(1, 1), ParallelConfig(1, 4)
    for configs, models in (((one, one), (0, 2)), ((one, four), (0, 1, 2)), ((four,), (0, 1))):
        groups = tuple(Group(config, models) for config in configs)
        (simulation,) = make_simulations(problem, Placement(groups), workload, 0.0)
        block = pack_lanes(simulation.lanes, range(1))
        packed = pack_launch([block], keep_requests=len(configs) == 1)
        assert packed.shape.num_clocks == (4 if 1 in models else 1)
        assert (packed.shape.config_bits > 0) == (one in configs and four in configs)
        options = {"longest": packed.longest, "num_rows": packed.num_rows}
        lowered = lowered_for_cuda(simulate_launch, packed.shape, packed.launch, **options)
        assert lowered.count("stablehlo.custom_call") == 1


def test_counts_of_more_requests_than_16_bits_hold(monkeypatch: pytest.MonkeyPatch):
    """Those of groups go to memory part by part, here of 16 requests; the warm-up cuts some off."""
    monkeypatch.setattr(unrolled, "PART", 16)
    problem = mixed_problem()
    workloads = synthesize_many(problem.models, seeds=range(2), duration_s=20)
    config = ParallelConfig(1, 1)
    placement = Placement((Group(config, (0, 1)), Group(config, (1, 2)), Group(config, ())))
    simulations = make_simulations(problem, placement, workloads, warmup_s=2.0)
    lanes = [lane for simulation in simulations for lane in simulation.lanes]
    assert all(len(lane.workload) > 5 * 16 for lane in lanes)
    own, on_cpu = (
        simulate_lanes(lanes, keep_requests=False, kernel=kernel) for kernel in (Kernel.GPU, None)
    )
    for arrays, others in zip(own, on_cpu, strict=True):
        for array, other in zip(arrays, others, strict=True):
            size = min(len(array), len(other))  # kernels fill up with groups that host nothing
            np.testing.assert_array_equal(array[:size], other[:size])
            assert not array[size:].any() and not other[size:].any()
        assert (others[2][:2] > 16).all()  # dispatched


def test_placements_as_arrays(monkeypatch: pytest.MonkeyPatch):
    """Fifty under three workloads, in one launch; a GPU is pretended."""
    problem = mixed_problem()
    configs = [ParallelConfig(1, 1), ParallelConfig(1, 2)]
    workloads = synthesize_many(problem.models, seeds=range(3), duration_s=10)
    rng = np.random.default_rng(0)
    placed = rng.random((50, 4, 6)) < 0.4, rng.integers(0, 2, (50, 4))
    on_cpu = [
        ArraySimulator(problem, workloads, configs, 4)(*placed, chosen) for chosen in (None, [2])
    ]
    launched = []
    monkeypatch.setattr(choose, "LAUNCH_LANES_PER_CORE", 0)
    monkeypatch.setattr(gpu, "devices", jax.local_devices)
    monkeypatch.setattr(
        choose, "simulate_launch", lambda *a, **k: launched.append(1) or simulate_launch(*a, **k)
    )
    simulator = ArraySimulator(problem, workloads, configs, 4)
    for chosen, (good, latency) in zip((None, [2]), on_cpu, strict=True):
        own_good, own_latency = simulator(*placed, chosen)
        np.testing.assert_array_equal(own_good, good)
        np.testing.assert_array_equal(own_latency, latency)
    assert len(launched) == 2 and good.sum() > 0


def test_searches_fill_in_launches(monkeypatch: pytest.MonkeyPatch):
    """Of problems of different SLOs, memories and models at once; two GPUs are pretended."""
    problems = [mixed_problem(3, 3.0, 1.0), mixed_problem(3, 2.0, 0.5), mixed_problem(3, 1.0, 0.7)]
    problems[2] = dataclasses.replace(problems[2], models=problems[2].models[:4])
    workloads = [
        synthesize(problem.models, duration_s=10, seed=seed)
        for seed, problem in enumerate(problems)
    ]
    policies = "mp-search", "mp-search-sep"
    on_cpu = [place_batch(policy, problems, workloads) for policy in policies]
    filled = []

    def watched(shape: Any, launch: Any, *arrays: Any, **options: Any) -> Any:
        filled.append(((shape, launch, *arrays), options))
        return quick(shape, launch, *arrays, **options)

    program = greedy._fill_launch
    quick = jax.jit(
        program.__wrapped__,
        static_argnums=0,
        static_argnames=("longest", "interpret"),
        compiler_options={"xla_backend_optimization_level": 0},
    )
    monkeypatch.setattr(greedy, "_fill_launch", watched)
    monkeypatch.setattr(greedy, "run_block", None)
    monkeypatch.setattr(choose, "LAUNCH_LANES_PER_CORE", 0)
    monkeypatch.setattr(gpu, "devices", lambda: jax.local_devices()[:1] * 2)
    assert [place_batch(policy, problems, workloads) for policy in policies] == on_cpu
    (shape, launch, *arrays), options = filled[0]
    assert filled[1][0][0] == shape  # three blocks, of a problem each
    assert [np.count_nonzero(own.num_requests) for _, own, *_ in (filled[0][0], filled[1][0])] == [
        2,
        1,
    ]
    lowered = lowered_for_cuda(program, shape, launch, *arrays, longest=options["longest"])
    assert lowered.count("stablehlo.custom_call") == 1 and "stablehlo.while" in lowered


PRETENDED = """
import contextlib, json, sys
import jax, numpy as np
import beta_jax
from beta_jax import Group, ParallelConfig, Placement
from beta_jax.simulator import engine, launches
from beta_jax.simulator.kernels import choose, gpu, unrolled
from instances import mixed_problem

def run(problems, outputs):
    return beta_jax.simulate(problems, placements, workloads, outputs=outputs)

problem = mixed_problem()
ruled = [beta_jax.Rules(dispatch) for dispatch in ("earliest_free", "shortest_queue")]
problems = [beta_jax.Problem(problem.models, problem.cluster, problem.profile, r) for r in ruled]
problems = problems[:1] * 9 + problems[1:]
groups = [Group(ParallelConfig(1, 1), models) for models in ((0, 1), (2, 3), (), (1, 4, 5))]
placements = [Placement(groups[i % 2 : 2 + i % 3]) for i in range(10)]
workloads = beta_jax.synthesize_many(problem.models, seeds=range(10), duration_s=20)
on_cpu = [run(problems, outputs) for outputs in ("tally", "requests")]
assert all(one["device"] == "cpu" for one in engine.ran()), engine.ran()

launched = []
simulate = choose.simulate_launch
def watched(*args, **kwargs):
    written = simulate(*args, **kwargs)
    launched.append(written.good.devices().pop().id)
    return written
choose.simulate_launch = watched
gpu.devices = jax.local_devices
choose.LAUNCH_LANES_PER_CORE = 0
for launches.LAUNCH_BYTES in (2**30, 1):
    tally, outcomes = run(problems, "tally"), run(problems, "requests")
    for name in vars(tally):
        np.testing.assert_array_equal(getattr(tally, name), getattr(on_cpu[0], name))
    for a, b in zip(outcomes, on_cpu[1], strict=True):
        for name in ("finish", "good", "group"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
print(json.dumps([launched, engine.ran()]))
"""


def test_launches_on_two_devices_that_pass_for_gpus():
    """Nine lanes of nine workloads go there, as two launches or, where memory is short, as nine.
    The one whose rule has queues stays on the CPU. All bits are the same."""
    done = subprocess.run(
        [sys.executable, "-c", PRETENDED],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    launched, ran = json.loads(done.stdout)
    nine = [i % 2 for i in range(9)]
    assert launched == [0, 1] * 2 + nine * 2
    assert {"kernel": "gpu", "device": "cpu"} in ran
    assert {"kernel": "single", "device": "cpu"} in ran


@pytest.mark.slow
@pytest.mark.parametrize("folder, number", [("cases", 12), ("policies", 33)])
def test_published_requests(shared: Path, folder: str, number: int):
    """All golden cases without batches, in few launches: decisions equal, finishes within 1 us.

    The first 2000 requests of each, which do not know of later ones; in full they take minutes.
    """
    paths = sorted((shared / "golden" / folder).glob("*.json"))
    mixed = [path for path in paths if json.loads(path.read_text())["path"] == "mixed"]
    cases = [golden.load_case(path) for path in mixed]
    assert len(cases) == number
    simulations = make_simulations(
        [case.problem for case in cases],
        [case.placement for case in cases],
        [case.workload.part(0, min(2000, len(case.workload))) for case in cases],
        warmup_s=0.0,
    )
    lanes = [lane for simulation in simulations for lane in simulation.lanes]
    requests = simulate_lanes(lanes, keep_requests=True, kernel=Kernel.GPU)
    for case, outcome in zip(cases, join_requests(simulations, requests), strict=True):
        num = len(outcome.good)
        np.testing.assert_array_equal(outcome.good, case.good[:num], err_msg=case.name)
        assert np.abs(outcome.finish / 1e9 - case.finish_s[:num]).max() < 1e-6, case.name
