"""The sections of the published artifact's page, a command each, and how they are run in turn."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import shlex
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

from beta_jax import traces
from experiments.engine import fingerprint
from experiments.engine.files import ROOT, input_path, write_json
from experiments.engine.store import digest
from experiments.paper.artifact import child
from experiments.paper.artifact.child import Usage
from experiments.report.tables import Row

PROGRESS = "progress.json"
"""Which sections are finished, of which inputs and code, and what they took."""


class SectionError(ValueError):
    """The command of a section failed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """What of the artifact to reproduce, and from what."""

    sections: Annotated[tuple[str, ...], "of the artifact's page, see the table"]
    maf1: Annotated[str, "trace MAF1: file, folder, or generated: maf1_like"] = "maf1_like"
    maf2: Annotated[str, "trace MAF2: file, folder, or generated: maf2_like"] = "maf2_like"
    columns: Annotated[tuple[str, ...], "columns of figure 11; those of S3 take most of the time"]
    published: Annotated[
        str | None,
        "folder with published results and measured profiles, for the section `published`; none: "
        "they are not at hand",
    ] = None
    smoke: Annotated[bool, "each section by its `:smoke` variant, where it has one"] = False

    def __post_init__(self) -> None:
        if not self.sections:
            raise ValueError("sections is empty: which sections?")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    """A section of the page.

    shows: what of the paper. config: what `run.py` runs, or a script of this repository. options:
    its arguments for a `Config`, the traces foremost. writes: files to look at. files: all that it
    may write. published_time: what the page says. recorded_s: what it took of the processors
    where the table in docs/paper.md was recorded, and share: how much of it a config asks for, for
    the forecast. smoke: whether it has a variant of that name. needs: a field of the config without
    which it is left out.
    """

    name: str
    shows: str
    config: str
    options: Callable[[Config], Sequence[str]] = lambda _: ()
    writes: str
    files: Sequence[str]
    published_time: str = "-"
    recorded_s: float
    share: Callable[[Config], float] = lambda _: 1.0
    smoke: bool = False
    needs: str = ""

    @property
    def is_script(self) -> bool:
        return self.config.endswith(".py")

    def command(self, config: Config, directory: Path) -> list[str]:
        """After `python`, as one would type it from the repository's folder."""
        variant = ":smoke" if config.smoke and self.smoke else ""
        named = [self.config] if self.is_script else ["run.py", "--config", self.config + variant]
        where = "--csv={}/table.csv" if self.is_script else "--out_dir={}"
        return [*named, *self.options(config), where.format(directory / self.name)]

    def forecast_s(self, config: Config, used: Usage) -> float:
        """What the processors still have to do, if an earlier attempt did as much as it took."""
        whole_s = self.recorded_s * self.share(config)
        return max(whole_s - used.processor_s, 0.1 * whole_s)

    def key(self, config: Config, directory: Path) -> str:
        """Equal as long as the command would find the same, on this machine."""
        command = self.command(config, Path())  # wherever it writes
        root = self.config.removesuffix(".py").replace("/", ".")
        named = {n for option in command for n in option.partition("=")[2].split(",")}
        inputs = [config.maf1, config.maf2] if named & {config.maf1, config.maf2} else []
        return digest(
            {
                "command": command,
                "code": fingerprint.code([root] if self.is_script else [f"configs.{root}", "run"]),
                "inputs": [traces.fingerprint(input_path(name)) for name in inputs],
                "packages": {name: metadata.version(name) for name in fingerprint.ARITHMETIC},
                "machine": [platform.platform(), os.cpu_count()],
            }
        )


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far the sections are, kept in a file whenever that changes."""

    path: Path
    sections: dict[str, dict[str, Any]]

    @staticmethod
    def read(directory: Path) -> Progress:
        """What is there; damaged or not there, nothing."""
        path = directory / PROGRESS
        try:
            return Progress(path, dict(json.loads(path.read_text())))
        except (OSError, ValueError, TypeError):
            return Progress(path, {})

    def usage(self, name: str) -> Usage:
        found = self.sections.get(name, {})
        return Usage(**{field: found[field] for field in Usage._fields if field in found})

    def is_finished(self, name: str, key: str) -> bool:
        return self.sections.get(name, {}).get("finished") == key

    def keep(self, name: str, usage: Usage, key: str | None = None) -> None:
        """key: of a section that is finished."""
        self.sections[name] = {"finished": key} | usage._asdict()
        write_json(self.path, self.sections)


def run(sections: Sequence[Section], config: Config, directory: Path) -> Progress:
    """Run what is not finished, the shortest first; raises SectionError."""
    progress = Progress.read(directory)
    keys = {section.name: section.key(config, directory) for section in sections}
    pending = [s for s in sections if not progress.is_finished(s.name, keys[s.name])]
    if done := len(sections) - len(pending):
        print(f"{done} of {len(sections)} sections are finished", flush=True)
    forecast_s = {s.name: s.forecast_s(config, progress.usage(s.name)) for s in pending}
    pending.sort(key=lambda section: forecast_s[section.name])
    took_s = expected_s = 0.0
    for number, section in enumerate(pending, 1):
        command = section.command(config, directory)
        left_s = sum(forecast_s.values()) - expected_s
        # A minute as recorded beside it: the rest of a section that was ended tells little.
        ahead = _duration(left_s * (took_s + 60) / (expected_s + 60))
        scale = "" if config.smoke else f", some {ahead} to go"
        print(f"[{number}/{len(pending)}{scale}] {as_typed(command)}", flush=True)
        before = progress.usage(section.name)

        def note(usage: Usage, name: str = section.name, before: Usage = before) -> None:
            progress.keep(name, before + usage)

        (directory / section.name).mkdir(exist_ok=True)
        try:
            code, usage = child.run([str(ROOT / command[0]), *command[1:]], note)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"interrupted in section {section.name}; the same command goes on from there"
            ) from None
        progress.keep(section.name, before + usage, None if code else keys[section.name])
        if code:
            raise SectionError(
                f"section {section.name} ended with exit code {code}: {as_typed(command)}; what "
                "was finished is stored, and the same command goes on from there"
            )
        took_s, expected_s = took_s + usage.seconds, expected_s + forecast_s[section.name]
    return progress


def as_typed(command: Sequence[str]) -> str:
    return shlex.join(["python", *command])


def rows(
    sections: Sequence[Section], config: Config, directory: Path, usage: Mapping[str, Usage]
) -> list[Row]:
    """A line per section: its command, what it took here, and what is published."""
    found = []
    for section in sections:
        used = usage[section.name]
        found.append(
            {
                "section": section.name,
                "report": f"{section.name}/{'table.csv' if section.is_script else 'report.html'}",
                "shows": section.shows,
                "command": as_typed(section.command(config, directory)),
                "seconds": round(used.seconds, 1),
                "processor_s": round(used.processor_s, 1),
                "peak_gib": round(used.peak_bytes / 2**30, 2),
                "attempts": used.attempts,
                "published_time": section.published_time,
                "writes": section.writes,
            }
        )
    return found


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
