"""Files of one sample each: salmon, kallisto, RSEM, STAR, HTSeq and the GDC's STAR counts."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from bulkformer_tl._read._names import gene_share, transcript_share
from bulkformer_tl._read._part import LISTED, Part, without_summary
from bulkformer_tl._read._table import Dialect, Table, parse, text_columns

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from bulkformer_tl._read._text import Head

logger = logging.getLogger(__name__)

Strandedness = Literal["unstranded", "forward", "reverse"]

#: Column of STAR's four, and of the GDC's table, per strandedness.
_STAR = {"unstranded": 0, "forward": 1, "reverse": 2}
_GDC = {"unstranded": "unstranded", "forward": "stranded_first", "reverse": "stranded_second"}


@dataclass(frozen=True)
class Quantifier:
    """Columns of a quantifier's table of one sample."""

    counts: str
    tpm: str
    effective_length: str | None
    columns: frozenset[str]


QUANTIFIERS = {
    "salmon": Quantifier("NumReads", "TPM", "EffectiveLength", frozenset({"Name", "Length"})),
    "kallisto": Quantifier("est_counts", "tpm", "eff_length", frozenset({"target_id", "length"})),
    "rsem": Quantifier("expected_count", "TPM", "effective_length", frozenset({"gene_id", "length"})),
    "gdc": Quantifier("unstranded", "tpm_unstranded", None, frozenset({"gene_id", "gene_name", "stranded_first"})),
}

#: Names under which quantifiers write the same file for every sample; the folder then names the sample.
_SAME = {"quant", "quant.genes", "abundance", "rsem", "ReadsPerGene", "counts", "htseq_counts"}
_ENDINGS = re.compile(
    r"([._-]?ReadsPerGene\.out\.tab|\.(genes|isoforms)\.results|\.rna_seq\.augmented_star_gene_counts|\.htseq"
    r"|[._]counts|\.(sf|tsv|txt|tab|csv|gz|bz2|xz|counts))$"
)


def sample_layout(head: Head) -> str | None:
    """Return the layout of a file of one sample, as its first lines tell; ``None`` if it is another."""
    header = set(head.header)
    for name, quantifier in QUANTIFIERS.items():
        if quantifier.columns | {quantifier.counts, quantifier.tpm} <= header:
            of_transcripts = name in {"salmon", "kallisto"} or head.header[0] == "transcript_id"
            if of_transcripts and not _names_genes(head):
                return f"{name}_transcripts"
            return name
    rows = head.rows[:20]
    if len(rows[0]) == 4 and rows[0][0] == "N_unmapped":
        return "star"
    two = all(len(row) == 2 and re.fullmatch(r"\d+(\.\d+)?", row[1].strip()) for row in rows)
    return "htseq" if two and gene_share([row[0] for row in rows]) > 0.5 else None


def read_sample(
    head: Head, layout: str, strandedness: Strandedness, tx2gene: pd.Series | None, dialect: Dialect
) -> Part:
    """Read a file of one sample.

    Raises
    ------
    ValueError
        If transcripts have no genes, a column is missing, or a cell is wrong.
    """
    if layout == "star":
        return _read_star(head, strandedness, dialect)
    if layout == "htseq":
        return _read_htseq(head, dialect)
    quantifier = QUANTIFIERS[layout.removesuffix("_transcripts")]
    header = head.header
    table = parse(head, header, head.first, text_columns(header, head.rows[1:20]), dialect)
    report: dict[str, Any] = {"orientation": "genes_by_samples"}
    counts = quantifier.counts
    if layout == "gdc":
        counts = _GDC[strandedness]
        report["strandedness"] = strandedness
    wanted = {None: counts, "tpm": quantifier.tpm, "effective_length": quantifier.effective_length}
    values = table.values(transposed=False)
    columns = {name: values[:, table.columns.index(column)] for name, column in wanted.items() if column is not None}
    part = Part(
        source=head.path,
        layout=layout,
        samples=[sample_name(head.path)],
        genes=table.rows,
        matrix=columns.pop(None)[None],
        layers={str(name): column[None].astype(np.float64) for name, column in columns.items()},
        var=_described(table),
        places=[f"line {line}" for line in table.lines],
        report=report,
    )
    if layout.endswith("_transcripts"):
        return _to_genes(part, _genes_of(part, table, tx2gene))
    return without_summary(part)


def sample_name(path: Path) -> str:
    """Return what names the sample: the file, or its folder where every sample's file is called alike."""
    name, before = path.name, ""
    while name != before:
        before, name = name, _ENDINGS.sub("", name)
    return path.parent.name if not name or name in _SAME else name


def _names_genes(head: Head) -> bool:
    """Tell whether the first column of a quantifier's table names genes."""
    names = [row[0] for row in head.rows[1:]]
    return transcript_share(names) < 0.5 and gene_share(names) >= 0.5


def _described(table: Table) -> pd.DataFrame:
    """Return symbols and biotypes, where the table has them."""
    names = {"gene_name": "symbol", "gene_type": "biotype"}
    return table.text[[name for name in table.text if name in names]].rename(columns=names)


def _read_star(head: Head, strandedness: Strandedness, dialect: Dialect) -> Part:
    table = parse(head, ["gene", *_STAR], head.first - 1, [], dialect)
    part = Part(
        source=head.path,
        layout="star",
        samples=[sample_name(head.path)],
        genes=table.rows,
        matrix=table.values(transposed=True)[[_STAR[strandedness]]],
        places=[f"line {line}" for line in table.lines],
        report={"orientation": "genes_by_samples", "strandedness": strandedness},
    )
    return without_summary(part)


def _read_htseq(head: Head, dialect: Dialect) -> Part:
    table = parse(head, ["gene", "count"], head.first - 1, [], dialect)
    if not any(name.startswith("__") for name in table.rows):
        message = (
            f"{head.path} has no header: line {head.first} is {head.lines[0][:60]!r}, and the rows that HTSeq ends "
            "with (__no_feature ...) are not there; add a header such as 'gene' and the sample's name"
        )
        raise ValueError(message)
    part = Part(
        source=head.path,
        layout="htseq",
        samples=[sample_name(head.path)],
        genes=table.rows,
        matrix=table.values(transposed=True),
        places=[f"line {line}" for line in table.lines],
        report={"orientation": "genes_by_samples"},
    )
    return without_summary(part)


def _genes_of(part: Part, table: Table, tx2gene: pd.Series | None) -> list[Any]:
    """Return the gene of each transcript, ``NaN`` where it is unknown.

    Raises
    ------
    ValueError
        If there is no mapping, or it knows none of the transcripts.
    """
    if tx2gene is None:
        if "gene_id" in table.text:
            return table.text["gene_id"].tolist()
        fields = [name.split("|") for name in part.genes]
        if all(len(field) > 1 and field[1].startswith("ENS") for field in fields):
            # salmon on a GENCODE fasta without --gencode: transcript|gene|...
            return [field[1] for field in fields]
        message = (
            f"{part.source} counts transcripts ({part.genes[0]!r} ...), not genes; pass tx2gene=, a table (csv, tsv or "
            "DataFrame) with a column of transcripts and one of genes"
        )
        raise ValueError(message)
    names = pd.Series(part.genes, dtype=object).str.split("|").str[0]
    genes = names.map(tx2gene)
    if genes.isna().any():
        versionless = tx2gene.set_axis(tx2gene.index.str.replace(r"\.\d+$", "", regex=True))
        versionless = versionless[~versionless.index.duplicated()]
        genes = genes.where(genes.notna(), names.str.replace(r"\.\d+$", "", regex=True).map(versionless))
    if genes.isna().all():
        message = (
            f"tx2gene knows none of the transcripts of {part.source}: they are {part.genes[:3]} ..., those of tx2gene "
            f"{tx2gene.index[:3].tolist()} ...; take the mapping of the annotation that was quantified"
        )
        raise ValueError(message)
    return genes.tolist()


def _to_genes(part: Part, genes: list[Any]) -> Part:
    """Sum transcripts to genes; effective lengths are averaged with TPM as weights, as tximport does."""
    known = pd.notna(np.asarray(genes, dtype=object))
    codes, unique = pd.factorize(np.asarray(genes, dtype=object)[known])

    def total(values: NDArray[Any]) -> NDArray[np.float64]:
        return np.bincount(codes, weights=values, minlength=len(unique))

    counts, tpm = part.matrix[0, known], part.layers["tpm"][0, known]
    lengths = part.layers["effective_length"][0, known]
    abundance = total(tpm)
    with np.errstate(invalid="ignore", divide="ignore"):
        weighted = total(tpm * lengths) / abundance
    mean = total(lengths) / np.bincount(codes)
    unknown = [part.genes[i] for i in np.flatnonzero(~known)]
    report = {**part.report, "n_transcripts": len(part.genes), "n_transcripts_without_gene": len(unknown)}
    if unknown:
        report["transcripts_without_gene"] = unknown[:LISTED]
        logger.warning(
            "%s: %d of %d transcripts, %.2g of the reads, have no gene in tx2gene and were dropped, for example %s",
            part.source,
            len(unknown),
            len(part.genes),
            1 - counts.sum() / max(part.matrix.sum(), 1),
            unknown[:3],
        )
    layers = {"tpm": abundance[None], "effective_length": np.where(abundance > 0, weighted, mean)[None]}
    names = [str(gene) for gene in unique]
    return Part(part.source, part.layout, part.samples, names, total(counts)[None], layers, report=report)


def transcript_map(table: pd.DataFrame) -> pd.Series:
    """Return the gene of each transcript.

    Parameters
    ----------
    table
        A column of transcripts and one of genes, found by what they hold; else the first two.

    Raises
    ------
    ValueError
        If there are fewer than two columns, or a transcript has two genes.
    """
    if table.shape[1] < 2:
        message = f"tx2gene needs a column of transcripts and one of genes, found the columns {list(table)}"
        raise ValueError(message)
    shares = [transcript_share(table.iloc[:, i].tolist()) for i in range(table.shape[1])]
    transcripts = int(np.argmax(shares))
    genes = next(
        (i for i in range(table.shape[1]) if i != transcripts and gene_share(table.iloc[:, i].tolist()) > 0.5),
        int(transcripts == 0),
    )
    pairs = pd.DataFrame({"transcript": table.iloc[:, transcripts], "gene": table.iloc[:, genes]})
    pairs = pairs.dropna().astype(str).drop_duplicates()
    twice = pairs["transcript"][pairs["transcript"].duplicated()]
    if len(twice):
        found = pairs.loc[pairs["transcript"] == twice.iloc[0], "gene"].tolist()
        message = f"tx2gene gives the transcript {twice.iloc[0]!r} to several genes: {found}; keep one"
        raise ValueError(message)
    return pairs.set_index("transcript")["gene"]
