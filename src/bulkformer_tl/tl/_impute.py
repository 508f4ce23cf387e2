"""Imputation: measured values kept, missing ones predicted, with their error."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from bulkformer_tl._anndata import check_anndata, check_slots, copied, float_dtype, write_results
from bulkformer_tl._keys import ImputeKeys
from bulkformer_tl.tl._input import ModelInput, prepare, visible_blocks
from bulkformer_tl.tl._residuals import fit_residuals

if TYPE_CHECKING:
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
        Standard deviation of each predicted entry, ``NaN`` elsewhere: the network's own where it gives one, else that
        of the residuals of hidden entries of this cohort at the same predicted expression.
    ``adata.layers[key_added + "_predicted"]`` : :class:`numpy.ndarray` (shape ``(n_obs, n_vars)``, dtype ``float32``)
        Predictions everywhere, cut at 0, ``NaN`` for genes outside the vocabulary; with ``predicted=True`` only.
    ``adata.var[key_added + "_in_vocabulary"]`` : :class:`pandas.Series` (dtype ``bool``)
        Whether the model knows the gene.
    ``adata.uns[key_added]`` : :class:`dict`
        ``"params"``: model and checksum, layer, mask, number of entries predicted. ``"residuals"``: standard deviation
        by predicted expression, where it was taken from hidden entries.

    Raises
    ------
    ValueError
        If too few genes match, the values cannot be ln(TPM+1), or a slot holds something else.
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
    residuals = None
    if predicted or np.isnan(results[keys.expression][:, given.match.in_vocabulary]).any():
        if not hasattr(given.model.network, "deviation"):
            residuals = fit_residuals(given, adata.obs_names, batch_size)
        _fill(given, results, keys, residuals, batch_size)
    else:
        logger.info("nothing is missing among the model's genes; the values are returned as they are")
    n_predicted = int((~np.isnan(results[keys.deviation])).sum())
    params = {**given.params, "mask": mask or "", "n_predicted": n_predicted}
    absent = params["n_vocabulary"] - params["n_found"]
    if absent:
        logger.info(
            "%d genes of %s are not among the columns; bf.pp.align_genes(adata) adds them as missing",
            absent,
            given.model.name,
        )
    target = copied(adata) if copy else adata
    results[keys.in_vocabulary] = given.match.in_vocabulary
    write_results(target, key_added, results, params, {} if residuals is None else {"residuals": residuals})
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


def _fill(
    given: ModelInput,
    layers: dict[str, NDArray[Any]],
    keys: ImputeKeys,
    residuals: dict[str, NDArray[np.float64]] | None,
    batch_size: int | None,
) -> None:
    found, columns = given.match.found, given.match.columns[given.match.found]
    outputs = ("expression", "deviation") if residuals is None else ("expression",)
    for rows, values in given.batches("impute", batch_size):
        predictions = given.encode(values, *outputs)
        # the head of some generations is unconstrained, ln(TPM+1) is not
        expression = predictions[0][:, found].clip(min=0)
        spread = (
            predictions[1][:, found]
            if residuals is None
            else np.interp(expression, residuals["expression"], residuals["sd"])
        )
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
