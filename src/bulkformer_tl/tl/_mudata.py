"""Let tasks take a MuData: they see its samples, with the expression of one modality, and write to the MuData."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate

import numpy as np
import pandas as pd
from anndata import AnnData

from bulkformer_tl._anndata import dense_rows, is_mudata, write_results
from bulkformer_tl._modalities import EXPRESSION
from bulkformer_tl.metrics._check import to_float

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from mudata import MuData
    from numpy.typing import NDArray

#: Containers with one entry per gene, which only that modality has.
OF_GENES = ("layers", "var", "varm")


def takes_mudata[**P](
    task: Callable[Concatenate[AnnData, P], AnnData | None],
) -> Callable[Concatenate[AnnData | MuData, P], AnnData | MuData | None]:
    """Let a task take a MuData in place of an AnnData.

    Parameters
    ----------
    task
        Reads and writes slots of its first argument.

    Returns
    -------
    The task. Of a MuData it sees what :func:`as_anndata` makes, and what it writes is written to the MuData: layers and
    what belongs to genes to the modality that has them, everything else to the MuData itself.
    """

    @wraps(task)
    def on_either(adata: AnnData | MuData, *args: P.args, **options: P.kwargs) -> AnnData | MuData | None:
        named = {value for value in (*args, *options.values()) if isinstance(value, str)}
        given: dict[str, Any] = {
            name: as_anndata(value, named) if is_mudata(value) else value for name, value in options.items()
        }
        if not is_mudata(adata):
            return task(adata, *args, **given)
        view = as_anndata(adata, named)
        before = dict(view.uns)
        task(view, *args, **{**given, "copy": False})
        written = adata.copy() if given.get("copy") else adata
        for key, entry in view.uns.items():
            if entry is not before.get(key):
                _write_back(written, view, key)
        return written if given.get("copy") else None

    # callers may name adata, which ParamSpec has no word for
    found: Any = on_either
    return found  # type: ignore[no-any-return]


def as_anndata(mdata: MuData, named: Collection[str] = ()) -> AnnData:
    """Return the samples of a MuData with the expression of one modality, nothing copied that is large.

    Parameters
    ----------
    mdata
        Modalities of the same samples.
    named
        Names that a call holds; modalities among them become entries of ``obsm``.

    Returns
    -------
    ``obs`` of the MuData; ``X``, ``layers`` and ``var`` of the modality ``"rna"``, or of the first; ``obsm`` and what
    belongs to it in ``uns`` of both, the MuData going first.

    Raises
    ------
    ValueError
        If modalities do not share samples, or that one lacks some.
    KeyError
        If a name is a column of ``obs`` of that modality alone.
    """
    if getattr(mdata, "axis", 0) != 0:
        message = f"the modalities {list(mdata.mod)} share genes rather than samples; pass one of them"
        raise ValueError(message)
    name = expression_modality(mdata)
    part = aligned(mdata, name)
    _refuse_foreign_columns(mdata, name, part, named)
    obsm = dict(part.obsm) | {key: value for key, value in mdata.obsm.items() if key not in mdata.mod}
    uns = {key.removeprefix("X_"): part.uns.get(key.removeprefix("X_")) for key in part.obsm}
    uns = {key: value for key, value in uns.items() if value is not None} | dict(mdata.uns)
    for other in named:
        if other in mdata.mod:
            obsm[other] = modality_frame(mdata, other)
    layers = {key: value for key, value in dict(part.layers).items() if key is not None}
    var: Any = part.var
    return AnnData(X=part.X, obs=mdata.obs.copy(), var=var, layers=layers, obsm=obsm, uns=uns)


def expression_modality(mdata: MuData) -> str:
    """Return the name of the modality whose expression tasks read: ``"rna"``, or the first where none is called so."""
    return EXPRESSION if EXPRESSION in mdata.mod else next(iter(mdata.mod))


def aligned(mdata: MuData, name: str) -> AnnData:
    """Return a modality with the samples of the MuData in their order.

    Raises
    ------
    KeyError
        If there is no such modality.
    ValueError
        If it lacks samples, or two of them share a name.
    """
    if name not in mdata.mod:
        message = f"mdata has no modality {name!r}; it has {list(mdata.mod)}"
        raise KeyError(message)
    part: AnnData = mdata.mod[name]
    if not part.obs_names.is_unique:
        message = f"mdata[{name!r}].obs_names are not unique; call mdata[{name!r}].obs_names_make_unique() first"
        raise ValueError(message)
    rows = part.obs_names.get_indexer(mdata.obs_names)
    if (rows < 0).any():
        message = (
            f"the modality {name!r} lacks {int((rows < 0).sum())} of {mdata.n_obs} samples, such as "
            f"{mdata.obs_names[rows < 0][0]!r}; call muon.pp.intersect_obs(mdata) to keep those that every modality "
            "has, or pass one modality, such as mdata['rna']"
        )
        raise ValueError(message)
    return part if np.array_equal(rows, np.arange(mdata.n_obs)) and part.n_obs == mdata.n_obs else part[rows]


def modality_frame(mdata: MuData, name: str, layer: str | None = None) -> pd.DataFrame:
    """Return ``X`` or a layer of a modality as a table of samples by features, ``NaN`` where missing.

    Raises
    ------
    KeyError
        If there is no such modality or layer.
    ValueError
        If the modality lacks samples or holds infinite values.
    """
    part = aligned(mdata, name)
    where = f"mdata[{name!r}]" + (".X" if layer is None else f".layers[{layer!r}]")
    matrix = part.X if layer is None else part.layers.get(layer)
    if matrix is None:
        message = f"{where} is not there; the layers are {sorted(key for key in dict(part.layers) if key is not None)}"
        raise KeyError(message)
    values: NDArray[np.float32] = to_float(dense_rows(matrix, slice(None)), where).astype(np.float32)
    if np.isinf(values).any():
        message = f"{where} holds {int(np.isinf(values).sum())} infinite values; missing ones are NaN"
        raise ValueError(message)
    return pd.DataFrame(values, index=mdata.obs_names, columns=part.var_names)


def _refuse_foreign_columns(mdata: MuData, name: str, part: AnnData, named: Collection[str]) -> None:
    """Name the call that brings a column of a modality to the samples of all."""
    elsewhere = {*mdata.obs, *mdata.obsm, *part.obsm, *mdata.mod, *(key for key in dict(part.layers) if key)}
    for column in sorted(set(named) - elsewhere):
        if column in part.obs:
            message = (
                f"mdata.obs has no column {column!r}, and mdata[{name!r}].obs has one; take it over with "
                f"mdata.obs[{column!r}] = mdata[{name!r}].obs[{column!r}]"
            )
            raise KeyError(message)


def _write_back(mdata: MuData, view: AnnData, key: str) -> None:
    """Write one result of the view to the MuData, all or nothing."""
    entry: Any = dict(view.uns[key])
    params = entry.pop("params")
    slots = [str(slot) for slot in params["wrote"]]
    results = {slot: getattr(view, slot.split("/", 1)[0])[slot.split("/", 1)[1]] for slot in slots}
    of_genes = {slot: results.pop(slot) for slot in slots if slot.startswith(OF_GENES)}
    write_results(mdata, key, results, params, entry)
    part: AnnData = mdata.mod[expression_modality(mdata)]
    for slot, value in of_genes.items():
        container, name = slot.split("/", 1)
        # modalities need not have the order of the MuData
        ordered = value[mdata.obs_names.get_indexer(part.obs_names)] if container == "layers" else value
        getattr(part, container)[name] = ordered
