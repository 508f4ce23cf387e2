"""Which measured genes are hidden in training, and how that changes along a run."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from bulkformer_tl.encodings import hide_balanced, hide_share
from bulkformer_tl.train._check import refuse_unless

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from bulkformer_tl._vocabulary import GeneVocabulary

Kind = Literal["entry", "gene", "panel", "balanced"]
Fraction = float | tuple[float, float]

KINDS: tuple[Kind, ...] = get_args(Kind)

#: What random numbers are for; each purpose has its own stream of a run's seed.
ORDER, SAMPLE, STEP, VALIDATION, DROPOUT, SPLIT, WEIGHTS = range(7)


@dataclass(frozen=True)
class Masking:
    """Which measured genes a network has to predict.

    Parameters
    ----------
    fraction
        Share of a sample's measured genes that is hidden, or a range from which each sample draws its own.
    final
        Where a curriculum ends: fraction or range, reached in equal steps from ``fraction``. ``None`` keeps
        ``fraction``.
    ramp
        Share of the run after which ``final`` is reached.
    kinds
        How genes are chosen, and how often: ``"entry"`` anew in each sample; ``"gene"`` the same genes in all samples
        of a step; ``"balanced"`` with a share ``nonzero`` of genes that are not zero
        (``hide_balanced``); ``"panel"`` all genes outside one of ``panels``, whatever the
        fraction.
    nonzero
        For ``"balanced"``: share of the hidden genes that are not zero.
    panels
        For ``"panel"``: name and Ensembl ids of the genes that stay visible. Each sample draws one.
    """

    fraction: Fraction = (0.05, 0.15)
    final: Fraction | None = None
    ramp: float = 0.5
    kinds: Mapping[Kind, float] = field(default_factory=lambda: {"entry": 1.0})
    nonzero: float = 0.5
    panels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("fraction", "final"):
            given = getattr(self, name)
            if given is None:
                continue
            low, high = as_range(given)
            refuse_unless(
                0 < low <= high <= 0.95,
                f"{name} is the share of hidden genes, between 0 and 0.95, or a range [low, high]; found {given!r}",
            )
            # what a YAML file holds is a list
            object.__setattr__(self, name, given if isinstance(given, int | float) else (low, high))
        unknown = sorted(set(self.kinds) - set(KINDS))
        refuse_unless(not unknown, f"there are no kinds of masks {unknown}; choose among {list(KINDS)}")
        refuse_unless(
            bool(self.kinds) and min(self.kinds.values()) >= 0 and sum(self.kinds.values()) > 0,
            f"kinds says how often each kind of mask is drawn, found {dict(self.kinds)}",
        )
        refuse_unless(0 < self.ramp <= 1, f"ramp is a share of the run, above 0 and at most 1; found {self.ramp!r}")
        refuse_unless(0 <= self.nonzero <= 1, f"nonzero is a share, from 0 to 1; found {self.nonzero!r}")
        refuse_unless("panel" not in self.kinds or bool(self.panels), "masks of kind 'panel' need panels={name: genes}")
        object.__setattr__(self, "panels", {name: tuple(genes) for name, genes in self.panels.items()})

    def range_at(self, progress: float) -> tuple[float, float]:
        """Return the least and largest fraction after a share of the run.

        Parameters
        ----------
        progress
            Share of the run that is done, from 0 to 1.

        Returns
        -------
        Both, between 0 and 1.
        """
        start = as_range(self.fraction)
        if self.final is None:
            return start
        done = min(progress / self.ramp, 1.0)
        low, high = ((1 - done) * a + done * b for a, b in zip(start, as_range(self.final), strict=True))
        # rounding must not turn a range of width 0 around
        return low, max(low, high)

    @property
    def extremes(self) -> tuple[float, float]:
        """Least and largest fraction of the whole run."""
        bounds = [*as_range(self.fraction), *([] if self.final is None else as_range(self.final))]
        return min(bounds), max(bounds)


def as_range(fraction: Fraction) -> tuple[float, float]:
    """Return a fraction as a range of width 0, a range as it is."""
    if isinstance(fraction, int | float):
        return float(fraction), float(fraction)
    refuse_unless(len(fraction) == 2, f"a range has two ends [low, high], found {fraction!r}")
    return float(fraction[0]), float(fraction[1])


@contextmanager
def draw_weights(seed: int) -> Iterator[None]:
    """Let torch draw the weights of a new network from the seed, and leave its own state as it was."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.SeedSequence([seed, WEIGHTS]).generate_state(1)[0]))
        yield


class MaskMaker:
    """Draws masks that depend on the seed, the sample's place in the order and the step, and on nothing else.

    Parameters
    ----------
    masking
        What to draw.
    vocabulary
        Genes G of the network.
    seed
        Of the run.

    Raises
    ------
    ValueError
        If a panel has no gene of the vocabulary.
    """

    def __init__(self, masking: Masking, vocabulary: GeneVocabulary, seed: int) -> None:
        self._masking = masking
        self._seed = seed
        self._panels = {name: np.isin(vocabulary.ids, genes) for name, genes in masking.panels.items()}
        empty = [name for name, genes in self._panels.items() if not genes.any()]
        refuse_unless(not empty, f"the panels {empty} have no gene of {vocabulary.name!r}; panels list Ensembl ids")
        total = sum(masking.kinds.values())
        self._shares = [masking.kinds.get(kind, 0.0) / total for kind in KINDS]

    def draw(self, values: NDArray[np.float32], *, position: int, step: int, progress: float) -> NDArray[np.bool_]:
        """Mark the genes of one training sample that the network has to predict.

        Parameters
        ----------
        values
            Expression, shape (G,); ``NaN`` where missing.
        position
            Place of the sample in the order of the whole run.
        step
            Optimiser step that it belongs to.
        progress
            Share of the run that is done.

        Returns
        -------
        The marks, shape (G,).
        """
        generator = np.random.default_rng([self._seed, SAMPLE, position])
        kind = KINDS[generator.choice(len(KINDS), p=self._shares)]
        low, high = self._masking.range_at(progress)
        measured = ~np.isnan(values)
        if kind == "panel":
            name = list(self._panels)[generator.integers(len(self._panels))]
            return measured & ~self._panels[name]
        if kind == "gene":
            generator = np.random.default_rng([self._seed, STEP, step])
            fraction = generator.uniform(low, high)
            return measured & hide_share(np.ones(len(values), dtype=bool), fraction, generator)
        fraction = generator.uniform(low, high)
        if kind == "balanced":
            return hide_balanced(values, fraction, self._masking.nonzero, generator)
        return hide_share(measured, fraction, generator)

    def draw_validation(self, values: NDArray[np.float32], *, row: int) -> NDArray[np.bool_]:
        """Mark the middle of the final range of a validation sample's measured genes, always the same ones.

        Parameters
        ----------
        values
            Expression, shape (G,); ``NaN`` where missing.
        row
            Place of the sample in the corpus.

        Returns
        -------
        The marks, shape (G,).
        """
        low, high = self._masking.range_at(1.0)
        return hide_share(~np.isnan(values), (low + high) / 2, np.random.default_rng([self._seed, VALIDATION, row]))
