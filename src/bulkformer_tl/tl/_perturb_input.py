"""What a perturbation starts from: samples, groups, states and what to read, checked before any pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bulkformer_tl._anndata import row_blocks
from bulkformer_tl.tl._columns import column
from bulkformer_tl.tl._heads import Head, fitted_head
from bulkformer_tl.tl._matrix_head import MatrixHead
from bulkformer_tl.tl._pair_heads import PairHead
from bulkformer_tl.tl._perturb_passes import Editor, GeneReader, VectorReader
from bulkformer_tl.tl._perturb_ranks import RankEditor, RankReader
from bulkformer_tl.tl._perturb_readouts import HeadOutput, Shift, Ways, cosine_distance, head_width
from bulkformer_tl.tl._perturb_states import States
from bulkformer_tl.tl._samples import embedding_params

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

    from bulkformer_tl.models._perturb import Passes
    from bulkformer_tl.models._perturb_ranks import RankPasses
    from bulkformer_tl.tl._input import ModelInput
    from bulkformer_tl.tl._perturb_change import Change
    from bulkformer_tl.tl._perturb_sets import Perturbation

    AnyReadout = str | States | Head | MatrixHead | PairHead
    AnyReader = VectorReader | GeneReader | RankReader

#: What is read beside states and heads.
OUTPUTS = ("sample", "genes", "expression")
#: What the sample vector of an embedding may have been made with.
OPTIONS = ("pooling", "observed_only", "summary_columns")
#: How far a stored embedding may be from what the model makes of the same samples, relative to its length.
SAME = 1e-3


def read_values(given: ModelInput) -> NDArray[np.float32]:
    """Return the cohort in the order of the vocabulary, (N, G), ``NaN`` where missing."""
    return np.concatenate([given.match.align(block) for _, block in row_blocks(given.matrix)])


def quantiles_of(change: Change, values: NDArray[np.float32], *, counts: bool) -> NDArray[np.float32] | None:
    """Return the quantile of each gene among the samples, (G,), ``NaN`` for missing ones; ``None`` if not needed.

    Counts are divided by the sum of their sample.
    """
    if change.quantile is None:
        return None
    if counts:
        values = values / np.nansum(values, axis=1, keepdims=True)
    found = np.full(values.shape[1], np.nan, dtype=np.float32)
    measured = ~np.isnan(values).all(axis=0)
    found[measured] = np.nanquantile(values[:, measured], change.quantile, axis=0)
    return found


@dataclass(frozen=True)
class Cases:
    """Which samples are perturbed, and in which groups they are described.

    Parameters
    ----------
    rows
        Their positions, (n,).
    groups
        Names of the groups.
    codes
        Group of each of them, (n,).
    """

    rows: NDArray[np.intp]
    groups: list[str]
    codes: NDArray[np.intp]


def read_cases(adata: AnnData, readout: AnyReadout, groupby: str | None) -> Cases:
    """Return the samples to perturb: those of the start state, or all; those without a group are left out.

    Raises
    ------
    KeyError
        If a column is not there.
    ValueError
        If a state or a group has no sample.
    """
    rows = readout.members(adata)[1] if isinstance(readout, States) else np.arange(adata.n_obs)
    if groupby is None:
        return Cases(rows, ["all"], np.zeros(len(rows), dtype=np.intp))
    labels = pd.Categorical(column(adata, groupby, "groupby"))
    codes = np.asarray(labels.codes, dtype=np.intp)[rows]
    counts = np.bincount(codes[codes >= 0], minlength=len(labels.categories))
    empty = [str(name) for name, number in zip(labels.categories, counts, strict=True) if not number]
    if empty or not len(counts):
        where = f" in the start state {readout.start!r}" if isinstance(readout, States) else ""
        message = (
            f"{empty or 'all groups'} of adata.obs[{groupby!r}] have no sample{where}; leave them out, "
            f"adata[adata.obs[{groupby!r}].isin(...)].copy(), or pass groupby=None"
        )
        raise ValueError(message)
    return Cases(rows[codes >= 0], [str(name) for name in labels.categories], codes[codes >= 0])


def resolve_head(adata: AnnData, readout: AnyReadout, model: Any) -> tuple[Any, dict[str, Any]]:
    """Return the readout, a head where a key names one, and how the sample vector is made that it reads.

    Raises
    ------
    KeyError
        If nothing of that name is there.
    ValueError
        If the head reads something else than sample vectors of this model.
    """
    if isinstance(readout, str) and readout not in {*OUTPUTS, *adata.uns}:
        message = (
            f"readout is {readout!r}; it is one of {list(OUTPUTS)}, bf.tl.States(...), a head, or the key of a fitted "
            f"one, such as 'classify_disease'; adata.uns holds {sorted(map(str, adata.uns))}"
        )
        raise KeyError(message)
    found: Any = readout
    if isinstance(readout, str) and readout not in OUTPUTS:
        found = fitted_head(adata, readout)
    if isinstance(found, str | States):
        return found, {}
    if not isinstance(found, Head | MatrixHead | PairHead):
        message = f"readout is of type {type(found).__name__}; no single sample goes into it, pass another head"
        raise TypeError(message)
    facts = found.facts
    if facts["genes"] or facts["checksum"] != model.checksum:
        reads = "expression itself" if facts["genes"] else f"{facts['use_rep']!r} of another model"
        message = (
            f"the head reads {reads}, not the sample vector of {model.name}; call bf.tl.embed(adata, model=...) and "
            "fit it with use_rep='X_bulkformer'"
        )
        raise ValueError(message)
    made = embedding_params(adata, facts["use_rep"])
    return found, {name: made[name] for name in OPTIONS if name in made}


def make_passes(
    model: Any, change: Change, values: NDArray[np.float32], options: dict[str, Any]
) -> tuple[Passes | RankPasses, Editor]:
    """Return what runs a model on changed samples (N, G), and what the change makes of them."""
    if model.encoding == "ranks":
        from bulkformer_tl.models._perturb_ranks import RankPasses

        ranks = RankPasses(model, **options)
        return ranks, RankEditor(change, quantiles_of(change, values, counts=True), ranks)
    from bulkformer_tl.models._perturb import Passes

    return Passes(model, **options), Editor(change, quantiles_of(change, values, counts=False))


def make_reader(adata: AnnData, readout: Any, passes: Any, values: NDArray[np.float32]) -> AnyReader:
    """Return what reads the passes; for states, with the mean vector of each.

    Raises
    ------
    ValueError
        If goal and start are at the same place, or a head reads other vectors.
    """
    if isinstance(readout, str):
        ranked = passes.model.encoding == "ranks"
        if readout == "sample" and not (ranked and passes.genewise):
            return VectorReader(passes, Shift())
        # the check of the readout left no other name
        return RankReader(passes, each=readout == "genes") if ranked else GeneReader(passes, readout)  # type: ignore[arg-type]
    if isinstance(readout, States):
        centres = [passes.vectors(values[rows]).mean(axis=0) for rows in readout.members(adata)]
        if cosine_distance(centres[1], (centres[0] - centres[1])[None])[0] < np.finfo(np.float32).eps:
            message = (
                f"the samples of {readout.goal!r} are where those of {readout.start!r} are, so that nothing leads from "
                f"one to the other; see adata.obs[{readout.column!r}], or pass other states"
            )
            raise ValueError(message)
        return VectorReader(passes, Ways(centres, readout.names))
    own = passes.vectors(values[:1])[0]
    if head_width(readout) != len(own) or not _made(adata.obsm.get(readout.facts["use_rep"]), own):
        message = (
            f"the head reads {head_width(readout)} columns of {readout.facts['use_rep']!r}, which are not the sample "
            f"vector ({len(own)} columns) that {passes.model.name} makes of this layer; pass the layer, and pooling=, "
            "that it was embedded with (without mask_var)"
        )
        raise ValueError(message)
    return VectorReader(passes, HeadOutput(readout))


def _made(stored: Any, own: NDArray[np.float64]) -> bool:
    """Say whether a stored embedding, if there is one, has this vector of the first sample."""
    if stored is None:
        return True
    first = np.asarray(stored)[0]
    return first.shape == own.shape and bool(np.linalg.norm(first - own) <= SAME * np.linalg.norm(own))


def refuse_unchanged(
    adata: AnnData,
    values: NDArray[np.float32],
    cases: Cases,
    perturbations: Sequence[Perturbation],
    editor: Editor,
) -> None:
    """Refuse named genes that a sample lacks, or that are 0 where the change leaves 0.

    Raises
    ------
    ValueError
        If there is one.
    """
    absent: dict[int, list[int]] = {}
    for row in cases.rows:
        for position, edit in enumerate(editor.edits(values[row], perturbations)):
            if edit is None:
                absent.setdefault(position, []).append(int(row))
    if not absent:
        return
    position, rows = next(iter(absent.items()))
    item = perturbations[position]
    what = "set" if item.kind == "set" else "gene" if item.kind == "gene" else "combination"
    state, mend = editor.why(values[rows[0]], item)
    message = (
        f"the {what} {item.name!r} is {state} in {len(rows)} of {len(cases.rows)} samples, the first "
        f"{adata.obs_names[rows[0]]!r}, {mend}, leave these samples out, or leave it out of genes "
        f"({len(absent)} of {len(perturbations)} perturbations)"
    )
    raise ValueError(message)
