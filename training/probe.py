"""What sample vectors know of studies that were left out: labels within and across studies, and how studies mix."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
import yaml
from scores import LEVEL, N_BOOTSTRAP, markdown

from bulkformer_tl import metrics
from bulkformer_tl.metrics._tables import interval

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from evaluation import Workshop
    from numpy.typing import NDArray

    Floats = NDArray[np.floating]

logger = logging.getLogger("mini")

LABELS = ("disease", "treatment", "cancer_type", "tissue", "subtype", "cms", "cell_type", "group")
UNKNOWN = ("", "nan", "none given")
WIDTHS = (16, 32, 64, 128, 256)
PER_FILE = 100
#: Within a study, classes smaller than this are dropped; parts of the cross-validation, and people that make groups.
LEAST_CLASS, PARTS, LEAST_PEOPLE = 6, 3, 12
SPLITS = Path(__file__).with_name("splits.yaml")


@dataclass(frozen=True)
class Study:
    """Samples of one file with one of its labels.

    Parameters
    ----------
    file
        Name of the file.
    rows
        Those of the fold's samples that have the label, (n,).
    labels
        In lower case, (n,).
    people
        Whom each sample comes from, (n,).
    """

    file: str
    rows: NDArray[np.int64]
    labels: NDArray[np.str_]
    people: NDArray[np.object_]

    def of(self, classes: Sequence[str] | set[str]) -> Study:
        """Return the samples of some classes."""
        chosen = np.isin(self.labels, list(classes))
        return Study(self.file, self.rows[chosen], self.labels[chosen], self.people[chosen])


def probe(workshop: Workshop, data: Path, folds: Sequence[int]) -> pd.DataFrame:
    """Judge sample vectors on left-out studies beside principal components of the training samples.

    Components have the same widths; missing genes take the training mean. Labels are predicted by logistic regression
    from at most 100 samples of each file. ``"within"``: cross-validated within a file, in three parts that keep a
    person's samples together if there are 12 people or more. ``"across"``: fitted on the other files of the fold that
    share two classes or more, and applied to this one. ``"mixing"``: the scores of
    :func:`bulkformer_tl.metrics.batch_mixing` for the files of a fold that share classes.

    Parameters
    ----------
    workshop
        Corpus and networks.
    data
        Folder of the cohorts.
    folds
        Folds to leave out.

    Returns
    -------
    One row per kind, file, label, score and width: ``mini``, ``PCA``, and ``chance`` where the score has one.
    """
    people = {entry["file"]: entry["people"] for entry in yaml.safe_load(SPLITS.read_text(encoding="utf-8"))}
    rows: list[dict[str, object]] = []
    for fold in folds:
        samples = _samples(workshop, fold)
        studies = {label: list(_studies(workshop, data, samples, label, people)) for label in LABELS}
        if not any(studies.values()):
            continue
        vectors = _vectors(workshop, fold, samples)
        for label, found in studies.items():
            judged = (*_within(found, vectors), *_across(found, vectors), *_mixing(found, vectors))
            rows += [{"fold": fold, "label": label, **row} for row in judged]
    return pd.DataFrame(rows)


def _samples(workshop: Workshop, fold: int) -> NDArray[np.int64]:
    rng = np.random.default_rng(fold)
    files = np.unique(workshop.files[workshop.folds == fold])
    chosen = [rng.permutation(np.flatnonzero(workshop.files == file))[:PER_FILE] for file in files]
    return np.sort(np.concatenate(chosen))


def _studies(
    workshop: Workshop, data: Path, samples: NDArray[np.int64], label: str, people: Mapping[str, str | None]
) -> Iterator[Study]:
    files = workshop.files[samples]
    for file in np.unique(files):
        obs = ad.read_h5ad(data / file, backed="r").obs
        if label in obs:
            rows = np.flatnonzero(files == file)
            # the corpus holds a file's samples in their order
            obs = obs.iloc[samples[rows] - np.flatnonzero(workshop.files == file)[0]]
            names = obs[label].astype(str).str.lower().to_numpy(dtype=str)
            who = obs[people[file]].astype(str).to_numpy() if people.get(file) else rows
            known = ~np.isin(names, UNKNOWN)
            if known.any():
                yield Study(str(file), rows[known], names[known], who[known])


def _vectors(workshop: Workshop, fold: int, samples: NDArray[np.int64]) -> dict[str, Floats]:
    """Return the network's vectors of samples and as many principal components, each (n, D)."""
    from sklearn.decomposition import PCA

    values = workshop.expression[samples]
    vectors = workshop.model(fold).encode(values, outputs=("pooled",)).pooled.numpy()
    known = workshop.expression[workshop.folds != fold]
    mean = np.nanmean(known, axis=0)
    components = PCA(min(vectors.shape[1], len(known)), svd_solver="randomized", random_state=0)
    components.fit(np.where(np.isnan(known), mean, known))
    return {"mini": vectors, "PCA": components.transform(np.where(np.isnan(values), mean, values))}


def _within(studies: Sequence[Study], vectors: Mapping[str, Floats]) -> Iterator[dict[str, object]]:
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_predict

    for whole in studies:
        classes, counts = np.unique(whole.labels, return_counts=True)
        study = whole.of(classes[counts >= LEAST_CLASS])
        if len(np.unique(study.labels)) < 2:
            continue
        grouped = len(np.unique(study.people)) >= LEAST_PEOPLE
        splitter = (StratifiedGroupKFold if grouped else StratifiedKFold)(PARTS, shuffle=True, random_state=0)
        parts = list(splitter.split(study.labels, study.labels, groups=study.people if grouped else None))
        for width in _widths(vectors):
            yield _row("within", study.file, study.labels, width) | {
                name: metrics.balanced_accuracy(
                    study.labels, cross_val_predict(_model(), points[study.rows, :width], study.labels, cv=parts)
                )
                for name, points in vectors.items()
            }


def _across(studies: Sequence[Study], vectors: Mapping[str, Floats]) -> Iterator[dict[str, object]]:
    for study in studies:
        others = [other for other in studies if other.file != study.file and len(_shared(study, other)) > 1]
        if not others:
            continue
        classes = set().union(*(_shared(study, other) for other in others))
        target, sources = study.of(classes), [other.of(classes) for other in others]
        rows, labels = (np.concatenate([getattr(source, part) for source in sources]) for part in ("rows", "labels"))
        for width in _widths(vectors):
            yield _row("across", study.file, target.labels, width) | {
                name: metrics.balanced_accuracy(
                    target.labels, _model().fit(points[rows, :width], labels).predict(points[target.rows, :width])
                )
                for name, points in vectors.items()
            }


def _mixing(studies: Sequence[Study], vectors: Mapping[str, Floats]) -> Iterator[dict[str, object]]:
    related = [study for study in studies if any(study is not o and len(_shared(study, o)) > 1 for o in studies)]
    if not related:
        return
    counts = pd.Series([name for study in related for name in np.unique(study.labels)]).value_counts()
    chosen = [study.of(list(counts.index[counts > 1])) for study in related]
    rows, labels = (np.concatenate([getattr(study, part) for study in chosen]) for part in ("rows", "labels"))
    files = np.repeat([study.file for study in chosen], [len(study.rows) for study in chosen])
    try:
        found = {name: metrics.batch_mixing(points[rows], labels, files) for name, points in vectors.items()}
    except ValueError as error:
        # too few samples of a label in each file for one of the scores
        logger.info("mixing of %d files is not scored: %s", len(chosen), error)
        return
    for score in found["mini"]:
        yield {
            "kind": "mixing",
            "file": f"{len(chosen)} files",
            "score": score,
            "width": next(iter(vectors.values())).shape[1],
            **{name: scores[score] for name, scores in found.items()},
        }


def _shared(one: Study, other: Study) -> set[str]:
    return set(one.labels) & set(other.labels)


def _widths(vectors: Mapping[str, Floats]) -> list[int]:
    full = min(points.shape[1] for points in vectors.values())
    return [*(width for width in WIDTHS if width < full), full]


def _row(kind: str, file: str, labels: NDArray[np.str_], width: int) -> dict[str, object]:
    chance = 1 / len(np.unique(labels))
    return {"kind": kind, "file": file, "score": "balanced accuracy", "width": width, "chance": chance}


def _model() -> object:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced", max_iter=2000))


def summarise_probe(table: pd.DataFrame) -> pd.DataFrame:
    """Average over files and labels.

    Returns
    -------
    One row per kind, score and width: ``n`` files and labels, means of ``chance``, ``mini`` and ``PCA``, and the
    ``difference`` of the last two with its 95 % interval over files, ``NaN`` for fewer than two.
    """
    rows = []
    for (kind, score, width), part in table.groupby(["kind", "score", "width"], sort=False):
        gap = (part["mini"] - part["PCA"]).to_numpy()
        low = high = np.nan
        if len(part["file"].unique()) > 1:
            weights = metrics.resample(len(part), n_bootstrap=N_BOOTSTRAP, groups=part["file"].to_numpy(), rng=0)
            low, high = interval(weights @ gap / weights.sum(axis=1), LEVEL)
        means = part[["chance", "mini", "PCA"]].mean()
        rows.append(
            {"kind": kind, "score": score, "width": width, "n": len(part), **means, "difference": gap.mean()}
            | {"difference_low": low, "difference_high": high}
        )
    return pd.DataFrame(rows).round(3)


def render_probe(table: pd.DataFrame) -> str:
    """Return the summary in Markdown."""
    summary = summarise_probe(table)
    bounds = summary[["difference", "difference_low", "difference_high"]].itertuples(index=False)
    summary["difference"] = [
        f"{gap:+.3f}" if np.isnan(low) else f"{gap:+.3f} [{low:+.3f}, {high:+.3f}]" for gap, low, high in bounds
    ]
    return markdown(summary.drop(columns=["difference_low", "difference_high"]))
