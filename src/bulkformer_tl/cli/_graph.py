"""``bulkformer graph``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from bulkformer_tl._unfinished import replacing
from bulkformer_tl.cli._options import PATH, conversion_options, force_option, reading_options
from bulkformer_tl.cli._output import TENSORS, Output, to_graph
from bulkformer_tl.cli._prepare import read_input, to_log_tpm, unit_of
from bulkformer_tl.cli._session import Answer, session

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

    from bulkformer_tl.cli._options import Conversion, Reading


@click.command(short_help="Connect each gene to those it is correlated with.")
@click.argument("source", metavar="IN", type=PATH)
@click.option("-o", "--output", "path", type=PATH, required=True, callback=to_graph,
              help="File to write: .safetensors, .h5ad, .zarr, .csv, .tsv, .csv.gz or .tsv.gz.")  # fmt: skip
@click.option("--layer", help="The layer to read instead of X.")
@click.option("--method", type=click.Choice(["pearson", "spearman"]), default="pearson", show_default=True,
              help="Which correlation.")  # fmt: skip
@click.option("--n-neighbors", type=int, default=20, show_default=True, help="Most neighbours of a gene.")
@click.option("--threshold", type=float, default=0.4, show_default=True, help="Least absolute correlation.")
@click.option("--groups", metavar="COLUMN", help="Samples' study: average the correlations within studies.")
@click.option("--min-samples", type=int, default=3, show_default=True, help="Least samples that measured both genes.")
@click.option("--edges", type=PATH, help="Your own pairs of genes instead (csv, tsv), optionally with weights.")
@click.option("--key-added", default="coexpression", show_default=True, help="Name of the result, varp['<name>'].")
@conversion_options
@reading_options
@force_option
@session
def graph(
    *,
    source: Path,
    path: Path,
    layer: str | None,
    key_added: str,
    edges: Path | None,
    conversion: Conversion,
    reading: Reading,
    force: bool,
    **options: Any,
) -> Answer:
    """Connect each gene of IN to the others that it is most correlated with over the samples.

    Correlate ln(TPM+1): say with --counts or --unit what else IN holds; TPM then run over all genes of IN. A
    .safetensors file holds edge_index (2, E; receiver first) and edge_weight, as a bundle's graph; h5ad and zarr keep
    all of IN and get varp['coexpression']; csv and tsv list the edges.

    \b
    Examples:
      bulkformer graph cohort.h5ad --layer log_tpm -o graph.safetensors
      bulkformer graph counts.csv --counts --metadata samples.csv --groups study -o graph.h5ad
      bulkformer graph cohort.h5ad --edges string_links.tsv.gz -o graph.safetensors
    """
    from bulkformer_tl import pp

    output = Output(path, force)
    output.check()
    unit_of(conversion)
    adata = read_input(source, reading)
    adata, converted = to_log_tpm(adata, conversion, layer=layer, denominator="all", vocabulary=None)
    layer = None if edges is not None and layer is None else converted
    pp.coexpression_graph(adata, layer=layer, edges=edges, key_added=key_added, **options)
    _write(adata, key_added, output)
    params: dict[str, Any] = dict(adata.uns[key_added]["params"])
    return Answer({"output": path, "n_samples": adata.n_obs, "n_genes": adata.n_vars, "params": params})


def _write(adata: AnnData, key: str, output: Output) -> None:
    import pandas as pd

    from bulkformer_tl import pp

    if not output.is_table and output.suffix != TENSORS:
        output.write_adata(adata)
        return
    edges, weights = pp.graph_edges(adata, key=key)
    if output.is_table:
        names = adata.var_names.to_numpy()
        table = pd.DataFrame({"sender": names[edges[1]], "weight": weights}, index=pd.Index(names[edges[0]]))
        output.write_table(table.rename_axis("receiver"))
    else:
        from safetensors.numpy import save_file

        def save(path: Path) -> None:
            with replacing(path) as unfinished:
                save_file({"edge_index": edges, "edge_weight": weights}, unfinished)

        output.write(save)
