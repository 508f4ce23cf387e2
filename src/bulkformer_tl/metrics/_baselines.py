"""Simple methods that a model has to beat, by name, each fitted on training samples only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bulkformer_tl.metrics._heads import Task, components, feature_steps, head_step, pipeline, rotation, set_options
from bulkformer_tl.metrics._scale import one_scale

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bulkformer_tl.metrics._scale import Scale

#: Name: (how features are made, what is fitted on them).
RECIPES = {
    "raw": ("all", "linear"),
    "hvg": ("hvg", "linear"),
    "pca": ("pca", "linear"),
    "elastic_net": ("hvg", "elastic_net"),
    "random_forest": ("all", "random_forest"),
    "knn": ("pca", "knn"),
    "covariates": ("covariates", "linear"),
}
TRIVIAL = {"classification": "majority", "regression": "mean"}
DEFAULT = ("raw", "pca")


def baseline_names(task: Task) -> tuple[str, ...]:
    """List the baselines of a task.

    Parameters
    ----------
    task
        ``"classification"`` or ``"regression"``.

    Returns
    -------
    ``"majority"`` or ``"mean"``; on expression ``"raw"`` (all genes), ``"hvg"`` (2,000 most variable genes) and
    ``"pca"`` (50 components), each scaled under a logistic or ridge regression, ``"elastic_net"`` (on the
    genes of ``"hvg"``), ``"random_forest"`` and ``"knn"`` (15 neighbours in PCA); and ``"covariates"``, which sees
    covariates only.

    Raises
    ------
    ValueError
        If the task is unknown.
    """
    _check_task(task)
    return (TRIVIAL[task], *RECIPES)


def baseline(name: str, *, task: Task, shape: tuple[int, int], rng: int | None = 0) -> Any:
    """Build a baseline as an unfitted scikit-learn pipeline.

    Missing values take the training mean of their gene, genes and components are chosen on training samples.

    Parameters
    ----------
    name
        Out of :func:`baseline_names`.
    task
        ``"classification"`` or ``"regression"``.
    shape
        Training samples and features; there are no more components or neighbours than these allow.
    rng
        Seed of what is random.

    Returns
    -------
    An estimator with ``fit`` and ``predict_proba`` or ``predict``; ``"covariates"`` takes a data frame, the others a
    matrix (N, G).

    Raises
    ------
    ValueError
        If the name or the task is unknown.
    """
    names = baseline_names(task)
    if name not in names:
        message = f"there is no baseline {name!r} for {task}; choose among {list(names)}"
        raise ValueError(message)
    if name == TRIVIAL[task]:
        from sklearn.dummy import DummyClassifier, DummyRegressor

        return DummyClassifier(strategy="prior") if task == "classification" else DummyRegressor()
    features, head = RECIPES[name]
    return pipeline(
        [*feature_steps(features, shape, rng), *rotation(features, head, shape), head_step(head, task, shape, rng)]
    )


def probe(
    head: str = "linear",
    *,
    task: Task,
    shape: tuple[int, int],
    transformer: Any = None,
    scale: Scale = "common",
    rng: int | None = 0,
    options: Mapping[str, Any] | None = None,
) -> Any:
    """Build the head that judges an embedding, as an unfitted scikit-learn pipeline.

    Parameters
    ----------
    head
        ``"linear"`` (logistic or ridge regression), ``"elastic_net"``, ``"random_forest"``, ``"knn"`` or ``"mlp"``
        (one hidden layer of 128 with weight decay).
    task
        ``"classification"`` or ``"regression"``.
    shape
        Training samples and features.
    transformer
        A scikit-learn transformer that makes the embedding and is fitted first.
    scale
        ``"common"`` divides all columns by one number, so that an embedding keeps its proportions; ``"each"`` scales
        every column to unit variance, as befits genes. Several representations side by side: how many columns of each
        and how to scale them, ``((64, "common"), (30, "each"))``; then all get the same total variance.
    rng
        Seed of what is random.
    options
        ``n_components`` puts an analysis by that many principal components before the head (as many as the shape
        allows); whatever else is a parameter of scikit-learn's estimator, such as ``{"n_estimators": 500}``.

    Returns
    -------
    An estimator with ``fit`` and ``predict_proba`` or ``predict``.

    Raises
    ------
    ValueError
        If the head, the task, the scale or an option is unknown.
    """
    _check_task(task)
    _check_scale(scale, shape[1])
    options = dict(options or {})
    n_components = options.pop("n_components", None)
    if transformer is None:
        steps = feature_steps("all", shape, rng)
        steps += rotation("all", head, shape) if n_components is None else []
    else:
        from sklearn.base import clone
        from sklearn.preprocessing import StandardScaler

        steps = [("transformer", clone(transformer)), ("scale", StandardScaler())]
    if n_components is not None:
        steps = [*steps, ("pca", components(n_components, shape, rng))]
    name, estimator = head_step(head, task, shape, rng)
    made = pipeline([*steps, (name, set_options(estimator, head, options))])
    if scale == "each":
        return made
    return made.set_params(scale=one_scale()(() if scale == "common" else scale))


def _check_scale(scale: Scale, n_columns: int) -> None:
    if isinstance(scale, str) and scale not in ("common", "each"):
        message = f'scale is {scale!r}; use "common" or "each", or how many columns each block has'
        raise ValueError(message)
    if not isinstance(scale, str) and sum(width for width, _ in scale) != n_columns:
        message = f"scale has blocks of {[width for width, _ in scale]} columns and there are {n_columns}"
        raise ValueError(message)


def _check_task(task: str) -> None:
    if task not in TRIVIAL:
        message = f'task is {task!r}; use "classification" or "regression"'
        raise ValueError(message)
