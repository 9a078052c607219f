"""Random runs of one engine: shared prefixes, small tables, and what the oracle says."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
from hypothesis import strategies as st

from beta_jax.llm import Engine, LinearStepTime, Outcome, Prefixes, TokenRequests

import reference_llm

PS = 1000


def reference(
    requests: TokenRequests,
    engine: Engine,
    tables: reference_llm.Tables | None = None,
    num_engines: int = 1,
) -> reference_llm.Outcome:
    """By the oracle: nanoseconds with tables, else picoseconds."""
    contents: list[tuple[int, ...]] = []
    names = 0
    own = requests.prefixes
    for row in range(len(requests)):
        shared, hashed = (
            (int(own.shared_blocks[row]), int(own.hashed_blocks[row])) if own else (0, 0)
        )
        first = contents[own.parent[row]][:shared] if own and shared else ()
        contents.append((*first, *range(names, names + hashed - shared)))
        names += hashed - shared
    unit = 1 if tables else PS
    rows = [
        reference_llm.Request(int(arrival) * unit, int(prompt), int(answer), content)
        for arrival, prompt, answer, content in zip(
            requests.arrival_ns,
            requests.input_tokens,
            requests.output_tokens,
            contents,
            strict=True,
        )
    ]
    theirs = reference_llm.Engine(
        engine.max_num_seqs,
        engine.max_num_batched_tokens,
        engine.block_size,
        engine.num_blocks,
        engine.prefix_caching,
    )
    if tables:
        return reference_llm.simulate(rows, theirs, tables, 1, num_engines)
    assert isinstance(engine.step_time, LinearStepTime)
    step_time = reference_llm.linear(*dataclasses.astuple(engine.step_time))
    return reference_llm.simulate(rows, theirs, step_time, PS, num_engines)


def require_equal(found: Outcome, wanted: reference_llm.Outcome, unit: int) -> None:
    """Every number of every request, token and step; `unit` picoseconds in one of theirs."""
    for name in ("queue_delay", "ttft", "latency"):
        got = getattr(found, f"{name}_ps").tolist()
        assert got == [unit * value for value in getattr(wanted, name)], name
    assert (found.tpot_ps // unit).tolist() == wanted.tpot
    for request, times in enumerate(wanted.token_times):
        assert found.token_times_ps(request).tolist() == [unit * time for time in times], request
    assert found.step_end_ps.tolist() == [unit * time for time in wanted.step_ends]
    assert found.preemptions == wanted.preemptions
    assert found.recomputed_tokens == wanted.recomputed_tokens


@st.composite
def token_requests(
    draw: st.DrawFn, block_size: int, most: int = 12, crowded: bool = False
) -> TokenRequests:
    """A few requests, short or longer than a budget, many at once or far apart."""
    number = draw(st.integers(4 if crowded else 1, most))
    gap = draw(st.sampled_from([0, 20] if crowded else [0, 20, 300, 5000]))
    arrival = np.cumsum(draw(st.lists(st.integers(0, gap), min_size=number, max_size=number)))
    longest = draw(st.sampled_from([12, 40] if crowded else [3, 12, 40]))
    lengths = st.lists(st.integers(1, longest), min_size=number, max_size=number)
    prompt, answer = np.array(draw(lengths)), np.array(draw(lengths))
    hashed, parent, shared = [], [], []
    for row in range(number):
        full = int(prompt[row] + answer[row]) // block_size
        hashed.append(draw(st.sampled_from([full, full, max(full - 1, 0)])))
        parent.append(draw(st.integers(-1, row - 1)))
        common = min(hashed[row], hashed[parent[row]]) if parent[row] >= 0 else 0
        shared.append(draw(st.sampled_from([common, draw(st.integers(0, common))])))
    return TokenRequests(
        arrival, prompt, answer, Prefixes(np.array(hashed), np.array(parent), np.array(shared))
    )


@st.composite
def cases(draw: st.DrawFn, crowded: bool = False) -> tuple[TokenRequests, Engine]:
    """An engine that is short of something, by the linear model; if crowded, several decode."""
    block_size = draw(st.sampled_from([1, 2, 3, 4, 16]))
    requests = draw(token_requests(block_size, crowded=crowded))
    least = -(-requests.most_tokens // block_size)
    coefficient = st.integers(0, 5000)
    return requests, Engine(
        max_num_seqs=draw(st.sampled_from([4, 16] if crowded else [1, 2, 4, 16])),
        max_num_batched_tokens=draw(st.sampled_from([8, 64] if crowded else [1, 2, 3, 8, 64])),
        num_blocks=least + draw(st.sampled_from([0, 1, 2, 5, 100])),
        step_time=LinearStepTime(
            draw(st.integers(1, 20000)), *(draw(coefficient) for _ in range(3))
        ),
        block_size=block_size,
        prefix_caching=draw(st.booleans()),
    )


def write_tables(folder: Path, seed: int, engine: Engine, *, skew: bool, ranks: int) -> None:
    """A folder of small random tables: ragged, with missing corners, and times that may fall."""
    rng = np.random.default_rng(seed)

    def some(values: list[int], least: int = 1) -> list[int]:
        chosen = rng.choice(values, int(rng.integers(least, len(values) + 1)), replace=False)
        return sorted(int(value) for value in chosen)

    def time_us() -> float:
        return float(np.round(rng.uniform(0, 3), 4))

    def rising(values: list[float]) -> list[float]:
        return sorted(
            rng.choice(values, int(rng.integers(1, len(values) + 1)), replace=False).tolist()
        )

    dense = ["embedding", "norm", "mlp"]
    rows = [(name, t, time_us()) for name in dense for t in some([1, 2, 3, 5, 8, 20])]
    pd.DataFrame(rows, columns=["layer", "tokens", "time_us"]).to_csv(
        folder / "dense.csv", index=False
    )
    rows = [(name, n, time_us()) for name in ("head", "sampler") for n in some([1, 2, 4])]
    frame = pd.DataFrame(rows, columns=["layer", "sequences", "time_us"])
    frame.to_csv(folder / "per_sequence.csv", index=False)
    pairs = [(chunk, n) for chunk in some([0, 2, 5, 9]) for n in some([0, 1, 2, 4])]
    slope = float(rng.choice([0, 0.1, 0.5]))
    surface = [
        (chunk, cached, n, each, round(time_us() + each * slope, 4))
        for chunk, n in pairs
        for cached in some([0, 4, 9, 30])
        for each in some([0, 3, 8, 16, 40])
    ]
    names = ["prefill_chunk", "kv_prefill", "n_decode", "kv_decode", "time_us"]
    pd.DataFrame(surface, columns=names).to_csv(folder / "attention.csv", index=False)
    bounds = {
        "n_upper": rising([1, 2, 4, 1000]),
        "skew_rate_upper": rising([0.05, 0.4, 0.7, 1.01]),
        "kv_big_upper": rising([8, 20, 10**9]),
        "kp_upper": rising([0, 10, 10**9]),
    }
    shape = [len(upper) for upper in bounds.values()]
    keys = {
        (int(rng.choice([0, 0, 0, 2, 5])), *(int(rng.integers(n)) for n in shape))
        for _ in range(30)
    }
    alpha = [(*key, float(rng.choice([0, 0.03, 0.5137, 1.2, -0.1]))) for key in sorted(keys)]
    buckets = ["pc", "n_bucket", "rate_bucket", "kvmax_bucket", "kp_bucket", "alpha"]
    pd.DataFrame(alpha, columns=buckets).to_csv(folder / "skew_alpha.csv", index=False)
    default = float(rng.choice([0, 0.0317, 0.333]))
    run = {
        name: getattr(engine, name)
        for name in ("max_num_seqs", "max_num_batched_tokens", "num_blocks", "block_size")
    } | {
        "prefix_caching": engine.prefix_caching,
        "layers": int(rng.integers(1, 4)),
        **{"prologue": ["embedding"], "block": ["norm", "attention", "norm", "mlp"]},
        **{"head": ["norm", "head", "sampler"], "per_sequence_layers": ["head", "sampler"]},
        **{"host_bw_bytes_per_ns": float(rng.choice([0.7, 3, 50])), "tp": ranks},
        **{"hidden": 7, "dtype_bytes": 2, "link_bw_GiBps": 0.3, "link_latency_ns": 10.5},
        "npu_bw_bytes_per_ns": 3,
        "skew": {"enabled": skew, "alpha_default": default, **bounds},
    }
    (folder / "run.json").write_text(json.dumps(run))
