"""Whole commands, cold (empty caches) and warm: where the time of a figure goes.

python benchmarks/figures.py [--configs sec6_3,...] [--json FILE]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REPEATS = 3


def run(config: str, cache: Path, out_dir: Path) -> dict[str, float]:
    """Seconds of one command, in all and by part."""
    command = [sys.executable, "run.py", "--config", config, "--out_dir", str(out_dir)]
    start = time.perf_counter()
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=True)
    total = time.perf_counter() - start
    return {"total": total, **json.loads((out_dir / "timings.json").read_text())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--configs", default="sec6_3,quickstart,evaluate")
    parser.add_argument("--json", help="also write the table to this file")
    arguments = parser.parse_args()
    table = {}
    for config in arguments.configs.split(","):
        cold, warm = [], []
        for _ in range(REPEATS):
            with tempfile.TemporaryDirectory() as folder:
                cache = Path(folder) / "cache"
                cold.append(run(config, cache, Path(folder) / "cold"))
                warm.append(run(config, cache, Path(folder) / "warm"))
        for name, runs in (("cold", cold), ("warm", warm)):
            parts = {part: statistics.median(r[part] for r in runs) for part in runs[0]}
            table[f"{config} {name}"] = parts
            shown = ", ".join(f"{part} {seconds:.2f}" for part, seconds in parts.items())
            print(f"{config:12} {name}  {shown}", flush=True)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
