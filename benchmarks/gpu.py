"""What a GPU is worth here: checks, then the kernel, figures and a search beside the machine's CPU.

    python benchmarks/gpu.py [--json FILE]    # on a machine with a GPU
    python benchmarks/gpu.py --rehearse       # on any: the kernel is interpreted, sizes are tiny

1. `selfcheck`; the kernel against golden results and an independent event loop, to the last bit.
2. Request-events per second for the shapes of `simulate.py`, after warm-up: the kernel, XLA's loop
   over the same lanes on the GPU, and the engine on all cores of the CPU, which must count alike;
   and the kernel's share of the bound that `gpu_compile.py` recorded for an H100.
3. `sec6_5` and `sec6_3` with 1000 seeds as whole commands, and a local search, with the GPU and
   without. Tables and placements must be equal.

Each part is a process of its own: where one fails or takes too long that is said, and others go on.
Made for less than ten minutes (estimated); needs what requirements-dev.txt lists.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import functools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SHAPES = [(4, 8, 48), (16, 1, 48), (16, 4, 48), (32, 2, 72), (64, 1, 48)]
HOSTED, NUM_TYPES, UTILISATION, SLO_SCALE = 0.25, 6, 0.9, 3.0
DISTINCT, NUM_LANES, REQUESTS, REPEATS = 1024, (1024, 16_384, 131_072), 4_000, 3
"""Lanes that differ, how many there are in all, requests of each, and runs that are timed."""
FIGURES = {
    "sec6_5": ["--config=sec6_5"],
    "sec6_3, 1000 seeds": ["--config=sec6_3", "--config.seeds=1000"],
}
SMALL_FIGURES = {
    "sec6_5": ["--config=sec6_5:smoke"],
    "sec6_3, 2 seeds": ["--config=sec6_3:smoke", "--config.seeds=2"],
}
RECORD = ROOT / "benchmarks/gpu_compile.json"
"""What `gpu_compile.py` recorded: bounds of an H100, by caller."""
PART_S = 180.0
PACKAGES = ("jax", "jaxlib", "numpy", "jax-cuda12-plugin", "jax-cuda13-plugin")
NO_GPU = (
    "JAX finds no GPU here that has the kernel (--rehearse runs without one): "
    "python -m pip install 'jax[cuda13]==0.11.2', or 'jax[cuda12]==0.9.2' for older drivers"
)


# The parts, each in a process of its own; what they return is printed as JSON.


def machine(_: bool) -> dict[str, Any]:
    import jax

    from beta_jax.simulator.kernels import gpu

    device = jax.devices()[0]
    return {
        "chip": device.device_kind,
        "has_kernel": bool(gpu.devices()),
        "caller": "Mosaic GPU" if gpu.MOSAIC else "Triton",
        "platform_version": device.client.platform_version.replace("\n", " "),
        "memory_gib": round((device.memory_stats() or {}).get("bytes_limit", 0) / 2**30, 1),
    }


def throughput(shape: tuple[int, int, int], rehearse: bool) -> list[dict[str, Any]]:
    """A row for every number of lanes: billion request-events per second."""
    case = Case(shape, *((128, 64) if rehearse else (DISTINCT, REQUESTS)))
    rows = []
    for lanes in (256,) if rehearse else NUM_LANES:
        row: dict[str, Any] = {"shape": shape, "lanes": lanes}
        counts = {}
        for name in ("kernel", "loop", "cpu"):
            run = getattr(case, name)(lanes)
            counts[name] = run()  # compiles
            seconds = []
            for _ in range(REPEATS):
                begin = time.perf_counter()
                run()
                seconds.append(time.perf_counter() - begin)
            row[name] = lanes * case.requests / statistics.median(seconds) / 1e9
        for name, found in counts.items():
            for array, expected in zip(found, counts["cpu"], strict=True):
                assert (array == expected).all(), f"{name} counts something else"
        rows.append(row)
    return rows


class Case:
    """Random placements of one shape under one workload, as `simulate.py` makes them.

    kernel, loop, cpu: functions that simulate so many lanes, the distinct ones again and again, and
    return good requests and their summed latency of the distinct ones, [model, lane] each.
    """

    def __init__(self, shape: tuple[int, int, int], distinct: int, requests: int) -> None:
        import numpy as np

        import beta_jax
        from beta_jax.simulator import engine

        groups, stages, num_models = shape
        rng = np.random.default_rng(shape)
        config = beta_jax.ParallelConfig(1, stages)
        latency_s = rng.uniform(0.02, 0.08, (NUM_TYPES, stages))
        types = {
            f"type{kind}": {
                "configs": [
                    {
                        "op": 1,
                        "pp": stages,
                        "stage_latency_s": {"1": list(row)},
                        "weight_bytes": [1.0] * stages,
                        "act_bytes": {"1": [0.0] * stages},
                    }
                ]
            }
            for kind, row in enumerate(latency_s)
        }
        document = {"format": "beta_jax.profile", "version": 1, "types": types}
        kinds = rng.integers(0, NUM_TYPES, num_models)
        slo_s = latency_s.sum(1) * SLO_SCALE
        models = [
            beta_jax.Model(f"model{i}", f"type{kind}", float(slo_s[kind]))
            for i, kind in enumerate(kinds)
        ]
        cluster = beta_jax.Cluster(num_devices=groups * stages)
        problem = beta_jax.Problem(models, cluster, beta_jax.Profile.from_dict(document))
        gap_s = latency_s[kinds].max(1).mean() / groups / UTILISATION
        arrival_s = np.cumsum(rng.exponential(gap_s, requests))
        workload = beta_jax.Workload.from_seconds(arrival_s, rng.integers(0, num_models, requests))
        placements = [
            beta_jax.Placement(
                [beta_jax.Group(config, np.flatnonzero(row).tolist()) for row in hosted]
            )
            for hosted in rng.random((distinct, groups, num_models)) < HOSTED
        ]
        made = engine.make_simulations(problem, placements, workload, 0.0)
        self.requests, self.num_models = requests, num_models
        self.lanes = [lane for simulation in made for lane in simulation.lanes]
        assert len({lane.block_key() for lane in self.lanes}) == 1

    def kernel(self, lanes: int) -> Callable[[], list[Any]]:
        import jax
        import numpy as np

        from beta_jax.simulator import engine, launches
        from beta_jax.simulator.kernels import gpu

        kind = engine.Kernel.GPU
        grouped = [own for _, own in engine.group_lanes(self.lanes, kernel=kind)]
        blocks = [launches.pack_lanes([self.lanes[i] for i in own], own) for own in grouped]
        packed = launches.pack_launch(blocks, keep_requests=False)
        times = lanes // len(self.lanes)
        of_a_block = {
            name: np.concatenate([array[: len(blocks)]] * times)
            for name, array in packed.launch._asdict().items()
            if name not in ("arrival", "model", "work", "latency")
        }
        launch = packed.launch._replace(**of_a_block)
        device = (gpu.devices() or jax.devices("cpu"))[0]
        packed = packed._replace(launch=jax.device_put(launch, device))

        def run() -> list[Any]:
            written = jax.block_until_ready(launches.run_launch(packed, device))
            counts = gpu.counts(
                jax.tree.map(lambda array: np.asarray(array[: len(blocks)]), written)
            )
            return [np.concatenate(array, axis=1)[:-1] for array in (counts.good, counts.latency)]

        return run

    def loop(self, lanes: int) -> Callable[[], list[Any]]:
        import jax
        import numpy as np

        from beta_jax.simulator import engine

        shape, blocks = self._blocks(engine.Kernel.LOCKSTEP)
        times = lanes // len(self.lanes)
        wide = {
            name: np.concatenate([getattr(block, name) for block in blocks] * times, axis=-1)
            for name in ("hosted", "config", "deadline")
        }
        block = jax.device_put(blocks[0]._replace(**wide), jax.devices()[0])

        def run() -> list[Any]:
            counts = jax.block_until_ready(engine.simulate_block(shape, block)[0])
            return [
                np.asarray(array[:-1, : len(self.lanes)]) for array in (counts.good, counts.latency)
            ]

        return run

    def cpu(self, lanes: int) -> Callable[[], list[Any]]:
        import jax
        import numpy as np

        from beta_jax.parallel import run_parallel
        from beta_jax.simulator import engine

        first = self.lanes[0]
        size = engine.MAX_LANES, first.num_groups, first.num_clocks, self.requests
        shape, blocks = self._blocks(engine.choose_kernel(first.problem.rules, *size))
        times = lanes // len(self.lanes)
        on_cpu = [jax.device_put(block, jax.devices("cpu")[0]) for block in blocks]

        def run_one(block: Any) -> list[Any]:
            counts = engine.simulate_block(shape, block)[0]
            return [np.asarray(array)[:-1] for array in (counts.good, counts.latency)]

        def run() -> list[Any]:
            found = run_parallel(run_one, on_cpu * times)[: len(blocks)]
            return [np.concatenate(arrays, axis=1) for arrays in zip(*found, strict=True)]

        return run

    def _blocks(self, kernel: Any) -> tuple[Any, list[Any]]:
        from beta_jax.simulator import engine

        grouped = engine.group_lanes(self.lanes, kernel=kernel)
        packed = [engine.pack_block(kernel, [self.lanes[i] for i in own]) for _, own in grouped]
        hosts = max(shape.num_hosts for shape, _, _ in packed)
        return packed[0][0]._replace(num_hosts=hosts), [block for _, block, _ in packed]


def local_search(rehearse: bool) -> dict[str, Any]:
    """Sixty models of six types on 32 devices, trained on eight seeds."""
    import beta_jax

    profile = beta_jax.load_profile("v100")
    types = ("bert-6.7b", "moe-5.3b", "bert-2.6b", "moe-2.4b", "bert-1.3b", "moe-1.3b")
    models = beta_jax.make_models(
        types * (1 if rehearse else 10),
        profile,
        **{"slo_scale": 5, "total_rate_rps": 8 if rehearse else 64, "split": "power_law", "cv": 4},
    )
    problem = beta_jax.Problem(models, beta_jax.Cluster(8 if rehearse else 32), profile)
    train = beta_jax.synthesize_many(models, seeds=range(8), duration_s=20 if rehearse else 200)
    budget = 200 if rehearse else 20_000
    for _ in range(2):  # the first time it compiles
        begin = time.perf_counter()
        result = beta_jax.place("local-search", problem, train, budget_simulations=budget)
        seconds = time.perf_counter() - begin
    return {"seconds": seconds, "placement": repr(result.placement)}


PARTS: dict[str, Callable[[bool], Any]] = {
    "machine": machine,
    "local_search": local_search,
    **{
        f"shape{number}": functools.partial(throughput, shape)
        for number, shape in enumerate(SHAPES)
    },
}


# The command, which loads no JAX: the memory of the GPU belongs to the parts.


class PartFailed(Exception):
    """A part that ended with an error, or not in time: the last line that it said."""


def part(name: str, rehearse: bool, **environment: str) -> Any:
    """What a part returns. Raises PartFailed."""
    command = ["benchmarks/gpu.py", f"--part={name}", *["--rehearse"] * rehearse]
    return json.loads(last_line(python(*command, **environment)))


def python(*arguments: str, **environment: str) -> str:
    """What a command prints. Raises PartFailed."""
    own = {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"} | environment
    options: dict[str, Any] = {"cwd": ROOT, "env": os.environ | own, "timeout": PART_S}
    try:
        done = subprocess.run(
            [sys.executable, *arguments], capture_output=True, text=True, **options
        )
    except subprocess.TimeoutExpired:
        raise PartFailed(f"not done in {PART_S:.0f} s") from None
    if done.returncode:
        raise PartFailed(last_line(done.stderr) or last_line(done.stdout))
    return done.stdout


def last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2]


def check(rehearse: bool) -> dict[str, str]:
    some = ["-k", "many_workloads and earliest_free"] if rehearse else []
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, command in {
            "selfcheck": ["run.py", "--config=selfcheck", f"--out_dir={folder}"],
            "parity": ["-m", "pytest", "-q", "tests/simulator/test_gpu.py", *some],
        }.items():
            try:
                lines = python(*command).splitlines()
                found[name] = [line for line in lines if "passed" in line][-1]
            except PartFailed as error:
                found[name] = f"FAILED: {error}"
            print(f"{name}: {found[name]}", flush=True)
    return found


def measure(caller: str, rehearse: bool) -> list[dict[str, Any]]:
    """The rows of `throughput`, or why a shape has none; and the share of what an H100 could do."""
    recorded = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    bounds = {tuple(row["shape"]): row["bound_gevents_s"] for row in recorded.get(caller, [])}
    print(
        f"\n{'billion request-events per second':34}{'kernel':>12}{'XLA loop':>12}{'CPU':>12}"
        f"{'of the bound':>14}"
    )
    rows = []
    for number in (2,) if rehearse else range(len(SHAPES)):
        try:
            found = part(f"shape{number}", rehearse)
        except PartFailed as error:
            found = [{"shape": SHAPES[number], "failed": str(error)}]
        for row in found:
            line = f"{tuple(row['shape'])!s:16}"
            if "failed" in row:
                line += f" FAILED: {row['failed']}"
            else:
                line += f"{row['lanes']:12,} lanes"
                line += "".join(f"{row[name]:12.4g}" for name in ("kernel", "loop", "cpu"))
                if bound := bounds.get(tuple(row["shape"])):
                    row["share_of_bound"] = row["kernel"] / bound
                    line += f"{row['share_of_bound']:14.1%}"
            print(line, flush=True)
        rows += found
    return rows


def compare(name: str, run: Callable[..., tuple[dict[str, Any], Any]]) -> dict[str, Any]:
    """Seconds on JAX's default device and on the CPU; what `run` returns besides must be equal."""
    row: dict[str, Any] = {"name": name}
    found, texts = [], []
    for device, environment in (("default", {}), ("CPU", {"JAX_PLATFORMS": "cpu"})):
        try:
            row[device], result = run(**environment)
            found.append(result)
            texts.append(f"{device} {row[device]['seconds']:.1f} s")
        except PartFailed as error:
            row[device] = {"failed": str(error)}
            texts.append(f"{device} FAILED: {error}")
    row["equal"] = len(found) == 2 and found[0] == found[1]
    print(f"{name}: {', '.join(texts)}; results {'' if row['equal'] else 'NOT '}equal", flush=True)
    return row


def figure(*arguments: str, **environment: str) -> tuple[dict[str, Any], bytes]:
    """Seconds of a whole command with empty caches, in all and by part, and its table."""
    with tempfile.TemporaryDirectory() as folder:
        environment["XDG_CACHE_HOME"] = f"{folder}/cache"
        begin = time.perf_counter()
        python("run.py", *arguments, f"--out_dir={folder}", **environment)
        seconds = time.perf_counter() - begin
        parts = json.loads((Path(folder) / "timings.json").read_text())
        return {"seconds": seconds, "parts": parts}, (Path(folder) / "table.csv").read_bytes()


def search(rehearse: bool, **environment: str) -> tuple[dict[str, Any], str]:
    found = part("local_search", rehearse, **environment)
    return {"seconds": found["seconds"]}, found["placement"]


def about(rehearse: bool) -> dict[str, Any]:
    """Raises PartFailed."""
    versions = {}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return part("machine", rehearse) | {
        "date": datetime.date.today().isoformat(),
        "rehearsal": rehearse,
        "cpu": f"{len(os.sched_getaffinity(0))} cores, {platform.machine()}",
        "versions": {"python": platform.python_version()} | versions,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, help="also write everything to this file")
    parser.add_argument("--rehearse", action="store_true", help="without a GPU, and tiny")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    rehearse = arguments.rehearse
    if arguments.part:
        print(json.dumps(PARTS[arguments.part](rehearse)))
        return 0
    begin = time.perf_counter()
    try:
        machine = about(rehearse)
    except PartFailed as error:
        print(f"error: JAX does not start: {error}", file=sys.stderr)
        return 1
    if not (machine["has_kernel"] or rehearse):
        print(f"error: {NO_GPU}", file=sys.stderr)
        return 1
    for name, value in machine.items():
        print(f"{name}: {value}")
    found = {
        "machine": machine,
        "checks": check(rehearse),
        "throughput": measure(machine["caller"], rehearse),
    }
    print("\nwhole commands, compiling included, and a search after warm-up")
    found["runs"] = [
        compare(name, functools.partial(figure, *own))
        for name, own in (SMALL_FIGURES if rehearse else FIGURES).items()
    ]
    found["runs"].append(compare("local search", functools.partial(search, rehearse)))
    found["seconds"] = time.perf_counter() - begin
    print(f"\n{found['seconds']:.0f} s in all")
    text = json.dumps(found, indent=1)
    if arguments.json:
        arguments.json.write_text(text)
    return int("FAILED" in text or '"failed"' in text or '"equal": false' in text)


if __name__ == "__main__":
    sys.exit(main())
