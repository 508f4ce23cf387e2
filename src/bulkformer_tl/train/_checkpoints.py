"""States of a run on disk: complete or not there, checked before they are used, two at a time."""

from __future__ import annotations

import logging
import os
import re
from typing import TYPE_CHECKING, Any

import torch

from bulkformer_tl.models._files import read_tensors

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger(__name__)

_NAME = re.compile(r"^round-(\d{6})\.pt$")
#: How many states are kept.
KEPT = 2


def save_state(folder: Path, finished: int, state: dict[str, Any]) -> Path:
    """Write the state after a number of rounds, and delete all but the last ones.

    The file is written under another name, forced to the disk and renamed, so that a state that has its name is whole.

    Parameters
    ----------
    folder
        Of the states.
    finished
        Rounds.
    state
        Tensors, numbers, strings, lists and dictionaries.
    """
    folder.mkdir(exist_ok=True)
    path = folder / f"round-{finished:06d}.pt"
    unfinished = path.with_suffix(".unfinished")
    with unfinished.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    _sync(folder)
    for _, old in _states(folder)[KEPT:]:
        old.unlink()
    return path


def load_state(folder: Path) -> tuple[int, dict[str, Any]] | None:
    """Read the newest state that is whole; ``None`` where there is none.

    Every part of the file has a checksum, which is compared. What is damaged is left where it is, with a warning in
    the log, and the state before it is read. Nothing but tensors and plain values is ever unpacked.

    Returns
    -------
    Number of finished rounds, and the state.
    """
    for finished, path in _states(folder):
        try:
            state = read_tensors(path)
        except ValueError as error:
            logger.warning("%s is not used: %s. The state before it is tried", path.name, error)
            continue
        return finished, state
    return None


def _states(folder: Path) -> list[tuple[int, Path]]:
    """Return states and their numbers, the newest first."""
    if not folder.is_dir():
        return []
    found = [(int(match[1]), path) for path in folder.iterdir() if (match := _NAME.match(path.name))]
    return sorted(found, reverse=True)


def _sync(folder: Path) -> None:
    """Force the folder's entries to the disk, where the system can."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
