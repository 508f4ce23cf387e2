"""Files and folders that are complete or not there."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Offer another name in the same folder to write to, and rename that file at the end; delete it after an error.

    The file has the permissions of any new file, although safetensors and :mod:`tempfile` make files that only their
    owner may read.

    Parameters
    ----------
    path
        The file to write or to replace.

    Yields
    ------
    An empty file in the same folder.
    """
    unfinished = path.with_name(f".{uuid4().hex[:8]}.{path.name}")
    try:
        unfinished.touch()
        mode = unfinished.stat().st_mode
        yield unfinished
        unfinished.chmod(mode)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def take_place(unfinished: Path, path: Path) -> None:
    """Give something complete its name; a file or folder of that name is replaced, and stays if that fails.

    Parameters
    ----------
    unfinished
        A file or folder in the same folder as ``path``.
    path
        Its name from now on.
    """
    replaced = path.with_name(f".{uuid4().hex[:8]}.{path.name}.replaced")
    try:
        if path.is_dir():
            # a folder does not take the place of another one in a single step
            path.rename(replaced)
        unfinished.replace(path)
    finally:
        if replaced.exists() and not path.exists():
            replaced.rename(path)
        remove(replaced)


def remove(path: Path) -> None:
    """Delete a file or a folder with all that it holds, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
