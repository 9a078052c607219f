"""Generated requests look like the trace that they were made from, and a seed means the same."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beta_jax import load_trace
from beta_jax.llm import LLMError, TokenRequests
from beta_jax.llm.lengths import LENGTHS, TokenLengths, deviation, main
from beta_jax.llm.traffic import (
    FittedTraffic,
    GeneratedTraffic,
    ReplayedTraffic,
    traffic_of,
)

CONVERSATION = LENGTHS["azure_conversation"]


@pytest.fixture(scope="module")
def trace_file(shared: Path) -> Path:
    return shared / "data" / "traces" / "AzureLLMInferenceTrace_conv.csv"


def write_trace(path: Path, number: int = 300) -> Path:
    """Ten minutes with a request every two seconds; answers are half as long as prompts."""
    stamps = (f"{2 * i // 60:02}:{2 * i % 60:02}.5" for i in range(number))
    rows = (f"2023-11-16 18:{stamp},{10 + i},{5 + i // 2}" for i, stamp in enumerate(stamps))
    path.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows]))
    return path


def test_the_law_that_ships_is_that_of_the_trace(trace_file):
    """Means within 1 %, distributions within 4 %, those of sums and products included."""
    trace = load_trace(trace_file, cache=False)
    pair = trace.prompt_tokens, trace.answer_tokens
    assert TokenLengths.fit(*pair) == CONVERSATION
    found = deviation(CONVERSATION, *pair)
    assert all(abs(value) < (0.01 if "mean" in name else 0.04) for name, value in found.items())
    # Without the dependence, sums would be far off.
    alone = np.sort(trace.prompt_tokens), np.random.default_rng(0).permutation(trace.answer_tokens)
    assert deviation(TokenLengths.fit(*alone), *pair)["largest distance, prompt + answer"] > 0.15


def test_the_command_prints_the_law(tmp_path, capsys):
    assert main([str(write_trace(tmp_path / "trace.csv"))]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("TokenLengths(prompt_tokens=(10, 13, ") and "mean answer" in printed
    (tmp_path / "other.csv").write_text("arrival_s,model\n1,a\n")
    assert main([str(tmp_path / "other.csv")]) == 1
    assert "other.csv: has no prompt and answer tokens" in capsys.readouterr().err


@given(seed=st.integers(0, 2**31), number=st.integers(0, 50), more=st.integers(0, 50))
def test_lengths_are_within_the_law_and_the_first_do_not_depend_on_how_many(seed, number, more):
    prompt, answer = CONVERSATION.sample(number + more, seed=seed)
    few = CONVERSATION.sample(number, seed=seed)
    assert (prompt[:number] == few[0]).all() and (answer[:number] == few[1]).all()
    assert prompt.dtype == answer.dtype == np.int32
    assert ((prompt >= 2) & (prompt <= 14050)).all() and ((answer >= 7) & (answer <= 1000)).all()


def test_generated_traffic_has_its_rate_and_keeps_its_requests_at_another():
    traffic = GeneratedTraffic(5.5)
    one, twice = traffic.sample(3), traffic.sample(3, 2.0)
    assert len(one) == pytest.approx(19800, rel=0.02)
    assert len(twice) == pytest.approx(39600, rel=0.02)
    assert (twice.input_tokens[: len(one)] == one.input_tokens).all()
    np.testing.assert_allclose(2 * twice.arrival_ns[: len(one)], one.arrival_ns, atol=2)
    assert (traffic.sample(4).arrival_ns[:9] != one.arrival_ns[:9]).any()


def test_traffic_of_a_trace(tmp_path):
    trace = load_trace(write_trace(tmp_path / "trace.csv"), cache=False)
    replayed = traffic_of(trace, replay=True)
    assert isinstance(replayed, ReplayedTraffic)
    assert replayed.rate_rps == pytest.approx(0.5) and len(replayed.requests) == 300
    assert replayed.requests.input_tokens[-1] == 309
    assert replayed.sample(0, 2.0).arrival_ns[-1] == replayed.requests.arrival_ns[-1] // 2
    fitted = traffic_of(trace, window_s=300, cv_scale=2)
    assert isinstance(fitted, FittedTraffic)
    assert fitted.rate_rps == pytest.approx(0.5, rel=0.05)
    drawn = fitted.sample(0)
    assert 200 < len(drawn) < 400 and drawn.arrival_ns[0] < 60e9
    assert (np.abs(drawn.output_tokens - drawn.input_tokens / 2) < 30).all()


def test_a_table_of_rates_has_the_lengths_that_are_given(tmp_path):
    (tmp_path / "rates.csv").write_text(
        "client,timestamp_s,rate,cv\na,0,2,1\na,600,1,1\nb,0,1,3\nb,600,1,3\n"
    )
    trace = load_trace(tmp_path / "rates.csv", cache=False)
    traffic = traffic_of(trace, lengths=CONVERSATION)
    assert traffic.rate_rps == 2.5
    assert len(traffic.sample(0)) == pytest.approx(3000, rel=0.1)
    with pytest.raises(LLMError, match=r"rates\.csv: has no prompt and answer tokens"):
        traffic_of(trace)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GeneratedTraffic(0), "rate_rps must be > 0 and finite, got 0"),
        (lambda: GeneratedTraffic(1, duration_s=float("nan")), "duration_s must be > 0"),
        (lambda: GeneratedTraffic(1, cv=-1), "CV of gamma arrivals must be in"),
        (lambda: GeneratedTraffic(1, process="weibull"), "process must be one of gamma"),
        (lambda: TokenLengths.fit([1], [1]), "needs 100 requests or more"),
        (lambda: TokenLengths((1, 2), ()), "prompt_tokens: wanted 1 x 25 quantiles"),
        (
            lambda: dataclasses.replace(CONVERSATION, prompt_tokens=(0,) * 25),
            "quantiles are tokens, from 1",
        ),
        (lambda: ReplayedTraffic(TokenRequests([5], [1], [1])), "at two times or more"),
    ],
)
def test_what_makes_no_sense_is_a_line(make, message):
    with pytest.raises(LLMError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_zero_tokens_of_a_trace_name_their_row(tmp_path):
    path = write_trace(tmp_path / "trace.csv")
    path.write_text(path.read_text().replace(",11,5", ",11,0"))
    with pytest.raises(LLMError, match=r"trace\.csv: row 1: output_tokens is 0, wanted 1 or more"):
        traffic_of(load_trace(path, cache=False), replay=True)
