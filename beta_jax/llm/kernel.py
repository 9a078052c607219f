"""Many continuous-batching engines at once: an array program over lanes, exact to the picosecond.

A lane is one engine, and a system one engine or several behind a router, with a table of requests.
In an iteration every lane goes on with its
next scheduler call: it takes back the last request where blocks run out, or admits the first that
waits, or serves what is planned. Where nothing but decoding goes on, all steps up to the next event
are served at once.

Without prefix reuse blocks have no names, so that a few facts make the rules short:

* A running request holds as many blocks as its cached tokens fill, and free blocks are a number.
* Only the request admitted last can be given less than it wants: after one that was cut short no
  budget was left to admit others, and those that decode want a token each.
* Requests are taken back from the last on until all others find blocks. The rules do so one request
  at a time in order of admission, and end with the same ones: the most that find blocks together.
* In a step in which requests were taken back none is admitted: the next would be the one taken back
  last, which lacks the blocks that it was taken back for.
* Those taken back wait before all others, the latest first. No other is admitted before them, so
  together with the running ones they are no more than the sequence cap, and share its slots.

As in the simulator's kernels, what an iteration decides is written at the start of the next one:
written at once, XLA computes the whole decision again for every slot.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from beta_jax.llm.requests import PS_PER_NS
from beta_jax.llm.shapes import StepShape
from beta_jax.llm.tables import Arithmetic, StepTables

Array = jax.Array
I32, I64 = jnp.int32, jnp.int64
WORD = 30
"""Bits of the lower word of a sum of times: hours of waiting do not fit in one."""
LANES = 64
"""Lanes of a block: their slots stay in a core's second cache."""
SPARE_SLOTS = 8
"""Slots beyond the sequence cap for finished requests: one is recorded in an iteration."""
TABLE_STEPS = 16
"""Steps of a stretch that are read from tables at once."""
NEVER = 2**62
"""Picoseconds; the arrival of what does not arrive."""
START_PS = 1000
"""The earliest time at which a step begins."""


class Requests(NamedTuple):
    """Tables of requests in order of arrival, padded with requests that never arrive: at least one.

    [workload, request] each.
    """

    arrival: Array  # int64, picoseconds
    prompt: Array  # int32, tokens
    end: Array  # int32, tokens of prompt and answer


class Lanes(NamedTuple):
    """Engines and what is asked of them; [lane] each but for what steps take."""

    workload: Array  # int32, which table of requests: the same for the engines of a system
    open: Array  # bool, whether the router sends requests there
    max_num_seqs: Array  # int32
    budget: Array  # int64, tokens of a step
    num_blocks: Array  # int64
    step: Array  # int64 [4, lane], picoseconds: base, prefill token, cached token, decode
    ttft_limit: Array  # int64, picoseconds
    tpot_limit: Array  # int64, picoseconds
    count_from: Array  # int32, the first request that counts
    tokens_ps: Array  # int64 [tokens], what all of a step but attention takes by tables, by tokens
    sequences_ps: Array  # int64 [requests], and by requests


class Slots(NamedTuple):
    """Requests that run, were taken back, or have finished and are not recorded; [slot, lane]."""

    order: Array  # int32: > 0 by admission if running, < 0 if taken back, the latest the least
    request: Array  # int32
    prompt: Array  # int32, tokens
    length: Array  # int32, tokens reached
    done: Array  # int32, tokens with keys and values
    end: Array  # int32, tokens of prompt and answer
    planned: Array | None  # int64, when the step with the first token began; for records
    first: Array  # int64, when the first token came
    finish: Array  # int64, when the last token came; 0 before


class Pending(NamedTuple):
    """What the next iteration writes to the slots; int32 [lane], slots -1 for none."""

    enter: Array  # slot of a new request
    request: Array
    prompt: Array
    end: Array
    again: Array  # slot of one that was taken back and runs again
    admission: Array  # the order of either
    back: Array  # slot of one that is taken back
    back_order: Array
    steps: Array  # that are served; 0 for none
    last: Array  # slot of the request that the budget binds
    excess: Array  # tokens that it wants and does not get
    recorded: Array  # slot of one that is recorded
    begin: Array  # int64, of the steps
    time: Array  # int64, at their end


class Tally(NamedTuple):
    """int64 [lane] each; sums in picoseconds are over the requests that count, in two words."""

    recorded: Array
    counted: Array
    good: Array
    ttft: Array
    ttft_high: Array  # in units of 2**WORD
    tpot: Array
    tpot_high: Array
    latency: Array
    latency_high: Array
    preemptions: Array
    recomputed: Array  # tokens
    calls: Array
    steps: Array


class Records(NamedTuple):
    """int64 [request, system] each, picoseconds; only with `records`."""

    queue_delay: Array
    ttft: Array
    latency: Array


class Routed(NamedTuple):
    """Requests by the engine that they were sent to; int32.

    The row of a table that never arrives stands for none.
    """

    next: Array  # [system], of the requests not yet sent
    turn: Array  # [system], the engine that is asked first
    follower: Array  # [request, system], the next that was sent to the same engine
    first: Array  # [lane], of those that wait for the first time
    last: Array  # [lane]
    waiting: Array  # [lane], how many these are
    taken_back: Array  # [lane], how many wait besides
    flight: Array  # [lane], how many run in the step that was planned last


class State(NamedTuple):
    now: Array  # int64 [lane]
    next: Array  # int32 [lane], of the requests not yet admitted once; without a router
    admissions: Array  # int32 [lane]
    overflow: Array  # bool [lane], whether a slot was missing
    slots: Slots
    pending: Pending
    tally: Tally
    records: Records | None
    routed: Routed | None


class _Plan(NamedTuple):
    """What the slots come to; int64 [lane] but for slots, which are int32."""

    running: Array
    want: Array  # tokens, all wishes granted
    excess: Array  # of the last request over the budget
    need: Array  # blocks that the step takes
    free: Array  # blocks before it
    decodes: Array  # requests that are given one token
    steady: Array  # those of them that have had their first token
    cached: Array  # tokens that decodes read
    most_cached: Array  # by one of them; 0 where nothing asks
    least_cached: Array
    prefill_cached: Array  # tokens that prefills read; 0 where nothing asks
    left: Array  # tokens up to the next finish
    last: Array  # slot of the request admitted last
    back: Array  # slot of the one taken back last
    taken_back: Array  # bool, whether there is one
    empty: Array  # slot; num_slots if there is none
    full: Array  # slot of one to record; -1 if there is none


def _over_slots(
    of_two: Callable[[Array, Array], Array], of_all: Callable[..., Array], rows: Array
) -> Array:
    """A sum, minimum or maximum over the slots, which XLA alone makes slow: halves are combined."""
    while rows.shape[0] > 40 and rows.shape[0] % 2 == 0:
        half = rows.shape[0] // 2
        rows = of_two(rows[:half], rows[half:])
    return of_all(rows, axis=0)


_sum = functools.partial(_over_slots, jnp.add, jnp.sum)
_min = functools.partial(_over_slots, jnp.minimum, jnp.min)
_max = functools.partial(_over_slots, jnp.maximum, jnp.max)


def _slot_index(slots: Slots) -> Array:
    return jnp.arange(slots.order.shape[0], dtype=I32)[:, None]


def _at(rows: Array, slot: Array) -> Array:
    """`rows[slot[lane], lane]`"""
    return rows.at[slot, jnp.arange(rows.shape[1])].get(mode="promise_in_bounds")


def _blocks(tokens: Array, block_size: int) -> Array:
    return (tokens + (block_size - 1)) // block_size


def _write(slots: Slots, pending: Pending) -> Slots:
    index = _slot_index(slots)
    want = slots.length - slots.done
    given = want - jnp.where(index == pending.last, pending.excess, 0)
    served = (slots.order > 0) & (pending.steps > 0)
    emits = served & (given == want)
    fresh = emits & (slots.length == slots.prompt)
    length = slots.length + jnp.where(emits, pending.steps, 0)
    finishes = emits & (length == slots.end)
    done = slots.done + jnp.where(served, given + (pending.steps - 1), 0)
    enter, back = index == pending.enter, index == pending.back
    order = jnp.where(finishes, 0, slots.order)
    order = jnp.where(enter | (index == pending.again), pending.admission, order)
    finish = jnp.where(index == pending.recorded, 0, slots.finish)
    planned = slots.planned
    if planned is not None:
        planned = jnp.where(fresh, pending.begin, planned)
    return Slots(
        order=jnp.where(back, pending.back_order, order),
        request=jnp.where(enter, pending.request, slots.request),
        prompt=jnp.where(enter, pending.prompt, slots.prompt),
        length=jnp.where(enter, pending.prompt, length),
        done=jnp.where(enter | back, 0, done),
        end=jnp.where(enter, pending.end, slots.end),
        planned=planned,
        first=jnp.where(fresh, pending.time, slots.first),
        finish=jnp.where(finishes, pending.time, finish),
    )


def _plan(block_size: int, lanes: Lanes, slots: Slots, tables: StepTables | None) -> _Plan:
    num_slots = slots.order.shape[0]
    index, bits = _slot_index(slots), (num_slots - 1).bit_length()
    blocks = functools.partial(_blocks, block_size=block_size)
    running = slots.order > 0
    want = jnp.where(running, slots.length - slots.done, 0)
    single = want == 1
    steady = single & (slots.length > slots.prompt)
    held = jnp.where(running, blocks(slots.done), 0)
    grown = jnp.where(running, blocks(slots.done + want), 0)

    # Several sums in a word: slots up to 2^12, blocks up to 2^24, tokens up to 2^34 and 2^40.
    first = _sum(
        running.astype(I64) + (single.astype(I64) << 12) + ((grown - held).astype(I64) << 24)
    )
    second = _sum(steady.astype(I64) + (jnp.where(single, slots.done, 0).astype(I64) << 12))
    third = _sum(held.astype(I64) + (want.astype(I64) << 24))
    number, decodes, need = first & 0xFFF, first >> 12 & 0xFFF, first >> 24
    num_steady, cached = second & 0xFFF, second >> 12
    used, all_want = third & 0xFFFFFF, third >> 24
    key = (slots.order << bits) | index
    highest, lowest = _max(key), _min(key)
    mask = (1 << bits) - 1
    last = jnp.maximum(highest, 0) & mask

    # The budget binds the last request alone.
    excess = jnp.maximum(all_want - lanes.budget, 0)
    last_want, last_done = _at(want, last).astype(I64), _at(slots.done, last).astype(I64)
    given = last_want - excess
    need += blocks(last_done + given) - blocks(last_done + last_want)
    becomes_decode = (given == 1) & (last_want > 1)
    cached += jnp.where(becomes_decode, last_done, 0)
    prefill_cached = most_cached = least_cached = jnp.zeros_like(last_done)
    if tables is not None:
        prefill_cached = _sum(jnp.where(running, slots.done, 0).astype(I64)) - cached
    if tables is not None and tables.skew is not None:
        most_cached = _max(jnp.where(single, slots.done, 0)).astype(I64)
        least_cached = _min(jnp.where(single, slots.done, 2**30)).astype(I64)
        most_cached = jnp.maximum(most_cached, jnp.where(becomes_decode, last_done, 0))
        least_cached = jnp.minimum(least_cached, jnp.where(becomes_decode, last_done, 2**30))
    return _Plan(
        running=number,
        want=all_want,
        excess=excess,
        need=need,
        free=lanes.num_blocks - used,
        decodes=decodes + becomes_decode,
        steady=num_steady,
        cached=cached,
        most_cached=most_cached,
        least_cached=least_cached,
        prefill_cached=prefill_cached,
        left=_min(jnp.where(running, slots.end - slots.length, 2**30)).astype(I64),
        last=last,
        back=lowest & mask,
        taken_back=lowest < 0,
        empty=_min(jnp.where((slots.order == 0) & (slots.finish == 0), index, num_slots)),
        full=_max(jnp.where(slots.finish > 0, index, -1)),
    )


def _steps_with_blocks(block_size: int, slots: Slots, plan: _Plan) -> Array:
    """The most steps for which blocks are at hand if all that run decode, the first planned.

    The further step `i + 1` takes a block for each request whose blocks are full after step `i`:
    as many in `block_size` steps as there are requests. Halving finds how far the rest goes.
    """
    running = slots.order > 0
    full_after = jnp.where(running, -(slots.done + 1), 0) % block_size
    spare = plan.free - plan.need
    number = jnp.maximum(plan.running, 1)
    rounds = spare // number
    rest = (spare - rounds * number).astype(I32)
    within = jnp.zeros_like(rest)
    for bit in reversed(range((block_size - 1).bit_length())):
        further = within + (1 << bit)
        taken = _sum((running & (full_after < further)).astype(I32))
        within = jnp.where((further < block_size) & (taken <= rest), further, within)
    return rounds * block_size + within + 1


def _steps_to(gap: Array, duration: Array, growth: Array, most: Array) -> tuple[Array, Array]:
    """The fewest steps that take `gap` or more, but `most` at most, and what they take.

    The first takes `duration`, each one `growth` more than the one before. The root of a quadratic
    in floating point, set right in integers.
    """

    def taken(steps: Array) -> Array:
        return steps * duration + growth * (steps * (steps - 1) // 2)

    half = growth / 2
    linear = duration - half
    root = (jnp.sqrt(linear * linear + 4 * half * gap) - linear) / jnp.maximum(growth, 1)
    root = jnp.where(growth > 0, root, gap / duration)
    steps = jnp.clip(jnp.minimum(root, 2.0**30).astype(I64), 1, most)
    for _ in range(2):
        steps = jnp.where((steps > 1) & (taken(steps - 1) >= gap), steps - 1, steps)
    for _ in range(2):
        steps = jnp.where((steps < most) & (taken(steps) < gap), steps + 1, steps)
    return steps, taken(steps)


def _linear_steps(lanes: Lanes, plan: _Plan, gap: Array, most: Array) -> tuple[Array, Array]:
    base, prefill_token, cached_token, decode = lanes.step
    duration = (
        base
        + prefill_token * (plan.want - plan.excess - plan.decodes)
        + cached_token * plan.cached
        + decode * plan.decodes
    )
    return _steps_to(gap, duration, cached_token * plan.running, most)


def _product(zero: Array, a: Array, b: Array) -> Array:
    """`a b`, rounded: its bits go through a sum with a zero that the compiler does not know."""
    bits = lax.bitcast_convert_type(jnp.asarray(a * b, jnp.float64), I64)
    return lax.bitcast_convert_type(bits + zero, jnp.float64)


def _table_steps(
    tables: StepTables, lanes: Lanes, plan: _Plan, gap: Array, most: Array
) -> tuple[Array, Array]:
    """As `_steps_to`, by tables, of which `TABLE_STEPS` steps are read at once."""
    after = jnp.arange(TABLE_STEPS, dtype=I64)[:, None]
    shape = StepShape(
        requests=plan.running,
        prefill_tokens=plan.want - plan.excess - plan.decodes,
        prefill_cached=plan.prefill_cached,
        decodes=plan.decodes,
        cached=plan.cached + plan.decodes * after,
        most_cached=plan.most_cached + after,
        least_cached=plan.least_cached + after,
    )
    zero = lanes.step[0].min() >> 63  # of a positive number: not for the compiler to know
    on = Arithmetic(jnp, functools.partial(_product, zero))
    tokens = jnp.minimum(shape.tokens, len(lanes.tokens_ps) - 1)
    sequences = jnp.minimum(plan.running, len(lanes.sequences_ps) - 1)
    fixed = lanes.tokens_ps[tokens] + lanes.sequences_ps[sequences]
    attention = tables.attention.count * tables.attention_ns(shape, on)
    ends = jnp.cumsum(fixed + PS_PER_NS * attention, axis=0)
    steps = jnp.clip(1 + (ends < gap).sum(0), 1, jnp.minimum(most, TABLE_STEPS))
    return steps, _at(ends, (steps - 1).astype(I32))


def _route(
    num_engines: int,
    requests: Requests,
    lanes: Lanes,
    routed: Routed,
    waits: Array,
    late: Array,
    running: Array,
) -> Routed:
    """Send the next request of each system whose engines all wait for it: to the least loaded.

    late: bool [lane], whether a step is in flight when the request arrives, with those that ran
    when it was planned.
    """
    systems = lanes.workload.shape[0] // num_engines

    def by_system(lane: Array) -> Array:
        return lane.reshape(systems, num_engines)

    engine = jnp.arange(num_engines, dtype=I32)
    dummy = requests.arrival.shape[1] - 1
    sends = by_system(waits).all(1)
    load = 4 * (routed.waiting + routed.taken_back) + jnp.where(late, routed.flight, running)
    load = jnp.where(lanes.open, load, 2**24)
    turns = (engine - routed.turn[:, None]) % num_engines
    chosen = (by_system(load) * num_engines + turns).argmin(1).astype(I32)
    here = (sends[:, None] & (engine == chosen[:, None])).reshape(-1)
    request = jnp.repeat(routed.next, num_engines)
    lane = jnp.arange(systems) * num_engines + chosen
    behind = jnp.where(sends & (routed.waiting[lane] > 0), routed.last[lane], dummy)
    follower = routed.follower.at[behind, jnp.arange(systems)].set(
        jnp.where(behind == dummy, dummy, routed.next), mode="promise_in_bounds"
    )
    return routed._replace(
        next=routed.next + sends,
        turn=jnp.where(sends, (chosen + 1) % num_engines, routed.turn),
        follower=follower,
        first=jnp.where(here & (routed.waiting == 0), request, routed.first),
        last=jnp.where(here, request, routed.last),
        waiting=routed.waiting + here,
    )


def _iteration(
    block_size: int,
    num_engines: int,
    tables: StepTables | None,
    requests: Requests,
    lanes: Lanes,
    state: State,
) -> State:
    slots, tally = _write(state.slots, state.pending), state.tally
    num_slots, num_lanes = slots.order.shape
    plan = _plan(block_size, lanes, slots, tables)

    def of_request(table: Array, request: Array) -> Array:
        return table.at[lanes.workload, request].get(mode="promise_in_bounds")

    routed = state.routed
    head = state.next if routed is None else routed.first
    arrival = of_request(requests.arrival, head)
    prompt, end = of_request(requests.prompt, head), of_request(requests.end, head)
    idle = (plan.running == 0) & ~plan.taken_back
    ended = idle & (arrival == NEVER)
    now = jnp.where(idle & ~ended, jnp.maximum(state.now, arrival), state.now)

    due, goes_on = jnp.full_like(now, NEVER), jnp.ones_like(idle)
    if routed is not None:
        due = of_request(requests.arrival, jnp.repeat(routed.next, num_engines))
        goes_on = now < due

    # Take back, admit or serve.
    take_back = goes_on & (plan.need > plan.free)
    arrived = ~plan.taken_back & (arrival <= now)
    length = jnp.where(plan.taken_back, _at(slots.length, plan.back), prompt)
    admit = (
        (plan.taken_back | arrived)
        & goes_on
        & ~take_back
        & (plan.want < lanes.budget)
        & (plan.running < lanes.max_num_seqs)
        & (_blocks(length, block_size) <= plan.free - plan.need)
    )
    enter = admit & arrived & (plan.empty < num_slots)
    again = admit & plan.taken_back
    serve = goes_on & ~take_back & ~admit & (plan.running > 0)
    overflow = admit & ~again & (plan.empty == num_slots) & (plan.full < 0)

    # What is served: a step, or as many as are alike but for the tokens that they read.
    steady = plan.steady == plan.running
    most = jnp.minimum(plan.left, _steps_with_blocks(block_size, slots, plan))
    admits_arrivals = ~plan.taken_back & (plan.running < lanes.max_num_seqs) & (arrival > now)
    gap = jnp.where(admits_arrivals, arrival - now, NEVER)
    if routed is not None:
        gap = jnp.where(due < NEVER, due - now, NEVER)
    most = jnp.where(steady, most, 1)
    if tables is None:
        steps, taken = _linear_steps(lanes, plan, gap, most)
    else:
        steps, taken = _table_steps(tables, lanes, plan, gap, most)
    time = now + jnp.where(serve, taken, 0)

    # Record one that has finished.
    recorded = plan.full >= 0
    slot = jnp.maximum(plan.full, 0)
    request = _at(slots.request, slot)
    came = of_request(requests.arrival, request)
    ttft, latency = _at(slots.first, slot) - came, _at(slots.finish, slot) - came
    further_tokens = _at(slots.end, slot) - _at(slots.prompt, slot) - 1
    tpot = jnp.where(further_tokens > 0, (latency - ttft) // jnp.maximum(further_tokens, 1), 0)
    counts = recorded & (request >= lanes.count_from)
    good = (ttft <= lanes.ttft_limit) & (tpot <= lanes.tpot_limit)
    records = state.records
    if records is not None and slots.planned is not None:
        queue_delay = _at(slots.planned, slot) - came
        row = jnp.where(recorded, request, requests.arrival.shape[1] - 1)
        at = row, jnp.arange(num_lanes) // num_engines
        records = Records(
            *(
                rows.at[at].set(value, mode="promise_in_bounds")
                for rows, value in zip(records, (queue_delay, ttft, latency), strict=True)
            )
        )

    def low(time: Array) -> Array:
        return jnp.where(counts, time & ((1 << WORD) - 1), 0)

    def high(time: Array) -> Array:
        return jnp.where(counts, time >> WORD, 0)

    if routed is not None:
        after = routed.follower[head, jnp.arange(num_lanes) // num_engines]
        routed = routed._replace(
            first=jnp.where(enter, after, routed.first),
            waiting=routed.waiting - enter,
            taken_back=routed.taken_back + take_back - again,
            flight=jnp.where(serve, plan.running.astype(I32), routed.flight),
        )
        waits = (due < NEVER) & ((now >= due) | ended)
        routed = _route(num_engines, requests, lanes, routed, waits, now > due, plan.running)

    admissions = state.admissions + (enter | again)
    return State(
        now=time,
        next=state.next + enter,
        routed=routed,
        admissions=admissions,
        overflow=state.overflow | overflow,
        slots=slots,
        pending=Pending(
            enter=jnp.where(enter, plan.empty, -1),
            request=head,
            prompt=prompt,
            end=end,
            again=jnp.where(again, plan.back, -1),
            admission=admissions,
            back=jnp.where(take_back, plan.last, -1),
            back_order=-(tally.preemptions + 1).astype(I32),
            steps=jnp.where(serve, steps, 0).astype(I32),
            last=plan.last,
            excess=plan.excess.astype(I32),
            recorded=plan.full,
            begin=now,
            time=time,
        ),
        tally=Tally(
            recorded=tally.recorded + recorded,
            counted=tally.counted + counts,
            good=tally.good + (counts & good),
            ttft=tally.ttft + low(ttft),
            ttft_high=tally.ttft_high + high(ttft),
            tpot=tally.tpot + low(tpot),
            tpot_high=tally.tpot_high + high(tpot),
            latency=tally.latency + low(latency),
            latency_high=tally.latency_high + high(latency),
            preemptions=tally.preemptions + take_back,
            recomputed=tally.recomputed + jnp.where(again, length, 0),
            calls=tally.calls + serve,
            steps=tally.steps + jnp.where(serve, steps, 0),
        ),
        records=records,
    )


class Served(NamedTuple):
    """What became of a block; nothing if `overflow`, which asks for more slots, or `too_often`."""

    tally: Tally
    records: Records | None
    overflow: Array  # bool
    too_often: Array  # bool, whether there were more admissions than the order of slots can tell


@functools.partial(
    jax.jit, static_argnames=("num_engines", "tables", "block_size", "num_slots", "records")
)
def run_block(
    requests: Requests,
    lanes: Lanes,
    *,
    num_engines: int,
    tables: StepTables | None,
    block_size: int,
    num_slots: int,
    records: bool,
) -> Served:
    """Serve all requests in all lanes; steps take what `tables` say, or else `lanes.step`.

    Every `num_engines` lanes are a system.
    """
    num_lanes, table_size = lanes.workload.shape[0], requests.arrival.shape[1]
    systems = num_lanes // num_engines
    num_requests = (requests.arrival < NEVER).sum(1)[lanes.workload[::num_engines]]

    def zeros(*shape: int, dtype: type = I64) -> Array:
        return jnp.zeros((*shape, num_lanes), dtype)

    none = zeros(dtype=I32) - 1
    start = State(
        now=zeros() + START_PS,
        next=zeros(dtype=I32),
        admissions=zeros(dtype=I32),
        overflow=zeros(dtype=jnp.bool_),
        slots=Slots(
            **{name: zeros(num_slots, dtype=I32) for name in Slots._fields[:6]},
            planned=zeros(num_slots) if records else None,
            first=zeros(num_slots),
            finish=zeros(num_slots),
        ),
        pending=Pending(
            **{name: zeros(dtype=I32) for name in Pending._fields[:-2]}, begin=zeros(), time=zeros()
        )._replace(enter=none, again=none, back=none, recorded=none),
        tally=Tally(*(zeros() for _ in Tally._fields)),
        records=Records(*(jnp.zeros((table_size, systems), I64) for _ in Records._fields))
        if records
        else None,
        routed=None
        if num_engines == 1
        else Routed(
            next=jnp.zeros(systems, I32),
            turn=jnp.zeros(systems, I32),
            follower=jnp.full((table_size, systems), table_size - 1, I32),
            first=zeros(dtype=I32) + (table_size - 1),
            last=zeros(dtype=I32) + (table_size - 1),
            **{name: zeros(dtype=I32) for name in ("waiting", "taken_back", "flight")},
        ),
    )

    most = 1 << (30 - (num_slots - 1).bit_length())

    def too_often(state: State) -> Array:
        return jnp.maximum(state.admissions, state.tally.preemptions).max() >= most

    def goes_on(state: State) -> Array:
        recorded = state.tally.recorded.reshape(systems, num_engines).sum(1)
        unfinished = (recorded < num_requests).any()
        return unfinished & ~state.overflow.any() & ~too_often(state)

    iteration = functools.partial(_iteration, block_size, num_engines, tables, requests, lanes)
    end = lax.while_loop(goes_on, iteration, start)
    return Served(end.tally, end.records, end.overflow.any(), too_often(end))
