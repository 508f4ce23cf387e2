"""What was fitted, in ``uns`` and in a folder: arrays and facts, without pickle, read back with every check."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from bulkformer_tl._unfinished import replacing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from numpy.typing import NDArray

FORMAT = 1


@dataclass(frozen=True, eq=False)
class KeptHead:
    """What anything fitted is: facts and arrays, which whoever inherits checks.

    Parameters
    ----------
    facts
        Plain values.
    arrays
        Its weights.
    """

    #: What it is called, in messages and in the names of its files.
    what: ClassVar[str] = "head"

    facts: dict[str, Any]
    arrays: dict[str, NDArray[Any]] = field(repr=False)

    def __post_init__(self) -> None:
        """Refuse facts and arrays that do not belong together."""
        raise NotImplementedError

    def save(self, path: str | Path) -> None:
        """Write it to a folder: a safetensors file, and a JSON file with its SHA-256, named after what it is.

        Parameters
        ----------
        path
            Folder; made if it is not there. Files of an earlier one of its kind are replaced.

        Raises
        ------
        FileExistsError
            If it is there and holds something else.
        """
        _write(path, self.what, self.facts, self.arrays)

    @classmethod
    def check_place(cls, path: str | Path) -> None:
        """Refuse a folder that :meth:`save` would refuse, before there is anything to save.

        Parameters
        ----------
        path
            Folder.

        Raises
        ------
        FileExistsError
            If it is there and holds something else.
        """
        _check_place(Path(path), cls.what)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what :meth:`save` wrote.

        Parameters
        ----------
        path
            Its folder.

        Returns
        -------
        What was saved; its predictions are equal bit for bit.

        Raises
        ------
        FileNotFoundError
            If a file is not there.
        ValueError
            If a file was cut or changed, or holds something else.
        """
        return cls(*_read(path, cls.what))


def as_entry(head: KeptHead) -> dict[str, Any]:
    """Return a head as plain values that ``uns`` can hold and write."""
    return {"facts": json.dumps(head.facts), "arrays": dict(head.arrays)}


def of_entry[K: KeptHead](kind: type[K], stored: Mapping[str, Any]) -> K:
    """Return the head that an entry of ``uns`` holds, checked as one of its kind."""
    arrays = {str(name): np.asarray(array) for name, array in stored["arrays"].items()}
    return kind(json.loads(str(stored["facts"])), arrays)


def _names(what: str) -> tuple[str, str]:
    return f"{what}.json", f"{what}.safetensors"


def _check_place(folder: Path, what: str) -> None:
    if folder.exists() and (not folder.is_dir() or {p.name for p in folder.iterdir()} - {*_names(what)}):
        message = f"{folder} exists and holds something else than a fitted {what}; name another folder"
        raise FileExistsError(message)


def _write(path: str | Path, what: str, facts: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    from safetensors.numpy import save

    folder, (facts_name, arrays_name) = Path(path), _names(what)
    _check_place(folder, what)
    folder.mkdir(parents=True, exist_ok=True)
    data = save({name: np.asarray(array, order="C") for name, array in arrays.items()})
    described = {
        "format": FORMAT,
        "package": "bulkformer_tl",
        "version": version("bulkformer-tl"),
        "scikit-learn": version("scikit-learn"),
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
        "facts": dict(facts),
    }
    for name, content in ((arrays_name, data), (facts_name, json.dumps(described, indent=1).encode())):
        with replacing(folder / name) as unfinished:
            unfinished.write_bytes(content)


def _read(path: str | Path, what: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    folder, (facts_name, arrays_name) = Path(path), _names(what)
    for name in (facts_name, arrays_name):
        if not (folder / name).is_file():
            message = f"{folder} holds no {name}; name the folder that save() of a fitted {what} wrote"
            raise FileNotFoundError(message)
    known = _read_facts(folder / facts_name, what)
    data = (folder / arrays_name).read_bytes()
    if len(data) != known["bytes"] or hashlib.sha256(data).hexdigest() != known["sha256"]:
        message = f"{folder / arrays_name} is not the file that {facts_name} describes: it was cut or changed"
        raise ValueError(message)
    try:
        arrays = load(data)
    except SafetensorError as error:
        message = f"{folder / arrays_name} is no safetensors file: {error}"
        raise ValueError(message) from error
    return known["facts"], arrays


def _read_facts(path: Path, what: str) -> dict[str, Any]:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        message = f"{path} is no JSON: {error}"
        raise ValueError(message) from error
    kinds = {"format": int, "sha256": str, "bytes": int, "facts": dict}
    if not isinstance(known, dict) or any(not isinstance(known.get(name), kind) for name, kind in kinds.items()):
        message = f"{path} does not describe a fitted {what}; it needs {sorted(kinds)}"
        raise ValueError(message)
    if known["format"] != FORMAT:
        message = f"{path} has the format {known['format']}; this version reads {FORMAT}, update bulkformer-tl"
        raise ValueError(message)
    return known
