"""The command that measures a GPU, where there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import gpu

ROOT = Path(__file__).resolve().parents[1]


def test_without_a_gpu_it_says_so_and_what_to_install():
    done = subprocess.run(
        [sys.executable, "benchmarks/gpu.py"],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and not done.stdout
    assert done.stderr == f"error: {gpu.NO_GPU}\n"


@pytest.mark.slow
def test_it_holds_the_kernel_to_the_cpu():
    [row] = gpu.throughput((4, 2, 24), rehearse=True)
    assert min(row["kernel"], row["loop"], row["cpu"]) > 0
    case = gpu.Case((4, 2, 24), 128, 64)
    kernel, cpu = case.kernel(256)(), case.cpu(256)()
    assert [array.shape for array in kernel] == [(24, 128)] * 2
    assert all((a == b).all() for a, b in zip(kernel, cpu, strict=True))
    assert 0 < kernel[0].sum() < 64 * 128
