"""Which layout a file has, told from its first lines, and who reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bulkformer_tl._read._samples import QUANTIFIERS, Strandedness, read_sample, sample_layout
from bulkformer_tl._read._tables import (
    FEATURE_COUNTS,
    Orientation,
    looks_like_genes,
    read_feature_counts,
    read_gct,
    read_table,
    table_layout,
)

if TYPE_CHECKING:
    import pandas as pd

    from bulkformer_tl._read._part import Part
    from bulkformer_tl._read._table import Dialect
    from bulkformer_tl._read._text import Head

_SAMPLES = {"star", "htseq", *QUANTIFIERS, *(f"{name}_transcripts" for name in QUANTIFIERS)}


@dataclass(frozen=True)
class Options:
    """What the caller said about the files."""

    orientation: Orientation | None
    strandedness: Strandedness
    tx2gene: pd.Series | None
    dialect: Dialect
    encoding: str


def layout_of(head: Head) -> str | None:
    """Return the layout of a file; ``None`` if it does not look like expression."""
    if any(line.startswith(("#1.2", "#1.3")) for line in head.comments[:1]):
        return "gct"
    if [name.strip().casefold() for name in head.header[:6]] == FEATURE_COUNTS:
        return "featureCounts"
    layout = sample_layout(head)
    if layout is not None:
        return layout
    return table_layout(head) if looks_like_genes(head) else None


def read_part(head: Head, layout: str, options: Options) -> Part:
    """Read a file of a known layout."""
    if layout in _SAMPLES:
        return read_sample(head, layout, options.strandedness, options.tx2gene, options.dialect)
    if layout == "gct":
        return read_gct(head, options.dialect)
    if layout == "featureCounts":
        return read_feature_counts(head, options.dialect)
    return read_table(head, layout, options.orientation, options.dialect)
