"""Pure functions between expression values and what models read, on arrays."""

from bulkformer_tl.encodings._bins import quantile_bins, segment_bins, value_bins
from bulkformer_tl.encodings._check import find_fault
from bulkformer_tl.encodings._check_counts import find_count_fault
from bulkformer_tl.encodings._correlate import correlate
from bulkformer_tl.encodings._fingerprints import morgan_fingerprints
from bulkformer_tl.encodings._log_tpm import denominator_sums, from_log, log_tpm, per_length, to_log, tpm
from bulkformer_tl.encodings._masks import hide_balanced, hide_share
from bulkformer_tl.encodings._neighbours import nearest_genes
from bulkformer_tl.encodings._ranks import RankTable, rank_genes, scale_by_median

__all__ = [
    "RankTable",
    "correlate",
    "denominator_sums",
    "find_count_fault",
    "find_fault",
    "from_log",
    "hide_balanced",
    "hide_share",
    "log_tpm",
    "morgan_fingerprints",
    "nearest_genes",
    "per_length",
    "quantile_bins",
    "rank_genes",
    "scale_by_median",
    "segment_bins",
    "to_log",
    "tpm",
    "value_bins",
]
