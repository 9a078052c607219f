"""Reading trace files: found out by their columns, checked, and cached in parsed form.

Files come from the internet, so nothing about them is believed: pandas parses them in chunks with
strict types, and only when it or a check fails is the file read again, slowly, to name the line and
the column at fault.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
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
from numpy.typing import NDArray
from tqdm import tqdm

from beta_jax.cache_folder import cache_folder
from beta_jax.traces.cache import Arrays, cached, file_checksum
from beta_jax.traces.trace import (
    DAY_S,
    ArrivalTrace,
    CountBlock,
    CountTrace,
    RateTrace,
    Trace,
    TraceError,
    count_block,
)

MINUTES_PER_DAY = 1440
LARGEST_COUNT = 2**31 - 1
LARGEST_NUMBER = 1e9
CHUNK_FIELDS = 3_000_000
"""Fields parsed at a time: some 50 MB, however large the file is."""
PROGRESS_BYTES = 32 * 2**20
"""Files from this size on get a progress bar."""
DAY_FILE = re.compile(r"invocations_per_function_md\.anon\.d(\d\d)\.csv(\.gz)?")


class _Column(NamedTuple):
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


_TEXT = _Column("str", bool, "a name")
_COUNT = _Column(
    "int64",
    lambda field: bool(re.fullmatch(r"\s*\d{1,10}\s*", field)) and int(field) <= LARGEST_COUNT,
    "a whole number >= 0",
)
_SECONDS = _Column("float64", _is_number, "seconds >= 0")
_NOT_NEGATIVE = _Column("float64", _is_number, "a number >= 0")
_TIME = _Column("str", _is_time, "a time such as 2023-11-16 18:17:03.9799600")

COLUMNS = {
    "maf1": {"HashOwner": _TEXT, "HashApp": _TEXT, "HashFunction": _TEXT, "Trigger": _TEXT},
    "maf2": {"app": _TEXT, "func": _TEXT, "end_timestamp": _SECONDS, "duration": _SECONDS},
    "azure_llm": {"TIMESTAMP": _TIME, "ContextTokens": _COUNT, "GeneratedTokens": _COUNT},
    "requests": {"arrival_s": _SECONDS, "model": _TEXT},
    "rates": {
        "client": _TEXT,
        "timestamp_s": _SECONDS,
        "rate": _NOT_NEGATIVE,
        "cv": _NOT_NEGATIVE,
    },
}
"""The kinds of file, and the columns that each must have."""
NAMES = {
    "maf1": "Azure Functions 2019 (MAF1)",
    "maf2": "Azure Functions 2021 (MAF2)",
    "azure_llm": "Azure LLM inference",
    "requests": "requests (arrival_s, model)",
    "rates": "rate and CV per window",
}


def load_trace(
    path: str | os.PathLike[str],
    *,
    kind: str | None = None,
    cache: bool | str | os.PathLike[str] = True,
) -> Trace:
    """Read a trace: a file, plain or gzip, or a folder of them.

    kind, by default found out from the columns:
      `maf1`       Azure Functions 2019: requests per function and minute. The 14 day files in a
                   folder, or one of them; column m is the m-th minute of the day, and a file need
                   not have all 1440. The day is that of the file's name, dNN, else the first.
      `maf2`       Azure Functions 2021: app, func, end_timestamp, duration. A request arrives at
                   end_timestamp - duration; functions are told apart by `func` alone, as published.
      `azure_llm`  Azure LLM inference 2023 and 2024: TIMESTAMP, ContextTokens, GeneratedTokens.
                   Every file is one function. Times count from midnight before the first request.
      `requests`   arrival_s, model: every model is one function.
      `rates`      client, timestamp_s, rate, cv: rate and CV of every client per window.
    Rows may be in any order, with CRLF and a byte order mark; other columns are not looked at.

    cache: keep the parsed form, by checksum, in the user's cache folder (True), in a given folder,
    or not at all (False). Large files are read in bounded memory and show a progress bar.
    Raises TraceError naming the file and, where there is one, the line and column at fault.
    """
    path = Path(path)
    if kind is not None and kind not in COLUMNS:
        raise TraceError(f"kind of trace must be {', '.join(COLUMNS)}, got {kind!r}")
    folder = cache_folder() if cache is True else Path(cache) if cache else None
    try:
        files = _files(path)
        found = _kind_of(files[0], kind)
        match found:
            case "maf1":
                return _load_counts(path, files, folder)
            case "rates":
                return _load_rates(path, _only(path, files), folder)
            case "azure_llm":
                return _load_llm(path, files, folder)
            case _:
                return _load_arrivals(path, _only(path, files), found, folder)
    except OSError as error:
        name = os.fspath(error.filename or path)
        raise TraceError(f"{name}: {error.strerror or error}") from None


def fingerprint(path: Path) -> str:
    """A hash of a trace's files and, as these say which day it is, their names. Raises TraceError.

    Checksums are remembered in the user's cache folder.
    """
    try:
        parts = [(file.name, file_checksum(file, cache_folder())) for file in _files(path)]
    except OSError as error:
        raise TraceError(f"{error.filename or path}: {error.strerror or error}") from None
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _files(path: Path) -> list[Path]:
    """The files of a trace. In a folder with day files, as published, others are left alone."""
    if not path.is_dir():
        return [path]
    files = sorted(
        file
        for file in path.iterdir()
        if file.is_file() and re.search(r"\.(csv|txt)(\.gz)?$", file.name)
    )
    files = [file for file in files if DAY_FILE.fullmatch(file.name)] or files
    if not files:
        raise TraceError(f"{path}: there is no .csv or .txt file, plain or gzip, in this folder")
    return files


def _only(path: Path, files: list[Path]) -> Path:
    if len(files) > 1:
        names = ", ".join(file.name for file in files[:3])
        raise TraceError(f"{path}: expected one file of this kind, found {len(files)}: {names}")
    return files[0]


def _kind_of(path: Path, kind: str | None) -> str:
    """The kind that shares most columns; raises TraceError for none, or another than `kind`."""
    header = _header(path)
    shared = {name: len(set(header) & set(columns)) for name, columns in COLUMNS.items()}
    best = max(shared, key=lambda name: shared[name])
    if not shared[best] or (kind and not shared[kind]):
        head = ",".join(header[:5]) + (",..." if len(header) > 5 else "")
        wanted = f"a trace of kind {NAMES[kind]}" if kind else "a trace"
        looks = f"; it looks like {NAMES[best]}" if shared[best] else ""
        raise TraceError(f"{path}, line 1: these are not the columns of {wanted}: {head}{looks}")
    return kind or best


# --- the kinds -----------------------------------------------------------------------------------


def _load_counts(path: Path, files: list[Path], folder: Path | None) -> CountTrace:
    index: dict[bytes, int] = {}
    blocks: list[CountBlock] = []
    for file in files:
        named = DAY_FILE.fullmatch(file.name)
        day = int(named[1]) - 1 if named else 0
        arrays = cached(file, "maf1", _parse_counts, folder)
        number = [index.setdefault(name, len(index)) for name in arrays["names"].tolist()]
        first = day * MINUTES_PER_DAY + int(arrays["first_minute"][0])
        if blocks and first != blocks[-1].last_window:
            raise TraceError(f"{file}: does not go on where the day file before it ends")
        blocks.append(
            CountBlock(
                first,
                arrays["offset"],
                arrays["function"],
                arrays["count"],
                np.array(number, np.int32),
            )
        )
    return CountTrace(path.name, "maf1", [name.decode() for name in index], blocks)


def _parse_counts(path: Path) -> Arrays:
    header = _header(path)
    minutes = [name for name in header if name.isascii() and name.isdigit()]
    numbers = [int(name) for name in minutes]
    if not numbers or numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        raise TraceError(f"{path}, line 1: expected columns for consecutive minutes, 1 to 1440")
    if not (numbers[0] >= 1 and numbers[-1] <= MINUTES_PER_DAY):
        raise TraceError(f"{path}, line 1: minutes must be 1 to 1440, found {numbers[-1]}")
    columns = COLUMNS["maf1"] | dict.fromkeys(minutes, _COUNT)
    names: list[str] = []
    parts: list[tuple[NDArray[Any], ...]] = []
    for first, frame in _chunks(path, columns):
        names += frame["HashFunction"].tolist()
        counts = frame[minutes].to_numpy()
        row, minute = np.nonzero(counts)
        parts.append((minute.astype(np.int16), (row + first).astype(np.int32), counts[row, minute]))
    if len(set(names)) < len(names):
        _blame(path, columns, 0, unique="HashFunction")
    minute, function, count = (np.concatenate(column) for column in zip(*parts, strict=True))
    block = count_block(0, len(minutes), minute, function, count)
    return {
        "names": np.array([name.encode() for name in names]),
        "first_minute": np.array([numbers[0] - 1]),
        "offset": block.offset,
        "function": block.function,
        "count": block.count,
    }


def _load_arrivals(path: Path, file: Path, kind: str, folder: Path | None) -> ArrivalTrace:
    arrays = cached(file, kind, _parse_maf2 if kind == "maf2" else _parse_requests, folder)
    names = [name.decode() for name in arrays["names"].tolist()]
    return ArrivalTrace(path.name, kind, names, arrays["arrival_s"], arrays["function"])


def _parse_maf2(path: Path) -> Arrays:
    def arrivals(frame: pd.DataFrame) -> NDArray[np.float64]:
        return (frame["end_timestamp"] - frame["duration"]).to_numpy()

    return _parse_arrivals(path, "maf2", "func", arrivals)


def _parse_requests(path: Path) -> Arrays:
    return _parse_arrivals(path, "requests", "model", lambda frame: frame["arrival_s"].to_numpy())


def _parse_arrivals(
    path: Path, kind: str, key: str, arrivals: Callable[[pd.DataFrame], NDArray[np.float64]]
) -> Arrays:
    columns = COLUMNS[kind]
    index: dict[str, int] = {}
    times, functions = [], []
    for _, frame in _chunks(path, columns):
        code, names = pd.factorize(frame[key].str.strip())
        number = [index.setdefault(name, len(index)) for name in names]
        times.append(arrivals(frame))
        functions.append(np.array(number, np.int32)[code])
    return _sorted(np.concatenate(times), np.concatenate(functions)) | {
        "names": np.array([name.encode() for name in index])
    }


def _sorted(arrival_s: NDArray[np.float64], function: NDArray[np.int32]) -> Arrays:
    order = np.argsort(arrival_s, kind="stable")
    return {"arrival_s": arrival_s[order], "function": function[order]}


def _load_llm(path: Path, files: list[Path], folder: Path | None) -> ArrivalTrace:
    for file in files:
        _kind_of(file, "azure_llm")
    parts = [cached(file, "azure_llm", _parse_llm, folder) for file in files]
    midnights = [int(part["midnight_s"][0]) for part in parts]
    arrival_s = np.concatenate(
        [
            part["arrival_s"] + float(midnight - min(midnights))
            for part, midnight in zip(parts, midnights, strict=True)
        ]
    )
    function = np.repeat(
        np.arange(len(parts), dtype=np.int32), [len(p["arrival_s"]) for p in parts]
    )
    both = _sorted(arrival_s, function)
    return ArrivalTrace(
        path.name,
        "azure_llm",
        [file.name.partition(".")[0] for file in files],
        both["arrival_s"],
        both["function"],
        first_s=float(np.floor(both["arrival_s"][0])),
    )


def _parse_llm(path: Path) -> Arrays:
    columns = COLUMNS["azure_llm"]
    parts = []
    for first, frame in _chunks(path, columns):
        try:
            times = pd.to_datetime(frame["TIMESTAMP"], format="ISO8601", utc=True)
        except ValueError as error:
            _blame(path, columns, first)
            raise TraceError(f"{path}: {error}") from None
        parts.append(times.dt.tz_localize(None).to_numpy().astype("datetime64[ns]"))
    times_ns = np.sort(np.concatenate(parts).astype(np.int64))
    day_ns = int(DAY_S) * 10**9
    midnight_ns = int(times_ns[0]) // day_ns * day_ns
    return {
        "arrival_s": (times_ns - midnight_ns) / 1e9,
        "midnight_s": np.array([midnight_ns // 10**9]),
    }


def _load_rates(path: Path, file: Path, folder: Path | None) -> RateTrace:
    arrays = cached(file, "rates", _parse_rates, folder)
    names = [name.decode() for name in arrays["names"].tolist()]
    window_s, first = arrays["window"].tolist()
    return RateTrace(
        path.name, "rates", names, arrays["rate_rps"], arrays["cv"], window_s, int(first)
    )


def _parse_rates(path: Path) -> Arrays:
    columns = COLUMNS["rates"]
    frames = []
    for _, frame in _chunks(path, columns):
        frames.append(frame)
    table = pd.concat(frames, ignore_index=True)
    client, names = pd.factorize(table["client"])
    start_s = table["timestamp_s"].to_numpy()
    steps = np.diff(np.unique(start_s))
    if not len(steps) or (start_s % steps.min()).any():
        raise TraceError(f"{path}, column timestamp_s: expected starts of windows of equal length")
    window_s = float(steps.min())
    window = np.rint(start_s / window_s).astype(np.int64)
    first_window = int(window.min())
    shape = len(names), int(window.max()) - first_window + 1
    cell = client * shape[1] + window - first_window
    if len(np.unique(cell)) < len(cell):
        twice = table[pd.Series(cell).duplicated()].iloc[0]
        raise TraceError(
            f"{path}: client {twice['client']!r} has the window at {twice['timestamp_s']:g} s twice"
        )
    rate, cv = np.zeros(shape), np.ones(shape)
    rate.flat[cell] = table["rate"]
    cv.flat[cell] = table["cv"]
    return {
        "names": np.array([name.encode() for name in names]),
        "rate_rps": rate,
        "cv": cv,
        "window": np.array([window_s, first_window], np.float64),
    }


# --- files ---------------------------------------------------------------------------------------


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


def _header(path: Path) -> list[str]:
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


def _chunks(path: Path, columns: dict[str, _Column]) -> Iterator[tuple[int, pd.DataFrame]]:
    """The file in frames of its checked columns, each with the number of rows before it."""
    header = _header(path)
    for name in columns:
        if header.count(name) != 1:
            found = ",".join(header[:6]) + (",..." if len(header) > 6 else "")
            what = "two columns" if name in header else "no column"
            raise TraceError(f"{path}, line 1: there is {what} {name!r}, found {found}")
    rows = 0
    with _guarded(path), _open(path, show=True) as file, warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
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
                    _blame(path, columns, rows)
                if len(frame):
                    yield rows, frame
                rows += len(frame)
        except (pd.errors.ParserError, pd.errors.ParserWarning, ValueError, OverflowError) as error:
            if isinstance(error, (TraceError, UnicodeDecodeError)):
                raise
            _blame(path, columns, rows)
            raise TraceError(f"{path}: {error}") from None
    if not rows:
        raise TraceError(f"{path}: there are no rows below the header")


def _sound(frame: pd.DataFrame, columns: dict[str, _Column]) -> bool:
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


def _blame(path: Path, columns: dict[str, _Column], first: int, unique: str | None = None) -> None:
    """Raise TraceError for the first bad field from row `first` on, in order of lines."""
    header = _header(path)
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
