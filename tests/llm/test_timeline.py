"""The timeline of a run of one engine."""

from __future__ import annotations

import json

import numpy as np
from hypothesis import given, settings
from test_rules import NONE, serve

from beta_jax.llm import simulate, write_timeline

from llm_runs import cases


def test_a_request_that_is_taken_back_has_two_slices(tmp_path):
    outcome = serve([(0, 6, 4), (0, 9, 4)], [NONE, (0, 4)], blocks=7)
    write_timeline(tmp_path / "timeline.json", outcome)
    events = json.loads((tmp_path / "timeline.json").read_text())["traceEvents"]
    slices = [
        (event["name"], event["tid"], round(1000 * event["ts"]), round(1000 * event["dur"]))
        for event in events
        if event["ph"] == "X"
    ]
    assert slices == [
        *[("request 0", 1, 1, 4), ("prompt", 1, 1, 1)],
        *[("request 1", 2, 1, 3), ("prompt", 2, 1, 1)],
        *[("request 1", 1, 5, 1), ("computed anew", 1, 5, 1)],
    ]
    counters = {
        name: [
            (round(1000 * event["ts"]), *event["args"].values())
            for event in events
            if event["ph"] == "C" and event["name"] == name
        ]
        for name in ("waiting", "running", "blocks")
    }
    assert counters["waiting"] == [(0, 2), (1, 0), (4, 1), (5, 0)]
    assert counters["running"] == [(1, 2), (4, 1), (6, 0)]
    assert counters["blocks"] == [(1, 5), (2, 6), (3, 7), (4, 5), (5, 6), (6, 0)]
    assert [event["args"]["left"] for event in events if "left" in event.get("args", {})] == [
        *("ended", "taken back", "ended")
    ]


@settings(max_examples=30, deadline=None)
@given(cases())
def test_stays_are_what_runs(case):
    requests, engine = case
    outcome = simulate(requests, engine)
    within = (outcome.stay_begin_ps[:, None] <= outcome.step_begin_ps) & (
        outcome.step_begin_ps < outcome.stay_end_ps[:, None]
    )
    assert within.sum(0).tolist() == outcome.running.tolist()
    assert len(outcome.stay_request) == len(requests) + outcome.preemptions
    last = np.zeros(len(requests), np.int64)
    last[outcome.stay_request] = outcome.stay_end_ps
    assert last.tolist() == (requests.arrival_ns * 1000 + outcome.latency_ps).tolist()
