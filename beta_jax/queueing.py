"""`import beta_jax.queueing`: the closed forms of `theory.queueing`, under their public name."""

import sys

from beta_jax.theory import queueing

sys.modules[__name__] = queueing
