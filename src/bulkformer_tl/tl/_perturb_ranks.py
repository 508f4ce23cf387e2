"""Perturbation of models that read genes by rank: what a change does to counts, and what is read of each gene."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bulkformer_tl.tl._perturb_passes import ELEMENTS, PART, Editor
from bulkformer_tl.tl._perturb_readouts import cosine_distance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from bulkformer_tl.models._perturb import Edit
    from bulkformer_tl.models._perturb_ranks import RankPasses
    from bulkformer_tl.tl._perturb_change import Change
    from bulkformer_tl.tl._perturb_sets import Perturbation

    Numbers = NDArray[np.float64]


def refuse_for_ranks(name: str, change: Change, readout: Any, screen: int | None) -> None:
    """Refuse what a model of ranks cannot be asked.

    Raises
    ------
    ValueError
        If a value is set, expression is read, or a screen is asked for; the message says what to pass.
    """
    message = ""
    if change.kind == "set":
        message = (
            f"the value of a change is ln(TPM+1), and {name} reads the order of counts; pass 'overexpress', or a "
            "factor or quantile: bf.tl.Change('activate', quantile=0.95)"
        )
    elif isinstance(readout, str) and readout == "expression":
        message = f"{name} predicts no expression; pass readout='genes', the shift of every other gene's vector"
    elif screen is not None:
        message = (
            f"a screen follows slopes along expression, and the order of genes that {name} reads has none; pass "
            "screen=None, and genes= to choose what to perturb"
        )
    if message:
        raise ValueError(message)


@dataclass(frozen=True)
class RankEditor(Editor):
    """What a change makes of the counts of a sample's genes.

    Parameters
    ----------
    passes
        Of the network.
    """

    passes: RankPasses

    def becomes(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return what each count becomes, (G,); ``NaN`` where it is missing, or the list of genes stays the same."""
        found = self.change.apply_counts(values, quantiles=self.quantiles)
        same = (values == 0) & (found == 0) | ~self._read(values) & ~(found > values)
        return np.where(np.isnan(values) | same, np.float32(np.nan), found)

    def edits(self, values: NDArray[np.float32], perturbations: Sequence[Perturbation]) -> list[Edit | None]:
        """Return the changes of a sample (G,), ``None`` where a gene cannot be changed, or no other gene is read."""
        read = self._read(values)
        count = int(read.sum())
        found = super().edits(values, perturbations)
        return [None if edit is None or read[edit[0]].sum() == count else edit for edit in found]

    def level(self, values: NDArray[np.float32]) -> Numbers:
        """Return what genes are ranked by, mean over samples (N, G), as (G,)."""
        shares = values / np.nansum(values, axis=1, keepdims=True, dtype=np.float64)
        return super().level(shares) / self.passes.model.dictionary.medians

    def why(self, values: NDArray[np.float32], item: Perturbation) -> tuple[str, str]:
        """Return why a sample (G,) cannot be changed, and what mends it."""
        own, kind, name = values[list(item.genes)], self.change.kind, self.passes.model.name
        one = np.all if item.kind == "set" else np.any
        read = self._read(values)
        if one(np.isnan(own)):
            return "missing", "so that it has no rank; fill in its counts"
        if one((own == 0) & (kind != "overexpress")):
            return "zero", f"so that {kind!r} changes nothing; pass change='overexpress'"
        if read[list(item.genes)].sum() == read.sum():
            return f"all that {name} reads", "so that no other gene is left to compare"
        return f"behind the {int(read.sum()):,} genes that {name} reads", f"so that {kind!r} changes nothing"

    def _read(self, values: NDArray[np.float32]) -> NDArray[np.bool_]:
        genes = self.passes.model.gene_of[self.passes.tokens(values)]
        read = np.zeros(len(values), dtype=bool)
        read[genes[genes >= 0]] = True
        return read


@dataclass(frozen=True)
class RankReader:
    """Reads the vector of every other gene of a sample, as the cosine distance.

    Their mean is also how a model without ``<cls>`` is published to compare samples (V1 of Geneformer).

    Parameters
    ----------
    passes
        Of the network.
    each
        Whether to keep what is read of each gene.
    """

    passes: RankPasses
    each: bool
    signed: bool = False

    @property
    def names(self) -> list[str]:
        """One number: the mean over the other genes of a sample."""
        return ["gene shift" if self.each else "shift"]

    def part(self, n_genes: int) -> int:
        """Return how many perturbations to compute at once."""
        model = self.passes.model
        return max(1, min(PART, ELEMENTS // (8 * model.context * model.width)))

    def base(self, values: NDArray[np.float32]) -> tuple[NDArray[np.int64], Numbers]:
        """Return the tokens of a sample, (L,), and their vectors, (L, D)."""
        tokens = self.passes.tokens(values)
        return tokens, self.passes.token_vectors(tokens)

    def moves(self, values: NDArray[np.float32], base: Any, edits: Sequence[Edit]) -> Numbers:
        """Return how far the vectors move, (n, L, D); ``NaN`` of genes that go."""
        tokens, before = base
        return self.passes.token_differences(values, tokens, before, edits)

    def read(self, base: Any, moves: Numbers, edits: Sequence[Edit]) -> tuple[Numbers, NDArray[np.float32] | None]:
        """Return the means, (n, 1), and where asked for the distance of each gene, (n, G); ``NaN`` without one."""
        model = self.passes.model
        genes = model.gene_of[base[0]]
        found = np.full((len(edits), len(model.vocabulary)), np.nan)
        found[:, genes[genes >= 0]] = cosine_distance(base[1], moves)[:, genes >= 0]
        for row, (changed, _) in zip(found, edits, strict=True):
            row[changed] = np.nan
        return np.nanmean(found, axis=1)[:, None], found.astype(np.float32) if self.each else None
