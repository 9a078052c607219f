"""Draw docs/architecture.png: the rooms of the house in order, and which imports from which.

    python docs/draw_architecture.py

Read from the source as it stands, without running it; import-linter holds the order (`make check`).
"""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

ROOT = Path(__file__).resolve().parents[1]
GROUND = ("traits", "dispatch", "types", "backend", "parallel")
"""Modules of the library's root that all rooms stand on, drawn as one."""
LIBRARY = ("profiles", "workloads", "traces", "placement", "simulator", "analysis", "theory")
LIBRARY += ("search", "planning", "llm")
EXPERIMENTS = ("engine", "report", "paper", "tools")
ROOMS = {
    **{f"beta_jax.{name}": "ground" for name in GROUND},
    **{f"beta_jax.{name}": f"beta_jax/{name}" for name in LIBRARY},
    **{f"experiments.{name}": f"experiments/{name}" for name in EXPERIMENTS},
    "experiments.experiment": "experiments/report",
    "configs": "configs",
    "experiments.cli": "experiments/cli",
}
ORDER = tuple(dict.fromkeys(ROOMS.values()))
COLOURS = {"ground": "#000000", "beta_jax": "#0072b2", "experiments": "#009e73"}


def room_of(module: str) -> str | None:
    """The room that a module is in; None for packages of others, and for the library's root."""
    parts = module.split(".")
    return next((ROOMS[key] for key in (".".join(parts[:2]), parts[0]) if key in ROOMS), None)


def imports() -> Counter[tuple[str, str]]:
    """How many modules of a room import from another room."""
    found: Counter[tuple[str, str]] = Counter()
    for path in sorted((*ROOT.glob("beta_jax/**/*.py"), *ROOT.glob("experiments/**/*.py"))):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        found.update(_of_file(path, room_of(module)))
    for path in sorted(ROOT.glob("configs/*.py")):
        found.update(_of_file(path, "configs"))
    return found


def _of_file(path: Path, own: str | None) -> set[tuple[str, str]]:
    used = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            used |= {room_of(name) for name in names}
    return {(own, room) for room in used if own and room and room != own}


def describe(room: str) -> str:
    """The first line of the room's docstring."""
    if room == "ground":
        return "Plain values, dispatch rules, how JAX is set up, threads."
    if room == "configs":
        return "One short file per figure or tool: its parameters."
    text = (ROOT / room / "__init__.py").read_text()
    return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]


def draw() -> Figure:
    figure = Figure((11.0, 0.5 * len(ORDER) + 0.4), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    y = {room: -index for index, room in enumerate(ORDER)}
    for (own, used), count in sorted(imports().items()):
        axes.add_patch(
            FancyArrowPatch(
                (0.0, y[own]),
                (0.0, y[used]),
                connectionstyle=f"arc3,rad={-0.45 if y[own] < y[used] else 0.45}",
                arrowstyle="-|>",
                mutation_scale=7,
                linewidth=0.4 + 0.22 * min(count, 10),
                color=COLOURS.get(own.partition("/")[0], "0.6"),
                alpha=0.55,
            )
        )
    for room, height in y.items():
        axes.text(0.15, height, room, va="center", weight="bold", size=9)
        axes.text(3.2, height, describe(room), va="center", size=8)
    axes.set(xlim=(-4.0, 12.6), ylim=(-len(ORDER) + 0.4, 0.6))
    axes.set_axis_off()
    return figure


if __name__ == "__main__":
    draw().savefig(Path(__file__).with_name("architecture.png"))
