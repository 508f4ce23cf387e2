"""Splits, scores, baselines and result tables of an honest evaluation, on arrays."""

from bulkformer_tl.metrics._baselines import baseline, baseline_names, probe
from bulkformer_tl.metrics._binned import hel_sensitivity, lowest_bin, npv_50, sensitivity
from bulkformer_tl.metrics._classification import (
    auprc,
    auroc,
    balanced_accuracy,
    brier,
    calibration_error,
    f1,
    reliability,
)
from bulkformer_tl.metrics._clustering import ari, asw, avg_bio, batch_mixing, nmi
from bulkformer_tl.metrics._compare import compare
from bulkformer_tl.metrics._compare_survival import compare_survival, evaluation_times
from bulkformer_tl.metrics._concordance import concordance_by_stratum, harrell_c, uno_c
from bulkformer_tl.metrics._curves import log_rank, survival_curves
from bulkformer_tl.metrics._duplicates import near_duplicates
from bulkformer_tl.metrics._evaluate import Evaluation, cross_validate
from bulkformer_tl.metrics._fit import fit_predict
from bulkformer_tl.metrics._imputers import fit_imputer, imputer_names
from bulkformer_tl.metrics._paper import paper_protocol
from bulkformer_tl.metrics._protocol import Protocol
from bulkformer_tl.metrics._regression import pearson, r2, rmse, spearman
from bulkformer_tl.metrics._resample import resample
from bulkformer_tl.metrics._splits import Split, inner_folds, k_fold, leave_one_group_out, leave_pair_out
from bulkformer_tl.metrics._survival import integrated_brier, survival_brier, time_dependent_auc
from bulkformer_tl.metrics._tables import add_rows, holm

__all__ = [
    "Evaluation",
    "Protocol",
    "Split",
    "add_rows",
    "ari",
    "asw",
    "auprc",
    "auroc",
    "avg_bio",
    "balanced_accuracy",
    "baseline",
    "baseline_names",
    "batch_mixing",
    "brier",
    "calibration_error",
    "compare",
    "compare_survival",
    "concordance_by_stratum",
    "cross_validate",
    "evaluation_times",
    "f1",
    "fit_imputer",
    "fit_predict",
    "harrell_c",
    "hel_sensitivity",
    "holm",
    "imputer_names",
    "inner_folds",
    "integrated_brier",
    "k_fold",
    "leave_one_group_out",
    "leave_pair_out",
    "log_rank",
    "lowest_bin",
    "near_duplicates",
    "nmi",
    "npv_50",
    "paper_protocol",
    "pearson",
    "probe",
    "r2",
    "reliability",
    "resample",
    "rmse",
    "sensitivity",
    "spearman",
    "survival_brier",
    "survival_curves",
    "time_dependent_auc",
    "uno_c",
]
