"""What a step takes, as a sum of four terms in whole picoseconds."""

from __future__ import annotations

import dataclasses
from typing import Any

from beta_jax.llm.requests import LLMError
from beta_jax.llm.shapes import StepShape

LARGEST_PS = 10**15
"""Of a coefficient: a quarter of an hour."""


@dataclasses.dataclass(frozen=True)
class LinearStepTime:
    """`base + prefill x prefill tokens + cached x cached tokens of decodes + decode x decodes`.

    A request that is given one token in a step decodes, all others prefill; cached tokens are those
    whose keys and values a decode reads. Whole picoseconds each, 0 or more, base at least 1.
    """

    base_ps: int
    prefill_token_ps: int
    cached_token_ps: int
    decode_ps: int

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            least = int(field.name == "base_ps")
            if not isinstance(value, int) or not least <= value <= LARGEST_PS:
                raise LLMError(
                    f"{field.name} is {value!r}, wanted whole picoseconds, {least} to {LARGEST_PS}"
                )

    def step_ps(self, shape: StepShape) -> Any:
        """Picoseconds of steps."""
        return (
            self.base_ps
            + self.prefill_token_ps * shape.prefill_tokens
            + self.cached_token_ps * shape.cached
            + self.decode_ps * shape.decodes
        )
