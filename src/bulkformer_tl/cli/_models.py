"""``bulkformer models``: what there is, what is here, whether it is right."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from bulkformer_tl.cli._options import PATH, complete_models
from bulkformer_tl.cli._session import ABSENT, UNVERIFIED, Answer, session

if TYPE_CHECKING:
    from pathlib import Path

    from bulkformer_tl.registry import FileCheck, ModelInfo

_name = click.argument("name", shell_complete=complete_models)


@click.group()
def models() -> None:
    """List, download, verify and convert models."""


@models.command("list")
@session
def list_models() -> Answer:
    """List the published models and which of them are on this machine.

    \b
    Examples:
      bulkformer models list
      bulkformer models list --json | jq -r '.models[] | select(.here) | .name'
    """
    from bulkformer_tl import registry

    entries = [_describe(registry.info(name)) for name in registry.available()]
    header = ("name", "family", "genes", "width", "denominator", "download", "here")
    rows = [header]
    for entry in entries:
        size = f"{entry['bytes'] / 1e6:.0f} MB" if entry["bytes"] else "?" if entry["files"] else "-"
        place = str(entry["folder"]) if entry["here"] else "no"
        rows.append((entry["name"], entry["family"], *(str(entry[k] or "?") for k in ("n_genes", "width")),
                     entry["denominator"], size, place))  # fmt: skip
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return Answer({"models": entries}, "\n".join(lines))


def _describe(known: ModelInfo) -> dict[str, Any]:
    from bulkformer_tl import registry

    folder = registry.place(known.name)
    needed = [file for file in known.files if file["role"] != "protein"]
    complete = all((folder / file["name"]).is_file() for file in needed) if needed else False
    is_bundle = (folder / "config.json").is_file()
    sizes = [file["bytes"] for file in needed]
    total = sum(sizes) if sizes and None not in sizes else None
    return {**asdict(known), "bytes": total, "folder": folder, "here": is_bundle or complete}


@models.command()
@_name
@click.option("--folder", type=PATH, help="Where to put the files; the cache otherwise.")
@click.option("--protein", is_flag=True, help="Also get the table of protein embeddings.")
@session
def get(*, name: str, folder: Path | None, protein: bool) -> Answer:
    """Download the files of model NAME, verify them and keep them.

    A download that broke off goes on where it stopped. Where a drive refuses, the message says how to get the files by
    hand.

    \b
    Examples:
      bulkformer models get bulkformer-latest
      bulkformer models get bulkformer-37M --folder models/37M
    """
    from bulkformer_tl import registry

    place = registry.download(name, folder=folder, protein=protein)
    return _report(name, place, registry.verify(name, folder=place))


@models.command()
@_name
@click.option("--folder", type=PATH, help="Where the files are; the package or the cache otherwise.")
@session
def verify(*, name: str, folder: Path | None) -> Answer:
    """Compare the files of model NAME with what its authors state, or with what was recorded.

    Exits with code 5 if a file is not the published one, with 4 if one is absent.

    \b
    Examples:
      bulkformer models verify bulkformer-latest
      bulkformer models verify bulkformer-latest --folder ~/Downloads/bulkformer-latest
    """
    from bulkformer_tl import registry

    return _report(name, folder or registry.place(name), registry.verify(name, folder=folder))


def _report(name: str, folder: Path, checks: list[FileCheck]) -> Answer:
    bad = [check for check in checks if not check.ok]
    changed = any(check.status == "changed" for check in bad)
    code = UNVERIFIED if changed else ABSENT if bad else 0
    data = {"name": name, "folder": folder, "ok": not bad, "files": [asdict(check) for check in checks]}
    lines = [str(folder), *(f"  {check.status:<12}{check.name}: {check.detail}" for check in checks)]
    return Answer(data, "\n".join(lines), code)


@models.command()
@click.argument("source", shell_complete=complete_models)
@click.argument("folder", type=PATH)
@click.option("--graph", nargs=2, type=PATH, metavar="EDGES WEIGHTS", help="The gene graph, for a checkpoint file.")
@click.option("--genes", type=PATH, help="The genes file (csv), for a checkpoint file.")
@click.option("--dtype", type=click.Choice(["float32", "float16", "bfloat16"]), help="Precision to store.")
@session
def convert(*, source: str, folder: Path, graph: tuple[Path, Path] | None, genes: Path | None, dtype: Any) -> Answer:
    """Write model SOURCE to FOLDER as a bundle of safetensors with checksums.

    SOURCE is a model's name, a folder, or a checkpoint of the authors (.pt), which also needs --graph and --genes.

    \b
    Examples:
      bulkformer models convert bulkformer-latest/ my-bundle
      bulkformer models convert bulkformer_93M.pt my-bundle \\
          --graph G_tcga.pt G_tcga_weight.pt --genes bulkformer_gene_info.csv
    """
    from bulkformer_tl import models as library

    model = library.load(source, graph=graph or None, genes=genes, device="cpu")
    place = library.convert(model, folder, dtype=dtype)
    return Answer({"output": place, "name": model.name, "family": model.family, "checksum": model.checksum})
