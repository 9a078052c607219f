"""Random changes of placements held as arrays on the device: the neighbourhood of a local search.

A child differs from its parent by a few *moves* (exchange models of a group, swap between groups,
reconfigure, split, merge, or found a group). Moves say what a group should keep; afterwards all
groups that were touched are fitted to memory together: what is kept comes first, then others are
drawn, rather those of which many requests are not served.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from beta_jax.placement import Group, Placement
from beta_jax.problem import Problem
from beta_jax.search.instances import NEVER_FITS, memory_of_device, weight_table
from beta_jax.simulator.blocks import stage_ticks
from beta_jax.types import TICKS_PER_SECOND, ParallelConfig, durations_to_ticks

Array = jax.Array
MAX_MOVES = 2
"""Moves that lead from a parent to a child, at most."""
KEPT = 1e6
"""Added to the priority of what a group keeps."""
EXCHANGE, SWAP = 0.35, 0.25
"""Odds of these moves; else two groups, or one, are configured afresh."""


class Placements(NamedTuple):
    """Placements of one problem. The last index of a configuration stands for "no group"."""

    hosted: Array  # bool [lane, group, model]
    config: Array  # int32 [lane, group]


class Space(NamedTuple):
    """What a problem allows; the last row of a configuration stands for "no group"."""

    weight: Array  # int64 [config, model] bytes on each device, `NEVER_FITS` where not allowed
    size: Array  # int32 [config] devices
    model_type: Array  # int32 [model]
    memory: Array  # int64 [] bytes of a device
    num_devices: Array  # int32 []


class Codec:
    """Between placements as objects and as arrays of `num_groups` places."""

    def __init__(self, problem: Problem, configs: list[ParallelConfig], num_groups: int) -> None:
        self.configs, self._num_groups = configs, num_groups
        self._num_models = len(problem.models)

    def encode(self, placements: list[Placement]) -> Placements:
        hosted = np.zeros((len(placements), self._num_groups, self._num_models), np.bool_)
        config = np.full((len(placements), self._num_groups), len(self.configs), np.int32)
        for lane, placement in enumerate(placements):
            for g, group in enumerate(placement.groups):
                hosted[lane, g, list(group.models)] = True
                config[lane, g] = self.configs.index(group.config)
        return Placements(jnp.asarray(hosted), jnp.asarray(config))

    def decode(self, placements: Placements, lane: int) -> Placement:
        hosted, config = np.asarray(placements.hosted[lane]), np.asarray(placements.config[lane])
        return Placement(
            tuple(
                Group(self.configs[c], tuple(np.flatnonzero(models).tolist()))
                for models, c in zip(hosted, config.tolist(), strict=True)
                if c < len(self.configs) and models.any()
            )
        )


def make_space(problem: Problem, configs: list[ParallelConfig]) -> Space:
    weight = weight_table(problem, configs).T
    weight = np.vstack([weight, np.full(len(problem.models), NEVER_FITS)])
    slo = durations_to_ticks([model.slo_s for model in problem.models])
    overhead = round(problem.rules.request_overhead_s * TICKS_PER_SECOND)
    for m, model in enumerate(problem.models):
        for c, ticks in enumerate(stage_ticks(problem, model.type, configs)):
            if not len(ticks) or ticks.sum() + overhead > slo[m]:
                weight[c, m] = NEVER_FITS
    types = sorted({model.type for model in problem.models})
    return Space(
        weight=jnp.asarray(weight),
        size=jnp.asarray([config.num_devices for config in configs] + [0], jnp.int32),
        model_type=jnp.asarray([types.index(m.type) for m in problem.models], jnp.int32),
        memory=jnp.asarray(memory_of_device(problem), jnp.int64),
        num_devices=jnp.asarray(problem.cluster.num_devices, jnp.int32),
    )


class _Draft(NamedTuple):
    config: Array  # int32 [group]
    keep: Array  # bool [group, model]
    banned: Array  # bool [group, model], not to come back
    touched: Array  # bool [group]


def _pick(u: Array, possible: Array) -> Array:
    """A random index of those possible, by u in [0, 1); the number of entries if there is none."""
    upto = jnp.cumsum(possible)
    return jnp.sum(upto <= (u * upto[-1]).astype(upto.dtype))


def _move(u: Array, space: Space, draft: _Draft) -> _Draft:
    """u: float64 [8] in [0, 1). An index past the end, from `_pick`, makes a move do nothing."""
    config, keep, banned, touched = draft
    num_groups, num_models = keep.shape
    none = space.size.shape[0] - 1
    exists = config < none
    index, models = jnp.arange(num_groups), jnp.arange(num_models)
    exchange, swap = u[0] < EXCHANGE, (EXCHANGE <= u[0]) & (u[0] < EXCHANGE + SWAP)

    a = _pick(u[1], exists)
    other = exists & (index != a)
    b = _pick(u[2], jnp.where(swap | (u[3] < 0.6), other, ~exists & (jnp.cumsum(~exists) == 1)))
    at_a, at_b = index == a, index == b
    in_a, in_b = (at_a[:, None] & keep).any(0), (at_b[:, None] & keep).any(0)

    # Exchange: up to two models leave a. Swap: a model of a and one of b change places.
    i = _pick(u[4], in_a & ~(swap & in_b))
    j = _pick(u[5], jnp.where(swap, in_b & ~in_a, in_a & (models != i)))
    leave_a = (models == i) & (swap | (exchange & (u[6] < 0.8)))
    leave_a |= (models == j) & exchange & (u[6] < 0.3)
    leave_b = (models == j) & swap
    out = (at_a[:, None] & leave_a) | (at_b[:, None] & leave_b)
    come = (at_a[:, None] & leave_b) | (at_b[:, None] & leave_a & swap)

    # Configure afresh: the devices of a, b and no group become one or two groups.
    afresh = ~exchange & ~swap & (a < num_groups)
    size = space.size[config]
    pool = space.num_devices - size.sum() + (size * (at_a | at_b)).sum()
    ca = _pick(u[4], (space.size > 0) & (space.size <= pool))
    rest = pool - space.size[ca]
    fits = (space.size > 0) & (space.size <= rest)
    largest = jnp.where(fits, space.size, 0).max()
    cb = jnp.minimum(_pick(u[5], fits & (space.size == largest)), none)
    cb = jnp.where(b < num_groups, cb, none)
    heirs_a = in_a | (in_b & (cb == none))
    heirs_b = jnp.where((exists & at_b).any(), in_b, in_a) & (cb < none)
    inherited = jnp.where(at_a[:, None], heirs_a, jnp.where(at_b[:, None], heirs_b, keep))
    changed = jnp.where(at_a, ca, jnp.where(at_b, cb, config))
    return _Draft(
        jnp.where(afresh, changed, config),
        jnp.where(afresh, inherited, (keep & ~out) | come),
        banned | out,
        touched | at_a | (at_b & ~exchange),
    )


def _fit(u: Array, noise: Array, space: Space, draft: _Draft, need: Array) -> Array:
    """Which models the groups host, bool [group, model].

    u: [group, 3], noise: [place, model], both in [0, 1); need: [model].
    """
    config, keep, banned, touched = draft
    num_groups, num_models = keep.shape
    places = noise.shape[0]
    order = jnp.cumsum(touched) - 1
    which = jnp.where(touched, order, places)  # the place of each touched group
    group = jnp.full(places, num_groups).at[which].set(jnp.arange(num_groups), mode="drop")
    kept, barred = (a.at[group].get(mode="fill", fill_value=False) for a in (keep, banned))
    weight = space.weight[config].at[group].get(mode="fill", fill_value=NEVER_FITS)
    u = u[:places]
    scratch, picky = u[:, 0] < 0.15, u[:, 1] < 0.3
    # Of a picky group, some types come first.
    liked = ((u[:, 2:] * 8191 * (space.model_type + 1)) % 1.0) < 0.5
    priority = jnp.log(need + 1e-3) - jnp.log(-jnp.log(noise + 1e-12) + 1e-12)
    priority -= jnp.where(picky[:, None] & ~liked, 50.0, 0.0)
    priority += jnp.where(kept & ~scratch[:, None], KEPT, 0.0)

    def add(carry):
        hosted, left, _ = carry
        fits = (weight <= left[:, None]) & ~hosted & ~barred
        m = jnp.argmax(jnp.where(fits, priority, -jnp.inf), axis=1)
        some = fits.any(1)
        added = (jnp.arange(num_models) == m[:, None]) & some[:, None]
        left -= jnp.where(added, weight, 0).sum(1)
        return hosted | added, left, some.any()

    start = jnp.zeros_like(kept), jnp.full(places, space.memory), jnp.array(True)
    hosted, _, _ = lax.while_loop(lambda carry: carry[2], add, start)
    return keep.at[group].set(hosted, mode="drop")


def _child(
    u: Array, v: Array, noise: Array, space: Space, hosted: Array, config: Array, need: Array
) -> Placements:
    nothing = jnp.zeros_like(hosted)
    draft = _move(u[0], space, _Draft(config, hosted, nothing, nothing[:, 0]))
    again = _move(u[1], space, draft)
    draft = jax.tree.map(lambda one, two: jnp.where(u[0, 7] < 0.5, two, one), draft, again)
    return Placements(_fit(v, noise, space, draft, need), draft.config)


@jax.jit
def children(
    key: Array, space: Space, parents: Placements, need: Array, parent_of: Array
) -> Placements:
    """One child of parent `parent_of[lane]` per lane."""
    num_groups, num_models = parents.hosted.shape[1:]
    lanes = len(parent_of)
    keys = jax.random.split(key, 3)
    u = jax.random.uniform(keys[0], (lanes, MAX_MOVES, 8))
    v = jax.random.uniform(keys[1], (lanes, 2 * MAX_MOVES, 3))
    noise = jax.random.uniform(keys[2], (lanes, 2 * MAX_MOVES, num_models))
    own = jax.tree.map(lambda array: array[parent_of], parents)
    child = jax.vmap(_child, in_axes=(0, 0, 0, None, 0, 0, 0))
    return child(u, v, noise, space, own.hosted, own.config, need[parent_of])
