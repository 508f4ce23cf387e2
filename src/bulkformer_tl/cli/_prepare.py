"""From a file to ln(TPM+1) that a model reads; units are taken as told, never guessed."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

    from bulkformer_tl.cli._options import Conversion, Reading, Running

logger = logging.getLogger(__name__)

LOG_TPM = "log_tpm"


def read_input(path: Path, reading: Reading, *, backed: bool = False) -> AnnData:
    """Read what a command was given, ``backed`` where it can be read in pieces."""
    from bulkformer_tl._read import read

    return read(path, **asdict(reading), backed=backed)


def unit_of(conversion: Conversion) -> str | None:
    """Return what the values were said to be, ``None`` for ln(TPM+1) as the model reads it.

    Raises
    ------
    ValueError
        If two options say different things.
    """
    if conversion.counts and conversion.unit not in {None, "counts"}:
        message = f"--counts and --unit {conversion.unit} contradict each other; pass one of them"
        raise ValueError(message)
    return "counts" if conversion.counts else conversion.unit


def to_log_tpm(
    adata: AnnData, conversion: Conversion, *, layer: str | None, denominator: Any, vocabulary: Any
) -> tuple[AnnData, str | None]:
    """Sum duplicated genes and convert the unit, as far as was asked for.

    Parameters
    ----------
    adata
        Samples by genes.
    conversion
        What was asked for.
    layer
        Where the values are; ``None`` means ``X``.
    denominator
        What the model was trained with.
    vocabulary
        Of the model.

    Returns
    -------
    The data, and the layer that holds ln(TPM+1).
    """
    from bulkformer_tl import pp

    unit, identifiers = unit_of(conversion), conversion.identifiers
    if conversion.merge_duplicates:
        adata = pp.merge_duplicates(adata, layer=layer, identifiers=identifiers)
    if unit is None:
        return adata, layer
    if LOG_TPM in adata.layers and LOG_TPM not in adata.uns:
        message = f"the file has a layer {LOG_TPM!r} of another origin; pass --layer {LOG_TPM} without a unit to use it"
        raise ValueError(message)
    common: dict[str, Any] = {
        "layer": layer,
        "lengths": conversion.lengths,
        "default_length": conversion.default_length,
        "denominator": conversion.denominator or denominator,
        "vocabulary": vocabulary,
        "identifiers": identifiers,
        "key_added": LOG_TPM,
    }
    if unit == "counts":
        pp.log_tpm(adata, **common)
    else:
        pp.to_log_tpm(adata, unit=unit, pseudocount=conversion.pseudocount, **common)  # type: ignore[arg-type]
    logger.info("converted %s to ln(TPM+1), denominator=%r", unit, common["denominator"])
    return adata, LOG_TPM


def ready(path: Path, reading: Reading, conversion: Conversion, running: Running) -> tuple[AnnData, Any, str | None]:
    """Load the model, read the file and convert it for the model.

    Returns
    -------
    The data, the model, and the layer that holds what it reads.
    """
    from bulkformer_tl import models, pp

    unit_of(conversion)
    if not path.exists():
        message = f"there is no file or folder {path}"
        raise FileNotFoundError(message)
    # the model first: if it is absent there is no use in reading
    model: Any = models.load(running.model, device=running.device)
    adata = read_input(path, reading)
    if model.input_unit == "counts":
        if unit_of(conversion) not in {"counts", None}:
            message = f"{model.name} reads raw counts; give it a file or --layer with counts, and no other unit"
            raise ValueError(message)
        if conversion.merge_duplicates:
            adata = pp.merge_duplicates(adata, layer=running.layer, identifiers=conversion.identifiers)
        return adata, model, running.layer
    adata, layer = to_log_tpm(
        adata, conversion, layer=running.layer, denominator=model.denominator, vocabulary=model.vocabulary
    )
    return adata, model, layer
