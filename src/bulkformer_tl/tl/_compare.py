"""Several models and encodings on one cohort, one set of folds and one table."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from bulkformer_tl._anndata import all_or_nothing, check_anndata, check_slots, copied, write_results
from bulkformer_tl._keys import CompareKeys, EmbedKeys
from bulkformer_tl._keys import params as params_slot
from bulkformer_tl.metrics import compare as compare_predictions
from bulkformer_tl.tl._columns import column
from bulkformer_tl.tl._embed import embed
from bulkformer_tl.tl._judge import MAIN, _better, _corpus, prepare, report_score
from bulkformer_tl.tl._probe import predict_all
from bulkformer_tl.tl._samples import embedding_params

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from bulkformer_tl.metrics import Protocol
    from bulkformer_tl.tl._judge import Verdict
    from bulkformer_tl.tl._samples import Task

logger = logging.getLogger(__name__)


def compare(
    adata: AnnData,
    label: str,
    *,
    models: Mapping[str, str | Mapping[str, Any]],
    task: Literal["classification", "regression"] | None = None,
    layer: str | None = None,
    groups: str | None = None,
    covariates: Sequence[str] | None = None,
    head: str | None = None,
    protocol: Protocol | None = None,
    key_added: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Judge several models and encodings by one label, on the same folds and resamples, beside simple baselines.

    Whether ranks, bins or magnitudes say more of a sample is asked of the same samples, split alike, under the same
    head, with an interval for every difference.

    Parameters
    ----------
    adata
        Samples by genes.
    label
        Column of ``obs`` to predict.
    models
        What is compared, by the name that it has in the table: a key of ``obsm``, or options of
        :func:`bulkformer_tl.tl.embed`, such as ``{"model": "bulkformer-mini", "layer": "log_tpm"}``, by which it is
        made first and kept as ``obsm["X_" + name]``.
    task
        ``"classification"`` or ``"regression"``; ``None`` classifies unless the label is numeric.
    layer
        ln(TPM+1) for the baselines and the search for near-duplicates; ``None`` reads ``X``.
    groups
        Column of ``obs`` that names what must stay together, such as the patient.
    covariates
        Columns of ``obs`` for the baseline ``"covariates"``.
    head
        As of :func:`bulkformer_tl.tl.classify`.
    protocol
        Splits, baselines and bootstrap; ``None`` takes ``bf.metrics.Protocol()``.
    key_added
        Name of the result; ``None`` takes ``"compare_" + label``.
    copy
        Return a modified copy instead of writing to ``adata``.

    Returns
    -------
    ``None``, or an :class:`~anndata.AnnData` if ``copy=True``. Sets the following fields:

    ``adata.uns[key_added]["scores"]`` : :class:`pandas.DataFrame`
        Scores of each model and baseline, with their axis and interval; :func:`bulkformer_tl.pl.scores` draws them.
    ``adata.uns[key_added]["differences"]`` : :class:`pandas.DataFrame`
        Each model minus each baseline and each other model on the same resamples, corrected for the number of these;
        ``better`` names whichever the interval favours, else ``"neither"``.
    ``adata.uns[key_added]["params"]`` : :class:`dict`
        How it was done; names of what was compared as ``models``, and in the same order ``use_reps``, ``checksums`` and
        ``pretraining_corpora``.
    ``adata.obsm["X_" + name]``
        Sample vectors of the models that were run.

    Raises
    ------
    ValueError
        If there are fewer than two models, names collide, or the label or the groups do not allow it.
    KeyError
        If a column, layer or representation is not there.
    TypeError
        If a model is neither a key nor options.

    Examples
    --------
    >>> import bulkformer_tl as bf
    >>> adata = bf.datasets.toy()
    >>> bf.pp.log_tpm(adata)
    >>> adata.obsm["X_first"] = adata.layers["log_tpm"][:, :20]
    >>> models = {"mini": {"model": "bulkformer-mini", "layer": "log_tpm"}, "first genes": "X_first"}
    >>> bf.tl.compare(adata, "tissue", models=models, layer="log_tpm")
    >>> set(models) <= set(adata.uns["compare_tissue"]["scores"]["representation"])
    True
    """
    check_anndata(adata)
    keys = CompareKeys(f"compare_{label}" if key_added is None else key_added)
    check_slots(adata, keys.key, [])
    kind = task or ("regression" if _numeric(adata, label) else "classification")
    if kind not in ("classification", "regression"):
        message = f"task is {task!r}; choose 'classification' or 'regression'"
        raise ValueError(message)
    _check_models(adata, models)
    options: dict[str, Any] = {
        "layer": layer,
        "groups": groups,
        "covariates": covariates,
        "head": head,
        "protocol": protocol,
        "reference": None,
    }
    # what the label does not allow is refused before a model runs
    first = next((key for key in models.values() if isinstance(key, str)), None)
    if first is not None or layer is not None or adata.X is not None:
        prepare(adata, label, task=kind, use_rep=first, **options)
    target = copied(adata) if copy else adata
    with all_or_nothing(target, _made(models)):
        found = {name: _representation(target, name, given) for name, given in models.items()}
        verdict = _judge(target, label, kind, found, options)
        scores, differences = _tables(verdict, list(found))
        params = {**verdict.params, **_described(target, found)}
        write_results(target, keys.key, {}, params, {"scores": scores, "differences": differences})
    report_score(keys.key, verdict.name, MAIN[kind], scores, differences)
    return target if copy else None


def _numeric(adata: AnnData, label: str) -> bool:
    found = column(adata, label, "the label")
    return pd.api.types.is_numeric_dtype(found) and not pd.api.types.is_bool_dtype(found)


def _check_models(adata: AnnData, models: Any) -> None:
    if not isinstance(models, Mapping) or len(models) < 2:
        message = (
            f"models is {models!r}; pass at least two by name, each a key of obsm or options of bf.tl.embed, such as "
            '{"magnitude": {"model": "bulkformer-mini", "layer": "log_tpm"}, "pca": "X_pca"}'
        )
        raise ValueError(message)
    for name, given in models.items():
        if isinstance(given, str):
            if given not in adata.obsm:
                message = f"{name!r} is {given!r}, which adata.obsm does not hold; it holds {sorted(adata.obsm)}"
                raise KeyError(message)
        elif not isinstance(given, Mapping):
            message = f"{name!r} is {type(given).__name__}; pass a key of obsm, or options of bf.tl.embed as a dict"
            raise TypeError(message)
        elif {"key_added", "copy", "output"} & set(given):
            message = f"{name!r} names key_added, copy or output; its vectors are kept as obsm['X_{name}']"
            raise ValueError(message)


def _representation(adata: AnnData, name: str, given: str | Mapping[str, Any]) -> str:
    """Return the key of a representation, made first where options are given."""
    if isinstance(given, str):
        return given
    embed(adata, **given, key_added=name)
    return f"X_{name}"


def _made(models: Mapping[str, str | Mapping[str, Any]]) -> list[str]:
    """Return the slots that are written to make what is compared."""
    made = [EmbedKeys(name) for name, given in models.items() if not isinstance(given, str)]
    return [slot for keys in made for slot in (keys.embedding, keys.in_vocabulary, params_slot(keys.key))]


def _judge(adata: AnnData, label: str, task: Task, found: Mapping[str, str], options: dict[str, Any]) -> Verdict:
    """Predict the label by every representation on the splits of the first, and by the baselines once."""
    read = {name: prepare(adata, label, task=task, use_rep=key, **options) for name, key in found.items()}
    verdict, listed = next(iter(read.values()))
    taken = set(verdict.baselines) & set(found)
    if taken:
        message = f"a model and a baseline are both called {sorted(taken)[0]!r}; name the model otherwise"
        raise ValueError(message)
    candidates = {name: own[judged.name] for name, (judged, own) in read.items()}
    candidates |= {name: listed[name] for name in verdict.baselines}
    verdict.name = next(iter(found))
    # nothing is predicted but what is scored
    plan = replace(verdict.plan, final=verdict.plan.scored[-1])
    verdict.predictions.update(predict_all(plan, candidates, verdict.name))
    return verdict


def _tables(verdict: Verdict, names: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    plan, tested = verdict.plan, verdict.tested
    scores, differences = compare_predictions(
        verdict.samples.target[tested],
        {name: found.predicted[tested] for name, found in verdict.predictions.items()},
        folds=plan.folds[tested],
        groups=None if plan.groups is None else plan.groups[tested],
        baselines=verdict.baselines,
        pairwise=True,
        protocol=plan.protocol,
    )
    differences["better"] = _better(differences)
    return scores, differences


def _described(adata: AnnData, found: Mapping[str, str]) -> dict[str, Any]:
    """Say what was compared, as plain values in place of those of a single model."""
    made = [embedding_params(adata, key) for key in found.values()]
    return {
        "models": list(found),
        "use_reps": list(found.values()),
        "checksums": [str(params.get("checksum", "")) for params in made],
        "pretraining_corpora": [_corpus(params) for params in made],
        "use_rep": "",
        "model": "",
        "checksum": "",
        "pretraining_corpus": "",
    }
