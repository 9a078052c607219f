"""What a step takes, by tables of kernel times: exact, with every truncation of the rules.

A step costs its dense layers (by tokens), its layers per sequence (by requests), attention (by what
prefills and decodes), transfers between host and device, and with two ranks their all-reduces.
Kernels are nanoseconds, interpolated in IEEE double in a fixed order and then truncated; a step is
picoseconds. One step or many at once: all broadcasts, on the host or, with JAX's arithmetic, in the
kernel over lanes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from beta_jax.llm.requests import PS_PER_NS
from beta_jax.llm.shapes import StepShape

Ints = NDArray[np.int64]
NO_POINT = np.iinfo(np.int64).max
"""Fills up grids that are shorter than others."""


class Arithmetic(NamedTuple):
    """NumPy's, or JAX's in a program.

    XLA makes one rounding of a product and the sum that takes it; `product` must not let it.
    """

    xp: Any
    product: Callable[[Any, Any], Any]


HOST = Arithmetic(np, np.multiply)


class _Bracket(NamedTuple):
    low: Any
    high: Any
    part: Any
    """How far from low to high; beyond 1 past the last point."""


def _bracket(values: Any, grid: Any, points: Any = None, on: Arithmetic = HOST) -> _Bracket:
    """Of `values` [...] on one grid, or on grids [..., point] of which the first `points` count."""
    xp = on.xp
    values = xp.asarray(values)
    if points is None:
        points, below = len(grid), xp.searchsorted(grid, values, "right")
    else:
        below = (grid <= values[..., None]).sum(-1)
    high = xp.minimum(below, points - 1)
    low = xp.maximum(high - 1, 0)
    start, end = _at(grid, low, on), _at(grid, high, on)
    inside = high > 0
    return _Bracket(
        low, high, xp.where(inside, (values - start) / xp.where(inside, end - start, 1), 0)
    )


def _at(rows: Any, index: Any, on: Arithmetic = HOST) -> Any:
    """`rows[..., index[...]]`, of rows that broadcast."""
    if rows.ndim == 1:
        return on.xp.asarray(rows)[index]
    rows = on.xp.broadcast_to(rows, (*index.shape, rows.shape[-1]))
    return on.xp.take_along_axis(rows, index[..., None], -1)[..., 0]


def _blend(start: Any, end: Any, part: Any, on: Arithmetic = HOST) -> Any:
    return start + on.product(part, end - start)


def _truncated(ns: Any, on: Arithmetic = HOST) -> Any:
    return on.xp.maximum(1, on.xp.trunc(ns).astype(np.int64))


@dataclasses.dataclass(frozen=True, eq=False)
class Layer:
    """Nanoseconds of a layer by tokens or sequences, int64 [point] each; `count` in the model."""

    name: str
    count: int
    grid: Ints
    ns: Ints

    def __call__(self, size: Any) -> Any:
        low, high, part = _bracket(size, self.grid)
        return _truncated(_blend(self.ns[low], self.ns[high], part))


@dataclasses.dataclass(frozen=True, eq=False)
class Attention:
    """Nanoseconds of one attention layer: slices by prefill chunk and decodes, each a ragged grid.

    slice_of is the slice of each pair of `prefill_chunk` and `decodes`, the nearest one where there
    is none of its own. A slice has `rows` rows by cached tokens of what prefills, and a row has
    `points` points by cached tokens of a decode; grids are filled up with NO_POINT, times with 0.
    """

    count: int
    prefill_chunk: Ints  # [chunk]
    decodes: Ints  # [decode]
    slice_of: Ints  # [chunk, decode]
    rows: Ints  # [slice]
    kv_prefill: Ints  # [slice, row]
    points: Ints  # [slice, row]
    kv_decode: Ints  # [slice, row, point]
    ns: Ints  # [slice, row, point]

    def __call__(
        self,
        prefill_tokens: Any,
        prefill_cached: Any,
        decodes: Any,
        decode_cached: Any,
        on: Arithmetic = HOST,
    ) -> Any:
        """If all decodes have `decode_cached` tokens cached."""
        xp = on.xp
        slice_of, rows, kv_prefill, points, kv_decode, ns = map(
            xp.asarray,
            (self.slice_of, self.rows, self.kv_prefill, self.points, self.kv_decode, self.ns),
        )
        chunk = _bracket(prefill_tokens, self.prefill_chunk, on=on)
        decode = _bracket(decodes, self.decodes, on=on)
        # Axes to come: lower or upper chunk, decodes, row.
        prefill_cached = xp.asarray(prefill_cached)[..., None, None]
        decode_cached = xp.asarray(decode_cached)[..., None, None, None]
        slice = slice_of[
            xp.stack([chunk.low, chunk.high], -1)[..., :, None],
            xp.stack([decode.low, decode.high], -1)[..., None, :],
        ]
        row = _bracket(prefill_cached, kv_prefill[slice], rows[slice], on)
        at = xp.broadcast_to(slice, row.low.shape)[..., None], xp.stack([row.low, row.high], -1)
        point = _bracket(decode_cached, kv_decode[at], points[at], on)
        start, end = _at(ns[at], point.low, on), _at(ns[at], point.high, on)
        by_row = _blend(start, end, point.part, on)
        by_decodes = _blend(by_row[..., 0], by_row[..., 1], row.part, on)
        by_chunk = _blend(by_decodes[..., 0], by_decodes[..., 1], decode.part[..., None], on)
        return _truncated(_blend(by_chunk[..., 0], by_chunk[..., 1], chunk.part, on), on)


@dataclasses.dataclass(frozen=True, eq=False)
class Skew:
    """How much of the way from equal decodes to all as long as the longest unequal ones go.

    Upper bounds of buckets, rising; what is beyond the last is in the last. alpha is float64
    [chunk, decodes, rate, most cached, prefill cached], a chunk for each of `prefill_chunk`; a step
    whose prefill is none of these has `alpha_default`.
    """

    alpha_default: float
    n_upper: NDArray[np.float64]
    skew_rate_upper: NDArray[np.float64]
    kv_big_upper: NDArray[np.float64]
    kp_upper: NDArray[np.float64]
    prefill_chunk: Ints
    alpha: NDArray[np.float64]

    def alpha_of(self, shape: StepShape, rate: Any, on: Arithmetic = HOST) -> Any:
        xp = on.xp

        def bucket(upper: NDArray[np.float64], value: Any) -> Any:
            return xp.minimum(xp.searchsorted(upper, value), len(upper) - 1)

        if not len(self.prefill_chunk):
            return self.alpha_default
        chunks = xp.asarray(self.prefill_chunk)
        at = xp.searchsorted(chunks, shape.prefill_tokens)
        at = xp.minimum(at, len(self.prefill_chunk) - 1)
        found = xp.asarray(self.alpha)[
            at,
            bucket(self.n_upper, shape.decodes),
            bucket(self.skew_rate_upper, rate),
            bucket(self.kv_big_upper, shape.most_cached),
            bucket(self.kp_upper, shape.prefill_cached),
        ]
        return xp.where(chunks[at] == shape.prefill_tokens, found, self.alpha_default)


@dataclasses.dataclass(frozen=True)
class Ring:
    """All-reduce of two ranks, after `count` layers."""

    count: int
    token_bytes: int
    link_latency_ns: float
    link_bytes_per_ns: float
    device_bytes_per_ns: float

    def __call__(self, tokens: Any) -> Any:
        message = tokens * self.token_bytes // 2
        hop = np.trunc(self.link_latency_ns + message / self.link_bytes_per_ns).astype(np.int64)
        per_s = self.device_bytes_per_ns * 10**9
        reduce = 3 * np.trunc(message / per_s * 10**9).astype(np.int64)
        return 2 * hop + reduce + 30


@dataclasses.dataclass(frozen=True, eq=False)
class StepTables:
    """Kernel times of a model on a device, for one rank or two.

    `read_tables` makes it of a folder, whose path `folder` is.
    """

    dense: tuple[Layer, ...]
    per_sequence: tuple[Layer, ...]
    attention: Attention
    host_bytes_per_ns: float
    skew: Skew | None = None
    ring: Ring | None = None
    folder: Path | None = None

    def dense_ns(self, tokens: Any) -> Any:
        """All dense layers together, int64, by the tokens of a step: 0 counts as 1."""
        size = np.maximum(tokens, 1)
        return sum((layer.count * layer(size) for layer in self.dense), start=np.int64(0))

    def per_sequence_ns(self, requests: Any) -> Any:
        """All layers per sequence together, int64, by the requests of a step: 0 counts as 1."""
        size = np.maximum(requests, 1)
        return sum((layer.count * layer(size) for layer in self.per_sequence), start=np.int64(0))

    def transfer_ns(self, tokens: Any) -> Any:
        """From and to the host and between ranks, int64. The host serves one rank at a time."""
        once = np.trunc(4 * tokens / self.host_bytes_per_ns).astype(np.int64)
        if self.ring is None:
            return 2 * once
        return 3 * once + self.ring.count * self.ring(tokens)

    def attention_ns(self, shape: StepShape, on: Arithmetic = HOST) -> Any:
        """One attention layer, int64, corrected for unequal decodes where the tables say how."""
        xp = on.xp
        mean = xp.where(
            xp.asarray(shape.decodes) > 0, shape.cached // xp.maximum(shape.decodes, 1), 0
        )
        prefill = shape.prefill_tokens, shape.prefill_cached
        even = self.attention(*prefill, shape.decodes, mean, on)
        unequal = (xp.asarray(shape.decodes) > 1) & (shape.most_cached != mean)
        if self.skew is None or (xp is np and not unequal.any()):
            return even
        span = xp.asarray(shape.most_cached - shape.least_cached)
        rate = xp.where(span == 0, 0.5, (mean - shape.least_cached) / xp.where(span != 0, span, 1))
        alpha = self.skew.alpha_of(shape, xp.clip(rate, 0, 1), on)
        longest = self.attention(*prefill, shape.decodes, shape.most_cached, on)
        partly = xp.rint(even + on.product(alpha, longest - even)).astype(np.int64)
        return xp.where(unequal & (longest > even), xp.maximum(1, partly), even)

    def step_ps(self, shape: StepShape) -> Any:
        """Picoseconds of steps, int64."""
        return PS_PER_NS * (
            self.dense_ns(shape.tokens)
            + self.per_sequence_ns(shape.requests)
            + self.attention.count * self.attention_ns(shape)
            + self.transfer_ns(shape.tokens)
        )
