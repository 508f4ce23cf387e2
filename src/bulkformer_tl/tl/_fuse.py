"""Put representations of several modalities side by side, so that a task can judge them together and each alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from bulkformer_tl._anndata import check_slots, is_mudata, write_results
from bulkformer_tl._keys import FuseKeys
from bulkformer_tl.tl._mudata import aligned, modality_frame
from bulkformer_tl.tl._samples import embedding_params, get_representation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mudata import MuData
    from numpy.typing import NDArray


class _Part(NamedTuple):
    name: str
    values: NDArray[np.float32]
    scale: Literal["common", "each"]
    made: dict[str, Any]


def fuse(
    mdata: MuData,
    use_rep: Mapping[str, str | None],
    *,
    layer: Mapping[str, str] | None = None,
    key_added: str = FuseKeys.key,
    copy: bool = False,
) -> MuData | None:
    """Put representations of several modalities side by side.

    Nothing is fitted here: values are kept as they are, so that those of two cohorts agree. A task that is given the
    result as ``use_rep`` scales it inside each fold: columns of an embedding keep their proportions, features are
    scaled to unit variance, and then every modality gets the same total variance, however many columns it has. Each
    modality alone stands as a baseline in the task's table, under the same head on the same folds.

    Parameters
    ----------
    mdata
        Modalities of the same samples; see :func:`muon.pp.intersect_obs`.
    use_rep
        Modality and key of its ``obsm``, such as ``{"rna": "X_bulkformer", "protein": None}``; ``None`` takes its
        features themselves, ``NaN`` where missing (filled with the training mean inside each fold).
    layer
        Modality and layer of its features; ``X`` where it is not named.
    key_added
        Name of the result.
    copy
        Return a modified copy instead of writing to ``mdata``.

    Returns
    -------
    ``None``, or a :class:`~mudata.MuData` if ``copy=True``. Sets the following fields:

    ``mdata.obsm["X_" + key_added]`` : :class:`numpy.ndarray` (shape ``(n_obs, D)``, dtype ``float32``)
        All representations, in the order of ``use_rep``.
    ``mdata.uns[key_added]["params"]`` : :class:`dict`
        Names, widths and scaling of the blocks, and the models that made them.

    Raises
    ------
    TypeError
        If ``mdata`` is no MuData, or ``use_rep`` or ``layer`` is no mapping.
    KeyError
        If a modality, representation or layer is not there.
    ValueError
        If fewer than two modalities are named, one lacks samples or holds infinite values, or the slot holds something
        else.

    Examples
    --------
    >>> import bulkformer_tl as bf
    >>> from mudata import MuData
    >>> rna = bf.datasets.toy()
    >>> bf.pp.log_tpm(rna)
    >>> protein = rna[:, :20].copy()
    >>> mdata = MuData({"rna": rna, "protein": protein})
    >>> mdata.obs["tissue"] = rna.obs["tissue"]
    >>> bf.tl.fuse(mdata, {"rna": None, "protein": None}, layer={"rna": "log_tpm", "protein": "log_tpm"})
    >>> bf.tl.classify(mdata, "tissue", use_rep="X_fused", layer="log_tpm")
    >>> "protein" in set(mdata.uns["classify_tissue"]["scores"]["representation"])
    True
    """
    if not is_mudata(mdata):
        message = f"expected a MuData (modalities of the same samples), found {type(mdata).__name__}"
        raise TypeError(message)
    keys = FuseKeys(key_added)
    check_slots(mdata, keys.key, [keys.embedding])
    parts = _read(mdata, use_rep, layer)
    made = [part.made for part in parts]
    params = {
        "blocks": [part.name for part in parts],
        "widths": [part.values.shape[1] for part in parts],
        "scales": [part.scale for part in parts],
        "model": " + ".join(str(found["model"]) for found in made if "model" in found),
        "checksum": " + ".join(str(found["checksum"]) for found in made if "checksum" in found),
    }
    target = mdata.copy() if copy else mdata
    write_results(target, keys.key, {keys.embedding: np.concatenate([part.values for part in parts], axis=1)}, params)
    return target if copy else None


def _read(mdata: MuData, use_rep: Mapping[str, str | None], layer: Mapping[str, str] | None) -> list[_Part]:
    for name, given in (("use_rep", use_rep), ("layer", layer)):
        if not hasattr(given, "keys") and not (name == "layer" and given is None):
            message = f"{name} is {given!r}; pass a mapping from modalities, such as {{'rna': 'X_bulkformer'}}"
            raise TypeError(message)
    layers = dict(layer or {})
    if len(use_rep) < 2:
        message = f"use_rep names {list(use_rep)}; at least two modalities can be fused, and one is passed as it is"
        raise ValueError(message)
    unused = sorted(name for name in layers if use_rep.get(name, "") is not None)
    if unused:
        message = f"layer names {unused}, whose features are not read; set use_rep to None there"
        raise ValueError(message)
    return [_read_part(mdata, name, rep, layers.get(name)) for name, rep in use_rep.items()]


def _read_part(mdata: MuData, name: str, rep: str | None, layer: str | None) -> _Part:
    if rep is None:
        return _Part(name, modality_frame(mdata, name, layer).to_numpy(), "each", {})
    part = aligned(mdata, name)
    try:
        values = get_representation(part, rep)
    except KeyError as error:
        message = f"mdata[{name!r}].obsm has no {rep!r}; it holds {sorted(part.obsm)}"
        raise KeyError(message) from error
    return _Part(f"{name}: {rep}", values, "common", embedding_params(part, rep))
