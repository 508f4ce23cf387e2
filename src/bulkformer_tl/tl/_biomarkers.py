"""Genes whose expression goes with survival: one test for each, with its false discovery rate."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from bulkformer_tl._anndata import check_anndata, check_slots
from bulkformer_tl._keys import BIOMARKERS
from bulkformer_tl._progress import Progress
from bulkformer_tl.metrics._cox import cox_screen
from bulkformer_tl.metrics._paper import resolve_protocol
from bulkformer_tl.metrics._logrank import LEAST_SHARE, best_cut, logrank_screen
from bulkformer_tl.tl._outcome import read_outcome
from bulkformer_tl.tl._report import write_tables
from bulkformer_tl.tl._rows import make_rows, read_covariates, read_strata, read_values
from bulkformer_tl.tl._screen import Screen, compare_imputed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

    from bulkformer_tl.metrics import Protocol
    from bulkformer_tl.tl._screen import Found

    Numbers = NDArray[np.float64]

logger = logging.getLogger(__name__)

SPLITS = (None, "median", "optimal")


def biomarkers(
    adata: AnnData,
    time: str,
    *,
    event: str,
    split: Literal["median", "optimal"] | None = None,
    layer: str | None = None,
    imputed: str | None = None,
    groups: str | None = None,
    strata: str | None = None,
    covariates: Sequence[str] | None = None,
    alpha: float = 0.05,
    n_permutations: int = 20,
    protocol: Protocol | Literal["paper"] | None = None,
    rng: int | np.random.Generator = 0,
    key_added: str = BIOMARKERS,
    copy: bool = False,
) -> AnnData | None:
    """Screen genes for an association with survival, each alone.

    Every gene has a Cox regression of its own (Efron's method for ties), and with ``split`` also a log-rank test of the
    samples above a cut-point against the others. All genes are fitted at once; the numbers are those of lifelines. A
    gene is tested on the samples that it is measured in.

    With ``imputed``, genes are screened before and after imputation. The genes that this gains are counted beside a
    null: the imputed entries of each gene are permuted among the samples (of a stratum), which leaves measured values,
    sample size and the distribution of imputed ones as they are. It tells whether imputed values go with survival. It
    does not tell whether they are right: what a model derives from other genes carries their association along.

    Parameters
    ----------
    adata
        Samples by genes.
    time
        Column of ``obs`` with the time until event or censoring; missing where it is not known.
    event
        Column of ``obs`` that says whether the event happened: boolean, or 1 and 0.
    split
        ``None`` takes expression as it is. ``"median"`` compares samples above the median (of their stratum) with the
        others. ``"optimal"`` searches the cut-point that separates survival best, and warns: its hazard ratios are too
        large by construction and get no interval, its p-values are corrected for the search.
    layer
        ln(TPM+1), or scores of :func:`bulkformer_tl.tl.gene_scores`; ``None`` reads ``X``.
    imputed
        Layer of :func:`bulkformer_tl.tl.impute`, made from ``layer``.
    groups
        Column of ``obs`` that names what is not independent, such as the patient: samples of a group are averaged.
    strata
        Column of ``obs``, such as the cancer type: samples are compared within a stratum only.
    covariates
        Columns of ``obs`` that each regression adjusts for. p-values are then those of the regression also with
        ``split="median"``.
    alpha
        False discovery rate below which a gene counts as found.
    n_permutations
        How often imputed entries are permuted; 0 leaves the null out.
    protocol
        Its ``level`` is that of the intervals; folds belong to :func:`bulkformer_tl.tl.gene_scores`. ``"paper"`` takes
        the paper's screen where ``split`` is not given: the median split, one log-rank test per gene.
    rng
        Of the permutations.
    key_added
        Name of the result.
    copy
        Return a modified copy instead of writing to ``adata``.

    Returns
    -------
    ``None``, or an :class:`~anndata.AnnData` if ``copy=True``. Sets the following fields:

    ``adata.uns[key_added]["genes"]`` : :class:`pandas.DataFrame`
        One row per gene: ``n`` and ``events`` it was tested on; ``hazard_ratio`` per standard deviation of the gene
        (``sd``), or of high against low, with its interval (95 % by default) ``low`` to ``high``; ``statistic``, positive where more
        expression means more events; ``p`` (Wald, log-rank, or corrected for the search) and ``fdr`` (Benjamini and
        Hochberg). With ``split`` also ``cut`` (without strata) and ``n_high``. ``NaN`` for a gene that is constant, is
        measured in fewer than four samples, or whose median or cut-point leaves less than a tenth on one side.
    ``adata.uns[key_added]["imputed"]`` : :class:`pandas.DataFrame`
        The same after imputation, with ``n_imputed`` and ``change``: ``"gained"``, ``"lost"``, ``"kept"`` or
        ``"none"``.
    ``adata.uns[key_added]["changes"]`` : :class:`pandas.DataFrame`
        Number ``n`` of genes gained, lost and kept; mean and 95 % quantile of that number with permuted imputation
        (``null_mean``, ``null_high``); and the share ``p`` of draws that reach ``n``.
    ``adata.uns[key_added]["params"]`` : :class:`dict`
        How it was done.

    Warns
    -----
    UserWarning
        If ``split="optimal"``.

    Raises
    ------
    ValueError
        If times are not above 0, events are neither 0 nor 1, there is none, expression is no ln(TPM+1), ``imputed`` was
        not made from ``layer``, samples of a group differ, options do not go together, or a slot holds something else.
    KeyError
        If a column or layer is not there.
    TypeError
        If times or events are text.

    Examples
    --------
    >>> import bulkformer_tl as bf
    >>> adata = bf.datasets.toy()
    >>> bf.pp.log_tpm(adata)
    >>> adata.obs["days"], adata.obs["died"] = range(1, adata.n_obs + 1), [True, False] * (adata.n_obs // 2)
    >>> bf.tl.biomarkers(adata, "days", event="died", layer="log_tpm")
    >>> len(adata.uns["biomarkers"]["genes"]) == adata.n_vars
    True
    """
    check_anndata(adata)
    check_slots(adata, key_added, [])
    check_options(alpha, n_permutations)
    plan = resolve_protocol(protocol, BIOMARKERS)
    split = "median" if split is None and protocol == "paper" else split
    _check_split(split, strata, covariates)
    outcome = read_outcome(adata, time, event)
    levels, in_stratum = read_strata(adata, strata)
    design, complete = read_covariates(adata, covariates)
    known = outcome.known & in_stratum & complete
    same = {time: outcome.time, event: outcome.event, str(strata): levels}
    rows = make_rows(adata, known, groups, same)
    times, events = outcome.time[rows.first], outcome.event[rows.first]
    if not events.any():
        message = f"no event of adata.obs[{event!r}] is left among the {len(rows)} samples without missing columns"
        raise ValueError(message)
    values, filled = read_values(adata, rows, layer, imputed)
    if split == "optimal":
        _warn_optimal(len(rows))
    survival = _Survival(
        times,
        events,
        None if levels is None else levels[rows.first],
        rows.mean(design) if design.size else None,
        split,
        plan.level,
    )
    screen = Screen(survival.names, survival, survival.table)
    draws = 0 if filled is None else n_permutations
    with Progress((1 + draws + (filled is not None)) * adata.n_vars, BIOMARKERS, unit="gene") as progress:
        if filled is None:
            tables = {"genes": screen.table(screen.find(values, progress), adata.var_names)}
        else:
            found = compare_imputed(
                screen,
                values,
                filled,
                adata.var_names,
                alpha=alpha,
                n_permutations=n_permutations,
                rng=np.random.default_rng(rng),
                progress=progress,
                strata=survival.strata,
            )
            tables = dict(zip(("genes", "imputed", "changes"), found, strict=True))
    params = {
        "task": BIOMARKERS,
        "time": time,
        "event": event,
        "split": split or "",
        "layer": layer or "X",
        "imputed": imputed or "",
        "groups": groups or "",
        "strata": strata or "",
        "covariates": list(covariates or []),
        "alpha": alpha,
        "n_permutations": draws,
        "level": plan.level,
        "n": len(rows),
        "events": int(events.sum()),
        "n_left_out": int(adata.n_obs - known.sum()),
    }
    return write_tables(adata, key_added, tables, params, copy=copy)


@dataclass(frozen=True)
class _Survival:
    """The test of a gene.

    Parameters
    ----------
    time, event, strata, covariates
        Of the rows, as of :func:`bulkformer_tl.metrics._cox.cox_screen`.
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
    level: float

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


def check_options(alpha: float, n_permutations: int) -> None:
    """Refuse an impossible false discovery rate or number of permutations."""
    if not 0 < alpha < 1:
        message = f"alpha is {alpha}; use a false discovery rate between 0 and 1, such as 0.05"
        raise ValueError(message)
    if n_permutations < 0:
        message = f"n_permutations is {n_permutations}; use 0 for no null, or at least 1"
        raise ValueError(message)


def _check_split(split: str | None, strata: str | None, covariates: Sequence[str] | None) -> None:
    if split not in SPLITS:
        message = f"split is {split!r}; choose among {list(SPLITS)}"
        raise ValueError(message)
    if split == "optimal" and (strata is not None or covariates is not None):
        given = "strata" if strata is not None else "covariates"
        message = (
            f'split="optimal" corrects for its search without {given} only; use split="median", or screen the '
            "samples of each stratum apart"
        )
        raise ValueError(message)


def _warn_optimal(n: int) -> None:
    message = (
        f'split="optimal" cuts each gene where it separates the survival of these {n} samples best: hazard ratios are '
        "too large by construction and get no interval; p-values are corrected for the search (Lausen and Schumacher "
        '1992). split="median" or split=None needs no correction'
    )
    warnings.warn(message, UserWarning, stacklevel=3)
