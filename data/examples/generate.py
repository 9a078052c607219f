"""Makes the files beside it: `python -m data.examples.generate`, from the repository's root."""

from __future__ import annotations

from pathlib import Path

from beta_jax.placement.files import save_placement
from beta_jax.placement.problem import Problem, make_models
from beta_jax.profiles.profile import load_profile
from beta_jax.search import place
from beta_jax.types import Cluster
from beta_jax.workloads.requests import write_requests
from beta_jax.workloads.synthesis import synthesize

HERE = Path(__file__).parent


def generate(directory: Path) -> None:
    """Five minutes of bursty requests to 8 models, and the placement found for them."""
    profile = load_profile(HERE.parent / "profiles" / "v100.json")
    models = make_models(
        ["bert-2.6b"] * 8, profile, slo_scale=5, total_rate_rps=8, split="power_law", cv=4
    )
    # The legacy generator gives the same bytes with every version of NumPy and JAX.
    requests = synthesize(models, duration_s=300, rng="legacy")
    write_requests(directory / "requests.csv", requests, [model.name for model in models])
    placement = place(
        "mp-search", Problem(models, Cluster(num_devices=4), profile), requests
    ).placement
    save_placement(directory / "placement.json", placement, models)


if __name__ == "__main__":
    generate(HERE)
