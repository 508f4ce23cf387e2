"""Tell the sex of donors from XIST and genes of the Y chromosome, on arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Sex = Literal["female", "male", "undetermined"]

#: Spellings of labels, in small letters.
SPELLINGS: dict[str, Sex] = {
    **dict.fromkeys(("f", "female", "woman", "women", "girl", "xx"), "female"),
    **dict.fromkeys(("m", "male", "man", "men", "boy", "xy"), "male"),
}

XIST = "ENSG00000229807"

#: RPS4Y1, DDX3Y, KDM5D, UTY, EIF1AY and USP9Y, with the median of males in six cohorts, in TPM or reads per million of
#: a sample in which the genes of the corpus mean have its sum.
Y_GENES = {
    "ENSG00000129824": 67.0,
    "ENSG00000067048": 31.0,
    "ENSG00000012817": 28.0,
    "ENSG00000183878": 9.0,
    "ENSG00000198692": 10.0,
    "ENSG00000114374": 22.0,
}

#: Sum of the Y genes over that of the typical male: females stay below the first, males above the second. Between are
#: mixtures, poorly mapped reads and tumours that lost their Y.
MAX_FEMALE, MIN_MALE = 0.04, 0.1

#: XIST of a female, in the same units; males stay below 3.
MIN_XIST = 10.0

#: Reads of Y genes that a male would have, below which their absence says nothing.
MIN_READS = 10.0

#: Least distance of two clusters over their common standard deviation, and least number of samples, on other scales.
MIN_GAP, MIN_SAMPLES = 5.0, 6


def sex_of_linear(
    y: NDArray[np.float64], typical: NDArray[np.float64], xist: NDArray[np.float64] | None
) -> NDArray[np.str_]:
    """Tell the sex from linear values on the scale of :data:`Y_GENES`.

    Parameters
    ----------
    y
        Of the Y genes that are there, shape (N, K).
    typical
        The typical male of these genes, shape (K,).
    xist
        Shape (N,); ``None`` where the table has no XIST.

    Returns
    -------
    ``"female"``, ``"male"`` or ``"undetermined"``, shape (N,). With XIST both have to agree: tumours lose the Y, and
    cell lines XIST.
    """
    share = np.nansum(y, axis=1) / np.where(np.isnan(y), 0, typical).sum(axis=1).clip(min=1e-9)
    high, low = share >= MIN_MALE, share <= MAX_FEMALE
    # a sample without a single measured Y gene
    low &= ~np.isnan(y).all(axis=1)
    if xist is not None:
        silent = np.nan_to_num(xist, nan=0.0) < MIN_XIST
        high, low = high & silent, low & (~silent | np.isnan(xist))
    return np.select([high, low], ["male", "female"], "undetermined")


def sex_of_clusters(y: NDArray[np.float64], xist: NDArray[np.float64] | None) -> NDArray[np.str_]:
    """Tell the sex from logarithms or z-scores whose zero is unknown: two clusters far apart are two sexes.

    Parameters
    ----------
    y
        Of the Y genes that are there, shape (N, K).
    xist
        Shape (N,); ``None`` where the table has no XIST.

    Returns
    -------
    As :func:`sex_of_linear`; all are ``"undetermined"`` where there are no two clusters, as in cohorts of one sex.
    """
    called = np.full(len(y), "undetermined")
    axis = np.nanmean(np.where(np.isnan(y).all(axis=1, keepdims=True), 0, y), axis=1)
    axis = axis if xist is None else axis - np.nan_to_num(xist)
    if len(axis) < MIN_SAMPLES:
        return called
    order = np.sort(axis)
    between = [(i * (len(order) - i)) * (order[i:].mean() - order[:i].mean()) ** 2 for i in range(2, len(order) - 1)]
    cut = int(np.argmax(between)) + 2
    low, high = order[:cut], order[cut:]
    within = np.sqrt((low.var() * low.size + high.var() * high.size) / order.size)
    if high.mean() - low.mean() < MIN_GAP * within:
        return called
    position = (axis - low.mean()) / (high.mean() - low.mean())
    called[position < 0.25], called[position > 0.75] = "female", "male"
    return called
