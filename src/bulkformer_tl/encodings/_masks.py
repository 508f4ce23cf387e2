"""Which measured genes of a sample are hidden from a network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def hide_share(candidates: NDArray[np.bool_], fraction: float, generator: np.random.Generator) -> NDArray[np.bool_]:
    """Mark a fraction of the candidates at random.

    Parameters
    ----------
    candidates
        Which genes may be marked, shape (G,).
    fraction
        Share of the candidates, between 0 and 1.
    generator
        Draws them.

    Returns
    -------
    The marks, shape (G,): the fraction, rounded, but never all candidates.
    """
    positions = np.flatnonzero(candidates)
    n = min(round(fraction * len(positions)), max(len(positions) - 1, 0))
    return _marks(len(candidates), generator.choice(positions, size=n, replace=False))


def hide_balanced(
    values: NDArray[np.floating],
    fraction: float,
    nonzero: float,
    generator: np.random.Generator,
) -> NDArray[np.bool_]:
    """Mark a fraction of the genes of which a stated share is not zero, as BioFormers does.

    Of m G genes a share p is drawn among those that are not zero and the rest among zeros
    (doi:10.1101/2023.11.29.569320). As in the published code both numbers are truncated, and what one side lacks is
    not taken from the other.

    Parameters
    ----------
    values
        Expression, shape (G,); ``NaN`` where missing, which is never marked and does not count.
    fraction
        m, share of the measured genes.
    nonzero
        p, share of the marks that fall on genes that are not zero.
    generator
        Draws them.

    Returns
    -------
    The marks, shape (G,).
    """
    measured = ~np.isnan(values)
    n = int(measured.sum() * fraction)
    expressed, zeros = np.flatnonzero(measured & (values != 0)), np.flatnonzero(values == 0)
    drawn = [
        generator.choice(positions, size=min(int(n * share), len(positions)), replace=False)
        for positions, share in ((expressed, nonzero), (zeros, 1 - nonzero))
    ]
    return _marks(len(values), np.concatenate(drawn))


def _marks(size: int, positions: NDArray[np.int64]) -> NDArray[np.bool_]:
    marks = np.zeros(size, dtype=bool)
    marks[positions] = True
    return marks
