"""What the samples of a cohort teach an encoder without their labels, before it is adapted to these."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anndata import AnnData

    from bulkformer_tl._vocabulary import Identifiers
    from bulkformer_tl.models import Encoder
    from bulkformer_tl.train import PretrainConfig


def pretrain_first(
    adata: AnnData,
    model: Encoder,
    config: PretrainConfig,
    *,
    layer: str | None,
    groups: str | None,
    identifiers: Identifiers | None,
    output: str | Path | None,
    device: str | None,
) -> Encoder:
    """Train an encoder further on hidden genes of the cohort, whole groups left out to stop by.

    Returns
    -------
    The encoder, which is kept in the folder beside ``output`` with ``_encoder`` behind its name.

    Raises
    ------
    ValueError
        If there are no groups or there is no place for it, or the configuration is of another family.
    """
    from bulkformer_tl import train

    for name, value in (("groups", groups), ("output", output)):
        if value is None:
            message = (
                f"pretrain= needs {name}=: whole groups are left out to stop by, and the encoder is kept beside the "
                "adapter, which predicts nothing without it"
            )
            raise ValueError(message)
    if config.family != model.family:
        message = (
            f"pretrain= trains the family {config.family!r}, and {model.name} is of {model.family!r}; pass "
            f"bf.train.PretrainConfig(family={model.family!r}), where there is such a one, or another model"
        )
        raise ValueError(message)
    place = Path(output).with_name(f"{Path(output).name}_encoder")  # type: ignore[arg-type]
    source = train.Source(adata, layer=layer, study=groups, identifiers=identifiers)
    return train.pretrain(source, config, start=model, out=place, device=device)
