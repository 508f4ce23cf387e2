"""What one file, or several joined, hold: samples x genes, with what describes either."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bulkformer_tl._read._names import spreadsheet_dates

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

#: Rows in which STAR and HTSeq say how many reads they did not count.
_SUMMARY = {
    *("N_unmapped", "N_multimapping", "N_noFeature", "N_ambiguous"),
    *("__no_feature", "__ambiguous", "__too_low_aQual", "__not_aligned", "__alignment_not_unique"),
}

#: Entries of a list that are kept in the report; counts are always complete.
LISTED = 20


@dataclass
class Part:
    """Expression of some samples.

    Parameters
    ----------
    source
        The file or folder.
    layout
        How it is laid out.
    samples
        Sample names.
    genes
        Gene names, as they are.
    matrix
        Values, shape (N, G).
    layers
        Further values of the same shape.
    obs
        What the file says of samples, N rows.
    var
        What the file says of genes, G rows.
    places
        Where each gene stands, ``"line 12"`` or ``"column 3"``; empty if not known.
    report
        What was found on the way.
    """

    source: Path
    layout: str
    samples: list[str]
    genes: list[str]
    matrix: NDArray[Any]
    layers: dict[str, NDArray[Any]] = field(default_factory=dict)
    obs: pd.DataFrame = field(default_factory=pd.DataFrame)
    var: pd.DataFrame = field(default_factory=pd.DataFrame)
    places: list[str] = field(default_factory=list)
    report: dict[str, Any] = field(default_factory=dict)


def without_summary(part: Part) -> Part:
    """Drop what a counter says of reads that it did not count."""
    summary = [gene for gene in part.genes if gene in _SUMMARY]
    if summary:
        keep = np.array([gene not in _SUMMARY for gene in part.genes])
        part.matrix = part.matrix[:, keep]
        part.layers = {name: values[:, keep] for name, values in part.layers.items()}
        part.var = part.var[keep].reset_index(drop=True) if len(part.var.columns) else part.var
        part.places = [place for place, kept in zip(part.places, keep, strict=True) if kept]
        part.genes = [gene for gene in part.genes if gene not in _SUMMARY]
        part.report["dropped_rows"] = summary
        logger.info("%s: %s count reads without a gene and were dropped", part.source, summary)
    return part


def join(parts: list[Part], source: Path) -> Part:
    """Join samples of several files on the union of their genes; what a file lacks is ``NaN``.

    Raises
    ------
    ValueError
        If two files hold a sample of the same name, or the gene lists differ and one names a gene twice.
    """
    origin: dict[str, Path] = {}
    for part in parts:
        for sample in part.samples:
            if sample in origin:
                message = f"{origin[sample]} and {part.source} both hold a sample {sample!r}; rename one"
                raise ValueError(message)
            origin[sample] = part.source
    first = parts[0]
    same = all(part.genes == first.genes for part in parts)
    genes = first.genes if same else _union(parts)
    names = set(first.layers).intersection(*(part.layers for part in parts))
    layers = {name: _stack([part.layers[name] for part in parts], parts, genes, same=same) for name in sorted(names)}
    joined = Part(
        source=source,
        layout=first.layout,
        samples=[sample for part in parts for sample in part.samples],
        genes=genes,
        matrix=_stack([part.matrix for part in parts], parts, genes, same=same),
        layers=layers,
        obs=pd.concat([part.obs for part in parts], ignore_index=True) if len(first.obs.columns) else pd.DataFrame(),
        var=first.var if same else _describe(parts, genes),
        places=first.places if same else [],
        report={**first.report, "n_files": len(parts)},
    )
    if not same:
        lacking = sum(len(part.genes) < len(genes) for part in parts)
        joined.report["n_files_lacking_genes"] = lacking
        logger.warning(
            "%s: the files list different genes; all %d are kept, and the genes that %d files lack are NaN there",
            source,
            len(genes),
            lacking,
        )
    return joined


def _union(parts: list[Part]) -> list[str]:
    """Return all genes in the order in which they first appear."""
    for part in parts:
        index = pd.Index(part.genes)
        if not index.is_unique:
            gene = index[index.duplicated()][0]
            message = (
                f"{part.source} names the gene {gene!r} more than once, and other files list other genes, so they "
                "cannot be joined; read the files one by one and call bf.pp.merge_duplicates on each first"
            )
            raise ValueError(message)
    return list(dict.fromkeys(gene for part in parts for gene in part.genes))


def _stack(blocks: list[NDArray[Any]], parts: list[Part], genes: list[str], *, same: bool) -> NDArray[Any]:
    if same:
        return np.concatenate(blocks)
    index = pd.Index(genes)
    stacked = np.full((sum(len(part.samples) for part in parts), len(genes)), np.nan)
    row = 0
    for block, part in zip(blocks, parts, strict=True):
        stacked[row : row + len(block), index.get_indexer(pd.Index(part.genes))] = block
        row += len(block)
    return stacked


def _describe(parts: list[Part], genes: list[str]) -> pd.DataFrame:
    """Return what the first file that has a gene says of it."""
    tables = [part.var.set_axis(pd.Index(part.genes), axis=0) for part in parts if len(part.var.columns)]
    if not tables:
        return pd.DataFrame()
    everything = pd.concat(tables)
    return everything[~everything.index.duplicated()].reindex(genes).reset_index(drop=True)


def to_anndata(part: Part) -> AnnData:
    """Return an AnnData whose ``uns["read"]`` says how it came about.

    Raises
    ------
    ValueError
        If two samples share a name, or one has none.
    """
    from anndata import AnnData

    check_samples(part)
    report = {"source": part.source.name, "layout": part.layout, **part.report}
    report |= {"n_samples": len(part.samples), "n_genes": len(part.genes)}
    _report_duplicates(part, report)
    _report_dates(part, report)
    with warnings.catch_warnings():
        # repeated genes are reported above, with what mends them
        warnings.filterwarnings("ignore", message="Variable names are not unique")
        return AnnData(
            part.matrix,
            obs=_indexed(part.obs, part.samples),
            var=_indexed(part.var, part.genes),
            layers=part.layers,
            uns={"read": report},
        )


def check_samples(part: Part) -> None:
    """Refuse samples without a name, or with the name of another."""
    index = pd.Index(part.samples)
    if not index.is_unique:
        sample = str(index[index.duplicated()][0])
        positions = [i + 1 for i, name in enumerate(part.samples) if name == sample]
        message = (
            f"{part.source}: the sample {sample!r} occurs {len(positions)} times (samples {positions[:5]} of "
            f"{len(index)}); rename or remove the duplicated columns"
        )
        raise ValueError(message)
    unnamed = [i + 1 for i, name in enumerate(part.samples) if not name.strip()]
    if unnamed:
        message = f"{part.source}: sample {unnamed[0]} of {len(index)} has no name; name it in the header"
        raise ValueError(message)


def _indexed(table: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    index = pd.Index(np.asarray(names, dtype=object))
    if table.empty:
        return pd.DataFrame(index=index)
    # a "/" in a column's name cannot be written to h5ad or zarr
    columns = [str(name).replace("/", "_") or "unnamed" for name in table.columns]
    return table.set_axis(index, axis=0).set_axis(columns, axis=1)


def _report_duplicates(part: Part, report: dict[str, Any]) -> None:
    index = pd.Index(part.genes)
    twice = index[index.duplicated()].unique()
    report["n_duplicated_genes"] = len(twice)
    if len(twice):
        report["duplicated_genes"] = [str(gene) for gene in twice[:LISTED]]
        logger.warning(
            "%s names %d genes more than once, for example %s; they are kept, call bf.pp.merge_duplicates to sum them",
            part.source,
            len(twice),
            list(twice[:3]),
        )


def _report_dates(part: Part, report: dict[str, Any]) -> None:
    dates = spreadsheet_dates(part.genes)
    report["n_spreadsheet_dates"] = len(dates)
    if dates:
        named = [f"{part.places[i]}: {part.genes[i]}" if part.places else part.genes[i] for i in dates]
        report["spreadsheet_dates"] = named[:LISTED]
        logger.warning(
            "%s: a spreadsheet turned %d gene names into dates (%s); they are kept as they are, put the symbols back",
            part.source,
            len(dates),
            "; ".join(named[:5]),
        )
