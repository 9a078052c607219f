"""What independent replications say: means with Student-t intervals, paired differences, and how
many replications it takes to decide between two systems.

References: Law, "Simulation Modeling and Analysis", 5th ed., sections 9.4 (replications), 10.2
(paired differences under common random numbers).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

CONFIDENCE = 0.95
FIRST_LOOK = 4
Verdict = Literal["higher", "lower", "equal", "undecided"]


class Interval(NamedTuple):
    """A mean over `num` replications and its confidence interval; NaN bounds where num < 2."""

    mean: float
    low: float
    high: float
    num: int

    def within(self, least: float, most: float) -> Interval:
        """The part of it that is possible, such as `within(0.0, 1.0)` of a share."""
        return self._replace(low=max(self.low, least), high=min(self.high, most))


def mean_interval(values: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """Student-t interval for the mean of independent replications, float64 [replication].

    Raises ValueError for no values, and for a confidence that is not inside (0, 1).
    """
    sample = np.asarray(values, np.float64)
    if sample.ndim != 1 or not len(sample):
        raise ValueError(f"an interval needs a list of at least one value, got {sample.shape}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence}")
    num, mean = len(sample), float(sample.mean())
    if num < 2:
        return Interval(mean, float("nan"), float("nan"), num)
    from scipy.special import stdtrit  # not scipy.stats, which takes a second to import

    quantile = float(stdtrit(num - 1, (1 + confidence) / 2))
    half = quantile * float(sample.std(ddof=1)) / num**0.5
    return Interval(mean, mean - half, mean + half, num)


def proportion_interval(
    proportion: float, num: int, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Bounds on a proportion that was seen in `num` independent trials; never of width zero.

    Wilson's score interval ("Probable inference, the law of succession, and statistical inference",
    Journal of the American Statistical Association, 1927). Raises ValueError for no trials.
    """
    if num < 1:
        raise ValueError(f"a proportion needs at least one trial, got {num}")
    from scipy.special import ndtri

    square = float(ndtri((1 + confidence) / 2)) ** 2
    middle = (proportion + square / (2 * num)) / (1 + square / num)
    half = (proportion * (1 - proportion) / num + square / (4 * num**2)) ** 0.5
    half *= square**0.5 / (1 + square / num)
    # It contains the proportion but for rounding, and is within [0, 1].
    low, high = min(middle - half, proportion), max(middle + half, proportion)
    return max(low, 0.0), min(high, 1.0)


def paired_difference(a: ArrayLike, b: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """Interval for the mean of `a - b`, replication i of both having met the same traffic.

    Common random numbers make it narrower than two intervals side by side. Raises ValueError
    unless both have equally many values.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape:
        raise ValueError(f"a paired difference needs pairs, got {a.shape} and {b.shape} values")
    return mean_interval(a - b, confidence)


def paired_ratio(a: ArrayLike, b: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """Interval for the mean of `a` over the mean of `b`, paired as in `paired_difference`.

    The ratio estimator with its linearised variance (Cochran, "Sampling Techniques", 3rd ed.,
    section 6.4). Raises ValueError unless both have equally many values, b's of one sign.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if not ((b > 0).all() or (b < 0).all()):
        raise ValueError("a ratio needs a denominator whose values have one sign, and are not 0")
    ratio = mean_interval(a).mean / mean_interval(b).mean
    residual = paired_difference(a, ratio * b, confidence)
    scale = abs(float(b.mean()))
    low, high = ratio + residual.low / scale, ratio + residual.high / scale
    return Interval(ratio, low, high, residual.num)


def judge(difference: Interval, tolerance: float = 0.0) -> Verdict:
    """What an interval for `a - b` says of a; "equal" where it lies within +-tolerance."""
    if difference.low > 0:
        return "higher"
    if difference.high < 0:
        return "lower"
    if -tolerance <= difference.low and difference.high <= tolerance:
        return "equal"
    return "undecided"


def looks(most: int) -> list[tuple[int, float]]:
    """When to look whether a comparison is decided, as (replications, confidence to use).

    Replications double from 4 up to `most`. Look k uses confidence 1 - 0.05 / 2**k, k = 1, 2, ...:
    by the union bound all looks together err with probability at most 5 %, stop when one may.
    """
    numbers = [FIRST_LOOK]
    while numbers[-1] < most:
        numbers.append(2 * numbers[-1])
    risk = 1 - CONFIDENCE
    return [(min(number, most), 1 - risk / 2**k) for k, number in enumerate(numbers, 1)]


def decided(
    systems: Sequence[ArrayLike], confidence: float = CONFIDENCE, tolerance: float = 0.0
) -> bool:
    """Whether every two systems, one row of paired replications each, can be told apart or equal.

    The confidence is shared by all pairs (Bonferroni), so that it holds for them together.
    """
    pairs = [(a, b) for i, a in enumerate(systems) for b in systems[:i]]
    each = 1 - (1 - confidence) / max(len(pairs), 1)
    return all(judge(paired_difference(a, b, each), tolerance) != "undecided" for a, b in pairs)
