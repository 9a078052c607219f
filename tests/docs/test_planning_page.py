"""Every line of docs/planning.md works as it stands there, and says what the page says."""

from __future__ import annotations

from pathlib import Path

import pytest

import documents


@pytest.mark.slow
def test_from_a_log_and_two_profiles_to_an_answer(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    printed = documents.walk("docs/planning.md")
    shown = [*documents.blocks("docs/planning.md")]
    (line,) = [block.text for block in shown if block.kind == "text"]
    assert printed[-1] == line, "the script prints what the command does"
    figures = ("plan/plan_devices", "reach/plan_rate", "reach/plan_slo", "generated/plan_devices")
    assert all(Path(f"results/{name}.png").stat().st_size > 10_000 for name in figures)
    assert Path("placement.json").read_text() == Path("results/plan/placement.json").read_text()
