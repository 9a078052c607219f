"""By what factor one curve sustains harder values than another, and what a sweep cannot tell."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.engine.points import Point, Replications
from experiments.engine.scenarios import Scenario
from experiments.report.headline import Factor, average, compare, headline, reach
from experiments.report.results import PointResult, Results

XS = (1.0, 2.0, 4.0, 8.0)


def curve(*attainments: float) -> dict[float, float]:
    return dict(zip(XS, attainments, strict=True))


@pytest.mark.parametrize(
    "ours, theirs, first, factor",
    [
        # Devices or SLO: the fewer the better.
        (curve(0.5, 1, 1, 1), curve(0.5, 0.9, 0.98, 0.99), min, (4, "=")),
        (curve(0.5, 1, 1, 1), curve(0.5, 0.9, 0.9, 0.9), min, (4, ">=")),  # perhaps beyond 8
        (curve(1, 1, 1, 1), curve(0.5, 1, 1, 1), min, (2, ">=")),  # perhaps below 1
        (curve(0.5, 1, 1, 1), curve(1, 1, 1, 1), min, (0.5, "<=")),
        (curve(0.1, 0.2, 0.3, 0.4), curve(0, 0.9, 1, 1), min, (0.5, "<=")),
        # Rate or CV: the more the better.
        (curve(1, 1, 1, 0.5), curve(1, 0.9, 0.8, 0.5), max, (4, "=")),
        (curve(1, 1, 1, 1), curve(0.9, 0.9, 0.8, 0.5), max, (8, ">=")),
        (curve(1, 1, 1, 0.2), curve(1, 1, 1, 1), max, (0.5, "<=")),
        # Both better than the hardest value, or worse than the easiest.
        (curve(1, 1, 1, 1), curve(1, 1, 1, 1), max, (None, "?")),
        (curve(0, 0, 0, 0), curve(0.9, 0.9, 0.9, 0.9), min, (None, "?")),
    ],
)
def test_factors_are_those_of_the_swept_values_or_bounds(ours, theirs, first, factor):
    found = compare(ours, theirs, first)
    assert found.bound == factor[1]
    assert math.isnan(found.value) if factor[0] is None else found.value == factor[0]


@given(
    st.lists(st.floats(0.9, 1), min_size=4, max_size=4),
    st.lists(st.floats(0.9, 1), min_size=4, max_size=4),
    st.sampled_from([min, max]),
)
def test_swapping_the_curves_inverts_the_factor(a, b, first):
    one, other = compare(curve(*a), curve(*b), first), compare(curve(*b), curve(*a), first)
    assert other.bound == {"=": "=", "?": "?", ">=": "<=", "<=": ">="}[one.bound]
    if one.bound != "?":
        assert one.value * other.value == pytest.approx(1)


@given(st.floats(1, 8), st.floats(1, 8), st.sampled_from([min, max]))
def test_bounds_hold_for_policies_that_sustain_more_or_less_than_was_swept(ours_x, theirs_x, first):
    """Of policies that sustain just such an x, rounded to the values that a full sweep has."""
    wide, narrow = [2.0**k for k in range(-1, 5)], [2.0, 4.0]

    def at(x: float, swept: list[float]) -> dict[float, float]:
        return {value: float(value >= x if first is min else value <= x) for value in swept}

    exact = compare(at(ours_x, wide), at(theirs_x, wide), first)
    seen = compare(at(ours_x, narrow), at(theirs_x, narrow), first)
    assert exact.bound == "="
    assert {
        "=": exact.value == seen.value,
        ">=": exact.value >= seen.value,
        "<=": exact.value <= seen.value,
        "?": True,
    }[seen.bound]


def test_reach_is_where_the_figure_draws_its_line():
    assert reach(curve(0.98, 0.99, 0.98, 1), min) == 2
    assert reach(curve(1, 0.98, 0.99, 0.98), max) == 4
    assert math.isnan(reach(curve(0, 0, 0, 0), max))


def test_replications_have_a_geometric_mean_and_an_interval():
    mean, low, high = average([Factor(2.0, "="), Factor(8.0, "="), Factor(4.0, "=")])
    assert mean.value == pytest.approx(4) and mean.bound == "="
    assert 0 < low < 4 < high and low * high == pytest.approx(16)


def test_a_mean_of_bounds_is_a_bound_with_an_open_interval():
    mean, low, high = average([Factor(2.0, "="), Factor(4.0, ">="), Factor(4.0, "=")])
    assert mean.bound == ">=" and low < mean.value and math.isnan(high)
    assert average([Factor(2.0, "<="), Factor(4.0, ">=")])[0].bound == "?"
    assert average([Factor(math.nan, "?"), Factor(4.0, "=")])[0].bound == "?"


BASE = Scenario(
    model_types=("a",),
    profile="p",
    num_devices=1,
    rate_rps=1.0,
    split="uniform",
    cv=1.0,
    slo_scale=1.0,
    duration_s=1.0,
    rng="jax",
    train_seed=0,
    test_seed=1,
)


def results(curves: dict[str, list[dict[float, float]]]) -> Results:
    """Results of a sweep of rates: for each policy a curve per replication."""
    found = [
        PointResult(
            Point("p", "rate_rps", x, policy, BASE), i, BASE, {"metrics": {"slo_attainment": y}}
        )
        for policy, replications in curves.items()
        for i, one in enumerate(replications)
        for x, y in one.items()
    ]
    return Results(found, Replications(seeds=max(map(len, curves.values()))))


def test_the_headline_compares_beta_with_every_other_policy():
    low, middle, high = curve(1, 0, 0, 0), curve(1, 1, 0, 0), curve(1, 1, 1, 0)
    rows = headline(
        results({"sr-greedy": [low, low], "sr-replace-60": [middle] * 2, "mp-search": [high] * 2})
    )
    assert [(row["other"], row["factor"], row["bound"]) for row in rows] == [
        ("sr-greedy", pytest.approx(4), "="),
        ("sr-replace-60", pytest.approx(2), "="),
    ]
    assert [(row["reaches_at"], row["other_reaches_at"]) for row in rows] == [(4, 1), (4, 2)]
    assert all(row["seeds"] == 2 and row["better"] == "higher rate" for row in rows)
    assert headline(results({"sr-greedy": [low]})) == []


def test_points_of_one_replication_at_one_place_count_as_their_mean():
    """As the pairs of slices do over which the robustness figure averages."""
    one = results({"mp-search": [curve(1, 1, 1, 1)], "sr-greedy": [curve(1, 1, 0.99, 0.4)]})
    other = results({"mp-search": [curve(1, 1, 1, 0.9)], "sr-greedy": [curve(1, 0.98, 0.5, 0.4)]})
    both = Results([*one.results, *other.results], one.replications)
    assert both.samples("slo_attainment")["p", "rate_rps", 8.0] == {
        "mp-search": [0.95],
        "sr-greedy": [0.4],
    }
    (row,) = headline(both)
    assert (row["reaches_at"], row["other_reaches_at"]) == (4, 2)
