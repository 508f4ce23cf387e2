"""First-order screen: what all perturbations of a sample do, from one backward pass for each number that is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bulkformer_tl._progress import Progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from bulkformer_tl.tl._perturb_passes import Editor, VectorReader
    from bulkformer_tl.tl._perturb_sets import Perturbation

    Numbers = NDArray[np.float64]


def first_order(
    values: NDArray[np.float32],
    perturbations: Sequence[Perturbation],
    editor: Editor,
    reader: VectorReader,
    rng: np.random.Generator,
) -> Numbers:
    """Estimate the effect of perturbations as slope times change, added up over the genes of each.

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
    rng
        Of the random directions of a readout without a sign.

    Returns
    -------
    Shape (N, P, O); ``NaN`` where a gene cannot be changed.
    """
    found = np.full((len(values), len(perturbations), len(reader.names)), np.nan)
    single = np.array([len(item.genes) == 1 for item in perturbations])
    first = np.array([item.genes[0] for item in perturbations], dtype=np.int64)
    with Progress(len(values), "perturb: screen") as progress:
        for row, sample in enumerate(values):
            base = reader.base(sample)
            directions = reader.readout.directions(base, rng, exact=reader.passes.linear)
            slopes = reader.passes.slopes(sample, directions)
            becomes = editor.becomes(sample)
            moves = slopes * (becomes.astype(np.float64) - sample)
            chosen = np.full((len(directions), len(perturbations)), np.nan)
            chosen[:, single] = moves[:, first[single]]
            for position in np.flatnonzero(~single).tolist():
                item = perturbations[position]
                of_genes = moves[:, list(item.genes)]
                fine = ~np.isnan(becomes[list(item.genes)])
                if fine.any() if item.kind == "set" else fine.all():
                    chosen[:, position] = of_genes[:, fine].sum(axis=1)
            found[row] = reader.readout.first_order(base, chosen)
            progress.update()
    return found


def strongest(estimates: Numbers, count: int) -> NDArray[np.intp]:
    """Return the positions of the perturbations with the largest mean estimate of any output, ascending.

    Parameters
    ----------
    estimates
        As of :func:`first_order`.
    count
        How many.
    """
    known = ~np.isnan(estimates).all(axis=(0, 2))
    size = np.zeros(estimates.shape[1:])
    size[known] = np.abs(np.nanmean(estimates[:, known], axis=0))
    # outputs differ in their units
    score = (size / np.maximum(size.max(axis=0), np.finfo(np.float64).tiny)).max(axis=1)
    return np.sort(np.argsort(np.where(known, -score, np.inf), kind="stable")[: min(count, int(known.sum()))])
