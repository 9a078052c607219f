"""The programs that `benchmarks/peers.py` compares simulate the queues that they say."""

from __future__ import annotations

import math

import pytest

import peers

REQUESTS = 4000


@pytest.mark.parametrize("queue", peers.queues(), ids=lambda queue: queue.name)
def test_all_programs_of_a_queue_wait_as_theory_says(queue):
    waits = [queue.simpy(1, REQUESTS), queue.ciw(1, REQUESTS), *queue.here([1, 2], REQUESTS)]
    for wait_s in waits:
        assert math.isclose(wait_s, queue.theory_s, rel_tol=0.5)


def test_lines_of_code_are_those_that_do_something():
    assert peers.lines_of(peers.mean_after_warmup) == 1
    assert peers.lines_of(peers.ciw_mm1) == 11
