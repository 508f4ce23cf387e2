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
from bulkformer_tl.models._bioformer_model import BioFormer, binnings_as_plain
from bulkformer_tl.models._bulkformer import BulkFormer
from bulkformer_tl.models._families import BINNED, make_config
from bulkformer_tl.models._files import read_json, read_tensors, require_file, sha256, verify_manifest
from bulkformer_tl.models._geneformer import Geneformer
from bulkformer_tl.models._geneformer_files import write_geneformer
from bulkformer_tl.models._state import ALIGNED, build

if TYPE_CHECKING:
    from torch import Tensor

    from bulkformer_tl.models._encoder import Encoder

_FORMAT = "bulkformer_tl bundle 1"
_FILES = {"config.json", "model.safetensors", "genes.csv", "README.md"}
_GRAPH = "graph.safetensors"
#: What a bundle says of a model beside its network's sizes.
_FACTS = ("name", "family", "denominator", "default_pooling", "pooling_observed_only", "trained_missing")
#: The same of models that read bins.
_BINNED_FACTS = ("name", "family", "trained_missing")


def convert(
    model: Encoder,
    folder: str | Path,
    *,
    dtype: Literal["float32", "float16", "bfloat16"] | None = None,
    card: str | None = None,
) -> Path:
    """Write a model as a bundle that :func:`bulkformer_tl.models.load` reads.

    A bundle holds ``config.json``, ``model.safetensors`` (every tensor once), ``genes.csv``, ``graph.safetensors``
    (where the model has a graph), ``README.md`` and ``manifest.json`` with the size and SHA-256 of each and where they
    came from. It is written beside its place and moved there when complete. A Geneformer becomes a folder as published,
    its dictionaries as JSON.

    Parameters
    ----------
    model
        A loaded model. Its protein table is not part of a bundle.
    folder
        New folder, or an empty one.
    dtype
        Precision in which weights are stored; ``None`` stores them as they are, so that they come back bit for bit.
        They are always read back in the network's own precision. Of a BulkFormer only.
    card
        Text of ``README.md``; ``None`` writes what the model knows of itself. Of a BulkFormer only.

    Returns
    -------
    The folder.

    Raises
    ------
    ValueError
        If a Geneformer was loaded in 8 or 4 bits, or is given a ``dtype`` or ``card``.
    FileExistsError
        If the folder holds something already.
    """
    if isinstance(model, Geneformer) and (dtype or card):
        message = f"{model.name} is written as it is published; leave out dtype and card"
        raise ValueError(message)
    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        message = f"{target} holds something already and is left as it is; choose a new folder"
        raise FileExistsError(message)
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.parent / f".{target.name}.{uuid4().hex[:8]}"
    try:
        unfinished.mkdir()
        if isinstance(model, Geneformer):
            write_geneformer(model, unfinished)
        else:
            _write(model, unfinished, getattr(torch, dtype) if dtype else None, card)
        # a folder takes the place of an empty one, but not on every system
        if target.exists():
            target.rmdir()
        os.replace(unfinished, target)  # noqa: PTH105  Path.replace says less about what it does
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return target


def _write(model: Any, folder: Path, dtype: torch.dtype | None, card: str | None) -> None:
    state = {name: _stored(tensor, dtype) for name, tensor in model.network.state_dict().items()}
    with replacing(folder / "model.safetensors") as path:
        _save_aligned(state, path)
    if isinstance(model, BulkFormer):
        edges, weights = model.graph
        with replacing(folder / _GRAPH) as path:
            save_file({"edge_index": _stored(edges), "edge_weight": _stored(weights)}, path)
        config = {name: getattr(model, name) for name in _FACTS}
    else:
        config = {name: getattr(model, name) for name in _BINNED_FACTS}
        config |= {"binnings": binnings_as_plain(model.binnings), "external": model.external}
    model.vocabulary.to_csv(folder / "genes.csv")
    config |= {"input_unit": model.input_unit, "network": asdict(model.config)}
    _write_json(folder / "config.json", config)
    (folder / "README.md").write_text(card or _card(model), encoding="utf-8")
    paths = [folder / name for name in sorted(_files_of(model.family))]
    listed = {path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in paths}
    origin = {"checksum": model.checksum, **model.provenance}
    _write_json(
        folder / "manifest.json",
        {"format": _FORMAT, "written_by": f"bulkformer_tl {_version()}", "files": listed, "provenance": origin},
    )


def _files_of(family: str) -> set[str]:
    return _FILES if family in BINNED else _FILES | {_GRAPH}


def _save_aligned(state: dict[str, Tensor], path: Path) -> None:
    """Write tensors so that the largest, and mostly its neighbours, can be used where they lie in the mapped file."""
    save_file(state, path, metadata={"fill": ""})
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        entries = {name: entry for name, entry in json.loads(file.read(length)).items() if name in state}
    first, _ = max((entry["data_offsets"] for entry in entries.values()), key=lambda ends: ends[1] - ends[0])
    fill = -(8 + length + first) % ALIGNED
    # headers are multiples of 8 bytes, so that such a filling makes them longer by just as much
    if fill and fill % 8 == 0:
        save_file(state, path, metadata={"fill": " " * fill})


def _stored(tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    plain = tensor.detach().cpu().contiguous().clone()
    return plain.to(dtype) if dtype is not None and plain.is_floating_point() else plain


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _version() -> str:
    return version("bulkformer-tl")


def _card(model: Any) -> str:
    def bullets(key: str) -> str:
        return "\n".join(f"- {item}" for item in model.provenance.get(key, [])) or "- nothing is recorded"

    if isinstance(model, BulkFormer):
        over = "all measured genes" if model.denominator == "all" else "the genes of its vocabulary"
        what, reads = "genes", f"ln(TPM+1) with TPM over {over}"
        observed = " over observed genes" if model.pooling_observed_only else ""
    else:
        what, reads, observed = "features", f"counts of {model.modalities}, which it bins", ""
    return (
        f"# {model.name}\n\n"
        f"Family {model.family}, {len(model.vocabulary):,} {what}, vectors of width {model.width}. Takes {reads}; a "
        f"sample's vector is `{model.default_pooling}`{observed}.\n\n"
        f"Converted from: {model.provenance.get('source', 'a model in memory')}.\n\n"
        f"Verified:\n\n{bullets('verified')}\n\nCould not be verified:\n\n{bullets('unverified')}\n"
    )


def is_bundle(folder: Path) -> bool:
    """Whether a folder holds a bundle, or parts of one."""
    return (folder / "config.json").exists() or (folder / "model.safetensors").exists()


def load_bundle(folder: Path) -> BulkFormer | BioFormer:
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
    listed: Any = manifest.get("files")
    binned = isinstance(listed, dict) and _GRAPH not in listed
    verify_manifest(folder, listed, _FILES if binned else _FILES | {_GRAPH})
    facts = read_json(folder / "config.json")
    unit = BioFormer.input_unit if binned else BulkFormer.input_unit
    own = {*_BINNED_FACTS, "binnings", "external"} if binned else {*_FACTS}
    absent = sorted({*own, "network", "input_unit"} - set(facts))
    if absent or facts["input_unit"] != unit or (facts["family"] in BINNED) != binned:
        message = f"{folder / 'config.json'} lacks {absent} or is not for {unit!r}"
        raise ValueError(message)
    weights = folder / "model.safetensors"
    network = build(facts["family"], make_config(facts["family"], facts["network"]), read_tensors(weights), weights)
    trained = facts["trained_missing"]
    provenance = manifest.get("provenance", {})
    verified = [*provenance.get("verified", []), "size and SHA-256 of every file of the bundle"]
    common: dict[str, Any] = {
        **{name: facts[name] for name in own},
        "checksum": listed["model.safetensors"]["sha256"],
        "provenance": provenance | {"verified": list(dict.fromkeys(verified))},
        "trained_missing": None if trained is None else (float(trained[0]), float(trained[1])),
    }
    vocabulary = GeneVocabulary.from_csv(folder / "genes.csv", name=facts["name"])
    if binned:
        return BioFormer(network, vocabulary, **common)
    graph = read_tensors(folder / _GRAPH)
    return BulkFormer(network, vocabulary, graph=(graph["edge_index"], graph["edge_weight"]), **common)
