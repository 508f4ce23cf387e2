"""Predict the change of expression under a perturbation, in the space of its leading components."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bulkformer_tl.metrics._scale import divisors
from bulkformer_tl.tl._extract import _affine

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]
    Arrays = dict[str, NDArray[Any]]

#: Leading components of the change that are predicted, and those of the inputs that a perceptron reads.
N_COMPONENTS = 50
HEADS = ("linear", "mlp")
#: Penalties among which inner folds choose; each block of inputs has a total variance of 1.
ALPHAS = (0.1, 1.0, 10.0, 100.0)
#: One hidden layer under full batches and weight decay, since pairs are few.
PERCEPTRON: dict[str, Any] = {"hidden_layer_sizes": (128,), "solver": "lbfgs", "alpha": 1.0, "max_iter": 300}
#: Fewer training pairs are not split to stop early.
MIN_STOPPING = 40
#: A smaller share of the largest variance is rounding.
FLAT = 1e-10


@dataclass(frozen=True)
class Dose:
    """How doses are read: logarithms, centred and scaled.

    Parameters
    ----------
    center
        Mean of log10.
    scale
        Standard deviation of log10; 1 where all doses are one.
    """

    center: float
    scale: float

    @classmethod
    def of(cls, doses: Numbers) -> Dose:
        """Centre and scale by these doses."""
        logs = np.log10(doses)
        spread = float(logs.std())
        return cls(float(logs.mean()), spread if spread > 1e-9 else 1.0)

    def __call__(self, doses: Numbers) -> Numbers:
        """Return what the model reads, shape (M, 1)."""
        found: Numbers = ((np.log10(doses) - self.center) / self.scale)[:, None]
        return found


def design(controls: Numbers, features: Numbers, doses: Numbers | None) -> list[Numbers]:
    """Return the blocks of inputs: control, perturbation and, with doses, what they do to it.

    Parameters
    ----------
    controls
        Representation of the controls, shape (M, D).
    features
        Features of the perturbations, shape (M, K).
    doses
        As :class:`Dose` returns them, shape (M, 1), or ``None``.
    """
    return [controls, features] if doses is None else [controls, features, features * doses, doses]


@dataclass(frozen=True, eq=False)
class Change:
    """Changes of training pairs as a mean and leading components.

    Parameters
    ----------
    mean
        Mean over perturbations of their mean change, shape (G,).
    components
        Orthonormal, shape (C, G).
    scores
        Of the training pairs, shape (M, C).
    weights
        Of the training pairs, shape (M,), mean 1: every perturbation counts the same.
    """

    mean: Numbers
    components: Numbers
    scores: Numbers
    weights: Numbers

    def project(self, changes: Numbers) -> Numbers:
        """Return the components of other changes, shape (M, C)."""
        return (changes - self.mean) @ self.components.T

    @classmethod
    def of(cls, changes: Numbers, codes: NDArray[np.intp]) -> Change:
        """Decompose changes, shape (M, G), of perturbations by their codes."""
        counts = np.bincount(codes)
        weights = 1.0 / counts[codes]
        weights *= len(weights) / weights.sum()
        mean = np.average(changes, axis=0, weights=weights)
        centred = changes - mean
        components = _leading(centred * np.sqrt(weights)[:, None], N_COMPONENTS)
        return cls(mean, components, centred @ components.T, weights)


def _leading(matrix: Numbers, n: int) -> Numbers:
    """Return at most n leading right singular vectors, shape (n, G), from the small matrix of products of rows."""
    if matrix.shape[0] > matrix.shape[1]:
        values, vectors = np.linalg.eigh(matrix.T @ matrix)
        return np.ascontiguousarray(vectors[:, ::-1][:, :n].T)
    values, vectors = np.linalg.eigh(matrix @ matrix.T)
    # products square the rounding, so that directions of next to no variance would not be orthogonal
    kept = np.flatnonzero(values > FLAT * max(values[-1], np.finfo(float).tiny))[::-1][:n]
    if not len(kept):
        return np.eye(1, matrix.shape[1])
    return np.ascontiguousarray((vectors[:, kept].T @ matrix) / np.sqrt(values[kept])[:, None])


def fit_response(
    head: str,
    blocks: list[Numbers],
    change: Change,
    *,
    alpha: float,
    options: Mapping[str, Any],
    rng: int,
    scales: Sequence[str] = (),
) -> Arrays:
    """Fit a head that predicts the components of the change.

    Parameters
    ----------
    head
        ``"linear"`` (ridge regression) or ``"mlp"``.
    blocks
        Inputs of the training pairs, each (M, D), ``NaN`` where missing; each is centred and scaled to a total variance
        of 1, so that long fingerprints do not outvote the control.
    change
        Their changes.
    alpha
        Penalty of the ridge regression.
    options
        Of the perceptron, as scikit-learn's ``MLPRegressor`` names them.
    rng
        Seed.
    scales
        Of the first blocks: ``"each"`` scales their columns to one variance, ``"common"`` keeps their proportions, as
        in the blocks that are not named.

    Returns
    -------
    ``shift`` and ``scale`` of the inputs, ``mean`` and ``components`` of the change, and the layers ``coef0``,
    ``intercept0`` and so on, with rectified units between them.
    """
    blocks = [_filled(block) for block in blocks]
    raw = np.concatenate(blocks, axis=1)
    shift = raw.mean(axis=0)
    hows = [*scales, *["common"] * (len(blocks) - len(scales))]
    scale = np.concatenate([_spread(block, how) for block, how in zip(blocks, hows, strict=True)])
    inputs = (raw - shift) / scale
    fit = _ridge if head == "linear" else _perceptron
    layers = fit(inputs, change, alpha=alpha, options=options, rng=rng)
    arrays: Arrays = {"shift": shift, "scale": scale, "mean": change.mean, "components": change.components}
    for i, (coef, intercept) in enumerate(layers):
        arrays |= {f"coef{i}": np.ascontiguousarray(coef), f"intercept{i}": np.ascontiguousarray(intercept)}
    return {name: np.asarray(array, dtype=np.float64) for name, array in arrays.items()}


def check_options(head: str, options: Mapping[str, Any]) -> None:
    """Refuse options that the head does not have, before anything is fitted."""
    from sklearn.neural_network import MLPRegressor

    known = ["alpha"] if head == "linear" else sorted(MLPRegressor().get_params())
    unknown = [name for name in options if name not in known]
    if unknown:
        message = f"the head {head!r} of a response has no option {unknown[0]!r}; its options are {known}"
        raise ValueError(message)


def _filled(block: Numbers) -> Numbers:
    """Put the mean where a value is missing."""
    missing = np.isnan(block)
    counts = np.maximum((~missing).sum(axis=0), 1)
    return np.where(missing, np.where(missing, 0.0, block).sum(axis=0) / counts, block)


def _spread(block: Numbers, how: str) -> Numbers:
    """Return what columns are divided by to have a total variance of 1; 1 where nothing varies but by rounding."""
    variance = block.var(axis=0)
    return np.asarray(divisors(variance * (variance.sum() > 1e-12), how, 1.0))


def _ridge(
    inputs: Numbers, change: Change, *, alpha: float, options: Mapping[str, Any], rng: int
) -> list[tuple[Numbers, Numbers]]:
    from sklearn.linear_model import Ridge

    del options, rng
    found = Ridge(alpha=alpha, solver="cholesky").fit(inputs, change.scores, sample_weight=change.weights)
    return [(np.atleast_2d(found.coef_), np.atleast_1d(found.intercept_))]


def _perceptron(
    inputs: Numbers, change: Change, *, alpha: float, options: Mapping[str, Any], rng: int
) -> list[tuple[Numbers, Numbers]]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPRegressor

    del alpha
    rotation = _leading(inputs, N_COMPONENTS)
    turned = inputs @ rotation.T
    # the net reads and predicts numbers of about 1
    into = 1 / max(float(np.sqrt(turned.var(axis=0).mean())), 1e-9)
    out = max(float(np.sqrt((change.scores**2).mean())), 1e-9)
    chosen = {**PERCEPTRON, **options, "random_state": rng}
    # a tenth of so few pairs would decide when to stop
    chosen["early_stopping"] = bool(chosen.get("early_stopping")) and len(inputs) >= MIN_STOPPING
    net = MLPRegressor(**chosen)
    with warnings.catch_warnings():
        # the weight decay bounds what unfinished iterations leave
        warnings.simplefilter("ignore", ConvergenceWarning)
        net.fit(turned * into, change.scores / out)
    layers = [(coef.T, intercept) for coef, intercept in zip(net.coefs_, net.intercepts_, strict=True)]
    layers[0] = (layers[0][0] @ rotation * into, layers[0][1])
    layers[-1] = (layers[-1][0] * out, layers[-1][1] * out)
    return layers


def forward_response(arrays: Mapping[str, NDArray[Any]], blocks: list[Numbers]) -> Numbers:
    """Predict the change of expression; each row by itself, so that results do not depend on which rows are there.

    Parameters
    ----------
    arrays
        As of :func:`fit_response`.
    blocks
        Inputs of M pairs; ``NaN`` takes the training mean.

    Returns
    -------
    Shape (M, G).
    """
    found = forward_scores(arrays, blocks)
    return _affine(found, np.ascontiguousarray(arrays["components"].T), arrays["mean"])


def forward_scores(arrays: Mapping[str, NDArray[Any]], blocks: list[Numbers]) -> Numbers:
    """Predict the components of the change, shape (M, C); inputs as of :func:`forward_response`."""
    raw = np.concatenate(blocks, axis=1)
    found: Numbers = (np.where(np.isnan(raw), arrays["shift"], raw) - arrays["shift"]) / arrays["scale"]
    n_layers = sum(name.startswith("coef") for name in arrays)
    for i in range(n_layers):
        found = _affine(np.maximum(found, 0) if i else found, arrays[f"coef{i}"], arrays[f"intercept{i}"])
    return found


def nearest_change(
    changes: Numbers, train: tuple[Numbers, Numbers | None], test: tuple[Numbers, Numbers | None]
) -> Numbers:
    """Predict the mean change of the training perturbation with the most similar features, at the closest dose.

    Parameters
    ----------
    changes
        Of the training pairs, shape (M, G).
    train, test
        Features (M, K) and doses (M, 1) or ``None``. Features are compared by their cosine; equals are averaged.

    Returns
    -------
    One row per test pair.
    """
    alike = _unit(test[0]) @ _unit(train[0]).T
    closest = alike >= alike.max(axis=1, keepdims=True) - 1e-9
    if train[1] is not None and test[1] is not None:
        gap = np.where(closest, np.abs(test[1] - train[1].T), np.inf)
        closest = gap <= gap.min(axis=1, keepdims=True) + 1e-9
    found: Numbers = (closest / closest.sum(axis=1, keepdims=True)) @ changes
    return found


def _unit(rows: Numbers) -> Numbers:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 0, length, 1.0)
