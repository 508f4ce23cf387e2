"""The authors' own files: checkpoints of the first two generations, and the six-file folder of the third."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from bulkformer_tl import registry
from bulkformer_tl._vocabulary import GeneVocabulary
from bulkformer_tl.models._bulkformer import BulkFormer
from bulkformer_tl.models._families import PUBLISHED, make_config
from bulkformer_tl.models._files import read_json, read_tensor, read_tensors, sha256, verify_manifest
from bulkformer_tl.models._layers import MISSING
from bulkformer_tl.models._state import build, clean_state, recognise

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

_ARCHITECTURE = "BulkFormerV1Plus-v1"
_LATEST_FILES = {"model.pt", "model_config.json", "gene_vocab.csv", "edge_index.pt", "edge_weight.pt"}


def load_checkpoint(
    weights: Path,
    *,
    graph: tuple[Path, Path],
    genes: Path,
    name: str,
    expected: registry.ModelInfo | None = None,
) -> BulkFormer:
    """Load a checkpoint of the first or second generation.

    Parameters
    ----------
    weights
        State dict, ``.pt`` or ``.safetensors``.
    graph
        Edges (2, E) and weights (E,).
    genes
        Genes file, one row per gene of the network.
    name
        Name of the model.
    expected
        What the registry knows of it.

    Raises
    ------
    ValueError
        If a file is damaged, or the files do not belong together.
    """
    state = clean_state(read_tensors(weights), weights)
    family, config = recognise(state, weights)
    if expected is not None and (family, config.n_genes, config.dim) != (
        expected.family,
        expected.n_genes,
        expected.width,
    ):
        message = (
            f"{weights} is not {expected.name}: it is of family {family!r} with {config.n_genes:,} genes and width "
            f"{config.dim}, expected {expected.family!r}, {expected.n_genes:,} and {expected.width}"
        )
        raise ValueError(message)
    vocabulary = GeneVocabulary.from_csv(genes)
    network = build(family, config, state, weights)
    files = {"weights": weights, "graph": graph[0], "graph_weight": graph[1], "genes": genes}
    digests = {role: sha256(path) for role, path in files.items()}
    return BulkFormer(
        network,
        vocabulary,
        graph=(read_tensor(graph[0], "the graph's edges"), read_tensor(graph[1], "the graph's weights").float()),
        name=name,
        family=family,
        checksum=digests["weights"],
        provenance=_provenance(files, digests, expected),
        **PUBLISHED[family],
    )


def with_mask_prob(model: BulkFormer, mask_prob: float | None) -> BulkFormer:
    """Let a model of the second generation take its missing share from the caller, as the published code does.

    Raises
    ------
    ValueError
        If the model has no such input, or the share does not lie between 0 and 1.
    """
    if mask_prob is None:
        return model
    if model.family != "g2":
        message = f"{model.name} takes no mask_prob, only the second generation does; leave it out"
        raise ValueError(message)
    if not 0 <= mask_prob <= 1:
        message = f"mask_prob is a share between 0 and 1, found {mask_prob}"
        raise ValueError(message)
    model.network.config = dataclasses.replace(model.config, mask_prob=float(mask_prob))
    return model


def _provenance(files: dict[str, Path], digests: dict[str, str], expected: registry.ModelInfo | None) -> dict[str, Any]:
    known = {file["name"]: file["sha256"] for file in expected.files} if expected else {}
    unverified = [f"SHA-256 of {path.name}: none is published" for path in files.values() if not known.get(path.name)]
    return {
        "source": "files as published by the authors",
        "files": {role: {"name": path.name, "sha256": digests[role]} for role, path in files.items()},
        "verified": [
            "all tensors load strictly and the doubled ones are equal",
            "weights, graph and genes file agree on the number of genes",
            *(f"SHA-256 of {path.name}" for path in files.values() if known.get(path.name)),
        ],
        "unverified": [*unverified, "that graph and genes were published with these weights: only their sizes agree"],
    }


def is_latest_folder(folder: Path) -> bool:
    """Whether a folder holds the third generation's files."""
    return (folder / "model_config.json").exists()


def load_latest_folder(folder: Path, *, name: str) -> BulkFormer:
    """Load the authors' six-file folder of ``bulkformer-latest``.

    Sizes and SHA-256 of the five files that its manifest lists are compared before any is opened.

    Raises
    ------
    ValueError
        If a file differs from the manifest, or configuration, checkpoint and manifest disagree.
    FileNotFoundError
        If a file is absent.
    """
    manifest = read_json(folder / "manifest.json")
    verify_manifest(folder, manifest.get("files"), _LATEST_FILES)
    described = read_json(folder / "model_config.json")
    content = read_tensors(folder / "model.pt")
    _check_latest(folder, manifest, described, content)
    path = folder / "model.pt"
    state = clean_state(content["model"], path)
    config = make_config("g3", _latest_sizes(described["model"], folder))
    network = build("g3", config, state, path)
    n_parameters = sum(parameter.numel() for parameter in network.parameters())
    if n_parameters != manifest["trainable_parameters"]:
        message = f"{path} has {n_parameters:,} parameters, but the manifest says {manifest['trainable_parameters']:,}"
        raise ValueError(message)
    released, note = _is_release(folder)
    return BulkFormer(
        network,
        _latest_vocabulary(folder / "gene_vocab.csv"),
        graph=(
            read_tensor(folder / "edge_index.pt", "the graph's edges"),
            read_tensor(folder / "edge_weight.pt", "the graph's weights").float(),
        ),
        name=name,
        family="g3",
        checksum=manifest["files"]["model.pt"]["sha256"],
        provenance={
            "source": "six-file folder as published by the authors",
            "release": manifest.get("release_name"),
            "checkpoint": manifest["checkpoint_metadata"],
            "files": manifest["files"],
            "verified": [
                "size and SHA-256 of every file against the folder's manifest",
                "architecture, parameter count and checkpoint metadata",
                "all tensors load strictly and the doubled ones are equal",
                *([note] if released else []),
            ],
            "unverified": [] if released else [note],
        },
        **PUBLISHED["g3"],
    )


def _check_latest(folder: Path, manifest: dict[str, Any], described: dict[str, Any], content: Any) -> None:
    parts = {"architecture", "model_config", "checkpoint_metadata", "model"}
    if not isinstance(content, dict) or not parts <= set(content):
        message = f"{folder / 'model.pt'} should hold {sorted(parts)}; it is a checkpoint of another generation"
        raise ValueError(message)
    if not {"architecture", "checkpoint_metadata", "trainable_parameters"} <= set(manifest) or "model" not in described:
        message = f"{folder} is incomplete: manifest.json or model_config.json lacks entries"
        raise ValueError(message)
    architectures = {manifest["architecture"], described.get("architecture"), content["architecture"]}
    if architectures != {_ARCHITECTURE}:
        message = f"{folder} is of the architecture {sorted(map(str, architectures))}; only {_ARCHITECTURE} is known"
        raise ValueError(message)
    if content["checkpoint_metadata"] != manifest["checkpoint_metadata"]:
        message = (
            f"model.pt in {folder} says {content['checkpoint_metadata']}, its manifest "
            f"{manifest['checkpoint_metadata']}; they are of different releases"
        )
        raise ValueError(message)
    if content["model_config"] != described["model"]:
        message = f"model.pt and model_config.json in {folder} describe different networks"
        raise ValueError(message)


def _latest_sizes(described: dict[str, Any], folder: Path) -> dict[str, Any]:
    sizes = dict(described)
    marker, fixed = sizes.pop("mask_value", MISSING), sizes.pop("fix_performer_projection_matrices", True)
    if marker != MISSING or fixed is not True:
        message = (
            f"{folder} asks for mask_value={marker} and fix_performer_projection_matrices={fixed}; known are "
            f"{MISSING} and True"
        )
        raise ValueError(message)
    return {"n_genes" if name == "num_genes" else name: value for name, value in sizes.items()}


def _latest_vocabulary(path: Path) -> GeneVocabulary:
    positions = pd.read_csv(path).get("vocab_index")
    if positions is not None and positions.tolist() != list(range(len(positions))):
        message = f"{path} is not in the network's order: its column vocab_index does not count from 0 upwards"
        raise ValueError(message)
    return GeneVocabulary.from_csv(path)


def _is_release(folder: Path) -> tuple[bool, str]:
    known = {file["name"]: file["sha256"] for file in registry.info("bulkformer-latest").files}
    if sha256(folder / "manifest.json") == known["manifest.json"]:
        return True, "the manifest is that of the public release"
    return False, "the manifest is not that of the public release of bulkformer-latest"


def read_protein(protein: Tensor | Path | None) -> Tensor | None:
    """Read a table of protein embeddings, (G, P), from a tensor or a file."""
    if protein is None or isinstance(protein, torch.Tensor):
        return protein
    return read_tensor(protein, "protein embeddings").float()
