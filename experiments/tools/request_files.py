"""Files of requests: whom they ask for, what of them placements are made for, what tests them."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from beta_jax.types import Workload
from beta_jax.workloads.requests import WorkloadError


def model_names(path: Path, further: Iterable[str] = ()) -> list[str]:
    """The models that a file of requests names, and further ones; `m2` comes before `m10`.

    The file is not checked. Raises WorkloadError for one that is no CSV at all.
    """
    with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
        rows = csv.reader(file)
        try:
            header = [name.strip() for name in next(rows, [])]
            column = header.index("model") if "model" in header else len(header)
            names = {row[column].strip() for row in rows if len(row) > column} | {*further}
        except csv.Error as error:
            raise WorkloadError(f"{path}, line {rows.line_num}: {error}") from None
    parts = {name: re.split(r"(\d+)", name) for name in names}
    return sorted(names, key=lambda name: [int(p) if p.isdecimal() else p for p in parts[name]])


def span_s(requests: Workload) -> float:
    """Seconds from the first arrival to the last; 0 for no requests."""
    return float(requests.arrival_s[-1] - requests.arrival_s[0]) if len(requests) else 0.0


def split(requests: Workload, share: float) -> tuple[Workload, Workload]:
    """The requests before the last `share` of their time, and those in it.

    Raises ValueError for a share that is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise ValueError(f"test_share, the part to test on, must be in (0, 1), got {share:g}")
    (cut,) = _cuts(requests, [1 - share])
    return requests.part(0, cut), requests.part(cut, len(requests))


def slices(requests: Workload, count: int) -> list[Workload]:
    """The requests in slices of equal time. Raises ValueError for less than one, and empty ones."""
    if count < 1:
        raise ValueError(f"there must be 1 slice of the training requests or more, got {count}")
    cuts = [0, *_cuts(requests, np.arange(1, count) / count), len(requests)]
    parts = [requests.part(begin, end) for begin, end in itertools.pairwise(cuts)]
    if empty := [number for number, part in enumerate(parts, 1) if not len(part)]:
        raise ValueError(
            f"slice {empty[0]} of {count} of the training requests, which span "
            f"{span_s(requests):g} s, has no requests"
        )
    return parts


def _cuts(requests: Workload, shares: Iterable[float]) -> list[int]:
    """How many requests arrive in the first shares of the time."""
    first, last = requests.arrival_s[[0, -1]] if len(requests) else (0.0, 0.0)
    times = [first + share * (last - first) for share in shares]
    return np.searchsorted(requests.arrival_s, times).tolist()
