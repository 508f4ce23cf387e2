"""How classes were predicted: which are mixed up, at which threshold, and how sure the head was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from bulkformer_tl import metrics
from bulkformer_tl._anndata import check_anndata, get_params
from bulkformer_tl._keys import ClassifyKeys
from bulkformer_tl.pl._palette import OKABE_ITO, new_axes, palette

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

#: Up to this many classes, cells are labelled with their counts.
FEW = 12
KINDS = ("roc", "precision_recall")


@dataclass(frozen=True, eq=False)
class Predicted:
    """Samples whose class is known and predicted.

    Parameters
    ----------
    label
        Column of ``obs`` with the classes.
    classes
        Their names, K of them.
    truth
        Codes of the true classes, shape (N,).
    chosen
        Codes of the predicted ones, -1 where the head abstained, shape (N,).
    shares
        Probabilities, shape (N, K).
    """

    label: str
    classes: list[str]
    truth: NDArray[np.intp]
    chosen: NDArray[np.intp]
    shares: NDArray[np.float64]


def confusion(adata: AnnData, key: str, *, cmap: str = "Blues", ax: Axes | None = None) -> Axes:
    """Count how often each class was taken for each other one.

    Parameters
    ----------
    adata
        Annotated samples after :func:`bulkformer_tl.tl.classify`.
    key
        Name of the result, such as ``"classify_disease"``.
    cmap
        Colour map of the share of a true class.
    ax
        Axes to draw on. ``None`` makes a new figure.

    Returns
    -------
    The axes: true classes in rows, predicted ones in columns, coloured by their share of the row; counts in the cells
    for up to twelve classes. Where the head abstained there is a last column.

    Raises
    ------
    KeyError
        If there is no such result.
    ValueError
        If no predicted sample has a known class.
    """
    found = _read(adata, key)
    k = len(found.classes)
    counts = np.zeros((k, k + 1), dtype=int)
    np.add.at(counts, (found.truth, found.chosen), 1)  # -1, abstained, is the last column
    columns = [*found.classes, "no answer"]
    if not counts[:, -1].any():
        counts, columns = counts[:, :-1], columns[:-1]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes = new_axes(ax, (2.6 + 0.42 * len(columns), 2.2 + 0.38 * k))
    image = axes.imshow(shares, cmap=cmap, vmin=0, vmax=1, aspect="auto")
    axes.figure.colorbar(image, ax=axes, label="share of the true class")
    if k <= FEW:
        for row, column in np.ndindex(counts.shape):
            dark = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, f"{counts[row, column]}", ha="center", va="center", color=dark, fontsize="small")
    axes.set(
        xticks=range(len(columns)),
        yticks=range(k),
        yticklabels=found.classes,
        xlabel=f"predicted {found.label}",
        ylabel=f"true {found.label}",
    )
    axes.set_xticklabels(columns, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_title(f"{get_params(adata, key)['representation']}, {len(found.truth):,} samples", fontsize="medium")
    return axes


def roc(
    adata: AnnData,
    key: str,
    *,
    kind: Literal["roc", "precision_recall"] = "roc",
    ax: Axes | None = None,
) -> Axes:
    """Draw what each threshold on the probability of a class finds, and what it takes for it by mistake.

    Parameters
    ----------
    adata
        Annotated samples after :func:`bulkformer_tl.tl.classify`.
    key
        Name of the result.
    kind
        ``"roc"``, or ``"precision_recall"`` for classes that are rare.
    ax
        Axes to draw on. ``None`` makes a new figure.

    Returns
    -------
    The axes: a curve for each class against the rest (of two classes, for the second), with the area below it over all
    samples pooled, which differs from a mean over folds; dashed, what chance does.

    Raises
    ------
    KeyError
        If there is no such result.
    ValueError
        If the kind is unknown, or no predicted sample has a known class.
    """
    if kind not in KINDS:
        message = f"kind is {kind!r}; choose among {list(KINDS)}"
        raise ValueError(message)
    found = _read(adata, key)
    colours = palette(adata, found.label)
    shown = [1] if len(found.classes) == 2 else [k for k in range(len(found.classes)) if (found.truth == k).any()]
    axes = new_axes(ax, (6.4 if len(shown) > 1 else 4.4, 4.0))
    for k in shown:
        positive, score = found.truth == k, found.shares[:, k]
        x, y, area = _curve(positive, score, kind)
        name = found.classes[k]
        step = "steps-post" if kind == "precision_recall" else "default"
        axes.plot(x, y, color=colours.get(name, OKABE_ITO[0]), label=f"{name} ({area:.2f})", drawstyle=step)
        if kind == "precision_recall":
            axes.axhline(positive.mean(), color=colours.get(name, OKABE_ITO[0]), linestyle="--", linewidth=0.7)
    if kind == "roc":
        axes.plot([0, 1], [0, 1], color="#7f7f7f", linestyle="--", linewidth=0.8)
    labels = {
        "roc": ("false positive rate", "true positive rate", "AUROC"),
        "precision_recall": ("recall", "precision", "AUPRC"),
    }[kind]
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=labels[0], ylabel=labels[1])
    title = f"{found.label} ({labels[2]}, pooled)"
    if len(shown) > 1:
        axes.legend(title=title, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize="small")
    else:
        axes.legend(title=title, loc="lower right" if kind == "roc" else "lower left", frameon=False)
    axes.set_title(f"{get_params(adata, key)['representation']}, {len(found.truth):,} samples", fontsize="medium")
    return axes


def calibration(adata: AnnData, key: str, *, n_bins: int = 10, ax: Axes | None = None) -> Axes:
    """Compare how sure the head was with how often it was right.

    Parameters
    ----------
    adata
        Annotated samples after :func:`bulkformer_tl.tl.classify`.
    key
        Name of the result.
    n_bins
        Number of bins of the largest probability.
    ax
        Axes to draw on. ``None`` makes a new figure.

    Returns
    -------
    The axes: a point for each bin, labelled with its number of samples, between 95 % Wilson intervals; dashed, where
    points lie if probabilities mean what they say. The title states the expected calibration error.

    Raises
    ------
    KeyError
        If there is no such result.
    ValueError
        If no predicted sample has a known class.
    """
    found = _read(adata, key)
    classes = np.arange(len(found.classes))
    bins = metrics.reliability(found.truth, found.shares, classes=classes, n_bins=n_bins)
    bins = bins[bins["n"] > 0]
    error = metrics.calibration_error(found.truth, found.shares, classes=classes, n_bins=n_bins)
    low, high = _wilson(bins["accuracy"].to_numpy(), bins["n"].to_numpy())
    axes = new_axes(ax, (4.4, 4.2))
    axes.plot([0, 1], [0, 1], color="#7f7f7f", linestyle="--", linewidth=0.8)
    axes.vlines(bins["confidence"], low, high, color=OKABE_ITO[0], linewidth=1.5)
    axes.plot(bins["confidence"], bins["accuracy"], "o-", color=OKABE_ITO[0], markersize=6)
    for row, bottom in zip(bins.to_dict("records"), low, strict=True):
        where = (row["confidence"], bottom)
        axes.annotate(f"{int(row['n'])}", where, (0, -6), textcoords="offset points", ha="center", va="top", fontsize=7)
    axes.set(
        xlim=(0, 1.03),
        ylim=(-0.06, 1.03),
        xlabel="largest probability",
        ylabel="share that is right",
    )
    name = get_params(adata, key)["representation"]
    axes.set_title(f"{name}, {len(found.truth):,} samples\ncalibration error {error:.3f} (pooled)", fontsize="medium")
    return axes


def _curve(positive: NDArray[np.bool_], score: NDArray[np.float64], kind: str) -> tuple[Any, Any, float]:
    from sklearn.metrics import precision_recall_curve, roc_curve

    if kind == "roc":
        x, y, _ = roc_curve(positive, score)
        return x, y, metrics.auroc(positive, score)
    precision, recall, _ = precision_recall_curve(positive, score)
    return recall, precision, metrics.auprc(positive, score)


def _wilson(share: NDArray[np.float64], n: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return 95 % intervals of shares of n samples (Wilson 1927)."""
    z = 1.959964
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return centre - half, centre + half


def _read(adata: AnnData, key: str) -> Predicted:
    check_anndata(adata, or_mudata=True)
    params = get_params(adata, key)
    if params.get("task") != "classification":
        message = f"adata.uns[{key!r}] is no result of bf.tl.classify; call it first, or pass its key"
        raise KeyError(message)
    label = str(params["label"])
    keys = ClassifyKeys.of(label, None if key == f"classify_{label}" else key)
    classes = np.asarray(adata.uns[key]["classes"])
    given: Any = adata.obs[label] if label in adata.obs else pd.Series([None] * adata.n_obs)
    truth = pd.Index(classes).get_indexer(pd.Index(given.astype(object)))
    chosen = pd.Index(classes).get_indexer(pd.Index(adata.obs[keys.prediction.split("/")[1]].astype(object)))
    known = truth >= 0
    if not known.any():
        message = f"adata.obs[{label!r}] names the class of no sample, so that there is nothing to compare with"
        raise ValueError(message)
    shares = np.asarray(adata.obsm[keys.probabilities.split("/")[1]])
    names = [str(name) for name in classes]
    return Predicted(label, names, truth[known], chosen[known], shares[known])
