"""``bulkformer embed``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from bulkformer_tl.cli._options import PATH, conversion_options, output_options, reading_options, running_options
from bulkformer_tl.cli._prepare import ready
from bulkformer_tl.cli._session import Answer, session
from bulkformer_tl.cli._streaming import Streaming, read_streamed, streaming_options

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

    from bulkformer_tl.cli._options import Conversion, Reading, Running
    from bulkformer_tl.cli._output import Output


@click.command()
@click.argument("source", metavar="IN", type=PATH)
@output_options
@streaming_options
@running_options
@click.option("--pooling", type=click.Choice(["mean", "max", "median", "all"]),
              help="How gene vectors become one; the model's published rule otherwise.")  # fmt: skip
@click.option("--summary-columns", is_flag=True, help="Append the three summary channels of the second generation.")
@click.option("--key-added", default="bulkformer", show_default=True, help="Name of the result, obsm['X_<name>'].")
@conversion_options
@reading_options
@session
def embed(
    *,
    source: Path,
    output: Output,
    streaming: Streaming,
    running: Running,
    pooling: Any,
    summary_columns: bool,
    key_added: str,
    conversion: Conversion,
    reading: Reading,
) -> Answer:
    """Embed the samples of IN: one vector per sample.

    The model reads ln(TPM+1). Say with --counts or --unit what else IN holds; it is never guessed. h5ad and zarr keep
    all of IN and get the vectors as obsm['X_bulkformer']; csv and tsv hold the vectors, a row per sample.

    \b
    Examples:
      bulkformer embed counts.csv --counts -o cohort.h5ad
      bulkformer embed cohort.h5ad --layer log_tpm -o vectors.csv
      bulkformer embed tpm.tsv.gz --unit tpm --identifiers symbol --model bulkformer-latest --device cuda -o cohort.zarr
      bulkformer embed big.zarr --layer log_tpm -o vectors.zarr --resume
    """
    from bulkformer_tl import tl

    output.check()
    options: dict[str, Any] = {
        "pooling": pooling,
        "summary_columns": summary_columns,
        "identifiers": conversion.identifiers,
        "min_coverage": running.min_coverage,
        "key_added": key_added,
        "batch_size": running.batch_size,
        "device": running.device,
    }
    if streaming.wanted:
        adata, model, target = streaming.open(source, output, running, conversion, reading)
        tl.embed(adata, model=model, layer=running.layer, output=target, **options)
        params = read_streamed(output.path, key_added)
        return Answer({"output": output.path, "n_samples": adata.n_obs, "params": params})
    adata, model, layer = ready(source, reading, conversion, running)
    tl.embed(adata, model=model, layer=layer, **options)
    return _written(adata, output, key_added)


def _written(adata: AnnData, output: Output, key_added: str) -> Answer:
    import pandas as pd

    vectors: Any = adata.obsm[f"X_{key_added}"]
    if output.is_table:
        columns = [f"{key_added}_{i}" for i in range(vectors.shape[1])]
        output.write_table(pd.DataFrame(vectors, index=adata.obs_names, columns=columns).rename_axis("sample"))
    else:
        output.write_adata(adata)
    params = dict(adata.uns[key_added]["params"])
    return Answer({"output": output.path, "n_samples": adata.n_obs, "width": vectors.shape[1], "params": params})
