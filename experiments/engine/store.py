"""Finished results, kept at once: one line of JSON each, with a checksum, only ever appended.

Whatever ends a run - SIGKILL, a full disk, a power cut - damages at most the last line, and a line
whose checksum is wrong is never believed. One process at a time (see `folder.locked`).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypedDict, cast

from experiments.engine import files

FILE = "results.jsonl"


class Record(TypedDict):
    """What is stored of a result, as JSON; see `compute`.

    metrics: of the test traffic. placement: its groups or segments, models by their index; layout:
    the same in short; hosts_any: whether it has a replica. The others are those of the search.
    """

    metrics: dict[str, float]
    placement: dict[str, Any]
    layout: str
    hosts_any: bool
    train_score: float
    num_simulations: int
    warnings: list[str]


class StoreError(ValueError):
    """Results cannot be stored; what was stored before still is."""


def digest(value: Any) -> str:
    """SHA-256 of a JSON value in canonical form."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class Store:
    """Results by key, in a file or, for None, in memory alone.

    damaged: lines of the file that were not believed, and are gone from it.
    """

    def __init__(self, path: Path | None) -> None:
        """Read what is there; raises StoreError if the file cannot be read or mended."""
        self.path = path
        self.records: dict[str, Record] = {}
        self.damaged = 0
        if path is None or not path.exists():
            return
        try:
            content = path.read_bytes()
            lines = content.split(b"\n")
            for line in lines:
                self._believe(line)
            if self.damaged or lines[-1]:  # a last line without an end would swallow the next
                files.write(path, "".join(map(_line, self.records.items())))
        except OSError as error:
            raise StoreError(f"cannot read and mend {path}: {error.strerror}") from None

    def _believe(self, line: bytes) -> None:
        checksum, _, text = line.partition(b" ")
        if hashlib.sha256(text).hexdigest().encode() == checksum:
            match json.loads(text):
                case [str() as key, dict() as record]:
                    self.records[key] = cast(Record, record)
                    return
        if line:
            self.damaged += 1

    def add(self, records: Mapping[str, Record]) -> None:
        """Keep records: when this returns they are on the disk. Raises StoreError."""
        if self.path is not None:
            _append(self.path, records.items())
        self.records.update(records)


def _line(item: tuple[str, Record]) -> str:
    text = json.dumps(item, separators=(",", ":"))  # keys stay in order, as columns of tables do
    return f"{hashlib.sha256(text.encode()).hexdigest()} {text}\n"


def _append(path: Path, items: Iterable[tuple[str, Record]]) -> None:
    content = "".join(map(_line, items)).encode()
    try:
        new = not path.exists()
        with open(path, "ab", buffering=0) as file:
            end = file.tell()
            try:
                if file.write(content) != len(content):
                    raise OSError("the disk is full")
                os.fsync(file.fileno())
            except OSError:
                file.truncate(end)
                raise
        if new:
            files.sync_directory(path.parent)
    except OSError as error:
        raise StoreError(
            f"cannot write {path}: {error.strerror or error}; what was finished before is stored, "
            "and the same command goes on from there"
        ) from None
