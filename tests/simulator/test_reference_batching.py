"""The oracle of dynamic batching, by hand; that it is the published one: `test_reference`."""

from __future__ import annotations

import math
from typing import Any

import pytest

import reference_batching

INF = math.inf
BY_SIZE = {1: [10], 2: [14], 4: [22], 8: [38], 16: [70]}
BOTH = pytest.mark.parametrize("batching", ["published", "strict"])


def serve(
    arrival: list[int], model: list[int], slo: list[float], *groups: Any, **rules: Any
) -> Any:
    """One placement, no overhead unless asked for: finish, good, group and start as lists."""
    rules = {"request_overhead": 0, **rules}
    outcome = reference_batching.simulate(arrival, model, slo, [(0, groups)], **rules)
    return [array.tolist() for array in outcome]


@BOTH
def test_what_waits_is_served_in_full_batches(batching: str) -> None:
    """The first one alone at 0; then seven wait for 10: four, two and one."""
    finish, *_, start = serve([0] * 8, [0] * 8, [INF], {0: BY_SIZE}, batching=batching)
    assert finish == [10, 32, 32, 32, 32, 46, 46, 56]
    assert start == [0, 10, 10, 10, 10, 32, 32, 46]
    two = serve([0] * 8, [0] * 8, [INF], {0: BY_SIZE}, batching=batching, max_batch=2)
    assert two[0] == [10, 24, 24, 38, 38, 52, 52, 62]
    one = serve([0] * 3, [0] * 3, [INF], {0: BY_SIZE}, batching=batching, max_batch=1)
    assert one[0] == [10, 20, 30]


@BOTH
def test_a_batch_grows_while_its_first_request_is_in_time(batching: str) -> None:
    finish, good, *_ = serve([0] * 5, [0] * 5, [24], {0: BY_SIZE}, batching=batching)
    assert finish == [10, 24, 24, 0, 0] and good == [True] * 3 + [False] * 2
    finish, *_ = serve([0] * 5, [0] * 5, [32], {0: BY_SIZE}, batching=batching)
    assert finish == [10, 32, 32, 32, 32]


@BOTH
def test_late_heads_are_rejected_by_the_group_that_finds_them(batching: str) -> None:
    """Both models wait for group 1; what came for model 0 is late by then, model 1 can wait."""
    groups = {}, {0: {1: [10]}, 1: {1: [20]}}
    finish, good, group, _ = serve(
        [0, 1, 2], [1, 0, 1], [15, INF], *groups, batching=batching, max_batch=1
    )
    assert (finish, good, group) == ([20, 1, 40], [True, False, True], [1, 1, 1])


@BOTH
def test_the_oldest_request_decides_ties_by_the_lower_model(batching: str) -> None:
    hosted = {m: {1: [10]} for m in range(3)}
    finish, *_ = serve([0, 1, 1], [0, 2, 1], [INF] * 3, hosted, batching=batching, max_batch=1)
    assert finish == [10, 30, 20]


@BOTH
def test_segments_do_not_touch_each_other(batching: str) -> None:
    """What waits at the boundary is served by the old placement; the new one starts at 0."""
    segments = [(0, [{0: {1: [10]}}]), (5, [{0: {1: [3]}}])]
    outcome = reference_batching.simulate(
        [0, 1, 6, 7], [0] * 4, [INF], segments, 0, batching=batching, max_batch=1
    )
    assert outcome.finish.tolist() == [10, 20, 9, 12]


@BOTH
def test_no_host_and_no_requests(batching: str) -> None:
    outcome = serve(
        [1, 2, 3], [1, -1, 0], [INF, INF], {}, {0: {1: [9]}}, batching=batching, max_batch=1
    )
    assert outcome == [[1, 2, 12], [False, False, True], [-1, -1, 1], [1, 2, 3]]
    assert serve([], [], [INF], {0: {1: [9]}}, batching=batching) == [[], [], [], []]


def test_where_the_overhead_is_spent() -> None:
    """Published: before the pipeline, so that batches of one group are an overhead apart."""
    arrival, model, group = [0, 0], [0, 0], {0: {1: [10]}}
    published = serve(arrival, model, [INF], group, request_overhead=5, max_batch=1)
    assert (published[0], published[3]) == ([15, 30], [5, 20])
    strict = serve(arrival, model, [INF], group, request_overhead=5, max_batch=1, batching="strict")
    assert (strict[0], strict[3]) == ([15, 25], [0, 10])


def test_an_event_without_requests_stops_the_published_rules() -> None:
    """At 30 group 0's event finds nothing, so group 1 has not begun with what waits for it."""
    groups = {0: {1: [10]}}, {1: {1: [20]}}
    arrival, model = [0, 0, 1, 30], [0, 1, 1, 1]
    published = serve(arrival, model, [INF, 50], *groups, max_batch=1)
    # Group 1 is idle at 30 and serves the head of the queue, then; its old event, of 20, is still
    # to come, and serves the last request behind it.
    assert published[0] == [10, 20, 50, 70] and published[3] == [0, 0, 30, 50]
    strict = serve(arrival, model, [INF, 50], *groups, max_batch=1, batching="strict")
    assert strict[0] == [10, 20, 40, 60]


def test_strict_takes_the_free_group_whose_last_stage_is_free_first() -> None:
    """Both are free at 10; the pipeline of the second is shorter."""
    groups = {0: {1: [10, 9]}}, {0: {1: [10, 5]}}
    outcome = serve([0, 0, 10], [0] * 3, [INF], *groups, max_batch=1, batching="strict")
    assert outcome[2] == [0, 1, 1]
    busy = serve([0, 0, 0, 0], [0] * 4, [INF], *groups, max_batch=1, batching="strict")
    assert busy[2] == [0, 1, 1, 0]
