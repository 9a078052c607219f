"""The one entry to the queueing dynamics (Beta, OSDI 2023, section 5), under jit."""

from __future__ import annotations

import jax

from beta_jax.simulator.kernels.lockstep import run_lanes
from beta_jax.simulator.kernels.single import run_lane
from beta_jax.simulator.layout import Block, BlockShape, Counts, Requests


def run_block(
    shape: BlockShape, block: Block, *, keep_requests: bool = False
) -> tuple[Counts, Requests | None]:
    """Simulate the lanes of a block (under jit; `shape` and `keep_requests` are static).

    Integer-exact: a lane's result does not depend on the other lanes, on padding or on the device.
    The caller guarantees that every clock, shifted by the bits of the packed index, is below 2^62.
    """
    run = run_lane if block.config.shape[1] == 1 else run_lanes
    return run(shape, block, keep_requests)


simulate_block = jax.jit(run_block, static_argnums=0, static_argnames="keep_requests")
