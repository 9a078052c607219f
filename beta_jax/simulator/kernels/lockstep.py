"""The queueing dynamics of many lanes at once: every request once, all lanes in lockstep.

As the lanes share the workload, a step's request is a scalar, and lanes lie along the last axis of
every array. The shape of the program was chosen by measurement (`benchmarks/README.md`):

* A request's new clocks and counts are written at the start of the NEXT step. Written in the same
  step, XLA recomputes the whole chain from dispatch to admission once per group.
* Where every group runs models of one type, all its stages are determined by one clock (see
  `_advance`); otherwise there is one array of clocks per stage.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from beta_jax.dispatch import Groups, undeclared
from beta_jax.simulator.layout import UNHOSTED, Block, BlockShape, Carried, Counts, Requests
from beta_jax.simulator.ticks import worked_ticks

Array = jax.Array
I64 = jnp.int64
LANES = 64
"""Lanes of a block: enough to fill the vector units, few enough for clocks to stay in L1 cache."""


class _Pending(NamedTuple):
    """What the next step writes; int64 [lane] each, groups -1 for none."""

    group: Array  # where the request was sent
    tally: Array  # 1 if it counts, + 2^32 if it also was good
    last: Array  # packed clock of the group's last stage, unchanged if the request was rejected
    served_by: Array  # the same group if the request was accepted
    earlier: tuple[Array, ...]  # clocks of the earlier stages


class _Queues(NamedTuple):
    ends: Array  # int64 [group, queue, lane], of the latest accepted requests
    overflow: Array  # bool [lane], one was dropped while unfinished


class _State(NamedTuple):
    last: Array  # int64 [group, lane], packed clock of the last stage
    earlier: tuple[Array, ...]  # int64 [group, lane] per earlier stage
    pending: _Pending
    memory: Array | None  # int64 [models + 1, lane] what the dispatch rule remembers, if anything
    queues: _Queues | None  # if the dispatch rule counts unfinished requests
    good: Array
    latency: Array
    group_counts: Array  # int64 [group, lane] dispatched + (good << 32)
    requests: Requests | None


def _over_groups(
    of_two: Callable[[Array, Array], Array], of_all: Callable[..., Array], rows: Array
) -> Array:
    """Minimum or maximum over the groups of int64 [group, lane]: [lane].

    XLA's own reduction is slow over many groups: so halves are combined until few rows are left.
    """
    while rows.shape[0] > 8:
        half = rows.shape[0] // 2
        rows = of_two(rows[:half], rows[half:])
    return of_all(rows, axis=0)


def _advance(shape: BlockShape, t: Array, clocks: list[Array], cost: list[Array]) -> list[Array]:
    """The clocks after serving a request that arrives at `t`.

    With one clock f, the finish of the previous request: jobs that take the same constant time in
    every stage start `bottleneck` apart at least, so finish = max(t + total, f + bottleneck).
    """
    if shape.num_clocks == 1:
        total, bottleneck = cost
        return [jnp.maximum(t + total, clocks[0] + bottleneck)]
    after, x = [], t
    for clock, stage_cost in zip(clocks, cost, strict=True):
        x = jnp.maximum(x, clock) + stage_cost
        after.append(x)
    return after


def _write(state: _State, bits: int) -> tuple[Array, tuple[Array, ...], _Queues | None, Array]:
    """`last`, `earlier`, `queues` and `group_counts` with what is pending written."""
    group_index = jnp.arange(state.last.shape[0], dtype=I64)[:, None]
    last, earlier, pending = state.last, state.earlier, state.pending
    dispatched = group_index == pending.group
    served = group_index == pending.served_by
    earlier = tuple(
        jnp.where(served, new, old) for new, old in zip(pending.earlier, earlier, strict=True)
    )
    counts = state.group_counts + jnp.where(dispatched, pending.tally, 0)
    queues = state.queues
    if queues is not None:
        newest = jnp.broadcast_to(pending.last >> bits, queues.ends[:, :1].shape)
        moved = jnp.concatenate([queues.ends[:, 1:], newest], axis=1)
        queues = queues._replace(ends=jnp.where(served[:, None], moved, queues.ends))
    return jnp.where(dispatched, pending.last, last), earlier, queues, counts


def _step(shape: BlockShape, block: Block, rank: Array, i: Array, state: _State) -> _State:
    num_groups, num_lanes = block.config.shape
    bits = shape.config_bits + (num_groups - 1).bit_length()
    group_index = jnp.arange(num_groups, dtype=I64)[:, None]
    t, model = block.arrival[i], block.model[i]
    row = functools.partial(lax.dynamic_index_in_dim, index=model, axis=0, keepdims=False)
    work = None if block.work is None else block.work[i]
    cost_rows = worked_ticks(block.latency[block.model_type[model]], work)  # [config, stage]

    def costs(config: Array) -> list[Array]:
        if shape.config_bits == 0:
            return list(cost_rows[0])
        return [
            cost_rows.at[config, k].get(mode="promise_in_bounds") for k in range(cost_rows.shape[1])
        ]

    last, earlier, queues, group_counts = _write(state, bits)

    # Dispatch: the smallest (order, group) among the groups that host the model.
    rule, memory = shape.rule, state.memory
    remembered = rule.initial if memory is None else row(memory)
    able, order = row(block.hosted), last
    if not rule.by_clock:

        def finish() -> Array:
            return _advance(shape, t, [*earlier, last >> bits], costs(block.config))[-1]

        def unfinished() -> Array:
            return undeclared() if queues is None else (queues.ends > t).sum(1)

        seen = Groups(
            now=t,
            request=block.first + i,
            index=group_index,
            clock=last >> bits,
            finish=finish,
            memory=remembered,
            num_groups=num_groups,
            rank=lambda: row(rank).astype(I64),
            num_hosts=lambda: row(rank)[-1].astype(I64) + able[-1],
            unfinished=unfinished,
        )
        order = rule.order(seen)
        if rule.then_by_clock:
            able &= order == _over_groups(jnp.minimum, jnp.min, jnp.where(able, order, UNHOSTED))
            order = last
        else:
            order = order << bits | last & ((1 << bits) - 1)
    key = _over_groups(jnp.minimum, jnp.min, jnp.where(able, order, UNHOSTED))
    has_host = key < UNHOSTED
    low = key & ((1 << bits) - 1)
    group = jnp.where(has_host, low >> shape.config_bits, -1)
    chosen = group_index == group

    # Service, should the request be accepted.
    def read(clock: Array) -> Array:
        return _over_groups(jnp.maximum, jnp.max, jnp.where(chosen, clock, 0))

    clocks = [read(clock) for clock in earlier]
    clocks.append(key >> bits if rule.by_clock or rule.then_by_clock else read(last >> bits))
    config = low & ((1 << shape.config_bits) - 1)
    after = _advance(shape, jnp.full(num_lanes, t), clocks, costs(config))
    latency = after[-1] + block.request_overhead - t
    good = has_host & (latency <= row(block.deadline))

    counted = (block.count_from <= i) & (i < block.count_to)
    pending = _Pending(
        group=group,
        tally=counted + ((good & counted).astype(I64) << 32),
        last=jnp.where(good, after[-1], clocks[-1]) << bits | low,
        served_by=jnp.where(good, group, -1),
        earlier=tuple(after[:-1]),
    )
    if memory is not None and rule.after is not None:
        changed = rule.after(remembered, group)
        memory = memory.at[model].set(jnp.where(has_host, changed, remembered))
    if queues is not None:
        dropped = good & (read(queues.ends[:, 0]) > t)
        queues = queues._replace(overflow=queues.overflow | dropped)
    requests = state.requests
    if requests is not None:
        requests = Requests(
            requests.finish.at[i].set(jnp.where(good, t + latency, 0)),
            requests.group.at[i].set(group.astype(jnp.int16)),
        )
    good = good & counted
    return _State(
        last,
        earlier,
        pending,
        memory,
        queues,
        state.good.at[model].add(good),
        state.latency.at[model].add(jnp.where(good, latency, 0)),
        group_counts,
        requests,
    )


def run(shape: BlockShape, block: Block, keep_requests: bool) -> tuple[Counts, Requests | None]:
    """Simulate the lanes of a block (under jit), see `choose.run_block`."""
    num_groups, num_lanes = block.config.shape
    num_rows = block.model_type.shape[0]
    stages = shape.num_clocks - 1

    def zeros(*dims: int, dtype: type = I64) -> Array:
        return jnp.zeros((*dims, num_lanes), dtype)

    num_padded = block.arrival.shape[0]
    group_index = jnp.arange(num_groups, dtype=I64)[:, None]
    carried = block.carried
    if carried is None:
        clock, memory = zeros(num_groups, shape.num_clocks), zeros(num_rows) + shape.rule.initial
        carried = Carried(clock, memory, zeros(num_groups, shape.queue))
    bits = shape.config_bits + (num_groups - 1).bit_length()
    low = group_index << shape.config_bits | block.config.astype(I64)
    queues = _Queues(carried.ends, zeros(dtype=jnp.bool_)) if shape.queue else None
    state = _State(
        last=carried.clock[:, -1] << bits | low,
        earlier=tuple(carried.clock[:, k] for k in range(stages)),
        pending=_Pending(
            group=zeros() - 1,
            tally=zeros(),
            last=zeros(),
            served_by=zeros() - 1,
            earlier=tuple(zeros() for _ in range(stages)),
        ),
        memory=None if shape.rule.after is None else carried.memory,
        queues=queues,
        good=zeros(num_rows),
        latency=zeros(num_rows),
        group_counts=zeros(num_groups),
        requests=Requests(zeros(num_padded), zeros(num_padded, dtype=jnp.int16))
        if keep_requests
        else None,
    )
    hosted = jnp.asarray(block.hosted)
    rank = jnp.cumsum(hosted, axis=1, dtype=jnp.int16) - hosted  # dropped by XLA where unused
    step = functools.partial(_step, shape, block, rank)
    state = lax.fori_loop(0, block.num_requests, step, state)
    last, earlier, queues, group_counts = _write(state, bits)
    counts = Counts(
        state.good,
        state.latency,
        group_counts & (2**32 - 1),
        group_counts >> 32,
        None if state.queues is None else state.queues.overflow,
    )
    if block.carried is not None:
        left = Carried(
            jnp.stack([*earlier, last >> bits], axis=1),
            carried.memory if state.memory is None else state.memory,
            carried.ends if queues is None else queues.ends,
        )
        counts = counts._replace(carried=left)
    return counts, state.requests
