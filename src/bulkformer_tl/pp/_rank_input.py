"""Whether values are what an encoding needs, found out while they are read."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from bulkformer_tl.pp._scan import LOG_LIMIT, name_samples

if TYPE_CHECKING:
    import scipy.sparse as sp
    from anndata import AnnData
    from numpy.typing import NDArray

#: Relative spread of the samples' sums that passes for "the same sum".
SAME_SUM = 1e-3


@dataclass
class Look:
    """What was seen of a table of counts so far.

    Parameters
    ----------
    from_tpm
        Whether TPM are expected instead.
    """

    from_tpm: bool = False
    n_samples: int = 0
    whole: bool = True
    maximum: float = 0.0
    lowest: float = np.inf
    highest: float = 0.0

    def take(self, block: sp.csr_array) -> tuple[sp.csr_array, NDArray[np.float64]]:
        """Look at a block; the first one is judged at once.

        Parameters
        ----------
        block
            Samples by genes.

        Returns
        -------
        The block without missing values, and the sum of each sample.

        Raises
        ------
        ValueError
            If it holds what neither counts nor TPM can be.
        """
        if block.dtype.kind not in "iuf":
            message = f"the values are {block.dtype}, not counts; pass layer= for the one that holds them"
            raise ValueError(message)
        data = block.data
        low = float(data.min()) if len(data) else 0.0
        if np.isnan(low):
            block = block.copy()
            data = block.data = np.nan_to_num(data, nan=0.0, posinf=np.inf, neginf=-np.inf)
            low = float(data.min())
        totals = np.array([data[i:j].sum(dtype=np.float64) for i, j in pairwise(block.indptr.tolist())])
        if low < 0 or np.isinf(totals).any():
            message = (
                f"the values {f'go down to {low:.4g}' if low < 0 else 'hold infinities'}, which counts do not; "
                "scaled or corrected values do not lead back to counts: pass layer= for raw counts, "
                "bf.pp.diagnose(adata) looks for them"
            )
            raise ValueError(message)
        self.whole = self.whole and (data.dtype.kind != "f" or bool((data == np.rint(data)).all()))
        self.maximum = max(self.maximum, float(data.max(initial=0)))
        self.lowest = min(self.lowest, totals[totals > 0].min(initial=np.inf))
        self.highest = max(self.highest, totals.max())
        self.n_samples += len(totals)
        if self.n_samples == len(totals):
            self.judge()
        return block, totals

    def judge(self) -> None:
        """Refuse logarithms, and what was scaled where counts are needed.

        Raises
        ------
        ValueError
            If the values are not what was expected.
        """
        if not self.whole and self.maximum <= LOG_LIMIT:
            message = (
                f"the values are fractional and at most {self.maximum:.4g}, as logarithms are, not "
                f"{'TPM' if self.from_tpm else 'counts'}; pass layer= for the one that holds raw counts, "
                "bf.pp.diagnose(adata) looks for it"
            )
            raise ValueError(message)
        if self.from_tpm and self.whole:
            message = "the values are whole numbers, as counts are, not TPM; leave out from_tpm=True"
            raise ValueError(message)
        equal = self.highest - self.lowest <= SAME_SUM * self.highest
        million = abs(self.highest - 1e6) <= SAME_SUM * 1e6
        if not self.from_tpm and not self.whole and equal and (self.n_samples > 1 or million):
            message = (
                f"the values are fractional and sum to {self.highest:,.0f} in every sample, as TPM and normalized "
                "counts do, not counts; pass layer= for raw counts, or rank TPM by from_tpm=True"
            )
            raise ValueError(message)


def library_sizes(adata: AnnData, column: str | None) -> NDArray[np.float64] | None:
    """Return the counts of each sample as a column of ``obs`` states them; ``None`` where none was named.

    Raises
    ------
    KeyError
        If there is no such column.
    ValueError
        If one is not a positive number.
    """
    if column is None:
        return None
    if column not in adata.obs:
        message = f"adata.obs has no column {column!r}; its columns are {adata.obs.columns.tolist()}"
        raise KeyError(message)
    stated: Any = adata.obs[column]
    sizes = np.asarray(stated, dtype=np.float64) if stated.dtype.kind in "iuf" else np.full(adata.n_obs, np.nan)
    wrong = ~((sizes > 0) & np.isfinite(sizes))
    if wrong.any():
        message = (
            f"adata.obs[{column!r}] is not a positive number for {name_samples(adata.obs_names, wrong)}; leave out "
            "library_size= to add up the columns of adata"
        )
        raise ValueError(message)
    return sizes
