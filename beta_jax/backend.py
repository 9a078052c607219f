"""How JAX is set up: 64-bit integers, XLA flags that compile the event loop well on a CPU, and a
cache of compiled programs that outlives the process.

Importing this module is enough; everything that runs JAX imports it first. XLA reads its flags
once, when the first array is made, so they are appended here (never overriding the user's) and a
warning says when that came too late.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import sys
import warnings
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

VERSION = tuple(int(part) for part in metadata.version("jaxlib").split(".")[:2])
# Before 0.11, two errors are logged for each program loaded from the cache, although it runs (jax
# issue 38445). Logging can be turned down only before JAX is imported; else the cache stays off.
CACHE_IS_NOISY = VERSION < (0, 11)
if CACHE_IS_NOISY and "jax" not in sys.modules:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    CACHE_IS_NOISY = os.environ["TF_CPP_MIN_LOG_LEVEL"] != "3"

import jax
import jaxlib

from beta_jax.cache_folder import cache_folder

CPU_FLAGS = (
    # Compile the whole event loop into one function instead of one call per operation and step.
    ("xla_cpu_small_while_loop_byte_threshold", "--xla_backend_extra_options={}=1000000000"),
    # Use the full width of AVX-512, where the machine has it, for the clocks of 8 lanes at once.
    ("xla_cpu_prefer_vector_width", "--{}=512"),
)
# XLA aborts the process on a flag it does not know, so only versions seen to know them get them.
FLAGS_KNOWN_FROM, FLAGS_KNOWN_BEFORE = (0, 9), (0, 12)


def instruction_set() -> str:
    """The processor and the instructions it has, in the words of the operating system."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return f"{platform.machine()} {platform.processor()} {flags}"


WIDE_VECTORS = " avx512f" in instruction_set()
"""Whether the CPU handles eight clocks at once, with instructions for their minimum."""


def _append_cpu_flags() -> None:
    if not FLAGS_KNOWN_FROM <= VERSION < FLAGS_KNOWN_BEFORE:
        warnings.warn(
            f"beta_jax: CPU flags not set for untested jaxlib {jaxlib.__version__}", stacklevel=3
        )
        return
    present = os.environ.get("XLA_FLAGS", "")
    missing = [template.format(name) for name, template in CPU_FLAGS if name not in present]
    if missing and jax._src.xla_bridge.backends_are_initialized():
        warnings.warn(
            "JAX started before beta_jax.simulator was imported, so its CPU flags have no effect: "
            "results are the same, simulation is several times slower",
            stacklevel=3,
        )
    os.environ["XLA_FLAGS"] = " ".join([present, *missing]).strip()


def _keep_compiled_programs() -> None:
    """Cache compiled programs in the user's cache directory, unless the user has chosen another."""
    if CACHE_IS_NOISY or jax.config.values["jax_compilation_cache_dir"] is not None:
        return
    # Programs for the CPU use its instruction set: machines that share a home must not share them.
    machine = hashlib.sha256(instruction_set().encode()).hexdigest()[:12]
    jax.config.update("jax_compilation_cache_dir", str(cache_folder() / f"programs-{machine}"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


jax.config.update("jax_enable_x64", True)
_append_cpu_flags()
_keep_compiled_programs()


@contextlib.contextmanager
def on_cpu() -> Iterator[None]:
    """What follows in this thread runs on the CPU, whatever JAX's default device is.

    XLA's loops of small steps start several kernels a step on a GPU, and take as long for one lane
    as for many; so all but launches, which name their device, runs here. Nothing changes where the
    user's JAX_PLATFORMS leaves the CPU out.
    """
    if jax.default_backend() == "cpu":
        yield
        return
    try:
        device = jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        device = None
    with jax.default_device(device):
        yield


def forget_programs() -> None:
    """Free what compiled programs take in memory; those needed again come from the cache on disk.

    Of all that JAX compiled in this process, whoever asked for it.
    """
    jax.clear_caches()
