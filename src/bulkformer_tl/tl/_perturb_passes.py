"""Exact passes: every perturbation of every sample, in parts that can be kept, resumed and shared among workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from bulkformer_tl._progress import Progress
from bulkformer_tl.tl._perturb_readouts import cosine_distance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from bulkformer_tl.models._perturb import Edit, Passes
    from bulkformer_tl.tl._perturb_change import Change
    from bulkformer_tl.tl._perturb_readouts import Readout
    from bulkformer_tl.tl._perturb_sets import Perturbation
    from bulkformer_tl.tl._perturb_store import PartStore

    Numbers = NDArray[np.float64]

#: Perturbations of one sample that are computed, and kept, together.
PART = 512
#: Numbers that gene vectors of changed samples may take at once.
ELEMENTS = 2**27


@dataclass(frozen=True)
class Editor:
    """What a change makes of the genes of a sample.

    Parameters
    ----------
    change
        The change.
    quantiles
        Of each gene of the vocabulary, (G,), where the change asks for them.
    """

    change: Change
    quantiles: NDArray[np.float32] | None

    def becomes(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return what each gene of a sample becomes, (G,); ``NaN`` where it is missing, or is 0 and stays so."""
        found = self.change.apply(values, highest=float(np.nanmax(values)), quantiles=self.quantiles)
        return np.where(np.isnan(values) | ((values == 0) & (found == 0)), np.float32(np.nan), found)

    def edits(self, values: NDArray[np.float32], perturbations: Sequence[Perturbation]) -> list[Edit | None]:
        """Return the changes of a sample (G,), ``None`` where a gene cannot be changed (of a set, none can)."""
        becomes, found = self.becomes(values), list[Any]()
        for perturbation in perturbations:
            genes = np.array(perturbation.genes, dtype=np.int64)
            fine = ~np.isnan(becomes[genes])
            possible = fine.any() if perturbation.kind == "set" else fine.all()
            found.append((genes[fine], becomes[genes[fine]]) if possible else None)
        return found

    def level(self, values: NDArray[np.floating]) -> Numbers:
        """Return how much genes are expressed, mean over the samples (N, G) that measure them, as (G,)."""
        with np.errstate(invalid="ignore"):
            mean: Numbers = np.nansum(values, axis=0, dtype=np.float64) / (~np.isnan(values)).sum(axis=0)
        return mean

    def why(self, values: NDArray[np.float32], item: Perturbation) -> tuple[str, str]:
        """Return why a sample (G,) cannot be changed, and what mends it."""
        missing = np.isnan(values[list(item.genes)])
        if missing.all() if item.kind == "set" else missing.any():
            return "missing", "impute it (bf.tl.impute, layer='imputed')"
        mend = "raise it (change=bf.tl.Change('set', value=...))"
        return "zero", f"so that {self.change.kind!r} changes nothing; {mend}"


class Reader(Protocol):
    """What is read of a sample and of its changed copies."""

    @property
    def names(self) -> list[str]:
        """Names of the numbers that are read."""

    @property
    def signed(self) -> bool:
        """Whether they have a sign."""

    def part(self, n_genes: int) -> int:
        """Return how many perturbations to compute at once."""

    def base(self, values: NDArray[np.float32]) -> Any:
        """Return what the network says of a sample (G,)."""

    def moves(self, values: NDArray[np.float32], base: Any, edits: Sequence[Edit]) -> Any:
        """Return by how much changes move that, (n, ...)."""

    def read(self, base: Any, moves: Any, edits: Sequence[Edit]) -> tuple[Numbers, NDArray[np.float32] | None]:
        """Return the numbers, (n, O), and where there are some the numbers of each gene, (n, G)."""


@dataclass(frozen=True)
class VectorReader:
    """Reads the sample vector.

    Parameters
    ----------
    passes
        Of the network.
    readout
        What a shift means.
    """

    passes: Passes
    readout: Readout

    @property
    def names(self) -> list[str]:
        """Of the readout."""
        return self.readout.names

    @property
    def signed(self) -> bool:
        """As the readout."""
        return self.readout.signed

    def part(self, n_genes: int) -> int:
        """Return how many perturbations to compute at once."""
        return PART

    def base(self, values: NDArray[np.float32]) -> Numbers:
        """Return the sample vector, (D,)."""
        return np.asarray(self.passes.vectors(values[None])[0])

    def moves(self, values: NDArray[np.float32], base: Numbers, edits: Sequence[Edit]) -> Numbers:
        """Return its shifts, (n, D)."""
        return self.passes.differences(values, edits)

    def read(self, base: Numbers, moves: Numbers, edits: Sequence[Edit]) -> tuple[Numbers, None]:
        """Return what the shifts mean, (n, O)."""
        return self.readout(base, moves), None


@dataclass(frozen=True)
class GeneReader:
    """Reads every other gene's vector, as the cosine distance, or its predicted ln(TPM+1), as the change.

    Parameters
    ----------
    passes
        Of the network.
    output
        Which of the two.
    """

    passes: Passes
    output: Literal["genes", "expression"]
    signed: bool = False

    @property
    def names(self) -> list[str]:
        """One number: the mean over the other genes of the distance, or of the size of the change."""
        return ["gene shift" if self.output == "genes" else "expression change"]

    def part(self, n_genes: int) -> int:
        """Return how many perturbations to compute at once."""
        width = self.passes.model.width if self.output == "genes" else 1
        return max(1, min(PART, ELEMENTS // (8 * n_genes * width)))

    def base(self, values: NDArray[np.float32]) -> Numbers:
        """Return vectors or predictions of a sample, (G, D) or (G,)."""
        nothing = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
        return np.asarray(self.passes.outputs(values, [nothing], self.output)[0], dtype=np.float64)

    def moves(self, values: NDArray[np.float32], base: Numbers, edits: Sequence[Edit]) -> Numbers:
        """Return their changes, (n, G, D) or (n, G)."""
        return self.passes.outputs(values, edits, self.output) - base

    def read(self, base: Numbers, moves: Numbers, edits: Sequence[Edit]) -> tuple[Numbers, NDArray[np.float32]]:
        """Return the means, (n, 1), and the distance or change of each gene, (n, G), ``NaN`` for perturbed ones."""
        changes = cosine_distance(base, moves) if self.output == "genes" else moves.copy()
        for row, (genes, _) in zip(changes, edits, strict=True):
            row[genes] = np.nan
        means = np.stack([np.nanmean(np.abs(row)) for row in changes])
        return means[:, None], changes.astype(np.float32)


@dataclass(frozen=True)
class Effects:
    """What perturbations do to samples.

    Parameters
    ----------
    shifts
        Shape (N, P, O); ``NaN`` where a gene cannot be changed.
    expected
        The same if the genes of a combination did not interact: their moves added up, and read; else ``NaN``.
    changes
        Mean over the samples of each group of what is read of each gene, (groups, P, G), or ``None``.
    """

    shifts: Numbers
    expected: Numbers
    changes: NDArray[np.float64] | None


def run_passes(
    values: NDArray[np.float32],
    perturbations: Sequence[Perturbation],
    editor: Editor,
    reader: Reader,
    *,
    store: PartStore | None,
    groups: NDArray[np.intp] | None,
) -> Effects:
    """Perturb samples.

    Parameters
    ----------
    values
        Samples, (N, G), in the order of the vocabulary, ``NaN`` where missing.
    perturbations
        What to perturb, P of them.
    editor
        What the change makes of genes.
    reader
        What to read.
    store
        Where parts are kept, or ``None``.
    groups
        Code of the group of each sample, (N,), to average what is read of each gene; ``None`` drops that.
    """
    size, n_samples, count = reader.part(values.shape[1]), len(values), len(perturbations)
    spans = [(row, start, min(start + size, count)) for row in range(n_samples) for start in range(0, count, size)]
    found = np.full((2, n_samples, count, len(reader.names)), np.nan)
    sums: Any = None
    with Progress(n_samples * count, "perturb", unit="pass") as progress:
        base: tuple[int, Any] = (-1, None)

        def compute(index: int) -> dict[str, NDArray[Any]]:
            nonlocal base
            row, start, stop = spans[index]
            if base[0] != row:
                base = row, reader.base(values[row])
            part = _part(values[row], base[1], perturbations[start:stop], editor, reader)
            return {name: array for name, array in part.items() if name != "changes" or groups is not None}

        parts = ((i, compute(i)) for i in range(len(spans))) if store is None else store.parts(len(spans), compute)
        for index, part in parts:
            row, start, stop = spans[index]
            found[:, row, start:stop] = part["values"], part["expected"]
            if groups is not None and "changes" in part:
                if sums is None:
                    sums = np.zeros((2, groups.max() + 1, count, values.shape[1]), dtype=np.float64)
                measured = ~np.isnan(part["changes"])
                sums[0, groups[row], start:stop] += np.where(measured, part["changes"], 0.0)
                sums[1, groups[row], start:stop] += measured
            progress.update(stop - start)
    with np.errstate(invalid="ignore"):
        changes = None if sums is None else sums[0] / sums[1]
    return Effects(found[0], found[1], changes)


def _part(
    values: NDArray[np.float32], base: Any, perturbations: Sequence[Perturbation], editor: Editor, reader: Reader
) -> dict[str, NDArray[Any]]:
    """Compute perturbations of one sample."""
    edits = editor.edits(values, perturbations)
    done = [position for position, edit in enumerate(edits) if edit is not None]
    given: list[Any] = [edits[position] for position in done]
    found = {name: np.full((len(edits), len(reader.names)), np.nan) for name in ("values", "expected")}
    if not done:
        return found
    found["values"][done], changes = reader.read(base, reader.moves(values, base, given), given)
    if changes is not None:
        found["changes"] = np.full((len(edits), changes.shape[1]), np.nan, dtype=np.float32)
        found["changes"][done] = changes
    for position in done:
        if perturbations[position].kind == "combination":
            genes, becomes = edits[position] or ((), ())
            alone: list[Any] = [(genes[k : k + 1], becomes[k : k + 1]) for k in range(len(genes))]
            added = reader.moves(values, base, alone).sum(axis=0, keepdims=True)
            found["expected"][position] = reader.read(base, added, [(genes, becomes)])[0][0]  # type: ignore[list-item]
    return found
