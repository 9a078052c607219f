"""One engine on the host against the oracle, which serves it step by step."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from beta_jax.llm import load_run, save_token_requests, simulate

import reference_llm
from llm_runs import PS, cases, reference, require_equal, write_tables


@settings(max_examples=100, deadline=None)
@given(cases())
def test_a_linear_engine_is_the_oracles(case):
    requests, engine = case
    require_equal(simulate(requests, engine), reference(requests, engine), 1)


@settings(max_examples=50, deadline=None)
@given(
    cases() | cases(crowded=True), st.integers(0, 2**32 - 1), st.booleans(), st.sampled_from([1, 2])
)
def test_an_engine_by_tables_is_the_oracles(case, seed, skew, ranks):
    requests, engine = case
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_tables(folder, seed, engine, skew=skew, ranks=ranks)
        save_token_requests(requests, folder / "requests.csv")
        requests, engine = load_run(folder)
        wanted = reference(requests, engine, reference_llm.Tables(folder))
    require_equal(simulate(requests, engine), wanted, PS)
