"""The example of engines runs: more blocks stand no less."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_more_blocks_stand_no_less(capsys: pytest.CaptureFixture[str]):
    main = runpy.run_path(str(ROOT / "examples" / "llm_engines.py"))["main"]
    main(["--seeds=2", "--duration_s=60", "--budgets=2048", "--blocks=1000,4000"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["budget", "blocks", "rate", "interval"]
    few, many = (float(line[2]) for line in lines[1:])
    assert few <= many
