"""Fits the numbers of a cost model to measured rows, and says how sure they are.

The fit is maximum a posteriori: squared relative errors of the sum of a row's stages and of its
longest one (half the weight), and squared distances to what is assumed (`cost_model.prior`), so
that any number of rows gives an answer and what they do not tell stays as assumed. Errors of more
than two standard deviations count linearly (pseudo-Huber): rows that contradict the others do not
bend the fit. They are named, and never dropped. Standard deviations, one for rows of single devices
per stage and one for operator parallelism, are those of the fit, found by turns with it. Standard
errors of the numbers are of Gauss and Newton: the inverse of what the rows and the assumptions
together say of the curvature.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from beta_jax import backend
from beta_jax.profiles import cost_model
from beta_jax.profiles.architectures import ARCHITECTURES, Architecture, find_architecture
from beta_jax.profiles.cost_model import (
    CHIP,
    NEXT_REDUCE,
    OPS,
    TYPE,
    Case,
    Cases,
    CostModel,
    Estimate,
    number_prior,
)
from beta_jax.profiles.profile import Profile, ProfileError
from beta_jax.types import ParallelConfig

import jax  # isort: skip
import jax.numpy as jnp  # isort: skip

FEWEST_ROWS = 5
STEPS, FLAT = 400, 1e-3
"""Of one minimisation: at most so many, and the slope at which it ends."""
STEP = 1e-4
"""Of numerical derivatives."""
TURNS = 5
FIRST_NOISE = 0.05, 0.1
ROWS, STAGES = 128, 8
"""Fits are padded to multiples of these, so that few shapes are compiled."""
LINEAR_FROM = 2.0
"""Standard deviations from which errors count linearly."""
LEAST_NOISE = 0.005
"""Of a measurement, relative."""
CONTRADICTS = (4.0, 0.15)
"""A row contradicts the others from so many standard deviations on, and this relative error."""
BELIEVED = 0.7
"""A number is as assumed if its standard error is more than this share of the assumed spread (of an
operator degree: from the degree before)."""


PER_STAGE = frozenset({"work", "launches", "reduced", "handed", "replicated", "is_stage"})
"""Fields of `Cases` with an axis of stages."""


class Row(NamedTuple):
    """A measured case: seconds of its stages, and bytes of weights on each device of them."""

    case: Case
    stages_s: NDArray[np.float64]
    weight_bytes: NDArray[np.float64]


class Fitted(NamedTuple):
    """A row beside what the model makes of it. Errors are relative, model over measured less 1."""

    row: Row
    latency_error: float
    longest_error: float
    weight_error: float
    contradicts: bool


class Prediction(NamedTuple):
    """What the model says of a case, and of what kind that is.

    error: relative standard error of the latency. beyond: in what the case lies outside of the
    type's measured rows, such as `op 8 > 4`; empty within them.
    """

    case: Case
    latency_s: float
    longest_stage_s: float
    fullest_device_bytes: float
    error: float
    measured: bool
    beyond: tuple[str, ...]


def measured_rows(profile: Profile) -> list[Row]:
    """All rows of a measured profile."""
    return [
        Row(
            Case(type, config, batch),
            profile.stage_latency_s(type, config, batch),
            profile.weight_bytes(type, config),
        )
        for type in profile.types
        for config in profile.configs(type)
        for batch in profile.batch_sizes(type, config)
    ]


@dataclasses.dataclass(frozen=True)
class Calibration:
    """A fitted model, the rows that it was fitted to, and how well it knows them.

    covariance: of the logarithms of `model.numbers`. noise: relative standard deviations of rows
    at op 1, and above.
    """

    model: CostModel
    rows: Sequence[Row]
    covariance: NDArray[np.float64]
    noise: tuple[float, float]

    def compare(self, rows: Sequence[Row] | None = None) -> list[Fitted]:
        """Rows (those of the fit, if none are given) beside the model."""
        rows = self.rows if rows is None else rows
        found = []
        for row, errors in zip(rows, np.expm1(_log_errors(self.model, rows)), strict=True):
            config, fullest = row.case.config, float(row.weight_bytes.max())
            ours = float(self.model.stage_weight_bytes(row.case.type, config).max())
            weight_error = ours / fullest - 1 if fullest else 0.0
            allowed = max(CONTRADICTS[0] * self.noise[config.op > 1], CONTRADICTS[1])
            latency_error, longest_error = map(float, errors)
            contradicts = max(abs(latency_error), abs(longest_error)) > allowed
            found.append(Fitted(row, latency_error, longest_error, weight_error, contradicts))
        return found

    def predict(self, profile: Profile) -> Iterator[Prediction]:
        """What the model says, with its error, of all that is in a profile that it made."""
        cases = [row.case for row in measured_rows(profile)]
        known = {row.case for row in self.rows}
        slopes = _slopes(self.model.logs, self.model.cases(cases))
        errors = np.sqrt(np.einsum("ni,ij,nj->n", slopes, self.covariance, slopes))
        for case, error in zip(cases, errors, strict=True):
            stages_s = profile.stage_latency_s(*case)
            yield Prediction(
                case,
                float(stages_s.sum()),
                float(stages_s.max()),
                float(profile.weight_bytes(case.type, case.config).max()),
                float(np.hypot(error, self.noise[case.config.op > 1])),
                case in known,
                self._beyond(case),
            )

    def _beyond(self, case: Case) -> tuple[str, ...]:
        own = [row.case for row in self.rows if row.case.type == case.type]
        if not own:
            return ("type not measured",)
        found = []
        for name, of in ASPECTS.items():
            low, high = min(map(of, own)), max(map(of, own))
            if of(case) > high:
                found.append(f"{name} {of(case)} > {high}")
            elif of(case) < low:
                found.append(f"{name} {of(case)} < {low}")
        return tuple(found)


ASPECTS: Mapping[str, Callable[[Case], int]] = {
    "op": lambda case: case.config.op,
    "pp": lambda case: case.config.pp,
    "devices": lambda case: case.config.num_devices,
    "batch": lambda case: case.batch,
}
"""In which a case can lie outside of what was measured."""


def calibrate(
    measured: Profile | Sequence[Row],
    *,
    device_gib: float,
    others: Sequence[str] = (),
    known_s: Mapping[Case, float] | None = None,
    shapes: Mapping[str, Architecture] | None = None,
    sequence: int | None = None,
    launches_from: CostModel | None = None,
    note: str = "",
) -> Calibration:
    """Fit a cost model to measured rows.

    Args:
        measured: a profile, or some of its rows.
        device_gib: memory of a device.
        others: types to know besides the measured ones. They take the factors of the measured type
            of their kind that is nearest in size.
        known_s: latencies of pipelines that are known besides, seconds, without their stages.
        shapes: of types that `architectures` lacks.
        sequence: tokens of a request, where they are neither the architectures' own nor said by
            the profile.
        launches_from: rows of batch size 1 hardly tell what does not grow with the batch; then
            a model of another chip tells it.

    Raises:
        ProfileError: there are too few rows, or a type has no known shape.
        ImportError: optax is not installed.
    """
    if find_spec("optax") is None:
        raise ImportError("fitting needs optax: pip install optax, or beta_jax[fit]")
    rows = measured_rows(measured) if isinstance(measured, Profile) else list(measured)
    known_s = known_s or {}
    if len(rows) < FEWEST_ROWS:
        raise ProfileError(
            f"{len(rows)} rows are too few to fit: at least {FEWEST_ROWS} are needed"
        )
    types = sorted({row.case.type for row in rows} | {case.type for case in known_s} | {*others})
    ops = sorted({*OPS, *(row.case.config.op for row in rows)} - {1})
    shapes = {name: shape for name, shape in (shapes or {}).items() if name in types}
    if isinstance(measured, Profile) and measured.measured is not None and sequence is None:
        shapes |= _as_measured(measured.measured.sequence, shapes)
    numbers = _assumed(types, ops, shapes, launches_from)
    model = CostModel(
        numbers=numbers,
        cuts={},
        replicated={},
        activation={},
        device_gib=device_gib,
        sequence=sequence,
        shapes=shapes,
        note=note,
    )
    model = dataclasses.replace(model, bytes_per_value=_bytes_per_value(model, rows))
    if isinstance(measured, Profile):
        model = dataclasses.replace(model, activation=_activation(model, measured))
    model = dataclasses.replace(model, cuts=_cuts(model, rows))
    model = dataclasses.replace(model, replicated=_replicated(model, rows))
    spreads = np.array([estimate.error for estimate in numbers.values()])
    whiten = _whiten(spreads, [n for n, name in enumerate(numbers) if name.startswith("reduce")])
    cases = [*(row.case for row in rows), *known_s]
    target = np.log([*map(_latencies, rows), *((seconds, 1.0) for seconds in known_s.values())])
    is_wide = np.array([case.config.op > 1 for case in cases])
    means, logs, noise = model.logs, model.logs, FIRST_NOISE
    for _ in range(TURNS):
        each = np.where(is_wide, noise[1], noise[0])
        weights = np.stack([1 / each, 0.5 / each], 1)
        weights[len(rows) :] = 1 / LEAST_NOISE, 0.0
        # Cuts that were not measured depend on the numbers.
        arrays = dataclasses.replace(model, numbers=_with(numbers, logs)).cases(cases)
        problem = _Problem(arrays, target, weights, means, whiten)
        logs, information = _fit(logs, _padded(problem))
        noise = _noise(dataclasses.replace(model, numbers=_with(numbers, logs)), rows)
    inverse = np.linalg.inv(information)
    estimates = {
        name: Estimate(
            float(f"{np.exp(log):.6g}"), float(f"{error:.3g}"), bool(error < BELIEVED * spread)
        )
        for name, log, error, spread in zip(
            numbers, logs, np.sqrt(np.diag(inverse)), 1 / np.diag(whiten), strict=True
        )
    }
    model = dataclasses.replace(model, numbers=estimates)
    measured_types = sorted({row.case.type for row in rows})
    for type in set(types) - {*measured_types, *(case.type for case in known_s)}:
        estimates |= _as_nearest(model, type, measured_types)
    return Calibration(
        dataclasses.replace(model, numbers=estimates), rows, np.asarray(inverse, np.float64), noise
    )


def _as_nearest(model: CostModel, type: str, measured: Sequence[str]) -> dict[str, Estimate]:
    """The factors of a type that was not measured."""

    def distance(name: str) -> float:
        sizes = [_num_weights(model.architecture(each)) for each in (name, type)]
        return abs(float(np.log(sizes[0] / sizes[1])))

    kind = cost_model.kind_of(model.architecture(type))
    alike = [name for name in measured if cost_model.kind_of(model.architecture(name)) == kind]
    if not alike:
        return {}
    nearest = min(alike, key=distance)
    return {
        f"{factor}.{type}": model.numbers[f"{factor}.{type}"]._replace(
            value=model.numbers[f"{factor}.{nearest}"].value
        )
        for factor in TYPE
    }


def _num_weights(architecture: Architecture) -> float:
    return float(cost_model.pieces(architecture)[:, cost_model.WEIGHTS].sum())


def _as_measured(
    sequence: Mapping[str, int], shapes: Mapping[str, Architecture]
) -> dict[str, Architecture]:
    """Shapes of the types that were measured with requests of other lengths than their own."""
    found = {}
    for name, tokens in sequence.items():
        own = shapes.get(name) or ARCHITECTURES.get(name)
        if own is not None and own.sequence != tokens:
            found[name] = dataclasses.replace(own, sequence=tokens)
    return found


def _assumed(
    types: Sequence[str],
    ops: Sequence[int],
    shapes: Mapping[str, Architecture],
    launches_from: CostModel | None,
) -> dict[str, Estimate]:
    """All numbers as they are assumed to be, with the spread of that."""
    try:
        known = {type: find_architecture(type) for type in types if type not in shapes}
    except ValueError as error:
        raise ProfileError(str(error)) from None
    known |= shapes
    priors = {name: number_prior(name) for name in (*CHIP, *(f"reduce_byte_s.{op}" for op in ops))}
    for kind in TYPE:
        priors |= {f"{kind}.{type}": number_prior(f"{kind}.", known[type]) for type in types}
    numbers = {name: Estimate(of.value, of.spread, False) for name, of in priors.items()}
    if launches_from is not None:
        numbers["launch_s"] = launches_from.numbers["launch_s"]._replace(measured=False)
    return numbers


class _Problem(NamedTuple):
    cases: Cases
    target: Any
    weights: Any
    means: Any
    whiten: Any


def _with(numbers: Mapping[str, Estimate], logs: NDArray[np.float64]) -> dict[str, Estimate]:
    return {
        name: estimate._replace(value=float(np.exp(log)))
        for (name, estimate), log in zip(numbers.items(), logs, strict=True)
    }


def _whiten(spreads: NDArray[np.float64], steps: Sequence[int]) -> NDArray[np.float64]:
    """What makes independent standard normal numbers of distances to what is assumed.

    Degrees of operator parallelism (`steps`) are assumed to be like the one before.
    """
    matrix = np.diag(1 / spreads)
    for before, at in itertools.pairwise(steps):
        matrix[at, [before, at]] = -1 / NEXT_REDUCE, 1 / NEXT_REDUCE
    return matrix


def _padded(problem: _Problem) -> _Problem:
    """The same with rows of no weight and stages that are none."""
    num_rows, num_stages = problem.cases.is_stage.shape
    rows, stages = -num_rows % ROWS, -num_stages % STAGES

    def more(array: NDArray[np.float64], at_stages: bool = False) -> NDArray[np.float64]:
        if at_stages:
            array = np.pad(array, [(0, 0), (0, stages), *[(0, 0)] * (array.ndim - 2)])
        return np.pad(array, [(0, rows), *[(0, 0)] * (array.ndim - 1)], mode="edge")

    arrays = {
        name: more(array, at_stages=name in PER_STAGE)
        for name, array in problem.cases._asdict().items()
    }
    weights = np.pad(problem.weights, [(0, rows), (0, 0)])
    return problem._replace(cases=Cases(**arrays), target=more(problem.target), weights=weights)


def _log_of_latency(logs: Any, cases: Cases) -> Any:
    stages_s = cost_model.latency_s(jnp, logs, cases)
    return jnp.log(jnp.stack([stages_s.sum(1), stages_s.max(1)], 1))


def _residuals(logs: Any, problem: _Problem) -> tuple[Any, Any]:
    errors = (_log_of_latency(logs, problem.cases) - problem.target) * problem.weights
    return errors.ravel(), problem.whiten @ (logs - problem.means)


def _loss(logs: Any, problem: _Problem) -> Any:
    errors, assumed = _residuals(logs, problem)
    tamed = LINEAR_FROM**2 * (jnp.sqrt(1 + (errors / LINEAR_FROM) ** 2) - 1)
    return tamed.sum() + 0.5 * (assumed**2).sum()


def _information(logs: Any, problem: _Problem) -> Any:
    """What rows and assumptions say of the numbers: the inverse of their covariance."""
    errors, _ = _residuals(logs, problem)
    slopes = jax.jacfwd(lambda x: _residuals(x, problem)[0])(logs)
    tamed = 1 / jnp.sqrt(1 + (errors / LINEAR_FROM) ** 2)
    return slopes.T @ (tamed[:, None] * slopes) + problem.whiten.T @ problem.whiten


@jax.jit
def _minimise(logs: Any, problem: _Problem) -> tuple[Any, Any]:
    """The numbers of least loss, and the information about them."""
    import optax  # an optional dependency: `calibrate` asks for it

    # Steps in units of what the rows tell from here: then all directions are about as steep.
    unit = jnp.linalg.inv(jnp.linalg.cholesky(_information(logs, problem))).T

    def loss(z: Any) -> Any:
        return _loss(logs + unit @ z, problem)

    solver = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(loss)

    def step(carry: Any) -> Any:
        number, z, state, _ = carry
        value, grad = value_and_grad(z, state=state)
        updates, state = solver.update(grad, state, z, value=value, grad=grad, value_fn=loss)
        return number + 1, optax.apply_updates(z, updates), state, jnp.abs(grad).max()

    def goes_on(carry: Any) -> Any:
        return (carry[0] < STEPS) & (carry[3] > FLAT)

    z = jnp.zeros_like(logs)
    _, z, _, _ = jax.lax.while_loop(goes_on, step, (0, z, solver.init(z), jnp.inf))
    found = logs + unit @ z
    return found, _information(found, problem)


def _fit(
    logs: NDArray[np.float64], problem: _Problem
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    with backend.on_cpu():
        found, information = _minimise(logs, problem)
    found = np.asarray(found)
    if not np.isfinite(found).all():
        raise ProfileError("the rows cannot be fitted: no numbers of the model come near them")
    return found, np.asarray(information)


def _slopes(logs: NDArray[np.float64], cases: Cases) -> NDArray[np.float64]:
    """Derivatives of the logarithm of each case's latency by the numbers, [case, number]."""

    def log_latency(shift: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.log(cost_model.latency_s(np, logs + shift, cases).sum(1))

    steps = STEP * np.eye(len(logs))
    return np.stack([(log_latency(s) - log_latency(-s)) / (2 * STEP) for s in steps], 1)


def _latencies(row: Row) -> tuple[float, float]:
    return float(row.stages_s.sum()), float(row.stages_s.max())


def _log_errors(model: CostModel, rows: Sequence[Row]) -> NDArray[np.float64]:
    """Logarithms of model over measured: of the sum of the stages, and of the longest one."""
    stages_s = cost_model.latency_s(np, model.logs, model.cases([row.case for row in rows]))
    ours = np.stack([stages_s.sum(1), stages_s.max(1)], 1)
    return np.log(ours / [*map(_latencies, rows)])


def _noise(model: CostModel, rows: Sequence[Row]) -> tuple[float, float]:
    """Standard deviations of rows at op 1 and above: robust, of the sums of their stages."""
    log_errors = _log_errors(model, rows)
    split = np.array([row.case.config.op > 1 for row in rows])
    found = []
    for group in (~split, split):
        errors = np.abs(log_errors[group, 0])
        found.append(max(1.4826 * float(np.median(errors)), LEAST_NOISE) if len(errors) else 0.05)
    return found[0], found[1]


def _bytes_per_value(model: CostModel, rows: Sequence[Row]) -> int:
    """1, 2 or 4: what the weights of single devices come to."""
    each = [
        row.weight_bytes.sum() / _num_weights(model.architecture(row.case.type))
        for row in rows
        if row.case.config.op == 1 and row.weight_bytes.all()
    ]
    return min((2, 4, 1), key=lambda size: abs(np.log(np.median(each) / size))) if each else 2


def _cuts(model: CostModel, rows: Sequence[Row]) -> dict[str, dict[int, tuple[int, ...]]]:
    """Where each stage of a pipeline of single devices begins: as its weights say."""
    found: dict[str, dict[int, tuple[int, ...]]] = {}
    for (type, config, _), _, weights in rows:
        if config.op > 1 or config.pp == 1 or not weights.all():
            continue
        sizes = cost_model.pieces(model.architecture(type))[:, cost_model.WEIGHTS]
        ends = model.bytes_per_value * np.cumsum(sizes)
        ends += weights.sum() - ends[-1]  # a table of positions, in the first stage
        last = np.abs(ends[:, None] - np.cumsum(weights)[:-1]).argmin(0) + 1
        cut = tuple(np.diff([0, *last, len(ends)]).tolist())
        if min(cut) > 0:
            found.setdefault(type, {})[config.pp] = cut
    return found


def _replicated(model: CostModel, rows: Sequence[Row]) -> dict[str, dict[int, float]]:
    """Median share of its weights that the middle stage keeps on all its devices."""
    shares: dict[tuple[str, int], list[float]] = {}
    for (type, config, batch), _, weights in rows:
        if config.op == 1 or config.pp == 1 or batch > 1 or not weights.all():
            continue
        middle = model.stage_weight_bytes(type, ParallelConfig(1, config.pp))[config.pp // 2]
        share = (weights.max() / middle - 1 / config.op) / (1 - 1 / config.op)
        kind = cost_model.kind_of(model.architecture(type))
        shares.setdefault((kind, config.op), []).append(float(np.clip(share, 0, 1)))
    found: dict[str, dict[int, float]] = {}
    for (kind, op), each in sorted(shares.items()):
        found.setdefault(kind, {})[op] = round(float(np.median(each)), 3)
    return found


def _activation(model: CostModel, profile: Profile) -> dict[str, float]:
    """Median of measured over counted activations, by type; types without any are left out."""
    found = {}
    for type in profile.types:
        each = [
            profile.act_bytes(type, config, batch).max() / model.act_bytes(type, config, batch)
            for config in profile.configs(type)
            for batch in profile.batch_sizes(type, config)
        ]
        if any(each):
            found[type] = round(float(np.median(each)), 3)
    return found
