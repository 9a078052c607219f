"""The API reference has every public name, and every page can be reached."""

from __future__ import annotations

import re

import beta_jax

import documents


def test_the_reference_has_every_public_name():
    text = (documents.ROOT / "docs" / "api.md").read_text()
    shown = set(re.findall(r"^\.\. auto\w+:: (?:beta_jax\.)?([\w.]+)$", text, re.MULTILINE))
    shown = {name.rpartition(".")[2] for name in shown}
    named = set(re.findall(r"`beta_jax\.(\w+)`", text))
    assert shown | named >= {*beta_jax.__all__}, "add it to docs/api.md"


def test_every_page_can_be_reached():
    contents = (documents.ROOT / "docs" / "index.md").read_text()
    pages = {path.stem for path in (documents.ROOT / "docs").glob("*.md")} - {"index", "search"}
    listed = {line for line in contents.splitlines() if re.fullmatch(r"\w+", line)}
    assert listed == pages | {"configs", "searching"}, "list it in docs/index.md"
    notebooks = {path.stem for path in (documents.ROOT / "examples").glob("*.ipynb")}
    assert {*re.findall(r"^examples/(\w+)$", contents, re.MULTILINE)} == notebooks
