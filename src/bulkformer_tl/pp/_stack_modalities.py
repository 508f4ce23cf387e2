"""The modalities of a MuData, and numbers of its samples, side by side as features of one table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData

from bulkformer_tl._anndata import dense_rows, get_matrix, is_mudata
from bulkformer_tl._modalities import SAMPLE, feature_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mudata import MuData
    from numpy.typing import NDArray


def stack_modalities(
    mdata: MuData, *, layers: Mapping[str, str | None] | None = None, obs: Sequence[str] = ()
) -> AnnData:
    """Put the modalities of a MuData, and numbers of its samples, side by side: what a BioFormers network reads.

    Features keep their names in the modality ``"rna"`` and are called ``<modality>:<name>`` in all others, columns of
    ``obs`` are ``obs:<name>``; a network that was trained on such a table tells modalities apart by these names.

    Parameters
    ----------
    mdata
        Modalities that share samples, all or some of them.
    layers
        Modality to the layer to read, ``None`` for ``X``; modalities that are not named are left out. ``None`` takes
        ``X`` of all. Expression is raw counts.
    obs
        Columns of ``mdata.obs`` with numbers that are not negative, such as age.

    Returns
    -------
    A new :class:`~anndata.AnnData` of the samples of ``mdata`` by all features:

    ``X`` : :class:`numpy.ndarray` (dtype ``float32``)
        Values as they are; ``NaN`` where missing, also for samples that a modality lacks.
    ``obs`` : :class:`pandas.DataFrame`
        That of ``mdata``.
    ``var["modality"]`` : :class:`pandas.Series` (categorical)
        Modality of each feature.

    Raises
    ------
    TypeError
        If it is no MuData.
    KeyError
        If a modality, layer or column is not there.
    ValueError
        If modalities share genes rather than samples, names repeat, or a column holds no numbers from 0.

    Examples
    --------
    >>> import bulkformer_tl as bf
    >>> from mudata import MuData
    >>> rna = bf.datasets.toy()
    >>> table = bf.pp.stack_modalities(MuData({"rna": rna}), layers={"rna": None})
    >>> table.n_vars == rna.n_vars
    True
    """
    if not is_mudata(mdata):
        message = f"stack_modalities takes a MuData, found {type(mdata).__name__}"
        raise TypeError(message)
    if getattr(mdata, "axis", 0) != 0:
        message = f"the modalities {list(mdata.mod)} share genes rather than samples; pass one of them"
        raise ValueError(message)
    wanted: dict[str, str | None] = dict.fromkeys(mdata.mod) if layers is None else dict(layers)
    absent = [name for name in wanted if name not in mdata.mod]
    if absent:
        message = f"mdata has no modality {absent[0]!r}; it has {list(mdata.mod)}"
        raise KeyError(message)
    parts, names, modalities = [], [], []
    for modality, layer in wanted.items():
        parts.append(_values(mdata, modality, layer))
        names += [feature_name(modality, str(name)) for name in mdata.mod[modality].var_names]
        modalities += [modality] * parts[-1].shape[1]
    if obs:
        parts.append(np.stack([_numbers(mdata, column) for column in obs], axis=1))
        names += [feature_name(SAMPLE, column) for column in obs]
        modalities += [SAMPLE] * len(obs)
    index = pd.Index(names)
    if index.has_duplicates:
        twice = index[index.duplicated()][0]
        message = f"several features are called {twice!r}; make the var_names of each modality unique first"
        raise ValueError(message)
    var = pd.DataFrame({"modality": pd.Categorical(modalities, list(dict.fromkeys(modalities)))}, index=index)
    return AnnData(np.concatenate(parts, axis=1), obs=mdata.obs.copy(), var=var)


def _values(mdata: MuData, modality: str, layer: str | None) -> NDArray[np.float32]:
    """Return a modality in the order of the samples of all, ``NaN`` where it lacks them."""
    part: AnnData = mdata.mod[modality]
    if not part.obs_names.is_unique:
        message = f"mdata[{modality!r}].obs_names are not unique; call mdata[{modality!r}].obs_names_make_unique()"
        raise ValueError(message)
    own: Any = dense_rows(get_matrix(part, layer), slice(None))
    rows = part.obs_names.get_indexer(mdata.obs_names)
    found: NDArray[np.float32] = np.where((rows >= 0)[:, None], own[rows], np.nan).astype(np.float32)
    return found


def _numbers(mdata: MuData, column: str) -> NDArray[np.float32]:
    if column not in mdata.obs:
        message = f"mdata.obs has no column {column!r}; its columns are {mdata.obs.columns.tolist()}"
        raise KeyError(message)
    series: Any = mdata.obs[column]
    numeric = pd.api.types.is_numeric_dtype(series) and not pd.api.types.is_bool_dtype(series)
    values: NDArray[np.float32] = (
        series.to_numpy(dtype=np.float32, na_value=np.nan) if numeric else np.full(len(series), -1, dtype=np.float32)
    )
    if np.isinf(values).any() or (values < 0).any():
        message = (
            f"mdata.obs[{column!r}] ({series.dtype}) holds what is no number from 0; its values become bins. "
            "Categories are external tokens: bf.train.PretrainConfig(external=...)"
        )
        raise ValueError(message)
    return values
