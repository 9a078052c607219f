"""Reading trace files: found out by their columns, checked, and cached in parsed form.

A format of your own is an entry of `FORMATS`; `arrivals_format` makes one for a file with a row per
request.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from beta_jax.cache_folder import cache_folder
from beta_jax.traces.cache import Arrays, cached, file_checksum
from beta_jax.traces.tables import (
    COUNT,
    NOT_NEGATIVE,
    SECONDS,
    TEXT,
    TIME,
    Column,
    blame,
    checked_chunks,
    read_header,
)
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
DAY_FILE = re.compile(r"invocations_per_function_md\.anon\.d(\d\d)\.csv(\.gz)?")
MAF1_COLUMNS = dict.fromkeys(("HashOwner", "HashApp", "HashFunction", "Trigger"), TEXT)
LLM_TOKENS = {"ContextTokens": "prompt_tokens", "GeneratedTokens": "answer_tokens"}
LLM_COLUMNS = {"TIMESTAMP": TIME, **dict.fromkeys(LLM_TOKENS, COUNT)}
RATE_COLUMNS = {"client": TEXT, "timestamp_s": SECONDS, "rate": NOT_NEGATIVE, "cv": NOT_NEGATIVE}


class Format(NamedTuple):
    """A kind of trace file.

    title: what errors call it. columns: those that a file must have, by which it is recognised.
    load: from the path that the user gave, its files, and the folder for parsed forms (None: keep
    none) to the trace; raises TraceError.
    """

    title: str
    columns: dict[str, Column]
    load: Callable[[Path, list[Path], Path | None], Trace]


def load_trace(
    path: str | os.PathLike[str],
    *,
    kind: str | None = None,
    cache: bool | str | os.PathLike[str] = True,
) -> Trace:
    """Read a trace: a file, plain or gzip, or a folder of them.

    kind: by default found out from the columns.

    * `maf1`: Azure Functions 2019, requests per function and minute. The 14 day files in a folder,
      or one of them; column m is the m-th minute of the day, and a file need not have all 1440.
      The day is that of the file's name, dNN, else the first.
    * `maf2`: Azure Functions 2021: app, func, end_timestamp, duration. A request arrives at
      end_timestamp - duration; functions are told apart by `func` alone, as published.
    * `azure_llm`: Azure LLM inference 2023 and 2024: TIMESTAMP, ContextTokens, GeneratedTokens.
      Every file is one function. Times count from midnight before the first request. Context and
      generated tokens are the `prompt_tokens` and `answer_tokens` of the trace.
    * `requests`: arrival_s, model: every model is one function.
    * `rates`: client, timestamp_s, rate, cv: rate and CV of every client per window.

    Rows may be in any order, with CRLF and a byte order mark; other columns are not looked at.

    cache: keep the parsed form, by checksum, in the user's cache folder (True), in a given folder,
    or not at all (False). Large files are read in bounded memory and show a progress bar.
    Raises TraceError naming the file and, where there is one, the line and column at fault.
    """
    path = Path(path)
    if kind is not None and kind not in FORMATS:
        raise TraceError(f"kind of trace must be {', '.join(FORMATS)}, got {kind!r}")
    folder = cache_folder() if cache is True else Path(cache) if cache else None
    try:
        files = _files(path)
        found = _kind_of(files[0], kind)
        return FORMATS[found].load(path, files, folder)
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
    header = read_header(path)
    shared = {name: len(set(header) & set(own.columns)) for name, own in FORMATS.items()}
    best = max(shared, key=lambda name: shared[name])
    if not shared[best] or (kind and not shared[kind]):
        head = ",".join(header[:5]) + (",..." if len(header) > 5 else "")
        wanted = f"a trace of kind {FORMATS[kind].title}" if kind else "a trace"
        looks = f"; it looks like {FORMATS[best].title}" if shared[best] else ""
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
    header = read_header(path)
    minutes = [name for name in header if name.isascii() and name.isdigit()]
    numbers = [int(name) for name in minutes]
    if not numbers or numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        raise TraceError(f"{path}, line 1: expected columns for consecutive minutes, 1 to 1440")
    if not (numbers[0] >= 1 and numbers[-1] <= MINUTES_PER_DAY):
        raise TraceError(f"{path}, line 1: minutes must be 1 to 1440, found {numbers[-1]}")
    columns = MAF1_COLUMNS | dict.fromkeys(minutes, COUNT)
    names: list[str] = []
    parts: list[tuple[NDArray[Any], ...]] = []
    for first, frame in checked_chunks(path, columns):
        names += frame["HashFunction"].tolist()
        counts = frame[minutes].to_numpy()
        row, minute = np.nonzero(counts)
        parts.append((minute.astype(np.int16), (row + first).astype(np.int32), counts[row, minute]))
    if len(set(names)) < len(names):
        blame(path, columns, 0, unique="HashFunction")
    minute, function, count = (np.concatenate(column) for column in zip(*parts, strict=True))
    block = count_block(0, len(minutes), minute, function, count)
    return {
        "names": np.array([name.encode() for name in names]),
        "first_minute": np.array([numbers[0] - 1]),
        "offset": block.offset,
        "function": block.function,
        "count": block.count,
    }


def arrivals_format(
    kind: str,
    title: str,
    columns: dict[str, Column],
    key: str,
    arrivals: Callable[[pd.DataFrame], NDArray[np.float64]],
) -> Format:
    """The format of one file with a row per request.

    key: the column that tells functions apart. arrivals: from a frame of the columns to the
    requests' seconds, float64 [row], in any order.
    """

    def parse(path: Path) -> Arrays:
        index: dict[str, int] = {}
        times, functions = [], []
        for _, frame in checked_chunks(path, columns):
            code, names = pd.factorize(frame[key].str.strip())
            number = [index.setdefault(name, len(index)) for name in names]
            times.append(arrivals(frame))
            functions.append(np.array(number, np.int32)[code])
        return _sorted(np.concatenate(times), np.concatenate(functions)) | {
            "names": np.array([name.encode() for name in index])
        }

    def load(path: Path, files: list[Path], folder: Path | None) -> ArrivalTrace:
        arrays = cached(_only(path, files), kind, parse, folder, made_by=arrivals)
        names = [name.decode() for name in arrays["names"].tolist()]
        return ArrivalTrace(path.name, kind, names, arrays["arrival_s"], arrays["function"])

    return Format(title, columns, load)


def _sorted(arrival_s: NDArray[np.float64], function: NDArray[np.int32], **others: Any) -> Arrays:
    order = np.argsort(arrival_s, kind="stable")
    columns = {"arrival_s": arrival_s, "function": function, **others}
    return {name: column[order] for name, column in columns.items()}


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
    tokens = {name: np.concatenate([part[name] for part in parts]) for name in LLM_TOKENS.values()}
    both = _sorted(arrival_s, function, **tokens)
    return ArrivalTrace(
        path.name,
        "azure_llm",
        [file.name.partition(".")[0] for file in files],
        both["arrival_s"],
        both["function"],
        first_s=float(np.floor(both["arrival_s"][0])),
        prompt_tokens=both["prompt_tokens"],
        answer_tokens=both["answer_tokens"],
    )


def _parse_llm(path: Path) -> Arrays:
    columns = LLM_COLUMNS
    parts, tokens = [], []
    counts = list(LLM_TOKENS)
    for first, frame in checked_chunks(path, columns):
        try:
            times = pd.to_datetime(frame["TIMESTAMP"], format="ISO8601", utc=True)
        except ValueError as error:
            blame(path, columns, first)
            raise TraceError(f"{path}: {error}") from None
        parts.append(times.dt.tz_localize(None).to_numpy().astype("datetime64[ns]"))
        tokens.append(frame[counts].to_numpy(np.int32))
    times_ns = np.concatenate(parts).astype(np.int64)
    order = np.argsort(times_ns, kind="stable")
    times_ns = times_ns[order]
    day_ns = int(DAY_S) * 10**9
    midnight_ns = int(times_ns[0]) // day_ns * day_ns
    of_request = np.concatenate(tokens)[order]
    return {
        "arrival_s": (times_ns - midnight_ns) / 1e9,
        "midnight_s": np.array([midnight_ns // 10**9]),
        **{name: of_request[:, i] for i, name in enumerate(LLM_TOKENS.values())},
    }


def _load_rates(path: Path, files: list[Path], folder: Path | None) -> RateTrace:
    arrays = cached(_only(path, files), "rates", _parse_rates, folder)
    names = [name.decode() for name in arrays["names"].tolist()]
    window_s, first = arrays["window"].tolist()
    return RateTrace(
        path.name, "rates", names, arrays["rate_rps"], arrays["cv"], window_s, int(first)
    )


def _parse_rates(path: Path) -> Arrays:
    columns = RATE_COLUMNS
    frames = []
    for _, frame in checked_chunks(path, columns):
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


FORMATS = {
    "maf1": Format("Azure Functions 2019 (MAF1)", MAF1_COLUMNS, _load_counts),
    "maf2": arrivals_format(
        "maf2",
        "Azure Functions 2021 (MAF2)",
        {"app": TEXT, "func": TEXT, "end_timestamp": SECONDS, "duration": SECONDS},
        key="func",
        arrivals=lambda frame: (frame["end_timestamp"] - frame["duration"]).to_numpy(),
    ),
    "azure_llm": Format("Azure LLM inference", LLM_COLUMNS, _load_llm),
    "requests": arrivals_format(
        "requests",
        "requests (arrival_s, model)",
        {"arrival_s": SECONDS, "model": TEXT},
        key="model",
        arrivals=lambda frame: frame["arrival_s"].to_numpy(),
    ),
    "rates": Format("rate and CV per window", RATE_COLUMNS, _load_rates),
}
"""The kinds of file that `load_trace` reads."""
