"""A folder of one file per sample: what is in it, which of it counts, joined."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from bulkformer_tl._progress import Progress
from bulkformer_tl._read._layouts import layout_of, read_part
from bulkformer_tl._read._part import LISTED, Part, join
from bulkformer_tl._read._text import read_head

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bulkformer_tl._read._layouts import Options
    from bulkformer_tl._read._text import Head

logger = logging.getLogger(__name__)

_TABLES = {"table", "xena", "recount3"}


def read_folder(folder: Path, options: Options) -> Part:
    """Read every sample file of a folder and join them on genes.

    Links that lead out of the folder are not followed; files that are no expression are left aside and reported.

    Raises
    ------
    ValueError
        If there is no expression in the folder, or it is laid out in several ways.
    """
    found: dict[str, list[Head]] = defaultdict(list)
    aside = []
    for path in _files(folder):
        head = _head(path, options.encoding)
        layout = None if head is None else layout_of(head)
        if head is None or layout is None:
            aside.append(path.relative_to(folder).as_posix())
        else:
            found[layout].append(head)
    layout = _choose(folder, found, prefer_transcripts=options.tx2gene is not None)
    chosen = found.pop(layout)
    aside += [head.path.relative_to(folder).as_posix() for heads in found.values() for head in heads]
    parts = []
    with Progress(len(chosen), f"reading {layout}") as progress:
        for head in chosen:
            parts.append(read_part(head, layout, options))
            progress.update()
    joined = join(parts, folder)
    if aside:
        joined.report |= {"n_files_left_aside": len(aside), "files_left_aside": sorted(aside)[:LISTED]}
        logger.info("%s: %d files hold no expression of the layout %r: %s", folder, len(aside), layout, aside[:5])
    return joined


def _files(folder: Path) -> Iterator[Path]:
    """Yield regular files in order, without hidden ones and without what lies outside."""
    inside = folder.resolve()
    for root, folders, names in os.walk(folder, followlinks=False):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(root) / name
            if name.startswith("."):
                continue
            if not path.resolve().is_relative_to(inside):
                logger.warning("%s is a link that leads out of %s; it is not followed", path, folder)
            elif path.is_file():
                yield path


def _head(path: Path, encoding: str) -> Head | None:
    """Return the first lines of a file; ``None`` if it is no text."""
    try:
        return read_head(path, encoding)
    except ValueError as error:
        logger.debug("left aside: %s", error)
        return None


def _choose(folder: Path, found: dict[str, list[Head]], *, prefer_transcripts: bool) -> str:
    """Return the layout to read."""
    layouts = set(found)
    if layouts - _TABLES:
        # lists of samples and the like come along with the files of quantifiers
        layouts -= _TABLES
    for name in [name for name in layouts if f"{name}_transcripts" in layouts]:
        layouts.discard(name if prefer_transcripts else f"{name}_transcripts")
    if not layouts:
        message = (
            f"{folder} holds no file with expression that can be recognised; salmon, kallisto, RSEM, STAR, HTSeq, "
            "featureCounts, GCT and tables with gene names can be. A single file says more: bf.read(its path)"
        )
        raise ValueError(message)
    if len(layouts) > 1:
        counts = {layout: (len(found[layout]), found[layout][0].path.name) for layout in sorted(layouts)}
        message = f"{folder} mixes layouts, {counts} (files and an example); put each into a folder of its own"
        raise ValueError(message)
    return layouts.pop()
