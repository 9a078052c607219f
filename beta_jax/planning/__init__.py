"""Planning: what several policies find for a service, what to use of it, how many devices do."""

from beta_jax.planning.plan import (
    IMPROVES,
    TODAY,
    Plan,
    device_rows,
    fewest_devices,
    history_rows,
    make_plan,
    reaches,
)

__all__ = [
    "IMPROVES",
    "TODAY",
    "Plan",
    "device_rows",
    "fewest_devices",
    "history_rows",
    "make_plan",
    "reaches",
]
