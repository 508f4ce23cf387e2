"""Differential expression of counts, by pydeseq2."""

from __future__ import annotations

from contextlib import redirect_stdout
from io import StringIO
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bulkformer_tl._anndata import get_matrix, row_blocks
from bulkformer_tl._settings import settings
from bulkformer_tl.tl._expression_tests import LEVEL

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from bulkformer_tl.tl._rows import Rows


def read_counts(adata: AnnData, rows: Rows, layer: str | None) -> NDArray[np.int64]:
    """Return counts as rows x genes, those of a group added up.

    Raises
    ------
    ValueError
        If they are missing, negative or not whole.
    """
    where = "adata.X" if layer is None else f"adata.layers[{layer!r}]"
    blocks = []
    for part, block in row_blocks(get_matrix(adata, layer), dtype=np.float64):
        wrong = np.argwhere(~(np.isfinite(block) & (block >= 0) & (block == np.floor(block))))
        if len(wrong):
            row, gene = wrong[0]
            message = (
                f"{where} holds {block[row, gene]:.6g} in sample {adata.obs_names[part.start + row]!r}, gene "
                f'{adata.var_names[gene]!r}, which is no count; method="deseq2" needs raw counts, pass their layer, or '
                'take method="moderated" on ln(TPM+1)'
            )
            raise ValueError(message)
        blocks.append(block.astype(np.int64))
    return rows.sum(np.concatenate(blocks))


def deseq_table(
    counts: NDArray[np.int64],
    case: NDArray[np.bool_],
    design: NDArray[np.float64],
    genes: pd.Index,
    *,
    alpha: float,
) -> pd.DataFrame:
    """Fit negative binomial models of all genes and test the class by Wald's test (Love et al. 2014).

    Parameters
    ----------
    counts
        Shape (N, G).
    case
        Which rows are cases, shape (N,).
    design
        Covariates, shape (N, P).
    genes
        Their names.
    alpha
        False discovery rate that independent filtering aims at.
    """
    from pydeseq2.dds import DeseqDataSet
    from pydeseq2.default_inference import DefaultInference
    from pydeseq2.ds import DeseqStats
    from scipy.stats import norm

    rows = [f"row{i}" for i in range(len(counts))]
    expressed = counts.any(axis=0)
    table = pd.DataFrame(counts[:, expressed], index=rows, columns=genes[expressed].astype(str))
    covariates = {f"covariate{j}": design[:, j] for j in range(design.shape[1])}
    matrix = pd.DataFrame({"intercept": 1.0, **covariates, "case": case.astype(np.float64)}, index=rows)
    common: dict[str, Any] = {"inference": DefaultInference(n_cpus=1), "quiet": not settings.progress}
    fitted = DeseqDataSet(counts=table, metadata=matrix.copy(), design=matrix, low_memory=True, **common)
    fitted.deseq2()
    tested = DeseqStats(fitted, contrast=np.eye(matrix.shape[1])[-1], alpha=alpha, **common)
    with redirect_stdout(StringIO()):
        # prints its table
        tested.summary()
    names = genes.astype(str)
    found = tested.results_df.reindex(names)
    fold, error = (found[name].to_numpy(dtype=np.float64) for name in ("log2FoldChange", "lfcSE"))
    normalised = np.zeros(counts.shape)
    normalised[:, expressed] = fitted.layers["normed_counts"]
    half = norm.isf((1 - LEVEL) / 2) * error
    columns = {
        "n": len(counts),
        "n_case": int(case.sum()),
        "n_control": int((~case).sum()),
        "mean_case": normalised[case].mean(axis=0),
        "mean_control": normalised[~case].mean(axis=0),
        "log2_fold_change": fold,
        "low": fold - half,
        "high": fold + half,
        "statistic": found["stat"].to_numpy(dtype=np.float64),
        "p": found["pvalue"].to_numpy(dtype=np.float64),
        "fdr": found["padj"].to_numpy(dtype=np.float64),
    }
    return pd.DataFrame(columns, index=pd.Index(names, name="gene"))
