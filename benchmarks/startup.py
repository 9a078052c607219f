"""Start-up: what a user waits for before any work is done. Medians of fresh processes.

python benchmarks/startup.py [--json FILE]
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REPEATS = 7
COMMANDS = {
    "python": ["-c", "pass"],
    "import jax": ["-c", "import jax"],
    "import beta_jax": ["-c", "import beta_jax"],
    "import beta_jax.simulator": ["-c", "import beta_jax.simulator"],
    "run.py --help": ["run.py", "--help"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", help="also write the table to this file")
    arguments = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(REPEATS):
        for name, command in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, check=True)
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    for name, median in medians.items():
        print(f"{name:28}{median:7.3f} s   {median / medians['import jax']:5.2f} x import jax")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(medians, indent=1))


if __name__ == "__main__":
    main()
