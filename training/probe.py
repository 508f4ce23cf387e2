"""How many factor scores a sample vector needs: labels predicted within studies that were left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from mini import Workshop
    from numpy.typing import NDArray

LABELS = ("disease", "treatment", "cancer_type", "tissue", "subtype", "cms", "cell_type", "group")
WIDTHS = (16, 32, 64, 128, 256, 512)
#: Classes smaller than this are dropped; each also is the number of parts of the cross-validation.
LEAST_CLASS, PARTS = 6, 3


def probe(workshop: Workshop, data: Path, folds: Sequence[int]) -> pd.DataFrame:
    """Predict labels from the leading scores by logistic regression, cross-validated within each left-out file.

    Parameters
    ----------
    workshop
        Corpus and stages.
    data
        Folder of the cohorts.
    folds
        Folds to leave out.

    Returns
    -------
    One row per file and label: balanced accuracy with each number of scores, and of always naming one class.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced", max_iter=2000))
    parts = StratifiedKFold(PARTS, shuffle=True, random_state=0)
    rows = []
    for fold in folds:
        factors = workshop.factors(fold)
        for file in np.unique(workshop.files[workshop.folds == fold]):
            samples = workshop.expression[workshop.files == file]
            mean, _ = factors.predict(samples, ~np.isnan(samples[0]))
            scores = (mean - factors.mean) @ factors.loadings
            for name, labels, chosen in _labels(data / file):
                row: dict[str, object] = {"file": file, "label": name, "majority": 1 / len(np.unique(labels))}
                for width in WIDTHS:
                    guess = cross_val_predict(model, scores[chosen, :width], labels, cv=parts)
                    row[str(width)] = np.mean([(guess == label)[labels == label].mean() for label in np.unique(labels)])
                rows.append(row)
    return pd.DataFrame(rows)


def _labels(path: Path) -> Iterator[tuple[str, NDArray[np.str_], NDArray[np.bool_]]]:
    """Yield the labels of a file that have two or more classes of sufficient size, and which samples have them."""
    obs = ad.read_h5ad(path, backed="r").obs
    for name in LABELS:
        if name in obs:
            labels = obs[name].astype(str).to_numpy(dtype=str)
            known = ~np.isin(labels, ["", "nan", "none given"])
            classes, counts = np.unique(labels[known], return_counts=True)
            chosen = np.isin(labels, classes[counts >= LEAST_CLASS])
            if (counts >= LEAST_CLASS).sum() >= 2:
                yield name, labels[chosen], chosen
