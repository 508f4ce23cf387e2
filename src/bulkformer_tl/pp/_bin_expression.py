"""Expression as bins: the encoding of BioFormers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import scipy.sparse as sp

from bulkformer_tl._anndata import check_slots, copied, get_matrix, row_blocks, sparse_blocks, write_results
from bulkformer_tl._keys import BINNED, BinKeys
from bulkformer_tl._progress import Progress
from bulkformer_tl.encodings import segment_bins, value_bins
from bulkformer_tl.encodings._bins import Form
from bulkformer_tl.pp._external_tokens import external_tokens
from bulkformer_tl.pp._rank_input import Look

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

    Bins = Callable[[NDArray[np.float64]], NDArray[np.int32]]

Method = Literal["segment", "value"]

#: Bins of the method "segment" where none are named.
SEGMENTS = 10


def bin_expression(
    adata: AnnData,
    *,
    method: Method = "value",
    n_bins: int | None = None,
    bin_size: float = 1 / 3,
    cutoff: float = 8.0,
    form: Form = "monotone",
    target_sum: float | Literal["mean"] | None = "mean",
    max_fraction: float | None = None,
    external: Sequence[str] = (),
    layer: str | None = None,
    key_added: str = BINNED,
    copy: bool = False,
) -> AnnData | None:
    r"""Write expression as whole numbers, as BioFormers reads it (doi:10.1101/2023.11.29.569320).

    ``"segment"`` cuts the values above zero of each sample into ``n_bins`` of equal size (equation 2); equal values
    share a bin, of which the upper end belongs to it. ``"value"`` scales counts to one library size (equation 4),
    rounds small values and cuts the logarithm of large ones into bins of equal length (equation 5). Zeros are bin 0 in
    both.

    Parameters
    ----------
    adata
        Samples by genes, raw counts for ``"value"``; any storage.
    method
        ``"segment"`` or ``"value"``.
    n_bins
        Number of bins of ``"segment"``, ``None`` means 10; highest bin of ``"value"``, which takes all that is above
        it, ``None`` leaves it open.
    bin_size
        b, length of a bin of :math:`\log_2` in ``"value"``. The published setting is 1/3.
    cutoff
        c, where logarithms begin in ``"value"``. The published setting is 8.
    form
        ``"monotone"``, or equation 5 as ``"printed"``, as ``"published"`` in code, or ``"published_linear"``, the other
        mode of that code; see the user guide for how they differ.
    target_sum
        Library size that ``"value"`` scales samples to: ``"mean"`` of the samples (equation 4), a number (1,500 in the
        published code), or ``None`` to bin values as they are.
    max_fraction
        Genes that hold more than this share of any sample's counts do not count towards its library, 0.05 in the
        published code. ``None`` counts all.
    external
        What else a token says: ``"obs/<column>"`` (batch, tissue, age), ``"var/<column>"``, ``"layers/<layer>"``
        (perturbed or not). Numbers of ``obs`` and ``var`` are cut into 10 bins of equal size.
    layer
        Which values to read; ``None`` reads ``X``.
    key_added
        Name of the result.
    copy
        Return a modified copy instead of writing to ``adata``.

    Returns
    -------
    ``None``, or an :class:`~anndata.AnnData` if ``copy=True``. Sets the following fields:

    ``adata.layers[key_added]`` : :class:`numpy.ndarray` or CSR (shape ``(n_obs, n_vars)``, dtype ``int32``)
        Bins, sparse where the values are; -1 where missing (``NaN``).
    ``adata.obs``, ``adata.var`` and ``adata.layers[key_added + "_" + name]`` (dtype ``int32``)
        Codes of external tokens from 1, 0 where missing.
    ``adata.uns[key_added]["params"]`` : :class:`dict`
        How bins were made, the library size, the highest bin, and what the external codes stand for.

    Raises
    ------
    ValueError
        If values are negative, infinite, or not counts where a library is scaled; an option is out of its range; an
        external token cannot be made; or ``key_added`` is taken.
    KeyError
        If there is no such layer or column.

    Examples
    --------
    >>> import bulkformer_tl as bf
    >>> adata = bf.datasets.toy()
    >>> bf.pp.bin_expression(adata, external=["obs/tissue"])
    >>> int(adata.layers["binned"].min())
    0
    """
    matrix = get_matrix(adata, layer)
    keys = BinKeys(key_added)
    _check_options(
        method=method,
        n_bins=n_bins,
        bin_size=bin_size,
        cutoff=cutoff,
        form=form,
        target_sum=target_sum,
        max_fraction=max_fraction,
    )
    codes, meaning = external_tokens(adata, external, keys)
    check_slots(adata, key_added, [keys.layer, *codes])
    params: dict[str, Any] = {"method": method, "layer": layer or "X"}
    factors = np.ones(matrix.shape[0])
    if method == "value":
        params |= {"bin_size": float(bin_size), "cutoff": float(cutoff), "form": form}
        if target_sum is not None:
            factors, goal = _scaling(matrix, target_sum, max_fraction)
            params |= {"target_sum": goal, "max_fraction": float(max_fraction or 1.0)}
        top = np.iinfo(np.int32).max if n_bins is None else n_bins

        def cut(values: NDArray[np.float64]) -> NDArray[np.int32]:
            return np.minimum(value_bins(values, bin_size=bin_size, cutoff=cutoff, form=form), top).astype(np.int32)
    else:

        def cut(values: NDArray[np.float64]) -> NDArray[np.int32]:
            return segment_bins(values, n_bins or SEGMENTS)

    binned = _bin(matrix, factors, cut)
    params |= {"n_bins": int(binned.max()), "external": meaning}
    target = copied(adata) if copy else adata
    write_results(target, key_added, {keys.layer: binned, **codes}, params)
    return target if copy else None


def _check_options(
    *,
    method: str,
    n_bins: int | None,
    bin_size: float,
    cutoff: float,
    form: str,
    target_sum: float | str | None,
    max_fraction: float | None,
) -> None:
    number = target_sum is None or (isinstance(target_sum, int | float) and target_sum > 0)
    for name, fine, needed, found in (
        ("method", method in get_args(Method), f"one of {list(get_args(Method))}", method),
        ("n_bins", n_bins is None or n_bins >= 2, "at least 2", n_bins),
        ("bin_size", bin_size > 0, "above 0", bin_size),
        ("cutoff", cutoff > 0, "above 0", cutoff),
        ("form", form in get_args(Form), f"one of {list(get_args(Form))}", form),
        ("target_sum", number or target_sum == "mean", "'mean', above 0 or None", target_sum),
        ("max_fraction", max_fraction is None or 0 < max_fraction < 1, "between 0 and 1", max_fraction),
    ):
        if not fine:
            message = f"{name} must be {needed}, found {found!r}"
            raise ValueError(message)


def _scaling(
    matrix: Any, target_sum: float | Literal["mean"], max_fraction: float | None
) -> tuple[NDArray[np.float64], float]:
    """Return what each sample's counts are multiplied by, and the library size that they then have."""
    look = Look()
    totals = np.zeros(matrix.shape[0])
    dominant = np.zeros(matrix.shape[1], dtype=bool)
    for rows, block in sparse_blocks(matrix):
        counts, totals[rows] = look.take(block)
        if max_fraction is not None:
            library = np.repeat(totals[rows], np.diff(counts.indptr))
            dominant[counts.indices[counts.data > max_fraction * library]] = True
    look.judge()
    goal = float(totals.mean()) if target_sum == "mean" else float(target_sum)
    if dominant.any():
        rest = (~dominant).astype(np.float64)
        for rows, block in sparse_blocks(matrix):
            counts, _ = look.take(block)
            totals[rows] = counts.astype(np.float64) @ rest
    return goal / np.where(totals > 0, totals, goal), goal


def _cut(values: NDArray[np.float64], bins: Bins) -> NDArray[np.int32]:
    """Bin values of one sample that may be missing."""
    missing = np.isnan(values)
    found = np.full(values.shape, -1, dtype=np.int32)
    found[~missing] = bins(values[~missing])
    return found


def _bin(matrix: Any, factors: NDArray[np.float64], bins: Bins) -> Any:
    """Bin each sample; sparse stays sparse."""
    sparse = sp.issparse(matrix) or hasattr(matrix, "to_memory")
    blocks: list[Any] = []
    with Progress(matrix.shape[0], "bin_expression") as progress:
        read: Any = sparse_blocks(matrix) if sparse else row_blocks(matrix, dtype=np.float64)
        for rows, block in read:
            _refuse_negative(block.data if sparse else block)
            if sparse:
                library = np.repeat(factors[rows], np.diff(block.indptr))
                values = block.data.astype(np.float64) * library
                own = [_cut(part, bins) for part in np.split(values, block.indptr[1:-1])]
                # the block's own indices may be those of the matrix
                parts = (np.concatenate(own), block.indices.copy(), block.indptr)
                found = sp.csr_matrix(parts, shape=block.shape)
                found.eliminate_zeros()
                blocks.append(found)
            else:
                blocks.append(np.stack([_cut(row, bins) for row in block * factors[rows, None]]))
            progress.update(rows.stop - rows.start)
    return sp.vstack(blocks, format="csr") if sparse else np.concatenate(blocks)


def _refuse_negative(values: NDArray[Any]) -> None:
    lowest, highest = np.nanmin(values, initial=0), np.nanmax(values, initial=0)
    if lowest < 0 or np.isinf(highest):
        message = (
            f"the values {f'go down to {lowest:.4g}' if lowest < 0 else 'hold infinities'}; bins begin at zero, so "
            "pass layer= for counts or other values that are not negative, bf.pp.diagnose(adata) looks for them"
        )
        raise ValueError(message)
