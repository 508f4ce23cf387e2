"""Judge a representation beside baselines: from AnnData to predictions and tables, the same for every probe."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from bulkformer_tl import registry
from bulkformer_tl._anndata import get_params
from bulkformer_tl.metrics import add_rows, baseline_names, compare, probe, resample
from bulkformer_tl.metrics._baselines import DEFAULT, RECIPES, TRIVIAL
from bulkformer_tl.metrics._paper import resolve_protocol
from bulkformer_tl.metrics._tables import LESS_IS_BETTER, SCORES, interval
from bulkformer_tl.tl._probe import Candidate, Plan, Predictions, candidates, make_plan, outliers, predict_all
from bulkformer_tl.tl._samples import EXPRESSION, Samples, Task, embedding_params, read_samples
from bulkformer_tl.tl._untrained import UNTRAINED, untrained_embedding

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

    from bulkformer_tl.metrics import Protocol

logger = logging.getLogger(__name__)

#: The score that the log line is about, for each task.
MAIN = {"classification": "auroc", "regression": "r2"}
#: Heads that a probe can have; some are larger than a table of arrays and cannot be kept.
HEADS = ("linear", "elastic_net", "random_forest", "knn", "mlp")
#: Fields of a protocol that are no reason to keep two runs apart.
OF_HEAD = ("head", "head_options", "assumed", "caveat")


@dataclass(eq=False)
class Verdict:
    """What judging found.

    Parameters
    ----------
    name
        What the representation is called in the tables.
    plan
        Samples and splits.
    predictions
        Predictions of the representation and of each baseline.
    outlier
        Whether each sample is far from the training samples of its split.
    baselines
        Names among ``predictions``.
    params
        How it was done, plain values.
    """

    name: str
    plan: Plan
    predictions: dict[str, Predictions]
    outlier: NDArray[np.bool_]
    baselines: list[str]
    params: dict[str, Any]

    @property
    def samples(self) -> Samples:
        """The samples, those of a reference first."""
        return self.plan.samples

    @property
    def own(self) -> slice:
        """Rows of the samples of ``adata``."""
        return slice(self.samples.n_reference, None)

    @property
    def tested(self) -> NDArray[np.bool_]:
        """Whether each sample is scored."""
        return self.plan.folds >= 0


def judge(
    adata: AnnData,
    label: str,
    *,
    task: Task,
    **options: Any,
) -> Verdict:
    """Read the samples, split them, and predict each with heads that were not fitted to it.

    Parameters
    ----------
    adata
        Samples to predict.
    label
        Column of ``obs``.
    task
        ``"classification"`` or ``"regression"``.
    **options
        As of :func:`prepare`.

    Raises
    ------
    KeyError, TypeError, ValueError
        If the input does not allow it; before anything is fitted.
    """
    verdict, found = prepare(adata, label, task=task, **options)
    verdict.predictions.update(predict_all(verdict.plan, found, verdict.name))
    return verdict


def prepare(
    adata: AnnData,
    label: str,
    *,
    task: Task | Literal["matrix"],
    use_rep: str | None,
    layer: str | None,
    groups: str | None,
    covariates: Sequence[str] | None,
    head: str | None,
    protocol: Protocol | Literal["paper"] | None,
    reference: AnnData | None,
) -> tuple[Verdict, dict[str, Candidate]]:
    """Read and split the samples, and list what is to be fitted: a verdict without predictions, and the candidates.

    Raises
    ------
    KeyError, TypeError, ValueError
        If the input does not allow it; before anything is fitted.
    """
    kind: Task = "regression" if task == "matrix" else task
    protocol = resolve_protocol(protocol, kind)
    head, options = protocol.resolve_head(head)
    if head not in HEADS:
        message = f"there is no head {head!r}; choose among {list(HEADS)}"
        raise ValueError(message)
    readable = layer is not None or getattr(adata, "X", None) is not None
    baselines = resolve_baselines(protocol, kind, covariates, readable=readable)
    reads = [name for name in baselines if RECIPES.get(name, ("covariates",))[0] != "covariates"]
    samples = read_samples(
        adata,
        label,
        task=task,
        use_rep=use_rep,
        layer=layer,
        groups=groups,
        covariates=covariates,
        reference=reference,
        expression=bool(reads) or (readable and protocol.duplicates is not None),
    )
    # unknown options are refused before anything is fitted
    maker = partial(probe, head, task=kind, rng=protocol.rng, options=options)
    maker(shape=(1, 1))
    plan = make_plan(samples, protocol)
    # of a fused representation each modality is a baseline
    baselines = [*baselines, *(block.name for block in samples.blocks)]
    name = EXPRESSION if use_rep is None else use_rep
    name = name if head == "linear" else f"{name} ({head})"
    extra = {}
    if UNTRAINED in baselines:
        parts = [adata] if reference is None else [reference, adata]
        extra = {UNTRAINED: untrained_embedding(parts, use_rep, rng=protocol.rng)}
    found = candidates(samples, name, head=head, maker=maker, baselines=baselines, extra=extra, rng=protocol.rng)
    params = plan_params(adata, plan, label=label, use_rep=use_rep, layer=layer, groups=groups, covariates=covariates)
    params |= {"representation": name, "head": head, "baselines": baselines}
    if protocol.caveat:
        logger.warning("%s: %s", label, protocol.caveat)
    return Verdict(name, plan, {}, outliers(plan), baselines, params), found


def resolve_baselines(protocol: Protocol, task: Task, covariates: Sequence[str] | None, *, readable: bool) -> list[str]:
    """List the baselines that the protocol names, or those that the data allow.

    Raises
    ------
    ValueError
        If one is unknown or lacks what it reads.
    """
    if protocol.baselines is None:
        expression = DEFAULT if readable else ()
        return [TRIVIAL[task], *expression, *(["covariates"] if covariates is not None else [])]
    known = [*baseline_names(task), UNTRAINED]
    for name in protocol.baselines:
        if name not in known:
            message = f"there is no baseline {name!r} for {task}; choose among {known}"
            raise ValueError(message)
    if "covariates" in protocol.baselines and covariates is None:
        message = "the baseline 'covariates' needs covariates=, a list of columns of adata.obs"
        raise ValueError(message)
    return list(protocol.baselines)


def plan_params(
    adata: AnnData,
    plan: Plan,
    *,
    label: str,
    use_rep: str | None,
    layer: str | None,
    groups: str | None,
    covariates: Sequence[str] | None,
) -> dict[str, Any]:
    """Say how samples were read and split, and what is known of the model, as plain values."""
    samples, protocol = plan.samples, plan.protocol
    joined = 0 if plan.groups is None else len(plan.groups) - len(np.unique(plan.groups))
    made = embedding_params(adata, use_rep)
    return {
        "task": samples.task,
        "label": label,
        "use_rep": use_rep or "",
        "layer": layer or "X",
        "groups": groups or "",
        "covariates": list(covariates or []),
        "model": str(made.get("model", "")),
        "checksum": str(made.get("checksum", "")),
        "pretraining_corpus": _corpus(made),
        "n": int((plan.folds >= 0).sum()),
        "n_trained": len(plan.final.train),
        "n_unlabelled": int((~samples.labelled[samples.n_reference :]).sum()),
        "n_joined": joined,
        "folds": len(plan.scored),
        "trained_on": "reference" if samples.n_reference else "the other folds",
        "protocol": protocol.params(),
    }


def _corpus(made: Mapping[str, Any]) -> str:
    """Say what the model had seen before, as far as the registry knows."""
    name = str(made.get("model", ""))
    if not name:
        return "not known to be an embedding of a model"
    return registry.info(name).corpus if name in registry.available() else f"not known of {name!r}"


def tabulate(verdict: Verdict, extra: Mapping[str, Mapping[str, Any]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Score the predictions and compare them with the baselines.

    Parameters
    ----------
    verdict
        The predictions.
    extra
        Further scores that are ratios of sums over samples: name, and of each candidate the terms above and below,
        each of shape (N,).

    Returns
    -------
    Scores, and differences with the column ``better``: whichever its interval favours, else ``"neither"``.
    """
    tested, plan = verdict.tested, verdict.plan
    groups = None if plan.groups is None else plan.groups[tested]
    scores, differences = compare(
        verdict.samples.target[tested],
        {name: found.predicted[tested] for name, found in verdict.predictions.items()},
        folds=plan.folds[tested],
        groups=groups,
        baselines=verdict.baselines,
        protocol=plan.protocol,
    )
    weights = resample(int(tested.sum()), n_bootstrap=plan.protocol.n_bootstrap, groups=groups, rng=plan.protocol.rng)
    rows = []
    for metric, terms in extra.items():
        for name, (above, below) in terms.items():
            rows.append(
                (name, metric, *_ratio(above[tested], below[tested], weights, plan.folds[tested], plan.protocol))
            )
    more = pd.DataFrame(rows, columns=SCORES)
    differences["better"] = _better(differences)
    return pd.concat([scores, more], ignore_index=True) if rows else scores, differences


def _ratio(
    above: NDArray[np.float64],
    below: NDArray[np.float64],
    weights: NDArray[np.float64],
    folds: NDArray[np.intp],
    protocol: Protocol,
) -> tuple[str, float, float, float, int, float]:
    with np.errstate(invalid="ignore", divide="ignore"):
        draws = (weights @ above) / (weights @ below)
        each = np.array([above[folds == fold].sum() / below[folds == fold].sum() for fold in np.unique(folds)])
        mean = float(above.sum() / below.sum())
    known = each[np.isfinite(each)]
    spread = float(known.std(ddof=1)) if len(known) > 1 else np.nan
    return ("pooled", mean, *interval(draws, protocol.level), len(above), spread)


def _better(differences: pd.DataFrame) -> list[str]:
    """Name whichever of the two the interval of a difference favours, else ``"neither"``."""
    sign = np.where(differences["metric"].isin(LESS_IS_BETTER), -1, 1)
    ends = differences[["low", "high"]].to_numpy() * sign[:, None]
    wins, loses = ends.min(axis=1) > 0, ends.max(axis=1) < 0
    names = differences["representation"].to_numpy(), differences["baseline"].to_numpy()
    return [str(name) for name in np.select([wins, loses], names, "neither")]


def fingerprint(verdict: Verdict, **options: Any) -> str:
    """Hash what has to agree before rows of two runs may stand in one table."""
    return hash_run(verdict.plan, verdict.params, **options)


def hash_run(plan: Plan, params: Mapping[str, Any], **options: Any) -> str:
    """Hash samples, splits and options of a run."""
    samples = plan.samples
    protocol = {name: value for name, value in params["protocol"].items() if name not in OF_HEAD}
    plain = {
        **{name: params[name] for name in ("label", "layer", "groups", "covariates", "baselines")},
        "protocol": protocol,
        "classes": [str(name) for name in samples.classes],
        **options,
    }
    digest = hashlib.sha256(json.dumps(plain, sort_keys=True).encode())
    for array in (samples.target.astype(np.float64), plan.folds.astype(np.int64), plan.final.train.astype(np.int64)):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def merged(
    adata: AnnData, key: str, mark: str, scores: pd.DataFrame, differences: pd.DataFrame, **more: pd.DataFrame
) -> dict[str, pd.DataFrame]:
    """Add the rows to the tables of an earlier run on the same samples, folds and baselines, or begin anew."""
    before = get_params(adata, key)
    tables = {"scores": scores, "differences": differences, **more}
    if not before or not all(name in adata.uns[key] for name in tables):
        return tables
    if before.get("fingerprint") != mark:
        logger.info("%s: samples, folds or options differ from those of the earlier run; its rows are dropped", key)
        return tables
    return {name: add_rows(adata.uns[key][name], table) for name, table in tables.items()}


def report(key: str, verdict: Verdict, scores: pd.DataFrame, differences: pd.DataFrame) -> None:
    """Log the main score, and every baseline that is better or that cannot be told apart."""
    report_score(key, verdict.name, MAIN[verdict.samples.task], scores, differences)


def report_score(key: str, name: str, metric: str, scores: pd.DataFrame, differences: pd.DataFrame) -> None:
    """Log one score, along the first axis that has it, and how every baseline that has it stands to it."""
    row = scores[(scores["representation"] == name) & (scores["metric"] == metric)].iloc[0]
    logger.info(
        "%s: %s reaches %s %.3f (%.3f to %.3f, axis %s, n = %d)",
        key,
        name,
        metric,
        row["mean"],
        row["low"],
        row["high"],
        row["axis"],
        row["n"],
    )
    same = (differences["metric"] == metric) & (differences["axis"] == row["axis"])
    same &= differences["representation"] == name
    for line in differences[same].dropna(subset="difference").to_dict("records"):
        verb = {name: "is beaten by", line["baseline"]: "WINS over"}.get(line["better"], "is not told apart from")
        span = f"{line['difference']:+.3f}, {line['low']:+.3f} to {line['high']:+.3f}"
        logger.info("%s: the baseline %s %s %s (difference %s)", key, line["baseline"], verb, name, span)
