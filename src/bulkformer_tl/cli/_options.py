"""Options that several commands have, in groups that travel together."""

from __future__ import annotations

import functools
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from bulkformer_tl.cli._output import Output, to_output

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.shell_completion import CompletionItem

type Command = Callable[..., Any]

PATH = click.Path(path_type=Path)

#: What ``--unit`` takes: counts, and what :func:`bulkformer_tl.pp.to_log_tpm` takes.
UNITS = (
    "counts",
    *(f"{base}{quantity}" for quantity in ("tpm", "fpkm", "cpm") for base in ("", "log_", "log2_", "log10_")),
    "normalized_log1p",
)


@dataclass(frozen=True)
class Reading:
    """Options of :func:`bulkformer_tl.read`."""

    metadata: Path | None = None
    orientation: Literal["genes_by_samples", "samples_by_genes"] | None = None
    strandedness: Literal["unstranded", "forward", "reverse"] = "unstranded"
    tx2gene: Path | None = None
    thousands: str | None = None
    decimal: str = "."
    encoding: str = "utf-8"


@dataclass(frozen=True)
class Conversion:
    """What the values are, and how they become ln(TPM+1)."""

    counts: bool = False
    unit: Any = None
    pseudocount: float = 1.0
    lengths: str | None = None
    default_length: float | None = None
    denominator: Literal["vocabulary", "all"] | None = None
    merge_duplicates: bool = False
    identifiers: Literal["ensembl", "symbol", "entrez"] | None = None


@dataclass(frozen=True)
class Running:
    """Which model, and how it runs."""

    model: str = "bulkformer-mini"
    layer: str | None = None
    min_coverage: float = 0.2
    batch_size: int | None = None
    device: str | None = None


def complete_models(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the registry's names, then files."""
    from click.shell_completion import CompletionItem

    from bulkformer_tl.registry import available

    names = [CompletionItem(name) for name in available() if name.startswith(incomplete)]
    return names or [CompletionItem(incomplete, type="dir")]


def reading_options(command: Command) -> Command:
    """Add what says how to read IN, as ``reading``."""
    return group(
        Reading,
        "reading",
        click.option("--metadata", type=PATH, help="csv or tsv with a row per sample, joined by sample names."),
        click.option("--orientation", type=click.Choice(["genes_by_samples", "samples_by_genes"]),
                     help="Which side of a table holds genes; found out otherwise."),
        click.option("--strandedness", type=click.Choice(["unstranded", "forward", "reverse"]), default="unstranded",
                     show_default=True, help="Which counts of STAR and GDC tables to take."),
        click.option("--tx2gene", type=PATH, help="Gene of each transcript (csv, tsv), for salmon and kallisto."),
        click.option("--thousands", help="What groups digits, such as the comma of 1,234."),
        click.option("--decimal", default=".", show_default=True, help="What separates a fraction."),
        click.option("--encoding", default="utf-8", show_default=True, help="Of text files."),
    )(command)  # fmt: skip


def conversion_options(command: Command) -> Command:
    """Add what says what the values are, as ``conversion``."""
    return group(
        Conversion,
        "conversion",
        click.option("--counts", is_flag=True, help="The values are raw counts: convert them to ln(TPM+1)."),
        click.option("--unit", type=click.Choice(UNITS), metavar="UNIT",
                     help=f"What the values are, to convert them to ln(TPM+1): {', '.join(UNITS)}."),
        click.option("--pseudocount", type=float, default=1.0, show_default=True, help="Added before a logarithm."),
        click.option("--lengths", metavar="FILE|COLUMN",
                     help="Gene lengths: a GTF or GFF3 file, or a column of the gene table; Ensembl's otherwise."),
        click.option("--default-length", type=float, metavar="BP", help="Length of genes that have none."),
        click.option("--denominator", type=click.Choice(["vocabulary", "all"]),
                     help="Whose TPM sum to a million; what the model was trained with otherwise."),
        click.option("--merge-duplicates", is_flag=True, help="Sum several columns of one gene first."),
        click.option("--identifiers", type=click.Choice(["ensembl", "symbol", "entrez"]),
                     help="What genes are named by."),
    )(command)  # fmt: skip


def running_options(command: Command) -> Command:
    """Add what says which model runs where, as ``running``."""
    return group(
        Running,
        "running",
        click.option("--model", default="bulkformer-mini", show_default=True, metavar="NAME|FOLDER",
                     shell_complete=complete_models, help="A name of `bulkformer models list`, or a model's folder."),
        click.option("--layer", help="The layer to read instead of X."),
        click.option("--min-coverage", type=click.FloatRange(0, 1), default=0.2, show_default=True,
                     help="Least share of the model's genes that must be there."),
        click.option("--batch-size", type=click.IntRange(1), help="Samples at once on a GPU."),
        click.option("--device", help="cpu, cuda, ...; the best there is otherwise."),
    )(command)  # fmt: skip


def output_options(command: Command) -> Command:
    """Add ``-o`` and ``--force``, as ``output``."""
    return group(
        Output,
        "output",
        click.option("-o", "--output", "path", type=PATH, required=True, callback=to_output,
                     help="File to write: .h5ad, .zarr, .csv, .tsv, .csv.gz or .tsv.gz."),
        force_option,
    )(command)  # fmt: skip


def force_option(command: Command) -> Command:
    """Add ``--force``."""
    return click.option("--force", is_flag=True, help="Replace an output that exists.")(command)


def group(kind: type[Any], name: str, *options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Return a decorator that adds options and hands them over as one object of a kind, under a name."""
    names = [field.name for field in fields(kind)]

    def add(command: Command) -> Command:
        @functools.wraps(command)
        def run(**given: Any) -> Any:
            bundled = kind(**{key: given.pop(key) for key in names})
            return command(**given, **{name: bundled})

        decorated: Command = run
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return add
