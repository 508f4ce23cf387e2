"""``bulkformer convert``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from bulkformer_tl.cli._options import (
    PATH,
    complete_models,
    conversion_options,
    force_option,
    reading_options,
)
from bulkformer_tl.cli._output import Output, matrix_table, to_output
from bulkformer_tl.cli._prepare import read_input, to_log_tpm, unit_of
from bulkformer_tl.cli._session import Answer, session

if TYPE_CHECKING:
    from pathlib import Path

    from bulkformer_tl.cli._options import Conversion, Reading


@click.command(short_help="Read any layout, write h5ad, zarr, csv or tsv.")
@click.argument("source", metavar="IN", type=PATH)
@click.argument("target", metavar="OUT", type=PATH, callback=to_output)
@click.option("--to-log-tpm", "wanted", is_flag=True, help="Convert to ln(TPM+1); say from what by --counts or --unit.")
@click.option("--model", default="bulkformer-mini", show_default=True, metavar="NAME|FOLDER",
              shell_complete=complete_models, help="Whose genes decide TPM and --align.")  # fmt: skip
@click.option("--align", is_flag=True, help="Put the genes into the model's order, absent ones as missing.")
@click.option("--layer", help="The layer to convert instead of X, and to write into a table.")
@click.option("--genes-in-rows", is_flag=True, help="Write a table with genes in rows.")
@conversion_options
@reading_options
@force_option
@session
def convert(
    *,
    source: Path,
    target: Path,
    wanted: bool,
    model: str,
    align: bool,
    layer: str | None,
    genes_in_rows: bool,
    conversion: Conversion,
    reading: Reading,
    force: bool,
) -> Answer:
    """Read IN in any layout and write OUT as .h5ad, .zarr, .csv or .tsv (.gz).

    IN is a table, a folder with a file per sample, h5ad or zarr. A table holds X, or with --to-log-tpm ln(TPM+1); h5ad
    and zarr keep X and get ln(TPM+1) as the layer log_tpm.

    \b
    Examples:
      bulkformer convert star_output/ cohort.h5ad --strandedness reverse --metadata samples.csv
      bulkformer convert counts.csv log_tpm.csv.gz --to-log-tpm --counts
      bulkformer convert matrix.gct aligned.zarr --to-log-tpm --unit log2_tpm --identifiers symbol --align
    """
    from bulkformer_tl import pp, registry

    output = Output(target, force)
    output.check()
    if wanted != (unit_of(conversion) is not None):
        message = (
            "--to-log-tpm needs to know what the values are: pass --counts or --unit UNIT; "
            "`bulkformer diagnose FILE` tells"
            if wanted
            else "--counts and --unit say what to convert from; pass --to-log-tpm too"
        )
        raise click.UsageError(message)
    adata = read_input(source, reading)
    known = model in registry.available()
    adata, layer = to_log_tpm(
        adata,
        conversion,
        layer=layer,
        denominator=registry.info(model).denominator if known else "vocabulary",
        vocabulary=model,
    )
    if align:
        adata = pp.align_genes(adata, vocabulary=model, identifiers=conversion.identifiers)
    if output.is_table:
        output.write_table(matrix_table(adata, layer, genes_in_rows=genes_in_rows))
    else:
        output.write_adata(adata)
    return Answer(
        {
            "output": target,
            "n_samples": adata.n_obs,
            "n_genes": adata.n_vars,
            "layer": layer,
            "read": adata.uns.get("read", {}),
            "log_tpm": dict(adata.uns["log_tpm"]["params"]) if wanted else None,
        }
    )
