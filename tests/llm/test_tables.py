"""Interpolation of kernel times by hand, and tables that make no sense."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from beta_jax.llm import LLMError, StepShape, load_run, read_tables

RUN = {
    **{"max_num_seqs": 8, "max_num_batched_tokens": 64, "num_blocks": 100, "block_size": 2},
    **{"prefix_caching": False, "layers": 3, "prologue": ["embedding"], "head": ["sampler"]},
    **{"block": ["norm", "attention", "norm"], "per_sequence_layers": ["sampler"]},
    **{"host_bw_bytes_per_ns": 3, "tp": 1, "skew": {"enabled": False}},
}
FILES = {
    "dense.csv": "layer,tokens,time_us\nembedding,2,.01\nembedding,4,.013\nnorm,1,.1\n",
    "per_sequence.csv": "layer,sequences,time_us\nsampler,1,1\nsampler,3,2\n",
    "attention.csv": "prefill_chunk,kv_prefill,n_decode,kv_decode,time_us\n"
    "0,0,2,10,1\n0,0,2,20,2\n4,0,0,0,5\n4,8,0,0,7\n",
    "skew_alpha.csv": "pc,n_bucket,rate_bucket,kvmax_bucket,kp_bucket,alpha\n0,1,0,0,0,0.2507\n",
    "requests.csv": "arrival_ns,input_tokens,output_tokens\n0,4,2\n",
}
SKEW = {
    **{"enabled": True, "alpha_default": 0.5, "n_upper": [2, 4], "skew_rate_upper": [0.5, 1]},
    **{"kv_big_upper": [100], "kp_upper": [0, 100]},
}
TWO_RANKS = {
    **{"tp": 2, "hidden": 5, "dtype_bytes": 2, "link_latency_ns": 7.5, "link_bw_GiBps": 1},
    "npu_bw_bytes_per_ns": 2,
}


def write(folder: Path, run=None, **files) -> Path:
    (folder / "run.json").write_text(json.dumps(RUN | (run or {})))
    for name, text in (FILES | {f"{name}.csv": text for name, text in files.items()}).items():
        if text is not None:
            (folder / name).write_text(text)
    return folder


def test_times_are_interpolated_and_truncated(tmp_path):
    embedding, _ = read_tables(write(tmp_path)).dense
    # 10 at 2, 13 at 4: constant below, on in a line above.
    assert embedding([1, 2, 3, 4, 5, 6, 100]).tolist() == [10, 10, 11, 13, 14, 16, 157]


def test_what_falls_is_at_least_a_nanosecond(tmp_path):
    text = FILES["dense.csv"].replace("4,.013", "4,.002")
    embedding, _ = read_tables(write(tmp_path, dense=text)).dense
    assert embedding([3, 4, 5]).tolist() == [6, 2, 1]


def test_attention_takes_the_nearest_slice_for_a_missing_corner(tmp_path):
    attention = read_tables(write(tmp_path)).attention
    assert attention.slice_of.tolist() == [[0, 0], [1, 1]]  # (0, 0) has none, and (4, 2) neither
    assert attention(0, 0, 1, [5, 10, 15, 20, 30]).tolist() == [1000, 1000, 1500, 2000, 3000]
    assert attention(4, [0, 4, 8, 12], 0, 0).tolist() == [5000, 6000, 7000, 8000]
    assert attention(2, 4, 1, 15) == 3750  # between 1500 and 6000


def test_of_equally_near_slices_the_one_with_less_prefill_is_taken(tmp_path):
    header = FILES["attention.csv"].splitlines()[0]
    text = f"{header}\n0,0,2,0,1\n2,0,0,0,5\n"
    assert read_tables(write(tmp_path, attention=text)).attention.slice_of.tolist() == [
        [0, 0],
        [1, 0],
    ]


def test_a_step_adds_all_up(tmp_path):
    tables = read_tables(write(tmp_path))
    # Embedding and 6 norms, 3 of attention, the sampler, and 5 bytes to and 5 from the host.
    shape = StepShape(2, 0, 0, 4, 60, 15, 15)
    assert tables.step_ps(shape) == 1000 * (13 + 600 + 3 * 1500 + 1500 + 2 * 5)
    # An all-reduce of 4 x 10 / 2 bytes after each of 6 layers: two hops, and three passes.
    hop, rest = int(7.5 + 20 / (2**30 / 10**9)), 3 * 10 + 30
    both = read_tables(write(tmp_path, TWO_RANKS)).step_ps(shape)
    assert both == tables.step_ps(shape) + 1000 * (5 + 6 * (2 * hop + rest))


def test_unequal_decodes_take_a_part_more(tmp_path):
    tables = read_tables(write(tmp_path, {"skew": SKEW}))

    def attention(decodes: int, mean: int, most: int, least: int, prefill: int = 0) -> int:
        shape = StepShape(decodes, prefill, 0, decodes, decodes * mean, most, least)
        return int(tables.attention_ns(shape))

    assert attention(3, 10, 20, 10) == 1251  # a bucket of its own: 250.7 of 1000
    assert attention(3, 15, 20, 5) == 1750  # another rate: as those without a row
    assert attention(2, 10, 20, 10) == 1500  # another number of decodes
    assert attention(9, 10, 20, 10) == 1251  # beyond the last bound: as in the last bucket
    assert attention(1, 10, 20, 10) == 1000  # nothing is unequal
    assert attention(3, 10, 20, 10, prefill=4) == 5000  # no decodes in that slice
    falling = FILES["attention.csv"].replace("20,2", "20,.5")
    tables = read_tables(write(tmp_path, {"skew": SKEW}, attention=falling))
    assert attention(3, 10, 20, 10) == 1000  # the longest would take less: not corrected


@pytest.mark.parametrize(
    ("run", "files", "message"),
    [
        ({"block": ["norm", "attention", "mlp"]}, {}, "dense.csv: the layer 'mlp' of run.json has"),
        (
            {"head": ["top"], "per_sequence_layers": ["top"]},
            {},
            "per_sequence.csv: the layer 'top'",
        ),
        ({"block": ["norm"]}, {}, "run.json: block is no 'attention', wanted"),
        ({"tp": 4}, {}, "run.json: tp is 4, wanted 1 or 2"),
        ({"tp": 2}, {}, "run.json: hidden is missing"),
        ({"layers": 0}, {}, "run.json: layers is 0, wanted a whole number from 1"),
        ({"num_blocks": 0}, {}, "run.json: num_blocks is 0, wanted a whole number from 1"),
        ({"num_blocks": 1}, {}, "requests.csv: row 0: its 5 tokens can never fit"),
        ({"host_bw_bytes_per_ns": 0}, {}, "run.json: host_bw_bytes_per_ns is 0, wanted more"),
        ({"skew": {"enabled": 1}}, {}, "run.json: skew.enabled is 1, wanted true or false"),
        ({"skew": SKEW | {"n_upper": [4, 2]}}, {}, "run.json: skew.n_upper is [4, 2], wanted"),
        ({"skew": SKEW | {"n_upper": []}}, {}, "run.json: skew.n_upper is [], wanted"),
        (
            {"skew": SKEW | {"n_upper": [2]}},
            {},
            "skew_alpha.csv: row 0: n_bucket is 1, but n_upper",
        ),
        ({"skew": SKEW}, {"skew_alpha": "pc,alpha\n0,1\n"}, "the column 'n_bucket' is missing"),
        ({}, {"dense": "layer,tokens,time_us\n"}, "dense.csv: has no rows"),
        ({}, {"dense": "layer,tokens\nnorm,1\n"}, "dense.csv: the column 'time_us' is missing"),
        ({}, {"dense": "layer,tokens,time_us\nnorm,1,nan\n"}, "dense.csv: row 0: time_us is nan"),
        ({}, {"dense": "layer,tokens,time_us\nnorm,1,-1\n"}, "row 0: time_us is -1, wanted micro"),
        ({}, {"dense": "layer,tokens,time_us\nnorm,x,1\n"}, "row 0: tokens is x, wanted a whole"),
        (
            {},
            {"attention": FILES["attention.csv"] + "0,0,2,10,3\n"},
            "attention.csv: row 4: prefill_chunk 0, n_decode 2, kv_prefill 0, kv_decode 10 is",
        ),
        (
            {},
            {"requests": "arrival_ns,input_tokens,output_tokens\n5,4,2\n3,4,2\n"},
            "requests.csv: row 1",
        ),
    ],
)
def test_bad_tables_are_one_line(tmp_path, run, files, message):
    with pytest.raises(LLMError) as caught:
        load_run(write(tmp_path, run, **files))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    write(tmp_path)
    (tmp_path / "attention.csv").unlink()
    with pytest.raises(LLMError, match=r"attention\.csv: No such file"):
        read_tables(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(LLMError, match=r"run\.json: not JSON"):
        read_tables(tmp_path)
