"""Where a simulation stands between two parts of a workload: what later requests find."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beta_jax.simulator.layout import Carried
from beta_jax.types import ParallelConfig, Rules

Ticks = NDArray[np.int64]


@dataclasses.dataclass(frozen=True, eq=False)
class State:
    """What the requests so far leave to those that come; times are on the workload's clock.

    clock: of every group, int64 ticks [stage], when each stage is free.
    memory: int64 [model], what the dispatch rule remembers of each.
    ends: of every group, int64 ticks, ascending: when the latest of the requests that it accepted
        leave its last stage; all that are not through, where the dispatch rule counts them.
    num_requests: how many requests there were.
    """

    clock: tuple[Ticks, ...]
    memory: NDArray[np.int64]
    ends: tuple[Ticks, ...]
    num_requests: int = 0

    @classmethod
    def initial(cls, configs: Sequence[ParallelConfig], num_models: int, rules: Rules) -> State:
        """All groups free since 0, before any request."""
        return cls(
            tuple(np.zeros(config.pp, np.int64) for config in configs),
            np.full(num_models, rules.rule.initial, np.int64),
            tuple(np.zeros(0, np.int64) for _ in configs),
        )


def pack_states(
    states: Sequence[State], num_groups: int, num_clocks: int, num_rows: int, queue: int, lanes: int
) -> Carried:
    """The states of a block's lanes, padded; `queue`: see `BlockShape`."""
    clock = np.zeros((num_groups, num_clocks, lanes), np.int64)
    memory = np.zeros((num_rows, lanes), np.int64)
    ends = np.zeros((num_groups, queue, lanes), np.int64)
    for lane, state in enumerate(states):
        memory[: len(state.memory), lane] = state.memory
        for group, (own, left) in enumerate(zip(state.clock, state.ends, strict=True)):
            clock[group, :, lane] = np.pad(own, (0, num_clocks - len(own)), mode="edge")
            latest = left[-queue:] if queue else left[:0]
            ends[group, queue - len(latest) :, lane] = latest
    arrays: dict[str, Any] = {"clock": clock, "memory": memory, "ends": ends}
    return Carried(**arrays)


def unpack_state(carried: Carried, lane: int, before: State, num_requests: int) -> State:
    """The state after so many requests of a lane that had another one `before`."""
    clock, memory, ends = (np.asarray(array)[..., lane] for array in carried)
    return State(
        tuple(clock[g, : len(own)] for g, own in enumerate(before.clock)),
        memory[: len(before.memory)],
        tuple(ends[g][ends[g] > 0] for g in range(len(before.clock))),
        before.num_requests + num_requests,
    )
