"""The statistics of a trace that decide how hard it is to serve, and traces side by side.

Everything is computed from requests per minute (of a trace of rates: per its own windows).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from beta_jax.traces.trace import HOUR_S, MINUTE_S, RateTrace, Trace, TraceError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LAGS_MIN = (1, 5, 15, 60, 1440)
BUSY_PER_BIN = 1.0
"""Requests per bin from which on a function's own variation says something."""
MOST_FUNCTIONS = 200
"""Functions, the busiest ones, whose autocorrelation is computed."""


class Statistics:
    """What `table` and `draw` show of a slice of a trace, computed once.

    rate_rps: float64 [hour]; popularity: float64 [function], requests, most first; cv: float64,
    the CV of the counts within each hour of each function busy then (of rates, the CVs given);
    total_cv: float64 [hour], the same of all functions together; acf: the autocorrelation of the
    counts of all functions together, float64 [lag], lags 0, 1, ... bins; function_acf: its median
    over the busiest functions.
    """

    def __init__(self, trace: Trace, start: str | None = None, end: str | None = None) -> None:
        start_s, end_s = trace.bounds(start, end)
        self.name = trace.name
        self.bin_s = bin_s = trace.window_s if isinstance(trace, RateTrace) else MINUTE_S
        self.hours = (end_s - start_s) / HOUR_S
        bins, functions = int(-(-(end_s - start_s) // bin_s)), len(trace.functions)
        per_hour = max(1, int(HOUR_S // bin_s))
        whole = bins // per_hour
        # A day at a time, as a large trace has 10**8 counts that are not 0.
        days = [
            (first, start_s + first * bin_s, min(end_s, start_s + (first + 24 * per_hour) * bin_s))
            for first in range(0, bins, 24 * per_hour)
        ]
        total, popularity, cvs = np.zeros(bins), np.zeros(functions), []
        for first, day_s, to_s in days:
            entries = trace.entries(day_s, to_s, bin_s)
            total += np.bincount(entries.window + first, entries.requests, minlength=bins)
            popularity += np.bincount(entries.function, entries.requests, minlength=functions)
            if isinstance(trace, RateTrace):
                windows = trace.windows(day_s, to_s, bin_s)
                cvs.append(trace.cv[entries.function, windows.start + entries.window])
            else:
                cell = entries.function.astype(np.int64) * 24 + entries.window // per_hour
                sums, squares = (
                    np.bincount(cell, entries.requests**power, minlength=functions * 24) / per_hour
                    for power in (1, 2)
                )
                in_whole_hour = first // per_hour + np.arange(functions * 24) % 24 < whole
                busy = (sums >= BUSY_PER_BIN) & in_whole_hour
                cvs.append(np.sqrt(np.maximum(squares[busy] / sums[busy] ** 2 - 1, 0)))
        if not total.any():
            raise TraceError(f"{trace.name}: there is no request in the slice")
        chosen = np.argsort(-popularity, kind="stable")[:MOST_FUNCTIONS]
        chosen = chosen[popularity[chosen] >= BUSY_PER_BIN * bins]
        rank = np.full(functions, -1)
        rank[chosen] = np.arange(len(chosen))
        series = np.zeros((len(chosen), bins))
        for first, day_s, to_s in days:
            entries = trace.entries(day_s, to_s, bin_s)
            kept = rank[entries.function] >= 0
            at = rank[entries.function[kept]], entries.window[kept] + first
            series[at] = entries.requests[kept]
        starts = np.arange(0, bins, per_hour)
        self.requests = float(total.sum())
        self.rate_rps = np.add.reduceat(total, starts) / np.minimum(bins - starts, per_hour) / bin_s
        self.popularity = np.sort(popularity[popularity > 0])[::-1]
        self.cv = np.concatenate(cvs)
        self.total_cv = _cv(total[: whole * per_hour].reshape(whole, per_hour))
        self.acf = autocorrelation(total)
        curves = [autocorrelation(x) for x in series if x.std() > 0]
        self.function_acf = np.median(curves, axis=0) if curves else np.full(len(self.acf), np.nan)

    def column(self) -> dict[str, float]:
        """The statistics as numbers, by name; NaN where the trace is too short for one."""

        def quantile(values: NDArray[np.float64], q: float) -> float:
            return float(np.quantile(values, q)) if len(values) else np.nan

        share = np.cumsum(self.popularity) / self.popularity.sum()
        lags = [(lag, lag * MINUTE_S / self.bin_s) for lag in LAGS_MIN]

        def at(curve: NDArray[np.float64], bins: float) -> float:
            return float(curve[int(bins)]) if bins == int(bins) and bins < len(curve) else np.nan

        return {
            "functions with requests": float(len(self.popularity)),
            "requests": self.requests,
            "hours": self.hours,
            "mean rate (requests/s)": self.requests / self.hours / HOUR_S,
            "first hour / mean rate": self.rate_rps[0] / self.rate_rps.mean(),
            "busiest hour / mean rate": self.rate_rps.max() / self.rate_rps.mean(),
            "CV of hourly rates": float(self.rate_rps.std() / self.rate_rps.mean()),
            "share of the top function": float(share[0]),
            "share of the top 1 % of functions": float(share[max(0, len(share) // 100 - 1)]),
            "share of the top 10 % of functions": float(share[max(0, len(share) // 10 - 1)]),
            "functions that carry 90 %": float(np.searchsorted(share, 0.9) + 1),
            "CV within an hour, all functions, median": quantile(self.total_cv, 0.5),
            "CV within an hour, per function, median": quantile(self.cv, 0.5),
            "CV within an hour, per function, 90th percentile": quantile(self.cv, 0.9),
        } | {
            f"autocorrelation, {who}, {lag} min": at(curve, bins)
            for who, curve in (("all functions", self.acf), ("per function", self.function_acf))
            for lag, bins in lags
        }


def table(statistics: Sequence[Statistics]) -> pd.DataFrame:
    """Statistics side by side: a row for each, a column for each trace (Beta, OSDI 2023, 6.2)."""
    columns = [pd.Series(each.column(), name=each.name) for each in statistics]
    return pd.concat(columns, axis=1).rename_axis("statistic")


def draw(statistics: Sequence[Statistics], path: str | os.PathLike[str]) -> None:
    """Write `figure(statistics)`; the suffix is the format."""
    figure(statistics).savefig(path, dpi=150)


def figure(statistics: Sequence[Statistics]) -> Figure:
    """Rate, popularity, variation and autocorrelation of each, as a matplotlib Figure."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(11, 7.5), layout="constrained")
    rate, popularity, cv, acf = drawn.subplots(2, 2).flat
    for each in statistics:
        hours = np.arange(len(each.rate_rps))
        rate.plot(hours, each.rate_rps / each.rate_rps.mean(), label=each.name, lw=1.2)
        share = np.cumsum(each.popularity) / each.popularity.sum()
        popularity.plot(np.arange(1, len(share) + 1) / len(share), share, label=each.name)
        if len(each.cv):
            cv.plot(np.sort(each.cv), np.linspace(0, 1, len(each.cv)), label=each.name)
        lag_h = np.arange(1, len(each.acf)) * each.bin_s / HOUR_S
        (line,) = acf.plot(lag_h, each.acf[1:], label=f"{each.name}, all functions", lw=1)
        acf.plot(
            lag_h,
            each.function_acf[1:],
            label=f"{each.name}, median function",
            color=line.get_color(),
            ls=":",
            lw=1,
        )
    rate.set(xlabel="hour of the slice", ylabel="rate / mean rate", ylim=(0, None))
    popularity.set(xlabel="share of the functions, most popular first", ylabel="share of requests")
    popularity.set(xscale="log", ylim=(0, 1.02))
    cv.set(xlabel="CV of the counts per minute within an hour", ylabel="share of hours")
    cv.set(ylim=(0, 1.02), xlim=(0, None))
    acf.set(xlabel="lag (hours)", ylabel="autocorrelation of the counts", xscale="log")
    for panel in (rate, popularity, cv, acf):
        panel.grid(alpha=0.3)
        panel.legend(fontsize=8)
    return drawn


def autocorrelation(series: NDArray[np.float64]) -> NDArray[np.float64]:
    """Float64 [lag], lags from 0 to half the length or a day of minutes; NaN if nothing varies."""
    centred = series - series.mean()
    power = np.abs(np.fft.rfft(centred, 2 * len(series))) ** 2
    covariance = np.fft.irfft(power)[: min(len(series) // 2, 1440) + 1]
    if covariance[0] <= 1e-12 * len(series):
        return np.full(len(covariance), np.nan)
    return covariance / covariance[0]


def _cv(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """CV of each row that has requests."""
    mean = counts.mean(axis=1)
    return counts.std(axis=1)[mean > 0] / mean[mean > 0]
