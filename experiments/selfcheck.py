"""Simulates on this machine what has an exact answer, and compares."""

from __future__ import annotations

import dataclasses
import platform
from pathlib import Path
from typing import Annotated, Any

from experiments import output, tables
from experiments.figures import draw_scores
from experiments.timing import Stopwatch

FILES = ("selfcheck.csv", "selfcheck.pdf", "selfcheck.png")


class SelfCheckError(ValueError):
    """Something simulated is not what it must be."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """How much is simulated; the systems are fixed."""

    replications: Annotated[int, "independent simulations of every system, at least 16"] = 48
    duration_s: Annotated[float, "of each, at one request per second; at least 2000"] = 10_000.0
    seed: Annotated[int, "of the first; the next ones follow"] = 0

    def __post_init__(self) -> None:
        if self.replications < 16:
            raise ValueError(f"standard errors need >= 16 replications, got {self.replications}")
        if not 2000 <= self.duration_s <= 1e6:
            raise ValueError(f"duration_s must be in [2000, 1e6] s, got {self.duration_s:g}")


def execute(config: Config, directory: Path, stopwatch: Stopwatch) -> None:
    """Print and write the table; raises SelfCheckError if anything is wrong."""
    with stopwatch.imports():
        import jax

        from beta_jax.simulator import SIMULATOR_VERSION
        from experiments import exact_cases, exact_equalities
    devices = ", ".join(sorted({device.device_kind for device in jax.devices()}))
    print(
        f"JAX {jax.__version__} on {jax.default_backend()} ({devices}), "
        f"Python {platform.python_version()}, simulator version {SIMULATOR_VERSION}\n"
    )
    with stopwatch.part("simulate"):
        averages = exact_cases.compare(
            exact_cases.cases(), config.replications, config.duration_s, config.seed
        )
        equalities = exact_equalities.compare(config.seed)
    rows: list[dict[str, Any]] = [*averages, *equalities]
    output.write(directory / FILES[0], tables.to_csv(rows))
    for part in (averages, equalities):
        shown = [{k: v for k, v in row.items() if v is not None} for row in part]
        print(f"{tables.to_text(shown)}\n")
    failed = [
        f"{row['case']}: {row['quantity']}" for row in rows if row["verdict"] == exact_cases.FAIL
    ]
    if failed:
        raise SelfCheckError(
            f"{len(failed)} of {len(rows)} checks failed: {'; '.join(failed[:3])}"
            f"{', ...' * (len(failed) > 3)}; results of this installation cannot be trusted"
        )
    print(f"all {len(rows)} checks passed")


def draw(directory: Path) -> list[Path]:
    return draw_scores(directory / FILES[0], directory / "selfcheck")
