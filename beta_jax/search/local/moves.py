"""Random changes of placements, held as arrays on the device: the neighbourhood of a local search.

A child differs from its parent by one move or two. A move exchanges models of a group, swaps models
between two groups, or configures the devices of one group or two, and those in no group, afresh,
in each pool for itself: that splits, merges, founds, dissolves and reconfigures groups. Moves say
what groups are to keep; then the groups that were touched are filled: first with what they keep,
then with models drawn at random, rather those of which many requests are not served.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from beta_jax.placement.devices import replica_bytes
from beta_jax.placement.problem import Problem
from beta_jax.search.instances import NEVER_FITS, devices_table, memory_table, weight_table
from beta_jax.simulator.engine import idle_ticks, slo_ticks
from beta_jax.traits import Trait
from beta_jax.types import NO_DEADLINE, ParallelConfig, Workload

Array = jax.Array
RELIES_ON = Trait.ONE_BY_ONE | Trait.WORK_BY_MODEL
EXCHANGE, SWAP = 0.35, 0.25
"""Probabilities of these moves; otherwise groups are configured afresh."""
ONE, TWO = 0.8, 0.3
"""Probabilities that an exchange drops a first and a second model."""
PARTNER = 0.6
"""Probability that two groups are configured afresh, rather than one."""
ELSEWHERE = 0.5
"""Probability that a group founded besides one lies in any pool with devices to spare."""
AGAIN = 0.5
"""Probability of a second move."""
SCRATCH = 0.15
"""Probability that a touched group keeps nothing for sure."""
PICKY = 0.3
"""Probability that it takes models of some types first."""
MAX_TOUCHED = 4
"""Groups that two moves can touch."""
KEPT, LIKED = 1e6, 50.0
"""Added to the logarithmic priority of what a group keeps, and of the types it takes first."""


class Placements(NamedTuple):
    """Placements of one problem."""

    hosted: Array  # bool [lane, group, model]
    config: Array  # int32 [lane, group], an index; their number, past the last, for "no group"


class Space(NamedTuple):
    """What a problem allows. The last row of a configuration stands for "no group"."""

    weight: Array  # int64 [config, model] bytes on each device, `NEVER_FITS` where not allowed
    replica_bytes: Array  # float64 [config, model] bytes on all devices together
    size: Array  # int32 [config] devices
    pool: Array  # int32 [config], which the devices are of
    memory: Array  # int64 [config] bytes of a device
    model_type: Array  # int32 [model]
    num_devices: Array  # int32 [pool]
    lean: Array  # float64 [] probability that a touched group takes nothing but what it keeps


def make_space(
    problem: Problem,
    workloads: Sequence[Workload],
    configs: Sequence[ParallelConfig],
    lean: float = 0.0,
) -> Space:
    """Not allowed: a model where its profile, its weight or its SLO rules it out.

    A group that cannot meet a model's SLO even when idle would only swallow its requests, under
    rules by which no request takes less than the profile says.
    """
    models = problem.models
    weight = np.full((len(configs) + 1, len(models)), NEVER_FITS)
    weight[:-1] = weight_table(problem, configs).T
    loaded = np.zeros(weight.shape)
    idle, slo = idle_ticks(problem, configs), slo_ticks(problem)
    if RELIES_ON in problem.rules.traits(*workloads):
        weight[:-1][(idle > slo[:, None]).T] = NEVER_FITS
    for m, c in np.argwhere(idle < NO_DEADLINE):
        loaded[c, m] = replica_bytes(problem, models[m], configs[c])
    types = sorted({model.type for model in models})
    return Space(
        weight=jnp.asarray(weight),
        replica_bytes=jnp.asarray(loaded),
        size=jnp.asarray([config.num_devices for config in configs] + [0], jnp.int32),
        pool=jnp.asarray([config.pool for config in configs] + [0], jnp.int32),
        memory=jnp.asarray(np.append(memory_table(problem, configs), 0)),
        model_type=jnp.asarray([types.index(model.type) for model in models], jnp.int32),
        num_devices=jnp.asarray(devices_table(problem), jnp.int32),
        lean=jnp.asarray(lean, jnp.float64),
    )


@jax.jit
def children(
    key: Array, space: Space, parents: Placements, unserved: Array, parent_of: Array
) -> Placements:
    """A child of parent `parent_of[lane]` in every lane; as valid as its parent.

    unserved: float64 [parent, model] requests that were not served in time.
    """
    lanes, num_models = len(parent_of), parents.hosted.shape[2]
    keys = jax.random.split(key, 3)
    moves = jax.random.uniform(keys[0], (lanes, 2, 8))
    moods = jax.random.uniform(keys[1], (lanes, MAX_TOUCHED, 3))
    noise = jax.random.uniform(keys[2], (lanes, MAX_TOUCHED, num_models))
    own = jax.tree.map(lambda array: array[parent_of], parents)
    return jax.vmap(_child, in_axes=(None, 0, 0, 0, 0, 0, 0))(
        space, own.hosted, own.config, unserved[parent_of], moves, moods, noise
    )


@jax.jit
def bytes_loaded(space: Space, origin: Placements, placements: Placements) -> Array:
    """Bytes of weights to load to get from the one placement of `origin` to others, [lane].

    Groups keep their place: a replica costs nothing where the group at its place, of the same
    configuration, hosts it already. That is an upper bound: groups might change places.
    """
    stays = origin.hosted & (origin.config == placements.config)[:, :, None]
    loaded = placements.hosted & ~stays
    return jnp.where(loaded, space.replica_bytes[placements.config], 0.0).sum((1, 2))


class _Draft(NamedTuple):
    config: Array  # int32 [group]
    keep: Array  # bool [group, model], what the groups are to host for sure, if there is room
    banned: Array  # bool [group, model], what they are not to host
    touched: Array  # bool [group], whether they are to be filled again


def _child(
    space: Space,
    hosted: Array,
    config: Array,
    unserved: Array,
    moves: Array,
    moods: Array,
    noise: Array,
) -> Placements:
    nothing = jnp.zeros_like(hosted)
    once = _move(space, _Draft(config, hosted, nothing, nothing[:, 0]), moves[0])
    twice = _move(space, once, moves[1])
    draft = jax.tree.map(lambda a, b: jnp.where(moves[0, 7] < AGAIN, b, a), once, twice)
    return Placements(_fill(space, draft, unserved, moods, noise), draft.config)


def _pick(u: Array, possible: Array) -> Array:
    """A random index of those possible, by u in [0, 1); the number of entries if there is none."""
    number = jnp.cumsum(possible)
    return jnp.sum(number <= (u * number[-1]).astype(number.dtype))


def _move(space: Space, draft: _Draft, u: Array) -> _Draft:
    """One move. u: [8] in [0, 1). An index past the end, from `_pick`, makes it do nothing."""
    config, keep, banned, touched = draft
    no_group = space.size.shape[0] - 1
    exists = config < no_group
    place, model = jnp.arange(keep.shape[0]), jnp.arange(keep.shape[1])
    exchange = u[0] < EXCHANGE
    swap = ~exchange & (u[0] < EXCHANGE + SWAP)

    a = _pick(u[1], exists)
    first_free = ~exists & (jnp.cumsum(~exists) == 1)
    b = _pick(u[2], jnp.where(swap | (u[3] < PARTNER), exists & (place != a), first_free))
    at_a, at_b = place == a, place == b
    in_a, in_b = (at_a[:, None] & keep).any(0), (at_b[:, None] & keep).any(0)

    # Exchange: up to two models leave a. Swap: a model of a and one of b change places.
    i = _pick(u[4], in_a & ~(swap & in_b))
    j = _pick(u[5], jnp.where(swap, in_b & ~in_a, in_a & (model != i)))
    i_leaves = (model == i) & (swap | (u[6] < ONE))
    j_leaves = (model == j) & exchange & (u[6] < TWO)
    j_comes = (model == j) & swap
    out = (at_a[:, None] & (i_leaves | j_leaves)) | (at_b[:, None] & j_comes)
    come = (at_a[:, None] & j_comes) | (at_b[:, None] & i_leaves & swap)

    # Afresh: the devices of a and b, and those in no group, make one group or two. Of what a and b
    # host, either new group keeps what it can: both if there is but one, or if one is split.
    afresh = ~exchange & ~swap & (a < len(place))
    size, pool = space.size[config], space.pool[config]
    pools = jnp.arange(space.num_devices.shape[0])
    free = space.num_devices - jnp.where(pool == pools[:, None], size, 0).sum(1)
    b_exists = (exists & at_b).any()
    pool_a = (pool * at_a).sum()
    pool_b = jnp.where(b_exists, (pool * at_b).sum(), _another_pool(u[3], free, pool_a))
    size_a, size_b = (size * at_a).sum(), (size * at_b).sum()
    room_a = free[pool_a] + size_a + jnp.where(pool_b == pool_a, size_b, 0)
    new_a = _pick(u[4], (space.size > 0) & (space.pool == pool_a) & (space.size <= room_a))
    new_a = jnp.where(~b_exists & (pool_b != pool_a), (config * at_a).sum(), new_a)
    room_b = jnp.where(pool_b == pool_a, room_a - space.size[new_a], free[pool_b] + size_b)
    fits = (space.size > 0) & (space.pool == pool_b) & (space.size <= room_b)
    largest = jnp.where(fits, space.size, 0).max()
    new_b = jnp.minimum(_pick(u[5], fits & (space.size == largest)), no_group)
    new_b = jnp.where(b < len(place), new_b, no_group)
    heirs_a = in_a | (in_b & (new_b == no_group))
    heirs_b = jnp.where(b_exists, in_b, in_a) & (new_b < no_group)
    inherit = jnp.where(at_a[:, None], heirs_a, jnp.where(at_b[:, None], heirs_b, keep))
    return _Draft(
        jnp.where(afresh & at_a, new_a, jnp.where(afresh & at_b, new_b, config)),
        jnp.where(afresh, inherit, (keep & ~out) | come),
        jnp.where(afresh, banned, banned | out),
        touched | at_a | (at_b & ~exchange),
    )


def _another_pool(u: Array, free: Array, pool: Array) -> Array:
    """Where a group is founded that no other one makes room for; u: as it chose to be founded."""
    u = (u * 8191) % 1.0  # what is left of it is as random
    chosen = _pick(u / ELSEWHERE, free > 0)
    return jnp.where((u < ELSEWHERE) & (free > 0).any(), chosen, pool)


def _fill(space: Space, draft: _Draft, unserved: Array, moods: Array, noise: Array) -> Array:
    """What the groups host, bool [group, model]: model by model the highest priority that fits.

    moods: [touched, 3], noise: [touched, model], in [0, 1).
    """
    config, keep, banned, touched = draft
    num_groups, num_models = keep.shape
    row = jnp.where(touched, jnp.cumsum(touched) - 1, MAX_TOUCHED)
    group = jnp.full(MAX_TOUCHED, num_groups).at[row].set(jnp.arange(num_groups), mode="drop")
    weight, kept, barred = (
        array.at[group].get(mode="fill", fill_value=absent)
        for array, absent in ((space.weight[config], NEVER_FITS), (keep, False), (banned, False))
    )
    from_scratch, picky, taste = moods[:, :1] < SCRATCH, moods[:, 1:2] < PICKY, moods[:, 2:]
    barred |= (moods[:, 1:2] >= 1 - space.lean) & ~kept
    liked = (taste * 8191 * (space.model_type + 1)) % 1.0 < 0.5  # a coin for each type
    # Gumbel noise draws without replacement, in proportion to the unserved requests.
    priority = jnp.log(unserved + 1e-3) - jnp.log(-jnp.log(noise + 1e-12) + 1e-12)
    priority += jnp.where(picky & liked, LIKED, 0.0) + jnp.where(kept & ~from_scratch, KEPT, 0.0)

    def add(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        hosted, left, _ = carry
        fits = (weight <= left[:, None]) & ~hosted & ~barred
        highest = jnp.argmax(jnp.where(fits, priority, -jnp.inf), axis=1)
        some = fits.any(1, keepdims=True)
        added = (jnp.arange(num_models) == highest[:, None]) & some
        return hosted | added, left - jnp.where(added, weight, 0).sum(1), some.any()

    memory = space.memory[config].at[group].get(mode="fill", fill_value=0)
    start = jnp.zeros_like(kept), memory, jnp.array(True)
    hosted, _, _ = lax.while_loop(lambda carry: carry[2], add, start)
    return keep.at[group].set(hosted, mode="drop")
