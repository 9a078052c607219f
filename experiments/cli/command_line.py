"""The command line: which config, its overrides, where to write. Reading it never imports JAX."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from experiments.cli import configs
from experiments.cli.flags import define_flags, from_flags
from experiments.engine import executor as executors
from experiments.engine.executor import Executor
from experiments.engine.fields import describe, render, walk
from experiments.engine.files import NO_NAME, input_path
from experiments.experiment import Runnable

USAGE = """\
usage: python run.py --config NAME[:VARIANT] [--config.FIELD=VALUE ...] [OPTION ...]

  --config NAME         what to run, see below; NAME:VARIANT is a variant such as sec6_3:smoke
  --config.FIELD=VALUE  override a field; lists by commas; `--config NAME --help` shows the fields
  --out_dir DIR         where to write (default: results/NAME or results/NAME-VARIANT)
  --executor NAME       where points are computed: embedded (default), in this process, or ray, on
                        the machines of a Ray cluster
  --ray_address ADDR    of the cluster, HOST:PORT (default: $RAY_ADDRESS, or else a Ray of its own)
  --json                print a summary for programs on stdout, and all else on stderr
  --plot_only           draw the figures and the report again from the tables in DIR
  --clean               delete what this config has written to DIR, and nothing else
"""


NUMBER = re.compile(r"(?<![\w.-])-?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?![\w.]*\w)")


class CommandLineError(flags.Error):
    """A mistake in the command line: one line that says which, and what is meant instead."""


class HelpAsked(Exception):
    """The user asked for help; the message is the text."""


@dataclasses.dataclass(frozen=True)
class Command:
    """What to do: an experiment or a tool, its config, the config's name, options.

    executor: computes points; it has not started anything yet.
    """

    experiment: Runnable
    config: Any
    name: str
    out_dir: Path
    executor: Executor
    json: bool
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
        raise CommandLineError(f"which --config? known: {', '.join(configs.summaries())}")
    try:
        loaded = configs.load(first["config"].value)
    except configs.UnknownConfigError as error:
        raise CommandLineError(str(error)) from None
    if first["help"].value:
        raise HelpAsked(f"{loaded.doc}\n{_list_fields(loaded.default, loaded.variants)}")
    values = _flags()
    define_flags(loaded.default, values)
    _, *rest = values(argv)
    if rest:
        raise CommandLineError(
            f"what is {rest[0]!r}? an option is written --name=value, a list 1,2,3"
        )
    default_dir = "-".join(filter(None, (loaded.name, loaded.variant)))
    out_dir = Path(values["out_dir"].value or f"results/{default_dir}")
    config = from_flags(loaded.default, values)
    options = {name: bool(values[name].value) for name in ("json", "plot_only", "clean")}
    if options["clean"] and options["plot_only"]:
        raise CommandLineError("--plot_only needs the tables that --clean deletes")
    if options["clean"] and options["json"]:
        raise CommandLineError("--json sums up results, which --clean deletes")
    executor = _executor(values["executor"].value or "", values["ray_address"].value)
    return Command(loaded.experiment, config, loaded.name, out_dir, executor, **options)


def _executor(name: str, ray_address: str | None) -> Executor:
    if name not in executors.NAMES:
        known = ", ".join(executors.NAMES)
        raise CommandLineError(f"unknown --executor {name!r}; known: {known}")
    if ray_address is not None and name != "ray":
        raise CommandLineError("--ray_address needs --executor=ray")
    return executors.named(name, ray_address)


def explain(error: ValueError | OSError, command: Command | None) -> str:
    """An error in one line, with the flag that gave the file or folder which it speaks of."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    for leaf in walk(command.config) if command else ():
        for value in leaf.value if isinstance(leaf.value, tuple) else (leaf.value,):
            if value == "" and text == NO_NAME:
                return f"--{leaf.name}: {text}"
            named = isinstance(value, str) and value and str(input_path(value))
            if named and text.startswith((f"{named}:", f"{named},")):
                return f"--{leaf.name}={text}"
    if command is None or isinstance(error, executors.ExecutorError | OSError):
        return text  # machines and files have numbers of their own
    given = _given(text, command)
    return f"{', '.join(given)}: {text}" if given else text


def _given(text: str, command: Command) -> list[str]:
    """Flags on the command line whose number an error speaks of: what it got, if it says so."""
    got = re.search(r"\bgot (.*)", text)
    numbers = {float(number) for number in NUMBER.findall(got[1] if got else text)}
    found = []
    defaults = {leaf.name: leaf.value for leaf in walk(configs.load(command.name).default)}
    for leaf in walk(command.config):
        values = leaf.value if isinstance(leaf.value, tuple) else (leaf.value,)
        wrong = [v for v in values if type(v) in (int, float) and v in numbers]
        if wrong and leaf.value != defaults.get(leaf.name):
            found.append(f"--{leaf.name}={render(wrong[0])}")
    return found


def _flags() -> flags.FlagValues:
    values = flags.FlagValues()
    values.set_gnu_getopt()
    flags.DEFINE_string("config", None, "", flag_values=values)
    flags.DEFINE_string("out_dir", None, "", flag_values=values)
    flags.DEFINE_string("executor", "embedded", "", flag_values=values)
    flags.DEFINE_string("ray_address", None, "", flag_values=values)
    flags.DEFINE_boolean("json", False, "", flag_values=values)
    flags.DEFINE_boolean("plot_only", False, "", flag_values=values)
    flags.DEFINE_boolean("clean", False, "", flag_values=values)
    flags.DEFINE_boolean("help", False, "", short_name="h", flag_values=values)
    return values


def _list_configs() -> str:
    summaries = configs.summaries()
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
