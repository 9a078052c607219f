"""Profiles in other people's formats, turned into the content of this project's profile file.

Three are known: the pickle of the published artifact, JSON of the schema `alpaserve-profile-v1`,
and a JSON list of flat rows, one per (model, dp, op, pp, batch). What is translated here is checked
only as far as the translation needs; unknown keys are passed on, for `profiles` to refuse. All
errors are ValueError.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from beta_jax.checks import read_bytes

PICKLE_LIMIT_BYTES = 16 * 2**20
"""No pickle of the artifact comes near this size."""
_ROW = ("model", "dp", "op", "pp", "batch", "stage_latency_s", "weight_mem_bytes", "act_mem_bytes")


def from_schema_v1(document: Mapping[str, Any]) -> dict[str, Any]:
    """From `models.<name>.configs[]` with `latency` and `act_mem` by batch size, `weight_mem`."""
    top = dict(document)
    if top.pop("schema") != "alpaserve-profile-v1":
        raise ValueError(f"schema {reprlib.repr(document['schema'])} is not known")
    top.pop("units", None)
    models = top.pop("models", {})
    if not isinstance(models, dict):
        raise ValueError(f"models: expected an object, got {reprlib.repr(models)}")
    types: dict[str, Any] = {}
    for name, model in models.items():
        if isinstance(model, dict) and isinstance(model.get("configs"), list):
            configs = [_config(config, name) for config in model["configs"]]
            model = _without_cpu(model) | {"configs": configs}
        types[name] = model
    return _document(top, types)


def from_rows(rows: list[Any]) -> dict[str, Any]:
    """From a list of objects with the keys of `_ROW`, one per configuration and batch size."""
    types: dict[str, dict[tuple[int, int], dict[str, Any]]] = {}
    for number, row in enumerate(rows):
        where = f"row {number}"
        if not isinstance(row, dict):
            raise ValueError(f"{where}: expected an object, got {reprlib.repr(row)}")
        if missing := [key for key in _ROW if key not in row]:
            raise ValueError(f"{where}: {missing[0]} is missing")
        model, dp, op, pp, batch, latency, weight, act = (row[key] for key in _ROW)
        if not isinstance(model, str) or any(type(v) is not int for v in (dp, op, pp, batch)):
            raise ValueError(f"{where}: model must be text, and dp, op, pp and batch whole numbers")
        where = f"row {number}: {model} ({dp},{op},{pp}), batch {batch}"
        _refuse_data_parallel(dp, where)
        new = {"op": op, "pp": pp, "stage_latency_s": {}, "weight_bytes": weight, "act_bytes": {}}
        config = types.setdefault(model, {}).setdefault((op, pp), new)
        if str(batch) in config["stage_latency_s"]:
            raise ValueError(f"{where}: given twice")
        if config["weight_bytes"] != weight:
            raise ValueError(f"{where}: weight_mem_bytes differs from that of another batch size")
        config["stage_latency_s"][str(batch)] = latency
        config["act_bytes"][str(batch)] = act
        config.update({key: value for key, value in row.items() if key not in _ROW})
    return _document({}, {name: {"configs": list(c.values())} for name, c in types.items()})


def read_pickle(path: Path) -> dict[str, Any]:
    """From the artifact's pickle, {name: ProfilingResult}; nothing it names is imported or run."""
    results = _unpickle(read_bytes(path, PICKLE_LIMIT_BYTES))
    if not isinstance(results, dict):
        raise ValueError(
            f"the pickle holds a {type(results).__name__}, not a dictionary of profiles"
        )
    types: dict[str, Any] = {}
    for name, result in results.items():
        if not isinstance(name, str) or not isinstance(result, _ProfilingResult):
            raise ValueError("the pickle holds other things than a ProfilingResult for each name")
        entry = _without_cpu(vars(result))
        entry.pop("model_name", None)
        configs = entry.pop("para_dict", None)
        if not isinstance(configs, dict):
            raise ValueError(f"{name}: para_dict is missing")
        entry["configs"] = []
        for config, costs in configs.items():
            if not isinstance(config, _ParallelConfig) or not isinstance(costs, _LatencyMemData):
                raise ValueError(
                    f"{name}: para_dict must give a LatencyMemData for a ParallelConfig"
                )
            fields = {key: value for key, value in vars(costs).items() if key != "metadata"}
            for key in ("latency", "act_mem"):
                if isinstance(table := fields.get(key), dict):
                    if any(type(batch) is not int for batch in table):
                        raise ValueError(f"{name}: {key}: batch sizes must be whole numbers")
                    fields[key] = {str(batch): stages for batch, stages in table.items()}
            degrees = dict(zip(("dp", "op", "pp"), config, strict=True))
            entry["configs"].append(_config(fields | degrees, name))
        types[name] = entry
    return _document({}, types)


class _Record:
    """Stands in for a data class of the artifact: takes its fields, and can do nothing else.

    Unpickling an object makes it without a call, then sets its state. A pickle that calls the class
    instead (REDUCE) is not one of the artifact's.
    """

    def __init__(self, *_: Any) -> None:
        raise ValueError(f"refused to call {type(self).__name__[1:]}")

    def __setstate__(self, state: Any) -> None:
        vars(self).update({str(key): value for key, value in state.items()})


class _ProfilingResult(_Record):
    pass


class _LatencyMemData(_Record):
    pass


class _ParallelConfig(_Record, tuple[Any, ...]):
    def __new__(cls, dp: int, op: int, pp: int) -> _ParallelConfig:
        if any(type(degree) is not int for degree in (dp, op, pp)):
            raise ValueError("ParallelConfig must be three whole numbers")
        return tuple.__new__(cls, (dp, op, pp))


_ALLOWED = {
    ("alpa_serve.profiling", stub.__name__[1:]): stub
    for stub in (_ProfilingResult, _LatencyMemData, _ParallelConfig)
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type:
        if (module, name) not in _ALLOWED:
            raise ValueError(f"refused: it asks for the global {f'{module}.{name}'[:200]!r}")
        return _ALLOWED[module, name]


def _unpickle(data: bytes) -> Any:
    try:
        for opcode, argument, _ in pickletools.genops(data):
            # A memo index promises that many objects, and memory is taken for all of them at once.
            if opcode.name.endswith("PUT") and int(argument or 0) > len(data):
                raise ValueError(f"refused: memo index {argument} in {len(data)} bytes")
            # An extension code names a global without asking `find_class`.
            if opcode.name.startswith("EXT"):
                raise ValueError(f"refused: it asks for extension code {argument}")
        return _Unpickler(io.BytesIO(data)).load()
    except Exception as error:  # a corrupt pickle can raise nearly anything
        text = str(error).splitlines() or [type(error).__name__]
        raise ValueError(f"not a pickle of the published artifact: {text[0]}") from None


def _config(config: Any, name: str) -> Any:
    if not isinstance(config, dict):
        return config
    config = dict(config)
    op, pp = config.get("op"), config.get("pp")
    dp = config.pop("dp", 1)
    _refuse_data_parallel(dp, f"{name} ({reprlib.repr(dp)},{reprlib.repr(op)},{reprlib.repr(pp)})")
    for old, new in (
        ("latency", "stage_latency_s"),
        ("weight_mem", "weight_bytes"),
        ("act_mem", "act_bytes"),
    ):
        if old in config:
            config[new] = config.pop(old)
    return config


def _refuse_data_parallel(dp: Any, where: str) -> None:
    if dp != 1:
        raise ValueError(f"{where}: dp must be 1, got {reprlib.repr(dp)}")


def _without_cpu(model: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the times on the CPU, which the simulator's fixed overhead stands for."""
    return {k: v for k, v in model.items() if k not in ("preprocess_cpu", "postprocess_cpu")}


def _document(top: Mapping[str, Any], types: Mapping[str, Any]) -> dict[str, Any]:
    return {"format": "beta_jax.profile", "version": 1, **top, "types": dict(types)}
