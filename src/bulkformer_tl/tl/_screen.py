"""One test for each gene, for all genes at once, and what imputation changes beside permuted imputation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bulkformer_tl._progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Found = dict[str, NDArray[np.float64]]
    Test = Callable[[NDArray[np.float64], NDArray[np.intp]], Found]
    Finish = Callable[[Found], pd.DataFrame]

#: Values of a block of genes that are tested together.
BLOCK_VALUES = 2**20
#: Samples that a gene has to be measured in.
LEAST_SAMPLES = 4


@dataclass(frozen=True)
class Screen:
    """How genes are tested.

    Parameters
    ----------
    names
        What the test finds of each gene.
    test
        Takes complete values of genes that vary, shape (n, g), and the n rows that they are of; returns what it finds,
        each of shape (g,).
    finish
        Makes a table, one row per gene, of what was found of all genes; ``NaN`` where a gene was not tested. It has
        columns ``statistic`` and ``p``.
    """

    names: tuple[str, ...]
    test: Test
    finish: Finish

    def find(self, values: NDArray[np.float32], progress: Progress | None = None) -> Found:
        """Test each gene on the rows where it is not missing.

        Parameters
        ----------
        values
            Shape (N, G).
        progress
            Is told how many genes are done.

        Returns
        -------
        ``n``, the rows where it is not missing, and what the test found, each of shape (G,).
        """
        missing = np.isnan(values)
        found = {name: np.full(values.shape[1], np.nan) for name in self.names}
        found["n"] = (~missing).sum(axis=0).astype(np.float64)
        for columns in _patterns(missing):
            rows = np.flatnonzero(~missing[:, columns[0]])
            step = max(1, BLOCK_VALUES // max(1, len(rows)))
            for start in range(0, len(columns), step):
                block = columns[start : start + step]
                if len(rows) >= LEAST_SAMPLES:
                    given = values[np.ix_(rows, block)].astype(np.float64)
                    varies = np.ptp(given, axis=0) > 0
                    if varies.any():
                        for name, numbers in self.test(given[:, varies], rows).items():
                            found[name][block[varies]] = numbers
                if progress is not None:
                    progress.update(len(block))
        return found

    def table(self, found: Found, genes: pd.Index) -> pd.DataFrame:
        """Make the table of all genes, with the false discovery rate of Benjamini and Hochberg."""
        table = self.finish(found)
        table.insert(0, "n", found["n"].astype(np.int64))
        table["fdr"] = false_discovery_rate(table["p"].to_numpy())
        table.index = pd.Index(genes.astype(str), name="gene")
        return table


def check_options(alpha: float, n_permutations: int) -> None:
    """Refuse an impossible false discovery rate or number of permutations."""
    if not 0 < alpha < 1:
        message = f"alpha is {alpha}; use a false discovery rate between 0 and 1, such as 0.05"
        raise ValueError(message)
    if n_permutations < 0:
        message = f"n_permutations is {n_permutations}; use 0 for no null, or at least 1"
        raise ValueError(message)


def _patterns(missing: NDArray[np.bool_]) -> list[NDArray[np.intp]]:
    """List the genes that are missing in the same rows, together."""
    if not missing.any():
        return [np.arange(missing.shape[1])]
    packed = np.ascontiguousarray(np.packbits(missing, axis=0).T)
    _, codes = np.unique(packed.view(np.dtype((np.void, packed.shape[1]))).ravel(), return_inverse=True)
    order = np.argsort(codes, kind="stable")
    return list(np.split(order, np.flatnonzero(np.diff(codes[order])) + 1))


def false_discovery_rate(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correct p-values (Benjamini and Hochberg 1995); ``NaN`` is left out of the count and stays."""
    from scipy.stats import false_discovery_control

    corrected = np.full(p.shape, np.nan)
    known = ~np.isnan(p)
    if known.any():
        corrected[known] = false_discovery_control(p[known])
    return corrected


def run_screen(
    screen: Screen,
    values: NDArray[np.float32],
    imputed: NDArray[np.float32] | None,
    genes: pd.Index,
    *,
    alpha: float,
    n_permutations: int,
    rng: np.random.Generator,
    strata: NDArray[np.intp] | None = None,
    description: str,
) -> dict[str, pd.DataFrame]:
    """Test genes, and where there are imputed values compare; see :func:`compare_imputed`.

    Returns
    -------
    ``"genes"``; with imputed values also ``"imputed"`` and ``"changes"``.
    """
    rounds = 1 if imputed is None else 2 + n_permutations
    with Progress(rounds * values.shape[1], description, unit="gene") as progress:
        if imputed is None:
            return {"genes": screen.table(screen.find(values, progress), genes)}
        found = compare_imputed(
            screen,
            values,
            imputed,
            genes,
            alpha=alpha,
            n_permutations=n_permutations,
            rng=rng,
            progress=progress,
            strata=strata,
        )
        return dict(zip(("genes", "imputed", "changes"), found, strict=True))


def compare_imputed(
    screen: Screen,
    values: NDArray[np.float32],
    imputed: NDArray[np.float32],
    genes: pd.Index,
    *,
    alpha: float,
    n_permutations: int,
    rng: np.random.Generator,
    progress: Progress,
    strata: NDArray[np.intp] | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Test genes before and after imputation, and after the imputed entries of each gene were permuted among samples.

    Parameters
    ----------
    screen
        The test.
    values
        Measured values, shape (N, G).
    imputed
        The same with missing values filled in, shape (N, G).
    genes
        Names of the genes.
    alpha
        False discovery rate below which a gene counts as found.
    n_permutations
        How often imputed entries are permuted.
    rng
        Of the permutations.
    progress
        Is told how many genes are done.
    strata
        Entries are permuted within these, shape (N,).

    Returns
    -------
    The table before and the one after, with ``n_imputed`` and ``change``; and how many genes were gained, lost and
    kept beside how many permuted imputation makes.
    """
    before = screen.table(screen.find(values, progress), genes)
    filled = np.isnan(values) & ~np.isnan(imputed)
    touched = np.flatnonzero(filled.any(axis=0))
    found = screen.find(imputed, progress)
    after = screen.table(found, genes)
    after["n_imputed"] = filled.sum(axis=0)
    after["change"] = _change(before, after, alpha)
    null = np.zeros((n_permutations, len(CHANGES)))
    for draw in range(n_permutations):
        shuffled = permute_filled(imputed[:, touched], filled[:, touched], rng, strata)
        again = {name: numbers.copy() for name, numbers in found.items()}
        for name, numbers in screen.find(shuffled, progress).items():
            again[name][touched] = numbers
        null[draw] = _count(_change(before, screen.table(again, genes), alpha))
    return before, after, _changes(_count(after["change"].to_numpy()), null)


CHANGES = ("gained", "lost", "kept")


def _change(before: pd.DataFrame, after: pd.DataFrame, alpha: float) -> NDArray[np.str_]:
    was, now = (table["fdr"].to_numpy() <= alpha for table in (before, after))
    return np.select([now & ~was, was & ~now, was & now], CHANGES, "none")


def _count(change: NDArray[np.str_]) -> NDArray[np.int64]:
    return np.array([(change == name).sum() for name in CHANGES])


def _changes(n: NDArray[np.int64], null: NDArray[np.float64]) -> pd.DataFrame:
    draws = len(null)
    unknown = np.full(len(n), np.nan)
    return pd.DataFrame(
        {
            "change": CHANGES,
            "n": n,
            "null_mean": null.mean(axis=0) if draws else unknown,
            "null_high": np.quantile(null, 0.95, axis=0) if draws else unknown,
            "p": ((null >= n).sum(axis=0) + 1) / (draws + 1) if draws else unknown,
        }
    )


def permute_filled(
    values: NDArray[np.float32],
    filled: NDArray[np.bool_],
    rng: np.random.Generator,
    strata: NDArray[np.intp] | None = None,
) -> NDArray[np.float32]:
    """Permute the filled entries of each gene among the samples (of a stratum); measured ones stay where they are.

    Parameters
    ----------
    values
        Shape (N, G).
    filled
        Shape (N, G).
    rng
        Of the permutations.
    strata
        Shape (N,).

    Returns
    -------
    A new array, shape (N, G).
    """
    shuffled = values.copy()
    codes = np.zeros(len(values), dtype=np.intp) if strata is None else strata
    for code in np.unique(codes):
        rows = np.flatnonzero(codes == code)
        keys = rng.random((len(rows), values.shape[1]))
        # filled entries come last in both orders, one of which is random
        here = filled[rows]
        source = np.argsort(np.where(here, 1 + keys, 0), axis=0, kind="stable")
        target = np.argsort(here, axis=0, kind="stable")
        part = values[rows]
        np.put_along_axis(part, target, np.take_along_axis(values[rows], source, axis=0), axis=0)
        shuffled[rows] = part
    return shuffled
