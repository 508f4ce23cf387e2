"""What is read from a sample vector that a perturbation moved: a shift, a way between states, a head's output."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from bulkformer_tl.tl._heads import Head
from bulkformer_tl.tl._pair_heads import PairHead
from bulkformer_tl.tl._pair_model import PairModel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from bulkformer_tl.tl._matrix_head import MatrixHead

    Numbers = NDArray[np.float64]

#: Random directions that estimate the length of a gradient of a vector.
N_DIRECTIONS = 32
#: Step of numerical derivatives of a head, relative to the entry (or to 1).
STEP = 1e-4


class Readout(Protocol):
    """What a shift of the sample vector means."""

    @property
    def names(self) -> list[str]:
        """Names of the numbers that are read."""

    @property
    def signed(self) -> bool:
        """Whether they have a sign."""

    def __call__(self, base: Numbers, moved: Numbers, /) -> Numbers:
        """Return how the numbers change, (n, O), when the vector (D,) moves by (n, D)."""

    def directions(self, base: Numbers, rng: np.random.Generator, *, exact: bool) -> Numbers:
        """Return the directions in which a first-order screen looks, (C, D)."""

    def first_order(self, base: Numbers, moves: Numbers) -> Numbers:
        """Return estimated changes, (G, O), of genes that move the vector by (C, G) in these directions."""

    def state(self) -> list[NDArray[Any]]:
        """Return the arrays that it reads with."""


@dataclass(frozen=True)
class Shift:
    """Cosine distance between the vectors before and after: 0 where nothing moves, 2 where it turns round."""

    names: list[str] = field(default_factory=lambda: ["shift"])
    signed: bool = False

    def __call__(self, base: Numbers, moved: Numbers, /) -> Numbers:
        """Return cosine distances, (n, 1); by the difference of unit vectors, which keeps small ones."""
        return cosine_distance(base, moved)[:, None]

    def directions(self, base: Numbers, rng: np.random.Generator, *, exact: bool) -> Numbers:
        """Return all directions across the vector, or random ones, whose squares add up to those of all."""
        unit = base / _length(base)
        given = np.eye(len(base)) if exact else rng.choice([-1.0, 1.0], (N_DIRECTIONS, len(base))) / N_DIRECTIONS**0.5
        return np.asarray(given - (given @ unit)[:, None] * unit)

    def first_order(self, base: Numbers, moves: Numbers) -> Numbers:
        """Return half the squared angle."""
        return np.asarray(np.square(moves).sum(axis=0) / (2 * np.square(base).sum()))[:, None]

    def state(self) -> list[NDArray[Any]]:
        """Return nothing."""
        return []


@dataclass(frozen=True)
class Ways:
    """Change of the cosine similarity with states: toward the goal, and away from the start and from alternates.

    Parameters
    ----------
    centres
        Mean vector of each state, the goal first, (D,).
    names
        What is read.
    """

    centres: list[Numbers]
    names: list[str]
    signed: bool = True

    def __call__(self, base: Numbers, moved: Numbers, /) -> Numbers:
        """Return changes of the cosine, (n, O), positive where the vector does what the name says."""
        after = base + moved
        lengths = np.sqrt(np.square(after).sum(axis=1))
        found = []
        for centre, sign in zip(self.centres, self._signs, strict=True):
            unit = centre / _length(centre)
            found.append(sign * ((after * unit).sum(axis=1) / lengths - (base * unit).sum() / _length(base)))
        return np.stack(found, axis=1)

    def directions(self, base: Numbers, rng: np.random.Generator, *, exact: bool) -> Numbers:
        """Return the gradient of each cosine."""
        unit, length = base / _length(base), _length(base)
        centres = [centre / _length(centre) for centre in self.centres]
        slopes = [(centre - (centre * unit).sum() * unit) / length for centre in centres]
        return np.stack([sign * slope for sign, slope in zip(self._signs, slopes, strict=True)])

    def first_order(self, base: Numbers, moves: Numbers) -> Numbers:
        """Return the changes that the gradients tell."""
        return moves.T

    def state(self) -> list[NDArray[Any]]:
        """Return the mean vectors."""
        return list(self.centres)

    @property
    def _signs(self) -> list[float]:
        return [1.0] + [-1.0] * (len(self.centres) - 1)


@dataclass(frozen=True)
class HeadOutput:
    """Change of what a fitted head predicts.

    Parameters
    ----------
    head
        The head.
    """

    head: Head | MatrixHead | PairHead
    signed: bool = True

    @property
    def names(self) -> list[str]:
        """Risk, the label, its classes (of two, the second), or the columns."""
        facts = self.head.facts
        if isinstance(self.head, Head):
            if facts["task"] == "classification":
                return [f"probability of {name}" for name in facts["classes"]][1 if len(facts["classes"]) == 2 else 0 :]
            return ["log hazard"] if facts["task"] == "survival" else [str(facts["label"])]
        return [str(name) for name in facts["columns"]]

    def predict(self, vectors: Numbers) -> Numbers:
        """Return the outputs, (n, O), of vectors (n, D)."""
        if isinstance(self.head, PairHead):
            return PairModel(self.head.facts["kind"], self.head.arrays).predict(vectors)
        found = self.head.predict_array(vectors)
        return found[:, None] if found.ndim == 1 else found[:, -len(self.names) :]

    def __call__(self, base: Numbers, moved: Numbers, /) -> Numbers:
        """Return the changes of the outputs, (n, O)."""
        return self.predict(base + moved) - self.predict(base[None])

    def directions(self, base: Numbers, rng: np.random.Generator, *, exact: bool) -> Numbers:
        """Return the gradient of each output, by central differences: a head is small beside the network."""
        steps = np.diag(STEP * np.maximum(np.abs(base), 1.0))
        ahead, behind = self.predict(base + steps), self.predict(base - steps)
        return ((ahead - behind) / (2 * np.diag(steps))[:, None]).T

    def first_order(self, base: Numbers, moves: Numbers) -> Numbers:
        """Return the changes that the gradients tell."""
        return moves.T

    def state(self) -> list[NDArray[Any]]:
        """Return the weights."""
        return [self.head.arrays[name] for name in sorted(self.head.arrays)]


def cosine_distance(base: Numbers, moved: Numbers, /) -> Numbers:
    """Return 1 - cosine of vectors (..., D) before and after a move (n, ..., D), as (n, ...)."""
    after = base + moved
    apart = after / _length(after)[..., None] - base / _length(base)[..., None]
    return np.asarray(np.square(apart).sum(axis=-1) / 2)


def _length(vectors: Numbers) -> Any:
    return np.sqrt(np.square(vectors).sum(axis=-1))


def head_width(head: Any) -> int:
    """Return how many columns a head reads."""
    arrays: Mapping[str, Any] = head.arrays
    return len(next(arrays[name] for name in ("fill", "0.fill", "row_fill") if name in arrays))
