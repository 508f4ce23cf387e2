"""The registry of public cohorts, and files of it: downloaded once, verified, or not at all."""

from __future__ import annotations

import hashlib
import logging
import urllib.error
import urllib.parse
import urllib.request
from functools import cache
from importlib.resources import files
from typing import IO, TYPE_CHECKING, Any

import pandas as pd
import yaml

from bulkformer_tl._settings import settings
from bulkformer_tl._unfinished import replacing

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger(__name__)

#: Bytes that are read together, and seconds a server may be silent.
_BLOCK, _PATIENCE = 1 << 20, 30.0
#: Most bytes of a file whose size no source states.
_LIMIT = 1 << 32

_COLUMNS = [
    *("title", "unit", "labels", "accession", "source", "file", "url", "bytes", "sha256", "checksum_source"),
    *("licence", "citation", "note"),
]


@cache
def _registry() -> dict[str, dict[str, Any]]:
    text = (files("bulkformer_tl.datasets") / "cohorts.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))


def cohorts() -> pd.DataFrame:
    """Return the registry of public cohorts.

    Returns
    -------
    A row per cohort, by the name that :func:`bulkformer_tl.datasets.fetch` knows, with ``title``, ``unit`` of the
    values, ``labels`` of the samples, ``accession``, ``source`` (landing page), ``file``, ``url``, ``bytes``,
    ``sha256``, ``checksum_source`` (the page that states it), ``licence``, ``citation`` and ``note`` (how to read an
    archive; why there is no checksum). What no source states is ``None``.

    Examples
    --------
    >>> import bulkformer_tl as bf
    >>> bf.datasets.cohorts().loc["macrophages", "accession"]
    'ERP020977'
    """
    table = pd.DataFrame.from_dict(_registry(), orient="index", columns=_COLUMNS, dtype=object)
    return table.where(table.notna(), None).rename_axis("name")


def fetch(name: str, *, sha256: str | None = None, verify: bool = True) -> Path:
    """Return the file of a cohort, from the cache or else downloaded and verified.

    The file lies in ``settings.cache_dir / "cohorts" / name``; one that you put there yourself is taken without any
    download. A download appears there only when it is complete and right. :func:`bulkformer_tl.read` reads a table as
    it is; an archive is unpacked first, see the examples.

    Parameters
    ----------
    name
        A row of :func:`bulkformer_tl.datasets.cohorts`.
    sha256
        Expected checksum, where the registry states none.
    verify
        Whether to refuse a download that cannot be verified. With ``False`` its checksum is logged, so that the next
        call can state it.

    Returns
    -------
    Path of the file.

    Raises
    ------
    KeyError
        If there is no such cohort; the message lists those that there are.
    FileNotFoundError
        If the file is not here and cannot be downloaded; the message names the landing page.
    ValueError
        If the checksum is not the expected one or not known, or the server sends a web page.

    Examples
    --------
    >>> import bulkformer_tl as bf
    >>> adata = bf.read(bf.datasets.fetch("tcga_glioblastoma"))  # doctest: +SKIP

    The samples of an archive are in the folder that its ``note`` names.

    >>> import tarfile
    >>> path = bf.datasets.fetch("lymphoblastoid_geuvadis")  # doctest: +SKIP
    >>> with tarfile.open(path) as archive:  # doctest: +SKIP
    ...     archive.extractall(path.parent, filter="data")
    >>> adata = bf.read(path.parent / "tximportData/inst/extdata/rsem")  # doctest: +SKIP
    """
    if name not in _registry():
        message = f"no cohort is called {name!r}; the cohorts are {sorted(_registry())}"
        raise KeyError(message)
    entry = _registry()[name]
    expected = entry["sha256"] or sha256
    if entry["sha256"] and sha256 and entry["sha256"] != sha256.lower():
        message = f"the registry states the sha256 {entry['sha256']} of {name}, not {sha256}"
        raise ValueError(message)
    path = settings.cache_dir / "cohorts" / name / str(entry["file"])
    if path.is_file():
        with path.open("rb") as handle:
            found = hashlib.file_digest(handle, "sha256").hexdigest()
        _compare(found, expected, f"{path}, which was put there before,", "delete it and call again")
        return path
    if expected is None and verify:
        message = (
            f"no source states the sha256 of {name}, so a download could not be verified; pass sha256= if you know it, "
            f"or verify=False to take what {entry['url']} sends"
        )
        raise ValueError(message)
    _download(name, entry, path, expected)
    return path


def _download(name: str, entry: dict[str, Any], path: Path, expected: str | None) -> None:
    """Write a file when it is complete and right; leave nothing behind otherwise."""
    url = str(entry["url"])
    if urllib.parse.urlsplit(url).scheme not in {"https", "http", "file"}:
        message = f"the URL of {name}, {url!r}, is neither http nor a file"
        raise ValueError(message)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with replacing(path) as unfinished:
            try:
                with (
                    unfinished.open("wb") as target,
                    urllib.request.urlopen(url, timeout=_PATIENCE) as stream,  # noqa: S310  schemes are checked above
                ):
                    found = _copy(stream, target, entry["bytes"], name)
            except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
                message = (
                    f"{name} could not be downloaded from {url} ({error}); get the file from {entry['source']} and put "
                    f"it at {path}"
                )
                raise FileNotFoundError(message) from error
            _compare(
                found, expected, f"the download of {name} from {url}", f"it was thrown away; see {entry['source']}"
            )
    finally:
        if not any(path.parent.iterdir()):
            path.parent.rmdir()
    logger.info("%s: downloaded to %s, sha256 %s", name, path, found)


def _copy(stream: IO[bytes], target: IO[bytes], size: int | None, name: str) -> str:
    """Copy a stream, never more than the stated size, and return its sha256."""
    digest, copied = hashlib.sha256(), 0
    while block := stream.read(_BLOCK):
        if not copied and block.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
            message = f"the server sent a web page instead of {name}; open its landing page in a browser"
            raise ValueError(message)
        copied += len(block)
        if copied > (size or _LIMIT):
            message = f"the server sends more than the {size or _LIMIT:,} bytes of {name}; nothing was kept"
            raise ValueError(message)
        digest.update(block)
        target.write(block)
    if size is not None and copied != size:
        message = f"the server sent {copied:,} of the {size:,} bytes of {name}; nothing was kept, call again"
        raise ValueError(message)
    return digest.hexdigest()


def _compare(found: str, expected: str | None, what: str, cure: str) -> None:
    if expected is not None and found != expected.lower():
        message = f"{what} has the sha256 {found}, expected {expected}; {cure}"
        raise ValueError(message)
