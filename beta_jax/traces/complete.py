"""A trace of some days made into one of fourteen, generated days standing in for the others."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from beta_jax.traces.generate import MINUTES_PER_DAY, maf1_like
from beta_jax.traces.trace import MINUTE_S, CountBlock, CountTrace, Trace, TraceError

DAYS = 14


def complete(trace: Trace, *, seed: int = 0) -> Trace:
    """The trace with days of `maf1_like` before and after its own, which stay as they are.

    Every function is paired with the generated one of equal rank in popularity, so that those who
    are popular stay so from day to day, while when they are busy differs. The level is that of
    `maf1_like`: right for a trace whose functions are as popular as the measured ones, such as a
    random sample of MAF1. A trace of fourteen days is returned as it is.
    Raises TraceError unless the trace has counts per minute.
    """
    if not isinstance(trace, CountTrace) or trace.window_s != MINUTE_S:
        raise TraceError(f"{trace.name}: only a trace of counts per minute can be completed")
    first, last = trace.blocks[0].first_window, trace.blocks[-1].last_window
    whole = DAYS * MINUTES_PER_DAY
    if first == 0 and last >= whole:
        return trace
    generated = maf1_like(len(trace.functions), DAYS, seed)
    stands_for = np.empty(len(trace.functions), np.int32)
    stands_for[_by_popularity(generated)] = _by_popularity(trace)
    parts = [(0, first), (last, whole)]
    before, after = (
        [_part(generated.blocks[0], *part, stands_for)] if part[0] < part[1] else []
        for part in parts
    )
    return dataclasses.replace(trace, blocks=[*before, *trace.blocks, *after])


def _by_popularity(trace: CountTrace) -> NDArray[np.int64]:
    """The functions, least popular first."""
    entries = trace.entries(trace.start_s, trace.end_s, trace.window_s)
    total = np.bincount(entries.function, entries.requests, minlength=len(trace.functions))
    return np.argsort(total, kind="stable")


def _part(block: CountBlock, first: int, last: int, index: NDArray[np.int32]) -> CountBlock:
    """Windows `[first, last)` of a block that begins at window 0, its functions renamed."""
    offset = block.offset[first : last + 1]
    span = slice(int(offset[0]), int(offset[-1]))
    return CountBlock(first, offset - offset[0], block.function[span], block.count[span], index)
