"""Hold measured entries back, so that imputation can be scored on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from bulkformer_tl._anndata import check_slots, copied, gene_mask, get_matrix, row_blocks, write_results
from bulkformer_tl._keys import HIDDEN
from bulkformer_tl.encodings import hide_balanced, hide_share

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

By = Literal["entry", "gene"]


def hide(
    adata: AnnData,
    *,
    fraction: float = 0.15,
    layer: str | None = None,
    by: By = "entry",
    mask_var: NDArray[np.bool_] | str | None = None,
    nonzero: float | None = None,
    rng: int | np.random.Generator | None = 0,
    key_added: str = HIDDEN,
    copy: bool = False,
) -> AnnData | None:
    """Mark measured entries at random, to be hidden from a model and predicted by it.

    Nothing is taken out of ``adata``: the mark is a boolean layer that :func:`bulkformer_tl.tl.impute` takes as
    ``mask``. Entries that are missing (``NaN``) are never marked; a measured zero can be.

    Parameters
    ----------
    adata
        Samples by genes; any storage.
    fraction
        Share to mark: of each sample's measured entries, or of the genes.
    layer
        Which values tell what was measured; ``None`` reads ``X``.
    by
        ``"entry"`` draws anew for each sample, ``"gene"`` marks the same genes in all samples, as a panel that lacks
        them would.
    mask_var
        Genes that may be marked, as a boolean array or the name of a boolean ``var`` column. ``None`` means all.
    nonzero
        Share of each sample's marks that falls on values that are not zero, as in the masks (m, p) of BioFormers with
        ``fraction`` as m and this as p: numbers are truncated, and what zeros or others lack is not made up for.
        ``None`` draws among all alike.
    rng
        Seed or generator. The result does not depend on how the data are stored.
    key_added
        Name of the result.
    copy
        Return a modified copy instead of writing to ``adata``.

    Returns
    -------
    ``None``, or an :class:`~anndata.AnnData` if ``copy=True``. Sets the following fields:

    ``adata.layers[key_added]`` : :class:`numpy.ndarray` (shape ``(n_obs, n_vars)``, dtype ``bool``)
        The marks: the fraction of what is measured, rounded, but never all of it.
    ``adata.uns[key_added]["params"]`` : :class:`dict`
        Fraction, layer, ``by``, ``nonzero``, seed, number of marks.

    Raises
    ------
    ValueError
        If a share is not between 0 and 1, ``nonzero`` is given for whole genes, the fraction is so small that nothing
        is marked; or ``key_added`` is taken.
    KeyError
        If the layer or the ``var`` column does not exist.

    Examples
    --------
    >>> import bulkformer_tl as bf
    >>> adata = bf.datasets.toy()
    >>> bf.pp.hide(adata, fraction=0.1)
    >>> adata.layers["hidden"].dtype
    dtype('bool')
    """
    if by not in get_args(By):
        message = f"by must be 'entry' or 'gene', found {by!r}"
        raise ValueError(message)
    if not 0 < fraction < 1:
        message = f"fraction must lie between 0 and 1, found {fraction}"
        raise ValueError(message)
    if nonzero is not None and (by != "entry" or not 0 <= nonzero <= 1):
        message = f"nonzero is a share from 0 to 1 of the marks by='entry', found {nonzero} with by={by!r}"
        raise ValueError(message)
    slot = f"layers/{key_added}"
    matrix = get_matrix(adata, layer)
    check_slots(adata, key_added, [slot])
    allowed = gene_mask(adata, mask_var)
    generator = np.random.default_rng(rng)
    marks = np.empty(matrix.shape, dtype=bool)
    for rows, block in row_blocks(matrix, dtype=np.float64):
        if allowed is not None:
            block[:, ~allowed] = np.nan
        if by == "gene":
            marks[rows] = ~np.isnan(block)
        elif nonzero is None:
            marks[rows] = [hide_share(~np.isnan(sample), fraction, generator) for sample in block]
        else:
            marks[rows] = [hide_balanced(sample, fraction, nonzero, generator) for sample in block]
    if by == "gene":
        marks &= hide_share(marks.any(axis=0), fraction, generator)
    if not marks.any():
        message = f"a fraction of {fraction} of what is measured is less than one entry; pass a larger one"
        raise ValueError(message)
    params: dict[str, Any] = {"fraction": float(fraction), "by": by, "n_hidden": int(marks.sum())}
    params |= {} if layer is None else {"layer": layer}
    params |= {} if nonzero is None else {"nonzero": float(nonzero)}
    params |= {"rng": int(rng)} if isinstance(rng, int | np.integer) else {}
    target = copied(adata) if copy else adata
    write_results(target, key_added, {slot: marks}, params)
    return target if copy else None
