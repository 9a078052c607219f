"""What a run will take, said before it takes it, and a refusal of what cannot fit."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from experiments.engine.scenarios import BaseScenario

BASE_BYTES, BYTES_PER_REQUEST, BYTES_PER_OUTCOME = 0.3e9, 80, 120
"""Of a process that has compiled; of the longest workload; of what is simulated at once.

Above what was measured (0.24 GB; 2 million requests: 0.53 GB, three policies: 1.02 GB); a test
holds them to that.
"""
MAX_REQUESTS = 2**30
"""Of one workload: the engine counts them in 32 bits, padded."""
LONG_S = 10.0
"""What takes longer is forecast."""
SURE = 0.1
"""Of a run's time, after which the forecast is repeated: by then it knows all policies."""

Sizes = Mapping[BaseScenario, float]
"""The expected number of requests of each scenario's test traffic."""


class ForecastError(ValueError):
    """A run that cannot fit this machine."""


def peak_bytes(longest: float, at_once: float) -> float:
    """Memory that the process will need if it holds `at_once` outcomes, or one longest workload."""
    return BASE_BYTES + BYTES_PER_REQUEST * longest + BYTES_PER_OUTCOME * max(at_once, longest)


def check(sizes: Sizes) -> None:
    """Raise ForecastError, naming what to change, if the largest scenario cannot fit."""
    if not sizes:
        return
    largest = max(sizes, key=lambda scenario: sizes[scenario])
    longest = sizes[largest]
    needed, free = peak_bytes(longest, 0), free_bytes()
    if longest <= MAX_REQUESTS and needed <= free:
        return
    raise ForecastError(
        f"{largest.traffic} are {longest:.3g} requests, which need {needed / 1e9:.3g} GB of "
        f"memory; {free / 1e9:.3g} GB are free and {MAX_REQUESTS:.2g} requests the most: use lower "
        "rates or shorter traffic, and raise seeds instead"
    )


def free_bytes() -> float:
    """Memory that this process may still take, of the machine's or of its container's."""
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = float(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        free = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    try:
        group = Path("/sys/fs/cgroup")
        limit = float((group / "memory.max").read_text())  # "max" where there is none
        free = min(free, limit - float((group / "memory.current").read_text()))
    except (OSError, ValueError):
        pass
    return free


def announce(num_cases: int, num_stored: int, sizes: Sizes, at_once: float) -> str:
    """The line before the first block."""
    requests, memory = sum(sizes.values()), peak_bytes(max(sizes.values()), at_once)
    return (
        f"{num_cases} results to compute, {num_stored} are stored; traffic of some {requests:.3g} "
        f"requests, up to {memory / 1e9:.1f} GB of memory"
    )


class Forecast(NamedTuple):
    """What is left of a run: by the blocks that have run, compiling left out.

    share: of the time that the results take in all, what is spent.
    """

    num_cases: int
    num_simulations: float
    num_events: float
    seconds: float
    share: float

    def __str__(self) -> str:
        return (
            f"{self.num_cases} results to go: some {self.num_simulations:.3g} simulations of "
            f"{self.num_events:.3g} events, {self.seconds:.0f} s at "
            f"{self.num_events / max(self.seconds, 1e-9) / 1e6:.3g} million events/s"
        )
