"""The scripts in `examples/` run, and print the same on any number of devices."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_sweep_prints_the_same_on_one_device_and_on_two(monkeypatch, capsys):
    argv = ["examples/gpu_sweep.py", "--placements=8", "--seeds=3"]
    monkeypatch.setattr(sys, "argv", argv)
    runpy.run_path(str(ROOT / argv[0]), run_name="__main__")
    printed = capsys.readouterr().out
    flags = "--xla_force_host_platform_device_count=2"
    done = subprocess.run(
        [sys.executable, *argv],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == printed
    assert "in 240 simulations" in printed
    rows = [list(map(float, re.findall(r"([\d.]+)%", line))) for line in printed.splitlines()[2:]]
    assert len(rows) == 10 and {len(row) for row in rows} == {4}
    for columns in zip(*rows, strict=True):  # of the same traffic, longer SLOs
        assert list(columns) == sorted(columns)
