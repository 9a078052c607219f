"""A step of Algorithm 1 for a block of searches: which replica each lane is given next."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from beta_jax.simulator.engine import BlockShape, Counts

Array = jax.Array


class Groups(NamedTuple):
    """The groups of every lane, in canonical order."""

    hosted: Array  # bool [models + 1, group, lane]
    config: Array  # int32 [group, lane]
    exists: Array  # bool [group, lane], False for padding
    left: Array  # int64 [group, lane], bytes free on each device


class Search(NamedTuple):
    groups: Groups
    counts: Counts  # of the last simulation; `overflow` of all
    num_simulations: Array  # int32 [lane]
    growing: Array  # bool [lane], a replica was added after the last simulation


class Limits(NamedTuple):
    """What bounds the additions."""

    weight: Array  # int64 [model, config] bytes on each device
    allowed: Array  # bool [model, 1, lane], what the groups of a lane may host
    num_requests: Array  # int64 [model]


def begin(shape: BlockShape, groups: Groups) -> Search:
    """Before the first simulation."""
    num_models, num_groups, num_lanes = groups.hosted.shape
    per_model = jnp.zeros((num_models, num_lanes), jnp.int64)
    per_group = jnp.zeros((num_groups, num_lanes), jnp.int64)
    overflow = jnp.zeros(num_lanes, jnp.bool_) if shape.queue else None
    counts = Counts(per_model, per_model, per_group, per_group, overflow)
    return Search(groups, counts, jnp.zeros(num_lanes, jnp.int32), jnp.ones(num_lanes, jnp.bool_))


def add_replicas(limits: Limits, search: Search, counts: Counts) -> Search:
    """One more replica for every lane in which some model fits, by the counts of a simulation."""
    groups = search.groups
    model_index = jnp.arange(limits.weight.shape[0])[:, None]
    group_index = jnp.arange(groups.config.shape[0])[:, None]
    overflow = jax.tree.map(jnp.logical_or, counts.overflow, search.counts.overflow)
    counts = counts._replace(overflow=overflow)
    fits = limits.weight[:, groups.config] <= groups.left  # bool [model, group, lane]
    fits = fits & limits.allowed & ~groups.hosted[:-1] & groups.exists
    fits_some = fits.any(axis=0)
    growing = fits_some.any(axis=0)
    load = jnp.where(fits_some, counts.dispatched, jnp.iinfo(jnp.int64).max)
    group = jnp.argmin(load, axis=0)
    fits_group = jnp.take_along_axis(fits, group[None, None], axis=1)[:, 0]
    unserved = jnp.where(fits_group, limits.num_requests[:, None] - counts.good[:-1], -1)
    model = jnp.argmax(unserved, axis=0)

    here = (group_index == group) & growing
    added = here & (model_index[:, None] == model)  # [model, group, lane]
    config = jnp.take_along_axis(groups.config, group[None], axis=0)[0]
    groups = groups._replace(
        hosted=groups.hosted.at[:-1].set(groups.hosted[:-1] | added),
        left=groups.left - jnp.where(here, limits.weight[model, config], 0),
    )
    order = _canonical_order(groups.hosted, group, growing)
    groups = Groups(*(_permute(array, order) for array in groups))
    return Search(groups, counts, search.num_simulations + search.growing, growing)


def _permute(array: Array, order: Array) -> Array:
    """Reorder the groups of an array [..., group, lane] by `order` [group, lane]."""
    order = jnp.broadcast_to(order, array.shape)
    return jnp.take_along_axis(array, order, axis=array.ndim - 2)


def _canonical_order(hosted: Array, moved: Array, active: Array) -> Array:
    """The group that each place gets, [group, lane], when only `moved` [lane] may be out of order.

    Groups are sorted by their tuple of models, as Python compares tuples. Two differ first at the
    lowest model d that only one of them hosts; the one with d is smaller if the other has any model
    above d, else it is longer and so larger.
    """
    model_index = jnp.arange(hosted.shape[0])[:, None, None]
    group_index = jnp.arange(hosted.shape[1])[:, None]
    other = jnp.take_along_axis(hosted, moved[None, None], axis=1)  # [model, 1, lane]
    differ = hosted != other
    first = jnp.argmax(differ, axis=0)  # [group, lane]
    has_first = jnp.take_along_axis(hosted, first[None], axis=0)[0]
    highest = jnp.where(hosted, model_index, -1).max(axis=0)
    highest_other = jnp.where(other, model_index, -1).max(axis=0)
    smaller = jnp.where(has_first, highest_other > first, highest < first)
    before = jnp.where(differ.any(axis=0), smaller, group_index < moved)
    # Only `moved` changes place, so the groups between its old place and its new one shift by one.
    place = jnp.where(active, (before & (group_index != moved)).sum(axis=0), moved)
    shift = jnp.where(place < moved, -1, 1)
    first, last = jnp.minimum(place, moved), jnp.maximum(place, moved)
    between = (first <= group_index) & (group_index <= last)
    return jnp.where(group_index == place, moved, group_index + jnp.where(between, shift, 0))
