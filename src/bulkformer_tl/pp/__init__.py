"""From what a table of expression holds to what a model reads."""

from bulkformer_tl.pp._align import align_genes
from bulkformer_tl.pp._bin_expression import bin_expression
from bulkformer_tl.pp._build_vocabulary import build_vocabulary
from bulkformer_tl.pp._coexpression import coexpression_graph
from bulkformer_tl.pp._convert import to_log_tpm
from bulkformer_tl.pp._diagnose import diagnose
from bulkformer_tl.pp._graph_edges import graph_edges
from bulkformer_tl.pp._hide import hide
from bulkformer_tl.pp._log_tpm import log_tpm
from bulkformer_tl.pp._merge import merge_duplicates
from bulkformer_tl.pp._rank_value_encode import rank_value_encode
from bulkformer_tl.pp._stack_modalities import stack_modalities

__all__ = [
    "align_genes",
    "bin_expression",
    "build_vocabulary",
    "coexpression_graph",
    "diagnose",
    "graph_edges",
    "hide",
    "log_tpm",
    "merge_duplicates",
    "rank_value_encode",
    "stack_modalities",
    "to_log_tpm",
]
