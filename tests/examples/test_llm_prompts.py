"""The example of prompts runs on files of a few rows, and says in a line what is missing."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
main = runpy.run_path(str(ROOT / "examples" / "llm_prompts.py"))["main"]


def files(folder: Path) -> list[str]:
    table, trace = folder / "prefill.csv", folder / "trace.csv"
    rows = [
        f"{device},tiny,{tokens},1,{op},1,[{scale * tokens / 1000 / op}],1073741824"
        for device, scale in (("slow", 1.0), ("fast", 0.2))
        for tokens in (512, 1024)
        for op in (1, 2)
    ]
    head = "device,model,seq,batch,op,pp,stage_latency_s,layer_weight_bytes_per_device"
    table.write_text("\n".join([head, *rows]))
    times = (f"2023-11-16 18:00:{i / 2:04.1f},{i * 97 % 2000 + 1},7" for i in range(100))
    trace.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *times]))
    return [f"--table={table}", f"--trace={trace}", "--model=tiny", "--devices=slow,fast"]


def test_more_and_faster_devices_serve_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main([*files(tmp_path), "--numbers=1,2", "--slo_s=1.5"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert [line[:2] for line in lines] == [
        ["1", "slow"],
        ["2", "slow"],
        ["1", "fast"],
        ["2", "fast"],
    ]
    share = [float(line[3].rstrip("%")) for line in lines]
    assert share[0] < share[1] < share[2] == share[3] == 100


def test_what_is_missing_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main([*files(tmp_path), "--devices=slow,other"]) == 1
    assert "there are no rows of the device 'other'" in capsys.readouterr().err
    assert main([*files(tmp_path), "--model=huge"]) == 1
    assert "model type 'huge' is not in the table; it has tiny" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*files(tmp_path), "--numbers=1,two"])
    assert "--numbers: expected such as 2,4,8, got '1,two'" in capsys.readouterr().err
