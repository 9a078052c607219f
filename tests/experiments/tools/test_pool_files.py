"""Clusters of several pools from files: what evaluate, quickstart and sweep make of them."""

from __future__ import annotations

import csv
import json
import math
import time
from pathlib import Path

import pytest

import experiments
import run
from beta_jax import load_placement, load_profile, save_profile
from beta_jax.profiles.profile import Profile
from experiments.engine.pool_files import PoolFileError, read_cluster

EXAMPLE = Path(run.__file__).parent / "data" / "examples" / "placement.json"


def faster(times: float) -> Profile:
    document = load_profile("v100").to_dict()
    for entry in document["types"].values():
        for row in entry["configs"]:
            row["stage_latency_s"] = {
                batch: [seconds / times for seconds in stages]
                for batch, stages in row["stage_latency_s"].items()
            }
    return Profile.from_dict(document)


@pytest.fixture
def pools(tmp_path: Path) -> Path:
    save_profile(tmp_path / "new.json", faster(2))
    path = tmp_path / "pools.csv"
    path.write_text(
        "name,num_devices,profile,memory_gib,price_per_hour\n"
        f"v100,4,v100,13,3\nnew,2,{tmp_path / 'new.json'},26,\n"
    )
    return path


def test_a_cluster_from_a_file(pools: Path):
    cluster, profiles = read_cluster(pools)
    assert cluster.names == ("v100", "new") and cluster.num_devices == 6
    assert [pool.memory_bytes / 2**30 for pool in cluster.pools] == [13, 26]
    assert cluster.with_devices([2, 0]).price_per_hour == 6
    assert profiles["v100"] == load_profile("v100") and profiles["new"] == faster(2)


def test_from_quickstart_to_evaluate(pools: Path, tmp_path: Path, capsys):
    def call(config: str, *arguments: str) -> Path:
        out = tmp_path / config
        argv = ["run.py", f"--config={config}", f"--out_dir={out}", f"--config.pools={pools}"]
        assert run.main([*argv, *arguments], time.perf_counter()) == 0, capsys.readouterr().err
        return out

    found = call("quickstart", "--config.policies=mp-search") / "placement.json"
    placement, _ = load_placement(found, ["v100", "new"])
    out = call("evaluate", f"--config.placement={found},{EXAMPLE}")
    with open(out / "groups.csv") as file:
        own = [row for row in csv.DictReader(file) if row["placement"].endswith(str(found))]
    names = [("v100", "new")[group.config.pool] for group in placement.groups]
    assert [row["pool"] for row in own] == names and "new" in names


def test_a_sweep_on_pools(pools: Path, tmp_path: Path):
    results = experiments.run(
        "sweep", pools=[str(pools)], rates=[2.0, 4.0], num_models=[2], durations_s=[30.0], seeds=1,
        policies=["sr-greedy"], warmup_s=0.0,
    )  # fmt: skip
    assert {row["num_devices"] for row in results.rows} == {"6"}
    assert {row["pools"] for row in results.rows} == {str(pools)}
    assert all("@1" in row["placement"] for row in results.rows)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no pools"),
        ([{"name": "a", "num_devices": 2}], "pool 1 has no profile"),
        ([{"name": "a", "num_devices": 0, "profile": "v100"}], r"pool 1 \(a\) has 0 devices"),
        ([{"name": "a", "num_devices": "x", "profile": "v100"}], "'x', not a whole number"),
        ([{"name": "a", "num_devices": 1, "profile": "v100", "gpus": 1}], "columns must be among"),
        ([{"name": "a", "num_devices": 1, "profile": "v9"}], "pool a: profile: there is no file"),
        ([{"name": "a", "num_devices": 1, "profile": "v9.json"}], "v9.json: No such file"),
        ([{"name": "a", "num_devices": math.inf, "profile": "v100"}], "inf, not a whole number"),
        ([{"name": "a", "num_devices": 1, "profile": "v100"}] * 2, "two pools have the same name"),
    ],
)
def test_bad_files_are_named(rows: list, message: str, tmp_path: Path):
    path = tmp_path / "pools.json"
    path.write_text(json.dumps(rows))
    with pytest.raises(PoolFileError, match=message) as raised:
        read_cluster(path)
    assert str(path) in str(raised.value)
