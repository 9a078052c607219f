"""What a step works on: all that its duration depends on."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

Whole = Any  # int, or int64 of NumPy or JAX


class StepShape(NamedTuple):
    """Whole numbers, or int64 arrays that broadcast: of one step, or of many.

    A request that is given one token in a step decodes, all others prefill. Cached tokens are those
    whose keys and values are there when the step begins.
    """

    requests: Whole
    prefill_tokens: Whole
    prefill_cached: Whole
    """Cached tokens of the requests that prefill."""
    decodes: Whole
    cached: Whole
    """Cached tokens of the requests that decode: their sum, their most and their least."""
    most_cached: Whole
    least_cached: Whole

    @property
    def tokens(self) -> Any:
        return self.prefill_tokens + self.decodes

    def decoding_on(self, steps: int) -> StepShape:
        """This step and those that follow while its requests do nothing but decode: [steps]."""
        after = np.arange(steps, dtype=np.int64)
        return self._replace(
            cached=self.cached + self.decodes * after,
            most_cached=self.most_cached + after,
            least_cached=self.least_cached + after,
        )
