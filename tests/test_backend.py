"""How importing the package sets up JAX, each case in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

REPORT = """
import json, os, warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    {before}
    import beta_jax.simulator
import jax
print(json.dumps([
    os.environ.get("XLA_FLAGS", ""),
    jax.config.values["jax_compilation_cache_dir"],
    jax.config.jax_enable_x64,
    [str(warning.message) for warning in caught],
]))
"""


def report(before: str = "pass", **environment: str) -> Any:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("XLA", "JAX", "TF_CPP"))}
    done = subprocess.run(
        [sys.executable, "-c", REPORT.format(before=before)],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_flags_cache_and_64_bits(tmp_path):
    flags, cache, x64, warnings = report(XDG_CACHE_HOME=str(tmp_path))
    assert "xla_cpu_small_while_loop_byte_threshold=1000000000" in flags
    assert "--xla_cpu_prefer_vector_width=512" in flags
    assert cache.startswith(str(tmp_path / "beta_jax" / "programs-"))
    assert x64 and warnings == []


def test_the_users_choices_stay():
    own = "--xla_cpu_prefer_vector_width=256 --xla_cpu_enable_fast_math=false"
    flags, cache, _, _ = report(XLA_FLAGS=own, JAX_COMPILATION_CACHE_DIR="/nowhere")
    assert flags.startswith(own) and "512" not in flags and "small_while_loop" in flags
    assert cache == "/nowhere"


def test_too_late_is_said():
    *_, warnings = report("import jax; jax.devices()")
    assert len(warnings) == 1 and "JAX started before beta_jax" in warnings[0]


def test_an_untested_version_gets_no_flags():
    """XLA aborts the process on a flag that it does not know."""
    fake = "from importlib import metadata; metadata.version = lambda name: '0.99.0'"
    flags, *_, warnings = report(fake)
    assert "xla_cpu" not in flags
    assert len(warnings) == 1 and "untested jaxlib" in warnings[0]


@pytest.mark.parametrize(
    "module", ["beta_jax", "beta_jax.placement.placement", "beta_jax.workloads.synthesis"]
)
def test_modules_without_simulation_do_not_load_jax(module: str):
    code = f"import sys, {module}; sys.exit('jax' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


PRETENDED_GPU = """
import json, sys
import beta_jax.search, beta_jax.simulator
import jax
from beta_jax.search.local import climb
from instances import mixed_problem

programs = {}

def watched(name, program):
    def call(*args, **kwargs):
        found = program(*args, **kwargs)
        arrays = jax.tree.leaves(found)
        if not any(isinstance(array, jax.core.Tracer) for array in arrays):
            programs.setdefault(name, set()).update(d.id for a in arrays for d in a.devices())
        return found
    return call

for name, module in list(sys.modules.items()):
    for attribute, value in list(vars(module).items()) if name.startswith("beta_jax.") else ():
        if isinstance(value, type(jax.jit(abs))):
            setattr(module, attribute, watched(value.__name__, value))

climb._take = watched("_take", climb._take)  # which no program is, but what children come from
jax.config.update("jax_default_device", jax.devices()[1])
jax.default_backend = lambda: sys.argv[1]
problem = mixed_problem()
workload = beta_jax.synthesize(problem.models, duration_s=20, seed=1)
found = beta_jax.place("local-search", problem, workload, budget_simulations=200)
beta_jax.simulate(problem, found.placement, workload)
print(json.dumps({name: sorted(devices) for name, devices in programs.items()}))
"""


@pytest.mark.parametrize("backend, device", [("gpu", 0), ("cpu", 1)])
def test_where_the_default_is_a_gpu_all_runs_on_the_cpu(backend: str, device: int):
    """Of two virtual devices the second is JAX's default and passes for a GPU, or for what it is:
    a CPU of the user's choice."""
    done = subprocess.run(
        [sys.executable, "-c", PRETENDED_GPU, backend],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    programs = json.loads(done.stdout)
    assert {"run_block", "_count", "_fill", "children", "_take"} <= set(programs)
    assert programs == {name: [device] for name in programs}
