"""A figure is the same on any number of devices."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import run
from experiments.engine.store import FILE
from experiments.report import results

ROOT = Path(run.__file__).parent
FIGURE = ["--config=sec6_3:smoke", "--config.rates=2,8", "--config.cvs=4", "--config.slo_scales="]


@pytest.mark.slow
def test_a_figure_is_the_same_on_two_devices(tmp_path):
    assert run.main(["run.py", *FIGURE, f"--out_dir={tmp_path / 'one'}"], time.perf_counter()) == 0
    flags = "--xla_force_host_platform_device_count=2"
    subprocess.run(
        [sys.executable, "run.py", *FIGURE, f"--out_dir={tmp_path / 'two'}"],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}"},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    assert len(json.loads((tmp_path / "two" / "run.json").read_text())["devices"]) == 2
    for name in (*results.FILES, FILE):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
