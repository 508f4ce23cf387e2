"""Genes that the lines of one group depend on more, or less, than all others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bulkformer_tl.metrics._check import as_labels
from bulkformer_tl.tl._columns import column
from bulkformer_tl.tl._screen import false_discovery_rate

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

#: Lines that a group must have, and that must be outside it.
MIN_LINES = 3


def read_lineages(adata: AnnData, name: str, known: Numbers) -> tuple[NDArray[np.intp], list[str]]:
    """Return the group of each sample, -1 where missing and -2 where small, and the groups with enough measured lines.

    Raises
    ------
    KeyError
        If there is no such column.
    ValueError
        If no group has enough lines.
    """
    given = column(adata, name, "selective")
    missing = given.isna().to_numpy()
    codes = np.full(len(given), -1, dtype=np.intp)
    if not missing.all():
        codes[~missing], names = as_labels(given[~missing].astype(str).to_numpy(), name)
    measured = ~np.isnan(known).all(axis=1) & ~missing
    sizes = np.bincount(codes[measured], minlength=int(codes.max(initial=0)) + 1)
    wide = (sizes >= MIN_LINES) & (measured.sum() - sizes >= MIN_LINES)
    if not wide.any():
        found = {str(names[k]): int(n) for k, n in enumerate(sizes)} if not missing.all() else {}
        message = (
            f"adata.obs[{name!r}] (selective) has no group of {MIN_LINES} measured lines beside {MIN_LINES} others: "
            f"{found}; pass another column, or leave selective out"
        )
        raise ValueError(message)
    kept = np.full(len(sizes), -2, dtype=np.intp)
    kept[wide] = np.arange(wide.sum())
    return np.where(missing, -1, kept[codes]), [str(name) for name in names[wide]]


def selective_genes(
    known: Numbers, predicted: Numbers, codes: NDArray[np.intp], groups: list[str], genes: list[str]
) -> pd.DataFrame:
    """Compare each group with all other lines, gene by gene, by Welch's t-test.

    Parameters
    ----------
    known
        Measured effects, shape (N, M), ``NaN`` where not measured.
    predicted
        Out-of-fold predictions, shape (N, M).
    codes
        Group of each line, -2 where it is small (the line is one of the others), -1 where missing, shape (N,).
    groups
        Names of the groups.
    genes
        Names of the columns.

    Returns
    -------
    One row per group and gene, best first: means, their difference, ``p`` and ``fdr`` (Benjamini and Hochberg over all
    rows) of the measured effects; means and difference of the predictions of the same pairs. These have no p-value:
    predictions of similar lines come from the same fit, and would be significant where there is nothing.
    """
    parts = []
    for group, name in enumerate(groups):
        inside, outside = codes == group, (codes != group) & (codes != -1)
        counts = [(~np.isnan(known[lines])).sum(axis=0) for lines in (inside, outside)]
        enough = np.flatnonzero(np.min(counts, axis=0) >= MIN_LINES)
        table = pd.DataFrame({"group": name, "gene": np.array(genes, dtype=object)[enough]})
        table["n"], table["n_others"] = counts[0][enough], counts[1][enough]
        for prefix, values in (("", known), ("predicted_", np.where(np.isnan(known), np.nan, predicted))):
            one, other = values[inside][:, enough], values[outside][:, enough]
            table[f"{prefix}mean"], table[f"{prefix}mean_others"] = np.nanmean(one, axis=0), np.nanmean(other, axis=0)
            table[f"{prefix}difference"] = table[f"{prefix}mean"] - table[f"{prefix}mean_others"]
        table["p"] = _welch(known[inside][:, enough], known[outside][:, enough])
        parts.append(table)
    found = pd.concat(parts, ignore_index=True)
    found["fdr"] = false_discovery_rate(found["p"].to_numpy())
    return found.sort_values("p", kind="stable", ignore_index=True)


def _welch(one: Numbers, other: Numbers) -> Numbers:
    # scipy.stats takes a second to import
    from scipy.stats import ttest_ind_from_stats

    parts = [(np.nanmean(v, axis=0), np.nanstd(v, axis=0, ddof=1), (~np.isnan(v)).sum(axis=0)) for v in (one, other)]
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Numbers = ttest_ind_from_stats(*parts[0], *parts[1], equal_var=False).pvalue
    return found
