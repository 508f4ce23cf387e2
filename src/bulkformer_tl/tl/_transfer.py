"""Transfer of labels: what the nearest samples of a reference are, and whether there are any like these at all."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from bulkformer_tl._anndata import check_anndata, check_slots, copied, write_results
from bulkformer_tl._keys import TransferKeys
from bulkformer_tl.metrics import fit_predict, probe
from bulkformer_tl.metrics._baselines import TRIVIAL
from bulkformer_tl.metrics._heads import N_COMPONENTS
from bulkformer_tl.metrics._paper import resolve_protocol
from bulkformer_tl.tl._calibrate import distances_to_training, far_out
from bulkformer_tl.tl._columns import column
from bulkformer_tl.tl._judge import Verdict, fingerprint, merged, plan_params, report, resolve_baselines, tabulate
from bulkformer_tl.tl._mudata import takes_mudata
from bulkformer_tl.tl._probe import Candidate, Predictions, candidates, make_plan
from bulkformer_tl.tl._samples import EXPRESSION, read_samples

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from bulkformer_tl.metrics import Protocol
    from bulkformer_tl.tl._probe import Plan
    from bulkformer_tl.tl._samples import Samples, Task

logger = logging.getLogger(__name__)

#: Baselines of this task: the same neighbours among genes, and among principal components of them.
GENES, COMPONENTS = "raw (knn)", "pca (knn)"
METRICS = ("cosine", "euclidean")


@takes_mudata
def transfer(
    adata: AnnData,
    label: str,
    *,
    reference: AnnData,
    use_rep: str | None = "X_bulkformer",
    layer: str | None = None,
    groups: str | None = None,
    n_neighbors: int = 5,
    metric: Literal["cosine", "euclidean"] = "cosine",
    protocol: Protocol | None = None,
    key_added: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Give samples the labels of the nearest samples of a reference, and say how far away these are.

    Neighbours vote with the inverse of their distance: text, categories and booleans are classes, numbers are averaged.
    Whether the reference holds anything like a sample is a question of its own: ``_ood_p`` is the conformal p-value of
    its mean distance to the neighbours, the share of reference samples that are as far from the rest of the reference
    (Vovk et al. 2005; Bates et al. 2023, doi:10.1214/22-AOS2244). Samples of one group, such as a study, are not
    neighbours of each other there, so that a reference of several studies knows how far one study is from another.

    Parameters
    ----------
    adata
        Samples by genes, with the representation in ``obsm``; or a :class:`~mudata.MuData`, see :func:`classify`.
    label
        Column of ``obs`` of the reference. Where ``adata`` has it as well, it is scored.
    reference
        Samples with labels, embedded by the same model. Those that share a group with or are near-duplicates of a
        sample of ``adata`` are left out.
    use_rep
        Key of ``obsm`` of both; ``None`` takes expression itself, every gene scaled to unit variance.
    layer
        ln(TPM+1) of both for the baselines and the search for near-duplicates; ``None`` reads ``X``.
    groups
        Column of ``obs`` of both that names what belongs together, such as the study.
    n_neighbors
        Number of neighbours k.
    metric
        ``"cosine"``, around the mean of the reference, or ``"euclidean"``, where the mean variance of the reference's
        columns is 1. Between public studies the angle holds better, since platforms stretch profiles
        (``docs/benchmarks/transfer.md``).
    protocol
        Baselines and bootstrap; its splits have no part here. Baselines are the majority or mean, and the same
        neighbours among genes (``"raw (knn)"``) and among 50 principal components of the reference (``"pca (knn)"``),
        or those that it names.
    key_added
        Name of the result; ``None`` takes ``"transfer_"`` and the label.
    copy
        Return a modified copy instead of writing to ``adata``.

    Returns
    -------
    ``None``, or an :class:`~anndata.AnnData` if ``copy=True``. Sets the following fields:

    ``adata.obs[key_added + "_pred"]`` : :class:`pandas.Series` (categorical, or dtype ``float64``)
        Class with the largest share, or mean.
    ``adata.obs[key_added + "_ood_p"]`` : :class:`pandas.Series` (dtype ``float64``)
        Conformal p-value, no smaller than 1 / (1 + number of reference samples); small where the reference holds
        nothing like the sample.
    ``adata.obs[key_added + "_ood_ratio"]`` : :class:`pandas.Series` (dtype ``float64``)
        Mean distance to the neighbours, divided by the median of those within the reference.
    ``adata.obs[key_added + "_out_of_distribution"]`` : :class:`pandas.Series` (dtype ``bool``)
        Whether that distance is three interquartile ranges above the upper quartile of those within the reference.
    ``adata.obsm[key_added + "_proba"]`` : :class:`numpy.ndarray` (shape ``(n_obs, K)``, dtype ``float64``)
        Shares of the vote, in the order of ``adata.uns[key_added]["classes"]``; of classes only.
    ``adata.obsm[key_added + "_neighbors"]`` : :class:`pandas.DataFrame` (shape ``(n_obs, k)``)
        Names of the reference samples, nearest first.
    ``adata.obsm[key_added + "_distances"]`` : :class:`numpy.ndarray` (shape ``(n_obs, k)``, dtype ``float64``)
        Their distances.
    ``adata.uns[key_added]["scores"]``, ``adata.uns[key_added]["differences"]`` : :class:`pandas.DataFrame`
        As of :func:`classify`, where labels of ``adata`` are known.
    ``adata.uns[key_added]["params"]`` : :class:`dict`
        How it was done.

    Raises
    ------
    ValueError
        If both embeddings come from different models, neighbours are too few, ``adata`` holds a class that the
        reference does not, expression is no ln(TPM+1), or a slot holds something else.
    KeyError
        If a column, layer or representation is not there.

    Examples
    --------
    >>> import bulkformer_tl as bf
    >>> adata = bf.datasets.toy()
    >>> bf.pp.log_tpm(adata)
    >>> known, new = adata[::2].copy(), adata[1::2].copy()
    >>> bf.tl.transfer(new, "tissue", reference=known, use_rep=None, layer="log_tpm", n_neighbors=3)
    >>> new.obsm["transfer_tissue_neighbors"].shape == (new.n_obs, 3)
    True
    """
    keys = _check(adata, label, reference, metric, key_added)
    resolved = resolve_protocol(protocol, "transfer")
    task = _task_of(reference, label)
    readable = layer is not None or getattr(adata, "X", None) is not None
    baselines = _baselines(resolved, task, readable=readable)
    samples = read_samples(
        adata,
        label,
        task=task,
        use_rep=use_rep,
        layer=layer,
        groups=groups,
        covariates=None,
        reference=reference,
        expression=bool({*baselines} - {TRIVIAL[task]}) or (readable and resolved.duplicates is not None),
    )
    plan = make_plan(samples, resolved)
    _check_neighbors(n_neighbors, len(plan.final.train))
    options = {"n_neighbors": n_neighbors, "metric": metric, "weights": "distance"}
    name = f"{EXPRESSION if use_rep is None else use_rep} (knn)"
    found = _candidates(samples, name, baselines, options, rng=resolved.rng)
    predictions = {other: _predict(plan, candidate) for other, candidate in found.items()}
    near = _Neighbours(plan, found[name], options)
    names = [*baselines, *(block.name for block in samples.blocks)]
    params = plan_params(adata, plan, label=label, use_rep=use_rep, layer=layer, groups=groups, covariates=None)
    params |= {"representation": name, "head": "knn", "baselines": names, "n_neighbors": n_neighbors, "metric": metric}
    outlier = np.zeros(len(samples.target), dtype=bool)
    outlier[plan.final.test] = near.far
    verdict = Verdict(name, plan, predictions, outlier, names, params)
    _log(keys.key, near)
    extra: dict[str, Any] = {"classes": np.asarray(samples.classes)} if task == "classification" else {}
    if verdict.tested.any():
        scores, differences = tabulate(verdict, {})
        mark = fingerprint(verdict, n_neighbors=n_neighbors, metric=metric)
        params |= {"axis": str(scores["axis"].iloc[0]), "fingerprint": mark}
        extra |= merged(adata, keys.key, mark, scores, differences)
        report(keys.key, verdict, scores, differences)
    written = copied(adata) if copy else adata
    write_results(written, keys.key, _results(verdict, keys, near, reference, adata), params, extra)
    return written if copy else None


def _check(adata: AnnData, label: str, reference: AnnData, metric: str, key_added: str | None) -> TransferKeys:
    for part in (adata, reference):
        check_anndata(part)
    if adata is reference:
        message = "adata is the reference; bf.tl.classify predicts samples from others of the same table, fold by fold"
        raise ValueError(message)
    if metric not in METRICS:
        message = f"metric is {metric!r}; use one of {list(METRICS)}"
        raise ValueError(message)
    keys = TransferKeys.of(label, key_added)
    check_slots(adata, keys.key, keys.slots)
    return keys


def _check_neighbors(n_neighbors: int, n: int) -> None:
    if isinstance(n_neighbors, bool) or not isinstance(n_neighbors, int) or not 1 <= n_neighbors <= n:
        message = (
            f"n_neighbors is {n_neighbors!r}; use a whole number from 1 to {n}, the labelled samples of the reference "
            "that share no group and no near-duplicate with adata"
        )
        raise ValueError(message)


def _task_of(reference: AnnData, label: str) -> Task:
    """Take numbers for numbers, and everything else for classes."""
    kind = pd.api.types.infer_dtype(column(reference, label, "the label, of the reference"), skipna=True)
    return "regression" if kind in ("floating", "integer", "mixed-integer-float") else "classification"


def _baselines(protocol: Protocol, task: Task, *, readable: bool) -> list[str]:
    own = (GENES, COMPONENTS)
    if protocol.baselines is None:
        return [TRIVIAL[task], *(own if readable else ())]
    others = tuple(name for name in protocol.baselines if name not in own)
    found = resolve_baselines(replace(protocol, baselines=others), task, None, readable=readable)
    return [*found, *(name for name in own if name in protocol.baselines)]


def _candidates(
    samples: Samples, name: str, baselines: list[str], options: dict[str, Any], *, rng: int
) -> dict[str, Candidate]:
    """List the representation, its modalities and the baselines, all under the same vote of neighbours."""
    task = samples.task
    maker = partial(probe, "knn", task=task, rng=rng, options=options)
    named = [other for other in baselines if other not in (GENES, COMPONENTS)]
    found = candidates(samples, name, head="knn", maker=maker, baselines=named, extra={}, rng=rng)
    for other, more in ((GENES, {}), (COMPONENTS, {"n_components": N_COMPONENTS})):
        if other in baselines:
            make = partial(_each, partial(maker, options=options | more))
            found[other] = Candidate(samples.values, make, "knn")
    return found


def _each(maker: Any, shape: tuple[int, int]) -> Any:
    return maker(shape=shape, scale="each")


def _predict(plan: Plan, candidate: Candidate) -> Predictions:
    """Predict the samples of ``adata`` from those of the reference."""
    samples, split = plan.samples, plan.final
    n, k = len(samples.target), len(samples.classes)
    predicted = np.full((n, k) if k else n, np.nan)
    model = candidate.make((len(split.train), candidate.matrix.shape[1]))
    predicted[split.test] = fit_predict(model, candidate.matrix, samples.target, split, n_classes=k or None)
    return Predictions(predicted, np.full(n, np.nan))


class _Neighbours:
    """Nearest samples of the reference, and how far they are beside the distances within the reference."""

    def __init__(self, plan: Plan, candidate: Candidate, options: dict[str, Any]) -> None:
        split, matrix = plan.final, candidate.matrix
        model = candidate.make((len(split.train), matrix.shape[1])).fit(
            matrix[split.train], plan.samples.target[split.train]
        )
        train, test = (model[:-1].transform(matrix[rows]) for rows in (split.train, split.test))
        self.distances, nearest = model[-1].kneighbors(test)
        self.rows: NDArray[np.intp] = split.train[nearest]
        groups = None if plan.groups is None else plan.groups[split.train]
        usual, own = distances_to_training(
            train, test, groups, n_neighbors=options["n_neighbors"], metric=options["metric"]
        )
        self.far = far_out(usual, own)
        # conformal: a sample like the reference is as far as this in this share of cases
        self.p = (1 + len(usual) - np.searchsorted(np.sort(usual), own, side="left")) / (1 + len(usual))
        self.ratio = own / np.median(usual) if len(usual) else np.full(len(own), np.nan)


def _log(key: str, near: _Neighbours) -> None:
    n = int(near.far.sum())
    if n:
        logger.warning(
            "%s: the reference holds nothing like %d of %d samples; do not trust their labels", key, n, len(near.far)
        )


def _results(
    verdict: Verdict, keys: TransferKeys, near: _Neighbours, reference: AnnData, adata: AnnData
) -> dict[str, Any]:
    found = verdict.predictions[verdict.name].predicted[verdict.own]
    names = np.asarray(reference.obs_names, dtype=object)[near.rows]
    ranks = [str(rank) for rank in range(names.shape[1])]
    results: dict[str, Any] = {
        keys.prediction: found,
        keys.p_value: near.p,
        keys.ratio: near.ratio,
        keys.outlier: near.far,
        keys.neighbors: pd.DataFrame(names, index=adata.obs_names, columns=ranks),
        keys.distances: np.asarray(near.distances, dtype=np.float64),
    }
    if verdict.samples.task == "classification":
        classes = pd.Index(verdict.samples.classes)
        results[keys.prediction] = pd.Categorical.from_codes(found.argmax(axis=1).tolist(), categories=classes)
        results[keys.probabilities] = found
    return results
