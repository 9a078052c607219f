"""Arrival processes: the law of the gaps between the requests of one model, and their names."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from beta_jax.checks import set_numbers

CV_RANGE = (1e-3, 1e3)

Floats = NDArray[np.float64]


def require(condition: bool, message: str) -> None:
    """Raise ValueError with the message unless the condition holds."""
    if not condition:
        raise ValueError(message)


def _check_rate(process: Deterministic | Poisson | Gamma) -> None:
    set_numbers(process, "rate_rps")
    rate = process.rate_rps
    require(0 <= rate < math.inf, f"arrival rate must be >= 0 requests/s and finite, got {rate}")


@dataclasses.dataclass(frozen=True)
class Deterministic:
    """Gaps of `1 / rate_rps` seconds, the first arrival at the start. Rate 0: no arrivals."""

    rate_rps: float

    def __post_init__(self) -> None:
        _check_rate(self)


@dataclasses.dataclass(frozen=True)
class Poisson:
    """Exponential gaps of mean `1 / rate_rps` seconds: `Gamma` with CV 1, sampled faster."""

    rate_rps: float

    def __post_init__(self) -> None:
        _check_rate(self)


@dataclasses.dataclass(frozen=True)
class Gamma:
    """Gaps ~ Gamma(shape `1/cv**2`, scale `cv**2/rate_rps` s): mean `1/rate_rps`, variation `cv`.

    The first arrival is one gap after the start. At a CV of 4 or more, gaps below a nanosecond are
    common: bursts of arrivals that are practically simultaneous.
    """

    rate_rps: float
    cv: float

    def __post_init__(self) -> None:
        _check_rate(self)
        set_numbers(self, "cv")
        low, high = CV_RANGE
        require(
            low <= self.cv <= high,
            f"CV of gamma arrivals must be in [{low:g}, {high:g}], got {self.cv}",
        )


@dataclasses.dataclass(frozen=True)
class UniformMMPP:
    """Poisson arrivals whose rate jumps: a Markov-modulated Poisson process.

    The process stays in state k for an exponential time of mean `mean_stay_s[k]`, with Poisson
    arrivals of rate `rates_rps[k]`, then enters one of the other states, drawn uniformly. It starts
    in its stationary law (state k with probability proportional to `mean_stay_s[k]`), so the mean
    rate is `mean_rate_rps` at all times.
    """

    rates_rps: tuple[float, ...]
    mean_stay_s: tuple[float, ...]

    def __post_init__(self) -> None:
        require(
            0 < len(self.rates_rps) == len(self.mean_stay_s),
            f"an MMPP needs a rate and a mean stay per state, got {self}",
        )
        for rate, stay in zip(self.rates_rps, self.mean_stay_s, strict=True):
            require(0 <= rate < math.inf, f"arrival rate must be >= 0 requests/s, got {rate}")
            require(0 < stay < math.inf, f"mean stay must be > 0 seconds and finite, got {stay}")

    @property
    def mean_rate_rps(self) -> float:
        return float(np.average(self.rates_rps, weights=self.mean_stay_s))


@dataclasses.dataclass(frozen=True)
class Pareto:
    """Heavy-tailed gaps: `loc + scale * X - 1` seconds, where P(X > x) = x**-shape for x >= 1.

    With `scale=1, loc=0` these are Lomax gaps of mean `1 / (shape - 1)`; for `shape <= 1` the mean
    is infinite. `loc + scale` must be at least 1, or gaps would be negative.
    """

    shape: float
    scale: float = 1.0
    loc: float = 0.0

    def __post_init__(self) -> None:
        positive = 0 < self.shape < math.inf and 0 < self.scale < math.inf
        require(positive, f"Pareto shape and scale must be > 0 and finite, got {self}")
        require(
            1 - 1e-12 * self.scale <= self.loc + self.scale < math.inf,
            f"Pareto loc + scale must be >= 1, as gaps are one less, got {self}",
        )

    @property
    def mean_gap_s(self) -> float:
        if self.shape <= 1:
            return math.inf
        return self.loc + self.scale * self.shape / (self.shape - 1) - 1

    def gaps_s(self, exponentials: Floats) -> Floats:
        with np.errstate(over="ignore"):
            growth = np.expm1(exponentials / self.shape)
        return max(self.loc + self.scale - 1, 0.0) + self.scale * growth


@runtime_checkable
class RenewalProcess(Protocol):
    """What an arrival process of your own must have: independent gaps, made of exponential ones.

    `gaps_s` takes unit exponentials, float64 [gap], and returns as many gaps >= 0 in seconds (by
    inversion: an exponential x is `-log(u)` of a uniform u). `mean_gap_s` need not be exact: it
    tells about how many are needed. The first arrival is one gap after the start.
    """

    @property
    def mean_gap_s(self) -> float: ...

    def gaps_s(self, exponentials: Floats) -> Floats: ...


Process: TypeAlias = Deterministic | Poisson | Gamma | UniformMMPP | RenewalProcess
MakeProcess: TypeAlias = Callable[[float, float], Process]
"""An arrival process of a rate (requests/s) and a CV; whether it looks at the CV is its own."""


def pareto(rate_rps: float, cv: float) -> Process:
    """Lomax gaps of this rate and CV: as bursty as gamma gaps, and with a heavier tail.

    Raises ValueError unless the CV is above 1.
    """
    require(1 < cv < math.inf, f"CV of pareto arrivals must be > 1 and finite, got {cv}")
    if rate_rps == 0:
        return Poisson(0.0)
    shape = 2 * cv**2 / (cv**2 - 1)
    scale = (shape - 1) / rate_rps
    return Pareto(shape, scale, 1 - scale)


def on_off(rate_rps: float, cv: float) -> Process:
    """Poisson arrivals at twice the rate, switched on and off for exponential times.

    Counts over long times vary as those of gamma arrivals of this CV: their variance is `cv**2`
    times their mean, as both states last `(cv**2 - 1) / rate_rps` seconds on average (Fischer and
    Meier-Hellstern, "The Markov-modulated Poisson process cookbook", 1993). Raises ValueError
    unless the CV is above 1.
    """
    require(1 < cv < math.inf, f"CV of mmpp arrivals must be > 1 and finite, got {cv}")
    if rate_rps == 0:
        return Poisson(0.0)
    stay_s = (cv**2 - 1) / rate_rps
    return UniformMMPP((2 * rate_rps, 0.0), (stay_s, stay_s))


PROCESSES: dict[str, MakeProcess] = {
    "gamma": Gamma,
    "poisson": lambda rate_rps, _: Poisson(rate_rps),
    "deterministic": lambda rate_rps, _: Deterministic(rate_rps),
    "pareto": pareto,
    "mmpp": on_off,
}
"""Processes by the name that configs and `synthesize` know."""
