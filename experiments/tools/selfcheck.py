"""Simulates on this machine what has an exact answer, and compares."""

from __future__ import annotations

import dataclasses
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from experiments.engine import files
from experiments.engine.timing import Stopwatch
from experiments.experiment import Task
from experiments.report import figures, tables

if TYPE_CHECKING:
    from beta_jax.theory.systems import Comparison

FILES = ("selfcheck.csv", *figures.files_of("selfcheck"))
STANDARD_ERRORS = 4.0
"""By chance an average differs by more once in 4000 times, with 48 replications."""
PASS, FAIL = "pass", "FAIL"


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
        if self.seed < 0:
            raise ValueError(f"seed must be >= 0, got {self.seed}")


def execute(config: Config, directory: Path, stopwatch: Stopwatch) -> None:
    """Print and write the table; raises SelfCheckError if anything is wrong."""
    with stopwatch.imports():
        import jax

        from beta_jax.simulator import SIMULATOR_VERSION
        from beta_jax.theory import systems
        from experiments.tools import exact_equalities
    devices = ", ".join(sorted({device.device_kind for device in jax.devices()}))
    print(
        f"JAX {jax.__version__} on {jax.default_backend()} ({devices}), "
        f"Python {platform.python_version()}, simulator version {SIMULATOR_VERSION}\n"
    )
    with stopwatch.part("theory"):
        known = systems.averages()
    with stopwatch.part("simulate"):
        averages = systems.compare(known, config.replications, config.duration_s, config.seed)
        equalities = exact_equalities.compare(known, config.seed)
    found = [*averages, *equalities]
    rows = [one._asdict() | {"verdict": PASS if passes(one) else FAIL} for one in found]
    files.write(directory / FILES[0], tables.to_csv(rows))
    for part in (rows[: len(averages)], rows[len(averages) :]):
        shown = [{k: v for k, v in row.items() if v is not None} for row in part]
        print(f"{tables.to_text(shown)}\n")
    failed = [one for one in found if not passes(one)]
    if failed:
        draw(directory)  # the figure of an earlier run would say otherwise
        names = [f"{one.case}: {one.quantity}" for one in failed]
        by_chance = len(failed) == 1 and failed[0].difference_in_se is not None
        raise SelfCheckError(
            f"{len(failed)} of {len(rows)} checks failed: {'; '.join(names[:3])}"
            f"{', ...' * (len(failed) > 3)}; "
            + (
                "one average may be off by chance: look at it with --config.seed=1000"
                if by_chance
                else "results of this installation cannot be trusted"
            )
        )
    print(f"all {len(rows)} checks passed")


def passes(found: Comparison) -> bool:
    """Whether an average is near enough to its exact value, or an equality holds."""
    if found.difference_in_se is None:
        return found.simulated == found.exact
    return abs(found.difference_in_se) <= STANDARD_ERRORS


def draw(directory: Path) -> list[Path]:
    """How far averages are from their exact values, in standard errors, a row each."""
    columns = dict.fromkeys(("case", "quantity", "difference_in_se", "verdict"), str)
    table = tables.read_csv(directory / FILES[0], columns)
    rows = [row for row in table if row["difference_in_se"]]
    limit = STANDARD_ERRORS
    with figures.style():
        figure = figures.new_figure(7.0, 0.21 * len(rows) + 1.0)
        axes = figure.subplots()
        axes.axvspan(-limit, limit, color="0.93", zorder=0)
        axes.axvline(0, color="0.5", linewidth=0.8, zorder=1)
        for y, row in enumerate(rows):
            score, failed = float(row["difference_in_se"]), row["verdict"] != PASS
            axes.plot(
                max(min(score, 1.5 * limit), -1.5 * limit),
                y,
                marker="X" if failed else "o",
                color=figures.BETA_COLOUR if failed else figures.COLOURS[0],
                markersize=7 if failed else 5,
            )
        axes.set_yticks(range(len(rows)), [f"{r['case']}: {r['quantity']}" for r in rows])
        axes.set(ylim=(len(rows) - 0.5, -0.5), xlim=(-1.6 * limit, 1.6 * limit))
        axes.set_xlabel("Simulated minus exact (standard errors)")
        axes.tick_params(axis="y", length=0)
        grey = f"grey: within {limit:g} standard errors, passes"
        figures.add_note(
            figure, [grey, "all systems met the same traffic, so differences go together"]
        )
        return figures.save(figure, directory / "selfcheck")


TASK = Task(files=FILES, run=execute, draw=draw)
