"""What a block of lanes is: its arrays, what it is compiled for, and what comes out.

A *lane* is one simulation: a static placement, with its deadlines, under a workload. The lanes of a
*block* share the workload, and lie along the last axis of every array. A group's last-stage clock
carries the group's index and configuration in its low bits (`ticks << bits | group << config_bits |
config`), so that one minimum over the groups is dispatch, tie-break (lowest index) and lookup of
the configuration at once.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

import jax

from beta_jax.dispatch import DispatchRule

Array = jax.Array
MAX_GROUPS, MAX_STAGES = 256, 32
UNHOSTED = 2**62
"""Dispatch key of a group that does not host the model: larger than any real key."""


class Kernel(enum.Enum):
    """The programs that simulate a block; equal in every bit."""

    LOCKSTEP = "lockstep"
    """All lanes at once, every group at every request: see `kernels.lockstep`."""
    SINGLE = "single"
    """One lane, at every request the groups that host its model: see `kernels.single`."""
    BATCHING = "batching"
    """Lane after lane, one event at a time; all that batch, and no others: `kernels.batching`."""
    GPU = "gpu"
    """Many blocks of many workloads in one launch on a GPU: see `kernels.gpu`."""


class BlockShape(NamedTuple):
    """What a block's program is compiled for, besides the array shapes."""

    kernel: Kernel
    rule: DispatchRule
    num_clocks: int
    """Clocks kept per group: the number of pipeline stages, or 1 where one clock is exact."""
    config_bits: int
    """Low bits of a key that hold the index of a group's configuration."""
    num_hosts: int = 0
    """`Kernel.SINGLE`: at most so many groups host a model, which pays for making lists of them; 0
    where it does not."""
    batching: str = "off"
    """`Kernel.BATCHING`: a name of `types.BATCHING`."""
    queue: int = 0
    """Of so many requests of a group the ends are kept, where the rule counts unfinished ones."""


class Carried(NamedTuple):
    """What the lanes of a block carry over from earlier requests, and to later ones; int64.

    Behind the last stage of a group that has fewer, clocks are those of its last one.
    """

    clock: Array  # [group, stage, lane] ticks after the block's origin
    memory: Array  # [models + 1, lane], what the dispatch rule remembers
    ends: Array  # [group, BlockShape.queue, lane] ticks, when accepted requests leave, ascending


class Block(NamedTuple):
    """The input of a block. `models + 1` rows: the last one stands for "not a served model"."""

    arrival: Array  # int64 [request] ticks after the block's origin, >= 0; padded
    model: Array  # int32 [request]; padded
    num_requests: Array  # int32 [], how many requests are real
    first: Array  # int64 [], index of the first one in the whole workload
    count_from: Array  # int32 [], requests in [count_from, count_to) are tallied
    count_to: Array  # int32 []
    hosted: Array  # bool [models + 1, group, lane]
    config: Array  # int32 [group, lane], row of `latency`
    deadline: Array  # int64 [models + 1, lane] ticks after arrival
    model_type: Array  # int32 [models + 1], row of `latency`
    latency: Array  # int64 [type, config, stage] ticks; with one clock [.., 2]: total, bottleneck
    request_overhead: Array  # int64 [] ticks
    work: Array | None = None  # int32 [request] `Workload.work`, if requests have their own; padded
    carried: Carried | None = None  # if there is what came before; else all clocks are 0


class Launch(NamedTuple):
    """The input of a launch of the GPU's kernel: any number of blocks, each of one workload.

    Blocks run side by side, and those that come first start first, so the longest come first. All
    are of one `BlockShape` and padded to equal sizes. `models + 1` rows as in `Block`.
    """

    arrival: Array  # int64 [request] ticks after the origin of its workload, >= 0; concatenated
    model: Array  # int32 [request], concatenated
    offset: Array  # int32 [block], the first request of the block's workload in these
    num_requests: Array  # int32 [block]
    first: Array  # int64 [block], index of the first request in the whole workload
    count_from: Array  # int32 [block], requests in [count_from, count_to) are tallied
    count_to: Array  # int32 [block]
    row: Array  # int32 [block], where the block's rows of `Requests` begin
    request_overhead: Array  # int64 [block] ticks
    table: Array  # int32 [block], index of `latency`
    latency: Array  # int64 [table, models + 1, config, stage] ticks; as in `Block`, by model
    hosted: Array  # int32 [block, models + 1, word, lane], bit g % 32 of word g // 32 for group g
    config: Array  # int32 [block, group, lane], index of `latency`
    deadline: Array  # int64 [block, models + 1, lane] ticks after arrival
    work: Array | None = None  # int32 [request] `Workload.work`, if requests have their own


class PackedLaunch(NamedTuple):
    """A launch, and what its program is compiled for besides the shapes of its arrays."""

    shape: BlockShape
    launch: Launch
    longest: int
    """At least the requests of any block."""
    num_rows: int
    """Rows of what happened to each request, as `Launch.row` says; 0 where only counts are kept."""


class Counts(NamedTuple):
    """What a block tallies; int64 unless said otherwise."""

    good: Array  # [models + 1, lane] accepted requests
    latency: Array  # [models + 1, lane] summed ticks from arrival to finish of accepted requests
    dispatched: Array  # [group, lane] requests sent to the group
    group_good: Array  # [group, lane] of these, accepted
    overflow: Array | None = None  # bool [lane], whether `BlockShape.queue` was too short
    carried: Carried | None = None  # if the block has


class Requests(NamedTuple):
    """What happened to each request."""

    finish: Array  # int64 [request, lane] ticks, 0 if rejected
    group: Array  # int16 [request, lane], -1 if no group hosts its model
