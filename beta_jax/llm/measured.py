"""What a real engine did with recorded requests.

A table is CSV with a row per request; other columns are not looked at:

    id              row of the request in its table, from 0
    output_tokens   it was answered with
    queued_s        when the engine got it, in seconds on any clock
    scheduled_s     when it first ran
    first_token_s   when its first token came
    last_token_s    when its last token came

vLLM has these times in `RequestOutput.metrics`.
"""

from __future__ import annotations

import dataclasses
import itertools
import os

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from beta_jax.llm.requests import LLMError

TIMES = ("queued_s", "scheduled_s", "first_token_s", "last_token_s")
"""In the order in which they follow each other."""
NUMBERS = ("id", "output_tokens")


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """Requests in the order of their numbers, [measured] each: int64 and float64 seconds."""

    request: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    queued_s: NDArray[np.float64]
    queue_delay_s: NDArray[np.float64]
    ttft_s: NDArray[np.float64]
    tpot_s: NDArray[np.float64]
    latency_s: NDArray[np.float64]


def read_measured(path: str | os.PathLike[str]) -> Measured:
    """Read a table of what was measured. Raises LLMError."""
    name = os.fspath(path)
    try:
        frame = pd.read_csv(path, encoding="utf-8-sig")
    except OSError as error:
        raise LLMError(f"{name}: {error.strerror or error}") from None
    except (ValueError, pd.errors.ParserError) as error:
        raise LLMError(f"{name}: not a table: {str(error).splitlines()[0]}") from None
    if missing := [column for column in (*NUMBERS, *TIMES) if column not in frame]:
        raise LLMError(f"{name}: the column {missing[0]!r} is missing")
    if frame.empty:
        raise LLMError(f"{name}: has no rows")

    def require(good: NDArray[np.bool_], column: str, wanted: str) -> None:
        if not good.all():
            row = int(np.flatnonzero(~good)[0])
            raise LLMError(f"{name}: row {row}: {column} is {frame[column][row]}, wanted {wanted}")

    values = {
        column: pd.to_numeric(frame[column], errors="coerce").to_numpy(np.float64)
        for column in (*NUMBERS, *TIMES)
    }
    for column, least in zip(NUMBERS, (0, 1), strict=True):
        found = values[column]
        whole = (found >= least) & (found < 2**31) & (found == np.rint(found))
        require(whole, column, f"a whole number, {least} or more")
    require(~frame["id"].duplicated().to_numpy(), "id", "each only once")
    for column in TIMES:
        require(np.isfinite(values[column]), column, "seconds")
    for before, column in itertools.pairwise(TIMES):
        require(values[column] >= values[before], column, f"no less than {before}")
    order = np.argsort(values["id"])
    number, tokens, queued, scheduled, first, last = (each[order] for each in values.values())
    return Measured(
        request=number.astype(np.int64),
        output_tokens=tokens.astype(np.int64),
        queued_s=queued,
        queue_delay_s=scheduled - queued,
        ttft_s=first - queued,
        tpot_s=(last - first) / np.maximum(tokens - 1, 1),
        latency_s=last - queued,
    )
