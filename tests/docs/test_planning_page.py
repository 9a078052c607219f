"""Every line of docs/planning.md works as it stands there, and says what the page says."""

from __future__ import annotations

import re
import shlex
import time
from pathlib import Path

import pytest

import run

import documents

PAGE = "docs/planning.md"


@pytest.mark.slow
def test_from_a_log_and_two_profiles_to_an_answer(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = (documents.ROOT / PAGE).read_text()
    (prepare, plan) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (pools,) = re.findall(r"```csv\n(.*?)```", text, re.DOTALL)
    (line,) = re.findall(r"```text\n(.*?)```", text, re.DOTALL)
    exec(compile(prepare, PAGE, "exec"), {})
    Path("pools.csv").write_text(pools)
    commands = re.findall(r"^    (\S.*run\.py.*)$", text.replace("\\\n", " "), re.MULTILINE)
    assert len(commands) == 5
    printed = []
    for command in commands:
        interpreter, *words = shlex.split(command)
        assert interpreter == ".venv/bin/python"
        assert run.main(words, time.perf_counter()) == 0, capsys.readouterr().err
        printed.append(capsys.readouterr().out)
    assert line in printed[0]
    figures = ("plan/plan_devices", "reach/plan_rate", "reach/plan_slo", "generated/plan_devices")
    assert all(Path(f"results/{name}.png").stat().st_size > 10_000 for name in figures)
    monkeypatch.setattr("beta_jax.read_requests", _shipped())
    exec(compile(plan, PAGE, "exec"), {})
    assert capsys.readouterr().out == line
    assert Path("placement.json").read_text() == Path("results/plan/placement.json").read_text()


def _shipped():
    """The page's paths are of the repository, the test runs elsewhere."""
    from beta_jax import read_requests

    return lambda path, names: read_requests(documents.ROOT / path, names)
