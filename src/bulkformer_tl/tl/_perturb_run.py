"""One perturbation of a cohort: screen, exact passes, and the null."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from bulkformer_tl.tl._perturb_input import make_passes, make_reader, read_values, refuse_unchanged
from bulkformer_tl.tl._perturb_null import matched_genes
from bulkformer_tl.tl._perturb_passes import Effects, VectorReader, run_passes
from bulkformer_tl.tl._perturb_screen import first_order, strongest
from bulkformer_tl.tl._perturb_store import PartStore, digest

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from numpy.typing import NDArray

    from bulkformer_tl._vocabulary import GeneMatch
    from bulkformer_tl.models._perturb import Passes
    from bulkformer_tl.models._perturb_ranks import RankPasses
    from bulkformer_tl.tl._input import ModelInput
    from bulkformer_tl.tl._perturb_change import Change
    from bulkformer_tl.tl._perturb_input import AnyReader, Cases
    from bulkformer_tl.tl._perturb_passes import Editor
    from bulkformer_tl.tl._perturb_sets import Perturbation

    Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Found:
    """What perturbations do to samples.

    Parameters
    ----------
    shifts, expected
        Effects, and those of combinations without interaction, (N, P, O); ``NaN`` where no exact pass was run.
    changes
        What is read of each gene, mean of each group, (groups, P, G), or ``None``.
    estimates
        Of the screen, (N, P, O), or ``None``.
    null
        Effects of what to compare with, (N, M, O), or ``None``.
    chosen
        Which of them belong to each perturbation.
    """

    shifts: Numbers
    expected: Numbers
    changes: Numbers | None
    estimates: Numbers | None
    null: Numbers | None
    chosen: list[NDArray[np.intp]]


@dataclass(frozen=True)
class Run:
    """Everything that decides the effects.

    Parameters
    ----------
    passes
        Of the network.
    reader
        What is read.
    editor
        What the change makes of genes.
    values
        The samples to perturb, (N, G), in the order of the vocabulary, ``NaN`` where missing.
    cases
        Which they are, and their groups.
    perturbations
        What to perturb, P of them.
    match
        Where the model's genes stand.
    """

    passes: Passes | RankPasses
    reader: AnyReader
    editor: Editor
    values: NDArray[np.float32]
    cases: Cases
    perturbations: list[Perturbation]
    match: GeneMatch

    @classmethod
    def start(
        cls,
        adata: AnnData,
        given: ModelInput,
        *,
        cases: Cases,
        change: Change,
        readout: Any,
        perturbations: list[Perturbation],
        options: dict[str, Any],
        named: bool,
    ) -> Run:
        """Read the samples and refuse, before any pass of a perturbation, what cannot be done."""
        values = read_values(given)
        passes, editor = make_passes(given.model, change, values, options)
        if named:
            refuse_unchanged(adata, values, cases, perturbations, editor)
        reader = make_reader(adata, readout, passes, values)
        return cls(passes, reader, editor, values[cases.rows], cases, perturbations, given.match)

    def effects(self, screen: int | None, n_null: int, rng: np.random.Generator, store: Path | None) -> Found:
        """Screen, run exact passes of what comes first, and of the null."""
        estimates, exact = None, np.arange(len(self.perturbations))
        if screen is not None:
            estimates = first_order(self.values, self.perturbations, self.editor, self.reader, rng)  # type: ignore[arg-type]
            exact = strongest(estimates, screen)
        items = [self.perturbations[position] for position in exact]
        effects = self._exact(items, store and store / "exact", self.cases.codes)
        shape = (len(self.values), len(self.perturbations), len(self.reader.names))
        values, expected = np.full(shape, np.nan), np.full(shape, np.nan)
        values[:, exact], expected[:, exact] = effects.shifts, effects.expected
        null, chosen = self._null(items, effects.shifts, n_null, rng, store and store / "null")
        own = dict(zip(exact.tolist(), chosen, strict=True))
        nothing = np.empty(0, dtype=np.intp)
        everyone = [own.get(position, nothing) for position in range(len(self.perturbations))]
        return Found(values, expected, effects.changes, estimates, null, everyone)

    def _exact(self, items: list[Perturbation], store: Path | None, codes: NDArray[np.intp] | None) -> Effects:
        if not items:
            shape = (len(self.values), 0, len(self.reader.names))
            return Effects(np.empty(shape), np.empty(shape), None)
        kept = None if store is None else PartStore(store, self._facts(items))
        return run_passes(self.values, items, self.editor, self.reader, store=kept, groups=codes)

    def _null(
        self, items: list[Perturbation], values: Numbers, n_null: int, rng: np.random.Generator, store: Path | None
    ) -> tuple[Numbers | None, list[NDArray[np.intp]]]:
        """Return effects of what to compare with, (N, M, O), and for each item the positions of its own."""
        if not n_null or not items:
            return None, [np.empty(0, dtype=np.intp)] * len(items)
        counts = np.zeros(self.values.shape[1], dtype=np.int64)
        for row in self.values:
            counts += ~np.isnan(self.editor.becomes(row))
        # those that every sample has would be the highest ones alone
        possible = 2 * counts >= max(len(self.values), 1)
        level = self.editor.level(self.values)
        degree = np.bincount(self.passes.edges.ravel(), minlength=len(level))
        drawn = matched_genes(items, level, degree, possible, n_null=n_null, rng=rng)
        # a gene that is perturbed anyway is not perturbed twice
        place = {item.genes: position for position, item in enumerate(items) if item.kind == "gene"}
        others = {item.genes: item for row in drawn for item in row if item.genes not in place}
        place |= {key: len(items) + position for position, key in enumerate(others)}
        found = self._exact(list(others.values()), store, None).shifts
        chosen = [np.array([place[item.genes] for item in row], dtype=np.intp) for row in drawn]
        return np.concatenate([values, found], axis=1), chosen

    def _facts(self, items: list[Perturbation]) -> dict[str, Any]:
        """Return everything that decides the effects of some perturbations."""
        reader = self.reader
        return {
            "model": self.passes.model.checksum,
            "device": self.passes.model.device.type,
            "pooling": {name: str(value) for name, value in self.passes.options.items()},
            "samples": digest(self.values),
            "change": self.editor.change.params(),
            "quantiles": digest("" if self.editor.quantiles is None else self.editor.quantiles),
            "perturbations": digest([[item.kind, *item.genes] for item in items]),
            "readout": digest(reader.names, *(reader.readout.state() if isinstance(reader, VectorReader) else [])),
            "groups": digest(self.cases.codes),
            "version": version("bulkformer-tl"),
        }
