"""Files of every kind that is read, damaged, and who reads them."""

from __future__ import annotations

import gzip
import json
import pickle
import sys
import tempfile
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import strategies as st

from beta_jax import llm, load_placement, load_profile, read_requests, traces
from beta_jax.placement.placement import PlacementError
from beta_jax.profiles.cost_model import load_cost_model
from beta_jax.profiles.prefill import load_prefill
from beta_jax.profiles.profile import ProfileError
from beta_jax.traces import TraceError
from beta_jax.workloads.requests import WorkloadError
from experiments.engine.model_files import ModelFileError, read_models
from experiments.engine.pool_files import PoolFileError, read_cluster
from experiments.engine.store import FILE, Store, StoreError, digest
from experiments.report import tables
from experiments.report.tables import ResultsError
from experiments.tools import request_files

from .damage import csv_files, documents, noisy, values
from .hunt import ROOT, Target, require_named


def _config(op: int, pp: int) -> dict[str, Any]:
    return {
        "op": op,
        "pp": pp,
        "stage_latency_s": {"1": [0.1] * pp, "2": [0.15] * pp},
        "weight_bytes": [1e9] * pp,
        "act_bytes": {"1": [0] * pp, "2": [0] * pp},
    }


PROFILE = {
    "format": "beta_jax.profile",
    "version": 1,
    "note": "made up",
    "types": {
        "t": {"reference_latency_s": 0.2, "configs": [_config(1, 1), _config(1, 2)]},
        "u": {"configs": [_config(2, 1)]},
    },
}
SCHEMA = {
    "schema": "alpaserve-profile-v1",
    "models": {
        "t": {
            "configs": [
                {"dp": 1, "op": 1, "pp": 1, "latency": {"1": [0.1]}, "weight_mem": [1e9]}
                | {"act_mem": {"1": [0]}}
            ]
        }
    },
}
ROWS = [
    {"model": "t", "dp": 1, "op": 1, "pp": 1, "batch": batch, "stage_latency_s": [0.1]}
    | {"weight_mem_bytes": [1e9], "act_mem_bytes": [0]}
    for batch in (1, 2)
]
MEASURED = PROFILE | {
    "measured": {"chip": "c", "dtype": "float16", "date": "2026-01-01"}
    | {"software": {"jax": "1"}, "sequence": {"t": 1024}}
}
HEAD = {"format": "beta_jax.placement", "version": 1}
MODELS = [{"name": name, "type": "t", "slo_s": 1.0} for name in ("a", "b")]
GROUPS = [{"op": 1, "pp": 1, "models": ["a"]}, {"op": 1, "pp": 2, "models": ["a", "b"]}]
PLACEMENT = HEAD | {"models": MODELS, "groups": GROUPS}
SCHEDULE = HEAD | {
    "models": MODELS,
    "segments": [{"start_s": start, "groups": GROUPS} for start in (0, 2.5)],
}
REQUESTS = (("arrival_s", "model"), ("0", "a"), ("0.5", "b"), ("1", "a"), ("2", "b"))
WORKED = (("arrival_s", "model", "work"), ("0", "a", "1"), ("0.5", "b", "0.5"))
MODEL_ROWS = (("type", "name", "rate_share", "slo_s"), ("t", "a", "1", "2"), ("t", "b", "3", "1"))
POOL_ROWS = (
    ("name", "num_devices", "profile", "memory_gib", "devices_per_node", "price_per_hour"),
    ("new", "2", "v100", "13", "8", "1.5"),
    ("old", "1", "rtx3090", "24", "4", "1"),
)
PREFILL_COSTS = "stage_latency_s", "layer_weight_bytes_per_device"
PREFILL = (
    (*("device", "model", "seq", "batch", "op", "pp"), *PREFILL_COSTS),
    ("a100", "t", "1024", "1", "1", "1", "[0.5]", "1000"),
    ("a100", "t", "2048", "1", "1", "1", "[0.9]", "1000"),
)
MINUTES = tuple(str(minute) for minute in range(1, 6))
TRACES = {
    "maf1": (
        ("HashOwner", "HashApp", "HashFunction", "Trigger", *MINUTES),
        ("o", "a", "f", "http", "1", "0", "2", "3", "1"),
        ("o", "a", "g", "timer", "0", "1", "0", "0", "9"),
    ),
    "maf2": (
        ("app", "func", "end_timestamp", "duration"),
        ("a", "f", "10.5", "0.5"),
        ("a", "g", "70", "1"),
    ),
    "azure_llm": (
        ("TIMESTAMP", "ContextTokens", "GeneratedTokens"),
        ("2023-11-16 18:17:03.9799600", "10", "3"),
        ("2023-11-16 18:18:03.9799600", "20", "5"),
    ),
    "requests": REQUESTS,
    "rates": (
        ("client", "timestamp_s", "rate", "cv"),
        ("a", "0", "1.5", "2"),
        ("a", "60", "1", "1"),
        ("b", "0", "2", "1"),
    ),
}


def reader(
    name: str,
    contents: st.SearchStrategy[bytes],
    read: Callable[[Path], Any],
    *errors: type[Exception],
) -> Target:
    """Whoever reads a file of this name reads it, or raises one of the errors, naming it."""

    def feed(content: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_bytes(content)
            try:
                read(path)
            except errors as error:
                require_named(str(error), str(path))

    return Target(contents, feed)


def _trace(path: Path) -> None:
    trace = traces.load_trace(path, cache=False)
    traces.fit_traffic(trace, 1)


def _trace_files() -> st.SearchStrategy[bytes]:
    plain = st.one_of([csv_files(rows) for rows in TRACES.values()])
    return noisy(plain | plain.map(gzip.compress))


@st.composite
def _pickles(draw: st.DrawFn) -> bytes:
    """The published artifact's objects, pickled, with something wrong in them."""
    module = types.ModuleType("alpa_serve.profiling")
    kinds: dict[str, Any] = {
        "ParallelConfig": type("ParallelConfig", (tuple,), {"__getnewargs__": tuple})
    }
    kinds |= {name: type(name, (), {}) for name in ("ProfilingResult", "LatencyMemData")}
    for name, kind in kinds.items():
        kind.__module__ = module.__name__
        setattr(module, name, kind)

    def record(kind: str, state: Any) -> Any:
        made = kinds[kind]()
        if isinstance(state, dict):
            vars(made).update({str(key): value for key, value in state.items()})
        return made

    costs = {"latency": {"1": [0.1]}, "weight_mem": [1e9], "act_mem": {"1": [0]}}
    state = draw(st.just(costs) | values(costs))
    for key in ("latency", "act_mem"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            numbers = {int(n) if n in ("0", "1") else n: v for n, v in state[key].items()}
            state = state | {key: numbers}
    degrees = draw(st.just([1, 1, 1]) | values([1, 1, 1]))
    config = tuple.__new__(kinds["ParallelConfig"], degrees if isinstance(degrees, list) else ())
    try:
        table = {config: record("LatencyMemData", state)}
    except TypeError:  # lists in a tuple have no hash
        table = {}
    fields = {"model_name": "t", "para_dict": table, "preprocess_cpu": 0.1}
    content = {"t": record("ProfilingResult", fields)}
    with mock.patch.dict(sys.modules, {"alpa_serve": module, module.__name__: module}):
        return pickle.dumps(content, draw(st.integers(2, pickle.HIGHEST_PROTOCOL)))


def _profile_then_use(path: Path) -> None:
    profile = load_profile(path)
    profile.checksum()
    for kind in profile.types:
        try:
            profile.single_device_latency_s(kind)
        except ProfileError:
            continue


RECORD: dict[str, Any] = {
    "metrics": {"attainment": 0.5},
    "placement": {"groups": GROUPS},
    "layout": "1x(1,1,1)",
    "hosts_any": True,
    "train_score": 0.5,
    "num_simulations": 3,
    "warnings": [],
}


def _line(value: Any) -> bytes:
    text = json.dumps(value, separators=(",", ":")).encode("utf-8", "surrogatepass")
    return digest_of(text) + b" " + text + b"\n"


def digest_of(text: bytes) -> bytes:
    import hashlib

    return hashlib.sha256(text).hexdigest().encode()


def _stores() -> st.SearchStrategy[bytes]:
    good = [[key, RECORD] for key in (digest(1), digest(2))]
    lines = st.one_of(st.just(good), values(good).filter(lambda found: isinstance(found, list)))
    return noisy(lines.map(lambda found: b"".join(map(_line, found))))


def _store(path: Path) -> None:
    first = Store(path)
    first.add({"k": RECORD})  # type: ignore[dict-item]
    again = Store(path)
    assert again.records == first.records and not again.damaged


def _table(path: Path) -> None:
    tables.read_csv(path, {"group": int, "utilisation": float, "answer": tables.truth})


TABLE = (("group", "utilisation", "answer"), ("0", "0.5", "True"), ("1", "0.25", ""))

TOKENS = (
    *(("arrival_ns", "input_tokens", "output_tokens", "hashed_blocks", "prefix_parent"),),
    *(("0", "40", "9", "3", "-1"), ("7", "33", "1", "2", "0")),
)
TOKENS = tuple((*row, last) for row, last in zip(TOKENS, ("prefix_blocks", "0", "2"), strict=True))
ENGINE = {
    **{"max_num_seqs": 4, "max_num_batched_tokens": 16, "num_blocks": 9, "block_size": 16},
    "prefix_caching": True,
}
COEFFICIENTS = {"base_ps": 9, "prefill_token_ps": 1, "cached_token_ps": 0, "decode_ps": 2}
BOUNDS = "n_upper", "skew_rate_upper", "kv_big_upper", "kp_upper"
RUN = ENGINE | {
    **{"layers": 2, "prologue": ["in"], "block": ["mlp", "attention"], "head": ["out"]},
    **{"per_sequence_layers": ["out"], "host_bw_bytes_per_ns": 3, "tp": 2, "hidden": 8},
    **{"dtype_bytes": 2, "link_latency_ns": 1, "link_bw_GiBps": 1, "npu_bw_bytes_per_ns": 1},
    "skew": {"enabled": True, "alpha_default": 0.5, **{name: [1, 2] for name in BOUNDS}},
}
BUCKETS = "n_bucket", "rate_bucket", "kvmax_bucket", "kp_bucket"
STEP_TABLES = {
    "dense.csv": (("layer", "tokens", "time_us"), ("in", "1", "2"), ("mlp", "1", "0.5")),
    "per_sequence.csv": (("layer", "sequences", "time_us"), ("out", "1", "2")),
    "attention.csv": (
        ("prefill_chunk", "kv_prefill", "n_decode", "kv_decode", "time_us"),
        *(("0", "0", "1", "16", "3"), ("0", "0", "1", "32", "4"), ("8", "0", "0", "0", "9")),
    ),
    "skew_alpha.csv": (("pc", *BUCKETS, "alpha"), ("0", "1", "0", "0", "1", "0.1")),
}
WATCHED = (
    ("id", "output_tokens", "queued_s", "scheduled_s", "first_token_s", "last_token_s"),
    *(("0", "9", "0", "0.5", "1", "2"), ("1", "1", "0.1", "0.5", "1", "1")),
)
STEPS = (
    ("prefill_tokens", "cached_tokens", "decodes", "time_us"),
    *(("0", "100", "3", "5"), ("9", "0", "0", "4"), ("9", "10", "1", "6"), ("0", "9", "1", "3")),
)


def _run_folder(path: Path) -> None:
    """Of a run in which this file is not as it should be."""
    good = {name: "\n".join(map(",".join, rows)) for name, rows in STEP_TABLES.items()}
    good |= {"run.json": json.dumps(RUN), "requests.csv": "\n".join(map(",".join, TOKENS))}
    for name, text in good.items():
        if name != path.name:
            (path.parent / name).write_text(text)
    try:
        llm.simulate(*llm.load_run(path.parent))
    except llm.LLMError as error:
        require_named(str(error), str(path.parent), "too long to count")


def _fit(path: Path) -> None:
    shape, time_ps = llm.read_steps(path)
    try:
        llm.fit_linear(shape, time_ps)
    except llm.LLMError as error:
        require_named(str(error), "step")


COST_MODEL = json.loads((ROOT / "data/cost_models/v100.json").read_text())

TARGETS: dict[str, Target] = {
    "profile": reader(
        "p.json",
        st.one_of([documents(value) for value in (PROFILE, SCHEMA, ROWS, MEASURED)]),
        _profile_then_use,
        ProfileError,
    ),
    "pickle": reader("p.pkl", noisy(_pickles()), _profile_then_use, ProfileError),
    "prefill": reader(
        "p.csv", csv_files(PREFILL), lambda path: load_prefill(path, "a100"), ProfileError
    ),
    "cost_model": reader("c.json", documents(COST_MODEL), load_cost_model, ProfileError),
    "placement": reader(
        "p.json",
        documents(PLACEMENT) | documents(SCHEDULE),
        load_placement,
        PlacementError,
    ),
    "requests": reader(
        "r.csv",
        csv_files(REQUESTS) | csv_files(WORKED),
        lambda path: read_requests(path, ["a", "b"]),
        WorkloadError,
    ),
    "names": reader("r.csv", csv_files(REQUESTS), request_files.model_names, WorkloadError),
    "models": reader("m.csv", csv_files(MODEL_ROWS), read_models, ModelFileError),
    "models_json": reader(
        "m.json",
        documents([dict(zip(MODEL_ROWS[0], row, strict=True)) for row in MODEL_ROWS[1:]]),
        read_models,
        ModelFileError,
    ),
    "pools": reader("p.csv", csv_files(POOL_ROWS), read_cluster, PoolFileError, ProfileError),
    "pools_json": reader(
        "p.json",
        documents([dict(zip(POOL_ROWS[0], row, strict=True)) for row in POOL_ROWS[1:]]),
        read_cluster,
        PoolFileError,
        ProfileError,
    ),
    "trace": reader("t.csv", _trace_files(), _trace, TraceError),
    "llm_engine": reader(
        "e.json",
        documents(ENGINE | {"step_time": COEFFICIENTS}),
        llm.load_engine,
        llm.LLMError,
    ),
    "llm_requests": reader("r.csv", csv_files(TOKENS), llm.load_token_requests, llm.LLMError),
    "llm_run": reader("run.json", documents(RUN), _run_folder),
    **{
        f"llm_{name.removesuffix('.csv')}": reader(name, csv_files(rows), _run_folder)
        for name, rows in STEP_TABLES.items()
    },
    "llm_measured": reader("m.csv", csv_files(WATCHED), llm.read_measured, llm.LLMError),
    "llm_steps": reader("s.csv", csv_files(STEPS), _fit, llm.LLMError),
    "store": reader(FILE, _stores(), _store, StoreError),
    "table": reader("t.csv", csv_files(TABLE), _table, ResultsError),
}
