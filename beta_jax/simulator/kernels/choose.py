"""Which kernel simulates a block, and the one way into it."""

from __future__ import annotations

import math
import os
from typing import Any

import jax

from beta_jax import backend
from beta_jax.simulator.kernels import batching, gpu, lockstep, single
from beta_jax.simulator.kernels.batching import BatchBlock
from beta_jax.simulator.kernels.unrolled import Written
from beta_jax.simulator.layout import (
    Block,
    BlockShape,
    Counts,
    Kernel,
    Launch,
    PackedLaunch,
    Requests,
)
from beta_jax.types import Rules

RUN: dict[Kernel, Any] = {
    Kernel.LOCKSTEP: lockstep.run,
    Kernel.SINGLE: single.run,
    Kernel.BATCHING: batching.run,
}
LANES = {
    Kernel.LOCKSTEP: lockstep.LANES,
    Kernel.SINGLE: single.LANES,
    Kernel.BATCHING: batching.LANES,
    Kernel.GPU: gpu.LANES,
}
"""Lanes of a block, padding included."""
MAX_LANES = max(LANES[kernel] for kernel in RUN)
"""Of any block on the CPU."""
LAUNCH_LANES_PER_CORE = 64
"""From so many lanes on a launch is taken to be faster than each core of the CPU (estimated)."""
START_NS = 200_000
"""What it takes to call the program of one lane and to make its lists of candidates."""


def choose_kernel(
    rules: Rules,
    num_lanes: int,
    num_groups: int,
    num_clocks: int,
    num_requests: float = math.inf,
    launch_lanes: int = 0,
) -> Kernel:
    """The faster kernel, of those that know the rules, for so many lanes that could share a block.

    By measurement: many lanes in lockstep take time for every clock of every group, but several
    lanes per instruction; one lane takes time for what it needs, and some to start. A GPU, if there
    is one, takes hardly longer for many lanes than for one, but much longer for one than a CPU.
    num_requests: of a lane, infinite where starting costs nothing. launch_lanes: how many could
    share a launch.
    """
    if rules.batches:
        return Kernel.BATCHING
    if rules.rule.max_unfinished:
        return Kernel.SINGLE  # in lockstep the queues of all groups are gone through
    enough_lanes = LAUNCH_LANES_PER_CORE * len(os.sched_getaffinity(0))
    if launch_lanes >= enough_lanes and num_groups * num_clocks <= gpu.MAX_CLOCKS and gpu.devices():
        return Kernel.GPU
    lockstep_ns = 8 + num_groups * (0.2 + 0.7 * num_clocks)
    single_ns = START_NS / max(num_requests, 1)
    single_ns += 28 if num_clocks == 1 else 42 + 2 * num_clocks
    speed = 3 if backend.WIDE_VECTORS else 1
    enough = math.ceil(lockstep.LANES * lockstep_ns / single_ns / speed)
    return Kernel.LOCKSTEP if num_lanes >= max(enough, 2) else Kernel.SINGLE


def run_block(
    shape: BlockShape, block: Block | BatchBlock, *, keep_requests: bool = False
) -> tuple[Counts, Requests | None]:
    """Simulate the lanes of a block (under jit; `shape` and `keep_requests` are static)."""
    _ran.add((shape.kernel.value, "cpu"))  # under jit, the first time: and that is all it is for
    return RUN[shape.kernel](shape, block, keep_requests)


simulate_block = jax.jit(run_block, static_argnums=0, static_argnames="keep_requests")

simulate_launch = jax.jit(
    gpu.run, static_argnums=0, static_argnames=("longest", "num_rows", "interpret")
)


def send_launch(packed: PackedLaunch, device: jax.Device) -> Launch:
    """A launch's arrays on the device that will simulate it."""
    _ran.add((Kernel.GPU.value, device.device_kind))
    return jax.device_put(packed.launch, device)


def run_launch(packed: PackedLaunch, device: jax.Device) -> Written:
    """Simulate a launch on a device, on a CPU by interpreting it. Does not wait for the end."""
    return simulate_launch(
        packed.shape,
        send_launch(packed, device),
        longest=packed.longest,
        num_rows=packed.num_rows,
        interpret=device.platform == "cpu",
    )


_ran: set[tuple[str, str]] = set()


def ran() -> list[dict[str, str]]:
    """Which kernels simulated something in this process, and on what kind of device."""
    return [{"kernel": kernel, "device": device} for kernel, device in sorted(_ran)]
