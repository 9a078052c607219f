"""The oracle of `beta_jax.llm`: one continuous-batching engine as a loop over Python integers.

It shares no code with the package, and follows the published rules step by step and token by token:
no jumping, blocks by name, prefixes by content. Times are integers (nanoseconds with tables,
picoseconds with the linear model); what a step takes is asked of a function of its plan.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple


class Request(NamedTuple):
    arrival: int
    input_tokens: int
    output_tokens: int
    content: tuple[int, ...] = ()  # an id for each full block of prompt and answer


class Engine(NamedTuple):
    max_num_seqs: int
    max_num_batched_tokens: int
    block_size: int
    num_blocks: int
    prefix_caching: bool = False


class Planned(NamedTuple):
    request: int
    tokens: int
    base: int  # tokens whose keys and values are there already


class Outcome(NamedTuple):
    """Per request, in the order of the requests; then of the whole run."""

    queue_delay: list[int]
    ttft: list[int]
    tpot: list[int]
    latency: list[int]
    token_times: list[list[int]]
    preemptions: int
    recomputed_tokens: int  # reached length less the prefix found, at every return
    step_ends: list[int]


StepTime = Callable[[Sequence[Planned]], int]


class _Pool:
    """Blocks of keys and values: reference counts, labels, and a free list, first in, first out."""

    def __init__(self, num_blocks: int) -> None:
        self.count = [0] * num_blocks
        self.label: list[int | None] = [None] * num_blocks
        self.free: dict[int, None] = dict.fromkeys(range(num_blocks))  # in order
        self.index: dict[int, int] = {}

    def take(self) -> int:
        block = next(iter(self.free))
        del self.free[block]
        label = self.label[block]
        if label is not None and self.index.get(label) == block:
            del self.index[label]
        self.label[block] = None
        self.count[block] = 1
        return block

    def share(self, block: int) -> None:
        self.free.pop(block, None)
        self.count[block] += 1

    def release(self, blocks: Sequence[int]) -> None:
        for block in reversed(blocks):
            self.count[block] -= 1
            if self.count[block] == 0:
                self.free[block] = None


class _Sequence:
    def __init__(self, number: int, request: Request) -> None:
        self.number, self.request = number, request
        self.length, self.done = request.input_tokens, 0
        self.blocks: list[int] = []
        self.indexed = 0
        self.fresh = True  # no token yet
        self.preempted = False


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


class _Run:
    """One engine: what waits, what runs, and the step in flight."""

    def __init__(self, engine: Engine, step_time: StepTime, result: Outcome, start: int) -> None:
        self.engine, self.step_time, self.result = engine, step_time, result
        self.pool = _Pool(engine.num_blocks)
        self.waiting: list[_Sequence] = []
        self.running: list[_Sequence] = []
        self.plan: list[tuple[_Sequence, Planned]] = []
        self.until: int | None = start  # as if a step without requests ended then
        self.preemptions = self.recomputed = 0

    def grow(self, q: _Sequence, reach: int, hit: Sequence[int]) -> bool:
        pool, size = self.pool, self.engine.block_size
        missing = max(0, ceil_div(reach, size) - len(q.blocks) - len(hit))
        idle_hits = sum(pool.count[block] == 0 for block in hit)
        if missing + idle_hits > len(pool.free):
            return False
        if hit:
            for block in hit:
                pool.share(block)
            q.blocks = list(hit)
        if not q.blocks or hit:
            q.indexed = len(hit)
        q.blocks += [pool.take() for _ in range(missing)]
        if self.engine.prefix_caching:
            full = min(min(reach, q.length) // size, len(q.request.content))
            for i in range(q.indexed, full):
                if pool.label[q.blocks[i]] is None:
                    pool.label[q.blocks[i]] = q.request.content[i]
                    pool.index[q.request.content[i]] = q.blocks[i]
            q.indexed = max(q.indexed, full)
        return True

    def begin(self, now: int) -> None:
        """Plan a step, if there is anything to do."""
        engine, pool, waiting, running = self.engine, self.pool, self.waiting, self.running
        size = engine.block_size
        budget, preempted = engine.max_num_batched_tokens, 0
        self.plan = plan = list[tuple[_Sequence, Planned]]()
        position = 0
        while position < len(running) and budget > 0:
            q = running[position]
            k = min(q.length - q.done, budget)
            itself = False
            while not self.grow(q, q.done + k, ()):
                victim = running.pop()
                pool.release(victim.blocks)
                victim.blocks, victim.indexed, victim.done = [], 0, 0
                victim.preempted = True
                waiting.insert(0, victim)
                preempted += 1
                if victim is q:
                    itself = True
                    break
            if itself:
                break
            plan.append((q, Planned(q.number, k, q.done)))
            budget -= k
            position += 1
        self.preemptions += preempted
        while not preempted and waiting and budget > 0 and len(running) < engine.max_num_seqs:
            q = waiting[0]
            hit: list[int] = []
            if engine.prefix_caching:
                for content in q.request.content[: (q.length - 1) // size]:
                    if content not in pool.index:
                        break
                    hit.append(pool.index[content])
            base = size * len(hit)
            k = min(q.length - base, budget)
            idle_hits = sum(pool.count[block] == 0 for block in hit)
            if ceil_div(q.length, size) - len(hit) + idle_hits > len(pool.free):
                break
            waiting.pop(0)
            running.append(q)
            assert self.grow(q, base + k, hit)
            if q.preempted:
                self.recomputed += q.length - base
            plan.append((q, Planned(q.number, k, base)))
            budget -= k
        if not plan:
            return
        for q, planned in plan:
            if q.fresh:
                self.result.queue_delay[q.number] = now - q.request.arrival
            q.done = planned.base + planned.tokens
        self.until = now + self.step_time([planned for _, planned in plan])
        self.result.step_ends.append(self.until)

    def complete(self) -> None:
        now, result = self.until, self.result
        assert now is not None
        for q, _ in self.plan:
            wanted, arrival = q.request, q.request.arrival
            if q.fresh and q.done >= wanted.input_tokens:
                q.fresh = False
                result.ttft[q.number] = now - arrival
            if q.done >= q.length:
                result.token_times[q.number].append(now)
                q.length += 1
            if q.length >= wanted.input_tokens + wanted.output_tokens:
                self.pool.release(q.blocks)
                self.running.remove(q)
                result.latency[q.number] = now - arrival
                decoded = wanted.output_tokens - 1
                after_first = result.latency[q.number] - result.ttft[q.number]
                result.tpot[q.number] = after_first // decoded if decoded else 0
        self.plan, self.until = [], None


def simulate(
    requests: Sequence[Request],
    engine: Engine,
    step_time: StepTime,
    start: int = 1,
    num_engines: int = 1,
) -> Outcome:
    """Serve `requests`, sorted by arrival, by equal engines behind a least-loaded router.

    `start` is the earliest time at which a step begins.
    """
    for request in requests:
        reach = request.input_tokens + request.output_tokens - 1
        if ceil_div(reach, engine.block_size) > engine.num_blocks:
            raise ValueError("never fits")
    sequences = [_Sequence(r, request) for r, request in enumerate(requests)]
    coming = sorted(sequences, key=lambda q: (q.request.arrival, q.number))
    n = len(requests)
    result = Outcome([0] * n, [0] * n, [0] * n, [0] * n, [[] for _ in range(n)], 0, 0, [])
    runs = [_Run(engine, step_time, result, start) for _ in range(num_engines)]
    turn = 0
    while True:
        times = [run.until for run in runs if run.until is not None]
        times += [coming[0].request.arrival] if coming else []
        if not times:
            break
        now = min(times)
        for run in runs:
            if run.until == now:
                run.complete()
        while coming and coming[0].request.arrival == now:
            loads = [4 * len(run.waiting) + len(run.running) for run in runs]
            cyclic = [(turn + i) % num_engines for i in range(num_engines)]
            chosen = min(cyclic, key=lambda e: loads[e])
            runs[chosen].waiting.append(coming.pop(0))
            turn = (chosen + 1) % num_engines
        for run in runs:
            if run.until is None:
                run.begin(now)
    totals = sum(run.preemptions for run in runs), sum(run.recomputed for run in runs)
    return result._replace(preemptions=totals[0], recomputed_tokens=totals[1])


# What a step takes: coefficients, or tables.


def linear(a: int, b: int, c: int, e: int) -> StepTime:
    """`a + b prefill tokens + c cached tokens of decodes + e decodes`, whole picoseconds each."""

    def step_time(plan: Sequence[Planned]) -> int:
        prefill = sum(p.tokens for p in plan if p.tokens > 1)
        cached = [p.base for p in plan if p.tokens == 1]
        return a + b * prefill + c * sum(cached) + e * len(cached)

    return step_time


def bracket(grid: Sequence[float], q: float) -> tuple[int, int, float]:
    if len(grid) == 1 or q <= grid[0]:
        return 0, 0, 0.0
    last = len(grid) - 1
    high = min(sum(g <= q for g in grid), last)
    low = high - 1
    return low, high, (q - grid[low]) / (grid[high] - grid[low])


class Tables:
    """What a step takes in nanoseconds, by tables of kernel times in a run's folder."""

    def __init__(self, folder: Path) -> None:
        self.run: dict[str, Any] = json.loads((folder / "run.json").read_text())
        self.layers: dict[str, dict[int, int]] = {}
        for name, column in (("dense.csv", "tokens"), ("per_sequence.csv", "sequences")):
            for row in self._rows(folder / name):
                layer = self.layers.setdefault(row["layer"], {})
                layer[int(row[column])] = self._ns(row["time_us"])
        self.slices: dict[tuple[int, int], dict[int, dict[int, int]]] = {}
        for row in self._rows(folder / "attention.csv"):
            corner = int(row["prefill_chunk"]), int(row["n_decode"])
            by_decode = self.slices.setdefault(corner, {}).setdefault(int(row["kv_prefill"]), {})
            by_decode[int(row["kv_decode"])] = self._ns(row["time_us"])
        self.prefill_grid = sorted({p for p, _ in self.slices})
        self.decode_grid = sorted({d for _, d in self.slices})
        self.alpha: dict[tuple[int, ...], float] = {}
        if self.run["skew"]["enabled"]:
            for row in self._rows(folder / "skew_alpha.csv"):
                *key, alpha = row.values()
                self.alpha[tuple(int(part) for part in key)] = float(alpha)

    @staticmethod
    def _rows(path: Path) -> list[dict[str, str]]:
        with path.open() as file:
            return list(csv.DictReader(file))

    @staticmethod
    def _ns(time_us: str) -> int:
        return max(1, round(float(time_us) * 1000))

    def layer(self, name: str, q: int) -> int:
        grid = sorted(self.layers[name])
        low, high, t = bracket(grid, q)
        a, b = self.layers[name][grid[low]], self.layers[name][grid[high]]
        return max(1, int(a + t * (b - a)))

    def corner(self, p: int, d: int, kp: float, kd: float) -> float:
        where = self.prefill_grid[p], self.decode_grid[d]
        if where not in self.slices:
            where = min(
                sorted(self.slices),
                key=lambda pair: (pair[0] - where[0]) ** 2 + (pair[1] - where[1]) ** 2,
            )
        rows = self.slices[where]
        prefixes = sorted(rows)

        def row(i: int) -> float:
            values = rows[prefixes[i]]
            grid = sorted(values)
            low, high, u = bracket(grid, kd)
            return values[grid[low]] + u * (values[grid[high]] - values[grid[low]])

        low, high, t = bracket(prefixes, kp)
        return row(low) + t * (row(high) - row(low))

    def uniform(self, pc: int, kp: int, nd: int, kd: int) -> int:
        p_low, p_high, p = bracket(self.prefill_grid, pc)
        d_low, d_high, d = bracket(self.decode_grid, nd)

        def at(prefill: int) -> float:
            value = self.corner(prefill, d_low, kp, kd)
            if d_low == d_high:
                return value
            return value + d * (self.corner(prefill, d_high, kp, kd) - value)

        value = at(p_low)
        if p_low != p_high:
            value = value + p * (at(p_high) - value)
        return max(1, int(value))

    def attention(self, pc: int, kp: int, cached: Sequence[int]) -> int:
        nd = len(cached)
        mean = sum(cached) // nd if nd else 0
        even = self.uniform(pc, kp, nd, mean)
        skew = self.run["skew"]
        if not skew["enabled"] or nd <= 1 or max(cached) == mean:
            return even
        biggest, least = max(cached), min(cached)
        rate = 0.5 if biggest == least else (mean - least) / (biggest - least)
        rate = min(max(rate, 0.0), 1.0)

        def bucket(axis: str, value: float) -> int:
            upper = skew[axis]
            return next((i for i, u in enumerate(upper) if value <= u), len(upper) - 1)

        key = (
            pc,
            bucket("n_upper", nd),
            bucket("skew_rate_upper", rate),
            bucket("kv_big_upper", biggest),
            bucket("kp_upper", kp),
        )
        alpha = self.alpha.get(key, skew["alpha_default"])
        if alpha == 0:
            return even
        uneven = self.uniform(pc, kp, nd, biggest)
        if uneven <= even:
            return even
        return max(1, round(even + alpha * (uneven - even)))

    def __call__(self, plan: Sequence[Planned]) -> int:
        run = self.run
        total = sum(p.tokens for p in plan)
        prefills = [p for p in plan if p.tokens > 1]
        cached = [p.base for p in plan if p.tokens == 1]
        attention = self.attention(
            sum(p.tokens for p in prefills), sum(p.base for p in prefills), cached
        )

        def cost(name: str) -> int:
            if name == "attention":
                return attention
            if name in run["per_sequence_layers"]:
                return self.layer(name, max(len(plan), 1))
            return self.layer(name, max(total, 1))

        computing = sum(map(cost, run["prologue"])) + sum(map(cost, run["head"]))
        computing += run["layers"] * sum(map(cost, run["block"]))
        io = int(4 * total / run["host_bw_bytes_per_ns"])
        if run["tp"] == 1:
            return 2 * io + computing
        message = total * run["hidden"] * run["dtype_bytes"] // 2
        hop = int(run["link_latency_ns"] + message / (run["link_bw_GiBps"] * 2**30 / 10**9))
        reduce = 3 * int(message / (run["npu_bw_bytes_per_ns"] * 10**9) * 10**9)
        return 3 * io + computing + 2 * run["layers"] * (2 * hop + reduce + 30)


def read_requests(path: Path) -> list[Request]:
    """Rows of a run's `requests.csv`, with the content of their blocks by name."""
    requests = list[Request]()
    names = 0
    for row in Tables._rows(path):
        shared = int(row["prefix_blocks"])
        content = requests[int(row["prefix_parent"])].content[:shared] if shared else ()
        new = int(row["hashed_blocks"]) - shared
        content += tuple(range(names, names + new))
        names += new
        lengths = int(row["input_tokens"]), int(row["output_tokens"])
        requests.append(Request(int(row["arrival_ns"]), *lengths, content))
    return requests
