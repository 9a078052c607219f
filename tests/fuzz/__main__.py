"""`python -m tests.fuzz`: how many inputs each target was fed, and what was found."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping

from . import calls, commands, files
from .hunt import Target, hunt

MODES: Mapping[str, Mapping[str, Target]] = {
    "files": files.TARGETS,
    "calls": calls.TARGETS,
    "commands": commands.COMMANDS,
    "processes": commands.PROCESSES,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="for all targets together")
    parser.add_argument(
        "--inputs", type=int, default=10**9, help="of each mode; its targets share them"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--only",
        default=",".join(MODES),
        help="modes or targets, separated by commas: "
        + "; ".join(f"{mode}: {' '.join(own)}" for mode, own in MODES.items()),
    )
    asked = parser.parse_args()
    wanted = asked.only.split(",")
    chosen = [
        (mode, name, target)
        for mode, own in MODES.items()
        for name, target in own.items()
        if mode in wanted or name in wanted
    ]
    if unknown := {*wanted} - {*MODES} - {name for own in MODES.values() for name in own}:
        parser.error(f"there is no mode or target {', '.join(sorted(unknown))}")
    shares = {mode: 1 / len({m for m, *_ in chosen}) for mode, *_ in chosen}
    found, total = 0, dict.fromkeys(shares, 0)
    for mode, name, target in chosen:
        targets = sum(m == mode for m, *_ in chosen)
        result = hunt(
            target,
            start=asked.seed,
            seconds=asked.seconds * shares[mode] / targets,
            num_inputs=-(-asked.inputs // targets),
        )
        total[mode] += result.num_inputs
        found += len(result.defects)
        print(f"{mode}/{name}: {result.num_inputs} inputs, {len(result.defects)} defects")
        for place, (shown, trace) in result.defects.items():
            print(f"\n--- {place}\ninput: {shown[:1500]}\n{trace[-3000:]}", flush=True)
    print("; ".join(f"{mode}: {count} inputs" for mode, count in total.items()))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
