"""Fitted heads in ``uns`` and in a folder: arrays and facts, without pickle, read back with every check."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bulkformer_tl._unfinished import replacing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from numpy.typing import NDArray

FORMAT = 1
FACTS, ARRAYS = "head.json", "head.safetensors"


@dataclass(frozen=True, eq=False)
class KeptHead:
    """What any fitted head is: facts and arrays, which whoever inherits checks.

    Parameters
    ----------
    facts
        Plain values.
    arrays
        Its weights.
    """

    facts: dict[str, Any]
    arrays: dict[str, NDArray[Any]] = field(repr=False)

    def __post_init__(self) -> None:
        """Refuse facts and arrays that do not make up such a head."""
        raise NotImplementedError

    def save(self, path: str | Path) -> None:
        """Write the head to a folder: ``head.safetensors`` and ``head.json`` with its SHA-256.

        Parameters
        ----------
        path
            Folder; made if it is not there. Files of an earlier head in it are replaced.

        Raises
        ------
        FileExistsError
            If it is there and holds something else.
        """
        _write(path, self.facts, self.arrays)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a head that :meth:`save` wrote.

        Parameters
        ----------
        path
            Its folder.

        Returns
        -------
        The head; its predictions are equal bit for bit.

        Raises
        ------
        FileNotFoundError
            If a file is not there.
        ValueError
            If a file was cut or changed, or is no such head.
        """
        return cls(*_read(path))


def as_entry(head: KeptHead) -> dict[str, Any]:
    """Return a head as plain values that ``uns`` can hold and write."""
    return {"facts": json.dumps(head.facts), "arrays": dict(head.arrays)}


def of_entry[K: KeptHead](kind: type[K], stored: Mapping[str, Any]) -> K:
    """Return the head that an entry of ``uns`` holds, checked as one of its kind."""
    arrays = {str(name): np.asarray(array) for name, array in stored["arrays"].items()}
    return kind(json.loads(str(stored["facts"])), arrays)


def _write(path: str | Path, facts: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    from safetensors.numpy import save

    folder = Path(path)
    if folder.exists() and (not folder.is_dir() or {p.name for p in folder.iterdir()} - {FACTS, ARRAYS}):
        message = f"{folder} exists and holds something else than a head; name another folder"
        raise FileExistsError(message)
    folder.mkdir(parents=True, exist_ok=True)
    data = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    described = {
        "format": FORMAT,
        "package": "bulkformer_tl",
        "version": version("bulkformer-tl"),
        "scikit-learn": version("scikit-learn"),
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
        "facts": dict(facts),
    }
    for name, content in ((ARRAYS, data), (FACTS, json.dumps(described, indent=1).encode())):
        with replacing(folder / name) as unfinished:
            unfinished.write_bytes(content)


def _read(path: str | Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    folder = Path(path)
    for name in (FACTS, ARRAYS):
        if not (folder / name).is_file():
            message = f"{folder} holds no {name}; name the folder that save() of a head wrote"
            raise FileNotFoundError(message)
    known = _read_facts(folder / FACTS)
    data = (folder / ARRAYS).read_bytes()
    if len(data) != known["bytes"] or hashlib.sha256(data).hexdigest() != known["sha256"]:
        message = f"{folder / ARRAYS} is not the file that {FACTS} describes: it was cut or changed"
        raise ValueError(message)
    try:
        arrays = load(data)
    except SafetensorError as error:
        message = f"{folder / ARRAYS} is no safetensors file: {error}"
        raise ValueError(message) from error
    return known["facts"], arrays


def _read_facts(path: Path) -> dict[str, Any]:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        message = f"{path} is no JSON: {error}"
        raise ValueError(message) from error
    kinds = {"format": int, "sha256": str, "bytes": int, "facts": dict}
    if not isinstance(known, dict) or any(not isinstance(known.get(name), kind) for name, kind in kinds.items()):
        message = f"{path} does not describe a head; it needs {sorted(kinds)}"
        raise ValueError(message)
    if known["format"] != FORMAT:
        message = f"{path} has the format {known['format']}; this version reads {FORMAT}, update bulkformer-tl"
        raise ValueError(message)
    return known
