"""Engines as JSON documents, and runs as folders.

An engine is a JSON object with the fields of `Engine`, where coefficients say what a step takes:

    {
      "max_num_seqs": 256, "max_num_batched_tokens": 2048,
      "num_blocks": 2588, "block_size": 16, "prefix_caching": true,
      "step_time": {"base_ps": 1, "prefill_token_ps": 2, "cached_token_ps": 3, "decode_ps": 4}
    }

or `"step_time": {"tables": "FOLDER"}`, a folder below that of the document, as `table_files`
describes it. A run is such a folder of tables whose `run.json` has the fields of the engine too,
and which holds `requests.csv` besides.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from beta_jax.llm.engine import Engine
from beta_jax.llm.linear import LinearStepTime
from beta_jax.llm.requests import LLMError, TokenRequests, load_token_requests
from beta_jax.llm.table_files import RUN, Document, read_tables
from beta_jax.llm.tables import StepTables

REQUESTS = "requests.csv"
NUMBERS = ("max_num_seqs", "max_num_batched_tokens", "num_blocks", "block_size")
COEFFICIENTS = tuple(field.name for field in dataclasses.fields(LinearStepTime))


def load_run(folder: str | os.PathLike[str]) -> tuple[TokenRequests, Engine]:
    """What an engine served, and the engine with its tables. Raises LLMError."""
    folder = Path(folder)
    engine = load_engine(folder)
    requests = load_token_requests(folder / REQUESTS)
    try:
        engine.require_room(requests)
    except LLMError as error:
        raise LLMError(f"{folder / REQUESTS}: {error}") from None
    return requests, engine


def load_engine(path: str | os.PathLike[str]) -> Engine:
    """Read an engine, and the tables that it names; of a folder, that of a run. Raises LLMError."""
    path = Path(path)
    if path.is_dir():
        if not (path / RUN).is_file():
            raise LLMError(
                f"{path}: lacks {RUN}; wanted an engine (JSON), or the folder of a run, "
                f"with {RUN}, kernel time tables and {REQUESTS}"
            )
        return _engine(Document(path / RUN), read_tables(path))
    document = Document(path)
    document.only((*NUMBERS, "prefix_caching", "step_time"))
    about = document.inner("step_time")
    if "tables" in about.values:
        about.only(("tables",))
        name = about.values["tables"]
        if not isinstance(name, str) or not _inside(path.parent / name, path.parent):
            raise about.error("tables", repr(name), "a folder below that of the file")
        return _engine(document, read_tables(path.parent / name))
    about.only(COEFFICIENTS)
    coefficients = {name: about.get(name, "whole picoseconds") for name in COEFFICIENTS}
    try:
        linear = LinearStepTime(**coefficients)
    except LLMError as error:
        raise LLMError(f"{path}: step_time.{error}") from None
    return _engine(document, linear)


def save_engine(engine: Engine, path: str | os.PathLike[str]) -> None:
    """Write an engine; its tables must lie below the folder of `path`. Raises LLMError."""
    path = Path(path)
    values: dict[str, Any] = {name: getattr(engine, name) for name in NUMBERS}
    values["prefix_caching"] = engine.prefix_caching
    if isinstance(engine.step_time, StepTables):
        folder = engine.step_time.folder
        if folder is None or not _inside(folder, path.parent):
            raise LLMError(
                f"{path}: its tables are in {folder}, wanted a folder below that of the file"
            )
        relative = folder.resolve().relative_to(path.parent.resolve())
        values["step_time"] = {"tables": relative.as_posix()}
    else:
        values["step_time"] = dataclasses.asdict(engine.step_time)
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _engine(document: Document, step_time: LinearStepTime | StepTables) -> Engine:
    numbers = {name: document.get(name, "a whole number") for name in NUMBERS}
    caching = document.flag("prefix_caching")
    try:
        return Engine(**numbers, prefix_caching=caching, step_time=step_time)
    except LLMError as error:
        raise LLMError(f"{document.path}: {error}") from None


def _inside(folder: Path, parent: Path) -> bool:
    return folder.resolve().is_relative_to(parent.resolve())
