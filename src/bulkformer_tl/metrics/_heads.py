"""What pipelines are made of: steps that make features, and heads that are fitted on them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from numpy.typing import NDArray

Task = Literal["classification", "regression"]

#: Genes that "hvg" keeps, components that "pca" and "knn" keep, and neighbours of "knn".
N_GENES, N_COMPONENTS, N_NEIGHBORS = 2000, 50, 15

#: Values among which inner folds choose, for each head.
GRIDS: dict[str, dict[str, dict[str, list[float]]]] = {
    "classification": {
        "linear": {"C": [1e-3, 1e-2, 1e-1, 1.0]},
        "elastic_net": {"alpha": [1e-3, 1e-2, 1e-1]},
    },
    "regression": {
        "linear": {"alpha": [1.0, 1e2, 1e4]},
        "elastic_net": {"alpha": [1e-2, 1e-1, 1.0]},
    },
}


def grid_of(head: str, task: Task) -> dict[str, list[float]]:
    """Return what inner folds choose among for a head; empty if nothing."""
    return GRIDS[task].get(head, {})


def pipeline(steps: list[tuple[str, Any]]) -> Any:
    from sklearn.pipeline import Pipeline

    return Pipeline(steps)


def feature_steps(kind: str, shape: tuple[int, int], rng: int | None) -> list[tuple[str, Any]]:
    from sklearn.compose import ColumnTransformer, make_column_selector
    from sklearn.feature_selection import SelectKBest
    from sklearn.impute import SimpleImputer
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    fill, scale = ("fill", SimpleImputer(keep_empty_features=True)), ("scale", StandardScaler())
    if kind == "covariates":
        numbers = pipeline([fill, scale])
        categories = OneHotEncoder(handle_unknown="ignore")
        parts = [
            ("numbers", numbers, make_column_selector(dtype_include="number")),
            ("categories", categories, make_column_selector(dtype_exclude="number")),
        ]
        return [("columns", ColumnTransformer(parts))]
    more = {
        "all": [scale],
        "hvg": [("hvg", SelectKBest(_variance, k=min(N_GENES, shape[1]))), scale],
        "pca": [scale, ("pca", components(N_COMPONENTS, shape, rng))],
    }
    return [fill, *more[kind]]


def components(n: int, shape: tuple[int, int], rng: int | None) -> Any:
    """Return an analysis by principal components, by no more than the shape allows."""
    from sklearn.decomposition import PCA

    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        message = f"n_components is {n!r}; use a whole number of principal components, such as 50"
        raise ValueError(message)
    solver = "full" if min(shape) <= 500 else "randomized"
    return PCA(min(n, *shape), svd_solver=solver, random_state=rng)


def rotation(features: str, head: str, shape: tuple[int, int]) -> list[tuple[str, Any]]:
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


def head_step(head: str, task: Task, shape: tuple[int, int], rng: int | None) -> tuple[str, Any]:
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


def set_options(head: Any, name: str, options: Mapping[str, Any]) -> Any:
    """Set parameters of a head, or say which it has."""
    inner = getattr(head, "regressor", head)
    unknown = [option for option in options if option not in inner.get_params()]
    if unknown:
        known = ["n_components", *sorted(inner.get_params())]
        message = f"the head {name!r} has no option {unknown[0]!r}; its options are {known}"
        raise ValueError(message)
    inner.set_params(**options)
    return head


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
