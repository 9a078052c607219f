"""The contracts in pyproject.toml catch who breaks them; `make check` says that nobody does."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LINT = "import sys; from importlinter.cli import lint_imports_command as lint; lint(sys.argv[1:])"


@pytest.fixture
def source(tmp_path) -> Path:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for name in ("beta_jax", "experiments", "configs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def lint(source: Path, contract: str) -> tuple[int, str]:
    command = [sys.executable, "-c", LINT, "--no-cache", f"--contract={contract}"]
    done = subprocess.run(
        command, cwd=source, env={"PYTHONPATH": str(source)}, capture_output=True, text=True
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    "contract, module, statement, complaint",
    [
        ("rooms", "beta_jax.types", "import beta_jax.search.result", "beta_jax.search.result"),
        (
            "rooms",
            "beta_jax.workloads.requests",
            "def later():\n    from beta_jax.traces import replay",
            "beta_jax.workloads.requests -> beta_jax.traces.replay",
        ),
        ("rooms", "beta_jax.profiles.stages", "import beta_jax", "beta_jax.profiles.stages ->"),
        ("rooms", "beta_jax.new_room", "", "new_room"),
        ("library", "beta_jax.search.result", "import experiments", "-> experiments"),
        ("library", "experiments.points", "from configs import sec3", "-> configs.sec3"),
        (
            "engine",
            "beta_jax.theory.systems",
            "from beta_jax.simulator.packing import pack_block",
            "beta_jax.theory.systems -> beta_jax.simulator.packing",
        ),
    ],
)
def test_an_import_against_the_order_is_caught(contract, module, statement, complaint, source):
    assert complaint not in lint(source, contract)[1]
    path = source / f"{module.replace('.', '/')}.py"
    with path.open("a") as file:
        file.write(f"\n{statement}\n")
    code, printed = lint(source, contract)
    assert code == 1 and complaint in printed


def test_the_engine_may_be_imported(source):
    (source / "beta_jax/simulator/engine.py").write_text("")
    before = lint(source, "engine")
    with (source / "beta_jax/theory/systems.py").open("a") as file:
        file.write("\nfrom beta_jax.simulator import engine, simulate\n")
    assert lint(source, "engine")[0] == before[0]
    assert "beta_jax.theory.systems" not in lint(source, "engine")[1]
