"""Traces like the published ones, for users who have none: fourteen days, from a seed.

Two models of serverless traffic. What one real day shows is calibrated against 1000 functions of
MAF1 (Azure Functions 2019, day 1; CC-BY 4.0): constants marked "measured" are quantiles of that
day, none is a row of it. What a single day cannot show (weeks, change from day to day), and all of
MAF2, follows published descriptions or is an assumption; the constants say which.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from beta_jax.traces.trace import (
    DAY_S,
    HOUR_S,
    ArrivalTrace,
    CountTrace,
    Trace,
    TraceError,
    count_block,
)

MINUTES_PER_DAY = 1440

# Requests per function and day, measured: quantiles over the functions. Between them the logarithm
# is interpolated.
POPULARITY_QUANTILE = (0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 1)
POPULARITY_PER_DAY = (1, 1, 2, 7, 14, 31, 83, 336, 1055, 4015, 13.1e3, 37.3e3, 116e3, 242e3, 1.2e6)
# By requests per minute (bands that begin at these values), measured: the share of functions that
# fire like a clock (a period of at most an hour explains 85 % of the energy of their counts), the
# usual periods in minutes, and of the others the median CV of the intensity behind the counts. The
# last band holds 8 functions that day, too few for more than a guess.
BAND_PER_MINUTE = (0.0, 0.2, 0.9, 5.0, 30.0, 200.0)
TIMER_SHARE = (0.01, 0.39, 0.69, 0.63, 0.42, 0.42)
TIMER_PERIODS = (
    (60,),
    (30, 60, 60, 60),
    (3, 5, 5, 5, 10, 10, 15),
    (1, 1, 1, 1, 2, 5),
    (1, 1, 1, 1, 1, 2, 5, 10),
    (1, 1, 1, 1, 1, 2, 5, 10),
)
INTENSITY_CV = (5.7, 2.4, 3.0, 2.8, 1.3, 0.9)
INTENSITY_CV_SPREAD = 1.0  # standard deviation of its logarithm, measured
# How long the intensity stays what it is, in minutes: median and spread of the logarithm. Measured
# autocorrelations of the counts at 1, 5, 15, 60 minutes: 0.5, 0.3, 0.15, 0.1.
CORRELATION_MIN, CORRELATION_SPREAD = 10.0, 1.5
# Daily cycle of those that are no timers, exp(depth * cos): depth uniform up to this, the peak at
# this hour with this spread. Measured, from the median over functions of the share of each hour.
DIURNAL_DEPTH, PEAK_HOUR, PEAK_SPREAD_H = 1.5, 13.5, 4.0
# Assumed: traffic at weekends over that on working days (Shahrad et al., "Serverless in the Wild",
# ATC 2020, figure 4, shows such a dip), and the spread of a function's level from day to day.
WEEKEND_LEVEL, DAY_SPREAD = 0.7, 0.3
MAF1_FIRST_WEEKDAY, MAF2_FIRST_WEEKDAY = 0, 6  # Monday 15 July 2019, Sunday 31 January 2021

# MAF2, as published and described (Zhang et al., SOSP 2021): 424 functions, 1.98 million requests
# in 14 days; a third of the functions carry 99.5 % of them, which a lognormal popularity of this
# spread gives; the busiest and the quietest hour of the day differ 3.2 times; weekends are quieter,
# the first of them much and the second hardly.
MAF2_FUNCTIONS, MAF2_REQUESTS_PER_DAY = 424, 1.98e6 / 14
MAF2_POPULARITY_SPREAD = 3.04
MAF2_LARGEST_SHARE = 0.15  # assumed: the largest application has 27 %, with several functions
MAF2_DIURNAL_DEPTH, MAF2_WEEKEND_LEVEL = 0.6, 0.6
# Requests come in bursts, three quarters of the gaps being below a second, and even busy functions
# are silent on half the days. Burst sizes and their gaps, median and spread, are assumed.
MAF2_BURST, MAF2_BURST_SPREAD = 20.0, 1.2
MAF2_GAP_S, MAF2_GAP_SPREAD = 0.3, 1.0
MAF2_LEAST_REQUESTS = 4.0
MAF2_DAY_ACTIVE, MAF2_HOUR_SPREAD = 0.6, 0.5


def maf1_like(num_functions: int = 1000, days: int = 14, seed: int = 0) -> CountTrace:
    """Counts per minute like those of MAF1; 1000 functions make some 130 requests/s.

    A function has a mean rate, by the measured popularity, and is one of two kinds. A timer fires
    the same number of requests every few minutes. The intensity of any other switches on and off at
    random, times a daily cycle, a weekly one and a level of the day, and counts are Poisson given
    the intensity. `replay.reference_scale` brings the trace to the published rate.

    Not modelled: in the first two hours of the real day two functions make as many requests as all
    others, which more than doubles the rate of the first hour. A rare function may be silent.
    """
    random = _check(num_functions, days, seed)
    quantile = random.permutation((np.arange(num_functions) + 0.5) / num_functions)
    per_minute = (
        np.exp(np.interp(quantile, POPULARITY_QUANTILE, np.log(POPULARITY_PER_DAY)))
        / MINUTES_PER_DAY
    )
    band = np.searchsorted(BAND_PER_MINUTE, per_minute, side="right") - 1
    parts = []
    for function in range(num_functions):
        mean, kind = per_minute[function], band[function]
        if random.random() < TIMER_SHARE[kind]:
            counts = _timer(mean, random.choice(TIMER_PERIODS[kind]), days, random)
        else:
            cv = INTENSITY_CV[kind] * np.exp(INTENSITY_CV_SPREAD * random.standard_normal())
            counts = random.poisson(mean * _on_off(cv, days, random) * _cycle(days, random))
        (minute,) = np.nonzero(counts)
        parts.append((minute, np.full(len(minute), function), counts[minute]))
    minute, number, count = (np.concatenate(column) for column in zip(*parts, strict=True))
    block = count_block(0, days * MINUTES_PER_DAY, minute, number, count)
    return CountTrace("maf1_like", "maf1", _names(num_functions), [block])


def maf2_like(num_functions: int = MAF2_FUNCTIONS, days: int = 14, seed: int = 0) -> ArrivalTrace:
    """Arrival times like those of MAF2: some 1.6 requests/s, in bursts.

    A function's bursts are Poisson, with a rate that has a daily and a weekly cycle, differs from
    hour to hour and is 0 on many days; a burst is a geometric number of requests with exponential
    gaps. Rates are relative: all functions together make `MAF2_REQUESTS_PER_DAY`.
    """
    random = _check(num_functions, days, seed)
    weight = np.exp(MAF2_POPULARITY_SPREAD * _normal_scores(num_functions, random))
    share = np.minimum(weight / weight.sum(), MAF2_LARGEST_SHARE)
    requests = share / share.sum() * MAF2_REQUESTS_PER_DAY * days
    # Every function has a few: one without any would not be in the trace.
    requests = np.maximum(requests, MAF2_LEAST_REQUESTS)
    hours = np.arange(days * 24)
    weekend = (hours // 24 + MAF2_FIRST_WEEKDAY) % 7 >= 5
    times, functions = [], []
    for function in range(num_functions):
        active = random.random(days) < MAF2_DAY_ACTIVE
        active[random.integers(days)] = True
        hourly = np.exp(
            MAF2_DIURNAL_DEPTH * np.cos((hours % 24 - PEAK_HOUR) * 2 * np.pi / 24)
            + MAF2_HOUR_SPREAD * random.standard_normal(len(hours))
        ) * np.where(weekend, MAF2_WEEKEND_LEVEL, 1.0)
        hourly *= np.repeat(active, 24)
        size = MAF2_BURST * np.exp(MAF2_BURST_SPREAD * random.standard_normal())
        size = max(1.0, min(size, requests[function] / MAF2_LEAST_REQUESTS))
        bursts = random.poisson(requests[function] / size * hourly / hourly.sum())
        start_s = (np.repeat(hours, bursts) + random.random(bursts.sum())) * HOUR_S
        sizes = random.geometric(1 / size, len(start_s))
        gap_s = MAF2_GAP_S * np.exp(MAF2_GAP_SPREAD * random.standard_normal())
        offset_s = np.cumsum(random.exponential(gap_s, sizes.sum()))
        first = np.cumsum(sizes) - sizes
        offset_s -= np.repeat(offset_s[first], sizes)
        arrival_s = np.repeat(start_s, sizes) + offset_s
        arrival_s = arrival_s[arrival_s < days * DAY_S]
        times.append(arrival_s)
        functions.append(np.full(len(arrival_s), function, np.int32))
    arrival_s, number = np.concatenate(times), np.concatenate(functions)
    if not len(arrival_s):
        raise TraceError(f"{num_functions} functions make no request in {days} days")
    order = np.argsort(arrival_s, kind="stable")
    return ArrivalTrace("maf2_like", "maf2", _names(num_functions), arrival_s[order], number[order])


GENERATORS: dict[str, Callable[..., Trace]] = {"maf1_like": maf1_like, "maf2_like": maf2_like}


def _check(num_functions: int, days: int, seed: int) -> np.random.Generator:
    if num_functions < 1 or days < 1 or seed < 0:
        raise TraceError(
            f"a trace needs functions, days and a seed >= 0, got {num_functions}, {days}, {seed}"
        )
    return np.random.default_rng(seed)


def _names(count: int) -> list[str]:
    return [f"function-{number}" for number in range(count)]


def _normal_scores(count: int, random: np.random.Generator) -> NDArray[np.float64]:
    """Standard normal quantiles in random order: less noisy than draws, where few decide all."""
    from scipy.special import ndtri

    return random.permutation(ndtri((np.arange(count) + 0.5) / count))


def _timer(
    per_minute: float, period: int, days: int, random: np.random.Generator
) -> NDArray[np.int64]:
    """As many requests every `period` minutes as make the rate, whole ones in turn."""
    counts = np.zeros(days * MINUTES_PER_DAY, np.int64)
    fire = np.arange(random.integers(period), len(counts), period)
    due = np.floor(np.arange(len(fire) + 1) * per_minute * period + random.random())
    counts[fire] = np.diff(due).astype(np.int64)
    return counts


def _on_off(cv: float, days: int, random: np.random.Generator) -> NDArray[np.float64]:
    """A two-state Markov process of mean 1 and the given CV, averaged over each minute.

    On with probability `q = 1 / (1 + cv**2)` at level `1 / q`, else 0.
    """
    minutes = days * MINUTES_PER_DAY
    on = 1 / (1 + cv**2)
    stay_min = CORRELATION_MIN * np.exp(CORRELATION_SPREAD * random.standard_normal())
    mean_on, mean_off = max(stay_min / (1 - on), 1e-3), stay_min / on
    cycles = int(2 * minutes / (mean_on + mean_off)) + 20
    stays = np.column_stack(
        [random.exponential(mean_off, cycles), random.exponential(mean_on, cycles)]
    ).ravel()
    if random.random() < on:
        stays[0] = 0.0  # memoryless, so starting within a stay is starting one
    # The process on a time axis, and how long it has been on up to there.
    time = np.concatenate([[0.0], np.cumsum(stays)])
    level = np.arange(len(stays)) % 2
    spent = np.concatenate([[0.0], np.cumsum(stays * level)])
    return np.diff(np.interp(np.arange(minutes + 1), time, spent)) / on


def _cycle(days: int, random: np.random.Generator) -> NDArray[np.float64]:
    """The daily and weekly cycle, and the level of each day, per minute; about 1 on average."""
    minute = np.arange(days * MINUTES_PER_DAY)
    depth = random.uniform(0, DIURNAL_DEPTH)
    peak = random.normal(PEAK_HOUR, PEAK_SPREAD_H)
    daily = np.exp(depth * np.cos((minute / 60 - peak) * 2 * np.pi / 24)) / np.i0(depth)
    weekend = (np.arange(days) + MAF1_FIRST_WEEKDAY) % 7 >= 5
    level = np.where(weekend, WEEKEND_LEVEL, 1.0) * np.exp(
        DAY_SPREAD * random.standard_normal(days) - DAY_SPREAD**2 / 2
    )
    return daily * np.repeat(level, MINUTES_PER_DAY)
