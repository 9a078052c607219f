"""The queueing dynamics of one lane: every request looks only at the groups that host its model.

Where many lanes fill the vector units by doing everything for every group, one lane is faster with
lists of candidates and single elements read and written. What a pipeline does is stated without a
chain from stage to stage, which XLA would compute again for every stage: with the latencies before
a stage summed, `finish[k] = ends[k] + max(t, max over j <= k of clock[j] - starts[j])`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from beta_jax.dispatch import Groups, undeclared
from beta_jax.simulator.layout import UNHOSTED, Block, BlockShape, Carried, Counts, Requests
from beta_jax.simulator.ticks import worked_ticks

Array = jax.Array
I64 = jnp.int64
LANES = 1


class _Queues(NamedTuple):
    ends: Array  # int64 [group + 1, queue], of the latest accepted requests
    overflow: Array  # bool [], one was dropped while unfinished


class _State(NamedTuple):
    last: Array  # int64 [group + 1], packed clock of the last stage; the last one hosts nothing
    earlier: Array  # int64 [group + 1, stage - 1], clocks of the earlier stages
    memory: Array | None  # int64 [models + 1] what the dispatch rule remembers, if anything
    queues: _Queues | None  # if the dispatch rule counts unfinished requests
    good: Array  # int64 [models + 1]
    latency: Array
    group_counts: Array  # int64 [group + 1] dispatched + (good << 32)
    requests: Requests | None


class _Costs(NamedTuple):
    """By model and configuration, or of one request: when the stages of an idle group start and
    end."""

    starts: Array  # int64 [models + 1, config, stage]
    ends: Array


def _at(array: Array, *index: Any) -> Array:
    return array.at[index].get(mode="promise_in_bounds")


def _costs(shape: BlockShape, latency: Array) -> _Costs:
    """With one clock f, the finish of the previous request, a group is a stage whose clock runs
    ahead: finish = max(t + total, f + bottleneck) = total + max(t, f - (total - bottleneck)).
    """
    if shape.num_clocks == 1:
        total, bottleneck = latency[..., :1], latency[..., 1:2]
        return _Costs(total - bottleneck, total)
    ends = jnp.cumsum(latency, axis=-1)
    return _Costs(ends - latency, ends)


def _candidates(block: Block, num_hosts: int) -> Array:
    """The groups that may host each model, [models + 1, host]; an index past the last for none."""
    num_groups = block.config.shape[0]
    index = jnp.arange(num_groups, dtype=jnp.int32)
    hosts = jnp.where(block.hosted[..., 0], index, num_groups)
    return jnp.sort(hosts, axis=1)[:, :num_hosts] if num_hosts else hosts


def _step(shape: BlockShape, block: Block, costs: _Costs, hosts: Array, i: Array, state: _State):
    num_groups = block.config.shape[0]
    bits = shape.config_bits + (num_groups - 1).bit_length()
    config_mask = (1 << shape.config_bits) - 1
    t, model = _at(block.arrival, i), _at(block.model, i)

    def costs_at(config: Array) -> _Costs:
        if block.work is None:
            return _Costs(_at(costs.starts, model, config), _at(costs.ends, model, config))
        latency = _at(block.latency, _at(block.model_type, model), config)
        return _costs(shape, worked_ticks(latency, _at(block.work, i)))

    # Dispatch: the smallest (order, group) among the groups that host the model.
    own = _at(hosts, model)
    if shape.num_hosts:
        order = _at(state.last, own)
    else:
        order = jnp.where(own < num_groups, state.last[:-1], UNHOSTED)
    rule, memory, queues = shape.rule, state.memory, state.queues
    remembered = rule.initial if memory is None else _at(memory, model)
    if not rule.by_clock:
        own_last = order

        def finish() -> Array:
            starts, ends = costs_at(own_last & config_mask)
            clocks = [_at(state.earlier, own), own_last[:, None] >> bits]
            ready = (jnp.concatenate(clocks, axis=1) - starts).max(axis=1)
            return jnp.maximum(ready, t) + ends[:, -1]

        def unfinished() -> Array:
            return undeclared() if queues is None else (_at(queues.ends, own) > t).sum(1)

        able = own < num_groups
        seen = Groups(
            now=t,
            request=block.first + i,
            index=own.astype(I64),
            clock=own_last >> bits,
            finish=finish,
            memory=remembered,
            num_groups=num_groups,
            rank=lambda: jnp.cumsum(able) - able,
            num_hosts=lambda: able.sum(),
            unfinished=unfinished,
        )
        order = rule.order(seen)
        if rule.then_by_clock:
            first = able & (order == jnp.min(jnp.where(able, order, UNHOSTED)))
            order = jnp.where(first, own_last, UNHOSTED)
        else:
            order = jnp.where(able, order << bits | own_last & ((1 << bits) - 1), UNHOSTED)
    key = jnp.min(order)
    has_host = key < UNHOSTED
    low = key & ((1 << bits) - 1)
    group = jnp.where(has_host, low >> shape.config_bits, num_groups).astype(jnp.int32)

    # Service, should the request be accepted.
    starts, ends = costs_at(low & config_mask)
    clock = (key if rule.by_clock or rule.then_by_clock else _at(state.last, group)) >> bits
    ready = jnp.maximum(t, clock - starts[-1])
    if shape.num_clocks > 1:
        ready_earlier = jnp.maximum(t, _at(state.earlier, group) - starts[:-1])
        ready = jnp.maximum(ready, ready_earlier.max())
    latency = ready + ends[-1] + block.request_overhead - t
    good = has_host & (latency <= _at(block.deadline, model, 0))

    written = jnp.where(good, group, num_groups)  # where clocks mean nothing if it is rejected
    last = jnp.where(good, ready + ends[-1] << bits | low, UNHOSTED)
    earlier = state.earlier
    if shape.num_clocks > 1:
        after = lax.associative_scan(jnp.maximum, ready_earlier) + ends[:-1]
        earlier = lax.dynamic_update_index_in_dim(earlier, after, written, 0)
    counted = (block.count_from <= i) & (i < block.count_to)
    requests = state.requests
    if requests is not None:
        sent = jnp.where(has_host, group, -1).astype(jnp.int16)
        requests = Requests(
            requests.finish.at[i, 0].set(jnp.where(good, t + latency, 0)),
            requests.group.at[i, 0].set(sent),
        )
    if memory is not None and rule.after is not None:
        changed = rule.after(remembered, group.astype(I64))
        memory = memory.at[model].set(jnp.where(has_host, changed, remembered))
    if queues is not None:
        queue = _at(queues.ends, group)
        overflow = queues.overflow | good & (queue[0] > t)
        queue = jnp.append(queue[1:], ready + ends[-1])
        queues = _Queues(lax.dynamic_update_index_in_dim(queues.ends, queue, written, 0), overflow)
    good = (good & counted).astype(I64)
    tally = counted.astype(I64) + (good << 32)
    return _State(
        state.last.at[written].set(last, mode="promise_in_bounds"),
        earlier,
        memory,
        queues,
        state.good.at[model].add(good, mode="promise_in_bounds"),
        state.latency.at[model].add(good * latency, mode="promise_in_bounds"),
        state.group_counts.at[group].add(tally, mode="promise_in_bounds"),
        requests,
    )


def run(shape: BlockShape, block: Block, keep_requests: bool) -> tuple[Counts, Requests | None]:
    """Simulate the only lane of a block (under jit), see `choose.run_block`."""
    num_groups, _ = block.config.shape
    num_rows, num_requests = block.model_type.shape[0], block.arrival.shape[0]
    costs = _costs(shape, block.latency[block.model_type])
    hosts = _candidates(block, shape.num_hosts)
    index = jnp.arange(num_groups, dtype=I64)
    requests = None
    if keep_requests:
        requests = Requests(
            jnp.zeros((num_requests, 1), I64), jnp.zeros((num_requests, 1), jnp.int16)
        )
    carried = block.carried
    if carried is None:
        clock = jnp.zeros((num_groups, shape.num_clocks, 1), I64)
        memory = jnp.full((num_rows, 1), shape.rule.initial, I64)
        carried = Carried(clock, memory, jnp.zeros((num_groups, shape.queue, 1), I64))
    bits = shape.config_bits + (num_groups - 1).bit_length()
    low = index << shape.config_bits | block.config[:, 0]

    def and_none(rows: Array) -> Array:
        return jnp.pad(rows[..., 0], ((0, 1), (0, 0)))

    queues = None
    if shape.queue:
        queues = _Queues(and_none(carried.ends), jnp.zeros((), jnp.bool_))
    state = _State(
        last=jnp.append(carried.clock[:, -1, 0] << bits | low, UNHOSTED),
        earlier=and_none(carried.clock[:, :-1]),
        memory=None if shape.rule.after is None else carried.memory[:, 0],
        queues=queues,
        good=jnp.zeros(num_rows, I64),
        latency=jnp.zeros(num_rows, I64),
        group_counts=jnp.zeros(num_groups + 1, I64),
        requests=requests,
    )

    def step(i: Array, state: _State) -> _State:
        return _step(shape, block, costs, hosts, i, state)

    state = lax.fori_loop(0, block.num_requests, step, state)
    group_counts = state.group_counts[:-1, None]
    counts = Counts(
        state.good[:, None],
        state.latency[:, None],
        group_counts & (2**32 - 1),
        group_counts >> 32,
        None if state.queues is None else state.queues.overflow[None],
    )
    if block.carried is not None:
        last = state.last[:-1, None] >> bits
        left = Carried(
            jnp.concatenate([state.earlier[:-1], last], axis=1)[..., None],
            carried.memory if state.memory is None else state.memory[:, None],
            carried.ends if state.queues is None else state.queues.ends[:-1, :, None],
        )
        counts = counts._replace(carried=left)
    return counts, state.requests
