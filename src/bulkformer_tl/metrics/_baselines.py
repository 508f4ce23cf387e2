"""Simple methods that a model has to beat, by name, each fitted on training samples only."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    from bulkformer_tl.metrics._splits import Split

Task = Literal["classification", "regression"]

#: Genes that "hvg" keeps, components that "pca" and "knn" keep, and neighbours of "knn".
N_GENES, N_COMPONENTS, N_NEIGHBORS = 2000, 50, 15

#: Name: (how features are made, what is fitted on them).
RECIPES = {
    "raw": ("all", "linear"),
    "hvg": ("hvg", "linear"),
    "pca": ("pca", "linear"),
    "elastic_net": ("all", "elastic_net"),
    "random_forest": ("all", "random_forest"),
    "knn": ("pca", "knn"),
    "covariates": ("covariates", "linear"),
}
TRIVIAL = {"classification": "majority", "regression": "mean"}
DEFAULT = ("raw", "pca")

#: Values among which inner folds choose, for each head.
GRIDS: dict[str, dict[str, dict[str, list[float]]]] = {
    "classification": {
        "linear": {"head__C": [1e-3, 1e-2, 1e-1, 1.0]},
        "elastic_net": {"head__alpha": [1e-3, 1e-2, 1e-1]},
    },
    "regression": {
        "linear": {"head__alpha": [1.0, 1e2, 1e4]},
        "elastic_net": {"head__alpha": [1e-2, 1e-1, 1.0]},
    },
}


def baseline_names(task: Task) -> tuple[str, ...]:
    """List the baselines of a task.

    Parameters
    ----------
    task
        ``"classification"`` or ``"regression"``.

    Returns
    -------
    ``"majority"`` or ``"mean"``; on expression ``"raw"`` (all genes), ``"hvg"`` (2,000 most variable genes) and
    ``"pca"`` (50 components), each scaled under a logistic or ridge regression, ``"elastic_net"``,
    ``"random_forest"`` and ``"knn"`` (15 neighbours in PCA); and ``"covariates"``, which sees covariates only.

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
    return _pipeline(
        [*_features(features, shape, rng), *_rotation(features, head, shape), _head(head, task, shape, rng)]
    )


def probe(
    head: str = "linear",
    *,
    task: Task,
    shape: tuple[int, int],
    transformer: Any = None,
    rng: int | None = 0,
) -> Any:
    """Build the head that judges an embedding, as an unfitted scikit-learn pipeline.

    Parameters
    ----------
    head
        ``"linear"`` (logistic or ridge regression), ``"elastic_net"``, ``"random_forest"``, ``"knn"`` or ``"mlp"``
        (one hidden layer of 128 with weight decay), on features scaled to unit variance.
    task
        ``"classification"`` or ``"regression"``.
    shape
        Training samples and features.
    transformer
        A scikit-learn transformer that makes the embedding and is fitted first.
    rng
        Seed of what is random.

    Returns
    -------
    An estimator with ``fit`` and ``predict_proba`` or ``predict``.

    Raises
    ------
    ValueError
        If the head or the task is unknown.
    """
    _check_task(task)
    if transformer is None:
        steps = [*_features("all", shape, rng), *_rotation("all", head, shape)]
    else:
        from sklearn.base import clone
        from sklearn.preprocessing import StandardScaler

        steps = [("transformer", clone(transformer)), ("scale", StandardScaler())]
    return _pipeline([*steps, _head(head, task, shape, rng)])


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
        Scikit-learn estimator; a clone of it is fitted.
    values
        Matrix (N, D) or data frame of N rows.
    target
        Class codes from 0, or numbers, shape (N,).
    split
        Which samples are which.
    inner
        Splits of the training samples that choose among ``grid``, as of :func:`inner_folds`.
    grid
        Parameters and their values to choose among, by log loss or squared error.
    n_classes
        Number of classes K; ``None`` in regression.

    Returns
    -------
    Probabilities, shape (number of test samples, K), 0 for classes without a training sample; or numbers, shape
    (number of test samples,).
    """
    from sklearn.base import clone
    from sklearn.model_selection import GridSearchCV

    model = clone(estimator)
    known = np.asarray(target)[split.train]
    if inner and grid:
        within = [(np.searchsorted(split.train, i.train), np.searchsorted(split.train, i.test)) for i in inner]
        scoring = "neg_mean_squared_error" if n_classes is None else _log_likelihood
        model = GridSearchCV(model, grid, cv=within, scoring=scoring)
    model.fit(_rows(values, split.train), known)
    held_out = _rows(values, split.test)
    if n_classes is None:
        return np.asarray(model.predict(held_out), dtype=np.float64).reshape(-1)
    shares = np.zeros((len(split.test), n_classes))
    shares[:, np.asarray(model.classes_, dtype=np.intp)] = model.predict_proba(held_out)
    return shares


def _log_likelihood(model: Any, values: Any, codes: NDArray[np.intp]) -> float:
    """Score probabilities where a test fold may lack classes, which scikit-learn's own scorer refuses."""
    shares = model.predict_proba(values)[np.arange(len(codes)), np.searchsorted(model.classes_, codes)]
    return float(np.log(np.maximum(shares, 1e-15)).mean())


def grid_of(head: str, task: Task) -> dict[str, list[float]]:
    """Return what inner folds choose among for a head; empty if nothing."""
    return GRIDS[task].get(head, {})


def _rows(values: Any, positions: NDArray[np.intp]) -> Any:
    return values.iloc[positions] if hasattr(values, "iloc") else values[positions]


def _check_task(task: str) -> None:
    if task not in TRIVIAL:
        message = f'task is {task!r}; use "classification" or "regression"'
        raise ValueError(message)


def _pipeline(steps: list[tuple[str, Any]]) -> Any:
    from sklearn.pipeline import Pipeline

    return Pipeline(steps)


def _features(kind: str, shape: tuple[int, int], rng: int | None) -> list[tuple[str, Any]]:
    from sklearn.compose import ColumnTransformer, make_column_selector
    from sklearn.decomposition import PCA
    from sklearn.feature_selection import SelectKBest
    from sklearn.impute import SimpleImputer
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    fill, scale = ("fill", SimpleImputer(keep_empty_features=True)), ("scale", StandardScaler())
    if kind == "covariates":
        numbers = _pipeline([fill, scale])
        categories = OneHotEncoder(handle_unknown="ignore")
        parts = [
            ("numbers", numbers, make_column_selector(dtype_include="number")),
            ("categories", categories, make_column_selector(dtype_exclude="number")),
        ]
        return [("columns", ColumnTransformer(parts))]
    solver = "full" if min(shape) <= 500 else "randomized"
    components = PCA(min(N_COMPONENTS, *shape), svd_solver=solver, random_state=rng)
    more = {
        "all": [scale],
        "hvg": [("hvg", SelectKBest(_variance, k=min(N_GENES, shape[1]))), scale],
        "pca": [scale, ("pca", components)],
    }
    return [fill, *more[kind]]


def _rotation(features: str, head: str, shape: tuple[int, int]) -> list[tuple[str, Any]]:
    """Rotate into the space of the samples where genes outnumber them: a ridge penalty cannot tell, and is faster."""
    from sklearn.decomposition import PCA

    if features == "all" and head == "linear" and shape[1] > shape[0]:
        return [("rotate", PCA(svd_solver="full"))]
    return []


def _variance(values: NDArray[np.float64], target: NDArray[Any]) -> NDArray[np.float64]:
    """Score genes by their variance; the target is not looked at."""
    del target
    found: NDArray[np.float64] = values.var(axis=0)
    return found


def _head(head: str, task: Task, shape: tuple[int, int], rng: int | None) -> tuple[str, Any]:
    makers: dict[str, Callable[[Task, int | None], Any]] = {
        "linear": _linear,
        "elastic_net": _elastic_net,
        "random_forest": _random_forest,
        "knn": partial(_knn, n_neighbors=min(N_NEIGHBORS, shape[0])),
        "mlp": _mlp,
    }
    if head not in makers:
        message = f"there is no head {head!r}; choose among {list(makers)}"
        raise ValueError(message)
    return "head", makers[head](task, rng)


def _linear(task: Task, rng: int | None) -> Any:
    from sklearn.linear_model import LogisticRegression, Ridge

    return (
        LogisticRegression(C=0.1, max_iter=2000, random_state=rng) if task == "classification" else Ridge(alpha=100.0)
    )


def _elastic_net(task: Task, rng: int | None) -> Any:
    from sklearn.linear_model import ElasticNet, SGDClassifier

    if task == "classification":
        return SGDClassifier(
            loss="log_loss", penalty="elasticnet", l1_ratio=0.5, alpha=0.01, max_iter=5000, random_state=rng
        )
    return ElasticNet(alpha=0.1, l1_ratio=0.5, max_iter=5000, random_state=rng)


def _random_forest(task: Task, rng: int | None) -> Any:
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    if task == "classification":
        return RandomForestClassifier(n_estimators=300, random_state=rng)
    return RandomForestRegressor(n_estimators=300, max_features=1 / 3, random_state=rng)


def _knn(task: Task, rng: int | None, *, n_neighbors: int) -> Any:
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

    del rng
    return (KNeighborsClassifier if task == "classification" else KNeighborsRegressor)(n_neighbors)


def _mlp(task: Task, rng: int | None) -> Any:
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.preprocessing import StandardScaler

    # cohorts are small: full batches and weight decay, since early stopping would hold a handful of samples out
    options = {"hidden_layer_sizes": (128,), "solver": "lbfgs", "alpha": 1.0, "max_iter": 2000, "random_state": rng}
    if task == "classification":
        return MLPClassifier(**options)
    return TransformedTargetRegressor(MLPRegressor(**options), transformer=StandardScaler())
