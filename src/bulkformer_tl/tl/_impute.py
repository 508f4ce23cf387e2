"""Imputation: measured values kept, missing ones predicted, with their error."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from bulkformer_tl._anndata import check_anndata, check_slots, copied
from bulkformer_tl._keys import ImputeKeys
from bulkformer_tl.tl._blend import Blend, fit_blend
from bulkformer_tl.tl._encoders import Alone, Encoders
from bulkformer_tl.tl._held_back import name_seeds, read_samples
from bulkformer_tl.tl._input import ModelInput, check_predicts, prepare
from bulkformer_tl.tl._run import check_output, compute, place_for
from bulkformer_tl.tl._zarr_output import ZarrOutput

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from anndata import AnnData
    from numpy.typing import NDArray

    from bulkformer_tl._vocabulary import GeneMatch, Identifiers
    from bulkformer_tl.models import Encoder

logger = logging.getLogger(__name__)


def impute(
    adata: AnnData,
    *,
    model: Encoder | str | Path = "bulkformer-mini",
    layer: str | None = None,
    mask: str | None = None,
    predicted: bool = False,
    blend: bool | Mapping[str, Any] = True,
    identifiers: Identifiers | None = None,
    min_coverage: float = 0.2,
    output: str | Path | ZarrOutput | None = None,
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
    output
        Zarr store to write the result to instead of ``adata``, or a :class:`~bulkformer_tl.tl.ZarrOutput`. It gets
        ``obs``, ``var`` and ``uns`` of ``adata`` and the fields below. Memory then depends on the block of samples that
        is worked on and not on the cohort, and the same call goes on where an interrupted one stopped.
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
    ``None``, or an :class:`~anndata.AnnData` if ``copy=True``. Sets the following fields, of ``adata`` or of the store
    that ``output`` names:

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
        If too few genes match, the values cannot be ln(TPM+1), a slot holds something else, ``blend`` was fitted with
        another model, ``output`` does not end in ``.zarr``, or an unfinished run beside it is one of something else.
    KeyError
        If there is no such layer.
    FileExistsError
        If ``output`` is there already.
    FileNotFoundError
        If its folder is not there.
    """
    check_anndata(adata)
    stream = None if output is None else ZarrOutput.of(output)
    check_output(stream, copy=copy)
    keys = ImputeKeys(key_added)
    slots = [keys.expression, keys.deviation, *([keys.predicted] if predicted else [])]
    check_slots(adata, key_added, [*(slots if stream is None else []), keys.in_vocabulary])
    given = prepare(
        adata,
        model=model,
        layer=layer,
        identifiers=identifiers,
        min_coverage=min_coverage,
        device=device,
        mask=mask,
        digest=stream is not None,
    )
    check_predicts(given.model)
    n_missing = int((given.match.n_found - given.seen.n_measured).sum())
    arguments = {**given.params, "mask": mask or "", "predicted": predicted, "blend": blend, "key_added": key_added}
    place = place_for(stream, adata, given, "impute", arguments)
    predictor = None
    if predicted or n_missing:
        _warn_missing(given)
        predictor = _Predictor.fit(given, adata.obs_names, blend=blend)
    else:
        logger.info("nothing is missing among the model's genes; the values are returned as they are")
    work = _Imputation(given.match, predictor, keys, predicted=predicted)
    compute(given, work, place, "impute", batch_size=batch_size, device=device)
    fitted = {} if predictor is None else predictor.to_dict()
    params = {**given.params, "mask": mask or "", "n_predicted": n_missing, "blend": "blend" in fitted}
    absent = params["n_vocabulary"] - params["n_found"]
    if absent:
        logger.info(
            "%d genes of %s are not among the columns; bf.pp.align_genes(adata) adds them as missing",
            absent,
            given.model.name,
        )
    target = copied(adata) if copy else adata
    place.finish(target, key_added, {keys.in_vocabulary: given.match.in_vocabulary}, params, fitted)
    return target if copy else None


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
                return cls(encoders.without_values(), fitted, seeds)
            logger.warning("too few entries are measured to blend %s with simple methods", given.model.name)
        alone = Encoders(given)
        return cls(alone.without_values(), Alone.fit(alone, read, seeds), seeds)

    def __call__(self, rows: slice, values: NDArray[np.float32]) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """Return mean and standard deviation of samples, (N, G)."""
        guess = self.encoders(values)
        return self.combine(values, guess, self.seeds[rows])

    def to_dict(self) -> dict[str, Any]:
        """Return what to store."""
        if isinstance(self.combine, Blend):
            return {"blend": self.combine.to_dict()}
        return {} if self.combine.residuals is None else {"residuals": self.combine.residuals}


@dataclass(frozen=True)
class _Imputation:
    """Values of samples with what is missing filled in, its deviation, and predictions everywhere if asked for."""

    match: GeneMatch
    predictor: _Predictor | None
    keys: ImputeKeys
    predicted: bool

    @property
    def models(self) -> list[Encoder]:
        return [] if self.predictor is None else self.predictor.encoders.models

    def __call__(self, rows: slice, values: NDArray[np.floating]) -> dict[str, NDArray[np.floating]]:
        keys, found, columns = self.keys, self.match.found, self.match.columns[self.match.found]
        results = {keys.expression: values.copy(), keys.deviation: np.full(values.shape, np.nan, dtype=np.float32)}
        if self.predicted:
            results[keys.predicted] = results[keys.deviation].copy()
        if self.predictor is None:
            return results
        aligned = self.match.align(values.astype(np.float32, copy=False))
        expression, spread = (part[:, found] for part in self.predictor(rows, aligned))
        missing = np.isnan(values[:, columns])
        for slot, part in ((keys.expression, expression), (keys.deviation, spread)):
            results[slot][:, columns] = np.where(missing, part, results[slot][:, columns])
        if self.predicted:
            results[keys.predicted][:, columns] = expression
        return results


def _warn_missing(given: ModelInput) -> None:
    trained = given.model.trained_missing
    if trained is None:
        return
    n_genes = len(given.match.columns)
    # counted, because 1 - 0.95 is not 0.05 in floating point
    missing = (n_genes - given.seen.n_measured) / n_genes
    missing = missing[missing > 0]
    outside = (missing < trained[0]) | (missing > trained[1])
    if outside.any():
        message = (
            f"{outside.sum()} of {len(given.seen.n_measured)} samples are outside what {given.model.name} was trained "
            f"with: {trained[0]:.0%} to {trained[1]:.0%} of its genes missing. Here it is {missing.min():.1%} to "
            f"{missing.max():.1%}. bf.tl.score_imputation(adata) tells what its predictions are worth"
        )
        warnings.warn(message, UserWarning, stacklevel=3)
