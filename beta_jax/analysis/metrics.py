"""Statistics of simulated requests, as the paper reports them (section 6.1), and of groups."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from beta_jax.analysis.stage_times import services
from beta_jax.checks import require_whole
from beta_jax.placement.placement import Placement, Schedule
from beta_jax.placement.problem import Problem
from beta_jax.simulator.engine import Outcome, segments
from beta_jax.types import TICKS_PER_SECOND

MOST_BINS = 10**6


def latency_summary(outcome: Outcome, of: np.ndarray | slice = slice(None)) -> dict[str, float]:
    """Attainment and latency of the requests of one lane that the warm-up cut leaves.

    of: restricts the requests, a bool mask or slice [request], e.g. to one model or group.
    Returns num_requests, num_good, slo_attainment, and over good requests latency_{mean,std,p50,
    p90,p99}_s (percentiles by linear interpolation); NaN where there are none.
    """
    if not isinstance(of, slice):
        mask = getattr(of, "dtype", None) == np.bool_ and of.shape == (len(outcome.workload),)
        if not mask:
            raise ValueError(
                f"of must be a slice, or a bool for each of {len(outcome.workload)} requests"
            )
    selected = np.zeros(len(outcome.workload), np.bool_)
    selected[of] = True
    selected[: outcome.counted[0]] = selected[outcome.counted[1] :] = False
    latency = outcome.latency_s[selected & outcome.good]
    total = int(selected.sum())
    quantiles = np.percentile(latency, (50, 90, 99)) if len(latency) else np.full(3, np.nan)
    return {
        "num_requests": total,
        "num_good": len(latency),
        "slo_attainment": len(latency) / total if total else float("nan"),
        "latency_mean_s": float(latency.mean()) if len(latency) else float("nan"),
        "latency_std_s": float(latency.std()) if len(latency) else float("nan"),
        **{f"latency_p{p}_s": float(q) for p, q in zip((50, 90, 99), quantiles, strict=True)},
    }


class Utilisation(NamedTuple):
    """How busy groups are over time.

    edge_s: float64 [bin + 1], the bins' bounds in seconds, on the workload's clock.
    of_group: float64 [group, bin], busy device time over device time there is.
    """

    edge_s: NDArray[np.float64]
    of_group: NDArray[np.float64]


def utilisation(
    problem: Problem, placement: Placement | Schedule, outcome: Outcome, num_bins: int = 100
) -> Utilisation:
    """Busy share of each group's devices in equal bins from the first arrival to the last finish.

    A stage keeps all its operator-parallel devices busy while it works. In a schedule a group is
    known by its position, NaN while there is none; because a change restarts the clocks (see
    `Schedule`), work of before may overlap with new work, and a bin may exceed 1.
    Raises what `services` raises, and ValueError for no requests, less than one bin or more than a
    million.
    """
    arrival = outcome.workload.arrival
    require_whole("num_bins", num_bins, 1, MOST_BINS)
    if not len(arrival):
        raise ValueError("nothing to measure: there are no requests")
    first, last = int(arrival[0]), max(int(outcome.finish.max()), int(arrival[0]) + num_bins)
    edges = np.array([first + (last - first) * i // num_bins for i in range(num_bins + 1)])
    parts = list(segments(placement, outcome.workload))
    starts = [int(arrival[lo]) if lo < len(arrival) else last for _, lo, _ in parts]
    num_groups = max(len(static.groups) for static, _, _ in parts)
    busy, owned = np.zeros((2, num_groups, num_bins), np.int64)
    for (static, _, _), (start, end) in zip(
        parts, itertools.pairwise([first, *starts[1:], last]), strict=True
    ):
        in_force = np.diff(np.clip(edges, start, end))
        for index, group in enumerate(static.groups):
            owned[index] += in_force * group.config.num_devices
    for service in services(problem, placement, outcome):
        for begin, end in zip(service.begin.T, service.end.T, strict=True):
            busy[service.position] += (
                np.diff(_busy_until(edges, begin, end)) * service.group.config.op
            )
    share = np.full(busy.shape, np.nan)
    return Utilisation(edges / TICKS_PER_SECOND, np.divide(busy, owned, out=share, where=owned > 0))


def _busy_until(
    times: NDArray[np.int64], begin: NDArray[np.int64], end: NDArray[np.int64]
) -> NDArray[np.int64]:
    """How much of the intervals [begin, end), which do not overlap, lies before each time."""
    done = np.searchsorted(end, times)
    length = np.concatenate([[0], np.cumsum(end - begin)])
    current = np.append(begin, times[-1])[done]  # behind the last interval: none
    return length[done] + np.maximum(times - current, 0)
