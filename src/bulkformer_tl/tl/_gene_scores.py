"""How much the vector of a gene in the context of a sample says about the sample's survival."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bulkformer_tl._anndata import check_anndata, check_slots, copied, dense_rows, gene_mask, write_results
from bulkformer_tl._keys import GENE_SCORES, GeneScoreKeys
from bulkformer_tl._progress import Progress
from bulkformer_tl.metrics import Split, fit_predict, probe
from bulkformer_tl.metrics._check import as_labels
from bulkformer_tl.metrics._logrank_screen import martingale_residuals
from bulkformer_tl.metrics._paper import resolve_protocol
from bulkformer_tl.tl._columns import column
from bulkformer_tl.tl._input import prepare
from bulkformer_tl.tl._outcome import read_outcome

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anndata import AnnData
    from numpy.typing import NDArray

    from bulkformer_tl._vocabulary import Identifiers
    from bulkformer_tl.metrics import Protocol
    from bulkformer_tl.models import BulkFormer
    from bulkformer_tl.tl._input import ModelInput
    from bulkformer_tl.tl._outcome import Outcome

logger = logging.getLogger(__name__)

#: Numbers of the vectors that are held in memory at a time.
LARGEST = 2**26
HEADS = ("linear", "elastic_net", "random_forest", "knn", "mlp")


def gene_scores(
    adata: AnnData,
    time: str,
    *,
    event: str,
    mask_var: NDArray[np.bool_] | str,
    model: BulkFormer | str | Path = "bulkformer-mini",
    layer: str | None = None,
    groups: str | None = None,
    head: str | None = None,
    protocol: Protocol | Literal["paper"] | None = None,
    identifiers: Identifiers | None = None,
    key_added: str = GENE_SCORES,
    batch_size: int | None = None,
    device: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Score samples by what the contextual vector of each gene says about survival, out of fold.

    For each gene a head of its own reads the vector that the model's last layer gives it in a sample. It learns the
    martingale residuals of the training samples (event minus cumulative hazard, Therneau et al. 1990,
    doi:10.1093/biomet/77.1.147), so that censoring counts, and predicts the samples of the held-out fold; samples
    without an outcome are predicted by a head that was fitted to all others. What comes out is a layer of relative
    risks, which :func:`bulkformer_tl.tl.biomarkers` screens as it screens expression.

    Parameters
    ----------
    adata
        Samples by genes with ln(TPM+1) values.
    time
        Column of ``obs`` with the time until event or censoring.
    event
        Column of ``obs`` that says whether the event happened.
    mask_var
        Genes to score, as a boolean array of length ``n_vars`` or the name of a boolean ``var`` column: each costs one
        fit per fold.
    model
        A loaded model, a name of :func:`bulkformer_tl.models.available`, or a bundle folder.
    layer
        Key of :attr:`~anndata.AnnData.layers` to read; ``None`` reads ``X``.
    groups
        Column of ``obs`` that names what must stay in one fold, such as the patient.
    head
        ``"linear"`` (ridge regression), ``"elastic_net"``, ``"random_forest"``, ``"knn"`` or ``"mlp"``; ``None`` takes
        that of the protocol, or ``"linear"``.
    protocol
        Splits and head. ``"paper"`` takes :func:`bulkformer_tl.metrics.paper_protocol`: a random forest per gene on ten
        folds, which tells samples with the event from those without and ignores times; scores are then probabilities.
    identifiers
        What ``var_names`` are; ``None`` takes what :func:`bulkformer_tl.pp.log_tpm` was told, else Ensembl.
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

    ``adata.layers[key_added]`` : :class:`numpy.ndarray` (shape ``(n_obs, n_vars)``, dtype ``float32``)
        Relative risk, the exponential of the predicted residual (above 0, 1 is average), or a probability for
        ``"paper"``; ``NaN`` for genes that were not asked for or that the model does not know.
    ``adata.uns[key_added]["params"]`` : :class:`dict`
        How it was done.

    Raises
    ------
    ValueError
        If no gene is asked for that the model knows, outcomes are bad (see :func:`bulkformer_tl.tl.biomarkers`), values
        cannot be ln(TPM+1), or samples are too few for the folds.
    KeyError
        If a column or layer is not there.

    Notes
    -----
    Folds share training samples, so that p-values of a screen of these scores are not exact (Simon et al. 2011,
    doi:10.1093/bib/bbr001): take them to order genes, and permute outcomes to judge how many there are. The vector of a
    gene knows of all other genes of the sample: a score says little about the gene itself. Compare it with the screen
    of the gene's own expression.
    """
    check_anndata(adata)
    keys = GeneScoreKeys(key_added)
    check_slots(adata, key_added, [keys.scores])
    plan = resolve_protocol(protocol, "biomarkers")
    paper = protocol == "paper"
    head, options = plan.resolve_head(head)
    if head not in HEADS:
        message = f"there is no head {head!r}; choose among {list(HEADS)}"
        raise ValueError(message)
    outcome = read_outcome(adata, time, event)
    chosen = gene_mask(adata, mask_var)
    given = prepare(adata, model=model, layer=layer, identifiers=identifiers, min_coverage=0.2, device=device)
    genes = np.flatnonzero(given.match.found if chosen is None else given.match.found & chosen[given.match.columns])
    if not len(genes):
        message = f"mask_var selects no gene that {given.model.name} knows"
        raise ValueError(message)
    splits = _split(adata, given, outcome, plan, groups)
    task: Literal["classification", "regression"] = "classification" if paper else "regression"
    maker = partial(probe, head, task=task, rng=plan.rng, options=options)
    maker(shape=(1, 1))
    scores = np.full(adata.shape, np.nan, dtype=np.float32)
    with Progress(len(genes), GENE_SCORES, unit="gene") as progress:
        for block, vectors in _vectors(given, genes, batch_size):
            for j, gene in enumerate(block):
                scores[:, given.match.columns[gene]] = _score(vectors[:, j], outcome, splits, maker, paper=paper)
                progress.update(1)
    if plan.caveat:
        logger.warning("%s: %s", key_added, plan.caveat)
    params = {
        **given.params,
        "time": time,
        "event": event,
        "groups": groups or "",
        "head": head,
        "target": "event" if paper else "martingale residual",
        "n_genes": len(genes),
        "folds": len(splits) - 1,
        "protocol": plan.params(),
    }
    target = copied(adata) if copy else adata
    write_results(target, key_added, {keys.scores: scores}, params)
    return target if copy else None


def _split(adata: AnnData, given: ModelInput, outcome: Outcome, plan: Protocol, groups: str | None) -> list[Split]:
    """Split the samples with an outcome; the last split predicts the others from all of them."""
    rows = np.flatnonzero(outcome.known)
    members = None
    if groups is not None:
        members = as_labels(column(adata, groups, "groups").to_numpy(dtype=object)[rows], f"adata.obs[{groups!r}]")[0]
    if plan.duplicates is not None:
        members = np.asarray(plan.grouping(dense_rows(given.matrix, rows), members))
    events = outcome.event[rows]
    labels = np.where(events, "event", "no event") if not events.all() else None
    splits = [
        Split(rows[train], rows[test], name)
        for train, test, name in plan.split(len(rows), labels=labels, groups=members)
    ]
    return [*splits, Split(rows, np.flatnonzero(~outcome.known), "no outcome")]


def _vectors(given: ModelInput, genes: NDArray[np.intp], batch_size: int | None) -> Any:
    """Yield genes and their vectors in every sample, (N, genes, D), as many at a time as memory is meant for."""
    n_samples = given.matrix.shape[0]
    width = given.model.gene_table().shape[1]
    step = max(1, LARGEST // (n_samples * width))
    for start in range(0, len(genes), step):
        block = genes[start : start + step]
        parts = [
            given.encode(values, "genes", rows=rows, genes=block)[0]
            for rows, values in given.batches("encode", batch_size)
        ]
        yield block, np.concatenate(parts)


def _score(
    vectors: NDArray[np.float32],
    outcome: Outcome,
    splits: list[Split],
    maker: Callable[..., Any],
    *,
    paper: bool,
) -> NDArray[np.float64]:
    """Predict every sample by a head that was not fitted to it."""
    scores = np.full(len(vectors), np.nan)
    for split in splits:
        if not len(split.test):
            continue
        estimator = maker(shape=(len(split.train), vectors.shape[1]))
        if paper:
            shares = fit_predict(estimator, vectors, outcome.event.astype(np.intp), split, n_classes=2)
            scores[split.test] = shares[:, 1]
        else:
            # the hazard too is that of the training samples
            residuals = np.zeros(len(vectors))
            residuals[split.train] = martingale_residuals(outcome.time[split.train], outcome.event[split.train])
            scores[split.test] = np.exp(np.clip(fit_predict(estimator, vectors, residuals, split), -5, 5))
    return scores
