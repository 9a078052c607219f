"""Arrival processes: the law of the gaps between the requests of one model."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

CV_RANGE = (1e-3, 1e3)

Floats = NDArray[np.float64]


def require(condition: bool, message: str) -> None:
    """Raise ValueError with the message unless the condition holds."""
    if not condition:
        raise ValueError(message)


def _check_rate(process: Deterministic | Poisson | Gamma) -> None:
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
            1 <= self.loc + self.scale < math.inf,
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
        return (self.loc + self.scale - 1) + self.scale * growth


Process = Deterministic | Poisson | Gamma | UniformMMPP | Pareto
