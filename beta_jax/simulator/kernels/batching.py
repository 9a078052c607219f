"""Dynamic batching (Beta, OSDI 2023, section 6.5): one lane after the other, one event at a time.

Requests of a model leave its queue only at the head. So with the requests sorted by model, and by
arrival within each, a queue is a range of *places*: two integers, however many requests wait.

A step is the next thing that happens in a lane: a group that has just rejected a request looks for
another, or it is time for an idle group to serve, or the next request arrives. Whatever it is, it
names a time, a group and a model, and ends in one of three ways: nothing is served, the head of the
model's queue is rejected, or a batch from the head of the queue enters the group's pipeline.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from beta_jax.simulator.layout import BlockShape, Counts, Requests
from beta_jax.simulator.ticks import worked_ticks
from beta_jax.types import BATCH_SIZES

Array = jax.Array
I64 = jnp.int64
LANES = 16
"""Lanes of a block: they run one after the other, so they only share what is made of the workload,
and few lanes in a block make blocks for every core."""
NEVER = 2**62
"""A time, or a packed one, that does not come; later than any that does."""


class BatchBlock(NamedTuple):
    """The input of a block. `models + 1` rows: the last one stands for "not a served model".

    The requests end before the arrays do; a request behind the last one arrives `NEVER`.
    """

    arrival: Array  # int64 [request] ticks after the block's origin, >= 0
    model: Array  # int32 [request]
    place: Array  # int32 [request], its place
    queued: Array  # int64 [place], when its request arrives
    queued_sum: Array  # int64 [place], the sum of `queued` before it, modulo 2^64
    first: Array  # int32 [models + 1], place of a model's first request
    count_from: Array  # int32 [models + 1], places in [count_from, count_to) are tallied
    count_to: Array  # int32 [models + 1]
    num_requests: Array  # int32 [lane], how many requests are real; none in a lane that is not
    hosted: Array  # bool [models + 1, group, lane]
    config: Array  # int32 [group, lane], row of `latency`
    deadline: Array  # int64 [models + 1, lane] ticks after arrival
    max_batch: Array  # int32 [lane]
    model_type: Array  # int32 [models + 1], row of `latency`
    latency: Array  # int64 [type, config, batch size, stage] ticks
    request_overhead: Array  # int64 [] ticks
    most_work: Array | None = (
        None  # int32 [place, batch size], of those that a batch from there has
    )


class _Lane(NamedTuple):
    """One lane of a block, with what follows from it."""

    block: BatchBlock  # without the axis of lanes
    hosts: Array  # bool [group + 1, models + 1], what a group hosts; the last one hosts nothing
    served: Array  # bool [models + 1], whether any group hosts the model
    config: Array  # int32 [group + 1]
    latency: Array  # int64 [type x config, batch size, stage]
    starts: Array  # when stages of an idle group start
    ends: Array  # and end


class _Move(NamedTuple):
    """What happens next."""

    arrives: Array  # bool, a request joins the queue of `model`
    serves: Array  # bool, `group` serves `model`, in whose queue a request is
    group: Array
    model: Array
    now: Array


class _Events(NamedTuple):
    """Idle events (`tick << bits | group`) of the published rules.

    Those of a group are due in the order of the batches that they follow, so they are a list of
    batches: no bound on their number is known. The last batch and the last group are none.
    """

    first: Array  # int64 [group + 1]
    first_batch: Array  # int64 [group + 1]
    last_batch: Array  # int64 [group + 1]
    due: Array  # int64 [batch + 1]
    following: Array  # int64 [batch + 1]


class _Links(NamedTuple):
    """What a step changes in `_Events`; the last group and batch for none."""

    taken: Array  # the group whose first event was due
    first: Array  # its first event from now on
    first_batch: Array
    leads: Array  # the group whose first event follows the batch that was served
    previous: Array  # or the batch whose event comes before


class _Search(NamedTuple):
    """A group that has just rejected a request, and looks for another."""

    group: Array  # -1 for none
    model: Array  # whose queue it looks at, -1 for that of the oldest request
    now: Array


class _Pending(NamedTuple):
    """What the next step writes: arrays that are read and then written in one step are copied."""

    batch: Array  # bool, a batch was served
    number: Array  # of the batch, or of the next one
    group: Array  # the last one if none was served
    after: Array  # int64 [stage], the group's clocks
    model: Array
    left: Array  # place of the first request in the model's queue
    end: Array  # the place behind its last one
    oldest: Array
    change: Array  # by how much the queue is longer
    links: _Links | None


class _State(NamedTuple):
    """int64, scalars where no shape is given."""

    next: Array  # the next request to arrive
    waiting: Array  # requests in all queues
    clock: Array  # [group + 1, stage]
    head: Array  # [models + 1], place of the first request in the queue
    tail: Array  # [models + 1], the place behind its last one
    oldest: Array  # [models + 1], `arrival << bits | model` of the first one
    idle: _Events | Array  # events, or by the strict rules how many requests wait: [group + 1]
    search: _Search
    pending: _Pending
    good: Array  # [models + 1]
    latency: Array  # [models + 1]
    group_counts: Array  # [group + 1] dispatched + (good << 32)
    requests: Requests | None  # [place]; at the first request of a batch what became of it


def _at(array: Array, *index: Any) -> Array:
    return array.at[index].get(mode="promise_in_bounds")


def _put(array: Array, index: Array, value: Any) -> Array:
    return array.at[index].set(value, mode="promise_in_bounds")


def _add(array: Array, index: Array, value: Any) -> Array:
    return array.at[index].add(value, mode="promise_in_bounds")


def _pack(time: Array, index: Array, count: int) -> Array:
    """Both in one integer that is ordered by time, then index."""
    return time << (count - 1).bit_length() | index


def _unpack(packed: Array, count: int) -> tuple[Array, Array]:
    bits = (count - 1).bit_length()
    return packed >> bits, packed & ((1 << bits) - 1)


def _published(lane: _Lane, state: _State) -> tuple[_Move, Array]:
    """Idle events in order; one that finds no request ends them until the next arrival.

    Nothing asks whether the group is still idle, as it is in the published simulator. Returns also
    the group whose event was due, if only to find no request.
    """
    num_groups, num_rows = lane.hosts.shape
    nobody, search, events = num_groups - 1, state.search, state.idle
    assert isinstance(events, _Events)
    t, arriving = _at(lane.block.arrival, state.next), _at(lane.block.model, state.next)

    event, of_group = _unpack(jnp.min(events.first[:-1]), num_groups)
    searches = search.group >= 0
    due = ~searches & (event <= t) & (event < NEVER >> (num_groups - 1).bit_length())
    group = jnp.where(searches, search.group, of_group)
    oldest = jnp.min(jnp.where(_at(lane.hosts, group), state.oldest, NEVER))
    found = oldest < NEVER
    arrives = ~searches & ~(due & found) & (t < NEVER)

    order = _pack(state.clock[:-1, -1], jnp.arange(nobody), num_groups)
    key = jnp.min(jnp.where(_at(lane.block.hosted, arriving), order, NEVER))
    route = jnp.where(key < NEVER, _unpack(key, num_groups)[1], nobody)
    free = (key < NEVER) & (_at(state.clock[:, 0], route) <= t)
    goes_on = searches & (search.model >= 0)
    move = _Move(
        arrives,
        serves=jnp.where(arrives, free, goes_on | found & (searches | due)),
        group=jnp.where(arrives, route, group),
        model=jnp.where(
            arrives, arriving, jnp.where(goes_on, search.model, _unpack(oldest, num_rows)[1])
        ),
        now=jnp.where(arrives, t, jnp.where(searches, search.now, event)),
    )
    return move, jnp.where(due, of_group, nobody)


def _strict(lane: _Lane, state: _State) -> _Move:
    """A group serves as soon as it is free and a request waits; see `Rules.batching`.

    A group that has rejected a request is still free, and is the next one if another waits.
    """
    num_groups, num_rows = lane.hosts.shape
    nobody, demand = num_groups - 1, state.idle
    assert isinstance(demand, Array)
    t, arriving = _at(lane.block.arrival, state.next), _at(lane.block.model, state.next)

    free_at = jnp.where(demand[:-1] > 0, state.clock[:-1, 0], NEVER)
    soonest = jnp.min(free_at)
    due = (soonest <= t) & (soonest < NEVER)
    arrives = ~due & (t < NEVER)
    free = _at(lane.block.hosted, arriving) & (state.clock[:-1, 0] <= t)
    order = _pack(state.clock[:-1, -1], jnp.arange(nobody), num_groups)
    key = jnp.min(jnp.where(jnp.where(arrives, free, free_at == soonest), order, NEVER))
    group = jnp.where(key < NEVER, _unpack(key, num_groups)[1], nobody)
    oldest = jnp.min(jnp.where(_at(lane.hosts, group), state.oldest, NEVER))
    return _Move(
        arrives,
        serves=(arrives | due) & (key < NEVER),
        group=group,
        model=jnp.where(arrives, arriving, _unpack(oldest, num_rows)[1]),
        now=jnp.where(arrives, t, soonest),
    )


def _link(events: _Events, due: Array, batch: Array, group: Array) -> _Links:
    """Without the event that was due, of a group; with one behind the batch that a group served."""
    nobody, none = events.first.shape[0] - 1, events.due.shape[0] - 1
    following = _at(events.following, _at(events.first_batch, due))
    first_batch = jnp.where(due == group, following, _at(events.first_batch, group))
    return _Links(
        taken=due,
        first=_at(events.due, following),
        first_batch=following,
        leads=jnp.where(batch & (first_batch == none), group, nobody),
        previous=jnp.where(batch & (first_batch != none), _at(events.last_batch, group), none),
    )


def _write_events(events: _Events, new: _Pending) -> _Events:
    links = new.links
    assert links is not None
    due = _pack(new.after[0], new.group, events.first.shape[0])
    return _Events(
        first=_put(_put(events.first, links.taken, links.first), links.leads, due),
        first_batch=_put(
            _put(events.first_batch, links.taken, links.first_batch), links.leads, new.number
        ),
        last_batch=_put(events.last_batch, new.group, new.number),
        due=_put(events.due, new.number, jnp.where(new.batch, due, NEVER)),
        following=_put(events.following, links.previous, new.number),
    )


def _write(lane: _Lane, state: _State) -> _State:
    """The state with what is pending written."""
    new, idle = state.pending, state.idle
    if isinstance(idle, _Events):
        idle = _write_events(idle, new)
    else:
        idle = idle + jnp.where(lane.hosts[:, new.model], new.change, 0)
    return state._replace(
        clock=lax.dynamic_update_index_in_dim(state.clock, new.after, new.group, 0),
        head=_put(state.head, new.model, new.left),
        tail=_put(state.tail, new.model, new.end),
        oldest=_put(state.oldest, new.model, new.oldest),
        idle=idle,
    )


def _step(batching: str, lane: _Lane, state: _State) -> _State:
    block, (num_groups, num_rows) = lane.block, lane.hosts.shape
    state = _write(lane, state)
    if batching == "published":
        move, due = _published(lane, state)
    else:
        move = _strict(lane, state)
    group, model, now = move.group, move.model, move.now
    begin, end = _at(state.head, model), _at(state.tail, model) + move.arrives

    # The largest batch that there are requests for and whose first request is in time, if any.
    cost = _at(block.model_type, model) * block.latency.shape[1] + _at(lane.config, group)
    if block.most_work is None:
        starts = lax.dynamic_index_in_dim(lane.starts, cost, 0, keepdims=False)
        ends = lax.dynamic_index_in_dim(lane.ends, cost, 0, keepdims=False)
    else:
        latency = worked_ticks(_at(lane.latency, cost), _at(block.most_work, begin)[:, None])
        ends = jnp.cumsum(latency, axis=-1)
        starts = ends - latency
    clock = _at(state.clock, group)
    last_stage_end = jnp.maximum(jnp.max(clock - starts, axis=1), now) + ends[:, -1]
    in_time = last_stage_end + block.request_overhead - _at(block.queued, begin) <= _at(
        block.deadline, model
    )
    enough = jnp.array(BATCH_SIZES) <= jnp.minimum(end - begin, block.max_batch)
    doublings = jnp.arange(len(BATCH_SIZES))
    num_sizes = jnp.min(jnp.where(in_time & enough, len(BATCH_SIZES), doublings))
    batch, late = move.serves & (num_sizes > 0), move.serves & (num_sizes == 0)
    chosen = jnp.maximum(num_sizes - 1, 0)
    unhosted = move.arrives & ~_at(lane.served, model)
    links = _link(state.idle, due, batch, group) if isinstance(state.idle, _Events) else None
    size = jnp.where(batch, 1 << chosen, (late | unhosted).astype(I64))
    left = begin + size

    # The pipeline. By the published rules the overhead comes before it, else behind it.
    enters = now + block.request_overhead if batching == "published" else now
    stage = jnp.arange(len(clock))
    earlier = jnp.where(stage <= stage[:, None], clock - _at(starts, chosen), enters)
    after = jnp.maximum(earlier.max(axis=1), enters) + _at(ends, chosen)
    finish = after[-1] if batching == "published" else after[-1] + block.request_overhead

    first, last = _at(block.count_from, model), _at(block.count_to, model)
    first, last = jnp.clip(begin, first, last), jnp.clip(left, first, last)
    counted = (last - first).astype(I64)
    latency = counted * finish - (_at(block.queued_sum, last) - _at(block.queued_sum, first))
    good = jnp.where(batch, counted, 0)
    requests = state.requests
    if requests is not None:
        place = jnp.where(size > 0, begin, block.queued.shape[0] - 1)
        sent = jnp.where(unhosted, -1, group).astype(jnp.int16)
        requests = Requests(
            _put(requests.finish, place, jnp.where(batch, finish, 0)),
            _put(requests.group, place, sent),
        )
    return state._replace(
        next=state.next + move.arrives,
        waiting=state.waiting + move.arrives - size,
        search=_Search(jnp.where(late, group, -1), jnp.where(left < end, model, -1), now),
        pending=_Pending(
            batch,
            number=state.pending.number + state.pending.batch,
            group=jnp.where(batch, group, num_groups - 1),
            after=after,
            model=model,
            left=left,
            end=end,
            oldest=jnp.where(left < end, _pack(_at(block.queued, left), model, num_rows), NEVER),
            change=move.arrives - size,
            links=links,
        ),
        good=_add(state.good, model, good),
        latency=_add(state.latency, model, jnp.where(batch, latency, 0)),
        group_counts=_add(
            state.group_counts,
            jnp.where(batch | late, group, num_groups - 1),
            counted + (good << 32),
        ),
        requests=requests,
    )


def _run_lane(
    batching: str, block: BatchBlock, keep_requests: bool
) -> tuple[Counts, Requests | None]:
    """Simulate a block without the axis of lanes."""
    num_rows, num_groups = block.hosted.shape
    num_places, num_stages = block.queued.shape[0], block.latency.shape[-1]
    latency = block.latency.reshape(-1, *block.latency.shape[2:])
    ends = jnp.cumsum(latency, axis=-1)
    hosts = jnp.pad(block.hosted.T, ((0, 1), (0, 0)))
    config = jnp.pad(block.config, (0, 1))
    lane = _Lane(block, hosts, hosts.any(0), config, latency, ends - latency, ends)
    nobody, none, zero = I64(num_groups), I64(num_places - 1), I64(0)
    heads = block.first.astype(I64)
    idle: _Events | Array = jnp.zeros(num_groups + 1, I64)
    published = batching == "published"
    if published:
        idle = _Events(
            first=jnp.full(num_groups + 1, NEVER),
            first_batch=jnp.full(num_groups + 1, none),
            last_batch=jnp.full(num_groups + 1, none),
            due=jnp.full(num_places, NEVER),
            following=jnp.full(num_places, none),
        )
    state = _State(
        next=zero,
        waiting=zero,
        clock=jnp.zeros((num_groups + 1, num_stages), I64),
        head=heads,
        tail=heads,
        oldest=jnp.full(num_rows, NEVER),
        idle=idle,
        search=_Search(group=I64(-1), model=I64(-1), now=zero),
        pending=_Pending(
            batch=jnp.bool_(False),
            number=zero,
            group=nobody,
            after=jnp.zeros(num_stages, I64),
            model=I64(num_rows - 1),
            left=heads[-1],
            end=heads[-1],
            oldest=I64(NEVER),
            change=zero,
            links=_Links(nobody, I64(NEVER), none, nobody, none) if published else None,
        ),
        good=jnp.zeros(num_rows, I64),
        latency=jnp.zeros(num_rows, I64),
        group_counts=jnp.zeros(num_groups + 1, I64),
        requests=None,
    )
    if keep_requests:
        nothing = jnp.zeros(num_places, I64), jnp.full(num_places, -2, jnp.int16)
        state = state._replace(requests=Requests(*nothing))

    def unfinished(state: _State) -> Array:
        return (state.next < block.num_requests) | (state.waiting > 0)

    state = lax.while_loop(unfinished, functools.partial(_step, batching, lane), state)
    sent = state.group_counts[:-1]
    counts = Counts(state.good, state.latency, sent & (2**32 - 1), sent >> 32)
    requests = state.requests
    if requests is not None:
        starts = jnp.where(requests.group > -2, jnp.arange(num_places), 0)
        of_batch = lax.cummax(starts)[block.place]
        requests = Requests(requests.finish[of_batch], requests.group[of_batch])
    return counts, requests


PER_LANE = ("num_requests", "hosted", "config", "deadline", "max_batch")


def run(
    shape: BlockShape, block: BatchBlock, keep_requests: bool
) -> tuple[Counts, Requests | None]:
    """Simulate the lanes of a block (under jit), see `choose.run_block`."""

    def run_one(lane: dict[str, Array]) -> tuple[Counts, Requests | None]:
        return _run_lane(shape.batching, block._replace(**lane), keep_requests)

    lanes = {name: jnp.moveaxis(getattr(block, name), -1, 0) for name in PER_LANE}
    return jax.tree.map(lambda rows: jnp.moveaxis(rows, 0, -1), lax.map(run_one, lanes))
