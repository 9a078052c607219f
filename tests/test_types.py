"""Values refuse nonsense when they are made, in one line."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from beta_jax import Cluster, Model, Rules, Workload


@pytest.mark.parametrize(
    "make, named",
    [
        (lambda: Rules(dispatch="random"), "unknown dispatch 'random'; known: earliest_free, earl"),
        (lambda: Rules(dispatch=len), "dispatch is a name or a DispatchRule, got <built-in"),
        (lambda: Rules(stage_overhead=-0.1), "stage_overhead must be >= 0 and finite, got -0.1"),
        (lambda: Rules(stage_overhead=math.nan), "stage_overhead must be >= 0 and finite, got nan"),
        (lambda: Rules(request_overhead_s=math.inf), "request_overhead_s must be .* got inf"),
        (lambda: Cluster(2.5), "num_devices must be a whole number from 1 to 65536, got 2.5"),
        (lambda: Cluster(0), "num_devices must be a whole number from 1 to 65536, got 0"),
        (lambda: Cluster("8"), "num_devices must be a whole number from 1 to 65536, got '8'"),
        (lambda: Cluster(1_000_000), "num_devices must be .* from 1 to 65536, got 1000000"),
        (lambda: Cluster(8, devices_per_node=0), "devices_per_node must be a whole number"),
        (lambda: Cluster(8, memory_bytes=math.inf), "memory_bytes must be > 0 and finite, got inf"),
        (lambda: Cluster(8, memory_bytes=math.nan), "memory_bytes must be > 0 and finite, got nan"),
        (lambda: Cluster(8, memory_bytes=-1), "memory_bytes must be > 0 and finite, got -1"),
        (lambda: Model("m", None, 1.0), "model m: name and type must be text, got type None"),
        (lambda: Model("m", ["t"], 1.0), "model m: name and type must be text, got type .'t'."),
        (lambda: Model("m", "t", 0.0), "model m: SLO must be > 0 seconds, got 0.0"),
        (lambda: Model("m", "t", math.nan), "model m: SLO must be > 0 seconds, got nan"),
        (lambda: Model("m", "t", 1.0, rate_rps=-1), "model m: rate must be >= 0"),
        (lambda: Model("m", "t", 1.0, rate_rps=math.inf), "model m: rate must be >= 0"),
        (lambda: Model("m", "t", 1.0, cv=math.inf), "model m: CV must be >= 0 and finite, got inf"),
    ],
)
def test_nonsense_is_refused_when_made(make: Callable[[], object], named: str):
    with pytest.raises(ValueError, match=named) as error:
        make()
    assert "\n" not in str(error.value)


def test_what_is_allowed():
    assert Cluster(np.int64(4)).num_devices == 4
    assert math.isnan(Model("m", "t", math.inf).rate_rps)
    assert Rules(stage_overhead=0, request_overhead_s=0) != Rules()


def test_workloads_are_equal_iff_all_requests_are():
    arrival, model = np.arange(5000), np.arange(5000) % 7
    one, same = Workload(arrival, model), Workload(arrival.copy(), model.copy())
    assert one == same and hash(one) == hash(same)
    for changed in (arrival + (np.arange(5000) > 4321), arrival[:-1]):
        assert one != Workload(changed, model[: len(changed)])
    other = model.copy()
    other[1234] += 1
    assert one != Workload(arrival, other) and one != "something else"
    work = np.full(5000, 65536)
    worked, changed = Workload(arrival, model, work), Workload(arrival, model, work + (model == 6))
    assert one != worked != changed and worked == Workload(arrival, model, work.copy())


def test_parts_of_a_workload():
    whole = Workload(np.arange(6), np.array([0, 1, -1, 1, 0, 2]))
    assert whole.part(0, 6) is whole and whole.of_models((-1, 0, 1, 2)) is whole
    assert whole.part(2, 4) == Workload(np.array([2, 3]), np.array([-1, 1]))
    assert whole.of_models((2, 1)) == Workload(np.array([1, 3, 5]), np.array([1, 1, 2]))
    worked = Workload(whole.arrival, whole.model, np.arange(6) + 1)
    assert worked.part(2, 4).work.tolist() == [3, 4]
    assert worked.of_models((2, 1)).work.tolist() == [2, 4, 6]


@pytest.mark.parametrize("bad", [0, -1, math.nan, math.inf, 32768])
def test_work_is_positive_and_finite(bad: float):
    with pytest.raises(ValueError, match="work must be > 0 and < 32768, found"):
        Workload.from_seconds([0, 1], [0, 0], [1, bad])
    assert Workload.from_seconds([0, 1], [0, 0], [1e-9, 32767.9999]).work.tolist() == [1, 2**31 - 7]


@pytest.mark.parametrize("work", [[1, 0], [1, -1], [1, 2**31], [1.5, 1.0], [1]])
def test_fixed_point_work_is_whole_numbers(work: list):
    with pytest.raises(ValueError, match="work must be"):
        Workload(np.arange(2), np.zeros(2), np.array(work))
