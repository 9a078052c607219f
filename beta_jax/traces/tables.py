"""Tables from the internet, about which nothing is believed: read in chunks, strictly typed.

Only when pandas or a check fails is a file read again, slowly, to name the line and the column at
fault.
"""

from __future__ import annotations

import csv
import gzip
import io
import os
import re
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from beta_jax.traces.trace import TraceError

LARGEST_COUNT = 2**31 - 1
LARGEST_NUMBER = 1e9
CHUNK_FIELDS = 3_000_000
"""Fields parsed at a time: some 50 MB, however large the file is."""
PROGRESS_BYTES = 32 * 2**20
"""Files from this size on get a progress bar."""


class Column(NamedTuple):
    """A column: what pandas reads it as, whether a field is valid, and what a valid one is."""

    dtype: str
    valid: Callable[[str], bool]
    expected: str


def _is_number(field: str) -> bool:
    try:
        return 0 <= float(field) <= LARGEST_NUMBER
    except ValueError:
        return False


def _is_time(field: str) -> bool:
    return bool(re.match(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d", field)) and not pd.isna(
        pd.to_datetime(field, format="ISO8601", errors="coerce", utc=True)
    )


TEXT = Column("str", bool, "a name")
COUNT = Column(
    "int64",
    lambda field: bool(re.fullmatch(r"\s*\d{1,10}\s*", field)) and int(field) <= LARGEST_COUNT,
    "a whole number >= 0",
)
SECONDS = Column("float64", _is_number, "seconds >= 0")
NOT_NEGATIVE = Column("float64", _is_number, "a number >= 0")
TIME = Column("str", _is_time, "a time such as 2023-11-16 18:17:03.9799600")


class _Progress(io.RawIOBase):
    """A file that reports what is read from it."""

    def __init__(self, path: Path, show: bool) -> None:
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - closed with self
        size = os.fstat(self._file.fileno()).st_size
        show = show and size >= PROGRESS_BYTES
        self._bar = tqdm(total=size, unit="B", unit_scale=True, desc=path.name, disable=not show)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._file.readinto(buffer) or 0
        self._bar.update(count)
        return count

    def close(self) -> None:
        self._bar.close()
        self._file.close()
        super().close()


def _open(path: Path, show: bool = False) -> io.TextIOWrapper:
    """A file as text; whether it is gzip is seen from its first bytes, not from its name."""
    raw = io.BufferedReader(_Progress(path, show), 2**20)
    data = gzip.GzipFile(fileobj=raw) if raw.peek(2)[:2] == b"\x1f\x8b" else raw
    return io.TextIOWrapper(data, encoding="utf-8-sig", newline="")  # type: ignore[type-var]


def read_header(path: Path) -> list[str]:
    with _guarded(path), _open(path) as file:
        header = [name.strip() for name in next(csv.reader(file), [])]
    if not header:
        raise TraceError(f"{path}: the file is empty")
    return header


class _guarded:
    """Turns what a file that is no text, no table, or cut short raises into a TraceError."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, UnicodeDecodeError):
            raise TraceError(f"{self._path}: not a text file in UTF-8") from None
        if isinstance(error, (EOFError, gzip.BadGzipFile, zlib.error)):
            raise TraceError(f"{self._path}: the gzip file is damaged or cut short") from None
        if isinstance(error, csv.Error):
            raise TraceError(f"{self._path}: not a table of comma-separated values") from None


def checked_chunks(path: Path, columns: dict[str, Column]) -> Iterator[tuple[int, pd.DataFrame]]:
    """The file in frames of its checked columns, each with the number of rows before it."""
    header = read_header(path)
    for name in columns:
        if header.count(name) != 1:
            found = ",".join(header[:6]) + (",..." if len(header) > 6 else "")
            what = "two columns" if name in header else "no column"
            raise TraceError(f"{path}, line 1: there is {what} {name!r}, found {found}")
    rows = 0
    with _guarded(path), _open(path, show=True) as file, warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        warnings.simplefilter("ignore", RuntimeWarning)  # of a cast: `blame` says which field
        try:
            reader = pd.read_csv(
                file,
                header=0,
                names=header,
                dtype={name: columns[name].dtype if name in columns else "str" for name in header},
                index_col=False,
                keep_default_na=False,
                chunksize=max(1, CHUNK_FIELDS // len(header)),
                low_memory=False,
            )
            for frame in reader:
                if not _sound(frame, columns):
                    blame(path, columns, rows)
                if len(frame):
                    yield rows, frame
                rows += len(frame)
        except (pd.errors.ParserError, pd.errors.ParserWarning, ValueError, OverflowError) as error:
            if isinstance(error, (TraceError, UnicodeDecodeError)):
                raise
            blame(path, columns, rows)
            raise TraceError(f"{path}: {error}") from None
    if not rows:
        raise TraceError(f"{path}: there are no rows below the header")


def _sound(frame: pd.DataFrame, columns: dict[str, Column]) -> bool:
    """Whether all values of checked columns are in range; what is not parsed yet is not empty."""
    by_dtype = {
        dtype: frame[[name for name, column in columns.items() if column.dtype == dtype]].to_numpy()
        for dtype in {column.dtype for column in columns.values()}
    }
    counts, numbers = by_dtype.get("int64", np.zeros(1)), by_dtype.get("float64", np.zeros(1))
    return bool(
        (counts >= 0).all()
        and (counts <= LARGEST_COUNT).all()
        and (numbers >= 0).all()
        and (numbers <= LARGEST_NUMBER).all()
        and (by_dtype["str"] != "").all()
    )


def blame(path: Path, columns: dict[str, Column], first: int, unique: str | None = None) -> None:
    """Raise TraceError for the first bad field from row `first` on, in order of lines."""
    header = read_header(path)
    checks = [(header.index(name), name, column) for name, column in columns.items()]
    seen: dict[str, int] = {}
    with _guarded(path), _open(path) as file:
        rows = csv.reader(file)
        next(rows)
        for number, row in enumerate(row for row in rows if row):
            line = f"{path}, line {rows.line_num}"
            if number < first:
                continue
            if len(row) != len(header):
                raise TraceError(f"{line}: expected {len(header)} fields, found {len(row)}")
            for at, name, column in checks:
                if not column.valid(row[at]):
                    raise TraceError(
                        f"{line}, column {name}: expected {column.expected}, found {row[at][:40]!r}"
                    )
            if unique is not None:
                key = row[header.index(unique)]
                if key in seen:
                    raise TraceError(f"{line}, column {unique}: {key!r} is on line {seen[key]} too")
                seen[key] = rows.line_num
