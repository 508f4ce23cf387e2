"""Plots: each takes ``ax``, returns the Axes, and neither shows, saves, computes nor writes."""

from bulkformer_tl.pl._attention import attention
from bulkformer_tl.pl._attributions import attributions
from bulkformer_tl.pl._classification import calibration, confusion, roc
from bulkformer_tl.pl._coverage import coverage
from bulkformer_tl.pl._imputation import imputation
from bulkformer_tl.pl._imputation_curve import imputation_curve
from bulkformer_tl.pl._network import network
from bulkformer_tl.pl._palette import palette
from bulkformer_tl.pl._per_column import per_column
from bulkformer_tl.pl._perturbation import perturbation
from bulkformer_tl.pl._perturbation_response import perturbation_response
from bulkformer_tl.pl._regression import regression
from bulkformer_tl.pl._score_axes import score_axes
from bulkformer_tl.pl._scores import scores
from bulkformer_tl.pl._survival import forest, kaplan_meier
from bulkformer_tl.pl._training import training
from bulkformer_tl.pl._volcano import volcano

__all__ = [
    "attention",
    "attributions",
    "calibration",
    "confusion",
    "coverage",
    "forest",
    "imputation",
    "imputation_curve",
    "kaplan_meier",
    "network",
    "palette",
    "per_column",
    "perturbation",
    "perturbation_response",
    "regression",
    "roc",
    "score_axes",
    "scores",
    "training",
    "volcano",
]
