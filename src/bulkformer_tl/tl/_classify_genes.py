"""Classification of genes by their vectors, beside how high and how variable they are."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData

from bulkformer_tl._anndata import check_anndata, check_slots, copied, get_params, write_results
from bulkformer_tl._keys import ClassifyGenesKeys
from bulkformer_tl.metrics import Protocol
from bulkformer_tl.tl._contextual import read_vectors
from bulkformer_tl.tl._judge import _corpus, fingerprint, merged, prepare, report, tabulate
from bulkformer_tl.tl._probe import Candidate, _baseline, predict_all
from bulkformer_tl.tl._samples import all_expression

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bulkformer_tl.tl._judge import Verdict

LEVEL, VARIANCE = "expression level", "expression variance"
#: Baselines, and what they read of a gene.
BASELINES = {"level": [LEVEL], "variance": [VARIANCE], "level_variance": [LEVEL, VARIANCE]}


def classify_genes(
    adata: AnnData,
    label: str,
    *,
    vectors: str = "bulkformer_genes",
    layer: str | None = None,
    groups: str | None = None,
    head: str | None = None,
    protocol: Protocol | None = None,
    key_added: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Classify genes from their vectors, and compare it with what expression level and variance alone say.

    Whether a gene is dosage-sensitive, central or essential often follows from how high it is expressed, and paralogs
    are alike in most that is known of them: so level and variance stand in the same table, and ``groups`` keeps a gene
    family on one side. Each labelled gene is predicted by a head that was fitted without its fold, all others by one
    that was fitted to all labelled genes.

    Parameters
    ----------
    adata
        Samples by genes, with gene vectors.
    label
        Column of ``var``; genes without a label are predicted and not scored.
    vectors
        Key of ``varm``, as of :func:`bulkformer_tl.tl.gene_embeddings`, or of contextual vectors by group of samples,
        of which the mean over groups is taken. Genes without a vector are left out.
    layer
        ln(TPM+1) of which level and variance are the mean and variance over samples; ``None`` reads ``X``.
    groups
        Column of ``var``, such as the gene family, that names what must stay together.
    head
        As of :func:`bulkformer_tl.tl.classify`.
    protocol
        Splits, baselines and bootstrap; ``None`` takes ``bf.metrics.Protocol()``. Baselines are ``"majority"``,
        ``"level"``, ``"variance"`` and ``"level_variance"``, logistic regressions on these numbers.
    key_added
        Name of the result; ``None`` takes ``"classify_genes_" + label`` and writes to slots that start with the label.
    copy
        Return a modified copy instead of writing to ``adata``.

    Returns
    -------
    ``None``, or an :class:`~anndata.AnnData` if ``copy=True``. Sets the following fields:

    ``adata.var[label + "_pred"]`` : :class:`pandas.Series` (dtype ``category``)
        Most probable class; missing for genes without a vector.
    ``adata.varm[label + "_proba"]`` : :class:`numpy.ndarray` (shape ``(n_vars, K)``, dtype ``float64``)
        Calibrated probabilities, classes in the order of ``adata.uns[key_added]["classes"]``.
    ``adata.uns[key_added]["scores"]``, ``adata.uns[key_added]["differences"]`` : :class:`pandas.DataFrame`
        As of :func:`bulkformer_tl.tl.classify`. Runs with other vectors or another head on the same genes and folds add
        their rows.
    ``adata.uns[key_added]["classes"]`` : :class:`numpy.ndarray`
        The classes.
    ``adata.uns[key_added]["params"]`` : :class:`dict`
        How it was done, and what is known of the model's pretraining corpus.

    Raises
    ------
    ValueError
        If labels are constant, classes or groups are too few for the folds, expression is no ln(TPM+1), or a slot holds
        something else.
    KeyError
        If a column, layer or vector is not there.

    Examples
    --------
    >>> import bulkformer_tl as bf
    >>> adata = bf.datasets.toy()
    >>> bf.pp.log_tpm(adata)
    >>> bf.tl.gene_embeddings(adata)
    >>> adata.var["high"] = (adata.layers["log_tpm"].mean(axis=0) > 2).astype(str)
    >>> bf.tl.classify_genes(adata, "high", layer="log_tpm")
    >>> adata.varm["high_proba"].shape == (adata.n_vars, 2)
    True
    """
    check_anndata(adata)
    keys = ClassifyGenesKeys.of(label, key_added)
    check_slots(adata, keys.key, [keys.prediction, keys.probabilities])
    for name in (label, *([] if groups is None else [groups])):
        if name not in adata.var:
            message = f"adata.var has no column {name!r}; its columns are {adata.var.columns.tolist()}"
            raise KeyError(message)
    matrix, _ = read_vectors(adata, vectors)
    matrix = matrix if matrix.ndim == 2 else matrix.mean(axis=0)
    described = np.isfinite(matrix).all(axis=1)
    protocol, wanted = _baselines(protocol or Protocol())
    genes = AnnData(obs=_columns(adata, [label, groups], layer)[described])
    genes.obsm[vectors] = matrix[described]
    options = {"use_rep": vectors, "groups": groups, "head": head, "protocol": protocol}
    verdict = _judge(genes, label, wanted, options)
    params = _params(adata, verdict, layer, described)
    extra: dict[str, Any] = {"classes": np.asarray(verdict.samples.classes)}
    scores, differences = tabulate(verdict, {})
    mark = fingerprint(verdict, genes=genes.obs_names.tolist())
    params |= {"axis": str(scores["axis"].iloc[0]), "fingerprint": mark}
    extra |= merged(adata, keys.key, params["fingerprint"], scores, differences)
    report(keys.key, verdict, scores, differences)
    written = copied(adata) if copy else adata
    write_results(written, keys.key, _results(verdict, keys, described), params, extra)
    return written if copy else None


def _baselines(protocol: Protocol) -> tuple[Protocol, list[str]]:
    """Return the protocol with what a task knows, and all baselines by name."""
    wanted = ["majority", *BASELINES] if protocol.baselines is None else list(protocol.baselines)
    for name in wanted:
        if name not in ("majority", *BASELINES):
            message = f"there is no baseline {name!r} for genes; choose among {['majority', *BASELINES]}"
            raise ValueError(message)
    return replace(protocol, baselines=tuple(name for name in wanted if name == "majority"), duplicates=None), wanted


def _columns(adata: AnnData, names: list[str | None], layer: str | None) -> pd.DataFrame:
    """Return columns of ``var``, and mean and variance of every gene over the samples that measure it."""
    values = all_expression([adata], layer, adata.var_names.tolist()).astype(np.float64)
    seen = ~np.isnan(values)
    number = np.where(seen.any(axis=0), seen.sum(axis=0), np.nan)
    mean = np.where(seen, values, 0).sum(axis=0) / number
    variance = np.square(np.where(seen, values - mean, 0)).sum(axis=0) / number
    known = {name: adata.var[name] for name in names if name is not None}
    return pd.DataFrame({**known, LEVEL: mean, VARIANCE: variance}, index=adata.var_names)


def _judge(genes: AnnData, label: str, wanted: list[str], options: dict[str, Any]) -> Verdict:
    """Predict the genes, which are samples here, by their vectors and by the baselines."""
    read: dict[str, Any] = {"layer": None, "reference": None, "covariates": [LEVEL, VARIANCE], **options}
    verdict, found = prepare(genes, label, task="classification", **read)
    samples, rng = verdict.samples, verdict.plan.protocol.rng
    table = samples.covariates
    for name, columns in BASELINES.items():
        if name in wanted and table is not None:
            found[name] = Candidate(table[columns], partial(_baseline, "covariates", samples.task, rng), "linear")
    verdict.baselines = wanted
    verdict.params["baselines"] = wanted
    verdict.predictions.update(predict_all(verdict.plan, found, verdict.name))
    return verdict


def _params(adata: AnnData, verdict: Verdict, layer: str | None, described: NDArray[np.bool_]) -> dict[str, Any]:
    made = get_params(adata, verdict.params["use_rep"])
    return {
        **verdict.params,
        "layer": layer or "X",
        "covariates": [],
        "model": str(made.get("model", "")),
        "checksum": str(made.get("checksum", "")),
        "pretraining_corpus": _corpus(made),
        "n_without_vector": int((~described).sum()),
    }


def _results(verdict: Verdict, keys: ClassifyGenesKeys, described: NDArray[np.bool_]) -> dict[str, Any]:
    shares = verdict.predictions[verdict.name].predicted
    probabilities = np.full((len(described), shares.shape[1]), np.nan)
    probabilities[described] = shares
    codes = np.full(len(described), -1)
    codes[described] = shares.argmax(axis=1)
    return {
        keys.prediction: pd.Categorical.from_codes(codes, categories=pd.Index(verdict.samples.classes)),
        keys.probabilities: probabilities,
    }
