"""The command line: which config, its overrides, where to write. Reading it never imports JAX."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import importlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from absl import flags

from experiments.cli.flags import define_flags, from_flags
from experiments.engine.fields import describe, render, walk
from experiments.engine.files import ROOT

USAGE = """\
usage: python run.py --config NAME[:VARIANT] [--config.FIELD=VALUE ...] [OPTION ...]

  --config NAME         what to run, see below; NAME:VARIANT is a variant such as sec6_3:smoke
  --config.FIELD=VALUE  override a field; lists by commas; `--config NAME --help` shows the fields
  --out_dir DIR         where to write (default: results/NAME or results/NAME-VARIANT)
  --plot_only           draw the figures again from the tables in DIR
  --clean               delete what this config has written to DIR, and nothing else
"""


class CommandLineError(flags.Error):
    """A mistake in the command line: one line that says which, and what is meant instead."""


class HelpAsked(Exception):
    """The user asked for help; the message is the text."""


@dataclasses.dataclass(frozen=True)
class Command:
    """What to do: an experiment (module with `execute`, `draw`, `FILES`), its config, options."""

    experiment: ModuleType
    config: Any
    name: str
    out_dir: Path
    plot_only: bool
    clean: bool


def parse(argv: Sequence[str]) -> Command:
    """Read the command line, `argv[0]` being the program.

    Raises flags.Error with one clear line, or HelpAsked.
    """
    # A first pass finds the config, which defines the flags of the second.
    first = _flags()
    first(argv, known_only=True)
    if first["config"].value is None:
        if first["help"].value:
            raise HelpAsked(f"{USAGE}\nConfigs:\n{_list_configs()}")
        raise CommandLineError(f"which --config? known: {', '.join(_summaries())}")
    name, _, variant = first["config"].value.partition(":")
    _choose("config", name, _summaries())
    module = importlib.import_module(f"configs.{name}")
    default: Any = module.CONFIG
    if variant:
        default = module.VARIANTS[_choose(f"variant of {name}", variant, module.VARIANTS)]
    if first["help"].value:
        raise HelpAsked(f"{module.__doc__}\n{_list_fields(default, module.VARIANTS)}")
    values = _flags()
    define_flags(default, values)
    _, *rest = values(argv)
    if rest:
        raise CommandLineError(
            f"what is {rest[0]!r}? an option is written --name=value, a list 1,2,3"
        )
    out_dir = values["out_dir"].value or f"results/{name}" + (f"-{variant}" if variant else "")
    config = from_flags(default, values)
    options = {name: bool(values[name].value) for name in ("plot_only", "clean")}
    if all(options.values()):
        raise CommandLineError("--plot_only needs the tables that --clean deletes")
    return Command(module.experiment, config, name, Path(out_dir), **options)


def _flags() -> flags.FlagValues:
    values = flags.FlagValues()
    values.set_gnu_getopt()
    flags.DEFINE_string("config", None, "", flag_values=values)
    flags.DEFINE_string("out_dir", None, "", flag_values=values)
    flags.DEFINE_boolean("plot_only", False, "", flag_values=values)
    flags.DEFINE_boolean("clean", False, "", flag_values=values)
    flags.DEFINE_boolean("help", False, "", short_name="h", flag_values=values)
    return values


def _choose(what: str, name: str, known: Iterable[str]) -> str:
    known = list(known)
    if name in known:
        return name
    nearest = difflib.get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(nearest)}? " if nearest else ""
    raise CommandLineError(f"unknown {what} {name!r}; {hint}known: {', '.join(known) or 'none'}")


def _summaries() -> dict[str, str]:
    """Every config with the first line of its docstring, read without importing it."""
    files = sorted(path for path in (ROOT / "configs").glob("*.py") if path.stem != "__init__")
    docs = {path.stem: ast.get_docstring(ast.parse(path.read_text())) or "" for path in files}
    return {name: doc.partition("\n")[0] for name, doc in docs.items()}


def _list_configs() -> str:
    summaries = _summaries()
    width = max(map(len, summaries))
    return "\n".join(f"  {name:{width}}  {summary}" for name, summary in summaries.items())


def _list_fields(config: Any, variants: Iterable[str]) -> str:
    leaves = list(walk(config))
    shown = [f"--{leaf.name}={render(leaf.value)}" for leaf in leaves]
    lines = [
        f"  {text}\n      {describe(leaf.annotation)}{'; ' if leaf.help else ''}{leaf.help}"
        for text, leaf in zip(shown, leaves, strict=True)
    ]
    return "\n".join(
        [f"Variants: {', '.join(variants) or 'none'}", "Fields and their defaults:", *lines]
    )
