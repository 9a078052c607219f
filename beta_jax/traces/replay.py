"""Replaying a trace: functions become models, and every window an arrival process of its own.

Beta, OSDI 2023, section 6.2: a slice of the trace is cut into windows, an arrival process is fitted
to each window of each model, its rate and CV are scaled, and new arrivals are sampled from it.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from beta_jax.checks import require_numbers, require_text, require_whole
from beta_jax.traces.fit import gamma_shapes
from beta_jax.traces.trace import (
    HOUR_S,
    ArrivalTrace,
    CountTrace,
    Entries,
    RateTrace,
    Trace,
    TraceError,
)
from beta_jax.types import Workload
from beta_jax.workloads.processes import CV_RANGE, Gamma, Poisson, Process
from beta_jax.workloads.sampling import sample_arrivals
from beta_jax.workloads.synthesis import merge

MOST_REPLICAS, MOST_WINDOWS = 10**6, 2**26
"""Of an arrival; of all models of a replay together."""
GAP_S = 1e-6
"""Added to every gap, so that simultaneous arrivals have a likelihood."""
BIASED = 5.0
"""A fitted rate this many times the observed one is wrong, and is replaced by that."""
SMALLEST_LOG_RATIO = 1e-13
"""Of gaps that differ by rounding alone; their CV is then the smallest there is."""
MAF1_FIRST_HOUR_RPS = 10_000.0
MAF2_MEAN_RPS = 1.6
FULL_RANGE = (0.8, 1.25)
"""A trace this close to its reference rate is the published one, and is not scaled."""


@dataclasses.dataclass(frozen=True, eq=False)
class Traffic:
    """The processes fitted to a slice: one for each model and window, to be scaled and sampled.

    rate_rps: float64 [model, window], 0 where the window has no traffic; cv: float64
    [model, window]. Windows are `window_s` long, from `start_s` on, and the last one is sampled
    over its full length even where the slice ends within it. `poisson`: the CV is 1 and stays so.
    """

    start_s: float
    window_s: float
    rate_rps: NDArray[np.float64]
    cv: NDArray[np.float64]
    poisson: bool = False

    def scaled(self, *, rate: float = 1.0, cv: float = 1.0) -> Traffic:
        """All rates times `rate`, all CVs times `cv`. Raises TraceError for a CV of Poisson."""
        _require(require_numbers, rate=rate, cv=cv)
        if not (0 <= rate < np.inf and 0 < cv < np.inf):
            raise TraceError(f"scales must be finite and not negative, got rate {rate}, CV {cv}")
        if self.poisson and cv != 1:
            raise TraceError(f"Poisson arrivals have CV 1: a CV scale of {cv:g} needs gamma")
        cvs = self.cv if cv == 1 else np.clip(self.cv * cv, *CV_RANGE)
        return dataclasses.replace(self, rate_rps=self.rate_rps * rate, cv=cvs)

    def sample(self, *, seed: int = 0, rng: str = "jax") -> Workload:
        """One workload, at the trace's own times.

        rng: "jax" (window w of model m is stream `m * windows + w`, whatever happens in others) or
        "legacy" as published: the n-th window that is sampled, models outer, has seed `seed + n`.
        """
        require_text(rng=rng)
        model, window = np.nonzero(self.rate_rps)
        rates, cvs = self.rate_rps[model, window], self.cv[model, window]
        processes: list[Process] = (
            [Poisson(rate) for rate in rates.tolist()]
            if self.poisson
            else [Gamma(rate, cv) for rate, cv in zip(rates.tolist(), cvs.tolist(), strict=True)]
        )
        num_models, num_windows = self.rate_rps.shape
        streams = model * num_windows + window if rng == "jax" else np.arange(len(model))
        arrivals = sample_arrivals(
            processes,
            duration_s=self.window_s,
            start_s=np.float64(self.start_s) + window * np.float64(self.window_s),
            seed=seed,
            rng=rng,
            streams=streams,
        )
        ends = np.searchsorted(model, np.arange(num_models + 1))
        return merge(
            [np.concatenate([np.empty(0), *arrivals[a:b]]) for a, b in itertools.pairwise(ends)]
        )


def replay(
    trace: Trace,
    num_models: int,
    *,
    start: str | None = None,
    end: str | None = None,
    window_s: float | None = None,
    mapping: str = "stripe",
    process: str = "gamma",
    rate_scale: float = 1.0,
    cv_scale: float = 1.0,
    time_scale: float = 1.0,
    replicas: int = 1,
    seed: int = 0,
    rng: str = "jax",
    work: Callable[[int, NDArray[np.int32]], NDArray[np.float64]] | None = None,
) -> Workload:
    """Traffic for `num_models` models like that in a slice of a trace (Beta, OSDI 2023, 6.2).

    process: "gamma" or "poisson", fitted per window and sampled, see `fit_traffic`; or "vanilla",
    the arrivals themselves, each `replicas` times and played `time_scale` times as fast (2: 14 days
    in 7). Published rate scales belong to the full trace: see `reference_scale`.

    work: of a vanilla replay of a trace with prompts: from the index of a model and the tokens of
    its prompts, int32 [request], to their work as a share of what the profile says, float64
    [request]; see `PrefillTable.work`.
    Raises TraceError for slices, windows and scales that the trace or the process does not allow.
    """
    _require(require_text, process=process, mapping=mapping)
    _require(require_whole, name="num_models", value=num_models, least=1)
    if process != "vanilla":
        if work is not None:
            raise TraceError("prompts keep their length in a vanilla replay only")
        if time_scale != 1 or replicas != 1:
            raise TraceError("time scaling and replicas need a vanilla replay; scale the rate")
        traffic = fit_traffic(
            trace,
            num_models,
            start=start,
            end=end,
            window_s=window_s,
            mapping=mapping,
            process=process,
        )
        return traffic.scaled(rate=rate_scale, cv=cv_scale).sample(seed=seed, rng=rng)
    if not isinstance(trace, ArrivalTrace):
        raise TraceError(f"{trace.name}: a vanilla replay needs arrival times, this has none")
    if rate_scale != 1 or cv_scale != 1:
        raise TraceError("a vanilla replay has no rate or CV to scale: scale time, or use gamma")
    _require(require_numbers, time_scale=time_scale)
    _require(require_whole, name="replicas", value=replicas, least=1, most=MOST_REPLICAS)
    if not 0 < time_scale < np.inf:
        raise TraceError(f"time scale must be > 0 and finite, got {time_scale}")
    start_s, end_s = trace.bounds(start, end)
    arrival_s, function, tokens, _ = trace.between(start_s, end_s)
    model = _map_functions(trace, function, num_models, mapping)[function]
    arrival_s = (arrival_s - start_s) / time_scale + start_s
    streams = [np.repeat(arrival_s[model == m], replicas) for m in range(num_models)]
    if work is None:
        return merge(streams)
    if tokens is None:
        raise TraceError(f"{trace.name}: work needs the lengths of prompts, this has none")
    works = [np.repeat(work(m, tokens[model == m]), replicas) for m in range(num_models)]
    return merge(streams, works)


def _require(check: Callable[..., None], **arguments: object) -> None:
    try:
        check(**arguments)
    except ValueError as error:
        raise TraceError(str(error)) from None


def fit_traffic(
    trace: Trace,
    num_models: int,
    *,
    start: str | None = None,
    end: str | None = None,
    window_s: float | None = None,
    mapping: str = "stripe",
    process: str = "gamma",
) -> Traffic:
    """Fit a process to every window of every model.

    Functions without a request in the slice are dropped, the others shared out in the trace's
    order: "stripe", function j to model `j % num_models`, or "round_robin", contiguous blocks.

    Of counts, the rate of a window is its count over its length, and the CV is 1. Of arrivals, gaps
    between those in the window get the gamma distribution of highest likelihood ("gamma", from two
    gaps on) or the exponential one ("poisson", from one gap on), and a rate over `BIASED` times the
    observed one is replaced by that. Of rates, those of a model's functions add up, and
    `cv**2 = sum(rate * cv**2) / sum(rate)`: what the sum of independent renewal processes comes to
    in the long run (Whitt, "Approximating a point process by a renewal process", 1982).

    window_s: by default 60 for counts, 600 for arrivals; rates have their own.
    Raises TraceError for an empty slice, one outside the trace, fewer functions than models, and
    windows that do not fit the trace's own.
    """
    if process not in ("gamma", "poisson"):
        raise TraceError(f"process must be gamma, poisson or vanilla, got {process!r}")
    start_s, end_s = trace.bounds(start, end)
    if window_s is None:
        window_s = trace.window_s if isinstance(trace, RateTrace) else trace.default_window_s
    _require(require_numbers, window_s=window_s)
    window_s = float(window_s)
    if not 0 < window_s < np.inf:
        raise TraceError(f"windows must be > 0 seconds, got {window_s}")
    if num_models * (end_s - start_s) / window_s > MOST_WINDOWS:
        raise TraceError(
            f"windows of {window_s:g} s are too short: more than {MOST_WINDOWS} of all models"
        )
    entries = trace.entries(start_s, end_s, window_s)
    model_of = _map_functions(trace, entries.function, num_models, mapping)
    shape = num_models, int(-(-(end_s - start_s) // window_s))
    observed = _sum(entries, model_of, shape) / window_s
    match trace:
        case CountTrace():
            rate, cv = observed, np.ones(shape)
        case RateTrace():
            rate, cv = observed, _merged_cv(trace, entries, model_of, start_s, end_s)
        case ArrivalTrace():
            rate, cv = _fit_gaps(trace, model_of, start_s, end_s, window_s, shape, process)
            rate = np.where(rate > BIASED * observed, observed, rate)
    poisson = process == "poisson"
    return Traffic(start_s, window_s, rate, np.ones(shape) if poisson else cv, poisson)


def reference_scale(trace: Trace) -> float:
    """What makes a sampled or generated trace as busy as the full one, before any rate scale.

    The published rate scales belong to the full traces: 10,000 requests/s in the first hour of
    MAF1, 1.6 on average over MAF2. A trace of another kind, or one that busy already, has scale 1.
    """
    start_s, end_s = trace.start_s, trace.end_s
    if trace.kind == "maf1":
        end_s, reference_rps = min(end_s, start_s + HOUR_S), MAF1_FIRST_HOUR_RPS
    elif trace.kind == "maf2":
        reference_rps = MAF2_MEAN_RPS
    else:
        return 1.0
    requests = trace.entries(start_s, end_s, trace.default_window_s).requests.sum()
    if not requests:
        raise TraceError(f"{trace.name}: no requests to scale to {reference_rps:g} requests/s")
    scale = float(reference_rps * (end_s - start_s) / requests)
    return 1.0 if FULL_RANGE[0] < scale < FULL_RANGE[1] else scale


def _map_functions(
    trace: Trace, function: NDArray[np.int32], num_models: int, mapping: str
) -> NDArray[np.int64]:
    """The model of each of the trace's functions, int64 [function], -1 for those not seen."""
    if num_models < 1:
        raise TraceError(f"a replay needs at least one model, got {num_models}")
    seen = np.bincount(function, minlength=len(trace.functions)) > 0
    count = int(seen.sum())
    if count == 0:
        raise TraceError(f"{trace.name}: there is no request in the slice")
    if count < num_models:
        raise TraceError(
            f"{trace.name}: {count} functions have requests in the slice, too few for {num_models} "
            "models: choose a longer slice or fewer models"
        )
    rank = np.cumsum(seen) - 1
    if mapping == "stripe":
        model = rank % num_models
    elif mapping == "round_robin":
        model = num_models * rank // count
    else:
        raise TraceError(f"mapping must be stripe or round_robin, got {mapping!r}")
    return np.where(seen, model, -1)


def _sum(
    entries: Entries, model_of: NDArray[np.int64], shape: tuple[int, int]
) -> NDArray[np.float64]:
    cell = model_of[entries.function] * shape[1] + entries.window
    total = np.bincount(cell, entries.requests, minlength=shape[0] * shape[1])
    return total.reshape(shape).astype(np.float64, copy=False)


def _merged_cv(
    trace: RateTrace, entries: Entries, model_of: NDArray[np.int64], start_s: float, end_s: float
) -> NDArray[np.float64]:
    windows = trace.windows(start_s, end_s, trace.window_s)
    shape = int(model_of.max()) + 1, windows.stop - windows.start
    cv = trace.cv[:, windows][entries.function, entries.window]
    weighted = _sum(entries._replace(requests=entries.requests * cv**2), model_of, shape)
    total = _sum(entries, model_of, shape)
    merged = np.sqrt(np.divide(weighted, total, out=np.ones(shape), where=total > 0))
    return np.clip(merged, *CV_RANGE)


def _fit_gaps(
    trace: ArrivalTrace,
    model_of: NDArray[np.int64],
    start_s: float,
    end_s: float,
    window_s: float,
    shape: tuple[int, int],
    process: str,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rate and CV of the gaps, [model, window] both; 0 and 1 where there are too few gaps."""
    arrival_s, function, *_ = trace.between(start_s, end_s)
    window = ((arrival_s - start_s) // window_s).astype(np.int64)
    cell = model_of[function] * shape[1] + window
    order = np.argsort(cell, kind="stable")
    cell, arrival_s = cell[order], arrival_s[order]
    same = cell[1:] == cell[:-1]
    cell, gaps = cell[1:][same], np.diff(arrival_s)[same] + GAP_S
    size = shape[0] * shape[1]
    number, total, logs = (
        np.bincount(cell, weights, minlength=size) for weights in (None, gaps, np.log(gaps))
    )
    enough = number >= (2 if process == "gamma" else 1)
    mean = total[enough] / number[enough]
    log_ratio = np.log(mean) - logs[enough] / number[enough]
    rate, cv = np.zeros(size), np.ones(size)
    rate[enough] = 1 / mean
    if process == "gamma":
        shapes = gamma_shapes(np.maximum(log_ratio, SMALLEST_LOG_RATIO))
        cv[enough] = np.clip(shapes**-0.5, *CV_RANGE)
    return rate.reshape(shape), cv.reshape(shape)
