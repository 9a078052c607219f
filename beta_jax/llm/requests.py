"""Requests of language models: when they arrive, how long prompt and answer are, what they share.

A table is CSV with a row per request, sorted by arrival:

    id,arrival_ns,input_tokens,output_tokens,hashed_blocks,prefix_parent,prefix_blocks

The last three columns, all or none, tell which prefixes requests share without their text: of the
`hashed_blocks` full blocks of prompt and answer, the first `prefix_blocks` are those of request
`prefix_parent`, an earlier row (-1: none), and all others occur nowhere before.
"""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

PS_PER_NS, PS_PER_S = 1000, 10**12
COLUMNS = ("arrival_ns", "input_tokens", "output_tokens")
PREFIX_COLUMNS = ("hashed_blocks", "prefix_parent", "prefix_blocks")
LATEST_NS = 10**15
"""Ten days: what picoseconds leave room for, with room for what follows the last arrival."""
MAX_TOKENS = 2**22
"""Of a prompt and its answer."""


class LLMError(ValueError):
    """Requests, engines, tables or files of theirs that make no sense; one line that says where."""


@dataclasses.dataclass(frozen=True)
class Prefixes:
    """What requests share; int32 [request] each."""

    hashed_blocks: NDArray[np.int32]
    parent: NDArray[np.int32]
    shared_blocks: NDArray[np.int32]


@dataclasses.dataclass(frozen=True, eq=False)
class TokenRequests:
    """Requests in order of arrival; equal arrivals keep their order.

    arrival_ns: int64 [request], 0 or later; input_tokens, output_tokens: int32 [request], at least
    1. Raises LLMError for anything else, naming the first row (from 0) that is wrong.
    """

    arrival_ns: NDArray[np.int64]
    input_tokens: NDArray[np.int32]
    output_tokens: NDArray[np.int32]
    prefixes: Prefixes | None = None

    def __post_init__(self) -> None:
        number = len(np.atleast_1d(self.arrival_ns))
        set_ = object.__setattr__
        set_(self, "arrival_ns", _whole("arrival_ns", self.arrival_ns, number, np.int64))
        for name in ("input_tokens", "output_tokens"):
            set_(self, name, _whole(name, getattr(self, name), number, np.int32))
        _require(self.arrival_ns >= 0, "arrival_ns", self.arrival_ns, "0 or more")
        _require(self.arrival_ns <= LATEST_NS, "arrival_ns", self.arrival_ns, "10 days at most")
        if number:
            later = np.concatenate([[True], np.diff(self.arrival_ns) >= 0])
            _require(later, "arrival_ns", self.arrival_ns, "no earlier than the row before")
        for name in ("input_tokens", "output_tokens"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        both = self.input_tokens.astype(np.int64) + self.output_tokens
        _require(both <= MAX_TOKENS, "input_tokens + output_tokens", both, f"{MAX_TOKENS} at most")
        if self.prefixes is not None:
            set_(self, "prefixes", _checked(self.prefixes, number))

    @classmethod
    def from_seconds(
        cls, arrival_s: ArrayLike, input_tokens: ArrayLike, output_tokens: ArrayLike
    ) -> TokenRequests:
        """Arrivals in seconds, float64 [request], rounded to nanoseconds."""
        times = np.asarray(arrival_s, np.float64)
        _require(np.isfinite(times), "arrival_s", times, "a number")
        _require(np.abs(times) <= LATEST_NS / 1e9, "arrival_s", times, "10 days at most")
        arrival_ns = np.rint(times * 1e9).astype(np.int64)
        return cls(arrival_ns, np.asarray(input_tokens), np.asarray(output_tokens))

    def __len__(self) -> int:
        return len(self.arrival_ns)

    @property
    def most_tokens(self) -> int:
        """The most tokens whose keys and values a request holds: all but its last answer token."""
        return int((self.input_tokens.astype(np.int64) + self.output_tokens - 1).max(initial=0))

    def at_rate(self, factor: float) -> TokenRequests:
        """The same requests `factor` times as fast: arrivals divided by it, rounded down."""
        if not 0 < factor < np.inf:
            raise LLMError(f"a rate is scaled by a positive number, got {factor!r}")
        times = np.floor(self.arrival_ns / factor)
        _require(times <= LATEST_NS, "arrival_ns", times, "10 days at most")
        return dataclasses.replace(self, arrival_ns=times.astype(np.int64))

    def without_prefixes(self) -> TokenRequests:
        return dataclasses.replace(self, prefixes=None)


def load_token_requests(path: str | os.PathLike[str]) -> TokenRequests:
    """Read a table of requests; other columns are not looked at. Raises LLMError."""
    name = os.fspath(path)
    try:
        frame = pd.read_csv(path, encoding="utf-8-sig", skip_blank_lines=True)
    except OSError as error:
        raise LLMError(f"{name}: {error.strerror or error}") from None
    except (ValueError, pd.errors.ParserError) as error:
        raise LLMError(f"{name}: not a table: {str(error).splitlines()[0]}") from None
    missing = [column for column in COLUMNS if column not in frame]
    if missing:
        raise LLMError(f"{name}: the column {missing[0]!r} is missing")
    present = [column in frame for column in PREFIX_COLUMNS]
    if any(present) != all(present):
        raise LLMError(f"{name}: {', '.join(PREFIX_COLUMNS)}: all three columns, or none")
    try:
        own = Prefixes(*(frame[c].to_numpy() for c in PREFIX_COLUMNS)) if all(present) else None
        arrival_ns, prompt, answer = (frame[column].to_numpy() for column in COLUMNS)
        return TokenRequests(arrival_ns, prompt, answer, own)
    except LLMError as error:
        raise LLMError(f"{name}: {error}") from None


def save_token_requests(requests: TokenRequests, path: str | os.PathLike[str]) -> None:
    columns: dict[str, Any] = {"id": np.arange(len(requests))}
    columns |= {name: getattr(requests, name) for name in COLUMNS}
    if (own := requests.prefixes) is not None:
        values = own.hashed_blocks, own.parent, own.shared_blocks
        columns |= dict(zip(PREFIX_COLUMNS, values, strict=True))
    pd.DataFrame(columns).to_csv(path, index=False)


def _require(true: NDArray[np.bool_], name: str, values: NDArray[Any], wanted: str) -> None:
    wrong = np.flatnonzero(~true)
    if wrong.size:
        raise LLMError(f"row {wrong[0]}: {name} is {values[wrong[0]]}, wanted {wanted}")


def _whole(name: str, values: ArrayLike, number: int, dtype: type) -> NDArray[Any]:
    found = np.asarray(values)
    if found.shape != (number,):
        raise LLMError(f"{name} has the shape {found.shape}, wanted ({number},)")
    if number and found.dtype.kind not in "iu":
        if found.dtype.kind != "f":
            raise LLMError(f"{name} holds {found.dtype}, wanted whole numbers")
        _require(np.isfinite(found) & (found == np.rint(found)), name, found, "a whole number")
    _require(
        np.abs(found.astype(np.float64)) < np.iinfo(dtype).max, name, found, "a smaller number"
    )
    return np.ascontiguousarray(found.astype(dtype))


def _checked(own: Prefixes, number: int) -> Prefixes:
    hashed, parent, shared = (
        _whole(name, values, number, np.int32)
        for name, values in zip(
            PREFIX_COLUMNS, (own.hashed_blocks, own.parent, own.shared_blocks), strict=True
        )
    )
    _require(hashed >= 0, "hashed_blocks", hashed, "0 or more")
    _require(shared >= 0, "prefix_blocks", shared, "0 or more")
    _require(shared <= hashed, "prefix_blocks", shared, "no more than hashed_blocks")
    _require(parent >= -1, "prefix_parent", parent, "an earlier row, or -1")
    _require(parent < np.arange(number), "prefix_parent", parent, "an earlier row, or -1")
    _require((parent >= 0) | (shared == 0), "prefix_blocks", shared, "0 without a prefix_parent")
    theirs = np.where(parent >= 0, hashed[parent], 0) if number else hashed
    _require(shared <= theirs, "prefix_blocks", shared, "no more than its parent's hashed_blocks")
    return Prefixes(hashed, parent, shared)
