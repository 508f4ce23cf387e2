"""``bulkformer impute``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from bulkformer_tl.cli._options import PATH, conversion_options, output_options, reading_options, running_options
from bulkformer_tl.cli._output import matrix_table
from bulkformer_tl.cli._prepare import ready
from bulkformer_tl.cli._session import Answer, session
from bulkformer_tl.cli._streaming import Streaming, read_streamed, streaming_options

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

    from bulkformer_tl.cli._options import Conversion, Reading, Running
    from bulkformer_tl.cli._output import Output


@click.command(short_help="Predict missing values from measured ones.")
@click.argument("source", metavar="IN", type=PATH)
@output_options
@streaming_options
@running_options
@click.option("--align", is_flag=True, help="Also predict the model's genes that IN does not have as columns.")
@click.option("--mask", metavar="LAYER", help="Boolean layer of measured entries to hide from the model.")
@click.option("--predicted", is_flag=True, help="Also keep the predictions of measured entries; h5ad and zarr only.")
@click.option(
    "--blend/--no-blend", default=True, show_default=True, help="Blend the model with means and factors of IN."
)
@click.option("--genes-in-rows", is_flag=True, help="Write a table with genes in rows.")
@click.option("--key-added", default="imputed", show_default=True, help="Name of the result, layers['<name>'].")
@conversion_options
@reading_options
@session
def impute(
    *,
    source: Path,
    output: Output,
    streaming: Streaming,
    running: Running,
    align: bool,
    mask: str | None,
    predicted: bool,
    blend: bool,
    genes_in_rows: bool,
    key_added: str,
    conversion: Conversion,
    reading: Reading,
) -> Answer:
    """Predict the missing values of IN from the measured ones, in ln(TPM+1).

    Missing are empty cells, NaN and, with --align, genes that IN lacks. Measured values come back unchanged. h5ad and
    zarr keep all of IN and get layers['imputed'] and its standard deviation layers['imputed_sd']; csv and tsv hold
    ln(TPM+1) with the missing values filled in.

    \b
    Examples:
      bulkformer impute counts.csv --counts --align -o complete.h5ad
      bulkformer impute panel.tsv --unit tpm --align --min-coverage 0.05 -o complete.tsv.gz
      bulkformer impute cohort.h5ad --layer log_tpm -o cohort.h5ad --force
      bulkformer impute big.zarr --layer log_tpm -o complete.zarr --resume
    """
    from bulkformer_tl import pp, tl

    output.check()
    options: dict[str, Any] = {
        "mask": mask,
        "predicted": predicted and not output.is_table,
        "blend": blend,
        "min_coverage": running.min_coverage,
        "key_added": key_added,
        "batch_size": running.batch_size,
        "device": running.device,
    }
    if streaming.wanted:
        if align:
            message = "--align needs all of IN in memory; leave out --stream and --resume, or --align"
            raise ValueError(message)
        adata, model, target = streaming.open(source, output, running, conversion, reading)
        tl.impute(adata, model=model, layer=running.layer, identifiers=conversion.identifiers, output=target, **options)
        return _answer(adata, output, read_streamed(output.path, key_added))
    adata, model, layer = ready(source, reading, conversion, running)
    identifiers = conversion.identifiers
    if align:
        adata = pp.align_genes(
            adata, vocabulary=model.vocabulary, identifiers=identifiers, min_coverage=running.min_coverage
        )
        # aligned genes are named by the vocabulary's Ensembl ids
        identifiers = None
    tl.impute(adata, model=model, layer=layer, identifiers=identifiers, **options)
    if output.is_table:
        output.write_table(matrix_table(adata, key_added, genes_in_rows=genes_in_rows))
    else:
        output.write_adata(adata)
    return _answer(adata, output, dict(adata.uns[key_added]["params"]))


def _answer(adata: AnnData, output: Output, params: dict[str, Any]) -> Answer:
    shape = {"n_samples": adata.n_obs, "n_genes": adata.n_vars, "n_predicted": params["n_predicted"]}
    return Answer({"output": output.path, **shape, "params": params})
