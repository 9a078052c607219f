"""The plain values every module speaks in: models, cluster, rules, workloads, and the time unit.

Numpy only, so that configs, tables and figures never pay for importing JAX. Time inside the
simulator is integer nanoseconds ("ticks"): exact, associative and equal on every backend.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

TICKS_PER_SECOND = 10**9
NO_DEADLINE = np.int64(2**62)
"""Deadline, in ticks, of a model whose SLO is infinite: later than any time, safe to compare."""
UNREGISTERED = -1
"""Model index of a request whose model is not served: rejected, and counted nowhere."""
BATCH_SIZES = (1, 2, 4, 8, 16)
"""Sizes of batches: powers of two, each reached by doubling the one before."""
BATCHING = ("published", "strict")
GB = 2**30


class ParallelConfig(NamedTuple):
    """How a group runs a model: `op` operator-parallel devices in each of `pp` pipeline stages."""

    op: int
    pp: int

    @property
    def num_devices(self) -> int:
        return self.op * self.pp

    def __str__(self) -> str:
        return f"(1,{self.op},{self.pp})"


@dataclasses.dataclass(frozen=True)
class Model:
    """One served model: a name, the profiled `type` it is an instance of, its SLO and its traffic.

    `rate_rps` (requests/s) and `cv` (coefficient of variation of the gaps) describe nominal
    traffic; they are needed only to generate workloads and by the policies that plan from rates.
    """

    name: str
    type: str
    slo_s: float
    rate_rps: float = math.nan
    cv: float = 1.0

    def __post_init__(self) -> None:
        if not self.slo_s > 0:
            raise ValueError(f"model {self.name}: SLO must be > 0 seconds, got {self.slo_s}")
        if self.rate_rps < 0:
            raise ValueError(f"model {self.name}: rate must be >= 0 req/s, got {self.rate_rps}")
        if not self.cv >= 0:
            raise ValueError(f"model {self.name}: CV must be >= 0, got {self.cv}")


@dataclasses.dataclass(frozen=True)
class Cluster:
    """`num_devices` equal devices with `memory_bytes` usable each, `devices_per_node` to a node."""

    num_devices: int
    memory_bytes: float = 13 * GB
    devices_per_node: int = 8

    def __post_init__(self) -> None:
        if self.num_devices < 1 or self.devices_per_node < 1 or not self.memory_bytes > 0:
            raise ValueError(f"a cluster needs devices and memory, got {self}")


@dataclasses.dataclass(frozen=True)
class Rules:
    """What the simulated system does with a request; the defaults are the published ones.

    dispatch: the name of a `simulator.Dispatch`.
    stage_overhead: every stage latency is multiplied by `1 + stage_overhead * number of stages`.
    request_overhead_s: fixed time added to every finish (HTTP, dispatch, driver).
    batching: "off", or by which rules requests that wait are served together (section 6.5): the
        "published" ones, or "strict" ones, by which no group idles while it could serve.
    max_batch: the largest batch, one of `BATCH_SIZES`.
    """

    dispatch: Annotated[str, "earliest_free (published), earliest_finish or round_robin"] = (
        "earliest_free"
    )
    stage_overhead: Annotated[float, "a stage takes 1 + this times the number of stages"] = 0.009
    request_overhead_s: Annotated[float, "added to every request's latency, s"] = 0.011
    batching: Annotated[Literal["off", "published", "strict"], "how batches are made"] = "off"
    max_batch: Annotated[int, "largest batch, where there are any: 1, 2, 4, 8 or 16"] = 1

    def __post_init__(self) -> None:
        if self.batching not in ("off", *BATCHING):
            raise ValueError(f"batching is off, {' or '.join(BATCHING)}, got {self.batching!r}")
        if self.max_batch not in BATCH_SIZES:
            raise ValueError(f"max_batch is one of {BATCH_SIZES}, got {self.max_batch}")
        if self.batching == "off" and self.max_batch > 1:
            raise ValueError(f"batches of {self.max_batch} need batching, which is off")


PUBLISHED_RULES = Rules()


@dataclasses.dataclass(frozen=True, eq=False)
class Workload:
    """Requests in order of arrival.

    arrival: int64 ticks [request], non-decreasing.
    model: int32 [request], index into the served models, or `UNREGISTERED`.
    """

    arrival: NDArray[np.int64]
    model: NDArray[np.int32]

    def __post_init__(self) -> None:
        object.__setattr__(self, "arrival", np.ascontiguousarray(self.arrival, np.int64))
        object.__setattr__(self, "model", np.ascontiguousarray(self.model, np.int32))
        if self.arrival.ndim != 1 or self.arrival.shape != self.model.shape:
            raise ValueError(
                f"arrival {self.arrival.shape} and model {self.model.shape} must be equal vectors"
            )
        if (np.diff(self.arrival) < 0).any():
            raise ValueError("arrivals must not decrease")

    @classmethod
    def from_seconds(cls, arrival_s: ArrayLike, model: ArrayLike) -> Workload:
        """Build from sorted float64 seconds [request]; order and ties are kept."""
        return cls(arrivals_to_ticks(arrival_s), np.asarray(model, np.int32))

    def __len__(self) -> int:
        return len(self.arrival)

    @property
    def arrival_s(self) -> NDArray[np.float64]:
        """Arrival times in seconds, float64 [request]."""
        return self.arrival / TICKS_PER_SECOND

    def warmup_cut(self, warmup_s: float) -> tuple[int, int]:
        """The half-open range of requests left when the warm-up is trimmed.

        Of N requests spanning T seconds the first and last `int(warmup_s / T * N)` are left out.
        Raises ValueError if nothing would be left.
        """
        n = len(self)
        if warmup_s == 0 or n == 0:
            return 0, n
        span_s = (self.arrival[-1] - self.arrival[0]) / TICKS_PER_SECOND
        cut = int(warmup_s / span_s * n) if span_s > 0 else n
        if 2 * cut >= n:
            raise ValueError(
                f"a warm-up cut of {warmup_s} s at both ends leaves nothing of {n} requests "
                f"spanning {span_s:.6g} s; use a longer workload"
            )
        return cut, n - cut


def arrivals_to_ticks(arrival_s: ArrayLike) -> NDArray[np.int64]:
    """Sorted float64 seconds [request] to int64 ticks: equal times stay equal, others stay apart.

    `tick_i = max(round(t_i * 1e9), tick_(i-1) + 1)` unless `t_i == t_(i-1)`: plain rounding would
    create ties in bursty traffic, and ties change dispatch.
    Raises ValueError for times that are not finite or that decrease.
    """
    seconds = np.asarray(arrival_s, np.float64)
    if not np.isfinite(seconds).all():
        raise ValueError("arrival times must be finite")
    step = np.diff(seconds, prepend=seconds[:1])
    if (step < 0).any():
        raise ValueError(f"arrival times must not decrease (request {int(np.argmax(step < 0))})")
    rank = np.cumsum(step > 0)
    rounded = np.rint(seconds * TICKS_PER_SECOND).astype(np.int64)
    return np.maximum.accumulate(rounded - rank) + rank if len(rounded) else rounded


def durations_to_ticks(duration_s: ArrayLike) -> NDArray[np.int64]:
    """SLOs or stage latencies to int64 ticks, rounded to float32 seconds first, as published.

    Infinity becomes `NO_DEADLINE`.
    """
    seconds = np.asarray(duration_s, np.float64).astype(np.float32).astype(np.float64)
    infinite = np.isinf(seconds)
    ticks = np.rint(np.where(infinite, 0.0, seconds) * TICKS_PER_SECOND).astype(np.int64)
    return np.where(infinite, NO_DEADLINE, ticks)
