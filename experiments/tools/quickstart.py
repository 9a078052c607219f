"""Find the placement that serves given requests best, from scratch or from what runs today."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np

from beta_jax.placement.files import load_placement, save_placement
from beta_jax.placement.placement import Placement, PlacementError, Schedule
from beta_jax.placement.problem import Problem, make_models, profile_of
from beta_jax.profiles.profile import Profile, load_profile
from beta_jax.types import GB, Cluster, Model, Rules, Workload
from beta_jax.workloads.requests import read_requests
from experiments.engine import files
from experiments.engine.files import input_path
from experiments.engine.pool_files import memory_bytes, read_cluster
from experiments.engine.scenarios import POOLS_HELP
from experiments.engine.timing import Stopwatch
from experiments.experiment import Task
from experiments.report import figures, tables
from experiments.tools import asked, plan_figures, request_files, service_figures
from experiments.tools.placement_files import renumbered, require_valid

if TYPE_CHECKING:
    from beta_jax.planning import Choice
    from experiments.tools.service import Served

SOMETIMES = ("certificates.csv", "changes.csv", "history.csv", *figures.files_of("history"))
"""Files that not every run has."""
FILES = (
    *(*service_figures.FILES, *SOMETIMES),
    *("placement.json", *figures.files_of("quickstart")),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """Options of `local-search`, see `search.local.climb`; what it maximises, `worst_share` and
    `fairness`, also decides which policy's placement is the best."""

    budget_simulations: Annotated[int, "simulations to search for"] = 20_000
    budget_s: Annotated[float | None, "seconds to search for instead; not repeatable"] = None
    worst_share: Annotated[
        float, "share of the training slices, the worst ones, whose mean counts; small: worst case"
    ] = 1.0
    fairness: Annotated[float, "0 to 1: how much the worst-served model counts"] = 0.0
    seed: Annotated[int, "seed of the search"] = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """The requests, what is known of the models and the cluster, and the policies to compare."""

    requests: Annotated[str, "CSV with the columns arrival_s,model: what placements are made for"]
    test_requests: Annotated[str | None, "CSV they are tested on; none: the same requests"] = None
    test_share: Annotated[
        float, "last share of `requests`, by time, that is kept from training and tests instead"
    ] = 0.0
    train_slices: Annotated[
        int,
        "slices of equal time that training requests are cut into; `local-search` tells them apart",
    ] = 1
    model_types: Annotated[
        tuple[str, ...], "type of every model, or one per model in order of name"
    ]
    slo_scale: Annotated[float, "SLO as a multiple of the type's single-device latency"] = 5.0
    profile: Annotated[str, "profile file: stage latencies and weights of the types"]
    num_devices: Annotated[
        tuple[int, ...], "devices in the cluster, one number; `--config plan` finds how many do"
    ]
    memory_gib: Annotated[float, asked.MEMORY_HELP] = asked.V100_GIB
    devices_per_node: Annotated[int, "devices in a node"] = 8
    pools: Annotated[str | None, POOLS_HELP] = None
    policies: Annotated[tuple[str, ...], "policies to compare; the best one's placement is written"]
    start_from: Annotated[
        str | None,
        "placement file of what runs today: it is compared, `local-search` improves it, that is "
        "written; its models keep their types and SLOs",
    ] = None
    max_moved_gib: Annotated[
        float | None, "most weights to load in order to improve start_from, GiB; none: any"
    ] = None
    local_search: SearchOptions = dataclasses.field(default_factory=SearchOptions)
    warmup_s: Annotated[float, "left out of the metrics at both ends, s"] = 0.0
    rules: Rules = dataclasses.field(default_factory=Rules)

    def __post_init__(self) -> None:
        if not self.num_devices:
            raise ValueError("num_devices is empty: how many devices are there?")
        if len(self.num_devices) > 1:
            raise ValueError(
                f"num_devices is one number, got {len(self.num_devices)}: how many are enough, "
                "`run.py --config plan` finds"
            )
        if self.max_moved_gib is not None:
            if self.start_from is None:
                raise ValueError("max_moved_gib bounds changes of a placement: give start_from")
            if self.max_moved_gib < 0:
                raise ValueError(f"max_moved_gib must be >= 0, got {self.max_moved_gib:g}")
        if self.test_requests is not None and self.test_share:
            raise ValueError("test_requests and test_share both say what to test on: give one")


def _searches(options: SearchOptions) -> bool:
    """Whether any option was set that concerns nothing but the search."""
    return options != SearchOptions(worst_share=options.worst_share, fairness=options.fairness)


class _Inputs(NamedTuple):
    """What the files say."""

    problem: Problem
    training: list[Workload]
    test: Workload
    trained_on_test: bool
    today: Placement | None


def execute(config: Config, directory: Path, stopwatch: Stopwatch) -> None:
    """Place by every policy, compare them, and write the chosen placement for `evaluate`."""
    with stopwatch.imports():
        from beta_jax import planning
        from beta_jax.search import find_policy
        from beta_jax.search.objective import Objective
        from experiments.tools import service
    for policy in config.policies:
        find_policy(policy)
    objective = Objective(config.local_search.worst_share, config.local_search.fairness)
    with stopwatch.part("read"):
        inputs = _read(config)
    asked.warn(inputs.problem, None if config.pools else config.memory_gib)
    if (
        config.start_from is None
        and planning.IMPROVES not in config.policies
        and _searches(config.local_search)
    ):
        raise ValueError(
            "local_search.budget_... and local_search.seed need `local-search` among the policies"
        )
    options: dict[str, dict[str, Any]] = {policy: {} for policy in config.policies}
    if inputs.today is not None and planning.IMPROVES not in options:
        options = {planning.IMPROVES: {}, **options}
    if planning.IMPROVES in options:
        limit = None if config.max_moved_gib is None else config.max_moved_gib * GB
        changes = {"start_from": inputs.today, "max_bytes_moved": limit}
        options[planning.IMPROVES] = dataclasses.asdict(config.local_search) | changes
    with stopwatch.part("place"):
        choice = planning.choose(inputs.problem, inputs.training, options, objective, inputs.today)
    placements = choice.placements
    served = service.serve(inputs.problem, placements, inputs.test, config.warmup_s, stopwatch)
    _report(config, inputs, choice, served, directory)


def _read(config: Config) -> _Inputs:
    """Raises what reading files raises, and ValueError for what does not go together."""
    cluster, profile = _cluster(config)
    today: Placement | None = None
    listed: tuple[Model, ...] = ()
    if config.start_from is not None:
        loaded, listed = load_placement(input_path(config.start_from), cluster.names)
        if isinstance(loaded, Schedule):
            raise PlacementError(
                f"{config.start_from}: a search starts from one placement, this is a schedule"
            )
        today = loaded
    path = input_path(config.requests)
    names = request_files.model_names(path, [model.name for model in listed])
    train = test = read_requests(path, names)
    if config.test_share:
        train, test = request_files.split(train, config.test_share)
    if config.test_requests is not None:
        test = read_requests(input_path(config.test_requests), names)
    models = describe_models(names, config, profile, train, listed)
    problem = Problem(models, cluster, profile, config.rules)
    if today is not None:
        today = renumbered(today, listed, models)
        require_valid(str(config.start_from), today, problem)
        if not {model.name for model in listed} & set(request_files.model_names(path, [])):
            raise ValueError(
                f"{config.requests} asks for none of the models of {config.start_from}: "
                f"{', '.join(model.name for model in listed[:5])}, ..."
            )
    training = request_files.slices(train, config.train_slices)
    return _Inputs(problem, training, test, test == train, today)


def _cluster(config: Config) -> tuple[Cluster, Profile]:
    """The cluster to place on, and its profile."""
    if config.pools is not None:
        cluster, profiles = read_cluster(input_path(config.pools))
        return cluster, profile_of(cluster, profiles)
    (num_devices,) = config.num_devices
    cluster = Cluster(num_devices, memory_bytes(config.memory_gib), config.devices_per_node)
    return cluster, load_profile(input_path(config.profile))


def _report(
    config: Config,
    inputs: _Inputs,
    choice: Choice,
    served: Sequence[Served],
    directory: Path,
) -> None:
    """Write and print the report on what was found, and what this run has besides."""
    from beta_jax import planning
    from experiments.tools import changes, service

    problem, placements = choice.problem, choice.placements
    chosen = placements[choice.chosen]
    facts = {name: choice.training(name) for name in placements}
    optional = {"history": planning.history_rows(choice.results)}
    none_in_time = asked.none_in_time(problem)
    if not none_in_time:
        optional["certificates"] = planning.certificate_rows(choice, inputs.training)
    notes = []
    if inputs.today is not None:
        changed = changes.from_first(problem, placements)
        facts = {name: facts[name] | changes.moved(changed, name) for name in facts}
        optional["changes"] = changes.rows(changed)
        notes.append(f"from {config.start_from} to {choice.chosen}: {changed[choice.chosen]}")
    service.report(problem, served, directory, trained_on_test=inputs.trained_on_test, facts=facts)
    for file in SOMETIMES:
        (directory / file).unlink(missing_ok=True)
    for name, rows in optional.items():
        if rows:
            files.write(directory / f"{name}.csv", tables.to_csv(rows))
    for warning in choice.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    names = problem.cluster.names
    save_placement(directory / "placement.json", chosen, problem.models, names)
    if inputs.today is not None and chosen == inputs.today:
        notes.append("nothing better was found than what runs today, within what may be loaded")
    if not none_in_time:
        chosen_row = next(r for r in optional["certificates"] if r["placement"] == choice.chosen)
        notes.append(_left_to_gain(chosen_row["left_to_gain"]))
    result = choice.results.get(choice.chosen)
    if result is not None and result.expected_loss is not None:
        lost = 100 * max(result.expected_loss, 0.0)
        notes.append(f"of what the search gained {lost:.1f} points may be lost on other requests")
    notes.append(f"{directory / 'placement.json'} is what {choice.chosen} found: {chosen}")
    print("\n\n".join(notes))


def _left_to_gain(share: float) -> str:
    if not share:
        return "on the training requests no placement that stays serves more in time"
    return f"at most {100 * share:.1f} points are left to gain on the training requests"


def draw(directory: Path) -> list[Path]:
    return [*service_figures.draw(directory, "quickstart"), *plan_figures.draw(directory)]


def describe_models(
    names: Sequence[str],
    config: Config,
    profile: Profile,
    requests: Workload,
    listed: Sequence[Model],
) -> tuple[Model, ...]:
    """The models with their types, SLOs and mean rates; raises ValueError for too few types.

    listed: models whose types and SLOs are known; the config tells those of the others, in order.
    """
    known = {model.name: model for model in listed}
    others = [name for name in names if name not in known]
    given = config.model_types
    if not names or len(given) not in (1, len(others)):
        beyond = f" that {config.start_from} does not list" if listed else ""
        raise ValueError(
            f"{config.requests} names {len(others)} models{beyond} ({', '.join(others[:9])}), "
            f"model_types {len(given)}: give one type for all, or one for each in this order"
        )
    if others:
        asked.require_types(given, profile, config.pools or config.profile)
        asked.tell_type(config.requests, others, given)
    types = dict(zip(others, given if len(given) > 1 else given * len(others), strict=True))
    types |= {name: model.type for name, model in known.items()}
    counts = np.bincount(requests.model, minlength=len(names))
    span_s = request_files.span_s(requests)
    models = make_models(
        [types[name] for name in names],
        profile,
        slo_scale=config.slo_scale,
        total_rate_rps=len(requests) / span_s if span_s else 0.0,
        split=counts.tolist(),
    )
    return tuple(
        dataclasses.replace(
            model, name=name, slo_s=known[name].slo_s if name in known else model.slo_s
        )
        for model, name in zip(models, names, strict=True)
    )


TASK = Task(files=FILES, run=execute, draw=draw)
