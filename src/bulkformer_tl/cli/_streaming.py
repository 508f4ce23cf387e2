"""Commands that read IN and write OUT in pieces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from bulkformer_tl.cli._options import Conversion, Reading, group
from bulkformer_tl.cli._prepare import unit_of

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

    from bulkformer_tl.cli._options import Command, Running
    from bulkformer_tl.cli._output import Output
    from bulkformer_tl.models import Encoder
    from bulkformer_tl.tl import ZarrOutput


@dataclass(frozen=True)
class Streaming:
    """Whether to work in pieces, and to go on where an earlier run stopped."""

    stream: bool = False
    resume: bool = False

    @property
    def wanted(self) -> bool:
        """Whether either was asked for."""
        return self.stream or self.resume

    def open(
        self, source: Path, output: Output, running: Running, conversion: Conversion, reading: Reading
    ) -> tuple[AnnData, Encoder, ZarrOutput]:
        """Load the model and open the samples; nothing of their values is read.

        Returns
        -------
        The samples, the model, and where results go.

        Raises
        ------
        ValueError
            If the output is no zarr store or that which is read, or something was asked for that needs all samples in
            memory.
        """
        from bulkformer_tl import models, tl
        from bulkformer_tl._read._stored import open_stored

        if output.suffix != ".zarr":
            message = f"--stream writes .zarr, and {output.path} is not one"
            raise ValueError(message)
        if unit_of(conversion) is not None or conversion.merge_duplicates or reading != Reading():
            message = (
                "--stream reads h5ad and zarr of ln(TPM+1) as they are; convert first: bulkformer convert IN "
                "--to-log-tpm -o OUT.zarr"
            )
            raise ValueError(message)
        if source.exists() and source.resolve() == output.path.resolve():
            message = f"{source} cannot be replaced while it is read; write to another store"
            raise ValueError(message)
        # the model first: if it is absent there is no use in reading
        model = models.load(running.model, device=running.device)
        return (
            open_stored(source),
            model,
            tl.ZarrOutput(output.path, resume=self.resume, overwrite=output.force),
        )


def streaming_options(command: Command) -> Command:
    """Add ``--stream`` and ``--resume``, as ``streaming``."""
    return group(
        Streaming,
        "streaming",
        click.option("--stream", is_flag=True,
                     help="Read IN (h5ad, zarr) and write OUT (.zarr) in pieces, in little memory. OUT holds the "
                     "annotations of IN and the results, not its expression."),
        click.option("--resume", is_flag=True,
                     help="The same, going on where a run of the same command stopped."),
    )(command)  # fmt: skip


def read_streamed(path: Path, key: str) -> dict[str, Any]:
    """Return the parameters that a store keeps with a result."""
    import zarr
    from anndata.io import read_elem

    stored: Any = zarr.open_group(path, mode="r")
    params: Any = read_elem(stored[f"uns/{key}/params"])
    return dict(params)
