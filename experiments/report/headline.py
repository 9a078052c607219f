"""How much more Beta sustains than each baseline at 99 % SLO attainment (the paper's headline).

A curve reaches 99 % where the figures draw its dotted line: at the fewest devices or tightest SLO,
or the highest rate or CV, of those swept, at which attainment is 99 % or more. Nothing is
interpolated, so a factor is as coarse as the sweep; where a curve reaches 99 % nowhere, or already
at the hardest end of the sweep, the factor is a bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from beta_jax.analysis.statistics import mean_interval
from experiments.engine.fields import render
from experiments.engine.files import write
from experiments.report import figures, tables
from experiments.report.axes import axis
from experiments.report.results import Results
from experiments.report.tables import Row

FILE = "headline.csv"
GOAL = figures.GOAL_PERCENT / 100
EXACT, AT_LEAST, AT_MOST, UNKNOWN = "=", ">=", "<=", "?"

COLUMNS = (
    *("panel", "x_name", "better", "policy", "reaches_at", "other", "other_reaches_at"),
    *("bound", "factor", "low", "high", "seeds"),
)
"""Of `FILE`."""

Curve = Mapping[float, float]
"""SLO attainment by swept value."""
First = Callable[[Sequence[float]], float]
"""`min` or `max`: which swept value is the hardest."""


class Factor(NamedTuple):
    """How many times harder the values are that one curve sustains than those another does.

    bound: "=" for just that, ">=" for at least, "<=" for at most, "?" (value NaN) where the sweep
    does not tell.
    """

    value: float
    bound: str


def reach(curve: Curve, first: First, goal: float = GOAL) -> float:
    """The hardest swept value at which attainment is the goal, NaN if there is none."""
    good = [x for x, attainment in curve.items() if attainment >= goal]
    return first(good) if good else math.nan


def compare(ours: Curve, theirs: Curve, first: First, goal: float = GOAL) -> Factor:
    """What `ours` sustains over what `theirs` does; both swept over the same values > 0."""
    value, bound = _level(ours, first, goal)
    other, other_bound = _level(theirs, first, goal)
    inverse = {EXACT: EXACT, AT_LEAST: AT_MOST, AT_MOST: AT_LEAST}[other_bound]
    both = _both(bound, inverse)
    return Factor(math.nan if both == UNKNOWN else value / other, both)


def _level(curve: Curve, first: First, goal: float) -> tuple[float, str]:
    """How hard a value a curve sustains; a curve that reaches nothing, at most the easiest."""
    hardest, easiest = first([*curve]), (max if first is min else min)(curve)
    x = reach(curve, first, goal)
    bound = AT_MOST if x != x else AT_LEAST if x == hardest else EXACT
    x = easiest if x != x else x
    return (1 / x if first is min else x), bound


def _both(a: str, b: str) -> str:
    """The bound on a product, from those on its factors."""
    found = {a, b} - {EXACT}
    return (found or {EXACT}).pop() if len(found) < 2 else UNKNOWN


def average(factors: Sequence[Factor]) -> tuple[Factor, float, float]:
    """The geometric mean over replications, and the ends of its 95 % interval.

    A mean of bounds is a bound; its interval is open on the side on which they are.
    """
    bound = EXACT
    for each in factors:
        bound = UNKNOWN if UNKNOWN in (bound, each.bound) else _both(bound, each.bound)
    if bound == UNKNOWN:
        return Factor(math.nan, UNKNOWN), math.nan, math.nan
    interval = mean_interval([math.log(each.value) for each in factors])
    mean, low, high = np.exp([interval.mean, interval.low, interval.high]).tolist()
    return (
        Factor(mean, bound),
        math.nan if bound == AT_MOST else low,
        math.nan if bound == AT_LEAST else high,
    )


def headline(results: Results) -> list[Row]:
    """A row per panel and baseline: where it and Beta reach 99 %, and by what factor.

    Where several policies are Beta, the last is. Where replications differ in number, the fewest
    count.
    """
    samples: dict[tuple[str, str], dict[str, dict[float, Sequence[float]]]] = {}
    for (panel, x_name, x), policies in results.samples("slo_attainment").items():
        for policy, values in policies.items():
            samples.setdefault((panel, x_name), {}).setdefault(policy, {})[x] = values
    rows = []
    for (panel, x_name), curves in samples.items():
        beta = [policy for policy in curves if figures.display_name(policy) in figures.BETA]
        if not beta:
            continue
        of = axis(x_name)
        own = _replications(curves[beta[-1]])
        for policy in (policy for policy in curves if policy not in beta):
            other = _replications(curves[policy])
            pairs = list(zip(own, other, strict=False))
            mean, low, high = average([compare(*pair, of.hardest) for pair in pairs])
            reached = [
                reach({x: sum(v) / len(v) for x, v in curves[each].items()}, of.hardest)
                for each in (beta[-1], policy)
            ]
            rows.append(
                {"panel": panel, "x_name": x_name, "better": of.better}
                | {"policy": beta[-1], "reaches_at": reached[0]}
                | {"other": policy, "other_reaches_at": reached[1], "bound": mean.bound}
                | {"factor": mean.value, "low": low, "high": high, "seeds": len(pairs)}
            )
    return rows


def _replications(samples: Mapping[float, Sequence[float]]) -> list[dict[float, float]]:
    """The curve of each replication."""
    return [
        dict(zip(samples, values, strict=True)) for values in zip(*samples.values(), strict=False)
    ]


def report(results: Results, directory: Path) -> None:
    """Write `FILE` and print it."""
    rows = headline(results)
    write(directory / FILE, tables.to_csv(rows, COLUMNS))
    if not rows:
        print(f"\n{FILE} is empty: it compares mp-search or mp-search-sep with other policies")
        return
    print(f"\nAt {figures.GOAL_PERCENT:g} % SLO attainment Beta sustains, by the swept values\n")
    print(tables.to_text([_shown(row) for row in rows]))


def _shown(row: Row) -> Row:
    """Factors as text; intervals where there are several seeds."""
    prefix = "" if row["bound"] == EXACT else f"{row['bound']} "
    text = "-" if row["bound"] == UNKNOWN else f"{prefix}{row['factor']:.3g} x"
    if row["low"] == row["low"] or row["high"] == row["high"]:
        low, high = ("..." if end != end else f"{end:.3g}" for end in (row["low"], row["high"]))
        text += f" ({low} to {high})"
    reached = (row["reaches_at"], row["other_reaches_at"])
    at, other_at = ("nowhere" if x != x else render(x) for x in reached)
    return {
        "panel": row["panel"],
        "factor": text,
        "what": row["better"],
        "than": figures.display_name(row["other"]),
        "Beta reaches it at": at,
        "the other at": other_at,
    }
