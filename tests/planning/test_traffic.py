"""Traffic to plan for: what is drawn from a log, and how rates scale."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beta_jax import Model, Workload
from beta_jax.planning import Generated, Log

SECOND = 10**9
MODELS = (Model("a", "t", 1.0, 2.0, 3.0), Model("b", "t", 1.0, 1.0, 3.0))


def log(seconds: list[float], works: bool = False) -> Workload:
    arrivals = np.sort(np.array(seconds))
    work = np.linspace(0.5, 2, len(arrivals)) if works else None
    return Workload.from_seconds(arrivals + 100, np.arange(len(arrivals)) % 2, work)


def pairs(workload: Workload) -> set[tuple[int, int]]:
    return {*zip(workload.arrival.tolist(), workload.model.tolist(), strict=True)}


@given(st.lists(st.floats(0, 99), min_size=1, max_size=60), st.integers(0, 99))
def test_whole_blocks_of_the_log(seconds: list[float], seed: int):
    given_log = log([0.0, *seconds, 100.0])
    source = Log(given_log, block_s=20.0)
    (drawn,) = source.sample(MODELS, [seed])
    assert source.duration_s == 100

    def blocks(workload: Workload, origin: int) -> set[tuple]:
        found = set()
        for begin in origin + np.arange(5) * 20 * SECOND:
            part = workload.part(*np.searchsorted(workload.arrival, [begin, begin + 20 * SECOND]))
            found.add(tuple(zip(part.arrival - begin, part.model, strict=True)))
        return found

    assert blocks(drawn, 0) <= blocks(given_log, given_log.arrival[0])
    assert drawn == source.sample(MODELS, [seed])[0]


def test_higher_rates_keep_what_lower_ones_do():
    source = Log(log(list(np.linspace(0, 100, 2000)), works=True), block_s=10.0)
    rates = [0.2, 0.5, 1.0, 1.3, 2.0, 2.5]
    drawn = [source.sample(MODELS, [7], rate=rate)[0] for rate in rates]
    for fewer, more in itertools.pairwise(drawn):
        assert pairs(fewer) <= pairs(more)
    sizes = [len(workload) / len(drawn[2]) for workload in drawn]
    assert sizes == pytest.approx(rates, abs=0.06)
    assert all(workload.work is not None for workload in drawn)
    assert pairs(source.sample(MODELS, [8])[0]) != pairs(drawn[2])


@pytest.mark.parametrize(
    ("seconds", "block_s", "message"),
    [
        ([], 60.0, "the log is empty"),
        ([0.0, 100.0], 60.0, "a log of 100 s has less than two blocks of 60 s"),
        ([0.0, 100.0], 0.0, "block_s must be >= 0.001"),
    ],
)
def test_logs_that_say_too_little(seconds: list[float], block_s: float, message: str):
    with pytest.raises(ValueError, match=message):
        Log(log(seconds), block_s)


def test_the_cv_of_a_log_is_what_it_is():
    with pytest.raises(ValueError, match="a log has no CV to scale"):
        Log(log([0.0, 100.0]), 20.0).sample(MODELS, [0], cv=2.0)


def test_generated_traffic_scales_the_rates_of_the_models():
    source = Generated(duration_s=500.0)
    once, twice = (source.sample(MODELS, [1], rate=rate)[0] for rate in (1.0, 2.0))
    assert len(twice) / len(once) == pytest.approx(2, abs=0.2)
