"""Write the project's own golden cases, `tests/golden/*.json`, as the reference simulator answers.

    python tests/make_golden.py

A case is self-contained; all times are integer ticks of one nanosecond:

    name, description    what it is and what it is for
    dispatch             "earliest_free", "earliest_finish" or "round_robin"
    request_overhead     added to every finish
    types, slo           [model]: type of the model; deadline, null for none
    segments             the schedule: [{"start", "groups"}]; a fixed placement has one segment
    groups               [{"op", "pp", "stages"}], "stages" = {model: [ticks of each stage]} being
                         the models that the group hosts and their effective latencies there
    arrival, model       [request]: sorted arrivals; model index, -1 for a model not served
    finish, good, group  [request]: expected; finish = arrival where rejected; good 0 or 1; group
                         within the segment's placement, -1 where the request found no host

Stage latencies depend on (type, op, pp) alone, and they and the SLOs are exact in the round trip
through `ticks / 1e9` seconds and float32, so the cases can also be run through a profile with a
stage overhead of 0. Traffic comes from `random.Random.random`, which is the same in every Python.
"""

from __future__ import annotations

import json
import math
import pathlib
import random
from collections.abc import Sequence
from typing import Any

import reference

FOLDER = pathlib.Path(__file__).parent / "golden"
LATENCY_S = {"small": 0.12, "medium": 0.21, "large": 0.52}
SECOND = reference.TICKS_PER_SECOND


def stages(model_type: str, op: int, pp: int) -> list[int]:
    """Effective ticks of each stage: uneven, with a communication cost of both parallelisms."""
    share = LATENCY_S[model_type] / (op * pp) * (1 + 0.12 * math.log2(op))
    uneven = [share * (1 + 0.05 * (2 * k + 1 - pp) / pp) + 0.002 * (pp > 1) for k in range(pp)]
    return reference.stage_ticks(uneven)


def groups(types: Sequence[str], *hosted: tuple[int, int, Sequence[int]]) -> list[dict[str, Any]]:
    """Groups from (op, pp, models)."""
    return [
        {"op": op, "pp": pp, "stages": {str(m): stages(types[m], op, pp) for m in models}}
        for op, pp, models in hosted
    ]


def slos(types: Sequence[str], scale: float) -> list[int]:
    return [int(reference.duration_ticks(scale * LATENCY_S[t])) for t in types]


def gap_s(rng: random.Random, rate_rps: float, cv: float) -> float:
    """A hyperexponential gap of the given CV >= 1: one of two exponentials, short or long."""
    p = 0.5 * (1 + math.sqrt((cv**2 - 1) / (cv**2 + 1)))
    rate = 2 * rate_rps * (p if rng.random() < p else 1 - p)
    return -math.log(1 - rng.random()) / rate


def traffic(
    seed: int, models: Sequence[int], num_requests: int, rate_rps: float, cv: float
) -> dict[str, list[int]]:
    """Sorted requests of several models, each with its own stream of `num_requests` / models."""
    requests = []
    for m in models:
        rng, t = random.Random(f"{seed}/{m}"), 0.0
        for _ in range(num_requests // len(models)):
            t += gap_s(rng, rate_rps, cv)
            requests.append((t, m))
    requests.sort()
    return {
        "arrival": reference.arrival_ticks([t for t, _ in requests]),
        "model": [m for _, m in requests],
    }


def expect(case: dict[str, Any]) -> dict[str, list[int]]:
    """The reference's answer to a case, as the lists that are stored with it."""
    outcome = reference.simulate(
        case["arrival"],
        case["model"],
        [math.inf if slo is None else slo for slo in case["slo"]],
        [
            (
                segment["start"],
                [{int(m): s for m, s in group["stages"].items()} for group in segment["groups"]],
            )
            for segment in case["segments"]
        ],
        case["request_overhead"],
        case["dispatch"],
    )
    return {
        "finish": outcome.finish.tolist(),
        "good": outcome.good.astype(int).tolist(),
        "group": outcome.group.tolist(),
    }


def cases() -> list[dict[str, Any]]:
    """All cases with their expected outcomes."""
    same, mixed = ["small"] * 4, ["small", "medium", "large", "small", "medium"]
    replicas = groups(same, (1, 1, [0, 1]), (1, 1, [1, 2]), (1, 1, [2, 3]), (1, 1, [0, 3]))
    pipelines = groups(mixed, (1, 4, [0, 1, 2]), (2, 2, [2, 3, 4]), (1, 2, [0, 1, 3, 4]))
    made = []

    def add(
        name: str,
        description: str,
        types: Sequence[str],
        slo: Sequence[int | None],
        requests: dict[str, list[int]],
        *segments: tuple[int, list[dict[str, Any]]],
        dispatch: str = "earliest_free",
        request_overhead: int = reference.REQUEST_OVERHEAD,
    ) -> None:
        case = {
            "name": name,
            "description": description,
            "dispatch": dispatch,
            "request_overhead": request_overhead,
            "types": list(types),
            "slo": list(slo),
            "segments": [{"start": start, "groups": placement} for start, placement in segments],
            **requests,
        }
        made.append(case | expect(case))

    add(
        "low_load",
        "nearly every request is served at once",
        same,
        slos(same, 5),
        traffic(1, range(4), 160, 1.0, 1),
        (0, replicas),
    )
    add(
        "overload_cv4",
        "bursty overload; group 2 is too slow for any deadline, yet idle, and swallows model 0",
        same,
        slos(same, 1.2),
        traffic(2, range(4), 240, 9.0, 4),
        (0, groups(same, (1, 1, [1, 2, 3]), (2, 2, [1, 2]), (1, 8, [0]), (1, 2, [0, 3]))),
    )
    add(
        "ties",
        "four models arrive together every 0.15 s on equal groups: ties in time and in the clocks",
        same,
        slos(same, 2.5),
        {"arrival": [i // 4 * 150_000_000 for i in range(160)], "model": [*range(4)] * 40},
        (0, groups(same, *[(1, 1, range(4))] * 3)),
    )
    add(
        "infinite_slo",
        "models 0 and 2 have no deadline; no request overhead; queues grow without bound",
        mixed,
        [None, slos(mixed, 6)[1], None, *slos(mixed, 6)[3:]],
        traffic(4, range(5), 200, 9.0, 2),
        (0, pipelines),
        request_overhead=0,
    )
    add(
        "mixed_types",
        "three types share pipelines of 2 and 4 uneven stages: waiting in the middle of a pipeline",
        mixed,
        slos(mixed, 4),
        traffic(5, range(5), 240, 6.0, 4),
        (0, pipelines),
    )
    add(
        "no_host",
        "groups 0 and 2 are empty, model 3 has no host, and some requests are of no served model",
        mixed,
        slos(mixed, 5),
        traffic(6, range(-1, 5), 180, 3.0, 2),
        (0, groups(mixed, (1, 1, []), (1, 2, [0, 2, 4]), (2, 1, []), (1, 1, [0, 1]))),
    )
    rng, t, late = random.Random("7"), 1_200_000 * SECOND, []
    for _ in range(200):
        t += rng.choice([0, 0, 1, 1, 2, 500, *[rng.randrange(SECOND // 5)] * 5])
        late.append(t)
    add(
        "late_bursts",
        "1.2 million seconds into a trace, bursts with gaps of no, one and two ticks",
        same,
        slos(same, 2),
        {"arrival": late, "model": [rng.randrange(4) for _ in late]},
        (0, groups(same, (1, 2, range(4)), (1, 2, [0, 2]), (1, 4, [1, 3]))),
    )

    requests = traffic(8, range(4), 180, 5.0, 3)
    arrival = requests["arrival"]
    pause = arrival[120] + 8 * SECOND
    requests["arrival"] = arrival[:121] + [t + 10 * SECOND for t in arrival[121:]]
    switched = groups(same, (1, 2, [2, 3]), (1, 1, [0, 1]), (1, 1, [1, 3]))
    schedule = [(arrival[0], replicas), (arrival[60], switched), (pause, replicas[:3])]
    add(
        "schedule",
        "four placements; the 2nd starts at an arrival, which stays in the 1st; the 3rd and 4th "
        "start within one gap, so the first request after it still gets the 3rd",
        same,
        slos(same, 2),
        requests,
        *schedule,
        (pause + SECOND, switched[::-1]),
    )
    add(
        "round_robin_schedule",
        "turns among unequal groups, moved on by rejected requests too, restarting with a segment",
        mixed,
        slos(mixed, 3),
        traffic(9, range(5), 200, 4.0, 4),
        (0, pipelines),
        (4 * SECOND, pipelines[::-1]),
        dispatch="round_robin",
    )
    add(
        "earliest_finish",
        "slow and fast groups, the idle one not always the better",
        mixed,
        slos(mixed, 2),
        traffic(10, range(5), 240, 7.0, 4),
        (0, groups(mixed, (1, 1, range(5)), (4, 1, [0, 2, 4]), (1, 4, range(5)), (1, 1, [1, 3]))),
        dispatch="earliest_finish",
    )
    return made


def render(case: dict[str, Any]) -> str:
    return json.dumps(case, separators=(",", ":")) + "\n"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for case in cases():
        (FOLDER / f"{case['name']}.json").write_text(render(case), encoding="utf-8")
