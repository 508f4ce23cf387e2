"""Bundles: a model as one folder of plain files, each with its SHA-256."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

import torch
from safetensors.torch import save_file

from bulkformer_tl._unfinished import replacing
from bulkformer_tl._vocabulary import GeneVocabulary
from bulkformer_tl.models._bulkformer import BulkFormer
from bulkformer_tl.models._families import make_config
from bulkformer_tl.models._files import read_json, read_tensors, require_file, sha256, verify_manifest
from bulkformer_tl.models._state import build

if TYPE_CHECKING:
    from torch import Tensor

_FORMAT = "bulkformer_tl bundle 1"
_FILES = {"config.json", "model.safetensors", "genes.csv", "graph.safetensors", "README.md"}
#: What a bundle says of a model beside its network's sizes.
_FACTS = ("name", "family", "denominator", "default_pooling", "pooling_observed_only", "trained_missing")


def convert(
    model: BulkFormer,
    folder: str | Path,
    *,
    dtype: Literal["float32", "float16", "bfloat16"] | None = None,
    card: str | None = None,
) -> Path:
    """Write a model as a bundle that :func:`bulkformer_tl.models.load` reads.

    A bundle holds ``config.json``, ``model.safetensors`` (every tensor once), ``genes.csv``, ``graph.safetensors``,
    ``README.md`` and ``manifest.json`` with the size and SHA-256 of each and where they came from. It is written beside
    its place and moved there when complete.

    Parameters
    ----------
    model
        A loaded model. Its protein table is not part of a bundle.
    folder
        New folder, or an empty one.
    dtype
        Precision in which weights are stored; ``None`` stores them as they are, so that they come back bit for bit.
        They are always read back in the network's own precision.
    card
        Text of ``README.md``; ``None`` writes what the model knows of itself.

    Returns
    -------
    The folder.

    Raises
    ------
    FileExistsError
        If the folder holds something already.
    """
    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        message = f"{target} holds something already and is left as it is; choose a new folder"
        raise FileExistsError(message)
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.parent / f".{target.name}.{uuid4().hex[:8]}"
    try:
        unfinished.mkdir()
        _write(model, unfinished, getattr(torch, dtype) if dtype else None, card)
        # a folder takes the place of an empty one, but not on every system
        if target.exists():
            target.rmdir()
        os.replace(unfinished, target)  # noqa: PTH105  Path.replace says less about what it does
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return target


def _write(model: BulkFormer, folder: Path, dtype: torch.dtype | None, card: str | None) -> None:
    state = {name: _stored(tensor, dtype) for name, tensor in model.network.state_dict().items()}
    with replacing(folder / "model.safetensors") as path:
        save_file(state, path)
    edges, weights = model.graph
    with replacing(folder / "graph.safetensors") as path:
        save_file({"edge_index": _stored(edges), "edge_weight": _stored(weights)}, path)
    model.vocabulary.to_csv(folder / "genes.csv")
    config = {name: getattr(model, name) for name in _FACTS}
    config |= {"input_unit": model.input_unit, "network": asdict(model.config)}
    _write_json(folder / "config.json", config)
    (folder / "README.md").write_text(card or _card(model), encoding="utf-8")
    paths = [folder / name for name in sorted(_FILES)]
    listed = {path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in paths}
    origin = {"checksum": model.checksum, **model.provenance}
    _write_json(
        folder / "manifest.json",
        {"format": _FORMAT, "written_by": f"bulkformer_tl {_version()}", "files": listed, "provenance": origin},
    )


def _stored(tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    plain = tensor.detach().cpu().contiguous().clone()
    return plain.to(dtype) if dtype is not None and plain.is_floating_point() else plain


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _version() -> str:
    return version("bulkformer-tl")


def _card(model: BulkFormer) -> str:
    def bullets(key: str) -> str:
        return "\n".join(f"- {item}" for item in model.provenance.get(key, [])) or "- nothing is recorded"

    denominator = "all measured genes" if model.denominator == "all" else "the genes of its vocabulary"
    observed = " over observed genes" if model.pooling_observed_only else ""
    return (
        f"# {model.name}\n\n"
        f"Family {model.family}, {len(model.vocabulary):,} genes, vectors of width {model.width}. Takes ln(TPM+1) with "
        f"TPM over {denominator}; a sample's vector is `{model.default_pooling}`{observed}.\n\n"
        f"Converted from: {model.provenance.get('source', 'a model in memory')}.\n\n"
        f"Verified:\n\n{bullets('verified')}\n\nCould not be verified:\n\n{bullets('unverified')}\n"
    )


def is_bundle(folder: Path) -> bool:
    """Whether a folder holds a bundle, or parts of one."""
    return (folder / "config.json").exists() or (folder / "model.safetensors").exists()


def load_bundle(folder: Path) -> BulkFormer:
    """Load a bundle; size and SHA-256 of every file are compared before any is opened.

    Raises
    ------
    ValueError
        If a file was changed, or the files do not belong together.
    FileNotFoundError
        If a file is absent.
    """
    manifest = read_json(require_file(folder / "manifest.json", "the manifest of the bundle"))
    if manifest.get("format") != _FORMAT:
        message = f"{folder} is of the format {manifest.get('format')!r}; this version reads {_FORMAT!r}"
        raise ValueError(message)
    verify_manifest(folder, manifest.get("files"), _FILES)
    facts = read_json(folder / "config.json")
    absent = sorted({*_FACTS, "network", "input_unit"} - set(facts))
    if absent or facts["input_unit"] != BulkFormer.input_unit:
        message = f"{folder / 'config.json'} lacks {absent} or is not for {BulkFormer.input_unit!r}"
        raise ValueError(message)
    weights = folder / "model.safetensors"
    state = read_tensors(weights)
    config = make_config(facts["family"], facts["network"])
    graph = read_tensors(folder / "graph.safetensors")
    trained = facts["trained_missing"]
    provenance = manifest.get("provenance", {})
    verified = [*provenance.get("verified", []), "size and SHA-256 of every file of the bundle"]
    return BulkFormer(
        build(facts["family"], config, state, weights),
        GeneVocabulary.from_csv(folder / "genes.csv", name=facts["name"]),
        graph=(graph["edge_index"], graph["edge_weight"]),
        checksum=manifest["files"]["model.safetensors"]["sha256"],
        provenance=provenance | {"verified": list(dict.fromkeys(verified))},
        **{name: facts[name] for name in _FACTS if name != "trained_missing"},
        trained_missing=None if trained is None else (float(trained[0]), float(trained[1])),
    )
