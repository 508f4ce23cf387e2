"""What a fitted scikit-learn probe knows, as plain arrays, and the same predictions from them in numpy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[Any]]

#: Heads that can be kept; the others would have to keep their training samples.
KEPT = ("linear", "elastic_net", "random_forest", "mlp")
#: Arrays of each kind of head beside those of the scaling.
LAYOUT = {
    "linear": ("coef", "intercept"),
    "mlp": ("coef0", "intercept0", "coef1", "intercept1", "output"),
    "forest": ("feature", "threshold", "left", "right", "value", "root"),
}
SCALING = ("fill", "mean", "scale")
#: Of a survival head, for each stratum: what it adds to the log hazard, and the median of the training samples.
STRATA = ("offset", "median")
#: Principal components that stand before a head that is not linear.
ROTATION = ("center", "components")


def extract(model: Any) -> tuple[str, str, Arrays]:
    """Take the arrays out of a fitted pipeline of :func:`bulkformer_tl.metrics.probe`.

    Parameters
    ----------
    model
        Fitted pipeline: filling, scaling, at times a rotation, and a head.

    Returns
    -------
    Kind of the head (a key of ``LAYOUT``); what turns its output into probabilities, ``"softmax"``, ``"sigmoid"``,
    ``"one_versus_rest"``, ``"mean"`` or, in regression, ``"identity"``; and the arrays.
    """
    steps, head = model.named_steps, model.named_steps["head"]
    arrays: Arrays = {
        "fill": np.asarray(steps["fill"].statistics_, dtype=np.float64),
        "mean": np.asarray(steps["scale"].mean_, dtype=np.float64),
        "scale": np.asarray(steps["scale"].scale_, dtype=np.float64),
    }
    # a gene that is missing in every training sample has no mean
    arrays["fill"] = np.nan_to_num(arrays["fill"])
    inner = getattr(head, "regressor_", head)
    # a ridge is rotated for speed, any head by the option n_components
    rotation = steps.get("rotate", steps.get("pca"))
    if rotation is not None and not hasattr(inner, "coef_"):
        arrays |= {"center": _float(rotation.mean_), "components": _float(rotation.components_)}
    if hasattr(inner, "estimators_"):
        return "forest", "mean", arrays | _forest(inner)
    if hasattr(inner, "coefs_"):
        link = {"softmax": "softmax", "logistic": "sigmoid", "identity": "identity"}[inner.out_activation_]
        return "mlp", link, arrays | _mlp(inner, getattr(head, "transformer_", None))
    coef, intercept = np.atleast_2d(inner.coef_), np.atleast_1d(inner.intercept_)
    if rotation is not None:
        # a rotation and a linear head are one linear map
        coef = coef @ rotation.components_
        intercept = intercept - coef @ rotation.mean_
    return "linear", _linear_link(inner), arrays | {"coef": _float(coef), "intercept": _float(intercept)}


def _linear_link(head: Any) -> str:
    if not hasattr(head, "classes_"):
        return "identity"
    if len(head.classes_) == 2:
        return "sigmoid"
    return "one_versus_rest" if hasattr(head, "loss") else "softmax"


def _float(values: Any) -> NDArray[np.float64]:
    return np.ascontiguousarray(values, dtype=np.float64)


def _mlp(head: Any, target: Any) -> Arrays:
    # (shift, scale) of the numbers that it predicts
    found = {"output": np.array([0.0, 1.0]) if target is None else np.stack([target.mean_, target.scale_]).squeeze()}
    for layer in (0, 1):
        found[f"coef{layer}"] = _float(head.coefs_[layer].T)
        found[f"intercept{layer}"] = _float(head.intercepts_[layer])
    return found


def _forest(head: Any) -> Arrays:
    trees = [tree.tree_ for tree in head.estimators_]
    root = np.cumsum([0, *(tree.node_count for tree in trees)])[:-1]
    shifted = {
        side: np.concatenate([np.where(v < 0, -1, v + start) for v, start in zip(values, root, strict=True)])
        for side, values in (
            ("left", [tree.children_left for tree in trees]),
            ("right", [tree.children_right for tree in trees]),
        )
    }
    if hasattr(head, "classes_"):
        values = np.concatenate([tree.value[:, 0, :] for tree in trees])
        values = values / values.sum(axis=1, keepdims=True)
    else:
        values = np.concatenate([tree.value[:, :, 0] for tree in trees])
    return {
        "feature": np.concatenate([tree.feature for tree in trees]).astype(np.int64),
        "threshold": _float(np.concatenate([tree.threshold for tree in trees])),
        "left": shifted["left"].astype(np.int64),
        "right": shifted["right"].astype(np.int64),
        "value": _float(values),
        "root": root.astype(np.int64),
    }


def forward(kind: str, link: str, arrays: Mapping[str, NDArray[Any]], matrix: NDArray[np.floating]) -> NDArray[Any]:
    """Predict from arrays; each row by itself, so that results do not depend on which rows are there.

    Parameters
    ----------
    kind
        Kind of the head.
    link
        What turns its output into probabilities.
    arrays
        As of :func:`extract`.
    matrix
        Shape (N, D); ``NaN`` takes the training mean.

    Returns
    -------
    Probabilities (N, K), or numbers (N,) in regression, of several columns (N, P).
    """
    values = np.where(np.isnan(matrix), arrays["fill"], matrix.astype(np.float64))
    scaled = np.ascontiguousarray((values - arrays["mean"]) / arrays["scale"])
    if "components" in arrays:
        scaled = _affine(scaled - arrays["center"], arrays["components"], 0.0)
    if kind == "forest":
        found = _walk(arrays, scaled.astype(np.float32))
    elif kind == "mlp":
        hidden = np.maximum(_affine(scaled, arrays["coef0"], arrays["intercept0"]), 0)
        found = _affine(hidden, arrays["coef1"], arrays["intercept1"]) * arrays["output"][1] + arrays["output"][0]
    else:
        found = _affine(scaled, arrays["coef"], arrays["intercept"])
    shares = _shares(link, found)
    return shares[:, 0] if shares.shape[1] == 1 else shares


def _affine(values: NDArray[Any], coef: NDArray[Any], intercept: NDArray[Any] | float) -> NDArray[np.float64]:
    # BLAS rounds differently for other numbers of rows, einsum does not
    found: NDArray[np.float64] = np.einsum("nd,kd->nk", np.ascontiguousarray(values), coef, optimize=False) + intercept
    return found


def _shares(link: str, found: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.special import expit, softmax

    if link == "softmax":
        return np.asarray(softmax(found, axis=1))
    if link == "sigmoid":
        second = expit(found[:, 0])
        return np.stack([1 - second, second], axis=1)
    if link == "one_versus_rest":
        each = expit(found)
        return np.asarray(each / each.sum(axis=1, keepdims=True))
    return found


def _walk(arrays: Mapping[str, NDArray[Any]], values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Let every sample fall through every tree and average the leaves, trees in their order."""
    total = np.zeros((len(values), arrays["value"].shape[1]))
    samples = np.arange(len(values))
    for root in arrays["root"]:
        node = np.full(len(values), root)
        inside = arrays["left"][node] >= 0
        while inside.any():
            here, rows = node[inside], samples[inside]
            goes_left = values[rows, arrays["feature"][here]] <= arrays["threshold"][here]
            node[inside] = np.where(goes_left, arrays["left"][here], arrays["right"][here])
            inside = arrays["left"][node] >= 0
        total += arrays["value"][node]
    found: NDArray[np.float64] = total / len(arrays["root"])
    return found


def check_arrays(
    kind: str,
    arrays: Mapping[str, NDArray[Any]],
    n_features: int,
    n_classes: int,
    *,
    n_strata: int = 0,
    n_columns: int = 1,
) -> None:
    """Refuse arrays that do not make up such a head of classes or of columns of numbers.

    Raises
    ------
    ValueError
        If an array is absent, superfluous, of another shape or not finite, or a tree leads nowhere.
    """
    rotated = kind != "linear" and "components" in arrays
    needed = {*SCALING, *LAYOUT.get(kind, ()), *(ROTATION if rotated else ()), *(STRATA if n_strata else ())}
    if kind not in LAYOUT or set(arrays) != needed:
        message = f"a head of the kind {kind!r} cannot consist of the arrays {sorted(arrays)}"
        raise ValueError(message)
    outputs = n_classes if n_classes > 2 else n_columns
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(SCALING, (n_features,))
    shapes |= dict.fromkeys(STRATA, (n_strata,)) if n_strata else {}
    if rotated:
        shapes |= {"center": (n_features,), "components": (len(arrays["components"]), n_features)}
        n_features = len(arrays["components"])
    if kind == "linear":
        shapes |= {"coef": (outputs, n_features), "intercept": (outputs,)}
    elif kind == "mlp":
        width = len(arrays["intercept0"])
        shapes |= {"coef0": (width, n_features), "intercept0": (width,)}
        shapes |= {"output": (2,) if n_columns == 1 else (2, n_columns)}
        shapes |= {"coef1": (outputs, width), "intercept1": (outputs,)}
    else:
        nodes = len(arrays["feature"])
        shapes |= dict.fromkeys(("feature", "threshold", "left", "right"), (nodes,))
        shapes |= {"value": (nodes, max(n_classes, n_columns)), "root": (len(arrays["root"]),)}
    for name, shape in shapes.items():
        whole = name in ("feature", "left", "right", "root")
        if arrays[name].shape != shape or arrays[name].dtype != (np.int64 if whole else np.float64):
            message = f"the array {name!r} is {arrays[name].dtype} {arrays[name].shape}; expected the shape {shape}"
            raise ValueError(message)
        if not np.isfinite(arrays[name]).all():
            message = f"the array {name!r} holds values that are NaN or infinite"
            raise ValueError(message)
    if kind == "forest":
        _check_trees(arrays, n_features)


def _check_trees(arrays: Mapping[str, NDArray[Any]], n_features: int) -> None:
    """Children come after their parents, so that every walk ends."""
    nodes = len(arrays["feature"])
    inside = arrays["left"] >= 0
    own = np.flatnonzero(inside)
    fine = [len(arrays["root"]) > 0, (arrays["root"] >= 0).all(), (arrays["root"] < nodes).all()]
    for side in ("left", "right"):
        children = arrays[side][inside]
        fine += [(children > own).all(), (children < nodes).all()]
    features = arrays["feature"][inside]
    if not all([*fine, (features >= 0).all(), (features < n_features).all()]):
        message = "the trees of the forest point outside it or in a circle"
        raise ValueError(message)
