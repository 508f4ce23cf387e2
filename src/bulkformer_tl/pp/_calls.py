"""Python calls that a report proposes, as text that can be run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bulkformer_tl._vocabulary import GeneVocabulary, Identifiers
    from bulkformer_tl.encodings._units import Unit

#: Linear values beyond which ``to_log_tpm`` no longer takes counts under a logarithm for CPM.
_MAX_CPM = 1e7

_COUNTS = {"counts", "expected_counts", "scaled_counts"}
_POWERS = {"e": "np.exp({})", "2": "2.0 ** {}", "10": "10.0 ** {}"}
_NATURAL = {"e": "{}", "2": "{} * np.log(2)", "10": "{} * np.log(10)"}


@dataclass(frozen=True)
class Target:
    """What calls are about.

    Parameters
    ----------
    layer
        Where the values are; ``None`` means ``X``.
    unit
        What they are.
    top
        Largest linear value.
    identifiers
        What ``var_names`` are.
    vocabulary
        As the caller named it.
    """

    layer: str | None
    unit: Unit
    top: float
    identifiers: Identifiers | None
    vocabulary: GeneVocabulary | str | Path | None

    @property
    def matrix(self) -> str:
        """The values as an expression."""
        return "adata.X" if self.layer is None else f"adata.layers[{self.layer!r}]"

    def arguments(self, **given: str | float | None) -> str:
        """Keyword arguments as text, those that are ``None`` left out; begins with a comma."""
        return "".join(f", {name}={_quote(value)}" for name, value in given.items() if value is not None)

    @property
    def genes(self) -> dict[str, str | None]:
        """Arguments that say which genes are meant."""
        named = isinstance(self.vocabulary, str | Path)
        return {
            "identifiers": None if self.identifiers == "ensembl" else self.identifiers,
            "vocabulary": str(self.vocabulary) if named else None,
        }


def merge(target: Target) -> tuple[list[str], Target]:
    """Return the calls that sum duplicated columns, and what is left to convert afterwards."""
    before: list[str] = []
    if target.unit.base is not None:
        before, target = linearise(target)
    call = f"adata = bf.pp.merge_duplicates(adata{target.arguments(layer=target.layer, **_only_identifiers(target))})"
    return [*before, call], target


def linearise(target: Target) -> tuple[list[str], Target]:
    """Return the call that undoes the logarithm, and what is left to convert afterwards."""
    base, pseudocount = str(target.unit.base), target.unit.pseudocount
    if pseudocount == 1:
        # expm1 keeps sparse matrices sparse
        linear = f"np.expm1({_NATURAL[base].format(target.matrix)})"
    else:
        linear = f"np.maximum({_POWERS[base].format(target.matrix)} - {pseudocount:g}, 0)"
    unit = replace(target.unit, base=None, pseudocount=1.0, denominator=None)
    return [f'adata.layers["linear"] = {linear}'], replace(target, layer="linear", unit=unit)


def to_model(target: Target) -> list[str]:
    """Return the calls that lead to the model's input, ln(TPM+1) over the vocabulary, or to the model if it is that.

    Returns
    -------
    Python, one statement each; empty for unknown units.
    """
    unit = target.unit
    if unit.quantity == "unknown":
        return []
    if unit.is_log_tpm:
        return [f"bf.tl.embed(adata{target.arguments(layer=target.layer)})"]
    too_large = unit.quantity in _COUNTS and unit.base in {"2", "10"} and target.top > _MAX_CPM
    if unit.base is not None and (unit.pseudocount == 0 or too_large):
        before, linear = linearise(target)
        return before + to_model(linear)
    if unit.base is None and unit.quantity in _COUNTS:
        return [f"bf.pp.log_tpm(adata{target.arguments(layer=target.layer, **target.genes)})"]
    pseudocount = None if unit.pseudocount == 1 else unit.pseudocount
    arguments = target.arguments(unit=_unit_argument(unit), layer=target.layer, pseudocount=pseudocount, **target.genes)
    return [f"bf.pp.to_log_tpm(adata{arguments})"]


def drop_samples(layer: str | None, *, sparse: bool) -> str:
    """Return the call that drops samples without a value other than zero."""
    matrix = "adata.X" if layer is None else f"adata.layers[{layer!r}]"
    kept = f"np.asarray({matrix}.sum(axis=1)).ravel() != 0" if sparse else f"np.nansum({matrix}, axis=1) != 0"
    return f"adata = adata[{kept}].copy()"


def drop_named(names: Sequence[str]) -> str:
    """Return the call that drops samples by name."""
    return f"adata = adata[~adata.obs_names.isin({list(names)!r})].copy()"


def set_missing(layer: str | None, condition: str, *, sparse: bool) -> str:
    """Return the call that turns entries into ``NaN``; ``condition`` holds ``{}`` for the values."""
    matrix = "adata.X" if layer is None else f"adata.layers[{layer!r}]"
    if sparse:
        return f"{matrix}.data[{condition.format(f'{matrix}.data')}] = np.nan"
    return f"{matrix} = np.where({condition.format(matrix)}, np.nan, {matrix})"


def _unit_argument(unit: Unit) -> str:
    """Return the value of ``unit=`` in ``to_log_tpm`` under which the result is right."""
    if unit.quantity in _COUNTS:
        # a factor per sample cancels in TPM, so counts under a logarithm can go as CPM
        return "normalized_log1p" if unit.base == "e" else replace(unit, quantity="cpm").name
    # scaling each sample to a million is right for TPM and for FPKM
    return replace(unit, quantity="fpkm").name if unit.quantity == "tpm_or_fpkm" else unit.name


def _only_identifiers(target: Target) -> dict[str, str | None]:
    return {"identifiers": target.genes["identifiers"]}


def _quote(value: str | float) -> str:
    return f'"{value}"' if isinstance(value, str) else f"{value:g}"
