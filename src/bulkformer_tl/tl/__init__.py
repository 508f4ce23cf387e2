"""Tools: what a model makes of the samples, written beside the data."""

from bulkformer_tl.tl._attribute import attribute
from bulkformer_tl.tl._biomarkers import biomarkers
from bulkformer_tl.tl._classify import classify
from bulkformer_tl.tl._classify_genes import classify_genes
from bulkformer_tl.tl._compare import compare
from bulkformer_tl.tl._differential_expression import differential_expression
from bulkformer_tl.tl._drug_response import drug_response
from bulkformer_tl.tl._embed import embed
from bulkformer_tl.tl._enrich import enrich
from bulkformer_tl.tl._essentiality import essentiality
from bulkformer_tl.tl._finetune import finetune
from bulkformer_tl.tl._fuse import fuse
from bulkformer_tl.tl._gene_embeddings import gene_embeddings
from bulkformer_tl.tl._gene_modules import gene_modules
from bulkformer_tl.tl._gene_scores import gene_scores
from bulkformer_tl.tl._heads import Head, fitted_head
from bulkformer_tl.tl._impute import impute
from bulkformer_tl.tl._matrix_head import MatrixHead
from bulkformer_tl.tl._network import network
from bulkformer_tl.tl._network_graph import network_graph
from bulkformer_tl.tl._pair_heads import PairHead
from bulkformer_tl.tl._perturb import perturb
from bulkformer_tl.tl._perturb_change import Change
from bulkformer_tl.tl._perturb_states import States
from bulkformer_tl.tl._perturbation_features import gene_features
from bulkformer_tl.tl._perturbation_head import PerturbationHead
from bulkformer_tl.tl._perturbation_response import perturbation_response
from bulkformer_tl.tl._predict import predict
from bulkformer_tl.tl._regress import regress
from bulkformer_tl.tl._score_imputation import score_imputation
from bulkformer_tl.tl._survival import survival
from bulkformer_tl.tl._transfer import transfer
from bulkformer_tl.tl._zarr_output import ZarrOutput

__all__ = [
    "Change",
    "Head",
    "MatrixHead",
    "PairHead",
    "PerturbationHead",
    "States",
    "ZarrOutput",
    "attribute",
    "biomarkers",
    "classify",
    "classify_genes",
    "compare",
    "differential_expression",
    "drug_response",
    "embed",
    "enrich",
    "essentiality",
    "finetune",
    "fitted_head",
    "fuse",
    "gene_embeddings",
    "gene_features",
    "gene_modules",
    "gene_scores",
    "impute",
    "network",
    "network_graph",
    "perturb",
    "perturbation_response",
    "predict",
    "regress",
    "score_imputation",
    "survival",
    "transfer",
]
