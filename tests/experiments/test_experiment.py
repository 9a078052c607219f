"""An experiment as a value: a new figure is one short file, and everything else comes with it."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest

import configs
import experiments
import run
from experiments.cli import configs as by_name
from experiments.experiment import Experiment, Plot
from experiments.report.figures import Panel
from experiments.report.tables import ResultsError

import documents


@pytest.fixture
def own_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The figure of docs/extending.md, as `configs/memory.py` of another root; its text."""
    text = documents.code_below("docs/extending.md", "A figure")
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "memory.py").write_text(text)
    monkeypatch.setattr(by_name, "ROOT", tmp_path)
    monkeypatch.setattr(configs, "__path__", [*configs.__path__, str(folder)])
    monkeypatch.delitem(sys.modules, "configs.memory", raising=False)
    yield text
    sys.modules.pop("configs.memory", None)


def test_a_figure_of_ones_own_is_one_short_file(own_figure, tmp_path, capsys):
    folder = tmp_path / "out"
    arguments = ["run.py", "--config=memory", f"--out_dir={folder}", "--config.duration_s=60"]
    assert run.main([*arguments, "--config.memories_gib=13,40"], 0.0) == 0
    with open(folder / "table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["policy"], row["memory_gib"]) for row in rows] == [
        (policy, memory) for memory in ("13", "40") for policy in ("mp-equal-8-2", "mp-search")
    ]
    assert (folder / "memory.png").stat().st_size > 10_000
    before = (folder / "memory.png").read_bytes()
    (folder / "memory.png").unlink()
    assert run.main([*arguments, "--plot_only"], 0.0) == 0
    assert (folder / "memory.png").read_bytes() == before
    assert run.main([*arguments, "--clean"], 0.0) == 0
    assert not folder.exists()
    assert run.main(["run.py", "--help"], 0.0) == 0
    assert "memory  How much memory is enough" in capsys.readouterr().out


def test_it_has_an_axis_and_works_in_a_notebook(own_figure):
    results = experiments.run("memory", memories_gib=[13, 26], duration_s=60, seeds=2)
    assert len(results.rows) == 8
    (axes,) = results.plot().axes
    assert axes.get_xlabel() == "Memory of a device (GiB)"


def test_points_that_no_panel_shows_are_an_error():
    experiment = Experiment(points=list, plots=[Plot(stem="p", panels=[Panel("rate", "rate_rps")])])
    with pytest.raises(ResultsError, match="no plot of this experiment"):
        experiment.figure([{"panel": "cv", "x_name": "cv"}])


def test_a_config_that_lacks_a_part_is_one_line(own_figure, capsys):
    file = by_name.ROOT / "configs" / "memory.py"
    for part, other, message in (
        ("EXPERIMENT", "X", "configs/memory.py has no EXPERIMENT"),
        ('"memory_gib"', '"memory_gb"', "no field 'memory_gb' to sweep; there are"),
    ):
        sys.modules.pop("configs.memory", None)
        file.write_text(own_figure.replace(part, other))
        assert run.main(["run.py", "--config=memory", f"--out_dir={file.parent}/out"], 0.0) == 1
        assert message in capsys.readouterr().err
