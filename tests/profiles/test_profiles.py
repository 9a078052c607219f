"""Profiles: what is read, what is refused and how it is said."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import math
import pathlib
import pickle
import struct
import sys
import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beta_jax.profiles import importers as profile_import
from beta_jax.profiles.profile import Profile, ProfileError, load_profile, save_profile
from beta_jax.types import ParallelConfig

DATA = pathlib.Path(__file__).resolve().parents[2] / "data"
ONE, TWO = ParallelConfig(1, 1), ParallelConfig(2, 2)


def document() -> dict:
    """A valid profile of two types; `small` has two configurations, `large` only a pipeline."""
    alone = {
        "op": 1,
        "pp": 1,
        "stage_latency_s": {"1": [0.1], "2": [0.19]},
        "weight_bytes": [4e9],
        "act_bytes": {"1": [10.0], "2": [20.0]},
    }
    pipeline = {
        "op": 2,
        "pp": 2,
        "stage_latency_s": {"1": [0.03, 0.04]},
        "weight_bytes": [1e9, 1.5e9],
        "act_bytes": {"1": [0, 0]},
    }
    return {
        "format": "beta_jax.profile",
        "version": 1,
        "types": {
            "small": {"configs": [alone, pipeline]},
            "large": {"configs": [copy.deepcopy(pipeline)]},
        },
    }


def rows() -> list[dict]:
    """The content of `document()` as flat rows."""
    return [
        {
            "model": name,
            "dp": 1,
            "op": config["op"],
            "pp": config["pp"],
            "batch": int(batch),
            "stage_latency_s": stages,
            "weight_mem_bytes": config["weight_bytes"],
            "act_mem_bytes": config["act_bytes"][batch],
        }
        for name, entry in document()["types"].items()
        for config in entry["configs"]
        for batch, stages in config["stage_latency_s"].items()
    ]


def schema_v1() -> dict:
    """The content of `document()` in the golden schema."""
    models = {
        name: {
            "preprocess_cpu": 0.0,
            "postprocess_cpu": 0.0,
            "configs": [
                {
                    "dp": 1,
                    "op": config["op"],
                    "pp": config["pp"],
                    "latency": config["stage_latency_s"],
                    "weight_mem": config["weight_bytes"],
                    "act_mem": config["act_bytes"],
                }
                for config in entry["configs"]
            ],
        }
        for name, entry in document()["types"].items()
    }
    return {"schema": "alpaserve-profile-v1", "note": "n", "units": {}, "models": models}


@pytest.fixture
def artifact(monkeypatch):
    """The artifact's module, with classes like its own, so that real pickles can be made here."""
    module = types.ModuleType("alpa_serve.profiling")
    for name in ("ProfilingResult", "LatencyMemData"):
        setattr(module, name, type(name, (), {"__module__": module.__name__}))

    class ParallelConfig(tuple):
        __slots__ = ()

        def __new__(cls, dp, op, pp):
            return tuple.__new__(cls, (dp, op, pp))

        def __getnewargs__(self):
            return tuple(self)

    ParallelConfig.__module__, ParallelConfig.__qualname__ = module.__name__, "ParallelConfig"
    module.ParallelConfig = ParallelConfig
    monkeypatch.setitem(sys.modules, "alpa_serve", types.ModuleType("alpa_serve"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def results(artifact) -> dict:
    """The content of `document()` as the artifact's objects."""

    def record(kind, **fields):
        made = kind()
        vars(made).update(fields)
        return made

    def ints(table):
        return {int(batch): stages for batch, stages in table.items()}

    return {
        name: record(
            artifact.ProfilingResult,
            model_name=name,
            para_dict={
                artifact.ParallelConfig(1, config["op"], config["pp"]): record(
                    artifact.LatencyMemData,
                    latency=ints(config["stage_latency_s"]),
                    act_mem=ints(config["act_bytes"]),
                    weight_mem=config["weight_bytes"],
                    metadata=None,
                )
                for config in entry["configs"]
            },
            preprocess_cpu=0.0,
            postprocess_cpu=0.0,
        )
        for name, entry in document()["types"].items()
    }


def refusal(path: pathlib.Path, content: object) -> str:
    """The one line with which `load_profile` refuses the content."""
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    with pytest.raises(ProfileError) as error:
        load_profile(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert len(message.splitlines()) == 1 and len(message) < 500 + len(str(path))
    return message


# The API


def test_profile_answers_what_the_file_says():
    profile = Profile.from_dict(document())
    assert profile.types == ("large", "small")
    assert profile.configs("small") == (ONE, TWO)
    assert ("small", ONE) in profile and ("large", ONE) not in profile
    assert ("unheard-of", ONE) not in profile
    assert profile.batch_sizes("small", ONE) == (1, 2)
    assert profile.stage_latency_s("small", TWO).tolist() == [0.03, 0.04]
    assert profile.stage_latency_s("small", ONE, batch=2).tolist() == [0.19]
    assert profile.weight_bytes("small", TWO).tolist() == [1e9, 1.5e9]
    assert profile.act_bytes("small", ONE, batch=2).tolist() == [20.0]
    for array in (profile.stage_latency_s("small", TWO), profile.weight_bytes("small", TWO)):
        assert array.dtype == np.float64
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1.0


def test_single_device_latency_is_measured_else_given_else_published_else_refused():
    content = document()
    profile = Profile.from_dict(content)
    assert profile.single_device_latency_s("small") == 0.1
    with pytest.raises(ProfileError, match=r"no SLO can be derived for large: .*\(1,1,1\)"):
        profile.single_device_latency_s("large")

    content["types"]["large"]["reference_latency_s"] = 2.5
    content["types"]["small"]["reference_latency_s"] = 9.0
    content["types"]["bert-103.5b"] = {"configs": document()["types"]["large"]["configs"]}
    profile = Profile.from_dict(content)
    assert profile.single_device_latency_s("large") == 2.5
    assert profile.single_device_latency_s("small") == 0.1
    assert profile.single_device_latency_s("bert-103.5b") == 4.6


def test_the_nearest_types_are_those_of_the_nearest_size():
    with pytest.raises(ProfileError, match=r"nearest: bert-103\.5b, bert-15b"):
        load_profile("v100").configs("bert-104b")


def test_what_is_not_there_is_named_with_what_is():
    profile = Profile.from_dict(document())
    with pytest.raises(ProfileError, match="'smal' has no profile; nearest: small"):
        profile.configs("smal")
    with pytest.raises(ProfileError, match="'xyz' has no profile; known: large, small"):
        profile.single_device_latency_s("xyz")
    with pytest.raises(
        ProfileError, match=r"small has no profile at \(1,1,4\).*\(1,1,1\), \(1,2,2\)"
    ):
        profile.stage_latency_s("small", ParallelConfig(1, 4))
    with pytest.raises(ProfileError, match=r"small \(1,1,1\) has no batch size 4; it has 1, 2"):
        profile.act_bytes("small", ONE, batch=4)


# Round trips, and one content in all formats


def test_every_format_gives_the_same_profile(tmp_path, artifact):
    profile = Profile.from_dict(document())
    save_profile(tmp_path / "own.json", profile)
    (tmp_path / "rows.json").write_text(json.dumps(rows()))
    (tmp_path / "schema.json").write_text(json.dumps(schema_v1()))
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / f"{protocol}.pkl").write_bytes(pickle.dumps(results(artifact), protocol))
    found = {path.name: load_profile(path) for path in tmp_path.iterdir()}
    assert len(found) == 3 + pickle.HIGHEST_PROTOCOL - 1
    assert all(other == profile for other in found.values())


def positive(limit: float):
    return st.floats(1e-6, limit, allow_nan=False)


@st.composite
def profiles(draw) -> Profile:
    def stages(values, pp):
        return draw(st.lists(values, min_size=pp, max_size=pp))

    entries = {}
    for name in draw(st.sets(st.text(min_size=1, max_size=5), min_size=1, max_size=3)):
        degrees = st.tuples(st.integers(1, 8), st.integers(1, 4))
        entries[name] = {"configs": []}
        if draw(st.booleans()):
            entries[name]["reference_latency_s"] = draw(positive(10))
        for op, pp in draw(st.sets(degrees, min_size=1, max_size=3)):
            batches = [str(b) for b in draw(st.permutations((1, 2, 16)))]
            entries[name]["configs"].append(
                {
                    "op": op,
                    "pp": pp,
                    "stage_latency_s": {b: stages(positive(10), pp) for b in batches},
                    "weight_bytes": stages(st.integers(0, 2**40), pp),
                    "act_bytes": {b: stages(st.just(0) | positive(1e9), pp) for b in batches},
                }
            )
    return Profile.from_dict({**document(), "note": draw(st.text(max_size=5)), "types": entries})


@given(profile=profiles())
def test_saved_profiles_come_back(tmp_path_factory, profile):
    path = tmp_path_factory.mktemp("profile") / "p.json"
    save_profile(path, profile)
    again = load_profile(path)
    assert again == profile and hash(again) == hash(profile) and again.note == profile.note
    assert again.to_dict() == profile.to_dict()
    assert [other.name for other in path.parent.iterdir()] == ["p.json"]


@given(profile=profiles(), data=st.data())
def test_checksum_follows_the_numbers_alone(profile, data):
    content = copy.deepcopy(profile.to_dict())
    content["note"] = "another"
    content["types"] = dict(data.draw(st.permutations(list(content["types"].items()))))
    for entry in content["types"].values():
        entry["configs"] = data.draw(st.permutations(entry["configs"]))
    assert Profile.from_dict(content).checksum() == profile.checksum()

    entry = content["types"][data.draw(st.sampled_from(sorted(content["types"])))]
    config = data.draw(st.sampled_from(entry["configs"]))
    kind = data.draw(st.sampled_from(("stage_latency_s", "weight_bytes", "act_bytes")))
    stages = config[kind] if kind == "weight_bytes" else config[kind]["2"]
    stages[0] = np.nextafter(stages[0], math.inf).item()
    other = Profile.from_dict(content)
    assert other.checksum() != profile.checksum() and other != profile


def test_a_failed_save_leaves_the_old_file(tmp_path):
    path = tmp_path / "p.json"
    path.write_text("old")
    (tmp_path / "p.json.tmp").mkdir()
    with pytest.raises(OSError):
        save_profile(path, Profile.from_dict(document()))
    assert path.read_text() == "old"


# Bad files


def put(*keys_and_value):
    """A change of the document: the value at the path of keys."""
    *path, last, value = keys_and_value

    def change(content):
        for key in path:
            content = content[key]
        content[last] = value

    return change


ALONE = ("types", "small", "configs", 0)
PIPELINE = ("types", "small", "configs", 1)


NUMBER = "must be finite and > 0"
BAD_NUMBERS = {
    "nan": (math.nan, f"{NUMBER}, got nan"),
    "infinite": (math.inf, f"{NUMBER}, got inf"),
    "huge": (10**400, NUMBER),
    "negative": (-0.1, f"{NUMBER}, got -0.1"),
    "zero": (0, f"{NUMBER}, got 0"),
    "text": ("0.1", "expected a number, got '0.1'"),
    "bool": (True, "expected a number, got True"),
    "null": (None, "expected a number, got None"),
    "list": ([0.1], "expected a number, got [0.1]"),
}


@pytest.mark.parametrize(("bad", "words"), BAD_NUMBERS.values(), ids=BAD_NUMBERS)
def test_a_bad_latency_is_refused(tmp_path, bad, words):
    content = document()
    put(*PIPELINE, "stage_latency_s", "1", 1, bad)(content)
    where = "small (1,2,2): stage_latency_s, batch 1, stage 1: "
    assert where + words in refusal(tmp_path / "p.json", content)


LATENCY, OBJECT = "small (1,1,1): stage_latency_s: ", "expected an object that is not empty"
BAD_FIELDS = (
    (put(*PIPELINE, "weight_bytes", 0, -1), "small (1,2,2): weight_bytes, stage 0: must be finite"),
    (put(*PIPELINE, "weight_bytes", [1]), "(1,2,2): weight_bytes: 1 stages given, pp is 2"),
    (put(*PIPELINE, "weight_bytes", 1), "(1,2,2): weight_bytes: expected a list"),
    (put(*ALONE, "act_bytes", "2", 0, math.nan), "small (1,1,1): act_bytes, batch 2, stage 0"),
    (put(*ALONE, "act_bytes", {"1": [0]}), "small (1,1,1): act_bytes: has batch sizes [1]"),
    (put(*ALONE, "stage_latency_s", {"2": [1]}), LATENCY + "batch 1 is missing"),
    (put(*ALONE, "stage_latency_s", {}), LATENCY + OBJECT),
    (put(*ALONE, "stage_latency_s", [0.1]), LATENCY + OBJECT),
    (put(*ALONE, "stage_latency_s", "01", [0.1]), LATENCY + "expected batch sizes"),
    (put(*ALONE, "stage_latency_s", "²", [0.1]), LATENCY + "expected batch sizes"),
    (put(*ALONE, "stage_latency_s", "1", [0.1] * 3), "batch 1: 3 stages given, pp is 1"),
    (put(*ALONE, "pp", 0), "small: configs[0]: pp must be a whole number >= 1, got 0"),
    (put(*ALONE, "op", 1.0), "small: configs[0]: op must be a whole number >= 1, got 1.0"),
    (put(*ALONE, "op", True), "small: configs[0]: op must be a whole number >= 1, got True"),
    (put(*ALONE, "dp", 1), "small (1,1,1): unknown key 'dp'; known: op, pp, stage_latency_s"),
    (put(*ALONE, {}), "small: configs[0]: " + OBJECT),
    (put(*ALONE, {"op": 1}), "small: configs[0]: pp is missing"),
    (put(*ALONE, document()["types"]["large"]["configs"][0]), "small (1,2,2): given twice"),
    (put("types", "small", "configs", []), "small: configs: expected a list that is not empty"),
    (put("types", "small", {}), "small: " + OBJECT),
    (put("types", "small", "config", []), "small: unknown key 'config'; known: configs"),
    (put("types", "small", "reference_latency_s", 0), "small: reference_latency_s: must be finite"),
    (put("types", {}), "types: expected an object that is not empty, got {}"),
    (put("version", 2), "version 2 is not 'beta_jax.profile' version 1"),
    (put("format", "beta_jax.placement"), "format 'beta_jax.placement' version 1 is not"),
    (put("note", 3), "note: expected text, got 3"),
    (put("extra", 3), "top level: unknown key 'extra'"),
    (lambda content: content.pop("types"), "top level: types is missing"),
)


@pytest.mark.parametrize(("change", "words"), BAD_FIELDS, ids=[words for _, words in BAD_FIELDS])
def test_an_invalid_profile_is_refused_by_field(tmp_path, change, words):
    content = document()
    change(content)
    assert words in refusal(tmp_path / "p.json", content)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not JSON"),
        (b"{'format'", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"format": 1, "format": 1}', "duplicate key 'format'"),
        (b"3", "top level: expected an object"),
        (b"{}", "top level: expected an object"),
        (b"[]", "types: expected an object"),
        (b"[3]", "row 0: expected an object, got 3"),
        (b'{"schema": "other"}', "schema 'other' is not known"),
        (b'{"schema": "alpaserve-profile-v1"}', "types: expected an object"),
        (b'{"schema": "alpaserve-profile-v1", "models": [1]}', "models: expected an object"),
        (b'{"schema": "alpaserve-profile-v1", "models": {"m": 1}}', "m: expected an object"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path, content, words):
    assert words in refusal(tmp_path / "p.json", content)


def test_truncated_files_are_refused(tmp_path):
    whole = json.dumps(document()).encode()
    for length in range(0, len(whole), 7):
        assert "not JSON" in refusal(tmp_path / "p.json", whole[:length])


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("dp", 2, "row 1: small (2,1,1), batch 2: dp must be 1, got 2"),
        ("batch", 1, "row 1: small (1,1,1), batch 1: given twice"),
        ("batch", "1", "row 1: model must be text, and dp, op, pp and batch whole numbers"),
        ("batch", -2, "small (1,1,1): stage_latency_s: expected batch sizes"),
        ("model", ["m"], "row 1: model must be text"),
        ("weight_mem_bytes", [1], "row 1: small (1,1,1), batch 2: weight_mem_bytes differs"),
        (
            "stage_latency_s",
            [-1],
            "small (1,1,1): stage_latency_s, batch 2, stage 0: must be finite",
        ),
        ("model", "other", "other (1,1,1): stage_latency_s: batch 1 is missing"),
        ("extra", 1, "small (1,1,1): unknown key 'extra'"),
    ],
)
def test_a_bad_row_is_refused(tmp_path, key, value, words):
    content = rows()
    content[1][key] = value
    assert words in refusal(tmp_path / "p.json", content)


def test_a_row_without_a_field_is_refused(tmp_path):
    for key in rows()[0]:
        content = rows()
        del content[2][key]
        assert f"row 2: {key} is missing" in refusal(tmp_path / "p.json", content)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("dp", 2, "small (2,1,1): dp must be 1, got 2"),
        (
            "latency",
            {"1": [0.0]},
            "small (1,1,1): stage_latency_s, batch 1, stage 0: must be finite",
        ),
        ("extra", 1, "small (1,1,1): unknown key 'extra'"),
    ],
)
def test_bad_schema_v1_is_refused(tmp_path, key, value, words):
    content = schema_v1()
    content["models"]["small"]["configs"][0][key] = value
    assert words in refusal(tmp_path / "p.json", content)


# Pickles from strangers


class Calls:
    """Pickles as the call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("hidden", [False, True])
def test_a_hostile_pickle_is_refused_and_not_run(tmp_path, artifact, protocol, hidden):
    import os

    trace = tmp_path / "ran"
    bomb = Calls(os.system, f"touch {trace}")
    content = results(artifact) | {"bomb": bomb} if hidden and protocol >= 2 else bomb
    data = pickle.dumps(content, protocol)
    assert f"'{os.system.__module__}.system'" in refusal(tmp_path / "p.pkl", data)
    assert not trace.exists()
    pickle.loads(data)
    assert trace.exists(), "the pickle is harmless, so this test shows nothing"


@pytest.mark.parametrize(
    "function", [eval, exec, getattr, print, pathlib.Path, np.float64, io.open]
)
def test_only_the_three_classes_are_known(tmp_path, function):
    name = f"{pickle.whichmodule(function, function.__qualname__)}.{function.__qualname__}"
    message = refusal(tmp_path / "p.pkl", pickle.dumps({"m": function}))
    assert "refused: it asks for the global" in message and name in message


@pytest.mark.parametrize("name", ["ProfilingResult", "LatencyMemData", "ParallelConfig"])
def test_a_call_of_a_known_class_is_refused(tmp_path, artifact, name):
    call = Calls(getattr(artifact, name), 1, 1, 1)
    assert f"refused to call {name}" in refusal(tmp_path / "p.pkl", pickle.dumps({"m": call}))


def test_attributes_of_a_known_class_cannot_be_set(tmp_path):
    header = b"\x80\x02calpa_serve.profiling\nLatencyMemData\n"
    refusal(tmp_path / "p.pkl", header + b"}X\x06\x00\x00\x00latencyK\x01sb.")
    refusal(tmp_path / "p.pkl", header + b"N}X\x06\x00\x00\x00latencyK\x01s\x86b.")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not a pickle"),
        (b"model,latency\n", "not a pickle"),
        (b"\x80\x05\x95" + struct.pack("<Q", 2**62), "not a pickle"),
        (b"\x80\x02]r" + struct.pack("<I", 2**32 - 1) + b".", "refused: memo index 4294967295"),
        (b"\x80\x02\x82\x01.", "refused: it asks for extension code 1"),
        (b"\x80\x02]Q.", "not a pickle"),
        (pickle.dumps(3), "the pickle holds a int, not a dictionary"),
        (pickle.dumps({}), "types: expected an object that is not empty"),
        (pickle.dumps({"m": 3}), "other things than a ProfilingResult"),
    ],
)
def test_other_pickles_are_refused(tmp_path, data, words):
    assert words in refusal(tmp_path / "p.pkl", data)


def test_a_huge_pickle_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(profile_import, "PICKLE_LIMIT_BYTES", 1000)
    data = pickle.dumps({"m": "x" * 2000})
    assert "refused: larger than 1000 bytes" in refusal(tmp_path / "p.pkl", data)


def test_a_truncated_pickle_is_refused(tmp_path, artifact):
    whole = pickle.dumps(results(artifact))
    for length in range(0, len(whole), 5):
        assert "not a pickle" in refusal(tmp_path / "p.pkl", whole[:length])


@given(data=st.data())
def test_a_damaged_pickle_is_read_or_refused(tmp_path_factory, data):
    """Any damage ends in a profile or in ProfileError, never in another error."""
    config = b"\x80\x02}X\x01\x00\x00\x00mcalpa_serve.profiling\nProfilingResult\n)\x81}b."
    damaged = bytearray(config)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("pickle") / "p.pkl"
    path.write_bytes(bytes(damaged))
    with pytest.raises(ProfileError):
        load_profile(path)


def test_a_wrong_pickled_profile_is_refused_by_field(tmp_path, artifact):
    def broken(change):
        content = results(artifact)
        costs = content["small"].para_dict
        change(content, costs, costs[artifact.ParallelConfig(1, 1, 1)])
        return refusal(tmp_path / "p.pkl", pickle.dumps(content))

    words = broken(lambda _, __, costs: costs.latency.update({1: [math.nan]}))
    assert (
        "small (1,1,1): stage_latency_s, batch 1, stage 0: must be finite and > 0, got nan" in words
    )
    words = broken(lambda _, __, costs: costs.latency.pop(1))
    assert "small (1,1,1): stage_latency_s: batch 1 is missing" in words
    words = broken(lambda _, __, costs: costs.latency.update({4.0: [1.0]}))
    assert "small: latency: batch sizes must be whole numbers" in words
    words = broken(lambda _, __, costs: vars(costs).pop("weight_mem"))
    assert "small (1,1,1): weight_bytes is missing" in words
    words = broken(lambda _, __, costs: vars(costs).update(extra=1))
    assert "small (1,1,1): unknown key 'extra'" in words
    words = broken(lambda _, all, costs: all.update({artifact.ParallelConfig(2, 1, 1): costs}))
    assert "small (2,1,1): dp must be 1, got 2" in words
    words = broken(lambda _, all, costs: all.update({artifact.ParallelConfig("1", 1, 1): costs}))
    assert "three whole numbers" in words
    words = broken(lambda _, all, costs: all.update({(1, 4, 1): costs}))
    assert "small: para_dict must give a LatencyMemData for a ParallelConfig" in words
    words = broken(lambda content, *_: vars(content["small"]).pop("para_dict"))
    assert "small: para_dict is missing" in words
    words = broken(lambda content, *_: content.update({3: content["small"]}))
    assert "other things than a ProfilingResult for each name" in words


# Files that ship, and published ones


def test_checksums_of_the_shipped_data():
    lines = (DATA / "README.md").read_text().splitlines()
    indented = (line for line in lines if line.startswith("    ") and line[68:70] == "  ")
    listed = dict(reversed(line.split()) for line in indented)
    shipped = {
        path.relative_to(DATA).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in DATA.rglob("*")
        if path.is_file() and path.suffix not in (".md", ".py", ".pyc")
    }
    assert listed == shipped


def test_a_shipped_profile_is_found_by_its_name_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = load_profile(DATA / "profiles" / "v100.json")
    assert load_profile("v100") == load_profile(pathlib.Path("v100")) == shipped
    for name in ("a100", "V100"):
        with pytest.raises(ProfileError, match=f"'{name}', .* shipped: rtx3090, v100$"):
            load_profile(name)
    for path in ("v100.json", "./v100", "folder/v100", ""):
        with pytest.raises(OSError):
            load_profile(path)
    (tmp_path / "v100").mkdir()  # such as one with measurements
    assert load_profile("v100") == shipped


def test_a_file_comes_before_a_shipped_profile_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = Profile.from_dict(document())
    save_profile("v100", own)
    assert load_profile("v100") == own


def test_published_profiles_are_read(shared):
    rtx = [
        load_profile(shared / path)
        for path in (
            "golden/profiles/rtx3090.json",
            "data/profiles/rtx3090_measured.json",
            "data/profiles/profiling_result_rtx3090.pkl",
        )
    ]
    assert rtx[0] == rtx[1] == rtx[2]
    assert rtx[0].types == ("bert-1.3b", "bert-15.4b", "bert-2.6b", "bert-6.7b")
    assert rtx[0].batch_sizes("bert-6.7b", ParallelConfig(1, 4)) == (1, 2, 4, 8, 16)
    alone, two = (rtx[0].stage_latency_s("bert-6.7b", ParallelConfig(op, 1)) for op in (1, 2))
    assert two > alone, "operator parallelism is slower than one device over PCIe"

    v100 = load_profile(shared / "data/profiles/v100_measured.json")
    assert sum(len(v100.configs(name)) for name in v100.types) == 69
    table_1 = {"bert-1.3b": .151, "bert-2.6b": .238, "bert-6.7b": .395,
               "moe-1.3b": .150, "moe-2.4b": .171, "moe-5.3b": .234}  # fmt: skip
    for name, latency_s in table_1.items():
        assert round(v100.single_device_latency_s(name), 3) == latency_s
    with pytest.raises(ProfileError, match=r"no SLO can be derived for moe-7\.1b"):
        v100.single_device_latency_s("moe-7.1b")


def test_the_golden_formula_profile_is_read(shared):
    profile = load_profile(shared / "golden/profiles/v100_like.json")
    assert profile.single_device_latency_s("bert-103.5b") == 4.6
    assert ("bert-103.5b", ParallelConfig(1, 8)) not in profile
    share = 4.6 / 16 * 1.12 + 0.002
    np.testing.assert_allclose(
        profile.stage_latency_s("bert-103.5b", ParallelConfig(2, 8)), [share] * 8
    )
    np.testing.assert_allclose(
        profile.stage_latency_s("bert-103.5b", ParallelConfig(2, 8), batch=16), [share * 14.5] * 8
    )
