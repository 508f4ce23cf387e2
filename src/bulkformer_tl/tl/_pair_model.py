"""Models of pairs, such as line and drug: the row's features, a code of the column, and one number from both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bulkformer_tl.metrics import baseline, probe
from bulkformer_tl.metrics._scale import Scale
from bulkformer_tl.tl._extract import _affine

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]
    Arrays = dict[str, Numbers]

#: How features are made: an embedding keeps its proportions, genes are scaled each, or become components; or by blocks.
Recipe = Scale | Literal["pca"]

#: Arrays that make features of rows or columns; the latter two where there are more features than training rows.
SIDE = ("fill", "mean", "scale")
ROTATION = ("center", "rotation")
KINDS = ("linear", "mlp")


@dataclass(frozen=True, eq=False)
class PairModel:
    """What predicts the entry of a row and a column.

    Parameters
    ----------
    kind
        ``"linear"``: the row's features x times a code (w, b) of the column, x·w + b. ``"mlp"``: a network whose first
        layer adds up both, relu(A x + code), as one on features side by side does.
    arrays
        ``row_fill``, ``row_mean``, ``row_scale`` (D,) and at times ``row_center`` (D,) and ``row_rotation`` (r, D) make
        features of rows; ``codes`` (M, k) are those of the model's columns; such arrays of ``column_`` with ``map``
        (k, c) and ``shift`` (k,) make codes of other columns. A network has ``coef0`` (k, r) of the rows,
        ``intercept0``, further layers, and ``output``, the mean and spread of what it predicts.
    """

    kind: str
    arrays: Mapping[str, Numbers]

    def predict(self, matrix: NDArray[np.floating], features: NDArray[np.floating] | None = None) -> Numbers:
        """Predict all pairs of some rows and of the model's columns, or of columns that features describe.

        Parameters
        ----------
        matrix
            Rows, shape (N, D); ``NaN`` takes the training mean.
        features
            Columns, shape (M, P).

        Returns
        -------
        Shape (N, M). Each entry is computed by itself, so that it does not depend on which others there are.
        """
        rows = make_features(self.arrays, "row", matrix)
        codes = self.arrays["codes"] if features is None else column_codes(self.arrays, features)
        if self.kind == "linear":
            return _affine(rows, np.ascontiguousarray(codes[:, :-1]), codes[:, -1])
        first = _affine(rows, self.arrays["coef0"], self.arrays["intercept0"])
        mean, spread = self.arrays["output"]
        found = np.empty((len(rows), len(codes)))
        for position, row in enumerate(first):
            hidden = np.maximum(row + codes, 0)
            for layer in range(1, n_layers(self.arrays)):
                last = layer == n_layers(self.arrays) - 1
                hidden = _affine(hidden, self.arrays[f"coef{layer}"], self.arrays[f"intercept{layer}"])
                hidden = hidden if last else np.maximum(hidden, 0)
            found[position] = hidden[:, 0] * spread + mean
        return found


def n_layers(arrays: Mapping[str, Any]) -> int:
    """Count the layers of a network."""
    return sum(name.startswith("coef") for name in arrays)


def fit_features(side: str, matrix: NDArray[np.floating], recipe: Recipe, *, rng: int) -> Arrays:
    """Fit how features of one side are made to its training rows, (N, D), as for the heads of samples."""
    shape = matrix.shape
    made: Any = (
        baseline("pca", task="regression", shape=shape, rng=rng)
        if recipe == "pca"
        else probe("linear", task="regression", shape=shape, scale=recipe, rng=rng)
    )
    steps = made[:-1].fit(matrix).named_steps
    arrays = {
        # a gene that is missing in every training row has no mean
        "fill": np.nan_to_num(np.asarray(steps["fill"].statistics_, dtype=np.float64)),
        "mean": steps["scale"].mean_,
        "scale": steps["scale"].scale_,
    }
    rotation = steps.get("rotate", steps.get("pca"))
    if rotation is not None:
        arrays |= {"center": rotation.mean_, "rotation": rotation.components_}
    return {f"{side}_{name}": np.ascontiguousarray(array, dtype=np.float64) for name, array in arrays.items()}


def make_features(arrays: Mapping[str, Numbers], side: str, matrix: NDArray[np.floating]) -> Numbers:
    """Fill, scale and, where the model does, rotate rows or columns; shape (N, r)."""
    values = np.where(np.isnan(matrix), arrays[f"{side}_fill"], matrix.astype(np.float64))
    scaled = (values - arrays[f"{side}_mean"]) / arrays[f"{side}_scale"]
    if f"{side}_rotation" not in arrays:
        return np.ascontiguousarray(scaled)
    return _affine(np.ascontiguousarray(scaled - arrays[f"{side}_center"]), arrays[f"{side}_rotation"], 0.0)


def column_codes(arrays: Mapping[str, Numbers], features: NDArray[np.floating]) -> Numbers:
    """Make codes of columns from their features; shape (M, k)."""
    return _affine(make_features(arrays, "column", features), arrays["map"], arrays["shift"])


def fit_linear(
    known: Numbers,
    matrix: NDArray[np.floating],
    features: NDArray[np.floating] | None = None,
    *,
    recipe: Recipe = "common",
    penalties: tuple[float, float] = (100.0, 1.0),
    rng: int = 0,
) -> PairModel:
    """Fit ridge regressions in two steps (Stock et al. 2018, doi:10.1162/neco_a_01096).

    First each column is regressed on the rows' features, from the rows that are known of it. Then the coefficients and
    intercepts of all columns are regressed on the columns' features, which gives those of a column that is not known.

    Parameters
    ----------
    known
        Shape (N, M), ``NaN`` where not known. Rows and columns without a known entry are not fitted to.
    matrix
        Rows, shape (N, D).
    features
        Columns, shape (M, P); needed if a column is not known.
    recipe
        How row features are made.
    penalties
        Of the first step, as under the heads of samples, and of the second, for each feature of the columns: of these
        there can be three, or the thousands of bits of a fingerprint.
    rng
        Seed of the components.

    Returns
    -------
    The model, with a code of every column.
    """
    present = ~np.isnan(known)
    rows, columns = present.any(axis=1), present.any(axis=0)
    arrays = fit_features("row", matrix[rows], recipe, rng=rng)
    inputs = make_features(arrays, "row", matrix[rows])
    codes = np.zeros((known.shape[1], inputs.shape[1] + 1))
    codes[columns] = _ridge_columns(inputs, known[np.ix_(rows, columns)], penalties[0])
    if features is not None:
        arrays |= fit_features("column", features[columns], "common", rng=rng)
        described = make_features(arrays, "column", features[columns])
        weights, shift = _ridge(described, codes[columns], penalties[1] * features.shape[1])
        arrays |= {"map": np.ascontiguousarray(weights.T), "shift": shift}
        codes[~columns] = column_codes(arrays, features[~columns])
    return PairModel("linear", {**arrays, "codes": codes})


def _ridge_columns(inputs: Numbers, known: Numbers, penalty: float) -> Numbers:
    """Regress each column on the rows that are known of it; columns that know the same rows share the work."""
    patterns, members = np.unique(~np.isnan(known), axis=1, return_inverse=True)
    found = np.empty((known.shape[1], inputs.shape[1] + 1))
    for position, pattern in enumerate(patterns.T):
        here = np.flatnonzero(members.reshape(-1) == position)
        weights, intercept = _ridge(inputs[pattern], known[np.ix_(pattern, here)], penalty)
        found[here] = np.column_stack([weights.T, intercept])
    return found


def _ridge(inputs: Numbers, targets: Numbers, penalty: float) -> tuple[Numbers, Numbers]:
    """Return weights (D, T) and free intercepts (T,), solved in the smaller of both spaces."""
    from scipy.linalg import solve

    center, level = inputs.mean(axis=0), targets.mean(axis=0)
    one, other = inputs - center, targets - level
    n, d = one.shape
    if n > d:
        weights = solve(one.T @ one + penalty * np.eye(d), one.T @ other, assume_a="pos")
    else:
        weights = one.T @ solve(one @ one.T + penalty * np.eye(n), other, assume_a="pos")
    return weights, level - center @ weights


def check_model(kind: str, arrays: Mapping[str, NDArray[Any]], n_columns: int) -> None:
    """Refuse arrays that do not make up a model.

    Raises
    ------
    ValueError
        If an array is absent, superfluous, of another shape or type, or not finite.
    """
    try:
        shapes = _shapes(kind, arrays, n_columns)
    except (KeyError, IndexError) as error:
        message = f"a model of pairs of the kind {kind!r} cannot consist of the arrays {sorted(arrays)}"
        raise ValueError(message) from error
    for name, array in arrays.items():
        if array.shape != shapes.get(name) or array.dtype != np.float64:
            message = f"the array {name!r} is {array.dtype} {array.shape}; expected float64 {shapes.get(name)}"
            raise ValueError(message)
        if not np.isfinite(array).all():
            message = f"the array {name!r} holds values that are NaN or infinite"
            raise ValueError(message)


def _shapes(kind: str, arrays: Mapping[str, NDArray[Any]], n_columns: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of each array that such a model has; a KeyError names one that is not there."""
    shapes: dict[str, tuple[int, ...]] = {}
    width = {}
    for side in ("row", *(("column",) if "map" in arrays else ())):
        d = width[side] = len(arrays[f"{side}_fill"])
        shapes |= {f"{side}_{name}": (d,) for name in SIDE}
        if f"{side}_rotation" in arrays:
            width[side] = len(arrays[f"{side}_rotation"])
            shapes |= {f"{side}_center": (d,), f"{side}_rotation": (width[side], d)}
    k = width["row"] + 1 if kind == "linear" else len(arrays["intercept0"])
    shapes["codes"] = (n_columns, k)
    if "map" in arrays:
        shapes |= {"map": (k, width["column"]), "shift": (k,)}
    if kind == "mlp":
        shapes |= {"coef0": (k, width["row"]), "intercept0": (k,), "output": (2,)}
        before = k
        for layer in range(1, max(n_layers(arrays), 2)):
            here = 1 if layer == n_layers(arrays) - 1 else len(arrays[f"intercept{layer}"])
            shapes |= {f"coef{layer}": (here, before), f"intercept{layer}": (here,)}
            before = here
    if kind not in KINDS or set(shapes) != set(arrays):
        raise KeyError(kind)
    return shapes
