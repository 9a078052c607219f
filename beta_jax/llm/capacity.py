"""How engines serve traffic, how fast it may come, and how many engines it takes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from beta_jax.analysis.statistics import Interval, mean_interval
from beta_jax.llm.batch import simulate_batch
from beta_jax.llm.engine import Engine
from beta_jax.llm.exact import simulate
from beta_jax.llm.requests import PS_PER_S, LLMError, TokenRequests
from beta_jax.llm.traffic import TokenTraffic

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
WIDTH = 3
"""Rates that are tried at once between two."""

Floats = NDArray[np.float64]


class Point(NamedTuple):
    """Engines that are alike behind a least-loaded router, and the factor of the traffic's rate."""

    engine: Engine
    rate_scale: float = 1.0
    num_engines: int = 1


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a request must meet to be good, and which count.

    ttft_s: from arrival to the first token. tpot_s: from token to token after it, on average.
    warmup_s: requests that arrive earlier are served, but do not count.
    """

    ttft_s: float = math.inf
    tpot_s: float = math.inf
    warmup_s: float = 0.0

    def __post_init__(self) -> None:
        for name in ("ttft_s", "tpot_s"):
            if not getattr(self, name) > 0:
                raise LLMError(f"{name} must be > 0 seconds, got {getattr(self, name)}")
        if not 0 <= self.warmup_s < math.inf:
            raise LLMError(f"warmup_s must be >= 0 seconds, got {self.warmup_s}")


def serve(
    traffic: TokenTraffic, limits: Limits, cases: Sequence[tuple[Point, int]]
) -> list[dict[str, float]]:
    """What became of the traffic of each seed at each point, case by case.

    attainment: requests inside both limits as a share of `num_requests`, those that count. TTFT,
    TPOT and latency: mean and quantiles over these, seconds. preemptions, recomputed_tokens: of the
    whole run. Engines that reuse prefixes are simulated one by one, all others side by side. Raises
    LLMError where no request counts, or one can never fit.
    """
    for case in cases:
        if not (isinstance(case, tuple) and len(case) == 2 and isinstance(case[0], Point)):
            raise LLMError(f"a case is a pair of a Point and a seed, got a {type(case).__name__}")
    tables: dict[tuple[float, int], TokenRequests] = {}
    for point, seed in cases:
        drawn = point.rate_scale, seed
        if drawn not in tables:
            tables[drawn] = traffic.sample(seed, point.rate_scale).without_prefixes()
    systems = [
        _System(tables[point.rate_scale, seed], point.engine, point.num_engines)
        for point, seed in cases
    ]
    return [
        _measure(limits, system.requests, one)
        for system, one in zip(systems, _simulate(systems), strict=True)
    ]


class _System(NamedTuple):
    requests: TokenRequests
    engine: Engine
    num_engines: int


class _Times(Protocol):
    @property
    def ttft_ps(self) -> NDArray[np.int64]: ...
    @property
    def tpot_ps(self) -> NDArray[np.int64]: ...
    @property
    def latency_ps(self) -> NDArray[np.int64]: ...


class _Served(NamedTuple):
    times: _Times
    preemptions: int
    recomputed_tokens: int


def _simulate(systems: Sequence[_System]) -> list[_Served]:
    found: dict[int, _Served] = {}
    sizes: dict[int, list[int]] = {}
    for index, (requests, engine, num_engines) in enumerate(systems):
        if not engine.prefix_caching:
            sizes.setdefault(engine.block_size, []).append(index)
        elif num_engines > 1:
            raise LLMError("engines that reuse prefixes are simulated alone, not behind a router")
        else:
            one = simulate(requests, engine)
            found[index] = _Served(one, one.preemptions, one.recomputed_tokens)
    for own in sizes.values():
        batch = simulate_batch(
            [systems[index][:2] for index in own],
            num_engines=[systems[index].num_engines for index in own],
            per_request=True,
        )
        assert batch.requests is not None
        columns = batch.preemptions.tolist(), batch.recomputed_tokens.tolist()
        found |= dict(zip(own, map(_Served, batch.requests, *columns), strict=True))
    return [found[index] for index in range(len(systems))]


def _measure(limits: Limits, requests: TokenRequests, served: _Served) -> dict[str, float]:
    counted = requests.arrival_ns >= limits.warmup_s * 1e9
    columns: dict[str, Floats] = {
        name: getattr(served.times, f"{name}_ps")[counted] / PS_PER_S
        for name in ("ttft", "tpot", "latency")
    }
    number = len(columns["ttft"])
    if not number:
        span = f"the last of {len(requests)} comes after {requests.arrival_ns[-1] / 1e9:g} s"
        raise LLMError(
            f"no request counts: {span if len(requests) else 'there is none'}, and warmup_s is "
            f"{limits.warmup_s:g}"
        )
    good = (columns["ttft"] <= limits.ttft_s) & (columns["tpot"] <= limits.tpot_s)
    found = {"attainment": float(good.mean()), "num_requests": float(number)}
    for name, values in columns.items():
        found[f"{name}_mean_s"] = float(values.mean())
        quantiles = np.quantile(values, list(QUANTILES.values())).tolist()
        found |= {f"{name}_{q}_s": v for q, v in zip(QUANTILES, quantiles, strict=True)}
    found["preemptions"] = float(served.preemptions)
    found["recomputed_tokens"] = float(served.recomputed_tokens)
    return found


# --- the boundary --------------------------------------------------------------------------------


class HighestRate(NamedTuple):
    """The rate up to which the mean attainment over seeds meets a target, in the unit of `rates`.

    rate: interpolated between two that were tried; NaN if the lowest misses already, infinite if
    all meet. low, high: where the ends of the 95 % intervals of the mean cross the target, or the
    end of what was tried where they do not; NaN if seeds do not differ. They tell of the seeds
    alone, not of how well the engine is modelled.
    """

    rate: float
    low: float
    high: float


def highest_rate(
    attempt: Callable[[Sequence[float]], Sequence[Sequence[float]]],
    rates: Sequence[float],
    target: float,
    *,
    rounds: int = 2,
) -> HighestRate:
    """The boundary among rates, and between them in rounds of `WIDTH` more.

    attempt: from rates, in any unit, to the attainment of each, by seed. All rates are tried first.
    target: a share, between 0 and 1. Raises LLMError for another one, and where attainment is not
    a list for each rate.
    """
    _require_share(target)
    tried: dict[float, Interval] = {}

    def more(some: Sequence[float]) -> None:
        found = attempt(some)
        if len(found) != len(some) or any(np.ndim(own) != 1 or not len(own) for own in found):
            raise LLMError("attempt must return a list for each rate, of the attainment by seed")
        tried.update((rate, share_interval(own)) for rate, own in zip(some, found, strict=True))

    more(sorted({*rates}))
    for _ in range(rounds):
        known = sorted(tried)
        first = next((i for i, s in enumerate(known) if tried[s].mean < target), 0)
        if first == 0:  # nothing to bisect: the first one misses, or none does
            break
        low, high = known[first - 1], known[first]
        more([low + (high - low) * i / (WIDTH + 1) for i in range(1, WIDTH + 1)])
    known = sorted(tried)
    curves = [[getattr(tried[s], name) for s in known] for name in ("mean", "low", "high")]
    rate, low, high = (_crossing(known, curve, target) for curve in curves)
    if all(interval.num > 1 for interval in tried.values()) and math.isfinite(rate):
        low = known[0] if math.isnan(low) else low
        high = min(high, known[-1])
    return HighestRate(rate, low, high)


def share_interval(by_seed: Sequence[float]) -> Interval:
    """The mean of shares and its 95 % interval, which ends at 0 and 1 at the latest."""
    found = mean_interval(by_seed)
    return found._replace(low=max(found.low, 0.0), high=min(found.high, 1.0))


def _require_share(target: float) -> None:
    if not 0 < target < 1:
        raise LLMError(f"target must be between 0 and 1, got {target}")


def _crossing(x: Sequence[float], y: Sequence[float], target: float) -> float:
    """Where a curve first falls below the target, by interpolation."""
    if any(value != value for value in y):
        return math.nan
    below = next((i for i, value in enumerate(y) if value < target), None)
    if below is None:
        return math.inf
    if below == 0:
        return math.nan
    a, b = below - 1, below
    return x[a] + (x[b] - x[a]) * (y[a] - target) / (y[a] - y[b])


def fewest_engines(
    attempt: Callable[[int], Sequence[float]], target: float, *, guess: int = 1, most: int = 1024
) -> int | None:
    """The fewest engines that meet the target, by doubling from a guess and bisection.

    attempt: from a number of engines to the attainment by seed; more are thought to serve no less.
    None if `most` are too few. Raises LLMError for a target that is not between 0 and 1.
    """

    _require_share(target)

    def meets(number: int) -> bool:
        return bool(np.mean(attempt(number)) >= target)

    missing, meeting = 0, None
    number, step, following = min(max(guess, 1), most), 1, 1  # a guess is rarely two off
    while meeting is None or meeting - missing > 1:
        if meets(number):
            meeting = number
        else:
            missing = number
        if meeting is None:
            if missing == most:
                return None
            number = min(missing + step, most)
        elif missing == 0:
            number = max(meeting - step, 1)
        else:
            number = (meeting + missing) // 2
        step, following = following, 2 * following
    return meeting
