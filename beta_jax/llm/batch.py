"""Many engines and tables of requests at once, on all cores: the lanes of few programs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from beta_jax.backend import on_cpu
from beta_jax.llm import kernel
from beta_jax.llm.engine import Engine
from beta_jax.llm.requests import PS_PER_NS, PS_PER_S, LLMError, TokenRequests
from beta_jax.llm.shapes import StepShape
from beta_jax.llm.tables import StepTables
from beta_jax.parallel import run_parallel

FEWEST_SLOTS = 24 + kernel.SPARE_SLOTS
"""A block begins with these; where more requests run at once it is served anew with more."""
MOST_ENGINES = 1024
"""Behind a router."""
LATEST_PS = 2**61
"""26 days: up to here no sum of picoseconds overflows."""


class _System(NamedTuple):
    requests: TokenRequests
    engine: Engine
    num_engines: int

    @property
    def tables(self) -> StepTables | None:
        step_time = self.engine.step_time
        return step_time if isinstance(step_time, StepTables) else None

    @property
    def num_lanes(self) -> int:
        """One for each engine, and closed ones up to the next power of two: fewer programs."""
        return 1 << (self.num_engines - 1).bit_length()

    @property
    def most_running(self) -> int:
        """Each holds a block of its engine and is given a token of the step that admits it."""
        engine = self.engine
        most = engine.max_num_seqs, engine.max_num_batched_tokens, engine.num_blocks
        return min(*most, len(self.requests))


@dataclasses.dataclass(frozen=True)
class RequestTimes:
    """Of every request, int64 [request] each, picoseconds since its arrival.

    queue_delay_ps: until the step begins that brings the first token; ttft_ps: until the first
    token; latency_ps: until the last; tpot_ps: from token to token on average, rounded down, 0
    where there is but one.
    """

    queue_delay_ps: NDArray[np.int64]
    ttft_ps: NDArray[np.int64]
    tpot_ps: NDArray[np.int64]
    latency_ps: NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class BatchOutcome:
    """What became of every lane; [lane] each.

    num_counted: int64, requests that count; num_good: those inside both limits; the means, float64,
    are over those that count, NaN where none does. preemptions, recomputed_tokens, steps and calls
    (of the scheduler, several steps each where all decode) are of the whole run. `requests` has the
    times of all requests, if they were asked for.
    """

    num_counted: NDArray[np.int64]
    num_good: NDArray[np.int64]
    ttft_mean_s: NDArray[np.float64]
    tpot_mean_s: NDArray[np.float64]
    latency_mean_s: NDArray[np.float64]
    preemptions: NDArray[np.int64]
    recomputed_tokens: NDArray[np.int64]
    steps: NDArray[np.int64]
    calls: NDArray[np.int64]
    requests: tuple[RequestTimes, ...] | None

    @property
    def attainment(self) -> NDArray[np.float64]:
        """Good requests as a share of those that count, NaN where none does."""
        with np.errstate(invalid="ignore"):
            return self.num_good / self.num_counted


def simulate_batch(
    lanes: Sequence[tuple[TokenRequests, Engine]],
    *,
    ttft_limit_s: float = math.inf,
    tpot_limit_s: float = math.inf,
    count_from_s: float = 0.0,
    num_engines: int | Sequence[int] = 1,
    per_request: bool = False,
) -> BatchOutcome:
    """Serve each table of requests by the engine beside it, without prefix reuse.

    Or by `num_engines` such engines, a number for all or one for each table, behind a router: it
    sends a request, when it arrives, to the engine with the least `4 waiting + running` requests,
    and of equal ones to the next in turn.

    A request is good if its first token comes within `ttft_limit_s` and the others within
    `tpot_limit_s` each on average. Requests that arrive before `count_from_s` are served, but do
    not count. The same bits for any batch and order of lanes.

    Raises LLMError where a request can never fit, an engine reuses prefixes, engines have blocks
    of different sizes, or times run out of picoseconds.
    """
    limits = _limit_ps("ttft_limit_s", ttft_limit_s), _limit_ps("tpot_limit_s", tpot_limit_s)
    if not math.isfinite(count_from_s):
        raise LLMError(f"count_from_s is {count_from_s}, wanted seconds")
    sizes = {engine.block_size for _, engine in lanes}
    if len(sizes) > 1:
        raise LLMError(f"engines of a batch have blocks of one size, got {sorted(sizes)}")
    each = [num_engines] * len(lanes) if isinstance(num_engines, int) else list(num_engines)
    if len(each) != len(lanes):
        raise LLMError(f"num_engines has {len(each)} numbers for {len(lanes)} tables of requests")
    systems = [_System(*lane, number) for lane, number in zip(lanes, each, strict=True)]
    for system in systems:
        _check(system)
    blocks = _blocks(systems)

    def serve(block: Sequence[int]) -> kernel.Served:
        return _serve([systems[index] for index in block], limits, count_from_s, per_request)

    tallies = {name: np.zeros(len(lanes), np.int64) for name in kernel.Tally._fields}
    times: list[RequestTimes | None] = [None] * len(lanes)
    for block, served in zip(blocks, run_parallel(serve, blocks), strict=True):
        for name, of_lanes in served.tally._asdict().items():
            of_systems = np.asarray(of_lanes).reshape(-1, systems[block[0]].num_lanes).sum(1)
            tallies[name][block] = of_systems[: len(block)]
        for position, index in enumerate(block):
            if served.records is not None:
                times[index] = _times(lanes[index][0], served.records, position)
    for system, steps in zip(systems, tallies["steps"], strict=True):
        _check_times(system, int(steps))
    ttft, tpot, latency = (_mean_s(tallies, name) for name in ("ttft", "tpot", "latency"))
    return BatchOutcome(
        num_counted=tallies["counted"],
        num_good=tallies["good"],
        ttft_mean_s=ttft,
        tpot_mean_s=tpot,
        latency_mean_s=latency,
        preemptions=tallies["preemptions"],
        recomputed_tokens=tallies["recomputed"],
        steps=tallies["steps"],
        calls=tallies["calls"],
        requests=tuple(own for own in times if own is not None) if per_request else None,
    )


def _mean_s(tallies: dict[str, NDArray[np.int64]], name: str) -> NDArray[np.float64]:
    total_ps = tallies[f"{name}_high"] * 2.0**kernel.WORD + tallies[name]
    with np.errstate(invalid="ignore"):
        return total_ps / tallies["counted"] / PS_PER_S


def _blocks(systems: Sequence[_System]) -> list[list[int]]:
    """Systems of the same tables and size; those of like length together: they end together."""
    alike: dict[tuple[int, int], list[int]] = {}
    for index in sorted(range(len(systems)), key=lambda index: -len(systems[index].requests)):
        system = systems[index]
        alike.setdefault((id(system.tables), system.num_lanes), []).append(index)
    blocks = []
    for (_, num_lanes), own in alike.items():
        most = max(1, kernel.LANES // num_lanes)
        blocks += [own[first : first + most] for first in range(0, len(own), most)]
    return blocks


def _serve(
    block: Sequence[_System], limits: tuple[int, int], count_from_s: float, records: bool
) -> kernel.Served:
    """Serve a block, with more slots where those at hand do not do."""
    with on_cpu():
        requests, lanes = _pack(block, limits, count_from_s)
    most = kernel.SPARE_SLOTS + max(system.most_running for system in block)
    num_slots = min(FEWEST_SLOTS, most)
    while True:
        with on_cpu():
            served: kernel.Served = jax.device_get(
                kernel.run_block(
                    requests,
                    lanes,
                    num_engines=block[0].num_lanes,
                    tables=block[0].tables,
                    block_size=block[0].engine.block_size,
                    num_slots=-(-num_slots // 8) * 8,
                    records=records,
                )
            )
        if served.too_often:
            raise LLMError(
                "a lane admits or takes back more than a million requests: cut its table"
            )
        if not served.overflow:
            return served
        num_slots = min(2 * num_slots - kernel.SPARE_SLOTS, most)


def _pack(
    block: Sequence[_System], limits: tuple[int, int], count_from_s: float
) -> tuple[kernel.Requests, kernel.Lanes]:
    """Tables once each, in sizes of which there are few, and lanes, filled up with idle ones."""
    tables = list({id(system.requests): system.requests for system in block}.values())
    number = {id(requests): index for index, requests in enumerate(tables)}
    shape = tuple(
        max(least, 1 << most.bit_length())
        for least, most in ((8, len(tables)), (64, max(map(len, tables))))
    )
    arrival = np.full(shape, kernel.NEVER, np.int64)
    prompt, end = np.ones(shape, np.int32), np.full(shape, 2, np.int32)
    for row, table in enumerate(tables):
        arrival[row, : len(table)] = table.arrival_ns * PS_PER_NS
        prompt[row, : len(table)] = table.input_tokens
        end[row, : len(table)] = table.input_tokens + table.output_tokens

    side = block[0].num_lanes
    width = max(side, kernel.LANES if len(block) * side > 8 else 8)

    def column(values: list[int], dtype: type, idle: int) -> jax.Array:
        each: np.ndarray = np.repeat(np.array(values, dtype), side)
        return jnp.asarray(np.concatenate([each, np.full(width - len(each), idle, dtype)]))

    engines = [system.engine for system in block]
    tokens_ps = sequences_ps = np.zeros(1, np.int64)
    coefficients = [(1, 0, 0, 0)] * len(block)
    if (of_tables := block[0].tables) is not None:
        tokens = np.arange(1 + max(engine.max_num_batched_tokens for engine in engines))
        tokens_ps = PS_PER_NS * (of_tables.dense_ns(tokens) + of_tables.transfer_ns(tokens))
        requests = np.arange(1 + max(system.most_running for system in block))
        sequences_ps = PS_PER_NS * of_tables.per_sequence_ns(requests)
    else:
        coefficients = [dataclasses.astuple(engine.step_time) for engine in engines]
    count_from_ns = math.ceil(count_from_s * 1e9)
    first = [int(np.searchsorted(system.requests.arrival_ns, count_from_ns)) for system in block]
    opened = [engine < system.num_engines for system in block for engine in range(side)]
    return kernel.Requests(*map(jnp.asarray, (arrival, prompt, end))), kernel.Lanes(
        workload=column([number[id(system.requests)] for system in block], np.int32, len(tables)),
        open=jnp.array(opened + [True] * (width - len(opened))),
        max_num_seqs=column([engine.max_num_seqs for engine in engines], np.int32, 1),
        budget=column([engine.max_num_batched_tokens for engine in engines], np.int64, 1),
        num_blocks=column([engine.num_blocks for engine in engines], np.int64, 1),
        step=jnp.stack(
            [
                column(list(values), np.int64, idle)
                for values, idle in zip(zip(*coefficients, strict=True), (1, 0, 0, 0), strict=True)
            ]
        ),
        ttft_limit=jnp.full(width, limits[0]),
        tpot_limit=jnp.full(width, limits[1]),
        count_from=column(first, np.int32, 0),
        tokens_ps=jnp.asarray(tokens_ps),
        sequences_ps=jnp.asarray(sequences_ps),
    )


def _times(requests: TokenRequests, records: kernel.Records, position: int) -> RequestTimes:
    # Copies, as a view would keep what all lanes of the block recorded.
    queue_delay, ttft, latency = (
        np.asarray(rows)[: len(requests), position].copy() for rows in records
    )
    further = requests.output_tokens.astype(np.int64) - 1
    tpot = np.where(further > 0, (latency - ttft) // np.maximum(further, 1), 0)
    return RequestTimes(queue_delay, ttft, tpot, latency)


def _limit_ps(name: str, limit_s: float) -> int:
    if not limit_s >= 0:
        raise LLMError(f"{name} is {limit_s!r}, wanted seconds, 0 or more")
    return kernel.NEVER if limit_s >= kernel.NEVER / PS_PER_S else math.floor(limit_s * PS_PER_S)


def _check(system: _System) -> None:
    requests, engine, number = system
    if not isinstance(number, int) or not 1 <= number <= MOST_ENGINES:
        raise LLMError(f"num_engines is {number!r}, wanted a whole number from 1 to {MOST_ENGINES}")
    if engine.prefix_caching:
        raise LLMError("an engine of a batch reuses no prefixes: see simulate")
    engine.require_room(requests)
    longest = int(requests.output_tokens.max(initial=0))
    if _worst_step_ps(engine) * longest >= LATEST_PS:
        raise LLMError(f"an answer of {longest} tokens may take longer than picoseconds can tell")


def _worst_step_ps(engine: Engine) -> int:
    """With tables: of a step as large as can be, as times grow with it."""
    budget, tokens = engine.max_num_batched_tokens, engine.num_blocks * engine.block_size
    most, step_time = min(budget, engine.max_num_seqs), engine.step_time
    if isinstance(step_time, StepTables):
        each = tokens // most + 1
        worst = StepShape(most, budget, tokens, most, each * most, each, each)
        return int(step_time.step_ps(worst))
    base, prefill_token, cached_token, decode = dataclasses.astuple(step_time)
    return int(base + prefill_token * budget + cached_token * tokens + decode * most)


def _check_times(system: _System, steps: int) -> None:
    last_ps = int(system.requests.arrival_ns.max(initial=0)) * PS_PER_NS
    if last_ps + steps * _worst_step_ps(system.engine) >= 2 * LATEST_PS:
        raise LLMError("a table may take longer than picoseconds can tell: cut it")
