"""Treated samples paired with the mean of their controls, checked before any work."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bulkformer_tl._anndata import check_anndata, get_matrix, row_blocks
from bulkformer_tl.encodings._platform import log_intensities
from bulkformer_tl.metrics._check import to_float
from bulkformer_tl.tl._columns import column
from bulkformer_tl.tl._perturbation_features import some
from bulkformer_tl.tl._samples import _common_genes, all_expression, read_representation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

#: Genes that LINCS L1000 measures, and those that its published tables hold beside inferred ones.
L1000 = {978: "measures", 10174: "measures or infers well", 12328: "measures or infers"}


@dataclass(frozen=True, eq=False)
class Pairs:
    """Treated samples and their controls; those of a reference come first.

    Parameters
    ----------
    rows
        Positions of the M treated samples, among those of a reference and of the cohort.
    names
        P perturbations, sorted.
    codes
        Perturbation of each pair, shape (M,).
    doses
        Amount of each pair, shape (M,), or ``None``.
    units
        What is held out as a whole, shape (M,).
    unit_names
        What the units are called.
    control_of
        Set of controls of each pair, shape (M,).
    controls
        Positions of the controls of each set.
    n_reference
        How many of the pairs are those of a reference.
    offset
        Number of samples of the reference.
    """

    rows: NDArray[np.intp]
    names: list[str]
    codes: NDArray[np.intp]
    doses: NDArray[np.float64] | None
    units: NDArray[np.intp]
    unit_names: list[str]
    control_of: NDArray[np.intp]
    controls: list[NDArray[np.intp]]
    n_reference: int = 0
    offset: int = 0

    @property
    def own(self) -> slice:
        """Pairs of the cohort."""
        return slice(self.n_reference, None)

    @property
    def train(self) -> NDArray[np.intp]:
        """All pairs that a head for others may be fitted to: of a reference, those of units that the cohort lacks."""
        if not self.n_reference:
            return np.arange(len(self.rows))
        return np.flatnonzero(~np.isin(self.units[: self.n_reference], self.units[self.own]))

    @property
    def samples(self) -> NDArray[np.intp]:
        """Positions of treated samples and controls."""
        return np.concatenate([self.rows, *self.controls])

    @property
    def shared(self) -> NDArray[np.bool_]:
        """Whether each set of controls serves several held-out units; a reference shares none with the cohort."""
        if self.n_reference:
            return np.zeros(len(self.controls), dtype=bool)
        return np.array([len(np.unique(self.units[self.control_of == i])) > 1 for i in range(len(self.controls))])

    def halves(self, rng: int) -> tuple[list[NDArray[np.intp]], list[NDArray[np.intp]]]:
        """Deal each shared set of two controls or more into one half to predict from and one to measure changes by.

        Otherwise the noise of the controls would stand in the changes of training and of test perturbations alike, and
        be predicted.
        """
        generator = np.random.default_rng(rng)
        given, reference = [], []
        for rows, shared in zip(self.controls, self.shared, strict=True):
            half = (len(rows) + 1) // 2
            dealt = generator.permutation(rows)
            divide = shared and len(rows) > 1
            given.append(np.sort(dealt[:half]) if divide else rows)
            reference.append(np.sort(dealt[half:]) if divide else rows)
        return given, reference

    def means(self, matrix: NDArray[np.floating], sets: list[NDArray[np.intp]]) -> NDArray[np.float64]:
        """Average rows of all samples over the set of each pair, shape (M, D)."""
        return np.stack([matrix[rows].astype(np.float64).mean(axis=0) for rows in sets])[self.control_of]


@dataclass(frozen=True, eq=False)
class Profiles:
    """What a response is learnt from and measured by.

    Parameters
    ----------
    treated
        ln(TPM+1) of the treated samples on the genes that all samples measure, shape (M, G).
    control
        Mean of the controls that predictions start from, shape (M, G).
    reference
        Mean of the controls that true changes are measured by, shape (M, G).
    inputs
        Mean representation of the former, shape (M, D).
    genes
        The G genes.
    """

    treated: NDArray[np.float64]
    control: NDArray[np.float64]
    reference: NDArray[np.float64]
    inputs: NDArray[np.float64]
    genes: list[str]


def read_pairs(
    parts: list[AnnData],
    perturbation: str,
    *,
    control: str,
    match: str | Sequence[str] | None,
    dose: str | None,
    groups: str | None,
) -> Pairs:
    """Pair every treated sample with its controls.

    Parameters
    ----------
    parts
        A reference, if there is one, and the cohort.
    perturbation, control, match, dose, groups
        As of :func:`bulkformer_tl.tl.perturbation_response`.

    Raises
    ------
    KeyError
        If a column is not there.
    TypeError
        If doses are no numbers.
    ValueError
        If controls are missing, a dose is not positive, or nothing is left to train on.
    """
    found = [_read_part(part, perturbation, control=control, match=match, dose=dose, groups=groups) for part in parts]
    if len(parts) == 1:
        pairs = found[0]
        if len(pairs.unit_names) < 2:
            what = "the only perturbation" if groups is None else f"the only value of adata.obs[{groups!r}] (groups)"
            hint = "pass groups=, such as the donor, to hold out those" if groups is None else "name another column"
            message = f"{pairs.unit_names[0]!r} is {what}, so that none is left to train on when it is held out; {hint}"
            raise ValueError(message)
        return pairs
    pairs = _join(found[0], found[1], parts[0].n_obs)
    if not len(pairs.train):
        what = "perturbations" if groups is None else f"values of obs[{groups!r}] (groups)"
        message = (
            f"all {what} of the reference are in adata as well, such as {found[0].unit_names[0]!r}, so that none is "
            "left to train on; pass a groups= that tells them apart, such as the donor, or no reference"
        )
        raise ValueError(message)
    return pairs


def _join(reference: Pairs, own: Pairs, offset: int) -> Pairs:
    """Put the pairs of a cohort after those of a reference, and name perturbations and units alike in both."""
    names = sorted({*reference.names, *own.names})
    unit_names = sorted({*reference.unit_names, *own.unit_names})

    def code(known: list[str], of_part: list[str], codes: NDArray[np.intp]) -> NDArray[np.intp]:
        return np.array([known.index(name) for name in of_part], dtype=np.intp)[codes]

    both = (reference, own)
    return Pairs(
        rows=np.concatenate([reference.rows, own.rows + offset]),
        names=names,
        codes=np.concatenate([code(names, part.names, part.codes) for part in both]),
        doses=None if reference.doses is None or own.doses is None else np.concatenate([reference.doses, own.doses]),
        units=np.concatenate([code(unit_names, part.unit_names, part.units) for part in both]),
        unit_names=unit_names,
        control_of=np.concatenate([reference.control_of, own.control_of + len(reference.controls)]),
        controls=[*reference.controls, *(rows + offset for rows in own.controls)],
        n_reference=len(reference.rows),
        offset=offset,
    )


def _read_part(
    adata: AnnData,
    perturbation: str,
    *,
    control: str,
    match: str | Sequence[str] | None,
    dose: str | None,
    groups: str | None,
) -> Pairs:
    check_anndata(adata)
    labels = _text(column(adata, perturbation, "the perturbation"))
    where = f"adata.obs[{perturbation!r}]"
    if not (labels == control).any():
        message = f"{where} has no control {control!r}; it holds {some(sorted(set(labels) - {''}))}. Pass control="
        raise ValueError(message)
    rows = np.flatnonzero((labels != control) & (labels != ""))
    if not len(rows):
        message = f"{where} holds {control!r} only; samples under a perturbation are needed"
        raise ValueError(message)
    names, codes = np.unique(labels[rows], return_inverse=True)
    control_of, controls = _match(adata, labels, rows, control, match)
    doses = None if dose is None else _doses(adata, rows, dose, control)
    unit_names, units = names, codes
    if groups is not None:
        held = _text(column(adata, groups, "groups"))[rows]
        _refuse_blank(held, f"adata.obs[{groups!r}] (groups)", adata.obs_names[rows])
        unit_names, units = np.unique(held, return_inverse=True)
    plain = [str(name) for name in names]
    return Pairs(rows, plain, codes, doses, units, [str(name) for name in unit_names], control_of, controls)


def read_profiles(
    parts: list[AnnData], pairs: Pairs, *, use_rep: str | None, layer: str | None, rng: int
) -> tuple[Profiles, Profiles]:
    """Read expression of the pairs on the genes that all parts have, and the representation of their controls.

    Returns
    -------
    Profiles to judge by, shared controls halved, and profiles to fit to at the end, with all controls.

    Raises
    ------
    KeyError
        If a layer or the representation is not there.
    ValueError
        If values are no ln(TPM+1), and where they look like those of an array the message says so; if no gene is
        measured in all of the samples, or no treated sample differs from its controls.
    """
    everywhere = _common_genes(parts)
    values = np.concatenate([_expression(part, layer, everywhere) for part in parts])
    measured = ~np.isnan(values[pairs.samples]).any(axis=0)
    if not measured.any():
        message = "no gene is measured in all treated samples and controls; see bf.tl.impute, or leave samples out"
        raise ValueError(message)
    values = values[:, measured]
    representation = values
    if use_rep is not None:
        representation, _, _ = read_representation(parts, use_rep, layer, expression=False)
    if np.isnan(representation[pairs.samples]).any():
        message = (
            f"adata.obsm[{use_rep!r}] holds missing values, which the profile of a control must not have; leave these "
            "features or samples out before bf.tl.fuse"
        )
        raise ValueError(message)
    treated = values[pairs.rows].astype(np.float64)
    genes = [name for name, here in zip(everywhere, measured, strict=True) if here]
    found = []
    for given, reference in (pairs.halves(rng), (pairs.controls, pairs.controls)):
        control, other = pairs.means(values, given), pairs.means(values, reference)
        found.append(Profiles(treated, control, other, pairs.means(representation, given), genes))
    if not (treated != found[1].control).any():
        message = (
            "every treated sample equals its controls; was the control's profile copied? There is no change to learn"
        )
        raise ValueError(message)
    return found[0], found[1]


def _expression(adata: AnnData, layer: str | None, genes: list[str]) -> NDArray[np.float32]:
    doubt = _platform(adata, layer)
    try:
        values = all_expression([adata], layer, genes)
    except ValueError as error:
        if doubt:
            message = f"{error}. {doubt}"
            raise ValueError(message) from None
        raise
    if doubt:
        warnings.warn(doubt, UserWarning, stacklevel=4)
    return values


def _platform(adata: AnnData, layer: str | None) -> str:
    """Say why values look like those of an array; empty where they do not."""
    _, block = next(row_blocks(get_matrix(adata, layer)))
    found = []
    if adata.n_vars in L1000:
        found.append(f"{adata.n_vars:,} genes, as many as LINCS L1000 {L1000[adata.n_vars]}")
    intensities = log_intensities(block.astype(np.float64))
    if intensities:
        found.append(intensities)
    if not found:
        return ""
    return (
        f"These samples have {' and '.join(found)}. Values of an array are not ln(TPM+1) of sequencing: a model that "
        "learnt from sequencing misreads them, for which the authors of BulkFormer withdrew their compound task. "
        "Use sequenced samples"
    )


def _text(found: pd.Series[Any]) -> NDArray[Any]:
    """Return labels as text, empty where they are missing, as files keep them."""
    return np.asarray(found.astype(object).where(~pd.isna(found), "").astype(str), dtype=object)


def _refuse_blank(labels: NDArray[Any], where: str, names: pd.Index) -> None:
    blank = np.flatnonzero(labels == "")
    if len(blank):
        message = f"{where} is missing in {len(blank)} samples, such as {names[blank[0]]!r}; fill it in, or drop them"
        raise ValueError(message)


def _match(
    adata: AnnData, labels: NDArray[Any], rows: NDArray[np.intp], control: str, match: str | Sequence[str] | None
) -> tuple[NDArray[np.intp], list[NDArray[np.intp]]]:
    """Return the set of controls of each treated sample, and the positions of each set."""
    columns = [] if match is None else [match] if isinstance(match, str) else list(match)
    there = np.flatnonzero(labels == control)
    both = np.concatenate([rows, there])
    keys = np.full(adata.n_obs, "", dtype=object)
    for name in columns:
        found = _text(column(adata, name, "match"))
        _refuse_blank(found[both], f"adata.obs[{name!r}] (match)", adata.obs_names[both])
        # lengths keep two columns apart whatever their values hold
        keys += np.array([f"{len(value)}:{value}/" for value in found], dtype=object)
    wanted, control_of = np.unique(keys[rows], return_inverse=True)
    controls = [there[keys[there] == key] for key in wanted]
    lonely = np.flatnonzero([not len(found) for found in controls])
    if len(lonely):
        without = rows[np.isin(control_of, lonely)]
        contexts = sorted({", ".join(f"{name}={adata.obs[name].iloc[row]}" for name in columns) for row in without})
        message = (
            f"no control {control!r} matches {len(without)} samples under {some(sorted(set(labels[without])))}: there "
            f"is none with {'; '.join(contexts[:8])}. Match by fewer columns than {columns}, or leave these samples out"
        )
        raise ValueError(message)
    return control_of, controls


def _doses(adata: AnnData, rows: NDArray[np.intp], dose: str, control: str) -> NDArray[np.float64]:
    where = f"adata.obs[{dose!r}] (dose)"
    found = column(adata, dose, "dose").iloc[rows]
    if not pd.api.types.is_numeric_dtype(found):
        message = f"{where} must be numbers and holds {found.iloc[0]!r}; take the unit off, as with .astype(float)"
        raise TypeError(message)
    amounts = to_float(found.to_numpy(dtype=np.float64, na_value=np.nan), where)
    bad = np.flatnonzero(~(np.isfinite(amounts) & (amounts > 0)))
    if len(bad):
        message = (
            f"{where} is {amounts[bad[0]]:g} in the treated sample {adata.obs_names[rows[bad[0]]]!r} and zero, "
            f"negative or missing in {len(bad)}; give their dose, or label untreated samples {control!r}"
        )
        raise ValueError(message)
    return amounts
