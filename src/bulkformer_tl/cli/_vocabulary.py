"""``bulkformer vocabulary``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from bulkformer_tl.cli._options import PATH, conversion_options, force_option, reading_options
from bulkformer_tl.cli._output import Output, to_csv
from bulkformer_tl.cli._prepare import read_input, to_log_tpm, unit_of
from bulkformer_tl.cli._session import Answer, session

if TYPE_CHECKING:
    from pathlib import Path

    from bulkformer_tl.cli._options import Conversion, Reading


@click.command(short_help="Choose the genes of a model from one cohort or several.")
@click.argument("sources", metavar="IN...", type=PATH, nargs=-1, required=True)
@click.option("-o", "--output", "path", type=PATH, required=True, callback=to_csv,
              help="File to write: .csv or .csv.gz.")  # fmt: skip
@click.option("--layer", help="The layer to read instead of X.")
@click.option("--min-share", type=click.FloatRange(0, 1), default=0.4, show_default=True,
              help="Least share of the files that hold a gene.")  # fmt: skip
@click.option("--min-detected", type=click.FloatRange(0, 1), default=0.0, show_default=True,
              help="Least share of a file's samples that detect a gene it holds.")  # fmt: skip
@conversion_options
@reading_options
@force_option
@session
def vocabulary(
    *,
    sources: tuple[Path, ...],
    path: Path,
    layer: str | None,
    min_share: float,
    min_detected: float,
    conversion: Conversion,
    reading: Reading,
    force: bool,
) -> Answer:
    """Choose the genes of a model from the cohorts IN, and write what encodings need to know of each.

    The file has a row per gene: identifier, and as far as known symbol, length (bp), mean ln(TPM+1), and with --counts
    the median of counts above zero in samples scaled to 10,000, for rank encodings. Any species. Say with --counts or
    --unit what IN hold if it is not ln(TPM+1). X of h5ad files is read in pieces.

    \b
    Examples:
      bulkformer vocabulary cohort1.h5ad cohort2.h5ad --counts -o genes.csv
      bulkformer vocabulary yeast.csv --counts --lengths yeast.gtf.gz --min-detected 0.1 -o genes.csv
    """
    from bulkformer_tl import pp

    output = Output(path, force)
    output.check()
    counts = unit_of(conversion) == "counts"
    if counts and (conversion.default_length, conversion.denominator) != (None, None):
        message = "--default-length and --denominator say how other units become ln(TPM+1); leave them out with counts"
        raise ValueError(message)
    # medians are those of counts, which stay what they are
    asked = replace(conversion, counts=False, unit=None) if counts else conversion
    prepared = [
        to_log_tpm(read_input(source, reading, backed=True), asked, layer=layer, denominator="all", vocabulary=None)
        for source in sources
    ]
    options: dict[str, Any] = {"identifiers": conversion.identifiers, "lengths": conversion.lengths}
    found = pp.build_vocabulary(
        [adata for adata, _ in prepared],
        layer=prepared[0][1],
        unit="counts" if counts else "log_tpm",
        min_share=min_share,
        min_detected=min_detected,
        name=path.name,
        **options,
    )
    output.write(found.to_csv)
    return Answer({"output": path, "n_files": len(sources), "n_genes": len(found)})
