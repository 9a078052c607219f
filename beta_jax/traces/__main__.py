"""python -m beta_jax.traces: fetch published traces, and compare traces with each other."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from beta_jax.traces import GENERATORS, Statistics, TraceError, draw, open_trace, table
from beta_jax.traces.fetch import DATASETS, fetch
from beta_jax.traces.readers import FORMATS


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status, 1 with one line on stderr where it cannot."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except (TraceError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m beta_jax.traces", description=__doc__)
    commands = parser.add_subparsers(required=True)

    command = commands.add_parser("fetch", help="download a published trace from its publisher")
    command.add_argument("dataset", choices=list(DATASETS))
    command.add_argument("--to", required=True, metavar="DIR", help="folder to put it into")
    command.set_defaults(run=_fetch)

    command = commands.add_parser(
        "report", help="statistics of traces, real and generated, side by side"
    )
    command.add_argument(
        "traces",
        nargs="+",
        metavar="TRACE",
        help=f"a file, a folder, or a generated one: {', '.join(GENERATORS)}",
    )
    command.add_argument("--kind", choices=list(FORMATS), help="kind of file, if not found out")
    command.add_argument("--start", metavar="D.H.M", help="start of the slice: day.hour.minute")
    command.add_argument("--end", metavar="D.H.M", help="end of the slice")
    command.add_argument("--seed", type=int, default=0, help="of generated traces")
    command.add_argument("--plot", type=Path, metavar="FILE", help="also draw (.pdf, .png, .svg)")
    command.add_argument("--csv", type=Path, metavar="FILE", help="also write the table")
    cache = command.add_mutually_exclusive_group()
    cache.add_argument("--cache", metavar="DIR", help="where parsed traces are kept")
    cache.add_argument("--no-cache", action="store_true", help="keep no parsed trace")
    command.set_defaults(run=_report)
    return parser


def _fetch(options: argparse.Namespace) -> None:
    fetch(options.dataset, options.to)


def _report(options: argparse.Namespace) -> None:
    cache = not options.no_cache if options.cache is None else options.cache
    statistics = [
        Statistics(
            open_trace(source, seed=options.seed, kind=options.kind, cache=cache),
            options.start,
            options.end,
        )
        for source in options.traces
    ]
    numbers = table(statistics)
    print(numbers.to_string(float_format=lambda value: f"{value:,.4g}", na_rep="-"))
    if options.csv:
        numbers.to_csv(options.csv)
    if options.plot:
        draw(statistics, options.plot)


if __name__ == "__main__":
    sys.exit(main())
