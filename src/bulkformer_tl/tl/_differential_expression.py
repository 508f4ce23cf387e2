"""Genes that differ between two classes of samples, before and after imputation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bulkformer_tl._anndata import check_anndata, check_slots
from bulkformer_tl._keys import DIFFERENTIAL_EXPRESSION
from bulkformer_tl._optional import require
from bulkformer_tl.tl._columns import column
from bulkformer_tl.tl._deseq import deseq_table, read_counts
from bulkformer_tl.tl._expression_tests import moderated_screen, rank_screen, welch_screen
from bulkformer_tl.tl._report import write_tables
from bulkformer_tl.tl._rows import make_rows, read_covariates, read_values
from bulkformer_tl.tl._screen import check_options, run_screen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

    from bulkformer_tl.tl._screen import Screen

METHODS = ("moderated", "welch", "rank", "deseq2")
#: Tests that adjust for covariates.
ADJUST = ("moderated", "deseq2")
#: Samples that a class has to have.
LEAST_SAMPLES = 2


def differential_expression(
    adata: AnnData,
    label: str,
    *,
    case: Any,
    control: Any = None,
    method: Literal["moderated", "welch", "rank", "deseq2"] = "moderated",
    layer: str | None = None,
    imputed: str | None = None,
    groups: str | None = None,
    covariates: Sequence[str] | None = None,
    alpha: float = 0.05,
    n_permutations: int = 20,
    rng: int | np.random.Generator = 0,
    key_added: str = DIFFERENTIAL_EXPRESSION,
    copy: bool = False,
) -> AnnData | None:
    """Test every gene for a difference between two classes of samples.

    With ``imputed``, genes are tested before and after imputation. The genes that this gains are counted beside a null:
    the imputed entries of each gene are permuted among the samples, which leaves measured values, sample size and the
    distribution of imputed ones as they are. It tells whether imputed values go with the class. It does not tell
    whether they are right: what a model derives from other genes carries their difference along. No test knows how
    sure an imputed value is.

    Parameters
    ----------
    adata
        Samples by genes.
    label
        Column of ``obs`` with the classes; samples without one are left out.
    case
        The class of interest.
    control
        The class that it is compared with; ``None`` takes all other samples that have a class.
    method
        ``"moderated"``: a linear model of each gene, its variance shrunken towards that of all genes as in limma, which
        the paper takes (Smyth 2004, doi:10.2202/1544-6115.1027). ``"welch"``: Welch's t. ``"rank"``: Mann and Whitney's
        test. These read ln(TPM+1). ``"deseq2"`` reads raw counts and takes pydeseq2 (extra ``de``).
    layer
        ln(TPM+1), or counts for ``"deseq2"``; ``None`` reads ``X``.
    imputed
        Layer of :func:`bulkformer_tl.tl.impute`, made from ``layer``.
    groups
        Column of ``obs`` that names what is not independent, such as the patient: samples of a group are averaged, or
        counts added up. Where a group has samples of both classes, pass it among ``covariates`` instead, which pairs
        them.
    covariates
        Columns of ``obs`` to adjust for, with ``"moderated"`` and ``"deseq2"``.
    alpha
        False discovery rate below which a gene counts as found.
    n_permutations
        How often imputed entries are permuted; 0 leaves the null out.
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
        One row per gene: ``n_case`` and ``n_control`` it was tested on, their means ``mean_case`` and ``mean_control``
        (normalised counts for ``"deseq2"``), ``log2_fold_change`` with its 95 % interval ``low`` to ``high``
        (``"rank"``: ``auroc`` instead), ``statistic``, positive where the case is higher, ``p`` and ``fdr`` (Benjamini
        and Hochberg; ``"deseq2"``: after its own filtering). ``NaN`` for a gene that cannot be tested.
    ``adata.uns[key_added]["imputed"]`` : :class:`pandas.DataFrame`
        The same after imputation, with ``n_imputed`` and ``change``: ``"gained"``, ``"lost"``, ``"kept"`` or
        ``"none"``.
    ``adata.uns[key_added]["changes"]`` : :class:`pandas.DataFrame`
        Number ``n`` of genes gained, lost and kept; mean and 95 % quantile of that number with permuted imputation
        (``null_mean``, ``null_high``); and the share ``p`` of draws that reach ``n``.
    ``adata.uns[key_added]["params"]`` : :class:`dict`
        How it was done.

    Raises
    ------
    ValueError
        If a class is not there or has fewer than two samples, values are not of the unit that the method reads,
        ``imputed`` was not made from ``layer``, samples of a group differ, options do not go together, or a slot holds
        something else.
    KeyError
        If a column or layer is not there.
    ImportError
        If ``"deseq2"`` is asked for and pydeseq2 is not installed.

    Examples
    --------
    >>> import bulkformer_tl as bf
    >>> adata = bf.datasets.toy()
    >>> bf.pp.log_tpm(adata)
    >>> bf.tl.differential_expression(adata, "tissue", case=adata.obs["tissue"].iloc[0], layer="log_tpm")
    >>> len(adata.uns["differential_expression"]["genes"]) == adata.n_vars
    True
    """
    check_anndata(adata)
    check_slots(adata, key_added, [])
    check_options(alpha, n_permutations)
    _check_method(method, imputed, covariates)
    is_case, labelled = _read_classes(adata, label, case, control)
    design, complete = read_covariates(adata, covariates)
    known = labelled & complete
    rows = make_rows(adata, known, groups, {label: is_case})
    cases, columns = is_case[rows.first], rows.mean(design)
    _check_sizes(label, cases, case, control)
    _check_covariates(label, cases, columns, covariates)
    if method == "deseq2":
        counts = read_counts(adata, rows, layer)
        tables = {"genes": deseq_table(counts, cases, columns, adata.var_names, alpha=alpha)}
    else:
        values, filled = read_values(adata, rows, layer, imputed)
        tables = run_screen(
            _screen(method, cases, columns),
            values,
            filled,
            adata.var_names,
            alpha=alpha,
            n_permutations=n_permutations,
            rng=np.random.default_rng(rng),
            description=DIFFERENTIAL_EXPRESSION,
        )
    params = {
        "task": DIFFERENTIAL_EXPRESSION,
        "label": label,
        "case": str(case),
        "control": "" if control is None else str(control),
        "method": method,
        "layer": layer or "X",
        "imputed": imputed or "",
        "groups": groups or "",
        "covariates": list(covariates or []),
        "alpha": alpha,
        "n_permutations": n_permutations if imputed else 0,
        "n_case": int(cases.sum()),
        "n_control": int((~cases).sum()),
        "n_left_out": int(adata.n_obs - known.sum()),
    }
    return write_tables(adata, key_added, tables, params, copy=copy)


def _screen(method: str, case: NDArray[np.bool_], design: NDArray[np.float64]) -> Screen:
    if method == "moderated":
        return moderated_screen(case, design)
    return welch_screen(case) if method == "welch" else rank_screen(case)


def _check_method(method: str, imputed: str | None, covariates: Sequence[str] | None) -> None:
    if method not in METHODS:
        message = f"method is {method!r}; choose among {list(METHODS)}"
        raise ValueError(message)
    if covariates is not None and method not in ADJUST:
        message = f"method={method!r} adjusts for no covariates; use one of {list(ADJUST)}"
        raise ValueError(message)
    if method == "deseq2":
        require("pydeseq2", extra="de", purpose='bf.tl.differential_expression(method="deseq2")')
        if imputed is not None:
            message = 'method="deseq2" reads counts and imputed values are ln(TPM+1); use method="moderated" to compare'
            raise ValueError(message)


def _read_classes(adata: AnnData, label: str, case: Any, control: Any) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which samples are cases, and which are cases or controls."""
    found = column(adata, label, "the label").astype(object)
    known = ~(found.isna() | (found == "")).to_numpy(dtype=bool)
    classes = list(dict.fromkeys(found[known]))
    for name, wanted in (("case", case), ("control", control)):
        if wanted not in classes and not (name == "control" and wanted is None):
            message = f"adata.obs[{label!r}] has no class {wanted!r} ({name}); its classes are {classes}"
            raise ValueError(message)
    if control == case:
        message = f"case and control are both {case!r}; name two classes of {classes}"
        raise ValueError(message)
    is_case = (found == case).to_numpy(dtype=bool)
    return is_case, known if control is None else is_case | (found == control).to_numpy(dtype=bool)


def _check_sizes(label: str, case: NDArray[np.bool_], name: Any, control: Any) -> None:
    other = "other classes" if control is None else repr(control)
    for what, n in ((repr(name), int(case.sum())), (other, int((~case).sum()))):
        if n < LEAST_SAMPLES:
            message = (
                f"adata.obs[{label!r}] has {n} samples (or groups) of {what} without missing covariates; at least "
                f"{LEAST_SAMPLES} are needed to tell a difference from noise"
            )
            raise ValueError(message)


def _check_covariates(
    label: str, case: NDArray[np.bool_], design: NDArray[np.float64], covariates: Sequence[str] | None
) -> None:
    others = np.column_stack([np.ones(len(case)), design])
    both = np.column_stack([others, case])
    if covariates is not None and np.linalg.matrix_rank(both) == np.linalg.matrix_rank(others):
        message = (
            f"adata.obs[{label!r}] follows from the covariates {list(covariates)}, so that a difference between its "
            "classes cannot be told from theirs; leave out the one that is confounded with it"
        )
        raise ValueError(message)
    if len(case) <= both.shape[1]:
        message = (
            f"{both.shape[1]} columns (class, intercept, covariates with one column per level) for {len(case)} samples "
            "leave nothing to estimate variances from; use fewer covariates"
        )
        raise ValueError(message)
