"""Weights of edges: by attention, by the cosine of gene vectors, by co-expression; in groups and halves of samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bulkformer_tl._anndata import get_params
from bulkformer_tl.encodings import correlate
from bulkformer_tl.tl._contextual import read_vectors
from bulkformer_tl.tl._network_input import MOST_GENES, MOST_WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

    from bulkformer_tl.tl._input import ModelInput
    from bulkformer_tl.tl._network_input import Plan

    Numbers = NDArray[np.float64]

#: Fewest samples of which a correlation is computed.
LEAST = 3


@dataclass(frozen=True)
class Weights:
    """Weights of all pairs.

    Parameters
    ----------
    mean
        Mean over samples and runs, (groups, K, Q); ``NaN`` where unknown.
    runs
        Of each model, layer and half by itself, (runs, groups, K, Q).
    contrast
        Of each group beside all others: difference and p-value, (groups, K, Q) each; ``None`` without groups.
    layers
        What each layer attends to; of attention alone.
    """

    mean: Numbers
    runs: Numbers
    contrast: tuple[Numbers, Numbers] | None = None
    layers: pd.DataFrame | None = None


def check_size(plan: Plan, n_runs: int) -> None:
    """Refuse what would not fit into memory."""
    size = len(plan.sources) * len(plan.targets) * len(plan.groups) * n_runs * (1 + len(plan.halves))
    if size > MOST_WEIGHTS:
        message = (
            f"{len(plan.sources):,} x {len(plan.targets):,} pairs of genes in {len(plan.groups)} groups, {n_runs} "
            f"layers and models and {len(plan.halves)} halves are {size:,} weights, more than {MOST_WEIGHTS:,}; pass "
            "fewer genes, regulators=, fewer attention_layers or fewer resamples"
        )
        raise ValueError(message)


class _Sums:
    """Weights added up over samples, (runs, 1 + halves, groups, K, Q)."""

    def __init__(self, plan: Plan, n_runs: int, *, partial: bool) -> None:
        pairs = len(plan.sources), len(plan.targets)
        shape = n_runs, 1 + len(plan.halves), len(plan.groups)
        self.plan = plan
        self.total = np.zeros((*shape, *pairs))
        # where all genes have a token all pairs are counted alike
        self.count = np.zeros((*shape, *(pairs if partial else (1, 1))))
        self.square = np.zeros((len(plan.groups), *pairs))
        self.whole = np.zeros((len(plan.groups), *pairs))
        self.seen = np.zeros((len(plan.groups), *(pairs if partial else (1, 1))))

    def add(self, sample: int, weights: NDArray[np.float32]) -> None:
        """Add what one sample's runs say, (runs, K, Q), ``NaN`` where nothing."""
        group = self.plan.codes[sample]
        present = ~np.isnan(weights) if self.seen.shape[1:] != (1, 1) else np.ones((len(weights), 1, 1), dtype=bool)
        values = np.where(present, weights, 0.0)
        for fold in (0, *(1 + np.flatnonzero(self.plan.halves[:, sample]))):
            self.total[:, fold, group] += values
            self.count[:, fold, group] += present
        number = present.sum(axis=0)
        mean = values.sum(axis=0, dtype=np.float64) / np.maximum(number, 1)
        self.whole[group] += mean
        self.square[group] += mean**2
        self.seen[group] += number > 0

    def finish(self, layers: pd.DataFrame) -> Weights:
        """Return means."""
        with np.errstate(invalid="ignore"):
            means = self.total / np.where(self.count > 0, self.count, np.nan)
        chosen = means[:, 1:] if means.shape[1] > 1 else means
        runs = chosen.reshape(-1, *means.shape[2:])
        number = (~np.isnan(means[:, 0])).sum(axis=0)
        mean = np.where(number > 0, np.nansum(means[:, 0], axis=0) / np.maximum(number, 1), np.nan)
        contrast = self._contrast() if len(self.plan.groups) > 1 else None
        return Weights(mean, runs, contrast, layers)

    def _contrast(self) -> tuple[Numbers, Numbers]:
        """Compare each group with all other samples, by Welch's test over samples."""
        from scipy.stats import ttest_ind_from_stats

        found = []
        for group in range(len(self.plan.groups)):
            others = [g for g in range(len(self.plan.groups)) if g != group]
            sides = []
            for which in ([group], others):
                n = self.seen[which].sum(axis=0)
                mean = self.whole[which].sum(axis=0) / np.where(n > 0, n, np.nan)
                spread = self.square[which].sum(axis=0) - n * mean**2
                deviation = np.sqrt(np.maximum(spread, 0) / np.where(n > 1, n - 1, np.nan))
                sides += [mean, deviation, n]
            with np.errstate(all="ignore"):
                p = ttest_ind_from_stats(*sides, equal_var=False).pvalue
            found.append((sides[0] - sides[3], np.asarray(p)))
        difference, p_values = (np.stack(part) for part in zip(*found, strict=True))
        return difference, p_values


def attention_weights(plan: Plan, inputs: Sequence[ModelInput], layers: Sequence[int] | None) -> Weights:
    """Read attention of all samples; a source is attended to by a target.

    Weights are in units of uniform attention, 1 / number of tokens.
    """
    from bulkformer_tl.models._gene_attention import attention_reader

    readers = [attention_reader(given.model) for given in inputs]
    chosen = [_layers(reader.n_layers, layers, given.model.name) for reader, given in zip(readers, inputs, strict=True)]
    check_size(plan, sum(map(len, chosen)))
    partial = any(given.model.input_unit == "counts" for given in inputs)
    sums = _Sums(plan, sum(map(len, chosen)), partial=partial)
    places = [_places(given) for given in inputs]
    looks = []
    names = _distinct([given.model.name for given in inputs])
    for parts in zip(*(given.batches("network", None) for given in inputs), strict=True):
        rows = parts[0][0]
        for sample in range(rows.start, rows.stop):
            found = []
            each = zip(names, readers, inputs, chosen, places, parts, strict=True)
            for name, reader, given, own, place, (_, values) in each:
                codes = {name: code[sample, None] for name, code in given.external.items()}
                row = np.ascontiguousarray(values[sample - rows.start])
                read = reader(row, codes, place[plan.targets], place[plan.sources], own)
                found.append(read.weights.transpose(0, 2, 1) * np.float32(read.n_tokens))
                marked = None if plan.regulators is None else place[plan.regulators]
                looks += [(name, plan.groups[plan.codes[sample]], *look) for look in _look(read, own, marked)]
            sums.add(sample, np.concatenate(found))
    return sums.finish(_layer_table(looks))


def _distinct(names: list[str]) -> list[str]:
    """Number models of one name, such as those of several seeds."""
    return [
        name if names.count(name) == 1 else f"{name} ({names[: place + 1].count(name)})"
        for place, name in enumerate(names)
    ]


def _layers(n_layers: int, asked: Sequence[int] | None, name: str) -> list[int]:
    layers = list(range(n_layers)) if asked is None else [int(layer) for layer in asked]
    wrong = [layer for layer in layers if not -n_layers <= layer < n_layers]
    if wrong or not layers:
        message = f"{name} has the layers 0 to {n_layers - 1}, found attention_layers={layers}"
        raise ValueError(message)
    return list(dict.fromkeys(layer % n_layers for layer in layers))


def _places(given: ModelInput) -> NDArray[np.int64]:
    """Return where each column of the cohort stands in the vocabulary, -1 for those that it lacks."""
    places = np.full(given.match.n_columns, -1, dtype=np.int64)
    found = np.flatnonzero(given.match.found)
    places[given.match.columns[found]] = found
    return places


def _look(read: Any, layers: Sequence[int], regulators: NDArray[np.int64] | None) -> list[tuple[Any, ...]]:
    """Return what each layer attends to in one sample: share on regulators, uniform share, correlation with rank."""
    from scipy.stats import spearmanr

    rows = []
    for layer, received in zip(layers, read.received, strict=True):
        seen = ~np.isnan(received) & ~np.isnan(read.level)
        share = uniform = np.nan
        if regulators is not None:
            marked = regulators[~np.isnan(received[regulators])]
            share, uniform = float(received[marked].sum()), len(marked) / read.n_tokens
        flat = seen.sum() < LEAST or np.ptp(received[seen]) == 0 or np.ptp(read.level[seen]) == 0
        rank = np.nan if flat else float(spearmanr(received[seen], read.level[seen]).statistic)
        rows.append((layer, share, uniform, rank))
    return rows


def _layer_table(looks: list[tuple[Any, ...]]) -> pd.DataFrame:
    columns = ["model", "group", "layer", "regulator_share", "uniform_share", "rank_correlation"]
    table = pd.DataFrame(looks, columns=columns)
    grouped = table.groupby(["model", "layer", "group"], sort=False)
    found = grouped[columns[3:]].mean().reset_index()
    found.insert(3, "n_samples", grouped.size().to_numpy())
    order = np.lexsort((found["group"], found["layer"], pd.factorize(found["model"])[0]))
    return found.iloc[order].reset_index(drop=True)


def cosine_weights(adata: AnnData, plan: Plan, vectors: Sequence[str], groupby: str | None) -> Weights:
    """Compute the cosine of gene vectors, of each result of gene embeddings by itself."""
    check_size(plan, len(vectors))
    runs = np.stack([[_cosine(table, plan) for table in _tables(adata, key, groupby, plan.groups)] for key in vectors])
    mean = runs.mean(axis=0)
    contrast = None
    if len(plan.groups) > 1:
        others = (mean.sum(axis=0) - mean) / (len(mean) - 1)
        contrast = mean - others, np.full_like(mean, np.nan)
    return Weights(mean, runs, contrast)


def usable_vectors(adata: AnnData, vectors: Sequence[str], groupby: str | None, groups: list[str]) -> NDArray[np.bool_]:
    """Return which genes have a vector in every result, (n_vars,)."""
    usable = np.ones(adata.n_vars, dtype=bool)
    for key in vectors:
        for table in _tables(adata, key, groupby, groups):
            usable &= np.isfinite(table).all(axis=1) & (np.abs(table) > 0).any(axis=1)
    return usable


def _tables(adata: AnnData, key: str, groupby: str | None, groups: list[str]) -> list[NDArray[np.float32]]:
    """Return the vectors of each group, (n_vars, P)."""
    if groupby is None:
        table, _ = read_vectors(adata, key)
        return [table if table.ndim == 2 else table.mean(axis=0)]
    made = str(get_params(adata, key).get("groupby", ""))
    absent = [name for name in groups if f"{key}_{name}" not in adata.varm]
    if made != groupby or absent:
        message = (
            f"adata.varm has no vectors of {key!r} for the groups of {groupby!r}; call bf.tl.gene_embeddings(adata, "
            f"contextual=True, groupby={groupby!r}, key_added={key!r}) first"
        )
        raise KeyError(message)
    return [np.asarray(adata.varm[f"{key}_{name}"], dtype=np.float32) for name in groups]


def _cosine(table: NDArray[np.float32], plan: Plan) -> Numbers:
    unit = table.astype(np.float64)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    found: Numbers = np.clip(unit[plan.sources] @ unit[plan.targets].T, -1.0, 1.0)
    return found


def coexpression_weights(plan: Plan, values: NDArray[np.float32]) -> Weights:
    """Correlate the expression of ``plan.genes``, (N, k), by Pearson, in each group and half."""
    check_size(plan, 1)
    folds = [np.ones(len(values), dtype=bool), *plan.halves]
    found = np.stack(
        [[pearson_weights(plan, values[fold & (plan.codes == g)]) for g in range(len(plan.groups))] for fold in folds]
    )
    contrast = _fisher_contrast(plan, values, found[0]) if len(plan.groups) > 1 else None
    return Weights(found[0], found[1:] if len(found) > 1 else found, contrast)


def pearson_weights(plan: Plan, values: NDArray[np.float32]) -> Numbers:
    """Return Pearson's r of each source and target, (K, Q), from the expression of ``plan.genes``, (N, k)."""
    genes = plan.genes
    if len(genes) > MOST_GENES:
        message = f"co-expression of {len(genes):,} genes is too large; pass at most {MOST_GENES:,} genes"
        raise ValueError(message)
    matrix = correlate([[values.astype(np.float64)]], min_samples=LEAST)
    chosen = np.ix_(np.searchsorted(genes, plan.sources), np.searchsorted(genes, plan.targets))
    return matrix[chosen].astype(np.float64)


def _fisher_contrast(plan: Plan, values: NDArray[np.float32], own: Numbers) -> tuple[Numbers, Numbers]:
    """Compare each group's correlations with those of all other samples, by Fisher's z."""
    from scipy.stats import norm

    found = []
    for group, r in enumerate(own):
        inside = plan.codes == group
        other = pearson_weights(plan, values[~inside])
        n, m = int(inside.sum()), int((~inside).sum())
        z, w = (np.arctanh(np.clip(x, -1 + 1e-12, 1 - 1e-12)) for x in (r, other))
        error = np.sqrt(1 / max(n - 3, np.finfo(float).tiny) + 1 / max(m - 3, np.finfo(float).tiny))
        found.append((r - other, 2 * norm.sf(np.abs(z - w) / error)))
    difference, p = (np.stack(part) for part in zip(*found, strict=True))
    return difference, p
