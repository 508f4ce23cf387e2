"""Predictions of new samples by an encoder that was adapted before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bulkformer_tl._anndata import check_anndata, check_slots, copied, write_results
from bulkformer_tl._keys import FinetuneKeys
from bulkformer_tl.tl._finetune import _all_values, chosen
from bulkformer_tl.tl._input import prepare
from bulkformer_tl.train import Adapter

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

    from bulkformer_tl._vocabulary import Identifiers
    from bulkformer_tl.models import BioFormer, BulkFormer, Geneformer


def predict(
    adata: AnnData,
    adapter: Adapter | str | Path,
    *,
    model: BulkFormer | Geneformer | BioFormer | str | Path | None = None,
    layer: str | None = None,
    identifiers: Identifiers | None = None,
    min_coverage: float = 0.2,
    key_added: str = "finetune",
    device: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Predict samples by an adapted encoder.

    Parameters
    ----------
    adata
        Samples by genes, with the values that the model reads.
    adapter
        What :func:`bulkformer_tl.train.finetune` returned, or ``bf.tl.fitted_head(adata, "finetune")`` after
        :func:`bulkformer_tl.tl.finetune`; or the folder that it was saved to.
    model
        The pretrained model that was adapted; ``None`` loads it by its name, if it is one of
        :func:`bulkformer_tl.models.available`.
    layer
        Values for the model; ``None`` reads ``X``.
    identifiers
        As of :func:`bulkformer_tl.tl.embed`.
    min_coverage
        As of :func:`bulkformer_tl.tl.embed`.
    key_added
        Name of the result.
    device
        Torch device. ``None`` takes :attr:`bulkformer_tl.settings.device`.
    copy
        Return a modified copy instead of writing to ``adata``.

    Returns
    -------
    ``None``, or an :class:`~anndata.AnnData` if ``copy=True``. Sets the following fields, for each target:

    ``adata.obs[key_added + "_<name>_pred"]`` : :class:`pandas.Series`
        Most probable class, or number.
    ``adata.obsm[key_added + "_<name>_proba"]`` : :class:`numpy.ndarray` (shape ``(n_obs, K)``, dtype ``float64``)
        Calibrated probabilities, in the order of ``adata.uns[key_added]["classes"][name]``.
    ``adata.obs[key_added + "_<name>_risk"]`` : :class:`pandas.Series` (dtype ``float64``)
        Log hazard, 0 at the average training sample.
    ``adata.var[key_added + "_<name>_pred"]``, ``adata.varm[key_added + "_<name>_proba"]``
        Of genes: the mean over these samples; missing for genes that the model does not know.
    ``adata.uns[key_added]["params"]`` : :class:`dict`
        The model, and how it had been adapted.

    Raises
    ------
    ValueError
        If it is another model than was adapted, or has to be passed, the values are not what it reads, or a slot holds
        something else.
    FileNotFoundError
        If the folder holds no adapter.

    Examples
    --------
    >>> import bulkformer_tl as bf
    >>> bf.tl.predict(new, "tissue_adapter", layer="log_tpm")  # doctest: +SKIP
    """
    check_anndata(adata)
    loaded = adapter if isinstance(adapter, Adapter) else Adapter.load(adapter)
    keys, targets = FinetuneKeys(key_added), loaded.facts["targets"]
    slots = [slot for name, entry in targets.items() for slot in keys.slots(name, entry["kind"])]
    check_slots(adata, key_added, slots)
    given = prepare(
        adata,
        model=pretrained(loaded) if model is None else model,
        layer=layer,
        identifiers=identifiers,
        min_coverage=min_coverage,
        device=device,
    )
    loaded.check_model(given.model)
    known = np.flatnonzero(given.match.found)
    external = {name: code[:, None] for name, code in given.external.items()} or None
    found = loaded.predict(given.model, _all_values(given), genes=known, external=external)
    results: dict[str, Any] = {}
    for name, entry in targets.items():
        kind, values, classes = entry["kind"], found[name], entry["classes"]
        if kind == "genes":
            shares = np.full((adata.n_vars, len(classes)), np.nan)
            shares[given.match.columns[known]] = values
            values = shares
        written = [chosen(values, classes), values] if classes else [values]
        results |= dict(zip(keys.slots(name, kind), written, strict=True))
    params = {**given.params, "task": "predict", "method": loaded.config.method}
    extra = {"classes": {name: np.array(entry["classes"]) for name, entry in targets.items() if entry["classes"]}}
    target = copied(adata) if copy else adata
    write_results(target, key_added, results, params, extra)
    return target if copy else None


def pretrained(adapter: Adapter) -> str:
    """Return the name by which the adapted model is loaded.

    Raises
    ------
    ValueError
        If it is none of the registry.
    """
    from bulkformer_tl import registry

    name = str(adapter.facts["model"])
    if name not in registry.available():
        message = (
            f"this adapter was trained on {name}, which is not loaded by its name; pass model= the model that was "
            "adapted, or its folder"
        )
        raise ValueError(message)
    return name
