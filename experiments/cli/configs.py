"""Configs by name: `NAME` or `NAME:VARIANT`, a file in `configs/`."""

from __future__ import annotations

import ast
import difflib
import importlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from experiments.engine.files import ROOT
from experiments.experiment import Runnable


class UnknownConfigError(ValueError):
    """No config, or no variant of it, has that name; says which are near."""


class LoadedConfig(NamedTuple):
    """A file in `configs/`, or a variant in it: what to run, and with which defaults."""

    name: str
    variant: str
    doc: str
    experiment: Runnable
    default: Any
    variants: Mapping[str, Any]


def load(full_name: str) -> LoadedConfig:
    """Import a config. Raises UnknownConfigError, and ValueError for a file that lacks a part."""
    name, _, variant = full_name.partition(":")
    _choose("config", name, summaries())
    module: Any = importlib.import_module(f"configs.{name}")
    for part in ("EXPERIMENT", "CONFIG"):
        if not hasattr(module, part):
            raise ValueError(f"configs/{name}.py has no {part}; docs/extending.md shows one")
    default, variants = module.CONFIG, getattr(module, "VARIANTS", {})
    if variant:
        default = variants[_choose(f"variant of {name}", variant, variants)]
    return LoadedConfig(name, variant, module.__doc__, module.EXPERIMENT, default, variants)


def _choose(what: str, name: str, known: Iterable[str]) -> str:
    known = list(known)
    if name in known:
        return name
    nearest = difflib.get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(nearest)}? " if nearest else ""
    raise UnknownConfigError(f"unknown {what} {name!r}; {hint}known: {', '.join(known) or 'none'}")


def summaries() -> dict[str, str]:
    """Every config with the first line of its docstring, read without importing it."""
    files = sorted(path for path in (ROOT / "configs").glob("*.py") if path.stem != "__init__")
    docs = {path.stem: ast.get_docstring(ast.parse(path.read_text())) or "" for path in files}
    return {name: doc.partition("\n")[0] for name, doc in docs.items()}
