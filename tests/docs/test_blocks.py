"""Every block of README, the pages and other documents runs, or is listed with a reason."""

from __future__ import annotations

import re

import pytest

from experiments.cli import command_line, configs

import documents

ELSEWHERE = {
    "docs/extending.md": "test_extending.py, ../simulator/test_dispatch.py, ../experiments/",
    "docs/planning.md": "test_planning_page.py",
    "docs/profiling.md": "test_profiling.py",
}
"""Pages whose blocks other tests run."""


@pytest.mark.parametrize("page", [page for page in documents.PAGES if page not in ELSEWHERE])
def test_the_blocks_of_a_page(page: str, tmp_path, monkeypatch: pytest.MonkeyPatch):
    """README's Python runs in tests/test_package.py, as an installed package does."""
    monkeypatch.chdir(tmp_path)
    scripts: list[str] = []
    documents.walk(page, scripts.append if page == "README.md" else None)


def test_what_is_left_out_is_there():
    shown = [
        f"{block.page}: {block.text}"
        for page in documents.PAGES
        for block in documents.blocks(page)
    ]
    for pattern in documents.LEFT_OUT:
        assert any(re.match(pattern, text) for text in shown), pattern


def test_commands_in_the_help_of_configs_are_right():
    for name in configs.summaries():
        text = configs.load(name).doc.replace("\\\n", " ")
        for command in re.findall(r"^    (python run\.py .*?)(?:  .*)?$", text, re.MULTILINE):
            command_line.parse(command.split()[1:])
