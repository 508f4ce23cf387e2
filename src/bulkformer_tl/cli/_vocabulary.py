"""``bulkformer vocabulary``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from bulkformer_tl.cli._options import PATH, force_option
from bulkformer_tl.cli._output import Output, to_csv
from bulkformer_tl.cli._session import Answer, session

if TYPE_CHECKING:
    from pathlib import Path


@click.command(short_help="Choose the genes of a model from one cohort or several.")
@click.argument("sources", metavar="IN...", type=PATH, nargs=-1, required=True)
@click.option(
    "-o", "--output", "path", type=PATH, required=True, callback=to_csv, help="File to write: .csv or .csv.gz."
)
@click.option("--layer", help="The layer to read instead of X.")
@click.option("--unit", type=click.Choice(["counts", "log_tpm"]), default="counts", show_default=True,
              help="What the values are.")  # fmt: skip
@click.option(
    "--identifiers", type=click.Choice(["ensembl", "symbol", "entrez"]), help="What human genes are named by."
)
@click.option("--lengths", metavar="FILE|COLUMN",
              help="Gene lengths: a GTF or GFF3 file, or a column of the gene table; Ensembl's otherwise.")  # fmt: skip
@click.option("--min-share", type=float, default=0.4, show_default=True, help="Least share of files that hold a gene.")
@click.option("--min-detected", type=float, default=0.0, show_default=True,
              help="Least share of a file's samples that detect a gene it holds.")  # fmt: skip
@force_option
@session
def vocabulary(*, sources: tuple[Path, ...], path: Path, force: bool, **options: Any) -> Answer:
    """Choose the genes of a model from the cohorts IN, and write what encodings need to know of each.

    The file has a row per gene: identifier, and as far as known symbol, length (bp), mean ln(TPM+1), and the median of
    counts above zero in samples scaled to 10,000, for rank encodings. Any species; values are raw counts unless --unit
    says otherwise.

    \b
    Examples:
      bulkformer vocabulary cohort1.h5ad cohort2.h5ad -o genes.csv
      bulkformer vocabulary yeast.csv --lengths yeast.gtf.gz --min-detected 0.1 -o genes.csv
    """
    from bulkformer_tl import pp
    from bulkformer_tl._read import read

    output = Output(path, force)
    output.check()
    found = pp.build_vocabulary([read(source) for source in sources], name=path.name, **options)
    output.write(found.to_csv)
    return Answer({"output": path, "n_files": len(sources), "n_genes": len(found)})
