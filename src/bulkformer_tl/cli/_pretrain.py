"""``bulkformer pretrain``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from bulkformer_tl.cli._options import PATH, complete_models
from bulkformer_tl.cli._session import Answer, session

if TYPE_CHECKING:
    from pathlib import Path


@click.command(short_help="Train a model on studies of your own.")
@click.argument("sources", metavar="IN...", type=PATH, nargs=-1, required=True)
@click.option("-o", "--output", "out", type=PATH, required=True, help="Folder of the model, and of what leads to it.")
@click.option("--config", "config_file", type=PATH, help="YAML or JSON: what to train and how; defaults otherwise.")
@click.option("--vocabulary", metavar="NAME|FILE", shell_complete=complete_models,
              help="Genes of the model: a genes file (csv), or a model that has them; of ranks also a dictionary "
              "of medians (json, pkl).")  # fmt: skip
@click.option("--graph", type=PATH, help="Gene graph on them, as `bulkformer graph` writes it (.safetensors).")
@click.option("--start", metavar="NAME|FOLDER", shell_complete=complete_models,
              help="A model to go on from, with its genes and its graph.")  # fmt: skip
@click.option("--layer", help="The layer of all IN to read instead of X.")
@click.option("--study", metavar="COLUMN", help="Column of obs that tells studies apart; otherwise each IN is one.")
@click.option("--annotation", metavar="NAME|FILE",
              help="Genes that were quantified in all IN: those that one lacks are zeros, not missing.")  # fmt: skip
@click.option("--identifiers", type=click.Choice(["ensembl", "symbol", "entrez"]), help="What genes are named by.")
@click.option("--validation", multiple=True, metavar="STUDY", help="A study to leave out; can be given several times.")
@click.option("--epochs", type=click.FloatRange(0, min_open=True), help="Passes over the training samples.")
@click.option("--seed", type=int, help="Of everything random.")
@click.option("--devices", type=click.IntRange(1), default=1, show_default=True, help="GPUs, or processes on the CPU.")
@click.option("--nodes", type=click.IntRange(1), default=1, show_default=True, help="Machines.")
@click.option("--strategy", type=click.Choice(["auto", "ddp", "fsdp"]), default="auto", show_default=True,
              help="How processes share the work; fsdp is not tested.")  # fmt: skip
@click.option("--workers", type=click.IntRange(0), default=0, show_default=True, help="Processes that read ahead.")
@click.option("--device", help="cpu, cuda, ...; the best there is otherwise.")
@session
def pretrain(
    *,
    sources: tuple[Path, ...],
    out: Path,
    config_file: Path | None,
    layer: str | None,
    study: str | None,
    annotation: str | None,
    identifiers: Any,
    validation: tuple[str, ...],
    epochs: float | None,
    seed: int | None,
    **arguments: Any,
) -> Answer:
    """Train a model on the studies IN, h5ad or zarr with what its family reads.

    That is ln(TPM+1), or raw counts for families of bins and ranks ("family: bioformer" or "geneformer" in the
    configuration), which have no graph.

    IN may be larger than memory and may measure different genes. Whole studies are left out and scored; the weights
    that predict them best are written to OUT as a model that --model of other commands takes. The same command goes on
    where a run was interrupted, and ends with the same numbers. Options go before what the configuration says.

    \b
    Examples:
      bulkformer pretrain a.h5ad b.h5ad c.zarr -o mine --vocabulary genes.csv --graph graph.safetensors
      bulkformer pretrain corpus.h5ad --study study -o mine --config config.yaml --vocabulary bulkformer-mini \\
          --graph graph.safetensors --validation GSE91061
      bulkformer pretrain cohorts/*.h5ad -o adapted --start bulkformer-latest --epochs 2 --device cuda
    """
    from bulkformer_tl import train

    given: dict[str, Any] = {"validation": validation or None, "epochs": epochs, "seed": seed}
    config = train.PretrainConfig() if config_file is None else train.PretrainConfig.read(config_file)
    config = replace(config, **{name: value for name, value in given.items() if value is not None})
    listed = [
        train.Source(path, layer=layer, study=study, annotation=annotation, identifiers=identifiers) for path in sources
    ]
    model = train.pretrain(listed, config, out=out, **arguments)
    facts = {name: model.provenance["training"][name] for name in ("steps", "validation_loss", "baseline_loss")}
    return Answer({"output": out, "name": model.name, "family": model.family, "checksum": model.checksum, **facts})
