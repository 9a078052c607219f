"""What was passed is of the kind that is needed, or one line names the argument that is not.

Ranges are checked where they are known; comparisons alone would raise a TypeError that names
nothing for None, let text and arrays pass, or cut 0.5 down to 0.
"""

from __future__ import annotations

import numbers
import reprlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

REAL = "biuf"
"""Kinds of dtypes."""
MOST_BYTES = 64 * 2**20
"""Of a file that is read as a whole: what is meant to be one never comes near."""


def read_bytes(path: Path, most_bytes: int = MOST_BYTES) -> bytes:
    """A file's content. Raises ValueError for more than so many bytes, OSError."""
    with path.open("rb") as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise ValueError(f"refused: larger than {most_bytes} bytes")
    return content


def require_numbers(**arguments: Any) -> None:
    """Raise ValueError unless each is a number, NaN among them, that a float64 reaches."""
    for name, value in arguments.items():
        if not (isinstance(value, numbers.Real) or _is_scalar(value)):
            raise ValueError(f"{name} must be a number, got {reprlib.repr(value)}")
        try:
            float(value)
        except OverflowError:
            raise ValueError(f"{name} is beyond what a float64 reaches") from None


def set_numbers(owner: Any, *names: str) -> None:
    """`require_numbers` of fields of a frozen dataclass, which become Python's where they round."""
    require_numbers(**{name: getattr(owner, name) for name in names})
    for name in names:
        if not isinstance(value := getattr(owner, name), int | float):
            object.__setattr__(owner, name, float(value))


def require_whole(name: str, value: Any, least: int = 0, most: int = 2**63 - 1) -> None:
    """Raise ValueError unless it is a whole number in [least, most]."""
    if not isinstance(value, numbers.Integral):
        raise ValueError(f"{name} must be a whole number, got {reprlib.repr(value)}")
    if int(value) < least:
        raise ValueError(f"{name} must be >= {least}, got {reprlib.repr(value)}")
    if int(value) > most:
        raise ValueError(f"{name} must be at most {most}, got {reprlib.repr(value)}")


def require_text(**arguments: Any) -> None:
    """Raise ValueError unless each is text."""
    for name, value in arguments.items():
        if not isinstance(value, str):
            raise ValueError(f"{name} must be text, got {reprlib.repr(value)}")


def floats(name: str, values: ArrayLike) -> NDArray[np.float64]:
    """Numbers as float64, of any shape. Raises ValueError for anything else."""
    return _array(name, values, "numbers").astype(np.float64, copy=False)


def whole_numbers(name: str, values: ArrayLike, dtype: DTypeLike) -> NDArray[Any]:
    """Whole numbers as a contiguous array of a type. Raises ValueError for any that it cuts."""
    found = _array(name, values, "whole numbers")
    if found.dtype.kind == "f" and not (np.isfinite(found) & (found == np.trunc(found))).all():
        raise ValueError(f"{name} must be whole numbers, got {reprlib.repr(values)}")
    if found.dtype != dtype and found.size:
        limits = np.iinfo(dtype)
        low, high = int(found.min()), int(found.max())
        if not limits.min <= low <= high <= limits.max:
            raise ValueError(
                f"{name} must be from {limits.min} to {limits.max}, got {low} to {high}"
            )
    return np.asarray(found, dtype, order="C")


def _array(name: str, values: ArrayLike, what: str) -> NDArray[Any]:
    try:
        found = np.asarray(values)
    except ValueError:  # rows of several lengths
        found = np.zeros(1, object)
    if found.size and found.dtype.kind not in REAL:
        raise ValueError(f"{name} must be {what}, got {reprlib.repr(values)}")
    return found


def _is_scalar(value: Any) -> bool:
    """Whether it is an array without dimensions, which NumPy and JAX have for numbers."""
    return getattr(value, "ndim", None) == 0 and value.dtype.kind in REAL
