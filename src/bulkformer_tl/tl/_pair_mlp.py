"""A network on pairs, which reads the features of a row and of a column side by side."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from bulkformer_tl.metrics._heads import set_options
from bulkformer_tl.tl._pair_model import PairModel, column_codes, fit_features, make_features

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from bulkformer_tl.tl._pair_model import Recipe

    Numbers = NDArray[np.float64]

#: One hidden layer; a tenth of the training pairs says when to stop.
OPTIONS: dict[str, Any] = {
    "hidden_layer_sizes": (128,),
    "solver": "adam",
    "alpha": 1e-2,
    "early_stopping": True,
    "max_iter": 200,
}


def make_mlp(options: Mapping[str, Any], rng: int) -> Any:
    """Build the network, or refuse options that it does not have."""
    from sklearn.neural_network import MLPRegressor

    if options.get("activation", "relu") != "relu":
        message = f"the head 'mlp' of pairs has the activation 'relu' and no other, not {options['activation']!r}"
        raise ValueError(message)
    return set_options(MLPRegressor(**OPTIONS, random_state=rng), "mlp", options)


def fit_mlp(
    known: Numbers,
    matrix: NDArray[np.floating],
    features: NDArray[np.floating] | None = None,
    *,
    options: Mapping[str, Any],
    recipe: Recipe = "common",
    rng: int = 0,
) -> PairModel:
    """Train a network on all known pairs at once, by squared error.

    Parameters
    ----------
    known
        Shape (N, M), ``NaN`` where not known.
    matrix
        Rows, shape (N, D).
    features
        Columns, shape (M, P); ``None`` tells columns apart and nothing more.
    options
        Of scikit-learn's ``MLPRegressor``, in place of :data:`OPTIONS`.
    recipe
        How row features are made.
    rng
        Seed of weights, order and the pairs that say when to stop.

    Returns
    -------
    The model, with a code of every column.
    """
    from sklearn.exceptions import ConvergenceWarning

    present = ~np.isnan(known)
    arrays = fit_features("row", matrix[present.any(axis=1)], recipe, rng=rng)
    inputs = make_features(arrays, "row", matrix)
    described = np.eye(known.shape[1])
    if features is not None:
        arrays |= fit_features("column", features[present.any(axis=0)], "common", rng=rng)
        described = make_features(arrays, "column", features)
    rows, columns = np.nonzero(present)
    target = known[rows, columns]
    mean, spread = float(target.mean()), float(target.std()) or 1.0
    pairs = np.hstack([inputs[rows], described[columns]]).astype(np.float32)
    network = make_mlp(options, rng)
    with warnings.catch_warnings():
        # the number of passes is a limit on purpose
        warnings.simplefilter("ignore", ConvergenceWarning)
        network.fit(pairs, ((target - mean) / spread).astype(np.float32))
    layers = [np.ascontiguousarray(coef.T, dtype=np.float64) for coef in network.coefs_]
    arrays |= {f"coef{layer}": coef for layer, coef in enumerate(layers)}
    arrays |= {
        f"intercept{layer}": np.asarray(shift, dtype=np.float64) for layer, shift in enumerate(network.intercepts_)
    }
    arrays["coef0"], column_map = (
        np.ascontiguousarray(part) for part in np.split(layers[0], [inputs.shape[1]], axis=1)
    )
    arrays["output"] = np.array([mean, spread])
    if features is None:
        return PairModel("mlp", {**arrays, "codes": np.ascontiguousarray(column_map.T)})
    arrays |= {"map": np.ascontiguousarray(column_map), "shift": np.zeros(len(column_map))}
    return PairModel("mlp", {**arrays, "codes": column_codes(arrays, features)})
