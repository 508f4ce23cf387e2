"""The registry of published models: read from ``models.yaml``, found on disk."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from bulkformer_tl._settings import settings


@dataclass(frozen=True)
class ModelInfo:
    """Facts about one published model.

    Parameters
    ----------
    name
        Name under which :func:`bulkformer_tl.models.load` knows it.
    family
        ``"g1"``, ``"g2"``, ``"g3"`` or ``"mini"``.
    n_genes
        Size of its vocabulary.
    width
        Width D of its vectors.
    unit
        What it reads: ``"log_tpm"``, ln(TPM+1).
    denominator
        Which genes the TPM of its training data ran over: ``"all"`` or ``"vocabulary"``.
    pooling
        Published rule for the sample vector.
    trained_missing
        Least and largest share of its genes that was hidden in training.
    files
        Its files, each with ``name``, ``url``, ``bytes`` and ``sha256``; ``None`` where no primary source states it.
    source
        Where its authors publish it.
    corpus
        What it was trained on.
    licence
        As far as it is stated.
    citation
        DOI.
    """

    name: str
    family: str
    n_genes: int
    width: int
    unit: str
    denominator: str
    pooling: str
    trained_missing: tuple[float, float]
    files: tuple[dict[str, Any], ...]
    source: str
    corpus: str
    licence: str
    citation: str


@cache
def _registry() -> dict[str, ModelInfo]:
    text = (files("bulkformer_tl.registry") / "models.yaml").read_text(encoding="utf-8")
    return {
        name: ModelInfo(
            name=name, **{**entry, "files": tuple(entry["files"]), "trained_missing": tuple(entry["trained_missing"])}
        )
        for name, entry in yaml.safe_load(text).items()
    }


def available() -> list[str]:
    """Return the names of all models of the registry."""
    return list(_registry())


def info(name: str) -> ModelInfo:
    """Return what is known of a model.

    Raises
    ------
    ValueError
        If there is no such model; the message lists those that there are.
    """
    if name not in _registry():
        message = f"no file, folder or model is called {name!r}; the models are {available()}"
        raise ValueError(message)
    return _registry()[name]


def place(name: str) -> Path:
    """Return where the files of a model are, or would be: in the package, or in the cache.

    Raises
    ------
    ValueError
        If there is no such model.
    """
    known = info(name)
    inside = Path(str(files("bulkformer_tl"))) / "resources" / known.name
    return inside if inside.exists() else settings.cache_dir / "models" / known.name


def locate(name: str) -> Path:
    """Return the folder of a model on this machine: in the package, or in the cache.

    Raises
    ------
    ValueError
        If there is no such model.
    FileNotFoundError
        If it is not on this machine; the message says where to get it and where to put it.
    """
    known = info(name)
    folder = place(name)
    if not folder.exists():
        names = ", ".join(file["name"] for file in known.files)
        message = (
            f"{name} is not on this machine. Get {names} from {known.source}: call bf.models.download({name!r}), or "
            f"put them into {folder} by hand; bf.models.load also takes a folder elsewhere"
        )
        raise FileNotFoundError(message)
    return folder
