"""Planning: what a service needs for 99 %, and what several policies find for it.

`beta_jax.plan` answers questions of capacity from traffic (`Log`, `Generated`, `Fitted`); `choose`
compares what policies find for one cluster.
"""

from beta_jax.planning.choice import (
    IMPROVES,
    TODAY,
    Choice,
    certificate_rows,
    choose,
    history_rows,
)
from beta_jax.planning.questions import QUESTIONS, Answer, PlanError, plan
from beta_jax.planning.traffic import Fitted, Generated, Log, TrafficSource
from beta_jax.planning.trials import Setting, Trial

__all__ = [
    "IMPROVES",
    "QUESTIONS",
    "TODAY",
    "Answer",
    "Choice",
    "Fitted",
    "Generated",
    "Log",
    "PlanError",
    "Setting",
    "TrafficSource",
    "Trial",
    "certificate_rows",
    "choose",
    "history_rows",
    "plan",
]
