"""Names of model types: which ones a name that is not known may mean."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable

SIZE = re.compile(r"(\d+(?:\.\d+)?)b\b")
"""Billions of parameters, as in `bert-103.5b`."""


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """Names like this one, at most three: those of the nearest size first, if it has a size."""
    alike = difflib.get_close_matches(name, list(known), cutoff=0.5)
    if (size := _size(name)) is None:
        return alike
    return sorted(alike, key=lambda other: _apart(size, _size(other)))


def _size(name: str) -> float | None:
    match = SIZE.search(name)
    return float(match[1]) if match else None


def _apart(size: float, other: float | None) -> float:
    return math.inf if other is None else abs(size - other)
