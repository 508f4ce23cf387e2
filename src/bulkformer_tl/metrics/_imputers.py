"""Simple methods of imputation that a model has to beat, each fitted on training samples only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Values = NDArray[np.float64]
    #: Predicts every entry of (n, G) from the entries that are not ``NaN``.
    Imputer = Callable[[Values], Values]

#: Neighbours of "knn" and components of "pca" and "factor_analysis".
N_NEIGHBORS, N_COMPONENTS = 10, 50


def imputer_names() -> tuple[str, ...]:
    """List the methods.

    Returns
    -------
    ``"gene_mean"``, ``"knn"``, ``"pca"`` and ``"factor_analysis"``.
    """
    return tuple(_FITS)


def fit_imputer(name: str, train: NDArray[np.float64]) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Fit a simple method of imputation.

    Parameters
    ----------
    name
        Out of :func:`imputer_names`. ``"gene_mean"``: the gene's mean. ``"knn"``: the mean of the 10 samples that are
        nearest in the genes that both measure (root mean squared difference). ``"pca"``: up to 50 principal
        components (at most half as many as samples), scores by least squares on the visible genes.
        ``"factor_analysis"``: up to 50 factors with a noise variance for each gene; scores are posterior means given
        the visible genes.
    train
        ln(TPM+1) of the training samples, (N, G), ``NaN`` where missing.

    Returns
    -------
    A function from values (n, G) with ``NaN`` to predictions (n, G) without, except for genes without any training
    value.

    Raises
    ------
    ValueError
        If the name is unknown, or there are fewer than 2 training samples.
    """
    if name not in _FITS:
        message = f"there is no imputation method {name!r}; choose among {list(_FITS)}"
        raise ValueError(message)
    if len(train) < 2:
        message = f"{name!r} needs at least 2 training samples, found {len(train)}"
        raise ValueError(message)
    return _FITS[name](np.asarray(train, dtype=np.float64))


def _gene_means(train: Values) -> Values:
    measured = ~np.isnan(train)
    counts = measured.sum(axis=0)
    sums = np.where(measured, train, 0.0).sum(axis=0)
    means: Values = np.divide(sums, counts, out=np.full(train.shape[1], np.nan), where=counts > 0)
    return means


def _fit_mean(train: Values) -> Imputer:
    means = _gene_means(train)
    return lambda values: np.tile(means, (len(values), 1))


def _fit_knn(train: Values) -> Imputer:
    means = _gene_means(train)

    def impute(values: Values) -> Values:
        from sklearn.metrics.pairwise import nan_euclidean_distances

        distances = np.nan_to_num(nan_euclidean_distances(values, train), nan=np.inf)
        nearest = np.argsort(distances, axis=1, kind="stable")[:, :N_NEIGHBORS]
        predicted = np.stack([_gene_means(train[rows]) for rows in nearest])
        return np.where(np.isnan(predicted), means, predicted)

    return impute


def _axes(train: Values) -> tuple[Values, Values, Values, Values]:
    """Return gene means, and left vectors, singular values and right vectors of the centred samples.

    Missing values count as the gene's mean.
    """
    means = _gene_means(train)
    return means, *np.linalg.svd(np.nan_to_num(train - means), full_matrices=False)


def _half_rank(n: int) -> int:
    # with all N - 1 directions a small cohort would be fitted without any error
    return max(1, min(N_COMPONENTS, n // 2))


def _fit_pca(train: Values) -> Imputer:
    means, _, singular, right = _axes(train)
    k = _half_rank(len(train))
    loadings = right[:k].T * (singular[:k] / np.sqrt(len(train)))
    return lambda values: _project(values, means, loadings, np.ones(len(means)), prior=1e-6)


def fit_factors(train: Values) -> tuple[Values, Values, Values]:
    """Fit x = mean + loadings z + noise, with z ~ N(0, I) and independent noise of each gene.

    Parameters
    ----------
    train
        Shape (N, G), ``NaN`` where missing.

    Returns
    -------
    Gene means, (G,), ``NaN`` where a gene was never measured; loadings of up to 50 of the N - 1 directions, (G, K); and
    the variance of each gene that half as many directions leave over, (G,).
    """
    n, measured = len(train), ~np.isnan(train)
    means, left, singular, right = _axes(train)
    half, k = _half_rank(n), max(1, min(N_COMPONENTS, n - 1))
    residual = np.where(measured, np.nan_to_num(train - means) - (left[:, :half] * singular[:half]) @ right[:half], 0)
    noise = (residual**2).sum(axis=0) / np.maximum(measured.sum(axis=0) * (1 - half / n), 1)
    return means, right[:k].T * (singular[:k] / np.sqrt(n)), noise


def predict_by_factors(values: Values, means: Values, loadings: Values, noise: Values) -> Values:
    """Predict all genes by the posterior mean of a factor model.

    A gene's noise is averaged with that of all, because that of a few samples is uncertain and would let single genes
    decide.

    Parameters
    ----------
    values
        Shape (n, G), ``NaN`` where missing.
    means, loadings, noise
        Of :func:`fit_factors`.

    Returns
    -------
    Predictions, (n, G), ``NaN`` for genes without a mean.
    """
    known = ~np.isnan(means)
    common = noise[known].mean() if known.any() else 0.0
    return _project(values, means, loadings, noise + common + 1e-12, prior=1.0)


def _fit_factors(train: Values) -> Imputer:
    means, loadings, noise = fit_factors(train)
    return lambda values: predict_by_factors(values, means, loadings, noise)


def _project(values: Values, means: Values, loadings: Values, noise: Values, *, prior: float) -> Values:
    """Predict all genes from the scores that explain the visible ones.

    The scores of a sample solve (W'N^-1 W + prior I) z = W'N^-1 (x - mean) over its visible genes.
    """
    predicted = np.empty_like(values, dtype=np.float64)
    for row, sample in enumerate(values):
        seen = ~np.isnan(sample) & ~np.isnan(means)
        weighted = loadings[seen] / noise[seen, None]
        precision = loadings[seen].T @ weighted + prior * np.eye(loadings.shape[1])
        scores = np.linalg.solve(precision, weighted.T @ (sample[seen] - means[seen]))
        predicted[row] = means + loadings @ scores
    return predicted


_FITS: dict[str, Callable[[Values], Imputer]] = {
    "gene_mean": _fit_mean,
    "knn": _fit_knn,
    "pca": _fit_pca,
    "factor_analysis": _fit_factors,
}
