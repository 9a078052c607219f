"""Tables of prefill latencies: the profile at one length, and the work of prompts of any."""

from __future__ import annotations

from pathlib import Path

import pytest

from beta_jax import ParallelConfig, ProfileError, load_prefill

HEADER = "device,model,seq,batch,op,pp,stage_latency_s,latency_s,layer_weight_bytes_per_device\n"
ROWS = (
    "a,m,100,1,1,1,[0.1],0.1,8\n"
    'a,m,100,1,1,2,"[0.06, 0.05]",0.11,4\n'
    "a,m,200,1,1,1,[0.2],0.2,8\n"
    'a,m,200,1,1,2,"[0.12, 0.1]",0.22,4\n'
    "a,m,400,1,1,1,[0.6],0.6,8\n"
    "b,m,200,1,1,1,[7],7,8\n"
)
ONE, TWO = ParallelConfig(1, 1), ParallelConfig(1, 2)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "prefill.csv"
    file.write_text(HEADER + ROWS)
    return file


def test_the_profile_is_that_of_one_length(path: Path):
    profile = load_prefill(path, "a", tokens=200).profile
    assert profile.types == ("m",) and profile.configs("m") == (ONE, TWO)
    assert profile.stage_latency_s("m", TWO).tolist() == [0.12, 0.1]
    assert profile.weight_bytes("m", TWO).tolist() == [4, 4]
    assert "200 tokens on a" in profile.note
    assert load_prefill(path, "b", tokens=200).profile.single_device_latency_s("m") == 7


def test_work_is_latency_over_that_of_the_profile(path: Path):
    work = load_prefill(path, "a", tokens=200).work("m", [1, 50, 100, 150, 200, 300, 400, 500])
    assert work.tolist() == pytest.approx([0.005, 0.25, 0.5, 0.75, 1, 2, 3, 4])
    alone = load_prefill(path, "b", tokens=200).work("m", [100, 200, 600])
    assert alone.tolist() == pytest.approx([0.5, 1, 3])


def test_the_derived_table(shared: Path):
    path = shared / "data" / "profiles" / "llm_prefill_derived.csv"
    kind = "meta-llama/Llama-2-70b-hf"
    tables = [load_prefill(path, device) for device in ("a40", "a100", "h100")]
    seconds = [table.profile.single_device_latency_s(kind) for table in tables]
    assert seconds == sorted(seconds, reverse=True)
    for table in tables:
        assert table.work(kind, [512, 1024, 4096])[1] == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: expected one column 'device', found nothing"),
        (HEADER.replace("seq", "length"), "line 1: expected one column 'seq'"),
        (HEADER + "a,m,100\n", "line 2: expected 9 fields, found 3"),
        (
            HEADER + ROWS.replace("m,400,1", "m,400,0"),
            "line 6, batch: expected a whole number",
        ),
        (HEADER + ROWS.replace("[0.2]", "0.2"), "line 4, stage_latency_s: expected a list of sec"),
        (HEADER + ROWS.replace("[0.2]", "[0]"), r"line 4, stage_latency_s: .* found '\[0\]'"),
        (HEADER + ROWS.replace("[0.2]", "[NaN]"), "line 4, stage_latency_s: expected a list"),
        (HEADER + ROWS.replace("1,2,", "1,3,"), "line 3: 2 stages given, pp is 3"),
        (HEADER + ROWS + ROWS, "line 8: the same row as an earlier one"),
        (HEADER + ROWS.replace(",8", ",heavy"), "line 2, layer_weight_bytes_per_device: expected"),
        (HEADER + ROWS.replace("a,m,", "c,m,"), "there are no rows of the device 'a'"),
        (HEADER + ROWS.replace("m,200", "m,300"), "no rows of m at 200 tokens .* 100, 300, 400"),
    ],
)
def test_a_bad_table_is_one_line_with_its_place(text: str, message: str, path: Path):
    path.write_text(text)
    with pytest.raises(ProfileError, match=message) as error:
        load_prefill(path, "a", tokens=200)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


def test_what_is_not_there(path: Path):
    with pytest.raises(ProfileError, match="model type 'n' is not in the table; it has m"):
        load_prefill(path, "a", tokens=100).work("n", [1])
    with pytest.raises(ProfileError, match=r"gone\.csv: No such file"):
        load_prefill(path.with_name("gone.csv"), "a")
