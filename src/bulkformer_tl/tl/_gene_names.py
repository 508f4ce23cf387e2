"""Genes by what users call them: as in ``var_names``, by Ensembl id, or by symbol."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bulkformer_tl._vocabulary import gene_table, strip_version, symbol_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def find_genes(columns: pd.Index | NDArray[np.str_], names: Sequence[str]) -> NDArray[np.intp]:
    """Return the column of each gene, by its name, its Ensembl id or its symbol.

    Parameters
    ----------
    columns
        Names of columns: Ensembl ids, with or without version, or symbols.
    names
        Genes, called as the columns are, or by the other.

    Returns
    -------
    Positions among the columns, of the first where several are the gene; -1 where there is none.
    """
    own = pd.Index(np.asarray(columns, dtype=str))
    ids = pd.Index(strip_version(own))
    wanted = pd.Index([str(name) for name in names])
    as_id = pd.Index(symbol_table().reindex(wanted).fillna("").to_numpy(dtype=str))
    as_symbol = pd.Index(gene_table()["symbol"].reindex(strip_version(wanted)).fillna("").to_numpy(dtype=str))
    found = np.full(len(wanted), -1, dtype=np.intp)
    for index, asked in ((own, wanted), (ids, pd.Index(strip_version(wanted))), (ids, as_id), (own, as_symbol)):
        known = index[~index.duplicated()]
        places = pd.Series(np.flatnonzero(~index.duplicated()), index=known).reindex(asked).fillna(-1)
        found = np.where(found < 0, places.to_numpy(dtype=np.intp), found)
    return found
