"""One call for every published model and every file of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bulkformer_tl import registry
from bulkformer_tl.models._authors import (
    is_latest_folder,
    load_checkpoint,
    load_latest_folder,
    read_protein,
    with_mask_prob,
)
from bulkformer_tl.models._bulkformer import BulkFormer
from bulkformer_tl.models._bundle import is_bundle, load_bundle
from bulkformer_tl.models._files import require_file, verify_file
from bulkformer_tl.models._geneformer_files import PREFIX, is_geneformer, load_geneformer

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import Tensor

    from bulkformer_tl.models._bioformer_model import BioFormer
    from bulkformer_tl.models._encoder import Encoder

_ZENODO = "https://doi.org/10.5281/zenodo.15744294 (second generation) or 10.5281/zenodo.15559368 (first)"


def load(
    source: str | Path,
    *,
    graph: tuple[str | Path, str | Path] | None = None,
    genes: str | Path | None = None,
    protein: str | Path | Tensor | None = None,
    mask_prob: float | None = None,
    device: str | torch.device | None = None,
) -> Encoder:
    """Load a pretrained model, after checking that its files are whole and belong together.

    Files are read as plain tensors; code inside a file is never run.

    Parameters
    ----------
    source
        A name from :func:`available` (whose files are in the package or in the cache), a bundle folder, the authors'
        six-file folder of ``bulkformer-latest``, or a checkpoint of theirs (``.pt``, or ``.safetensors``). A folder of
        Geneformer, or ``"geneformer:"`` and what :func:`load_geneformer` takes, gives that model.
    graph
        For a checkpoint: the files of the gene graph's edges and of their weights.
    genes
        For a checkpoint: the genes file, in the network's order.
    protein
        Table of protein embeddings (G, P), or a file with one, that ``encode(protein=True)`` appends to gene vectors.
    mask_prob
        Second generation only: hand this missing share over for all samples, as the published code does (its ``None``
        is 0.0), instead of computing it from each sample.
    device
        Torch device; ``None`` takes :attr:`bulkformer_tl.settings.device`.

    Returns
    -------
    A :class:`BulkFormer`, :class:`Geneformer` or :class:`BioFormer`, by what the source holds;
    ``model.provenance`` says what was verified and what could not be.

    Raises
    ------
    FileNotFoundError
        If a file is absent; the message says which and where to get it.
    ValueError
        If a file is damaged or holds code, if files do not belong together, or if ``source`` is unknown.

    Examples
    --------
    >>> import bulkformer_tl as bf
    >>> model = bf.models.load("bulkformer-mini")
    """
    if str(source).startswith(PREFIX) or is_geneformer(Path(source)):
        if graph or genes or protein is not None or mask_prob is not None:
            message = f"{source} is a Geneformer, which has no graph, genes file, protein table or mask_prob"
            raise ValueError(message)
        return load_geneformer(str(source).removeprefix(PREFIX), device=device)
    table = read_protein(Path(protein) if isinstance(protein, str) else protein)
    files = {"graph": graph[0], "graph_weight": graph[1]} if graph else {}
    files |= {"genes": genes} if genes else {}
    model = _load(source, {role: Path(path) for role, path in files.items()})
    if isinstance(model, BulkFormer):
        if table is not None:
            model.set_protein(table)
        return with_mask_prob(model, mask_prob).to(device)
    if table is not None or mask_prob is not None:
        message = f"{source} is a BioFormer, which has no protein table or mask_prob"
        raise ValueError(message)
    return model.to(device)


def _load(source: str | Path, files: Mapping[str, Path]) -> BulkFormer | BioFormer:
    path = Path(source)
    if path.is_dir():
        return _load_folder(path, files, name=path.resolve().name)
    if path.is_file():
        return _load_checkpoint(path, files, name=path.stem)
    if path.suffix in {".pt", ".safetensors"} or len(path.parts) > 1:
        message = f"there is no file or folder {path}; the models known by name are {registry.available()}"
        raise FileNotFoundError(message)
    known = registry.info(str(source))
    return _load_known(known, registry.locate(known.name), files)


def _load_folder(folder: Path, files: Mapping[str, Path], *, name: str) -> BulkFormer | BioFormer:
    if files:
        message = f"the folder {folder} has its own graph and genes; leave out {sorted(files)}"
        raise ValueError(message)
    if is_latest_folder(folder):
        where = registry.info("bulkformer-latest").source
        require_file(folder / "manifest.json", "the manifest of the six files", where)
        return load_latest_folder(folder, name=name)
    if is_bundle(folder):
        return load_bundle(folder)
    message = (
        f"{folder} is neither a bundle (config.json, model.safetensors) nor the six files of bulkformer-latest "
        f"(model_config.json); it holds {sorted(path.name for path in folder.iterdir())[:6]}"
    )
    raise ValueError(message)


def _load_checkpoint(weights: Path, files: Mapping[str, Path], *, name: str) -> BulkFormer:
    absent = [role for role in ("graph", "genes") if role not in files]
    if absent:
        message = (
            f"{weights} is only a checkpoint; pass also {' and '.join(f'{role}=' for role in absent)}: "
            f"graph=(edges, weights) and genes=csv from {_ZENODO}"
        )
        raise ValueError(message)
    for role, path in files.items():
        require_file(path, f"the {role} file", _ZENODO)
    return load_checkpoint(
        weights,
        graph=(files["graph"], files["graph_weight"]),
        genes=files["genes"],
        name=name,
    )


def _load_known(known: registry.ModelInfo, folder: Path, files: Mapping[str, Path]) -> BulkFormer | BioFormer:
    if is_bundle(folder):
        model = _load_folder(folder, files, name=known.name)
        _check_known(known, model, folder)
        return model
    paths = dict(files)
    for file in known.files:
        path, role = folder / file["name"], file["role"]
        if role not in files and role != "protein":
            where = f"{file['url'] or known.source}, or call bf.models.download({known.name!r})"
            paths[role] = require_file(path, f"the {role} file of {known.name}", where)
            verify_file(path, size=file["bytes"], digest=file["sha256"])
    if is_latest_folder(folder):
        model = _load_folder(folder, files, name=known.name)
        _check_known(known, model, folder)
        return model
    return load_checkpoint(
        paths["weights"],
        graph=(paths["graph"], paths["graph_weight"]),
        genes=paths["genes"],
        name=known.name,
        expected=known,
    )


def _check_known(known: registry.ModelInfo, model: Encoder, folder: Path) -> None:
    found, expected = (model.family, len(model.vocabulary), model.width), (known.family, known.n_genes, known.width)
    # a name whose sizes the registry leaves open is bound by its family alone
    if found[0] != expected[0] or (known.n_genes and found != expected):
        message = f"{folder} is not {known.name}: family, genes and width are {found}, expected {expected}"
        raise ValueError(message)
