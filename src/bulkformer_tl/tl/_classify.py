"""Classification: out-of-fold classes of samples from a representation, beside simple baselines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from bulkformer_tl._anndata import check_anndata, check_slots, copied, write_results
from bulkformer_tl._keys import ClassifyKeys
from bulkformer_tl.tl._judge import Verdict, fingerprint, judge, merged, report, tabulate
from bulkformer_tl.tl._keep import keep_head
from bulkformer_tl.tl._mudata import takes_mudata

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

    from bulkformer_tl.metrics import Protocol


@takes_mudata
def classify(
    adata: AnnData,
    label: str,
    *,
    use_rep: str | None = "X_bulkformer",
    layer: str | None = None,
    groups: str | None = None,
    covariates: Sequence[str] | None = None,
    head: str | None = None,
    protocol: Protocol | Literal["paper"] | None = None,
    reference: AnnData | None = None,
    abstain: float | None = None,
    key_added: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Predict classes of samples from a representation and compare it with simple baselines.

    Each labelled sample is predicted by a head that was fitted without its fold; samples without a label by a head
    that was fitted to all labelled ones. Whatever is fitted, calibration and distances included, is fitted to
    training samples. Columns of a representation keep their proportions, those of expression are scaled to unit
    variance. Probabilities, of the representation and of every baseline alike, are calibrated by one temperature per
    fold (Guo et al. 2017, arXiv:1706.04599), which three inner folds of the training samples choose.

    Parameters
    ----------
    adata
        Samples by genes, with the representation in ``obsm``. Or a :class:`~mudata.MuData` with the label in its
        ``obs``: ``obsm`` is then that of the MuData and of its modality ``"rna"`` (or the first), whose expression
        baselines read; a modality's name stands for its features; and results are written to the MuData.
    label
        Column of ``obs`` with the classes; missing where they are not known.
    use_rep
        Key of ``obsm``, such as ``"X_bulkformer"`` or ``"X_pca"``; ``None`` takes expression itself. Of what
        :func:`fuse` made, each modality alone is one more baseline.
    layer
        ln(TPM+1) for the baselines and the search for near-duplicates; ``None`` reads ``X``.
    groups
        Column of ``obs`` that names what must stay together, such as the patient or the study. Near-duplicate profiles
        stay together in any case, unless ``protocol`` says otherwise.
    covariates
        Columns of ``obs`` for the baseline ``"covariates"``.
    head
        ``"linear"`` (logistic regression), ``"elastic_net"``, ``"random_forest"``, ``"knn"`` or ``"mlp"``; ``None``
        takes that of the protocol, or ``"linear"``.
    protocol
        Splits, head, baselines and bootstrap; ``None`` takes ``bf.metrics.Protocol()``. Beside the baselines of
        ``bf.metrics.baseline_names`` there is ``"untrained"``: the encoder that made the representation, with random
        weights. ``"paper"`` takes :func:`bulkformer_tl.metrics.paper_protocol`: principal components and a random
        forest on ten folds, to be read by the rows ``"f1_weighted"``. It looks for no near-duplicates and, without
        ``groups``, lets samples of one person or study stand on both sides of a fold; it logs so.
    reference
        Samples to train on in place of those of ``adata``, whose labels are then only scored. Those that share a group
        or are near-duplicates of a sample of ``adata`` are left out.
    abstain
        Probability below which no class is predicted; the table then has the rows ``"coverage"``, the share of
        samples that get a class, and ``"accuracy_answered"``, how many of these are right.
    key_added
        Name of the result; ``None`` takes ``"classify_"`` and the label. Where it is given, it also takes the place of
        the label in the names of columns.
    copy
        Return a modified copy instead of writing to ``adata``.

    Returns
    -------
    ``None``, or an :class:`~anndata.AnnData` if ``copy=True``. Sets the following fields:

    ``adata.obs[label + "_pred"]`` : :class:`pandas.Categorical`
        Predicted classes; missing where the head abstains.
    ``adata.obsm[label + "_proba"]`` : :class:`numpy.ndarray` (shape ``(n_obs, K)``, dtype ``float64``)
        Calibrated probabilities, in the order of ``adata.uns[key_added]["classes"]``.
    ``adata.obs[label + "_out_of_distribution"]`` : :class:`pandas.Series` (dtype ``bool``)
        Whether the mean distance to the five nearest training samples is far out (three interquartile ranges above the
        upper quartile) of what it is among training samples of different groups. Do not trust such a prediction.
    ``adata.uns[key_added]["scores"]`` : :class:`pandas.DataFrame`
        Scores of the representation and of each baseline, with their axis and interval; see
        :func:`bulkformer_tl.metrics.compare`. Runs with another representation or head on the same samples and folds
        add their rows. Absent if no label is known to score.
    ``adata.uns[key_added]["differences"]`` : :class:`pandas.DataFrame`
        Representation minus baseline on the same resamples, corrected for the number of baselines; ``better`` names
        the one that the interval favours.
    ``adata.uns[key_added]["classes"]`` : :class:`numpy.ndarray`
        The classes.
    ``adata.uns[key_added]["head"]`` : :class:`dict`
        The head fitted to all training samples; see :func:`bulkformer_tl.tl.fitted_head`.
    ``adata.uns[key_added]["params"]`` : :class:`dict`
        How it was done, and what is known of the model's pretraining corpus.

    Raises
    ------
    ValueError
        If labels are constant, classes or groups are too few for the folds, expression is no ln(TPM+1), or a slot
        holds something else.
    KeyError
        If a column, layer or representation is not there.
    TypeError
        If the label holds fractional numbers.

    Examples
    --------
    >>> import bulkformer_tl as bf
    >>> adata = bf.datasets.toy()
    >>> bf.pp.log_tpm(adata)
    >>> bf.tl.classify(adata, "tissue", use_rep=None, layer="log_tpm")
    >>> adata.obsm["tissue_proba"].shape[0] == adata.n_obs
    True
    """
    check_anndata(adata)
    keys = ClassifyKeys.of(label, key_added)
    check_slots(adata, keys.key, [keys.prediction, keys.probabilities, keys.outlier])
    if abstain is not None and not 0 < abstain <= 1:
        message = f"abstain is {abstain}; use a probability above 0 and at most 1, such as 0.8, or None"
        raise ValueError(message)
    verdict = judge(
        adata,
        label,
        task="classification",
        use_rep=use_rep,
        layer=layer,
        groups=groups,
        covariates=covariates,
        head=head,
        protocol=protocol,
        reference=reference,
    )
    found = verdict.predictions[verdict.name]
    results = _results(verdict, keys, abstain)
    calibration = f"temperature from inner folds: {', '.join(f'{t:.3g}' for t in found.calibration)}"
    params = {**verdict.params, "calibration": calibration, "abstain": "" if abstain is None else abstain}
    extra: dict[str, Any] = {"classes": np.asarray(verdict.samples.classes), **keep_head(verdict)}
    if verdict.tested.any():
        scores, differences = tabulate(verdict, {} if abstain is None else _answered(verdict, abstain))
        params |= {"axis": str(scores["axis"].iloc[0]), "fingerprint": fingerprint(verdict, abstain=abstain)}
        extra |= merged(adata, keys.key, params["fingerprint"], scores, differences)
        report(keys.key, verdict, scores, differences)
    target = copied(adata) if copy else adata
    write_results(target, keys.key, results, params, extra)
    return target if copy else None


def _results(verdict: Verdict, keys: ClassifyKeys, abstain: float | None) -> dict[str, Any]:
    shares = verdict.predictions[verdict.name].predicted[verdict.own]
    codes = shares.argmax(axis=1)
    if abstain is not None:
        codes = np.where(shares.max(axis=1) < abstain, -1, codes)
    return {
        keys.prediction: pd.Categorical.from_codes(codes, categories=pd.Index(verdict.samples.classes)),
        keys.probabilities: shares,
        keys.outlier: verdict.outlier[verdict.own],
    }


def _answered(verdict: Verdict, abstain: float) -> dict[str, dict[str, tuple[NDArray[np.float64], ...]]]:
    """Count the samples that get a class, and those of them that are right, for every candidate."""
    terms: dict[str, dict[str, tuple[NDArray[np.float64], ...]]] = {"coverage": {}, "accuracy_answered": {}}
    for name, found in verdict.predictions.items():
        answered = (found.predicted.max(axis=1) >= abstain).astype(np.float64)
        right = (found.predicted.argmax(axis=1) == verdict.samples.target) * answered
        terms["coverage"][name] = (answered, np.ones_like(answered))
        terms["accuracy_answered"][name] = (right, answered)
    return terms
