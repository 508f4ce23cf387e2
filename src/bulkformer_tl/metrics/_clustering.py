"""Scores of how well an embedding separates labels and mixes batches."""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from bulkformer_tl.metrics._check import as_labels, refuse_missing, refuse_one_class, to_float

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def nmi(labels: ArrayLike, clusters: ArrayLike) -> float:
    """Normalised mutual information, divided by the arithmetic mean of both entropies.

    Parameters
    ----------
    labels
        Shape (N,).
    clusters
        Shape (N,).

    Returns
    -------
    Between 0 and 1.

    Raises
    ------
    ValueError
        If labels are missing or lengths differ.
    """
    from sklearn.metrics import normalized_mutual_info_score

    return float(normalized_mutual_info_score(*_code_both(labels, clusters)))


def ari(labels: ArrayLike, clusters: ArrayLike) -> float:
    """Rand index adjusted for chance (Hubert and Arabie 1985).

    Parameters
    ----------
    labels
        Shape (N,).
    clusters
        Shape (N,).

    Returns
    -------
    1 for equal partitions, 0 on average for random ones; can be negative.

    Raises
    ------
    ValueError
        If labels are missing or lengths differ.
    """
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(*_code_both(labels, clusters)))


def asw(embedding: ArrayLike, labels: ArrayLike) -> float:
    """Average silhouette width in Euclidean distance, moved to 0 to 1 as (width + 1) / 2.

    Parameters
    ----------
    embedding
        Shape (N, D).
    labels
        Shape (N,).

    Returns
    -------
    Between 0 and 1; 0.5 is no separation.

    Raises
    ------
    ValueError
        If there is one label only or one per sample, or values are missing.
    """
    from sklearn.metrics import silhouette_score

    points, codes = _points(embedding, labels)
    if codes.max() + 1 == len(codes):
        message = f"all {len(codes)} labels are different; silhouettes need labels with several samples"
        raise ValueError(message)
    return float((silhouette_score(points, codes) + 1) / 2)


def avg_bio(
    embedding: ArrayLike, labels: ArrayLike, *, clusters: ArrayLike | None = None, rng: int | None = 0
) -> float:
    """Mean of NMI, ARI and ASW, the AvgBIO of scGPT (Cui et al. 2024, doi:10.1038/s41592-024-02201-0).

    Parameters
    ----------
    embedding
        Shape (N, D).
    labels
        Shape (N,).
    clusters
        Clusters found in the embedding, shape (N,); ``None`` takes k-means with as many clusters as labels. scGPT
        searches the Louvain resolution with the best NMI instead, which is higher and looks at the labels.
    rng
        Seed of k-means.

    Returns
    -------
    Between 0 and 1, but for a negative ARI.

    Raises
    ------
    ValueError
        As :func:`nmi` and :func:`asw`.
    """
    points, codes = _points(embedding, labels)
    width = asw(points, codes)
    if clusters is None:
        from sklearn.cluster import KMeans

        clusters = KMeans(int(codes.max()) + 1, n_init=10, random_state=rng).fit_predict(points)
    return (nmi(codes, clusters) + ari(codes, clusters) + width) / 3


def batch_mixing(
    embedding: ArrayLike, labels: ArrayLike, batches: ArrayLike, *, n_neighbors: int = 90
) -> dict[str, float]:
    """How well batches mix within labels, by scib-metrics (extra ``metrics``).

    Values are those of scib-metrics; they differ from those of the older scib package, which the field's first
    benchmarks used, and must not be compared with them.

    Parameters
    ----------
    embedding
        Shape (N, D).
    labels
        Shape (N,).
    batches
        Shape (N,).
    n_neighbors
        Neighbours of each sample; at most N - 1 are taken.

    Returns
    -------
    ``silhouette_batch``, ``ilisi``, ``kbet`` (acceptance over all samples) and ``graph_connectivity`` (of labels, which
    mixing must not cost), each between 0 and 1, larger is better.

    Raises
    ------
    ImportError
        If scib-metrics is not installed.
    ValueError
        If there is one label or one batch only, or values are missing.
    """
    points, codes = _points(embedding, labels)
    origin, names = as_labels(batches, "batches", n=len(codes))
    refuse_one_class(names, "batches")
    scib = _scib()
    with warnings.catch_warnings():
        # what its dependencies deprecate among themselves is not for our callers
        warnings.simplefilter("ignore")
        neighbours = _neighbours(points, min(n_neighbors, len(points) - 1))
        return {
            "silhouette_batch": float(scib.silhouette_batch(points, codes, origin)),
            "ilisi": float(scib.ilisi_knn(neighbours, origin)),
            "kbet": float(scib.kbet(neighbours, origin)[0]),
            "graph_connectivity": float(scib.graph_connectivity(neighbours, codes)),
        }


def _scib() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module("scib_metrics")
        except ImportError as error:
            message = 'batch mixing needs scib-metrics: pip install "bulkformer-tl[metrics]"'
            raise ImportError(message) from error


def _neighbours(points: NDArray[np.float64], n_neighbors: int) -> Any:
    from sklearn.neighbors import NearestNeighbors

    results = importlib.import_module("scib_metrics.nearest_neighbors").NeighborsResults
    distances, indices = NearestNeighbors(n_neighbors=n_neighbors).fit(points).kneighbors(points)
    return results(indices=indices, distances=distances)


def _code_both(labels: ArrayLike, clusters: ArrayLike) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    codes = as_labels(labels, "labels")[0]
    return codes, as_labels(clusters, "clusters", n=len(codes))[0]


def _points(embedding: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    points = to_float(embedding, "embedding")
    if points.ndim != 2:
        message = f"embedding must be samples by dimensions and has the shape {points.shape}"
        raise ValueError(message)
    refuse_missing(np.isnan(points).any(axis=1), "embedding")
    codes, names = as_labels(labels, "labels", n=len(points))
    refuse_one_class(names, "labels")
    return points, codes
