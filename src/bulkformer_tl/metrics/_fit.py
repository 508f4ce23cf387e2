"""Fit on the training samples of a split, with inner folds that choose the penalty, and predict the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from bulkformer_tl.metrics._splits import Split


def fit_predict(
    estimator: Any,
    values: Any,
    target: ArrayLike,
    split: Split,
    *,
    inner: list[Split] | None = None,
    grid: dict[str, list[Any]] | None = None,
    n_classes: int | None = None,
) -> NDArray[np.float64]:
    """Fit on the training samples of a split and predict its test samples.

    Parameters
    ----------
    estimator
        Scikit-learn estimator, a pipeline where ``grid`` is given; a clone of it is fitted.
    values
        Matrix (N, D) or data frame of N rows.
    target
        Class codes from 0, or numbers, shape (N,).
    split
        Which samples are which.
    inner
        Splits of the training samples that choose among ``grid``, as of :func:`inner_folds`.
    grid
        Parameters of the pipeline's last step and their values to choose among, by log loss or squared error.
    n_classes
        Number of classes K; ``None`` in regression.

    Returns
    -------
    Probabilities, shape (number of test samples, K), 0 for classes without a training sample; or numbers, shape
    (number of test samples,).
    """
    from sklearn.base import clone

    model = clone(estimator)
    known = np.asarray(target)
    if inner and grid:
        model[-1].set_params(**_choose(model, values, known, inner, grid))
    model.fit(_rows(values, split.train), known[split.train])
    held_out = _rows(values, split.test)
    if n_classes is None:
        return np.asarray(model.predict(held_out), dtype=np.float64).reshape(-1)
    shares = np.zeros((len(split.test), n_classes))
    shares[:, np.asarray(model.classes_, dtype=np.intp)] = model.predict_proba(held_out)
    return shares


def _choose(
    model: Any, values: Any, target: NDArray[Any], inner: list[Split], grid: dict[str, list[Any]]
) -> dict[str, Any]:
    """Return the parameters of the last step that lose least over inner folds; features are made once per fold."""
    from sklearn.base import clone
    from sklearn.model_selection import ParameterGrid

    candidates = list(ParameterGrid(grid))
    losses = np.zeros(len(candidates))
    for train, test, _ in inner:
        features = clone(model[:-1])
        seen = features.fit_transform(_rows(values, train), target[train])
        held_out = features.transform(_rows(values, test))
        for k, candidate in enumerate(candidates):
            head = clone(model[-1]).set_params(**candidate).fit(seen, target[train])
            losses[k] += _loss(head, held_out, target[test])
    chosen: dict[str, Any] = candidates[int(losses.argmin())]
    return chosen


def _loss(head: Any, features: Any, target: NDArray[Any]) -> float:
    """Sum squared errors, or log losses where a fold may lack classes, or what the head itself says it loses."""
    if hasattr(head, "loss") and callable(head.loss):
        return float(head.loss(features, target))
    if not hasattr(head, "predict_proba"):
        return float(((head.predict(features) - target) ** 2).sum())
    shares = head.predict_proba(features)[np.arange(len(target)), np.searchsorted(head.classes_, target)]
    return float(-np.log(np.maximum(shares, 1e-15)).sum())


def _rows(values: Any, positions: NDArray[np.intp]) -> Any:
    return values.iloc[positions] if hasattr(values, "iloc") else values[positions]
