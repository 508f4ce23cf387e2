"""Regression: out-of-fold numbers of samples from a representation, with intervals, beside simple baselines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bulkformer_tl._anndata import check_slots, copied, write_results
from bulkformer_tl._keys import RegressKeys
from bulkformer_tl.tl._judge import Verdict, fingerprint, judge, merged, report, tabulate
from bulkformer_tl.tl._keep import keep_head
from bulkformer_tl.tl._mudata import takes_mudata
from bulkformer_tl.tl._regress_matrix import is_matrix, regress_matrix

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

    from bulkformer_tl.metrics import Protocol


@takes_mudata
def regress(
    adata: AnnData,
    target: str,
    *,
    use_rep: str | None = "X_bulkformer",
    layer: str | None = None,
    groups: str | None = None,
    covariates: Sequence[str] | None = None,
    head: str | None = None,
    protocol: Protocol | Literal["paper"] | None = None,
    reference: AnnData | None = None,
    key_added: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Predict a number, or a row of numbers, for each sample from a representation, beside simple baselines.

    Each labelled sample is predicted by a head that was fitted without its fold; samples without a value by a head
    that was fitted to all others. Whatever is fitted is fitted to training samples, intervals included: half their
    width is a quantile of the errors that three inner folds of the training samples make (conformal prediction across
    folds, Vovk 2015, doi:10.1007/s10472-013-9368-4).

    Of a matrix, such as proteins measured beside RNA, all columns are predicted at once, each standardised on training
    samples; missing values of a column leave only that column's sample out. Scores are means over columns
    (``per_column``), over samples (``per_sample``) and of all entries together (``global``), of columns that are
    standardised, so that those with large values do not decide; correlations are within test folds. There are no
    intervals and no kept head.

    Parameters
    ----------
    adata
        Samples by genes, with the representation in ``obsm``. Or a :class:`~mudata.MuData` with the label in its
        ``obs``: ``obsm`` is then that of the MuData and of its modality ``"rna"`` (or the first), whose expression
        baselines read; a modality's name stands for its features; and results are written to the MuData.
    target
        Column of ``obs`` with the numbers; missing where they are not known. Or a key of ``obsm`` with a matrix or
        table of numbers (N, P), or another modality of a MuData, such as ``"protein"``.
    use_rep
        Key of ``obsm``, such as ``"X_bulkformer"`` or ``"X_pca"``; ``None`` takes expression itself. Of what
        :func:`fuse` made, each modality alone is one more baseline.
    layer
        ln(TPM+1) for the baselines and the search for near-duplicates; ``None`` reads ``X``.
    groups
        Column of ``obs`` that names what must stay together, such as the patient or the study.
    covariates
        Columns of ``obs`` for the baseline ``"covariates"``.
    head
        ``"linear"`` (ridge regression), ``"elastic_net"``, ``"random_forest"``, ``"knn"`` or ``"mlp"``; ``None`` takes
        that of the protocol, or ``"linear"``.
    protocol
        Splits, head, baselines, bootstrap and the level of the intervals; ``None`` takes ``bf.metrics.Protocol()``.
        The baseline ``"untrained"`` is the encoder that made the representation, with random weights. ``"paper"``
        takes :func:`bulkformer_tl.metrics.paper_protocol`, with folds that leak as in :func:`classify`.
    reference
        Samples to train on in place of those of ``adata``, whose values are then only scored. Those that share a group
        or are near-duplicates of a sample of ``adata`` are left out.
    key_added
        Name of the result; ``None`` takes ``"regress_"`` and the target. Where it is given, it also takes the place of
        the target in the names of columns.
    copy
        Return a modified copy instead of writing to ``adata``.

    Returns
    -------
    ``None``, or an :class:`~anndata.AnnData` if ``copy=True``. Sets the following fields:

    ``adata.obs[target + "_pred"]`` : :class:`pandas.Series` (dtype ``float64``)
        Predicted numbers.
    ``adata.obs[target + "_low"]``, ``adata.obs[target + "_high"]`` : :class:`pandas.Series` (dtype ``float64``)
        Interval that covers the protocol's ``level`` of samples like the training samples; infinite where there are
        too few of these for the level (19 for 0.95).
    ``adata.obs[target + "_out_of_distribution"]`` : :class:`pandas.Series` (dtype ``bool``)
        Whether the sample is far from the training samples; see :func:`bulkformer_tl.tl.classify`.
    ``adata.obsm[target + "_pred"]`` : :class:`pandas.DataFrame` (shape ``(n_obs, P)``, dtype ``float64``)
        Of a matrix, in place of the above.
    ``adata.uns[key_added]["per_column"]`` : :class:`pandas.DataFrame`
        Of a matrix: representation, ``column``, number ``n`` of samples, and the column's scores.
    ``adata.uns[key_added]["scores"]`` : :class:`pandas.DataFrame`
        Scores of the representation and of each baseline, with their axis and interval, and the coverage and width of
        the intervals. Runs with another representation or head on the same samples and folds add their rows.
    ``adata.uns[key_added]["differences"]`` : :class:`pandas.DataFrame`
        Representation minus baseline on the same resamples; ``better`` names the one that the interval favours.
    ``adata.uns[key_added]["head"]`` : :class:`dict`
        The head fitted to all training samples; see :func:`bulkformer_tl.tl.fitted_head`.
    ``adata.uns[key_added]["params"]`` : :class:`dict`
        How it was done, and what is known of the model's pretraining corpus.

    Raises
    ------
    ValueError
        If the target is constant, groups are too few for the folds, expression is no ln(TPM+1), or a slot holds
        something else.
    KeyError
        If a column, layer or representation is not there.
    TypeError
        If the target holds categories.

    Examples
    --------
    >>> import bulkformer_tl as bf
    >>> adata = bf.datasets.toy()
    >>> bf.pp.log_tpm(adata)
    >>> adata.obs["number"] = range(adata.n_obs)
    >>> bf.tl.regress(adata, "number", use_rep=None, layer="log_tpm")
    >>> bool((adata.obs["number_low"] < adata.obs["number_high"]).all())
    True
    """
    keys = RegressKeys.of(target, key_added)
    options: dict[str, Any] = {
        "use_rep": use_rep,
        "layer": layer,
        "groups": groups,
        "covariates": covariates,
        "head": head,
        "protocol": protocol,
        "reference": reference,
    }
    if is_matrix(adata, target, reference):
        return regress_matrix(adata, target, keys, copy=copy, **options)
    check_slots(adata, keys.key, [keys.prediction, keys.low, keys.high, keys.outlier])
    verdict = judge(adata, target, task="regression", **options)
    found = verdict.predictions[verdict.name]
    values, width = found.predicted[verdict.own], found.width[verdict.own]
    results = {
        keys.prediction: values,
        keys.low: values - width,
        keys.high: values + width,
        keys.outlier: verdict.outlier[verdict.own],
    }
    widths = ", ".join(f"{width:.3g}" for width in found.calibration)
    params = {**verdict.params, "calibration": f"conformal half widths from inner folds: {widths}"}
    extra: dict[str, Any] = {**keep_head(verdict)}
    if verdict.tested.any():
        scores, differences = tabulate(verdict, _covered(verdict))
        params |= {"axis": str(scores["axis"].iloc[0]), "fingerprint": fingerprint(verdict)}
        extra |= merged(adata, keys.key, params["fingerprint"], scores, differences)
        report(keys.key, verdict, scores, differences)
    written = copied(adata) if copy else adata
    write_results(written, keys.key, results, params, extra)
    return written if copy else None


def _covered(verdict: Verdict) -> dict[str, dict[str, tuple[NDArray[np.float64], ...]]]:
    """Count the intervals that hold the truth, and add up their widths, for every candidate."""
    terms: dict[str, dict[str, tuple[NDArray[np.float64], ...]]] = {"interval_coverage": {}, "interval_width": {}}
    for name, found in verdict.predictions.items():
        inside = (np.abs(found.predicted - verdict.samples.target) <= found.width).astype(np.float64)
        one = np.ones_like(inside)
        terms["interval_coverage"][name] = (inside, one)
        terms["interval_width"][name] = (2 * found.width, one)
    return terms
