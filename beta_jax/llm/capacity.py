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
        for name, value in dataclasses.asdict(self).items():
            if not value >= 0:
                raise LLMError(f"{name} must be >= 0 seconds, got {value}")


def serve(
    traffic: TokenTraffic, limits: Limits, cases: Sequence[tuple[Point, int]]
) -> list[dict[str, float]]:
    """What became of the traffic of each seed at each point, case by case.

    attainment: requests inside both limits as a share of `num_requests`, those that count. TTFT,
    TPOT and latency: mean and quantiles over these, seconds. preemptions, recomputed_tokens: of the
    whole run. Engines that reuse prefixes are simulated one by one, all others side by side. Raises
    LLMError where no request counts, or one can never fit.
    """
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
        raise LLMError(f"no request arrives after the first {limits.warmup_s:g} s, so none counts")
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
    """The factor of the rate up to which the mean attainment over seeds meets a target.

    Interpolated between two factors that were tried. low, high: where the ends of the 95 %
    intervals of the mean cross the target; NaN if seeds do not differ, or beyond what was tried.
    """

    scale: float
    low: float
    high: float


def highest_rate(
    attempt: Callable[[Sequence[float]], Sequence[Sequence[float]]],
    scales: Sequence[float],
    target: float,
    *,
    rounds: int = 2,
) -> HighestRate:
    """The boundary among factors of the rate, and between them in rounds of `WIDTH` more.

    attempt: from factors to the attainment of each, by seed. All factors are tried first. NaN if
    the first one misses the target already; infinite if all meet it.
    """
    tried: dict[float, Interval] = {}

    def more(some: Sequence[float]) -> None:
        found = zip(some, attempt(some), strict=True)
        tried.update((scale, mean_interval(by_seed)) for scale, by_seed in found)

    more(sorted({*scales}))
    for _ in range(rounds):
        known = sorted(tried)
        first = next((i for i, s in enumerate(known) if tried[s].mean < target), 0)
        if first == 0:  # nothing to bisect: the first one misses, or none does
            break
        low, high = known[first - 1], known[first]
        more([low + (high - low) * i / (WIDTH + 1) for i in range(1, WIDTH + 1)])
    known = sorted(tried)
    curves = [[getattr(tried[s], name) for s in known] for name in ("mean", "low", "high")]
    scale, low, high = (_crossing(known, curve, target) for curve in curves)
    return HighestRate(scale, low, high)


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
    None if `most` are too few.
    """

    def meets(number: int) -> bool:
        return bool(np.mean(attempt(number)) >= target)

    missing, meeting = 0, None
    number, step = min(max(guess, 1), most), 1
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
        step *= 2
    return meeting
