"""Genes whose expression goes with survival: one test for each, with its false discovery rate."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from bulkformer_tl._anndata import check_anndata, check_slots
from bulkformer_tl._keys import BIOMARKERS
from bulkformer_tl.metrics._paper import resolve_protocol
from bulkformer_tl.tl._hazards import Hazards
from bulkformer_tl.tl._outcome import read_outcome
from bulkformer_tl.tl._report import write_tables
from bulkformer_tl.tl._rows import make_rows, read_covariates, read_strata, read_values
from bulkformer_tl.tl._screen import Screen, check_options, run_screen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

    from bulkformer_tl.metrics import Protocol
    from bulkformer_tl.tl._rows import Rows

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
        ln(TPM+1), or risks of :func:`bulkformer_tl.tl.gene_scores`; ``None`` reads ``X``.
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
        (``sd``), or of high against low, with its interval (95 % by default) ``low`` to ``high``; ``statistic``,
        positive where more expression means more events; ``p`` (Wald, log-rank, or corrected for the search) and
        ``fdr`` (Benjamini and Hochberg). With ``split`` also ``cut`` (without strata) and ``n_high``. ``NaN`` for a
        gene that is constant, is measured in fewer than four samples, or whose median or cut-point leaves less than a
        tenth on one side.
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
    test, rows, known = _prepare(adata, time, event, split=split, groups=groups, strata=strata, covariates=covariates)
    test = replace(test, level=plan.level)
    values, filled = read_values(adata, rows, layer, imputed)
    if split == "optimal":
        _warn_optimal(len(rows))
    tables = run_screen(
        Screen(test.names, test, test.table),
        values,
        filled,
        adata.var_names,
        alpha=alpha,
        n_permutations=n_permutations,
        rng=np.random.default_rng(rng),
        strata=test.strata,
        description=BIOMARKERS,
    )
    given = {"time": time, "event": event, "split": split, "imputed": imputed, "groups": groups, "strata": strata}
    params = {
        "task": BIOMARKERS,
        **{name: value or "" for name, value in given.items()},
        "layer": layer or "X",
        "covariates": list(covariates or []),
        "alpha": alpha,
        "n_permutations": n_permutations if imputed else 0,
        "n": len(rows),
        "events": int(test.event.sum()),
        "n_left_out": int(adata.n_obs - known.sum()),
        "protocol": plan.params(),
    }
    return write_tables(adata, key_added, tables, params, copy=copy)


def _prepare(
    adata: AnnData,
    time: str,
    event: str,
    *,
    split: str | None,
    groups: str | None,
    strata: str | None,
    covariates: Sequence[str] | None,
) -> tuple[Hazards, Rows, NDArray[np.bool_]]:
    """Read outcome, strata and covariates: the test, the rows that it is made on, and which samples they are of."""
    outcome = read_outcome(adata, time, event)
    levels, in_stratum = read_strata(adata, strata)
    design, complete = read_covariates(adata, covariates)
    known = outcome.known & in_stratum & complete
    rows = make_rows(adata, known, groups, {time: outcome.time, event: outcome.event, str(strata): levels})
    times, events = outcome.time[rows.first], outcome.event[rows.first]
    if not events.any():
        message = f"no event of adata.obs[{event!r}] is left among the {len(rows)} samples without missing columns"
        raise ValueError(message)
    codes = None if levels is None else levels[rows.first]
    return Hazards(times, events, codes, rows.mean(design) if design.size else None, split), rows, known


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
