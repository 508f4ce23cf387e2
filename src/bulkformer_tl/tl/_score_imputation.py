"""How well hidden expression is predicted, beside simple methods, at several rates of missing values."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd

from bulkformer_tl._anndata import check_anndata, check_slots, copied, gene_mask, write_results
from bulkformer_tl._progress import Progress
from bulkformer_tl.tl._blocks import visible_blocks
from bulkformer_tl.tl._gaps import rmse_gaps, squared_errors
from bulkformer_tl.tl._held_back import name_seeds
from bulkformer_tl.tl._input import ModelInput, check_predicts, prepare
from bulkformer_tl.tl._score_model import FoldModel

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData
    from numpy.typing import NDArray

    from bulkformer_tl._vocabulary import Identifiers
    from bulkformer_tl.metrics import Protocol
    from bulkformer_tl.metrics._imputers import Imputer
    from bulkformer_tl.models import BulkFormer

By = Literal["entry", "gene", "panel"]
#: Of each method the sum of squared errors of each sample and their number, (N, 2).
Errors = dict[str, "NDArray[np.float64]"]

logger = logging.getLogger(__name__)

#: Half-width, in standard deviations, of the interval whose coverage is reported.
HALF_WIDTH = 1.6449
KEYS = ["method", "baseline", "by", "rate", "metric", "axis"]


def score_imputation(
    adata: AnnData,
    *,
    model: BulkFormer | str | Path = "bulkformer-mini",
    layer: str | None = None,
    rates: Sequence[float] = (0.15, 0.3, 0.5, 0.7, 0.9),
    by: By = "entry",
    mask_var: NDArray[np.bool_] | str | None = None,
    groups: str | None = None,
    protocol: Protocol | None = None,
    identifiers: Identifiers | None = None,
    min_coverage: float = 0.2,
    rng: int | Sequence[int] = 0,
    key_added: str = "score_imputation",
    batch_size: int | None = None,
    device: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Hide measured values, predict them, and score model and simple methods in one table.

    The simple methods (gene mean, 10 nearest samples, principal components, factor analysis) are fitted on the
    training samples of each fold, which keep all their values, and predict the test samples of that fold, of which
    they see what the model sees. The blend of :func:`bulkformer_tl.tl.impute` is fitted on the same training samples,
    so that it knows neither more nor less than the simple methods; the encoder alone, which is scored beside it, knows
    the test sample only.

    Parameters
    ----------
    adata
        Samples by genes, with ln(TPM+1) values.
    model
        A loaded model, a name of :func:`bulkformer_tl.models.available`, or a bundle folder.
    layer
        Key of :attr:`~anndata.AnnData.layers` to read; ``None`` reads ``X``.
    rates
        Shares of the measured values to hide, each between 0 and 1. Not used for a panel.
    by
        ``"entry"`` hides values at random, ``"gene"`` whole genes in all samples, ``"panel"`` all genes but those of
        ``mask_var``.
    mask_var
        Genes that stay visible with ``by="panel"``, as a boolean array or the name of a boolean ``var`` column.
    groups
        Column of ``obs``, such as the patient: samples of a group are never in training and test set at once.
    protocol
        Splits; ``None`` takes ``metrics.Protocol()``. Its ``baselines`` name the simple methods, of
        :func:`bulkformer_tl.metrics.imputer_names`.
    identifiers
        What ``var_names`` are: ``"ensembl"``, ``"symbol"``. ``None`` takes what :func:`bulkformer_tl.pp.log_tpm` was
        told when it made this layer, else Ensembl.
    min_coverage
        Least share of the model's genes that ``adata`` must have.
    rng
        Seed of what is hidden, or several: each rate is then drawn anew with each of them.
    key_added
        Name of the result. A rerun with another model, rate or ``by`` adds its rows.
    batch_size
        Samples per forward pass on a GPU. ``None`` takes :attr:`bulkformer_tl.settings.batch_size`.
    device
        Torch device. ``None`` takes :attr:`bulkformer_tl.settings.device`.
    copy
        Return a modified copy instead of writing to ``adata``.

    Returns
    -------
    ``None``, or an :class:`~anndata.AnnData` if ``copy=True``. Sets the following fields:

    ``adata.uns[key_added]["scores"]`` : :class:`pandas.DataFrame`
        One row per method, kind of hiding, rate, metric and axis: ``mean`` over seeds of Pearson's r and the root mean
        squared error over all hidden entries (axis ``"global"``) and as the mean over genes or samples
        (``"per_gene"``, ``"per_sample"``), and of the share of hidden entries inside the model's 90 % interval;
        ``seed_sd`` between seeds; ``n`` hidden entries. The blend has the model's name, the encoder that name with
        ``", encoder alone"``.
    ``adata.uns[key_added]["differences"]`` : :class:`pandas.DataFrame`
        One row per model, blended and alone, and simple method (``baseline``): ``difference`` of their global root mean
        squared errors, model minus method; its bootstrap interval over samples or groups, ``low`` to ``high``, widened
        by Bonferroni to hold for all methods at once; and ``better``, which of the two it favours, or ``"neither"``.
    ``adata.uns[key_added]["params"]`` : :class:`dict`
        Model and checksum, layer, folds, groups.

    Raises
    ------
    ValueError
        If the values cannot be ln(TPM+1), a rate is not between 0 and 1, or the samples cannot be split.
    KeyError
        If there is no such layer or column.
    """
    from bulkformer_tl.metrics import Protocol

    check_anndata(adata)
    check_slots(adata, key_added, [])
    protocol = protocol or Protocol()
    seeds = [rng] if isinstance(rng, int) else list(rng)
    _check_request(rates, by, mask_var, seeds)
    visible = gene_mask(adata, mask_var)
    given = prepare(adata, model=model, layer=layer, identifiers=identifiers, min_coverage=min_coverage, device=device)
    check_predicts(given.model)
    members = _members(adata, groups)
    splits = protocol.split(adata.n_obs, groups=members)
    values = np.concatenate([block[:, _columns(given)] for _, block in visible_blocks(given.matrix, None)])
    seeds_of = name_seeds(adata.obs_names)
    fold_model = FoldModel.fit(given, values, seeds_of, splits, members=members)
    judge = _Judge.fit(fold_model, values.astype(np.float64), protocol)
    settings = [(rate, seed) for rate in ([np.nan] if by == "panel" else rates) for seed in seeds]
    rows: list[pd.DataFrame] = []
    errors: dict[float, Errors] = {}
    with Progress(len(settings) * adata.n_obs, "score_imputation") as progress:
        for asked, seed in settings:
            generator = np.random.default_rng([seed, int(1e6 * np.nan_to_num(asked))])
            hidden = _hide(values, asked, by, None if visible is None else visible[_columns(given)], generator)
            rate = float(hidden.sum() / np.isfinite(values).sum()) if by == "panel" else asked
            scores, found = judge.score(hidden, batch_size, progress)
            rows.append(scores.assign(by=by, rate=rate))
            before = errors.setdefault(rate, {})
            errors[rate] = {name: before.get(name, 0) + each for name, each in found.items()}
    models = list(fold_model.fits[0])
    gaps = [rmse_gaps(each, models, protocol, members, by=by, rate=rate) for rate, each in errors.items()]
    tables = {"scores": _average(pd.concat(rows)), "differences": pd.concat(gaps, ignore_index=True)}
    _say_who_wins(tables["differences"], fold_model.name)
    target = copied(adata) if copy else adata
    written = adata.uns.get(key_added, {})
    params = {**given.params, "n_folds": len(splits), "groups": groups or "", "rng": seeds}
    merged = {name: _add_rows(written.get(name), table) for name, table in tables.items()}
    write_results(target, key_added, {}, params, merged)
    return target if copy else None


@dataclass(frozen=True)
class _Judge:
    """Predicts hidden values by the model and by simple methods, and scores both."""

    model: FoldModel
    values: NDArray[np.float64]
    imputers: dict[str, list[Imputer]]

    @classmethod
    def fit(cls, model: FoldModel, values: NDArray[np.float64], protocol: Protocol) -> _Judge:
        """Fit each simple method on the training samples of each fold."""
        from bulkformer_tl.metrics import fit_imputer

        names = _methods(protocol)
        return cls(model, values, {name: [fit_imputer(name, values[s.train]) for s in model.splits] for name in names})

    def score(
        self, hidden: NDArray[np.bool_], batch_size: int | None, progress: Progress
    ) -> tuple[pd.DataFrame, Errors]:
        """Return one row per method, metric and axis, and each method's squared errors."""
        shown = np.where(hidden, np.nan, self.values)
        truth = np.where(hidden, self.values, np.nan)
        predicted = self.model.predict(shown, batch_size, progress)
        for name, fitted in self.imputers.items():
            predicted[name] = (self._by_method(fitted, shown), None)
        rows = [
            (name, metric, axis, value, int(hidden.sum()))
            for name, (mean, deviation) in predicted.items()
            for metric, axis, value in _scores(truth, mean, deviation)
        ]
        errors = {name: squared_errors(truth, mean) for name, (mean, _) in predicted.items()}
        return pd.DataFrame(rows, columns=["method", "metric", "axis", "mean", "n"]), errors

    def _by_method(self, fitted: list[Imputer], shown: NDArray[np.float64]) -> NDArray[np.float64]:
        predicted = np.full_like(shown, np.nan)
        for split, imputer in zip(self.model.splits, fitted, strict=True):
            predicted[split.test] = imputer(shown[split.test])
        return predicted.clip(min=0)


def _scores(
    truth: NDArray[np.float64], mean: NDArray[np.float64], deviation: NDArray[np.float64] | None
) -> list[tuple[str, str, float]]:
    from bulkformer_tl.metrics import pearson, rmse

    rows = []
    for axis in ("global", "per_gene", "per_sample"):
        for metric, score in (("pearson", pearson), ("rmse", rmse)):
            each = np.atleast_1d(score(truth, mean, axis=axis))
            rows.append((metric, axis, float(np.nanmean(each)) if np.isfinite(each).any() else np.nan))
    if deviation is not None:
        scored = np.isfinite(truth)
        inside = np.abs(truth - mean)[scored] <= HALF_WIDTH * deviation[scored]
        rows.append(("coverage_90", "global", float(inside.mean())))
    return rows


def _hide(
    values: NDArray[Any], rate: float, by: By, visible: NDArray[np.bool_] | None, rng: np.random.Generator
) -> NDArray[np.bool_]:
    measured: NDArray[np.bool_] = np.isfinite(values)
    if by == "panel":
        hidden = measured & ~np.asarray(visible)
    elif by == "gene":
        n = values.shape[1]
        chosen = np.zeros(n, dtype=bool)
        chosen[rng.choice(n, size=round(rate * n), replace=False)] = True
        hidden = measured & chosen
    else:
        hidden = measured & (rng.random(values.shape) < rate)
    blind = ~(measured & ~hidden).any(axis=1)
    if blind.any() or not hidden.any():
        what = "leaves a sample without any visible value" if blind.any() else "hides nothing"
        message = f"hiding by {by!r} {what}; choose other rates, or another panel"
        raise ValueError(message)
    return np.asarray(hidden)


def _columns(given: ModelInput) -> NDArray[np.int64]:
    return given.match.columns[given.match.found]


def _members(adata: AnnData, groups: str | None) -> NDArray[Any] | None:
    if groups is None:
        return None
    if groups not in adata.obs:
        message = f"adata.obs has no column {groups!r}; its columns are {adata.obs.columns.tolist()}"
        raise KeyError(message)
    return adata.obs[groups].astype(str).to_numpy()


def _methods(protocol: Protocol) -> tuple[str, ...]:
    from bulkformer_tl.metrics import imputer_names

    chosen = tuple(protocol.baselines) if protocol.baselines is not None else imputer_names()
    unknown = [name for name in chosen if name not in imputer_names()]
    if unknown:
        message = f"there are no imputation methods {unknown}; choose among {list(imputer_names())}"
        raise ValueError(message)
    return chosen


def _check_request(rates: Sequence[float], by: str, mask_var: Any, seeds: list[int]) -> None:
    problems = {
        f"by must be 'entry', 'gene' or 'panel', found {by!r}": by not in get_args(By),
        f"rates must lie between 0 and 1, found {list(rates)}": not rates or not all(0 < rate < 1 for rate in rates),
        "by='panel' needs mask_var, the genes that stay visible": by == "panel" and mask_var is None,
        "mask_var names the panel; pass by='panel' with it": by != "panel" and mask_var is not None,
        "rng holds no seed": not seeds,
    }
    for message, applies in problems.items():
        if applies:
            raise ValueError(message)


def _average(rows: pd.DataFrame) -> pd.DataFrame:
    grouped = rows.groupby([key for key in KEYS if key in rows], sort=False, dropna=False)
    table = grouped["mean"].agg(mean="mean", seed_sd="std")
    table["n"] = grouped["n"].mean().round().astype(int)
    return table.reset_index()


def _add_rows(before: pd.DataFrame | None, rows: pd.DataFrame) -> pd.DataFrame:
    if before is None:
        return rows
    keys = [key for key in KEYS if key in rows]
    replaced = pd.MultiIndex.from_frame(before[keys]).isin(pd.MultiIndex.from_frame(rows[keys]))
    return pd.concat([before[~replaced], rows], ignore_index=True)


def _say_who_wins(differences: pd.DataFrame, model: str) -> None:
    lost = differences[(differences["method"] == model) & (differences["better"] == differences["baseline"])]
    for row in lost.to_dict("records"):
        logger.warning(
            "%s predicts hidden values better than %s at a rate of %.2f: its RMSE is less by %.3f (%.3f to %.3f)",
            row["baseline"],
            model,
            row["rate"],
            row["difference"],
            row["low"],
            row["high"],
        )
