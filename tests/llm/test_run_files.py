"""Engines as JSON documents."""

from __future__ import annotations

import json

import pytest
from test_tables import write

from beta_jax.llm import Engine, LinearStepTime, LLMError, load_engine, load_run, save_engine

LINEAR = Engine(8, 64, 100, LinearStepTime(1, 2, 3, 4), block_size=4, prefix_caching=True)


def test_a_linear_engine_is_read_as_it_was_written(tmp_path):
    save_engine(LINEAR, tmp_path / "engine.json")
    assert load_engine(tmp_path / "engine.json") == LINEAR


def test_tables_are_named_from_where_the_engine_lies(tmp_path):
    folder = tmp_path / "tables"
    folder.mkdir()
    _, engine = load_run(write(folder))
    save_engine(engine, tmp_path / "engine.json")
    assert json.loads((tmp_path / "engine.json").read_text())["step_time"] == {"tables": "tables"}
    again = load_engine(tmp_path / "engine.json")
    assert (again.num_blocks, again.prefix_caching) == (engine.num_blocks, engine.prefix_caching)
    assert (
        again.step_time.dense_ns([1, 3, 9]).tolist()
        == engine.step_time.dense_ns([1, 3, 9]).tolist()
    )
    inner = folder / "inner"
    inner.mkdir()
    with pytest.raises(LLMError, match="wanted a folder below that of the file"):
        save_engine(engine, inner / "engine.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_blocks": 0}, "num_blocks is 0, wanted a whole number from 1"),
        ({"num_blocks": None}, "num_blocks is None"),
        ({"blocks": 3}, "blocks is no field here, wanted max_num_seqs, "),
        ({"prefix_caching": "yes"}, "prefix_caching is 'yes', wanted true or false"),
        ({"step_time": 5}, "step_time is 5, wanted an object"),
        ({"step_time": {"tables": "../elsewhere"}}, "step_time.tables is '../elsewhere', wanted"),
        ({"step_time": {"tables": "/"}}, "step_time.tables is '/', wanted a folder below"),
        ({"step_time": {"base_ps": 1}}, "step_time.prefill_token_ps is missing, wanted whole"),
        (
            {
                "step_time": dict.fromkeys(("base_ps", "prefill_token_ps", "cached_token_ps"), 1)
                | {"decode_ps": 0.5}
            },
            "step_time.decode_ps is 0.5, wanted whole picoseconds",
        ),
    ],
)
def test_bad_documents_are_one_line(tmp_path, change, message):
    path = tmp_path / "engine.json"
    save_engine(LINEAR, path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(LLMError) as caught:
        load_engine(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)
