"""The linear model, fitted to steps that are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from beta_jax.llm import (
    Engine,
    LinearStepTime,
    LLMError,
    fit_linear,
    load_engine,
    random_steps,
    read_steps,
)

KNOWN = LinearStepTime(16_000_000_000, 83_000_000, 190_000, 44_000_000)
ENGINE = Engine(64, 512, 1000, KNOWN)


def test_a_linear_engine_is_found_again():
    shape = random_steps(ENGINE)
    fit = fit_linear(shape, KNOWN.step_ps(shape))
    assert fit.step_time == KNOWN
    assert fit.p90_error < 1e-9


def test_random_steps_are_such_as_the_engine_runs():
    shape = random_steps(ENGINE)
    assert shape.requests.min() >= 1 and shape.requests.max() <= 65
    assert shape.tokens.min() >= 1 and shape.tokens.max() <= 512
    assert shape.cached.max() <= 1000 * 16
    assert set(shape.prefill_tokens[shape.prefill_tokens > 0]) >= {2, 3, 4}
    assert (shape.prefill_tokens != 1).all()
    mean = shape.cached // np.maximum(shape.decodes, 1)
    assert (shape.least_cached <= mean).all() and (mean <= shape.most_cached).all()
    assert any((a != b).any() for a, b in zip(random_steps(ENGINE, seed=1), shape, strict=True))


def test_no_coefficient_is_negative():
    shape = random_steps(ENGINE)
    fit = fit_linear(shape, 10**9 / (1 + shape.decodes))
    assert fit.step_time.decode_ps == 0
    assert fit.median_error > 0.1


def test_errors_are_relative():
    shape = random_steps(ENGINE)
    alternating = np.where(np.arange(4000) % 2, 0.9, 1.1)
    fit = fit_linear(shape, KNOWN.step_ps(shape) * alternating)
    assert 0.09 < fit.median_error < 0.12
    assert fit.step_time.base_ps == pytest.approx(KNOWN.base_ps, rel=0.05)


def test_tables_of_a_device_give_the_published_coefficients(shared: Path):
    """Nanoseconds 1.632e7, 83427, 188.7 and 44107: of other random steps, so not the same."""
    engine = load_engine(shared / "data" / "llm" / "rtx4090-llama8b")
    shape = random_steps(engine)
    found = fit_linear(shape, engine.step_time.step_ps(shape))
    assert found.step_time.base_ps == pytest.approx(1.632e10, rel=0.01)
    assert found.step_time.prefill_token_ps == pytest.approx(8.3427e7, rel=0.15)
    assert found.step_time.cached_token_ps == pytest.approx(1.887e5, rel=0.1)
    assert found.step_time.decode_ps == pytest.approx(4.4107e7, rel=0.1)
    assert found.median_error < 0.05


def test_measured_steps(tmp_path):
    path = tmp_path / "steps.csv"
    rows = [(0, 1000, 4), (100, 0, 0), (512, 3000, 9), (7, 16, 1), (0, 1000, 4)]
    times = [
        KNOWN.base_ps
        + KNOWN.prefill_token_ps * prefill
        + KNOWN.cached_token_ps * cached
        + KNOWN.decode_ps * decodes
        for prefill, cached, decodes in rows
    ]
    lines = [",".join(map(str, (*row, time / 1e6))) for row, time in zip(rows, times, strict=True)]
    header = "prefill_tokens,cached_tokens,decodes,time_us"
    path.write_text("\n".join([header, *lines]))
    assert fit_linear(*read_steps(path)).step_time == KNOWN
    path.write_text(f"{header}\n0,1,1,5\n")
    with pytest.raises(LLMError, match="1 steps, wanted 4 or more"):
        fit_linear(*read_steps(path))
    path.write_text("\n".join([header, *["1,0,0,0"] * 4]))
    with pytest.raises(LLMError, match="step 0 takes 0"):
        fit_linear(*read_steps(path))
