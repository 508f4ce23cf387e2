"""Sample embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bulkformer_tl._anndata import check_anndata, check_slots, copied, gene_mask
from bulkformer_tl._keys import EmbedKeys
from bulkformer_tl.tl._blocks import each_block
from bulkformer_tl.tl._input import ModelInput, prepare
from bulkformer_tl.tl._run import check_output, compute, place_for
from bulkformer_tl.tl._zarr_output import ZarrOutput

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from numpy.typing import NDArray

    from bulkformer_tl._vocabulary import Identifiers
    from bulkformer_tl.models import Encoder

POOLINGS = ("mean", "max", "median", "all")


def embed(
    adata: AnnData,
    *,
    model: Encoder | str | Path = "bulkformer-mini",
    layer: str | None = None,
    pooling: Literal["mean", "max", "median", "all", "cls"] | None = None,
    observed_only: bool | None = None,
    mask_var: NDArray[np.bool_] | str | None = None,
    summary_columns: bool = False,
    identifiers: Identifiers | None = None,
    min_coverage: float = 0.2,
    output: str | Path | ZarrOutput | None = None,
    key_added: str = "bulkformer",
    batch_size: int | None = None,
    device: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Embed samples with a pretrained BulkFormer, or another encoder behind the same protocol.

    Runs the encoder without gradients and pools its gene vectors into one vector per sample. Genes are matched by
    identifier, so ``adata`` may hold them in any order, and more or fewer than the model knows; absent genes and
    ``NaN`` enter the model as missing, zeros as measured.

    Parameters
    ----------
    adata
        Samples by genes, with ln(TPM+1) values (see :func:`bulkformer_tl.pp.log_tpm`), or the raw counts that a
        Geneformer or a BioFormer reads.
    model
        A loaded model, or what :func:`bulkformer_tl.models.load` takes: a name, a folder, ``"geneformer:<folder>"``.
    layer
        Key of :attr:`~anndata.AnnData.layers` to read; ``None`` reads ``X``.
    pooling
        How gene vectors become one: ``"mean"``, ``"max"``, ``"median"``, or ``"all"``, the sum of the three; or
        ``"cls"``, the vector of the token ``<cls>`` of a Geneformer V2 or a BioFormer. ``None`` takes the model's
        published rule.
    observed_only
        Pool over measured genes only. ``None`` takes the model's published rule.
    mask_var
        Genes to pool over, as a boolean array of length ``n_vars`` or the name of a boolean ``var`` column. The model
        sees all genes in any case.
    summary_columns
        Append the three summary channels (missing share, mean of the measured values, share of non-zero genes) of
        models that have them: ``D + 3`` columns.
    identifiers
        What ``var_names`` are: ``"ensembl"`` (a version is dropped), ``"symbol"`` or ``"entrez"``. ``None`` takes what
        :func:`bulkformer_tl.pp.log_tpm` was told when it made this layer, else Ensembl.
    min_coverage
        Least share of the model's genes that ``adata`` must have.
    output
        Zarr store to write the result to instead of ``adata``, or a :class:`~bulkformer_tl.tl.ZarrOutput`. It gets
        ``obs``, ``var`` and ``uns`` of ``adata`` and the fields below. Memory then depends on the block of samples that
        is worked on and not on the cohort, and the same call goes on where an interrupted one stopped.
    key_added
        Name of the result.
    batch_size
        Samples per forward pass on a GPU. ``None`` takes :attr:`bulkformer_tl.settings.batch_size`. On the CPU samples
        always go one at a time, so that results are equal bit for bit over batch size and order.
    device
        Torch device. ``None`` takes :attr:`bulkformer_tl.settings.device`.
    copy
        Return a modified copy instead of writing to ``adata``.

    Returns
    -------
    ``None``, or an :class:`~anndata.AnnData` if ``copy=True``. Sets the following fields, of ``adata`` or of the store
    that ``output`` names:

    ``adata.obsm["X_" + key_added]`` : :class:`numpy.ndarray` (shape ``(n_obs, D)``, dtype ``float32``)
        Sample vectors.
    ``adata.var[key_added + "_in_vocabulary"]`` : :class:`pandas.Series` (dtype ``bool``)
        Whether the model knows the gene.
    ``adata.uns[key_added]["params"]`` : :class:`dict`
        Model and checksum, layer, pooling, and the share of the vocabulary that was found.

    Raises
    ------
    ValueError
        If too few genes match, the values cannot be what the model reads, a sample has no gene that a Geneformer
        knows, a slot holds something else, ``output`` does not end in ``.zarr``, or an unfinished run beside it is one
        of something else.
    KeyError
        If there is no such layer or ``var`` column.
    FileExistsError
        If ``output`` is there already.
    FileNotFoundError
        If its folder is not there.

    Examples
    --------
    >>> import bulkformer_tl as bf
    >>> adata = bf.datasets.toy()
    >>> bf.pp.log_tpm(adata)
    >>> bf.tl.embed(adata, layer="log_tpm")
    >>> adata.obsm["X_bulkformer"].shape[0] == adata.n_obs
    True
    """
    check_anndata(adata)
    stream = None if output is None else ZarrOutput.of(output)
    check_output(stream, copy=copy)
    keys = EmbedKeys(key_added)
    check_slots(adata, key_added, [*([keys.embedding] if stream is None else []), keys.in_vocabulary])
    pool_columns = gene_mask(adata, mask_var)
    given = prepare(
        adata,
        model=model,
        layer=layer,
        identifiers=identifiers,
        min_coverage=min_coverage,
        device=device,
        digest=stream is not None,
    )
    _check_rule(given, pooling, choosing=mask_var is not None or observed_only is not None)
    only = given.model.pooling_observed_only if observed_only is None else observed_only
    genes = None if pool_columns is None else _pool_genes(adata, pool_columns, given, observed_only=only)
    options = {
        "pooling": pooling,
        "observed_only": observed_only,
        "pool_genes": genes,
        "summary_columns": summary_columns,
        "batch_size": batch_size,
    }
    params = {
        **given.params,
        "pooling": pooling or given.model.default_pooling,
        "observed_only": only,
        "summary_columns": summary_columns,
    }
    place = place_for(stream, adata, given, "embed", {**params, "key_added": key_added, "mask_var": pool_columns})
    work = _Embedding(given.without_values(), keys.embedding, options)
    compute(given, work, place, "embed", batch_size=batch_size, device=device)
    target = copied(adata) if copy else adata
    place.finish(target, key_added, {keys.in_vocabulary: given.match.in_vocabulary}, params, {})
    return target if copy else None


@dataclass(frozen=True)
class _Embedding:
    """Vectors of samples."""

    given: ModelInput
    slot: str
    options: dict[str, Any]

    @property
    def models(self) -> list[Encoder]:
        return [self.given.model]

    def __call__(self, rows: slice, values: NDArray[np.floating]) -> dict[str, NDArray[np.float32]]:
        return {self.slot: self.given.encode(self.given.align(values), "pooled", rows=rows, **self.options)[0]}


def _check_rule(given: ModelInput, pooling: str | None, *, choosing: bool) -> None:
    if pooling is None and choosing and given.model.default_pooling not in POOLINGS:
        message = (
            f"the sample vector of {given.model.name} ({given.model.default_pooling!r}) uses all measured genes; "
            f"with mask_var or observed_only pass pooling=, one of {list(POOLINGS)}"
        )
        raise ValueError(message)


def _pool_genes(
    adata: AnnData, mask: NDArray[np.bool_], given: ModelInput, *, observed_only: bool
) -> NDArray[np.int64]:
    genes = np.flatnonzero(given.match.found & mask[given.match.columns])
    if not len(genes):
        message = f"mask_var selects {int(mask.sum())} genes, and none of them is known to {given.model.name}"
        raise ValueError(message)
    if observed_only:
        for rows, empty in each_block(given.matrix, given.hidden, _Empty(given.match.columns[genes])):
            if empty.any():
                name = adata.obs_names[rows.start + int(empty.argmax())]
                message = (
                    f"sample {name!r} measures none of the {len(genes)} genes of mask_var; drop it or widen mask_var"
                )
                raise ValueError(message)
    return genes


@dataclass(frozen=True)
class _Empty:
    """Which samples measure none of some genes."""

    columns: NDArray[np.int64]

    @property
    def models(self) -> list[Encoder]:
        return []

    def __call__(self, _: slice, values: NDArray[np.floating]) -> NDArray[np.bool_]:
        empty: NDArray[np.bool_] = np.isnan(values[:, self.columns]).all(axis=1)
        return empty
