"""Prompts of any length, from tables of how long their processing ("prefill") takes.

A table is CSV with a row per device, model, length of the prompt and configuration:

    device,model,seq,batch,op,pp,stage_latency_s,layer_weight_bytes_per_device
    a100,llama-7b,1024,1,1,2,"[0.0354, 0.0353]",6476005376

From it come the `Profile` of prompts of one length, and the work of all others: the share of that
latency that they take.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from beta_jax.checks import floats
from beta_jax.profiles import importers
from beta_jax.profiles.profile import Profile, ProfileError

COUNTS = ("seq", "batch", "op", "pp")
COLUMNS = ("device", "model", *COUNTS, "stage_latency_s", "layer_weight_bytes_per_device")


@dataclasses.dataclass(frozen=True, eq=False)
class PrefillTable:
    """What prompts take on one kind of device.

    profile: of prompts of `tokens` tokens; activations are not known, and 0.
    """

    profile: Profile
    tokens: int
    _latency_s: Mapping[str, tuple[NDArray[np.int64], NDArray[np.float64]]]
    """Lengths, ascending, and latencies, [length] both, on the fewest devices that there are."""

    def work(self, type: str, prompt_tokens: ArrayLike) -> NDArray[np.float64]:
        """The work of prompts of so many tokens, float64 [request]: latency over the profile's.

        Between the lengths of the table latency is linear, beyond the longest it goes on as between
        the last two, and below the shortest it is in proportion, which flatters very short prompts:
        these have to read all weights, too. It is that on the fewest devices that the table has:
        with many operator-parallel ones, more of a short prompt is communication.
        Raises ProfileError for a type that the table does not have, ValueError for tokens that are
        negative or not finite.
        """
        if type not in self._latency_s:
            known = ", ".join(self._latency_s)
            raise ProfileError(f"model type {type!r} is not in the table; it has {known}")
        length, latency_s = self._latency_s[type]
        asked = floats("prompt_tokens", prompt_tokens)
        if not (np.isfinite(asked) & (asked >= 0)).all():
            raise ValueError("prompt_tokens must be >= 0 and finite")
        longest, slope = length[-1], latency_s[-1] / length[-1]
        if len(length) > 1:
            slope = (latency_s[-1] - latency_s[-2]) / (length[-1] - length[-2])
        found = np.interp(asked, np.append(0, length), np.append(0.0, latency_s))
        found += np.maximum(asked - longest, 0) * slope
        return found / latency_s[length.searchsorted(self.tokens)]


def load_prefill(path: str | os.PathLike[str], device: str, tokens: int = 1024) -> PrefillTable:
    """Read a table, see the module: its rows of one device, and the profile at one length.

    Raises ProfileError, naming the file and the line or what there is instead, for a table that is
    not valid or has no rows of this device and length.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = [row for row in _read(csv.reader(file, strict=True)) if row["device"] == device]
        return _table(rows, device, tokens)
    except OSError as error:
        raise ProfileError(f"{os.fspath(path)}: {error.strerror}") from None
    except (ValueError, csv.Error) as error:
        raise ProfileError(f"{os.fspath(path)}: {error}") from None


def _read(rows: Any) -> Iterable[dict[str, Any]]:
    header = [name.strip() for name in next(rows, [])]
    for name in COLUMNS:
        if header.count(name) != 1:
            found = ",".join(header) or "nothing"
            raise ProfileError(f"line 1: expected one column {name!r}, found {found}")
    seen: set[tuple[Any, ...]] = set()
    for fields in filter(None, rows):
        where = f"line {rows.line_num}"
        if len(fields) != len(header):
            raise ProfileError(f"{where}: expected {len(header)} fields, found {len(fields)}")
        row: dict[str, Any] = dict(zip(header, map(str.strip, fields), strict=True))
        for name in COUNTS:
            row[name] = _parse(row[name], f"{where}, {name}", "a whole number >= 1")
        weight = "layer_weight_bytes_per_device"
        row[weight] = _parse(row[weight], f"{where}, {weight}", "bytes >= 0")
        stages = row["stage_latency_s"] = _parse(
            row["stage_latency_s"], f"{where}, stage_latency_s", "a list of seconds > 0"
        )
        if len(stages) != row["pp"]:
            raise ProfileError(f"{where}: {len(stages)} stages given, pp is {row['pp']}")
        key = (row["device"], row["model"], *(row[name] for name in COUNTS))
        if key in seen:
            raise ProfileError(f"{where}: the same row as an earlier one")
        seen.add(key)
        yield row


VALID = {
    "a whole number >= 1": lambda value: type(value) is int and value >= 1,
    "bytes >= 0": lambda value: type(value) in (int, float) and 0 <= value < np.inf,
    "a list of seconds > 0": lambda value: (
        isinstance(value, list)
        and all(type(one) in (int, float) and 0 < one < np.inf for one in value)
    ),
}


def _parse(text: str, where: str, expected: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not VALID[expected](value):
        raise ProfileError(f"{where}: expected {expected}, found {text[:40]!r}")
    return value


def _table(rows: list[dict[str, Any]], device: str, tokens: int) -> PrefillTable:
    if not rows:
        raise ProfileError(f"there are no rows of the device {device!r}")
    lengths = sorted({row["seq"] for row in rows})
    chosen = [row for row in rows if row["seq"] == tokens]
    models = {row["model"] for row in rows}
    if lacking := models - {row["model"] for row in chosen if row["batch"] == 1}:
        known = ", ".join(map(str, lengths))
        raise ProfileError(
            f"no rows of {min(lacking)} at {tokens} tokens and batch 1; there are lengths {known}"
        )
    profile = Profile.from_dict(importers.from_rows([_profile_row(row) for row in chosen]))
    latency_s: dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]] = {}
    for model in sorted(models):
        own = [row for row in rows if row["model"] == model and row["batch"] == 1]
        fewest = min((row["op"] * row["pp"], row["op"]) for row in own if row["seq"] == tokens)
        own = [row for row in own if (row["op"] * row["pp"], row["op"]) == fewest]
        own.sort(key=lambda row: row["seq"])
        total = np.array([sum(row["stage_latency_s"]) for row in own])
        latency_s[model] = np.array([row["seq"] for row in own]), total
    note = f"prompts of {tokens} tokens on {device}; activations not known"
    return PrefillTable(dataclasses.replace(profile, note=note), tokens, latency_s)


def _profile_row(row: dict[str, Any]) -> dict[str, Any]:
    stages = row["pp"]
    return {name: row[name] for name in ("model", "batch", "op", "pp", "stage_latency_s")} | {
        "dp": 1,
        "weight_mem_bytes": [float(row["layer_weight_bytes_per_device"])] * stages,
        "act_mem_bytes": [0.0] * stages,
    }
