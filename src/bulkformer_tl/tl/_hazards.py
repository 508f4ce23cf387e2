"""The survival test of a gene: Cox regression, and a log-rank test of high against low."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bulkformer_tl.metrics._cox_screen import cox_screen
from bulkformer_tl.metrics._logrank_screen import LEAST_SHARE, best_cut, logrank_screen

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bulkformer_tl.tl._screen import Found

    Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Hazards:
    """The test of a gene.

    Parameters
    ----------
    time, event, strata, covariates
        Of the rows, as of ``cox_screen``.
    split
        How samples are made high and low, if at all.
    level
        Of the intervals.
    """

    time: Numbers
    event: NDArray[np.bool_]
    strata: NDArray[np.intp] | None
    covariates: Numbers | None
    split: str | None
    level: float = 0.95

    @property
    def names(self) -> tuple[str, ...]:
        """What is found of each gene."""
        split = ("cut", "n_high", "score", "search_p") if self.split else ()
        return ("events", "sd", "coefficient", "error", *split)

    def __call__(self, values: Numbers, rows: NDArray[np.intp]) -> Found:
        """Test genes on some rows."""
        time, event = self.time[rows], self.event[rows]
        strata = None if self.strata is None else self.strata[rows]
        covariates = None if self.covariates is None else self.covariates[rows]
        if covariates is not None:
            covariates = covariates[:, np.ptp(covariates, axis=0) > 0]
        n_genes = values.shape[1]
        found = {name: np.full(n_genes, np.nan) for name in self.names}
        found["events"][:] = event.sum()
        found["sd"] = values.std(axis=0)
        tested, columns = np.ones(n_genes, dtype=bool), values
        if self.split is not None:
            columns, tested = self._split(values, time, event, strata, found)
        if event.any() and tested.any():
            fit = cox_screen(time, event, columns[:, tested], strata=strata, covariates=covariates)
            found["coefficient"][tested], found["error"][tested] = fit
        return found

    def _split(
        self,
        values: Numbers,
        time: Numbers,
        event: NDArray[np.bool_],
        strata: NDArray[np.intp] | None,
        found: Found,
    ) -> tuple[Numbers, NDArray[np.bool_]]:
        """Cut each gene in two, and return which samples are high and which genes have enough on both sides."""
        if self.split == "optimal":
            cut, found["score"], found["search_p"] = best_cut(time, event, values)
            found["cut"], high = cut, values > cut
        else:
            high = np.zeros(values.shape, dtype=bool)
            codes = np.zeros(len(values), dtype=np.intp) if strata is None else strata
            for code in np.unique(codes):
                here = codes == code
                cut = np.median(values[here], axis=0)
                high[here] = values[here] > cut
            if strata is None:
                found["cut"] = cut
        found["n_high"] = high.sum(axis=0).astype(np.float64)
        share = high.mean(axis=0)
        enough: NDArray[np.bool_] = np.minimum(share, 1 - share) >= LEAST_SHARE
        if self.split == "median":
            found["score"][enough] = logrank_screen(time, event, high[:, enough], strata=strata)
        return high.astype(np.float64), enough

    def table(self, found: Found) -> pd.DataFrame:
        """Turn what was found into columns."""
        from scipy.stats import norm

        unit = found["sd"] if self.split is None else np.ones_like(found["sd"])
        beta, error = found["coefficient"] * unit, found["error"] * unit
        half = np.full_like(beta, np.nan) if self.split == "optimal" else norm.isf((1 - self.level) / 2) * error
        table: dict[str, Any] = {"events": np.nan_to_num(found["events"]).astype(np.int64), "sd": found["sd"]}
        if self.split is not None:
            table |= {"cut": found["cut"]} if self.strata is None else {}
            table |= {"n_high": np.nan_to_num(found["n_high"]).astype(np.int64)}
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            statistic = beta / error
            table |= {"hazard_ratio": np.exp(beta), "low": np.exp(beta - half), "high": np.exp(beta + half)}
        if self.split is not None and self.covariates is None:
            statistic = found["score"]
        table["statistic"] = statistic
        table["p"] = found["search_p"] if self.split == "optimal" else 2 * norm.sf(np.abs(statistic))
        return pd.DataFrame(table)
