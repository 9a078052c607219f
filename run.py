"""Run an experiment: `python run.py --config sec6_3`; `--help` lists the configs."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import closing

from absl import flags

from experiments.cli import command_line, folder, printed, summary
from experiments.engine import store
from experiments.engine.files import write, write_json
from experiments.engine.timing import Stopwatch
from experiments.report import page

FAILED, MISUSED, INTERRUPTED = 1, 2, 130
MOST_LINES, MOST_CHARACTERS = 3, 1000  # of an error


def main(argv: Sequence[str], start: float) -> int:
    """Run the command line and return the exit code; `start` is its `time.perf_counter()`."""
    command = None
    try:
        command = command_line.parse(argv)
        if command.clean:
            print(folder.clean(command.out_dir, command.name, command.experiment.files))
        else:
            execute(command, argv, Stopwatch(start))
    except command_line.HelpAsked as help_text:
        print(help_text)
    except flags.Error as error:
        return complain(error, MISUSED, asks_for_json(argv))
    except BrokenPipeError:
        raise
    except (ValueError, OSError) as error:
        return complain(command_line.explain(error, command), FAILED, asks_for_json(argv))
    except KeyboardInterrupt as error:
        stored = command is not None and (command.out_dir / store.FILE).exists()
        begun = "the same command goes on from what is stored" if stored else "nothing is stored"
        return complain(str(error) or f"interrupted: {begun}", INTERRUPTED, asks_for_json(argv))
    return 0


def execute(command: command_line.Command, argv: Sequence[str], stopwatch: Stopwatch) -> None:
    directory, experiment = command.out_dir, command.experiment
    with printed.kept(to_stderr=command.json) as text:
        if command.plot_only:
            run = show(command, stopwatch)
        else:
            folder.prepare(directory)
            with folder.locked(directory):
                folder.require_own(directory, command.name)
                with closing(command.executor) as executor:
                    experiment.execute(command.config, directory, stopwatch, executor)
                folder.write_provenance(directory, command.name, argv, command.config)
                write(directory / folder.LOG, text.getvalue())
                run = show(command, stopwatch)
        print(f"\n{directory / page.FILE}; figures and tables beside it\n{stopwatch.report()}")
    if command.json:
        print(summary.machine_readable(run))


def show(command: command_line.Command, stopwatch: Stopwatch) -> page.Run:
    """Draw the figures and write the report; returns what that tells."""
    directory = command.out_dir
    with stopwatch.part("draw"):
        figures = command.experiment.draw(directory)
    if not command.plot_only:
        write_json(directory / folder.TIMINGS, stopwatch.parts)
    with stopwatch.part("report"):
        run = summary.read(command, figures)
        write(directory / page.FILE, page.render(run))
    return run


def asks_for_json(argv: Sequence[str]) -> bool:
    """Also of a command line that cannot be read."""
    return any(part in ("--json", "--json=true", "--json=True") for part in argv)


def complain(problem: object, code: int, as_json: bool) -> int:
    """Say it in one line or few, whatever of a file's content the message quotes."""
    text = str(problem)
    if len(text.splitlines()) > MOST_LINES:
        text = " ".join(text.splitlines())
    if len(text) > MOST_CHARACTERS:
        half = MOST_CHARACTERS // 2
        text = f"{text[:half]} ... {text[-half:]}"
    print(f"error: {text}", file=sys.stderr)
    if as_json:
        print(json.dumps({"error": text, "exit_code": code}))
    return code


if __name__ == "__main__":
    # What a batch scheduler sends ends a run as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(main(sys.argv, start=time.perf_counter()))
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
