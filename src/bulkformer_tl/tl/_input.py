"""What every tool does first: find the model, its genes and the values, and refuse before any work."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from bulkformer_tl._anndata import get_matrix, get_params
from bulkformer_tl._progress import Progress
from bulkformer_tl._settings import settings
from bulkformer_tl._vocabulary import GeneMatch, Identifiers, match_genes
from bulkformer_tl.pp._identifiers import resolve_identifiers
from bulkformer_tl.tl._bins import check_readable, external_codes
from bulkformer_tl.tl._blocks import visible_blocks
from bulkformer_tl.tl._counts import check_counts
from bulkformer_tl.tl._values import check_values

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from anndata import AnnData
    from numpy.typing import NDArray

    from bulkformer_tl.models import Encoder
    from bulkformer_tl.tl._looks import Seen

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelInput:
    """A cohort as a model sees it.

    Parameters
    ----------
    model
        The loaded model.
    matrix
        Expression, in the model's unit, as it is stored; shape (N, n_vars).
    match
        Where the model's genes stand among the columns.
    hidden
        Boolean matrix of entries to treat as missing, or ``None``; shape (N, n_vars).
    seen
        What a look at all values told.
    params
        What to store about it.
    reader
        Turns rows as they are stored into what the model reads; ``None`` brings them into its order.
    external
        Codes of external tokens of each sample, (N,), of models that have such tokens.
    """

    model: Encoder
    matrix: Any
    match: GeneMatch
    hidden: Any
    seen: Seen
    params: dict[str, Any]
    reader: Any = None
    external: dict[str, NDArray[np.int64]] = field(default_factory=dict)

    def align(self, values: NDArray[np.floating]) -> NDArray[np.float32]:
        """Turn rows as they are stored, (n, n_vars), into what the model reads, (n, G), float32."""
        block = values.astype(np.float32, copy=False)
        aligned: NDArray[np.float32] = (self.match.align if self.reader is None else self.reader)(block)
        return aligned

    def encode(
        self, values: NDArray[np.float32], *outputs: str, rows: slice | None = None, **options: Any
    ) -> list[NDArray[np.float32]]:
        """Run the model and return the outputs as arrays, in the order asked for.

        ``rows`` says which samples they are, for models that read more of a sample than its values.
        """
        if self.external and rows is not None:
            options["external"] = {name: codes[rows, None] for name, codes in self.external.items()}
        encoded: Any = self.model.encode(values, outputs=outputs, **options)
        return [getattr(encoded, name).numpy() for name in outputs]

    def without_values(self) -> ModelInput:
        """Return the same without the cohort, small enough to be sent."""
        return replace(self, matrix=None, hidden=None)

    def batches(self, description: str, batch_size: int | None) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Yield the samples in vocabulary order, float32, ``NaN`` where missing, with a progress bar.

        On the CPU one sample at a time, so that results do not depend on the batch size.
        """
        step = 1 if self.model.device.type == "cpu" else batch_size or settings.batch_size
        with Progress(self.matrix.shape[0], description) as progress:
            for rows, block in visible_blocks(self.matrix, self.hidden):
                aligned = self.align(block)
                for start in range(0, len(aligned), step):
                    part = aligned[start : start + step]
                    yield slice(rows.start + start, rows.start + start + len(part)), part
                    progress.update(len(part))


def prepare(
    adata: AnnData,
    *,
    model: Encoder | str | Path,
    layer: str | None,
    identifiers: Identifiers | None,
    min_coverage: float,
    device: str | None,
    mask: str | None = None,
    digest: bool = False,
) -> ModelInput:
    """Load the model, match the genes and check every value.

    Parameters
    ----------
    adata
        Samples by genes.
    model
        A loaded model, or what names one.
    layer
        Where the values are, in the unit that the model reads; ``None`` reads ``X``.
    identifiers
        What ``var_names`` are; ``None`` takes what :func:`bulkformer_tl.pp.log_tpm` was told for this layer.
    min_coverage
        Least share of the vocabulary that has to be among the columns.
    device
        Torch device; ``None`` takes :attr:`bulkformer_tl.settings.device`.
    mask
        Boolean layer of entries to hide from the model.
    digest
        Hash the values.

    Raises
    ------
    KeyError
        If a layer is not there.
    ValueError
        If the genes do not match or the values cannot be what the model reads; the message names the call that mends
        it.
    """
    matrix = get_matrix(adata, layer)
    hidden = None if mask is None else _boolean_layer(adata, mask)
    loaded = load_model(model).to(device or settings.device)
    made = get_params(adata, layer or "")
    names = resolve_identifiers(adata, identifiers, layer)
    match = match_genes(adata.var_names, loaded.vocabulary, identifiers=names, min_share=min_coverage)
    reader, external = None, {}
    if hasattr(loaded, "reader"):
        reader, external = loaded.reader(adata.var_names, match), external_codes(adata, loaded)
        seen = check_readable(adata, matrix, hidden, reader, layer=layer, name=loaded.name, digest=digest)
    elif loaded.input_unit == "counts":
        seen = check_counts(adata, matrix, hidden, match, name=loaded.name, digest=digest)
    else:
        seen = check_values(adata, matrix, hidden, match, layer, digest=digest)
    _warn_denominator(loaded, made)
    logger.info(
        "%s (%s): %d of %d genes found (%.1f%%), %d samples",
        loaded.name,
        loaded.family,
        match.n_found,
        len(match.columns),
        100 * match.coverage,
        adata.n_obs,
    )
    params = {
        "model": loaded.name,
        "checksum": loaded.checksum,
        "layer": layer or "X",
        "identifiers": names,
        "n_vocabulary": len(match.columns),
        "n_found": match.n_found,
        "coverage": match.coverage,
        "device": str(loaded.device),
        "precision": loaded.precision,
    }
    return ModelInput(loaded, matrix, match, hidden, seen, params, reader, external)


def check_predicts(model: Encoder) -> None:
    """Refuse a model that cannot predict expression.

    Raises
    ------
    ValueError
        If it only reads counts.
    """
    if model.input_unit == "counts":
        message = (
            f"{model.name} reads counts and predicts no ln(TPM+1); pass a model of BulkFormer, bf.models.available() "
            "lists them"
        )
        raise ValueError(message)


def load_model(model: Encoder | str | Path) -> Encoder:
    """Return a loaded model as it is, or load one by name or folder; models of the registry are kept.

    Parameters
    ----------
    model
        A loaded model, or what names one.
    """
    from bulkformer_tl import models, registry

    if isinstance(model, models.Encoder):
        return model
    return _load_known(str(model)) if str(model) in registry.available() else models.load(model)


@lru_cache(maxsize=2)
def _load_known(name: str) -> Encoder:
    from bulkformer_tl import models

    return models.load(name)


def _boolean_layer(adata: AnnData, mask: str) -> Any:
    hidden = get_matrix(adata, mask)
    if np.dtype(hidden.dtype) != np.dtype(bool):
        message = f"adata.layers[{mask!r}] holds {hidden.dtype}; a mask is boolean, see bf.pp.hide"
        raise ValueError(message)
    return hidden


def _warn_denominator(model: Encoder, made: dict[str, Any]) -> None:
    used = made.get("denominator")
    if None not in (used, model.denominator) and used != model.denominator:
        message = (
            f"{model.name} was trained on TPM over {model.denominator!r} genes, this layer was made with "
            f"denominator={used!r}; call bf.pp.log_tpm(adata, denominator={model.denominator!r}) for its own unit"
        )
        warnings.warn(message, UserWarning, stacklevel=4)
