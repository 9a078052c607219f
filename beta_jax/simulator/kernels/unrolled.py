"""The queueing dynamics of a block on a GPU: its groups and stages unrolled over vectors of lanes.

Every clock is a vector of lanes that stays in registers while the time loop runs; nothing but
elementwise operations and whole rows of memory are used, which is what both backends of Pallas
(Triton, Mosaic GPU) can compile: no slices of values, no elements by lane. The price is a program
that grows with the number of clocks, see `gpu.MAX_CLOCKS`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from beta_jax.dispatch import Groups, undeclared
from beta_jax.simulator.layout import UNHOSTED, BlockShape, Launch
from beta_jax.simulator.ticks import worked_ticks

Array = jax.Array
Ref = Any
I32, I64 = jnp.int32, jnp.int64
PART = 2**15 - 1
"""Requests after which counts of groups, two of 16 bits in a register, go to memory."""


class Written(NamedTuple):
    """What a block writes, as references to memory; of all blocks the same with an axis in front.

    Row r of `finish` and `group`, which all blocks share, is request `r - row` of the block whose
    `Launch.row` is that.
    """

    good: Ref  # int64 [models + 1, lane], `Counts.good`
    total_latency: Ref  # int64 [models + 1, lane], `Counts.latency`
    groups: Ref  # int32 [part, group, lane], dispatched + (good << 16) in a part of the requests
    memory: Ref | None = None  # int64 [models + 1, lane] what the dispatch rule remembers
    finish: Ref | None = None  # int64 [row, lane], `Requests.finish`
    group: Ref | None = None  # int32 [row, lane], `Requests.group`


class _State(NamedTuple):
    """What stays in registers: a vector of lanes per group, or per stage and group."""

    last: list[Array]  # int64, packed clocks of the last stage
    earlier: list[list[Array]]  # int64, of the earlier stages
    counts: list[Array]  # int32, as `Written.groups`, in this part of the requests


def _each(function: Callable[..., Array], *lists: list[Array]) -> list[Array]:
    return [function(*values) for values in zip(*lists, strict=True)]


def _smallest(able: list[Array], order: list[Array]) -> Array:
    """The minimum of those that are able, else `UNHOSTED`; by halves, so that few values wait."""
    if len(able) == 1:
        return jnp.where(able[0], order[0], UNHOSTED)
    half = len(able) // 2
    return jnp.minimum(_smallest(able[:half], order[:half]), _smallest(able[half:], order[half:]))


def _advance(shape: BlockShape, t: Array, clocks: list[Array], cost: list[Array]) -> list[Array]:
    """The clocks after serving a request that arrives at `t`, as in `lockstep`."""
    if shape.num_clocks == 1:
        total, bottleneck = cost
        return [jnp.maximum(t + total, clocks[0] + bottleneck)]
    after, x = [], t
    for clock, stage_cost in zip(clocks, cost, strict=True):
        x = jnp.maximum(x, clock) + stage_cost
        after.append(x)
    return after


def _costs(shape: BlockShape, rows: list[list[Array]], packed: Array) -> list[Array]:
    """Of `rows` [config][stage] those of the configuration in the low bits, for every lane."""
    if shape.config_bits == 0:
        return rows[0]
    config = (packed & ((1 << shape.config_bits) - 1)).astype(I32)
    found = [packed * 0 + cost for cost in rows[0]]
    for index, row in enumerate(rows[1:], 1):
        found = [jnp.where(config == index, new, old) for new, old in zip(row, found, strict=True)]
    return found


def _orders(
    shape: BlockShape,
    state: _State,
    able: list[Array],
    remembered: Array | int,
    t: Array,
    request: Array,
    costs: Callable[[Array], list[Array]],
) -> list[Array]:
    """The dispatch rule's sort keys of the groups."""
    num_groups = len(able)
    bits = shape.config_bits + (num_groups - 1).bit_length()

    @functools.cache
    def ranks() -> list[Array]:
        found = [able[0].astype(I64) * 0]
        for one in able:
            found.append(found[-1] + one.astype(I64))
        return found

    def order(g: int) -> Array:
        clock, index = state.last[g] >> bits, jnp.full_like(state.last[g], g)

        def finish() -> Array:
            clocks = [*(stage[g] for stage in state.earlier), clock]
            return _advance(shape, t, clocks, costs(state.last[g]))[-1]

        seen = Groups(
            now=t,
            request=request,
            index=index,
            clock=clock,
            finish=finish,
            memory=remembered,
            num_groups=num_groups,
            rank=lambda: ranks()[g],
            num_hosts=lambda: ranks()[-1],
            unfinished=undeclared,
        )
        return jnp.broadcast_to(shape.rule.order(seen), index.shape).astype(I64)

    return [order(g) for g in range(num_groups)]


def _step(
    shape: BlockShape, block: Launch, written: Written, number: Array, i: Array, state: _State
) -> _State:
    """Request `i` of the block in all lanes."""
    num_groups = len(state.last)
    bits = shape.config_bits + (num_groups - 1).bit_length()
    low_bits = (1 << bits) - 1
    _, _, num_configs, num_costs = block.latency.shape
    place, table = block.offset[number] + i, block.table[number]
    t, model = block.arrival[place], block.model[place]
    work = None if block.work is None else block.work[place].astype(I64)
    rows = [
        [worked_ticks(block.latency[table, model, config, k], work) for k in range(num_costs)]
        for config in range(num_configs)
    ]
    costs = functools.partial(_costs, shape, rows)

    # Dispatch: the smallest (order, group) among the groups that host the model.
    words = [block.hosted[model, word] for word in range(block.hosted.shape[1])]
    flags = np.left_shift(np.int32(1), np.arange(32, dtype=np.int32))
    able = [(words[g // 32] & flags[g % 32]) != 0 for g in range(num_groups)]
    rule = shape.rule
    remembered = rule.initial if written.memory is None else written.memory[model]
    order = state.last
    if not rule.by_clock:
        request = block.first[number] + i
        order = _orders(shape, state, able, remembered, t, request, costs)
        if rule.then_by_clock:
            least = _smallest(able, order)
            able = _each(lambda a, o: a & (o == least), able, order)
            order = state.last
        else:
            order = _each(lambda o, last: o << bits | last & low_bits, order, state.last)
    key = _smallest(able, order)
    has_host = key < UNHOSTED
    low = key & low_bits
    group = jnp.where(has_host, low >> shape.config_bits, -1).astype(I32)
    chosen = [group == g for g in range(num_groups)]

    # Service, should the request be accepted.
    def read(clocks: list[Array]) -> Array:
        found = clocks[0]
        for mine, clock in zip(chosen[1:], clocks[1:], strict=True):
            found = jnp.where(mine, clock, found)
        return found

    by_clock = rule.by_clock or rule.then_by_clock
    clocks = [*map(read, state.earlier), (key if by_clock else read(state.last)) >> bits]
    after = _advance(shape, t, clocks, costs(low))
    latency = after[-1] + block.request_overhead[number] - t
    good = has_host & (latency <= block.deadline[model])

    # What changes.
    served = [mine & good for mine in chosen]

    def write(new: Array, clocks: list[Array]) -> list[Array]:
        return _each(lambda mine, old: jnp.where(mine, new, old), served, clocks)

    counted = (block.count_from[number] <= i) & (i < block.count_to[number])
    tally = (1 + (good.astype(I32) << 16)) * counted.astype(I32)
    if written.memory is not None and rule.after is not None:
        changed = rule.after(remembered, group.astype(I64))
        written.memory[model] = jnp.where(has_host, changed, remembered)
    if written.finish is not None and written.group is not None:
        row = block.row[number] + i
        written.finish[row] = jnp.where(good, t + latency, 0)
        written.group[row] = group
    good &= counted
    written.good[model] += good.astype(I64)
    written.total_latency[model] += jnp.where(good, latency, 0)
    return _State(
        write(after[-1] << bits | low, state.last),
        [write(new, stage) for new, stage in zip(after[:-1], state.earlier, strict=True)],
        _each(lambda mine, old: old + jnp.where(mine, tally, 0), chosen, state.counts),
    )


def simulate(shape: BlockShape, block: Launch, written: Written, number: Array) -> None:
    """Simulate block `number`; arrays that are each block's own come without their first axis."""
    num_groups, lanes = block.config.shape
    num_requests = block.num_requests[number]

    def clear_model(row: Array, _: None) -> None:
        written.good[row] = written.total_latency[row] = jnp.zeros(lanes, I64)
        if written.memory is not None:
            written.memory[row] = jnp.full(lanes, shape.rule.initial, I64)

    def clear_part(part: Array, _: None) -> None:
        def clear_group(g: Array, _: None) -> None:
            written.groups[part, g] = jnp.zeros(lanes, I32)

        lax.fori_loop(0, num_groups, clear_group, None)

    lax.fori_loop(0, written.good.shape[0], clear_model, None)
    lax.fori_loop(0, written.groups.shape[0], clear_part, None)

    zero = block.hosted[0, 0] & 0  # Mosaic GPU takes a constant for one value, this for a vector
    config = block.config if shape.config_bits else [zero] * num_groups
    state = _State(
        last=[(g << shape.config_bits | config[g]).astype(I64) for g in range(num_groups)],
        earlier=[[zero.astype(I64)] * num_groups for _ in range(shape.num_clocks - 1)],
        counts=[zero] * num_groups,
    )
    step = functools.partial(_step, shape, block, written, number)

    def run_part(part: Array, state: _State) -> _State:
        begin = part * PART
        end = jnp.minimum(begin + PART, num_requests)
        state = lax.fori_loop(begin, end, step, state)
        for g, count in enumerate(state.counts):
            written.groups[part, g] = count
        return state._replace(counts=[zero] * num_groups)

    lax.fori_loop(0, -(-num_requests // PART), run_part, state)
