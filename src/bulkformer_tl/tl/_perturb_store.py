"""Parts of a long computation in a folder, which later calls and other workers find there."""

from __future__ import annotations

import hashlib
import json
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np

from bulkformer_tl._unfinished import replacing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[Any]]

FACTS = "facts.json"


class PartStore:
    """A folder of finished parts of one computation.

    Any number of processes may work on it, also on several machines with a common folder. Each takes parts that no
    other has taken, then those that were taken and not finished, and in the end all of them have all parts. So a worker
    that is lost holds up nothing, and those that are done first repeat what others have in hand at the end.

    Parameters
    ----------
    folder
        Made if it is not there.
    facts
        Everything that decides the results, as plain values.

    Raises
    ------
    FileExistsError
        If the folder holds something else or parts of another computation.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any]) -> None:
        self.folder = folder
        described = json.dumps(facts, indent=1, sort_keys=True)
        file = folder / FACTS
        # looked at before the facts, which are there before any part; another worker's may have another name still
        taken = folder.exists() and (not folder.is_dir() or any(path.name[0] != "." for path in folder.iterdir()))
        if not file.is_file():
            if taken:
                message = f"{folder} exists and holds something else than passes; name another folder"
                raise FileExistsError(message)
            folder.mkdir(parents=True, exist_ok=True)
            with replacing(file) as unfinished:
                unfinished.write_text(described, encoding="utf-8")
        # also those just written: another call may have written its own at the same time
        if file.read_text(encoding="utf-8") != described:
            message = (
                f"{folder} holds passes of another call ({_difference(file, facts)}); name another folder, or "
                "delete this one"
            )
            raise FileExistsError(message)

    def parts(self, count: int, compute: Callable[[int], Arrays]) -> Iterator[tuple[int, Arrays]]:
        """Yield number and arrays of each part, those that are there first.

        Parameters
        ----------
        count
            Number of parts.
        compute
            Makes one.
        """
        waiting = []
        for index in range(count):
            if (found := self._load(index)) is None:
                waiting.append(index)
            else:
                yield index, found
        # own ones first; what others took is done by then, or its worker was lost
        taken = []
        for index in waiting:
            if not self._claim(index):
                taken.append(index)
            elif (found := self._load(index)) is None:
                yield index, self._save(index, compute(index))
            else:
                # finished by another, which gave it free, since this list was made
                self._free(index)
                yield index, found
        for index in taken:
            found = self._load(index)
            yield index, self._save(index, compute(index)) if found is None else found

    def _path(self, index: int) -> Path:
        return self.folder / f"part-{index:07d}.npz"

    def _claim(self, index: int) -> bool:
        try:
            self._path(index).with_suffix(".taken").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def _free(self, index: int) -> None:
        self._path(index).with_suffix(".taken").unlink(missing_ok=True)

    def _load(self, index: int) -> Arrays | None:
        path = self._path(index)
        if not path.is_file():
            return None
        try:
            with path.open("rb") as handle, np.load(handle, allow_pickle=False) as stored:
                return dict(stored)
        except (ValueError, OSError, zipfile.BadZipFile):
            # cut short by a full disk, say: computed again
            return None

    def _save(self, index: int, arrays: Arrays) -> Arrays:
        named: dict[str, Any] = dict(arrays)
        with replacing(self._path(index)) as unfinished, unfinished.open("wb") as handle:
            np.savez(handle, **named)
        self._free(index)
        return arrays


def digest(*parts: Any) -> str:
    """SHA-256 of arrays and plain values."""
    found = hashlib.sha256()
    for part in parts:
        data = np.ascontiguousarray(part).tobytes() if isinstance(part, np.ndarray) else json.dumps(part).encode()
        found.update(len(data).to_bytes(8, "little") + data)
    return found.hexdigest()


def _difference(file: Path, facts: Mapping[str, Any]) -> str:
    try:
        there: Any = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return "its description is no JSON"
    other = sorted(name for name in {*there, *facts} if there.get(name) != facts.get(name))
    return f"with other {', '.join(other)}"
