"""Files of requests: CSV with a time and a model in each row, and work of its own, if it has."""

from __future__ import annotations

import csv
import os
import reprlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from beta_jax.types import (
    NO_DEADLINE,
    ONE_WORK,
    TICKS_PER_SECOND,
    UNREGISTERED,
    WORK_LIMIT,
    Workload,
)

COLUMNS, WORK = ("arrival_s", "model"), "work"
LATEST_S = float(NO_DEADLINE) / TICKS_PER_SECOND


class WorkloadError(ValueError):
    """A file of requests, or a workload to be written to one, that makes no sense."""


def read_requests(path: str | os.PathLike[str], model_names: Sequence[str]) -> Workload:
    """Read a CSV file with the columns `arrival_s` and `model`; other columns are not looked at.

    But for `work`, if there is one: the share of what the profile says that the request takes of
    every stage, such as 1.5, to the nearest 1 / 65536.

    Requests may be in any order; they are sorted by time, and equal times keep the file's order.
    Blank lines, CRLF and a byte order mark are fine. A file with a header alone is an empty
    workload. Raises WorkloadError, naming file and line, for anything else.
    """
    index = _index(model_names)
    arrival_s, model, work = [], [], []
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            for time, number, own in _parse(csv.reader(file, strict=True), index):
                arrival_s.append(time)
                model.append(number)
                work += [] if own is None else [own]
    except OSError as error:
        raise WorkloadError(f"{os.fspath(path)}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise WorkloadError(f"{os.fspath(path)}: not a text file in UTF-8") from None
    except WorkloadError as error:
        raise WorkloadError(f"{os.fspath(path)}, {error}") from None
    times = np.array(arrival_s, np.float64)
    order = np.argsort(times, kind="stable")
    works = np.array(work)[order] if work else None
    return Workload.from_seconds(times[order], np.array(model, np.int32)[order], works)


def _parse(rows: Any, index: dict[str, int]) -> Iterator[tuple[float, int, float | None]]:
    """(seconds, model index, work) of every row; raises WorkloadError that begins with the line."""
    try:
        header = [name.strip() for name in next(rows, [])]
        for name in COLUMNS:
            if header.count(name) != 1:
                found = ",".join(header) or "nothing"
                raise WorkloadError(f"line 1: expected one column {name!r}, found {found}")
        if header.count(WORK) > 1:
            raise WorkloadError(f"line 1: the column {WORK!r} is there twice")
        time_at, model_at = (header.index(name) for name in COLUMNS)
        work_at = header.index(WORK) if WORK in header else None
        for row in rows:
            if not row:
                continue
            if len(row) != len(header):
                raise WorkloadError(
                    f"line {rows.line_num}: expected {len(header)} fields, found {len(row)}"
                )
            number = index.get(row[model_at].strip())
            if number is None:
                known = ", ".join(list(index)[:4]) + (", ..." if len(index) > 4 else "")
                raise WorkloadError(
                    f"line {rows.line_num}: unknown model {row[model_at]!r}, there are {known}"
                )
            time = _number(row[time_at])
            if not 0 <= time < LATEST_S:
                raise WorkloadError(
                    f"line {rows.line_num}: arrival_s must be seconds >= 0 and < {LATEST_S:.3g}, "
                    f"found {row[time_at]!r}"
                )
            if work_at is None:
                yield time, number, None
            elif 0 < (work := _number(row[work_at])) < WORK_LIMIT:
                yield time, number, work
            else:
                raise WorkloadError(
                    f"line {rows.line_num}: work must be > 0 and < {WORK_LIMIT:g}, "
                    f"found {row[work_at]!r}"
                )
    except csv.Error as error:
        raise WorkloadError(f"line {rows.line_num}: {error}") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan


def write_requests(
    path: str | os.PathLike[str], workload: Workload, model_names: Sequence[str]
) -> None:
    """Write a workload as `read_requests` reads it: in order, to the nanosecond up to 48 days.

    Raises WorkloadError for a request whose model has no name, and for arrivals before 0.
    """
    _index(model_names)
    if (workload.model <= UNREGISTERED).any() or (workload.model >= len(model_names)).any():
        raise WorkloadError(f"a request's model is none of the {len(model_names)} named ones")
    if (workload.arrival < 0).any():
        raise WorkloadError("a file of requests begins at 0 seconds, the workload does before")
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        names = (model_names[number] for number in workload.model.tolist())
        columns = dict(zip(COLUMNS, (workload.arrival_s.tolist(), names), strict=True))
        if workload.work is not None:
            columns[WORK] = (workload.work / ONE_WORK).tolist()
        table.writerow(columns)
        table.writerows(zip(*columns.values(), strict=True))


def _index(model_names: Sequence[str]) -> dict[str, int]:
    texts = isinstance(model_names, Sequence) and not isinstance(model_names, str)
    if not texts or not all(isinstance(name, str) for name in model_names):
        raise WorkloadError(f"model names must be texts, got {reprlib.repr(model_names)}")
    index = {name.strip(): number for number, name in enumerate(model_names)}
    if len(index) < len(model_names):
        raise WorkloadError("model names must differ")
    return index
