"""Runs panel groups: prints what each comes to, and gives its tables as soon as it is complete."""

from __future__ import annotations

from collections.abc import Iterator

from experiments.engine.executor import Executor
from experiments.engine.store import Store
from experiments.engine.timing import Stopwatch
from experiments.paper.sec3 import costs, pooling, sweeps, two_models
from experiments.paper.sec3.config import GROUPS, Config
from experiments.report import tables
from experiments.report.tables import Row


def run(
    config: Config, store: Store, stopwatch: Stopwatch, executor: Executor
) -> Iterator[tuple[str, list[Row]]]:
    """Name and rows of every table of the groups asked for."""
    for name in dict.fromkeys(config.groups):
        made, shown = _make(name, config, store, stopwatch, executor)
        print(f"{GROUPS[name]}\n{tables.to_text(shown)}\n", flush=True)
        yield from made.items()


def _make(
    name: str, config: Config, store: Store, stopwatch: Stopwatch, executor: Executor
) -> tuple[dict[str, list[Row]], list[Row]]:
    """The tables of a group, and what is printed of them."""
    if name == "two_models":
        made = two_models.run(config, stopwatch)
        return made, two_models.shown(made[name])
    if name == "theory":
        made = pooling.run(config, stopwatch)
        return made, made[name]
    if name in costs.TABLES:
        rows = costs.TABLES[name](config)
        return {name: rows}, costs.shown(rows)
    rows, shown = sweeps.run(name, config, store, stopwatch, executor)
    return {name: rows}, shown
