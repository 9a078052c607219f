"""Runs panel groups: their tables, as soon as each is complete."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from experiments import tables
from experiments.sec3 import two_models
from experiments.sec3.config import Config
from experiments.store import Store
from experiments.timing import Stopwatch


def run(
    config: Config, store: Store, stopwatch: Stopwatch
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Compute the groups asked for, print what they say, and yield (name, rows) of their tables."""
    for group in config.groups:
        match group:
            case "two_models":
                made = two_models.run(config, stopwatch)
                two_models.report(made["two_models"])
        yield from made.items()
