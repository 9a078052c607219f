"""Step tables in a folder: `run.json` and CSV files of kernel times, checked when they are read.

`run.json` names the layers of a model and says what surrounds them:

    layers                    how often `block` is repeated
    prologue, block, head     names of layers; repeated ones count twice; "attention" is in block
    per_sequence_layers       which of them cost by requests rather than by tokens
    host_bw_bytes_per_ns      between host and device
    tp                        ranks, 1 or 2; of 2 also hidden, dtype_bytes, link_latency_ns,
                              link_bw_GiBps, npu_bw_bytes_per_ns
    skew                      enabled; then alpha_default and the upper bounds of buckets: n_upper,
                              skew_rate_upper, kv_big_upper, kp_upper

    dense.csv         layer,tokens,time_us
    per_sequence.csv  layer,sequences,time_us
    attention.csv     prefill_chunk,kv_prefill,n_decode,kv_decode,time_us
    skew_alpha.csv    pc,n_bucket,rate_bucket,kvmax_bucket,kp_bucket,alpha (where skew is enabled)

Times of two ranks are those of one of them.
"""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from beta_jax.llm.requests import LLMError
from beta_jax.llm.tables import NO_POINT, Attention, Ints, Layer, Ring, Skew, StepTables

RUN, DENSE, PER_SEQUENCE = "run.json", "dense.csv", "per_sequence.csv"
ATTENTION, SKEW_ALPHA = "attention.csv", "skew_alpha.csv"
SURFACE = ("prefill_chunk", "n_decode", "kv_prefill", "kv_decode")
BUCKETS = ("n_bucket", "rate_bucket", "kvmax_bucket", "kp_bucket")
BOUNDS = ("n_upper", "skew_rate_upper", "kv_big_upper", "kp_upper")
LONGEST_US = 10**9
MOST = 2**40
"""Of a count in a table, or a figure in run.json."""


def read_tables(folder: str | os.PathLike[str]) -> StepTables:
    """Read and check the tables of a folder. Raises LLMError in one line that names the file."""
    folder = Path(folder)
    run = Document(folder / RUN)
    layers = run.whole("layers")
    count = Counter(run.names("prologue")) + Counter(run.names("head"))
    for name, times in Counter(run.names("block")).items():
        count[name] += layers * times
    attention_layers = count.pop("attention", 0)
    if not attention_layers or "attention" in run.names("prologue") + run.names("head"):
        raise run.error("block", "no 'attention'", "the only place of 'attention'")
    per_sequence = {
        name: count.pop(name) for name in run.names("per_sequence_layers") if count[name]
    }
    return StepTables(
        dense=_layers(folder / DENSE, "tokens", count),
        per_sequence=_layers(folder / PER_SEQUENCE, "sequences", per_sequence),
        attention=_attention(folder / ATTENTION, attention_layers),
        host_bytes_per_ns=run.positive("host_bw_bytes_per_ns"),
        skew=_skew(folder, run),
        ring=_ring(run, layers),
        folder=folder,
    )


class Document:
    """A JSON object in a file, whose fields are checked when they are asked for."""

    def __init__(self, path: Path, values: dict[str, Any] | None = None, within: str = "") -> None:
        self.path, self.within = path, within
        self.values = _json(path) if values is None else values

    def error(self, name: str, found: object, wanted: str) -> LLMError:
        return LLMError(f"{self.path}: {self.within}{name} is {found}, wanted {wanted}")

    def get(self, name: str, wanted: str) -> Any:
        if name not in self.values:
            raise self.error(name, "missing", wanted)
        return self.values[name]

    def only(self, names: Sequence[str]) -> None:
        for name in self.values:
            if name not in names:
                raise LLMError(
                    f"{self.path}: {self.within}{name} is no field here, wanted {', '.join(names)}"
                )

    def whole(self, name: str) -> int:
        value = self.get(name, wanted := f"a whole number from 1 to {MOST}")
        if type(value) is not int or not 1 <= value <= MOST:
            raise self.error(name, repr(value), wanted)
        return value

    def number(self, name: str, least: float = -float(MOST)) -> float:
        value = self.get(name, wanted := f"a number from {least:g} to {MOST}")
        if type(value) not in (int, float) or not least <= value <= MOST:
            raise self.error(name, repr(value), wanted)
        return value

    def positive(self, name: str) -> float:
        if (value := self.number(name, 0)) == 0:
            raise self.error(name, "0", "more")
        return value

    def flag(self, name: str) -> bool:
        if type(value := self.get(name, "true or false")) is not bool:
            raise self.error(name, repr(value), "true or false")
        return value

    def names(self, name: str) -> list[str]:
        value = self.get(name, wanted := "a list of names")
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise self.error(name, repr(value), wanted)
        return value

    def inner(self, name: str) -> Document:
        if not isinstance(value := self.get(name, "an object"), dict):
            raise self.error(name, repr(value), "an object")
        return Document(self.path, value, f"{self.within}{name}.")

    def rising(self, name: str) -> NDArray[np.float64]:
        value = self.get(name, wanted := "a list of numbers, each above the one before")
        if not isinstance(value, list) or not value:
            raise self.error(name, repr(value), wanted)
        if not all(type(each) in (int, float) for each in value):
            raise self.error(name, repr(value), wanted)
        bounds = np.array(value, np.float64)
        if not np.isfinite(bounds).all() or (np.diff(bounds) <= 0).any():
            raise self.error(name, repr(value), wanted)
        return bounds


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LLMError(f"{path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise LLMError(f"{path}: not JSON: {error}") from None
    if not isinstance(values, dict):
        raise LLMError(f"{path}: is no JSON object")
    return values


def read_rows(path: Path, keys: Sequence[str], value: str, *, unique: bool = True) -> pd.DataFrame:
    """Rows with whole numbers in `keys` but for "layer", sorted by them; none twice if `unique`."""
    frame = _text(path)
    if missing := [name for name in (*keys, value) if name not in frame]:
        raise LLMError(f"{path}: the column {missing[0]!r} is missing")
    if frame.empty:
        raise LLMError(f"{path}: has no rows")
    frame = frame[[*keys, value]].copy()
    for name in frame:
        if name == "layer":
            continue
        found = np.array([*map(_number, frame[name])], np.float64)
        good = np.isfinite(found)
        wanted = "a number"
        if name == "time_us":
            good, wanted = (found >= 0) & (found <= LONGEST_US), f"microseconds, 0 to {LONGEST_US}"
        elif name in keys:
            good = (found >= 0) & (found <= MOST) & (found == np.rint(found))
            wanted = f"a whole number from 0 to {MOST}"
        if not good.all():
            row = int(np.flatnonzero(~good)[0])
            raise LLMError(f"{path}: row {row}: {name} is {frame[name][row]}, wanted {wanted}")
        frame[name] = found.astype(np.int64) if name in keys else found
    if unique and (twice := frame.duplicated([*keys])).any():
        row = int(np.flatnonzero(twice)[0])
        which = ", ".join(f"{name} {frame[name][row]}" for name in keys)
        raise LLMError(f"{path}: row {row}: {which} is there twice")
    return frame.sort_values([*keys], kind="stable")


def _text(path: Path) -> pd.DataFrame:
    """All cells as text: pandas does not read every number to the last bit."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header, *rows = [row for row in csv.reader(file) if row] or [[]]
    except OSError as error:
        raise LLMError(f"{path}: {error.strerror or error}") from None
    except (ValueError, csv.Error) as error:
        raise LLMError(f"{path}: not a table: {error}") from None
    if len({*header}) < len(header):
        raise LLMError(f"{path}: two columns have one name: {', '.join(header)[:200]}")
    for at, row in enumerate(rows):
        if len(row) != len(header):
            raise LLMError(f"{path}: row {at}: has {len(row)} cells, wanted {len(header)}")
    return pd.DataFrame(rows, columns=header, dtype=str)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan


def _ns(time_us: pd.Series) -> Ints:
    return np.maximum(1, np.rint(time_us.to_numpy() * 1000).astype(np.int64))


def _layers(path: Path, size: str, count: dict[str, int]) -> tuple[Layer, ...]:
    if not count:
        return ()
    rows = dict([*read_rows(path, ("layer", size), "time_us").groupby("layer")])
    for name in count:
        if name not in rows:
            raise LLMError(f"{path}: the layer {name!r} of {RUN} has no rows")
    return tuple(
        Layer(name, times, rows[name][size].to_numpy(), _ns(rows[name]["time_us"]))
        for name, times in count.items()
    )


def _attention(path: Path, count: int) -> Attention:
    frame = read_rows(path, SURFACE, "time_us")
    frame["ns"] = _ns(frame["time_us"])
    chunks = np.unique(frame["prefill_chunk"].to_numpy())
    decodes = np.unique(frame["n_decode"].to_numpy())
    slices = [*frame.groupby(["prefill_chunk", "n_decode"])]
    pairs = [(int(chunk), int(decode)) for (chunk, decode), _ in slices]
    rows = [[*slice.groupby("kv_prefill")] for _, slice in slices]
    most_rows = max(map(len, rows))
    most_points = max(len(points) for each in rows for _, points in each)
    kv_prefill = np.full((len(rows), most_rows), NO_POINT, np.int64)
    points = np.ones((len(rows), most_rows), np.int64)
    kv_decode = np.full((len(rows), most_rows, most_points), NO_POINT, np.int64)
    ns = np.zeros_like(kv_decode)
    for i, each in enumerate(rows):
        for j, (cached, row) in enumerate(each):
            kv_prefill[i, j], points[i, j] = cached, len(row)
            kv_decode[i, j, : len(row)], ns[i, j, : len(row)] = row["kv_decode"], row["ns"]

    def nearest(chunk: int, decode: int) -> int:
        def distance(at: int) -> int:
            return (pairs[at][0] - chunk) ** 2 + (pairs[at][1] - decode) ** 2

        return min(range(len(pairs)), key=distance)  # the first of equals, as they are sorted

    return Attention(
        count=count,
        prefill_chunk=chunks,
        decodes=decodes,
        slice_of=np.array([[nearest(c, d) for d in decodes.tolist()] for c in chunks.tolist()]),
        rows=np.array([len(each) for each in rows]),
        kv_prefill=kv_prefill,
        points=points,
        kv_decode=kv_decode,
        ns=ns,
    )


def _skew(folder: Path, run: Document) -> Skew | None:
    about = run.inner("skew")
    if not about.flag("enabled"):
        return None
    default = about.number("alpha_default")
    bounds = {name: about.rising(name) for name in BOUNDS}
    path = folder / SKEW_ALPHA
    frame = read_rows(path, ("pc", *BUCKETS), "alpha")
    for bucket, (name, upper) in zip(BUCKETS, bounds.items(), strict=True):
        beyond = frame.index[frame[bucket] >= len(upper)]
        if len(beyond):
            raise LLMError(
                f"{path}: row {beyond[0]}: {bucket} is {frame[bucket][beyond[0]]}, but {name} of "
                f"{RUN} has {len(upper)} buckets"
            )
    chunks, at = np.unique(frame["pc"].to_numpy(), return_inverse=True)
    alpha = np.full((len(chunks), *map(len, bounds.values())), default)
    alpha[at, *(frame[bucket].to_numpy() for bucket in BUCKETS)] = frame["alpha"]
    return Skew(default, **bounds, prefill_chunk=chunks, alpha=alpha)


def _ring(run: Document, layers: int) -> Ring | None:
    if (ranks := run.whole("tp")) == 1:
        return None
    if ranks != 2:
        raise run.error("tp", ranks, "1 or 2: rules for more ranks are not known")
    return Ring(
        count=2 * layers,
        token_bytes=run.whole("hidden") * run.whole("dtype_bytes"),
        link_latency_ns=run.number("link_latency_ns", 0),
        link_bytes_per_ns=run.positive("link_bw_GiBps") * 2**30 / 10**9,
        device_bytes_per_ns=run.positive("npu_bw_bytes_per_ns"),
    )
