"""The plain values every module speaks in: models, cluster, rules, workloads, and the time unit.

Numpy only, so that configs, tables and figures never pay for importing JAX. Time inside the
simulator is integer nanoseconds ("ticks"): exact, associative and equal on every backend.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from beta_jax.checks import (
    floats,
    require_numbers,
    require_text,
    require_whole,
    set_numbers,
    whole_numbers,
)
from beta_jax.dispatch import DispatchRule, find_rule
from beta_jax.traits import Trait

TICKS_PER_SECOND = 10**9
NO_DEADLINE = np.int64(2**62)
"""Deadline, in ticks, of a model whose SLO is infinite: later than any time, safe to compare."""
MOST_SECONDS = 2**62 / TICKS_PER_SECOND
"""Of any time: those beyond have no ticks."""
UNREGISTERED = -1
"""Model index of a request whose model is not served: rejected, and counted nowhere."""
ONE_WORK = 2**16
"""Work, in fixed point, of a request that takes as long as the profile says."""
MOST_WORK = 2**31 - 1
WORK_LIMIT = (MOST_WORK + 1) / ONE_WORK
"""Work is below this many times what the profile says."""
BATCH_SIZES = (1, 2, 4, 8, 16)
"""Sizes of batches: powers of two, each reached by doubling the one before."""
BATCHING = ("published", "strict")
GB = 2**30
MAX_DEVICES = 2**16
"""Devices of a cluster: as many as the largest placement that can be simulated may use."""


class ParallelConfig(NamedTuple):
    """How a group runs a model: `op` operator-parallel devices in each of `pp` pipeline stages.

    pool: index of the cluster's pool that the devices are of; a group lies in one.
    """

    op: int
    pp: int
    pool: int = 0

    @property
    def num_devices(self) -> int:
        return self.op * self.pp

    def __str__(self) -> str:
        return f"(1,{self.op},{self.pp})" + (f"@{self.pool}" if self.pool else "")


@dataclasses.dataclass(frozen=True)
class Model:
    """One served model: a name, the profiled `type` it is an instance of, its SLO and its traffic.

    `rate_rps` (requests/s) and `cv` (coefficient of variation of the gaps) describe nominal
    traffic; they are needed only to generate workloads and by the policies that plan from rates.
    Raises ValueError for a name or a type that is not text, for an SLO that is not > 0 (infinity is
    none), and for a rate or a CV that is negative or infinite.
    """

    name: str
    type: str
    slo_s: float
    rate_rps: float = math.nan
    cv: float = 1.0

    def __post_init__(self) -> None:
        where = f"model {' '.join(str(self.name).split())}"
        if not (isinstance(self.name, str) and isinstance(self.type, str)):
            raise ValueError(f"{where}: name and type must be text, got type {self.type!r}")
        set_numbers(self, "slo_s", "rate_rps", "cv")
        if not self.slo_s > 0:
            raise ValueError(f"{where}: SLO must be > 0 seconds, got {self.slo_s}")
        if not (0 <= self.rate_rps < math.inf or math.isnan(self.rate_rps)):
            raise ValueError(f"{where}: rate must be >= 0 req/s and finite, got {self.rate_rps}")
        if not 0 <= self.cv < math.inf:
            raise ValueError(f"{where}: CV must be >= 0 and finite, got {self.cv}")


@dataclasses.dataclass(frozen=True)
class Pool:
    """`num_devices` equal devices with `memory_bytes` usable each, `devices_per_node` to a node.

    price_per_hour: of a device, in any currency; NaN where it is not known.
    load_bandwidth_bytes_per_s: at which each device loads weights. None: a change of placement is
        free and forgets what was before, as published.
    Raises ValueError for a number of devices that is not whole or not from 0 to `MAX_DEVICES`,
    nodes of less than one, memory that is not > 0 and finite, a price that is negative or
    infinite, and a load bandwidth that is negative or NaN.
    """

    name: str
    num_devices: int
    memory_bytes: float = 13 * GB
    devices_per_node: int = 8
    price_per_hour: float = math.nan
    load_bandwidth_bytes_per_s: float | None = None

    def __post_init__(self) -> None:
        for name, least in (("num_devices", 0), ("devices_per_node", 1)):
            value = getattr(self, name)
            if not (isinstance(value, int | np.integer) and least <= value <= MAX_DEVICES):
                raise ValueError(
                    f"a cluster needs devices: {name} must be a whole number from 1 to "
                    f"{MAX_DEVICES}, got {value!r}"
                )
        set_numbers(self, "memory_bytes", "price_per_hour")
        if not 0 < self.memory_bytes < math.inf:
            raise ValueError(
                f"a cluster needs memory: memory_bytes must be > 0 and finite, "
                f"got {self.memory_bytes}"
            )
        if not (0 <= self.price_per_hour < math.inf or math.isnan(self.price_per_hour)):
            raise ValueError(
                f"pool {self.name}: price_per_hour must be >= 0 and finite, "
                f"got {self.price_per_hour}"
            )
        if self.load_bandwidth_bytes_per_s is not None:
            set_numbers(self, "load_bandwidth_bytes_per_s")
        bandwidth = self.load_bandwidth_bytes_per_s
        if bandwidth is not None and not bandwidth >= 0:
            raise ValueError(
                f"pool {self.name}: load_bandwidth_bytes_per_s must be >= 0, got {bandwidth}"
            )


@dataclasses.dataclass(frozen=True, init=False)
class Cluster:
    """Pools of equal devices, in order: `Cluster(16)` is one, `Cluster(pools=[...])` are several.

    A pool that has no devices keeps its place, so that clusters of other sizes can be compared.
    Raises ValueError for no devices at all, for two pools of one name, and where some pools have a
    load bandwidth and others have none.
    """

    pools: tuple[Pool, ...]

    def __init__(
        self,
        num_devices: int | None = None,
        memory_bytes: float = 13 * GB,
        devices_per_node: int = 8,
        *,
        load_bandwidth_bytes_per_s: float | None = None,
        pools: Iterable[Pool] = (),
    ) -> None:
        pools = tuple(pools)
        if (num_devices is None) != bool(pools):
            raise ValueError("a cluster needs devices: give their number, or pools of them")
        if num_devices is not None:
            common = memory_bytes, devices_per_node, math.nan, load_bandwidth_bytes_per_s
            pools = (Pool("devices", num_devices, *common),)
        elif load_bandwidth_bytes_per_s is not None:
            raise ValueError("each of several pools has a load bandwidth of its own")
        object.__setattr__(self, "pools", pools)
        if len({*self.names}) < len(pools):
            raise ValueError(f"two pools have the same name: {', '.join(self.names)}")
        if len({pool.load_bandwidth_bytes_per_s is None for pool in pools}) > 1:
            raise ValueError("give a load bandwidth for every pool, infinite ones too, or for none")
        if not self.num_devices:
            raise ValueError(
                f"a cluster needs devices: num_devices must be a whole number from 1 to "
                f"{MAX_DEVICES}, got {self.num_devices}"
            )

    @property
    def num_devices(self) -> int:
        """Of all pools together."""
        return sum(pool.num_devices for pool in self.pools)

    @property
    def names(self) -> tuple[str, ...]:
        """The pools' names, in order."""
        return tuple(pool.name for pool in self.pools)

    @property
    def price_per_hour(self) -> float:
        """Of all devices; NaN where the price of a pool that has some is not known."""
        return sum(
            pool.num_devices * pool.price_per_hour for pool in self.pools if pool.num_devices
        )

    @property
    def loads(self) -> bool:
        """Whether weights take time to load, so that a change of placement has a cost."""
        return self.pools[0].load_bandwidth_bytes_per_s is not None

    def with_devices(self, num_devices: Iterable[int]) -> Cluster:
        """The same pools with other numbers of devices, one for each."""
        resized = zip(self.pools, num_devices, strict=True)
        return Cluster(pools=[dataclasses.replace(pool, num_devices=n) for pool, n in resized])


@dataclasses.dataclass(frozen=True)
class Rules:
    """What the simulated system does with a request; the defaults are the published ones.

    dispatch: the name of a rule, see `Dispatch`, or a `DispatchRule`.
    stage_overhead: every stage latency is multiplied by `1 + stage_overhead * number of stages`.
    request_overhead_s: fixed time added to every finish (HTTP, dispatch, driver).
    batching: "off", or by which rules requests that wait are served together (section 6.5): the
        "published" ones, or "strict" ones, by which no group idles while it could serve.
    max_batch: the largest batch, one of `BATCH_SIZES`.
    Raises ValueError for an unknown rule, for overheads that are negative or not finite, for
    another batch size, and for batching by another dispatch than `earliest_free`.
    """

    dispatch: Annotated[
        str | DispatchRule,
        "earliest_free (published), earliest_finish, round_robin, power_of_two or shortest_queue",
    ] = "earliest_free"
    stage_overhead: Annotated[float, "a stage takes 1 + this times the number of stages"] = 0.009
    request_overhead_s: Annotated[float, "added to every request's latency, s"] = 0.011
    batching: Annotated[
        Literal["off", "published", "strict"], "whether requests that wait are served together"
    ] = "off"
    max_batch: Annotated[int, "largest batch, with batching: 1, 2, 4, 8 or 16"] = 1

    def __post_init__(self) -> None:
        rule = find_rule(self.dispatch)
        require_text(batching=self.batching)
        require_whole("max_batch", self.max_batch, 1, BATCH_SIZES[-1])
        if self.batching not in ("off", *BATCHING):
            raise ValueError(f"batching is off, {' or '.join(BATCHING)}, got {self.batching!r}")
        if self.max_batch not in BATCH_SIZES:
            raise ValueError(f"max_batch is one of {BATCH_SIZES}, got {self.max_batch}")
        if not self.batches and self.max_batch > 1:
            raise ValueError(f"batches of {self.max_batch} need batching, which is off")
        if self.batches and not rule.by_clock:
            raise ValueError(f"batching goes with dispatch earliest_free, not with {rule}")
        for name in ("stage_overhead", "request_overhead_s"):
            set_numbers(self, name)
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be >= 0 and finite, got {value}")

    @property
    def rule(self) -> DispatchRule:
        """How requests are dispatched."""
        return find_rule(self.dispatch)

    @property
    def batches(self) -> bool:
        """Whether requests may wait for each other, and be served together."""
        return self.batching != "off"

    def traits(self, *workloads: Workload) -> Trait:
        """What shortcuts may rely on where these workloads are served.

        With published batching the event of a group that has nothing to do holds up those of all
        others, so that groups are not apart.
        """
        if self.batches:
            return Trait.LOCAL if self.batching == "strict" else Trait.NONE
        found = self.rule.traits | Trait.AT_ARRIVAL | Trait.ONE_BY_ONE
        by_model = all(workload.work is None for workload in workloads)
        return found | (Trait.WORK_BY_MODEL if by_model else Trait.NONE)


PUBLISHED_RULES = Rules()


@dataclasses.dataclass(frozen=True, eq=False)
class Workload:
    """Requests in order of arrival; equal iff all requests are.

    arrival: int64 ticks [request], non-decreasing.
    model: int32 [request], index into the served models, or `UNREGISTERED`.
    work: int32 [request], what each request takes of every stage, in fixed point: `ONE_WORK` is
        what the profile says. None: all take that.
    Raises ValueError for vectors of different lengths, arrivals that decrease, and work that is not
    a whole number >= 1.
    """

    arrival: NDArray[np.int64]
    model: NDArray[np.int32]
    work: NDArray[np.int32] | None = None

    def __post_init__(self) -> None:
        for name, dtype in (("arrival", np.int64), ("model", np.int32)):
            object.__setattr__(self, name, whole_numbers(name, getattr(self, name), dtype))
        if self.arrival.ndim != 1 or self.arrival.shape != self.model.shape:
            raise ValueError(
                f"arrival {self.arrival.shape} and model {self.model.shape} must be equal vectors"
            )
        if (np.diff(self.arrival) < 0).any():
            raise ValueError("arrivals must not decrease")
        if self.work is not None:
            work = whole_numbers("work", self.work, np.int64)
            if work.shape != self.arrival.shape:
                raise ValueError(
                    f"work must be {len(self)} whole numbers, {ONE_WORK} for 1; see from_seconds"
                )
            if len(work) and not 1 <= work.min() <= work.max() <= MOST_WORK:
                raise ValueError(
                    f"work must be in [1, {MOST_WORK}], got {work.min()} to {work.max()}"
                )
            object.__setattr__(self, "work", np.ascontiguousarray(work, np.int32))

    @classmethod
    def from_seconds(
        cls, arrival_s: ArrayLike, model: ArrayLike, work: ArrayLike | None = None
    ) -> Workload:
        """Build from sorted float64 seconds [request]; order and ties are kept.

        work: how much more than the profile says a request takes of every stage, float64 [request];
        see `work_to_fixed`.
        """
        fixed = None if work is None else work_to_fixed(work)
        return cls(arrivals_to_ticks(arrival_s), model, fixed)  # type: ignore[arg-type]

    def __len__(self) -> int:
        return len(self.arrival)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Workload) or hash(self) != hash(other):
            return False
        mine, others = self._columns, other._columns
        return len(mine) == len(others) and all(map(np.array_equal, mine, others))

    @functools.cached_property
    def _hash(self) -> int:
        some = slice(None, None, max(len(self) // 256, 1))  # equal workloads agree anywhere
        return hash((len(self), *(column[some].tobytes() for column in self._columns)))

    def __hash__(self) -> int:
        return self._hash

    @property
    def _columns(self) -> tuple[NDArray[Any], ...]:
        both = self.arrival, self.model
        return both if self.work is None else (*both, self.work)

    @property
    def arrival_s(self) -> NDArray[np.float64]:
        """Arrival times in seconds, float64 [request]."""
        return self.arrival / TICKS_PER_SECOND

    def part(self, begin: int, end: int) -> Workload:
        """The requests [begin, end)."""
        return self if (begin, end) == (0, len(self)) else self._take(slice(begin, end))

    def of_models(self, models: Sequence[int] | NDArray[np.integer]) -> Workload:
        """The requests of some models."""
        kept = np.isin(self.model, models)
        return self if kept.all() else self._take(kept)

    def _take(self, which: slice | NDArray) -> Workload:
        return Workload(*(column[which] for column in self._columns))

    def warmup_cut(self, warmup_s: float) -> tuple[int, int]:
        """The half-open range of requests left when the warm-up is trimmed.

        Of N requests spanning T seconds the first and last `int(warmup_s / T * N)` are left out.
        Raises ValueError if nothing would be left, and for a warm-up that is negative.
        """
        require_numbers(warmup_s=warmup_s)
        if not 0 <= warmup_s < MOST_SECONDS:
            raise ValueError(
                f"warmup_s must be >= 0 seconds and < {MOST_SECONDS:.3g}, got {warmup_s}"
            )
        n = len(self)
        if warmup_s == 0 or n == 0:
            return 0, n
        span_s = (self.arrival[-1] - self.arrival[0]) / TICKS_PER_SECOND
        cut = int(float(warmup_s) / span_s * n) if span_s > 0 else n
        if 2 * cut >= n:
            raise ValueError(
                f"a warm-up cut of {warmup_s} s at both ends leaves nothing of {n} requests "
                f"spanning {span_s:.6g} s; use a longer workload"
            )
        return cut, n - cut


def work_to_fixed(work: ArrayLike) -> NDArray[np.int32]:
    """Work as a share of what the profile says, float64 [request], to fixed point: int32.

    Rounded to the nearest 1 / `ONE_WORK`, and to no less than that. Raises ValueError for work that
    is not > 0 and below 32768.
    """
    ratio = floats("work", work)
    outside = ~((ratio > 0) & (ratio < WORK_LIMIT))
    if outside.any():
        bad = ratio[outside].flat[0]
        raise ValueError(f"work must be > 0 and < {WORK_LIMIT:g}, found {bad:g}")
    return np.clip(np.rint(ratio * ONE_WORK), 1, MOST_WORK).astype(np.int32)


def arrivals_to_ticks(arrival_s: ArrayLike) -> NDArray[np.int64]:
    """Sorted float64 seconds [request] to int64 ticks: equal times stay equal, others stay apart.

    `tick_i = max(round(t_i * 1e9), tick_(i-1) + 1)` unless `t_i == t_(i-1)`: plain rounding would
    create ties in bursty traffic, and ties change dispatch.
    Raises ValueError for times that are not finite, that decrease, or of more than 146 years.
    """
    seconds = floats("arrival times", arrival_s)
    if seconds.ndim != 1:
        raise ValueError(f"arrival times must be a vector, got {seconds.ndim} dimensions")
    if not np.isfinite(seconds).all():
        raise ValueError("arrival times must be finite")
    if len(seconds) and np.abs(seconds).max() >= MOST_SECONDS:
        raise ValueError(f"arrival times must be within {MOST_SECONDS:.3g} s, 146 years")
    step = np.diff(seconds, prepend=seconds[:1])
    if (step < 0).any():
        raise ValueError(f"arrival times must not decrease (request {int(np.argmax(step < 0))})")
    rank = np.cumsum(step > 0)
    rounded = np.rint(seconds * TICKS_PER_SECOND).astype(np.int64)
    return np.maximum.accumulate(rounded - rank) + rank if len(rounded) else rounded


def durations_to_ticks(duration_s: ArrayLike) -> NDArray[np.int64]:
    """SLOs or stage latencies to int64 ticks, rounded to float32 seconds first, as published.

    Infinity, and what has no ticks, becomes `NO_DEADLINE`.
    """
    with np.errstate(over="ignore"):
        seconds = np.asarray(duration_s, np.float64).astype(np.float32).astype(np.float64)
    infinite = seconds >= MOST_SECONDS
    ticks = np.rint(np.where(infinite, 0.0, seconds) * TICKS_PER_SECOND).astype(np.int64)
    return np.where(infinite, NO_DEADLINE, ticks)
