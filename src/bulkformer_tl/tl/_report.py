"""Tables of screened genes: written to ``uns`` and told in one line."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from bulkformer_tl._anndata import copied, write_results

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from anndata import AnnData

logger = logging.getLogger(__name__)


def write_tables(
    adata: AnnData, key: str, tables: Mapping[str, pd.DataFrame], params: Mapping[str, Any], *, copy: bool
) -> AnnData | None:
    """Write tables of genes to ``uns[key]`` and log what they found.

    Parameters
    ----------
    adata
        Annotated samples.
    key
        Name of the result.
    tables
        ``"genes"``, and after a comparison with imputed values ``"imputed"`` and ``"changes"``.
    params
        How it was done, with ``alpha``.
    copy
        Write to a copy and return it.
    """
    alpha = params["alpha"]
    genes = tables["genes"]
    logger.info(
        "%s: %d of %d genes at a false discovery rate of %g (%d could not be tested)",
        key,
        int((genes["fdr"] <= alpha).sum()),
        len(genes),
        alpha,
        int(genes["p"].isna().sum()),
    )
    if "changes" in tables:
        gained = tables["changes"].to_dict("records")[0]
        logger.info(
            "%s: imputation gains %d genes; permuted imputation %s (mean; 95 %% of draws up to %s)",
            key,
            int(gained["n"]),
            f"{gained['null_mean']:.1f}",
            f"{gained['null_high']:.1f}",
        )
        if not gained["n"] > np.nan_to_num(gained["null_high"]):
            logger.warning("%s: what imputation gains is no more than permuted imputation gains", key)
    target = copied(adata) if copy else adata
    write_results(target, key, {}, params, dict(tables))
    return target if copy else None
