"""Imputation: measured values kept, missing ones predicted, with their error."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from bulkformer_tl._anndata import check_anndata, check_slots, copied, float_dtype, write_results
from bulkformer_tl._keys import ImputeKeys
from bulkformer_tl.tl._blend import Blend, fit_blend
from bulkformer_tl.tl._encoders import Alone, Encoders
from bulkformer_tl.tl._held_back import name_seeds, read_samples
from bulkformer_tl.tl._input import ModelInput, prepare, visible_blocks

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from anndata import AnnData
    from numpy.typing import NDArray

    from bulkformer_tl._vocabulary import Identifiers
    from bulkformer_tl.models import BulkFormer

logger = logging.getLogger(__name__)


def impute(
    adata: AnnData,
    *,
    model: BulkFormer | str | Path = "bulkformer-mini",
    layer: str | None = None,
    mask: str | None = None,
    predicted: bool = False,
    blend: bool | Mapping[str, Any] = True,
    identifiers: Identifiers | None = None,
    min_coverage: float = 0.2,
    key_added: str = "imputed",
    batch_size: int | None = None,
    device: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Predict missing expression from the genes that were measured.

    An entry is missing if it is ``NaN`` or marked in ``mask``. Measured entries come back bit for bit. To obtain genes
    that ``adata`` does not have as columns, call :func:`bulkformer_tl.pp.align_genes` first: it adds them as missing.

    What the model says is blended with what simple methods say. The prediction of a gene is
    sum_c w_c x_c over the candidates x_c: the model; ``bulkformer-mini``, where the model is another; both with their
    mean error at this gene in this cohort added; the cohort's mean of the gene; and the posterior mean of a factor
    model x = mean + W z + noise of the cohort. For genes that no other sample measures the first two remain. The
    weights w >= 0 minimise the squared error of measured entries that are held back, 15, 50 or 90 % of a sample's, in
    24 runs of the model on up to 24 samples, each relative to the error of its best candidate; they are interpolated by
    the share of genes that a sample shows. Means and factors come from up to 256 samples, in four folds, so that no
    sample is predicted by factors that it was part of. These samples are those whose names have the lowest SHA-256, so
    that order, chunks and workers do not matter.

    Parameters
    ----------
    adata
        Samples by genes, with ln(TPM+1) values; see :func:`bulkformer_tl.pp.log_tpm`.
    model
        A loaded model, a name of :func:`bulkformer_tl.models.available`, or a bundle folder.
    layer
        Key of :attr:`~anndata.AnnData.layers` to read; ``None`` reads ``X``.
    mask
        Boolean layer of entries to hide from the model, as :func:`bulkformer_tl.pp.hide` makes it.
    predicted
        Also write the predictions at every position of the model's genes.
    blend
        ``False`` takes the model's prediction alone. ``adata.uns[key_added]["blend"]`` of an earlier call with the same
        model is used again instead of fitting anew: its samples get the same numbers bit for bit, and samples of
        another AnnData are predicted with the means and factors of that cohort.
    identifiers
        What ``var_names`` are: ``"ensembl"`` (a version is dropped), ``"symbol"`` or ``"entrez"``. ``None`` takes what
        :func:`bulkformer_tl.pp.log_tpm` was told when it made this layer, else Ensembl.
    min_coverage
        Least share of the model's genes that ``adata`` must have.
    key_added
        Name of the result.
    batch_size
        Samples per forward pass on a GPU. ``None`` takes :attr:`bulkformer_tl.settings.batch_size`.
    device
        Torch device. ``None`` takes :attr:`bulkformer_tl.settings.device`.
    copy
        Return a modified copy instead of writing to ``adata``.

    Returns
    -------
    ``None``, or an :class:`~anndata.AnnData` if ``copy=True``. Sets the following fields:

    ``adata.layers[key_added]`` : :class:`numpy.ndarray` (shape ``(n_obs, n_vars)``, float dtype of the input)
        ln(TPM+1) with missing entries predicted and cut at 0; those of genes outside the vocabulary stay ``NaN``.
    ``adata.layers[key_added + "_sd"]`` : :class:`numpy.ndarray` (shape ``(n_obs, n_vars)``, dtype ``float32``)
        Standard deviation of each predicted entry, ``NaN`` elsewhere. It comes from the squared errors at the entries
        that were held back, explained by predicted expression, the noise of the gene in the factor model and the
        network's own deviation, and is scaled so that 90 % of these entries lie within 1.645 of it. With
        ``blend=False``: the network's own where it gives one, else that of the residuals of hidden entries of this
        cohort at the same predicted expression.
    ``adata.layers[key_added + "_predicted"]`` : :class:`numpy.ndarray` (shape ``(n_obs, n_vars)``, dtype ``float32``)
        Predictions everywhere, cut at 0, ``NaN`` for genes outside the vocabulary; with ``predicted=True`` only.
    ``adata.var[key_added + "_in_vocabulary"]`` : :class:`pandas.Series` (dtype ``bool``)
        Whether the model knows the gene.
    ``adata.uns[key_added]`` : :class:`dict`
        ``"params"``: model and checksum, layer, mask, number of entries predicted, whether it is a blend. ``"blend"``:
        its weights, means and factors. ``"residuals"``: with ``blend=False``, standard deviation by predicted
        expression, where it was taken from hidden entries.

    Warns
    -----
    UserWarning
        If the share of missing genes is outside the range that the model was trained with.

    Raises
    ------
    ValueError
        If too few genes match, the values cannot be ln(TPM+1), a slot holds something else, or ``blend`` was fitted
        with another model.
    KeyError
        If there is no such layer.
    """
    check_anndata(adata)
    keys = ImputeKeys(key_added)
    slots = [keys.expression, keys.deviation, keys.in_vocabulary, *([keys.predicted] if predicted else [])]
    check_slots(adata, key_added, slots)
    given = prepare(
        adata,
        model=model,
        layer=layer,
        identifiers=identifiers,
        min_coverage=min_coverage,
        device=device,
        mask=mask,
    )
    results = _start(given, keys, predicted=predicted)
    fitted: dict[str, Any] = {}
    if predicted or np.isnan(results[keys.expression][:, given.match.in_vocabulary]).any():
        _warn_missing(given, results[keys.expression])
        predictor = _Predictor.fit(given, adata.obs_names, blend=blend)
        fitted = predictor.to_dict()
        _fill(given, results, keys, predictor, batch_size)
    else:
        logger.info("nothing is missing among the model's genes; the values are returned as they are")
    n_predicted = int((~np.isnan(results[keys.deviation])).sum())
    params = {**given.params, "mask": mask or "", "n_predicted": n_predicted, "blend": "blend" in fitted}
    absent = params["n_vocabulary"] - params["n_found"]
    if absent:
        logger.info(
            "%d genes of %s are not among the columns; bf.pp.align_genes(adata) adds them as missing",
            absent,
            given.model.name,
        )
    target = copied(adata) if copy else adata
    results[keys.in_vocabulary] = given.match.in_vocabulary
    write_results(target, key_added, results, params, fitted)
    return target if copy else None


def _start(given: ModelInput, keys: ImputeKeys, *, predicted: bool) -> dict[str, NDArray[Any]]:
    blocks = visible_blocks(given.matrix, given.hidden, dtype=float_dtype(given.matrix))
    layers = {
        keys.expression: np.concatenate([block for _, block in blocks]),
        keys.deviation: np.full(given.matrix.shape, np.nan, dtype=np.float32),
    }
    if predicted:
        layers[keys.predicted] = np.full(given.matrix.shape, np.nan, dtype=np.float32)
    return layers


@dataclass(frozen=True)
class _Predictor:
    """The blend, or the encoder alone, on samples known by name."""

    encoders: Encoders
    combine: Blend | Alone
    seeds: NDArray[np.uint64]

    @classmethod
    def fit(cls, given: ModelInput, names: Iterable[str], *, blend: bool | Mapping[str, Any]) -> _Predictor:
        seeds, read = name_seeds(names), partial(read_samples, given)
        if blend is not False:
            encoders = Encoders.of(given)
            fitted = fit_blend(encoders, read, seeds) if blend is True else Blend.from_dict(blend, encoders)
            if fitted is not None:
                return cls(encoders, fitted, seeds)
            logger.warning("too few entries are measured to blend %s with simple methods", given.model.name)
        alone = Encoders(given)
        return cls(alone, Alone.fit(alone, read, seeds), seeds)

    def __call__(self, rows: slice, values: NDArray[np.float32]) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """Return mean and standard deviation of samples, (N, G)."""
        guess = self.encoders(values)
        return self.combine(values, guess, self.seeds[rows])

    def to_dict(self) -> dict[str, Any]:
        """Return what to store."""
        if isinstance(self.combine, Blend):
            return {"blend": self.combine.to_dict()}
        return {} if self.combine.residuals is None else {"residuals": self.combine.residuals}


def _warn_missing(given: ModelInput, values: NDArray[np.floating]) -> None:
    trained = given.model.trained_missing
    if trained is None:
        return
    n_genes = len(given.match.columns)
    # counted, because 1 - 0.95 is not 0.05 in floating point
    missing = (n_genes - (~np.isnan(values[:, given.match.in_vocabulary])).sum(axis=1)) / n_genes
    missing = missing[missing > 0]
    outside = (missing < trained[0]) | (missing > trained[1])
    if outside.any():
        message = (
            f"{outside.sum()} of {len(values)} samples are outside what {given.model.name} was trained with: "
            f"{trained[0]:.0%} to {trained[1]:.0%} of its genes missing. Here it is {missing.min():.1%} to "
            f"{missing.max():.1%}. bf.tl.score_imputation(adata) tells what its predictions are worth"
        )
        warnings.warn(message, UserWarning, stacklevel=3)


def _fill(
    given: ModelInput,
    layers: dict[str, NDArray[Any]],
    keys: ImputeKeys,
    predict: _Predictor,
    batch_size: int | None,
) -> None:
    found, columns = given.match.found, given.match.columns[given.match.found]
    for rows, values in given.batches("impute", batch_size):
        expression, spread = (part[:, found] for part in predict(rows, values))
        missing = np.isnan(layers[keys.expression][rows][:, columns])
        _put(layers[keys.expression], rows, columns, expression, missing)
        _put(layers[keys.deviation], rows, columns, spread, missing)
        if keys.predicted in layers:
            _put(layers[keys.predicted], rows, columns, expression, np.ones_like(missing))


def _put(
    target: NDArray[Any], rows: slice, columns: NDArray[np.int64], values: NDArray[Any], where: NDArray[np.bool_]
) -> None:
    block = target[rows]
    block[:, columns] = np.where(where, values, block[:, columns])
