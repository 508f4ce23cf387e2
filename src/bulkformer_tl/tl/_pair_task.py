"""Judge a representation on pairs beside baselines: from checked input to predictions, tables and a kept head."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bulkformer_tl._kept_files import as_entry
from bulkformer_tl.metrics._matrix import compare_matrices, draw_weights
from bulkformer_tl.metrics._paper import paper_protocol, resolve_protocol
from bulkformer_tl.tl._columns import check_covariates, covariate_matrix
from bulkformer_tl.tl._judge import OF_HEAD, _better, _corpus, merged, report_score
from bulkformer_tl.tl._pair_heads import PairHead
from bulkformer_tl.tl._pair_mlp import make_mlp
from bulkformer_tl.tl._pairs import Kind, candidates, fill_pairs, plan_pairs
from bulkformer_tl.tl._response import line_groups
from bulkformer_tl.tl._samples import EXPRESSION, embedding_params, fused_blocks, read_representation
from bulkformer_tl.tl._untrained import UNTRAINED, untrained_embedding

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from anndata import AnnData
    from numpy.typing import NDArray

    from bulkformer_tl.metrics import Protocol, Split
    from bulkformer_tl.tl._pairs import Filled, Pairs
    from bulkformer_tl.tl._response import Table

    Numbers = NDArray[np.float64]

logger = logging.getLogger(__name__)

HEADS = ("linear", "mlp")
#: Baselines that read expression.
READS = {"raw", "pca", "expression"}


@dataclass(frozen=True)
class Options:
    """How pairs are judged, as a user asked for it.

    Parameters
    ----------
    task
        ``"drug_response"`` or ``"essentiality"``.
    kind
        What is unseen.
    head
        Kind of head.
    head_options
        Of a network.
    protocol
        Splits, baselines and bootstrap.
    baselines
        Names.
    use_rep
        Key of ``obsm``, or ``None``.
    layer
        Where expression is.
    groups
        Column of ``obs``.
    lines
        Column of ``obs``.
    covariates
        Columns of ``obs`` for the baseline of that name.
    """

    task: str
    kind: Kind
    head: str
    head_options: dict[str, Any]
    protocol: Protocol
    baselines: list[str]
    use_rep: str | None
    layer: str | None
    groups: str | None
    lines: str | None
    covariates: list[str]

    @property
    def name(self) -> str:
        """What the representation is called in the tables."""
        name = EXPRESSION if self.use_rep is None else self.use_rep
        return name if self.head == "linear" else f"{name} ({self.head})"


def resolve_options(
    task: str,
    column: str,
    unseen: str | None,
    head: str | None,
    protocol: Protocol | str | None,
    *,
    readable: bool,
    described: bool,
    covariates: Sequence[str] | None,
    **reads: str | None,
) -> Options:
    """Resolve defaults and refuse what does not go together, before anything is read.

    Raises
    ------
    ValueError
        If a head, a baseline or ``unseen`` is unknown or lacks features.
    """
    resolved = resolve_protocol(protocol, task)
    paper = resolved.caveat == paper_protocol(task).caveat
    kind = Kind(column, unseen or ("pair" if paper else "line"))
    known = ("line", column, "both", "pair")
    if kind.unseen not in known:
        message = f"unseen is {kind.unseen!r}; choose among {list(known)}"
        raise ValueError(message)
    if kind.new_columns and not described:
        source = (
            "drugs=, SMILES by name or a data frame of features" if column == "drug" else "gene_vectors=, a key of varm"
        )
        message = (
            f"unseen={kind.unseen!r} predicts {column}s that were not trained on, by their features; pass {source}"
        )
        raise ValueError(message)
    chosen, options = resolved.resolve_head(head)
    if chosen not in HEADS:
        message = f"there is no head {chosen!r} of pairs; choose among {list(HEADS)}"
        raise ValueError(message)
    if chosen == "mlp":
        # unknown options are refused before anything is fitted
        make_mlp(options, resolved.rng)
    read = [] if covariates is None else check_covariates(covariates)
    baselines = _baselines(resolved, kind, readable=readable, described=described, covariates=bool(read))
    return Options(task, kind, chosen, options, resolved, baselines, covariates=read, **reads)


def _baselines(protocol: Protocol, kind: Kind, *, readable: bool, described: bool, covariates: bool) -> list[str]:
    known = kind.baselines
    if protocol.baselines is None:
        absent = (READS if not readable else set()) | (set() if covariates else {"covariates"})
        return [name for name, taken in known.items() if taken and name not in absent]
    if "covariates" in protocol.baselines and not covariates:
        message = "the baseline 'covariates' needs covariates=, columns of adata.obs such as ['age', 'sex']"
        raise ValueError(message)
    for name in protocol.baselines:
        if name not in known:
            message = f"there is no baseline {name!r} for pairs; choose among {list(known)}"
            raise ValueError(message)
        if name.startswith("nearest_") and not (described and kind.new_columns):
            message = (
                f"the baseline {name!r} is for {kind.column}s that were not trained on; pass unseen={kind.column!r}"
            )
            raise ValueError(message)
    return list(protocol.baselines)


def read_inputs(parts: list[AnnData], table: Table, options: Options) -> dict[str, Any]:
    """Read representation, expression, groups and covariates of the lines; fields of :class:`Pairs`."""
    protocol = options.protocol
    readable = options.layer is not None or getattr(parts[-1], "X", None) is not None
    expression = bool(READS & set(options.baselines)) or (readable and protocol.duplicates is not None)
    representation, values, genes = read_representation(parts, options.use_rep, options.layer, expression=expression)
    groups = line_groups(parts, table, groups=options.groups, values=values, protocol=protocol)
    return {
        "representation": representation,
        "values": values,
        "genes": genes,
        "row_groups": groups,
        "covariates": covariate_matrix(parts, options.covariates) if options.covariates else None,
    }


@dataclass(eq=False)
class PairVerdict:
    """What judging pairs found.

    Parameters
    ----------
    pairs
        The pairs.
    options
        How it was done.
    splits
        Splits of the measured pairs.
    filled
        Predictions.
    """

    pairs: Pairs
    options: Options
    splits: list[Split]
    filled: Filled

    @property
    def own(self) -> slice:
        """Rows of the samples of ``adata``."""
        return slice(self.pairs.n_reference, None)

    @property
    def predicted(self) -> Numbers:
        """Predictions of the representation for ``adata``, shape (n_obs, M)."""
        return self.filled.predicted[self.options.name][self.own]


def judge_pairs(
    parts: list[AnnData], pairs: Pairs, options: Options, extra: Mapping[str, Any] | None = None
) -> PairVerdict:
    """Predict pairs out of fold by a representation and by baselines.

    Parameters
    ----------
    parts
        A reference, if there is one, and the samples to predict.
    pairs
        Lines, columns and what is measured.
    options
        How it is done.
    extra
        Further representations: name, and a function of the known matrix, as of :func:`candidates`.
    """
    protocol, kind = options.protocol, options.kind
    # of a fused representation each modality is a baseline
    blocks = fused_blocks(parts[-1], options.use_rep)
    options = replace(options, baselines=[*options.baselines, *(block.name for block in blocks)])
    splits = plan_pairs(pairs, kind, protocol)
    if protocol.caveat:
        logger.warning("%s: %s", options.task, protocol.caveat)
    untrained = None
    if UNTRAINED in options.baselines:
        untrained = untrained_embedding(parts, options.use_rep, rng=protocol.rng)
    found = candidates(
        pairs,
        options.name,
        head=options.head,
        options=options.head_options,
        baselines=options.baselines,
        untrained=untrained,
        blocks=blocks,
        rng=protocol.rng,
    )
    found |= extra or {}
    return PairVerdict(
        pairs, options, splits, fill_pairs(pairs, kind, protocol, splits=splits, found=found, task=options.task)
    )


def tables(adata: AnnData, key: str, verdict: PairVerdict) -> tuple[dict[str, pd.DataFrame], str]:
    """Score the predictions along both axes, and put the rows beside those of an earlier run on the same pairs."""
    pairs, options, own = verdict.pairs, verdict.options, verdict.own
    kind, protocol = options.kind, options.protocol
    weights = draw_weights(pairs.row_groups[own], pairs.column_groups, protocol, which=kind.resampled)
    scores, differences, units = compare_matrices(
        pairs.known[own],
        {name: found[own] for name, found in verdict.filled.predicted.items()},
        folds=verdict.filled.folds[own],
        weights=weights,
        axes=kind.axes,
        classes=pairs.classes,
        baselines=options.baselines,
        level=protocol.level,
    )
    differences["better"] = _better(differences)
    names = {kind.axes[0]: pairs.columns, kind.axes[1]: [str(name) for name in adata.obs_names]}
    for axis, table in units.items():
        label = axis.removeprefix("per_")
        table.insert(1, label, np.array(names[axis], dtype=object)[table.pop("unit").to_numpy()])
    mark = _fingerprint(verdict)
    found = merged(adata, key, mark, scores, differences, **units)
    report_score(key, options.name, "auroc" if pairs.classes else "pearson", scores, differences)
    return found, mark


def _fingerprint(verdict: PairVerdict) -> str:
    """Hash what has to agree before rows of two runs may stand in one table."""
    pairs, options = verdict.pairs, verdict.options
    protocol = {name: value for name, value in options.protocol.params().items() if name not in OF_HEAD}
    plain = [options.task, options.kind.unseen, options.groups, options.lines, options.layer, options.baselines]
    plain += [options.covariates]
    digest = hashlib.sha256(json.dumps([*plain, protocol, pairs.columns], sort_keys=True).encode())
    for array in (
        np.nan_to_num(pairs.known),
        verdict.filled.folds.astype(np.int64),
        pairs.column_groups.astype(np.int64),
    ):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def pair_params(adata: AnnData, verdict: PairVerdict) -> dict[str, Any]:
    """Say how it was done, as plain values."""
    pairs, options, own = verdict.pairs, verdict.options, verdict.own
    made = embedding_params(adata, options.use_rep)
    return {
        "task": options.task,
        "target": "classes" if pairs.classes else "numbers",
        "unseen": options.kind.unseen,
        "representation": options.name,
        "head": options.head,
        "baselines": options.baselines,
        "use_rep": options.use_rep or "",
        "layer": options.layer or "X",
        "groups": options.groups or "",
        "lines": options.lines or "",
        "covariates": options.covariates,
        "model": str(made.get("model", "")),
        "checksum": str(made.get("checksum", "")),
        "pretraining_corpus": _corpus(made),
        "n": int((verdict.filled.folds[own] >= 0).sum()),
        "n_lines": int((~np.isnan(pairs.known[own])).any(axis=1).sum()),
        "n_groups": len(np.unique(pairs.row_groups[own][(~np.isnan(pairs.known[own])).any(axis=1)])),
        f"n_{options.kind.column}s": len(pairs.columns),
        "n_unlabelled": int(np.isnan(pairs.known[own]).all(axis=1).sum()),
        "folds": len(verdict.splits),
        "penalties": [list(map(float, chosen)) for chosen in verdict.filled.chosen],
        "trained_on": "reference" if pairs.n_reference else "the other folds",
        "protocol": options.protocol.params(),
    }


def keep_pair_head(verdict: PairVerdict, params: Mapping[str, Any], features: list[str]) -> dict[str, Any]:
    """Return ``{"head": ...}`` for ``uns``."""
    model, pairs = verdict.filled.model, verdict.pairs
    facts = {
        "task": verdict.options.task,
        "kind": model.kind,
        "classes": pairs.classes,
        "columns": pairs.columns,
        "features": features,
        "use_rep": str(params["use_rep"]),
        "checksum": str(params["checksum"]),
        "genes": [] if params["use_rep"] else pairs.genes,
    }
    return {"head": as_entry(PairHead(facts, dict(model.arrays)))}
