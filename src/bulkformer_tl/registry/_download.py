"""Published files on this machine: downloaded on request, verified, and what was seen written down."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from bulkformer_tl._unfinished import replacing
from bulkformer_tl.registry._models import ModelInfo, info, place
from bulkformer_tl.registry._sources import resolve
from bulkformer_tl.registry._transfer import DownloadError, fetch

logger = logging.getLogger(__name__)

#: What was downloaded into a folder; beside the files of which some have a manifest of their own.
RECORD = "downloads.json"

Status = Literal["verified", "as recorded", "unknown", "absent", "changed"]


@dataclass(frozen=True)
class FileCheck:
    """What is known of one file of a model.

    Parameters
    ----------
    name
        File name.
    status
        ``"verified"`` against what a primary source states; ``"as recorded"`` when it was first downloaded;
        ``"unknown"`` where there is nothing to compare with; ``"absent"``; ``"changed"``.
    detail
        The comparison in words.
    sha256
        Of the file, ``None`` where it is absent.
    required
        Whether the model needs it.
    """

    name: str
    status: Status
    detail: str
    sha256: str | None = None
    required: bool = True

    @property
    def ok(self) -> bool:
        """Whether nothing speaks against the file."""
        return self.status not in ({"changed", "absent"} if self.required else {"changed"})


def download(name: str, *, folder: str | Path | None = None, protein: bool = False) -> Path:
    """Download the files of a published model, or what is still lacking of them.

    They go to ``settings.cache_dir / "models" / name``, where :func:`bulkformer_tl.models.load` finds them by name. A
    broken download is resumed by the next call. Sizes and checksums that a primary source states are compared; of other
    files the SHA-256 is recorded in ``downloads.json`` at the first download and compared from then on. Files that
    are there already, also those that you put there yourself, are checked and kept.

    Parameters
    ----------
    name
        One of :func:`bulkformer_tl.models.available`.
    folder
        Other folder for the files.
    protein
        Also download the table of protein embeddings, which only ``encode(protein=True)`` needs.

    Returns
    -------
    The folder.

    Raises
    ------
    ValueError
        If there is no such model.
    OSError
        If a file cannot be downloaded or is not the published one. The message names what to get by hand, where to put
        it, and how to verify it. What did arrive stays.

    Examples
    --------
    >>> import bulkformer_tl as bf
    >>> bf.models.download("bulkformer-latest")  # doctest: +SKIP
    """
    known = info(name)
    if not known.files:
        return place(name)
    target = Path(folder) if folder is not None else place(name)
    problems = {}
    for file in known.files:
        if file["role"] == "protein" and not protein:
            continue
        try:
            _get(known, file, target)
        except DownloadError as error:
            problems[file["name"]] = f"{error}. By hand: {file['url'] or known.source}"
    if problems:
        # the place where to save them by hand
        target.mkdir(parents=True, exist_ok=True)
        raise DownloadError(_by_hand(name, target, problems))
    return target


def verify(name: str, *, folder: str | Path | None = None) -> list[FileCheck]:
    """Compare the files of a model with what primary sources state, or with what was recorded.

    Parameters
    ----------
    name
        One of :func:`bulkformer_tl.models.available`.
    folder
        Where the files are; ``None`` means the package or the cache.

    Raises
    ------
    ValueError
        If there is no such model, or a manifest is damaged.
    FileNotFoundError
        If there is no such folder.
    """
    known = info(name)
    target = Path(folder) if folder is not None else place(name)
    if not target.is_dir():
        message = f"{name} is not at {target}; bf.models.download({name!r}) gets it"
        raise FileNotFoundError(message)
    if not known.files or (target / "config.json").exists():
        return _verify_bundle(target)
    recorded = _read(target / RECORD).get("files", {})
    return [_check(target / file["name"], file, recorded.get(file["name"])) for file in known.files]


def _verify_bundle(folder: Path) -> list[FileCheck]:
    manifest = folder / "manifest.json"
    if not manifest.is_file():
        return [FileCheck("manifest.json", "absent", "without it nothing of the bundle can be verified")]
    listed = _read(manifest).get("files", {})
    return [
        _check(folder / _plain(name), {"bytes": entry.get("bytes"), "sha256": entry.get("sha256")}, None)
        for name, entry in sorted(listed.items())
    ]


def _get(known: ModelInfo, file: dict[str, Any], folder: Path) -> None:
    path = folder / _plain(file["name"])
    recorded = _read(folder / RECORD).get("files", {})
    if path.is_file():
        found = _check(path, file, recorded.get(path.name))
        if found.status == "changed":
            message = f"{path} is there but is not the published file: {found.detail}; move it away"
            raise DownloadError(message)
        origin, sha256 = "put there by hand", str(found.sha256)
        if found.status != "unknown":
            logger.info("%s is there: %s", path.name, found.detail)
            return
    else:
        source = resolve(file)
        logger.info("downloading %s of %s from %s", path.name, known.name, source.url)
        sha256 = fetch(source, path)
        origin = source.url
        if source.hashes:
            logger.info("%s: %s as published", path.name, " and ".join(sorted(source.hashes)))
    if not file["sha256"]:
        logger.info("%s: no primary source states its sha256; recorded %s", path.name, sha256)
    entry = {"bytes": path.stat().st_size, "sha256": sha256, "origin": origin, "date": f"{datetime.now(UTC):%Y-%m-%d}"}
    _write(folder / RECORD, {"model": known.name, "files": {**recorded, path.name: entry}})


def _check(path: Path, stated: dict[str, Any], recorded: dict[str, Any] | None) -> FileCheck:
    required = stated.get("role") != "protein"
    if not path.is_file():
        detail = "not there" if required else "not there, and needed only for protein embeddings"
        return FileCheck(path.name, "absent", detail, required=required)
    size = path.stat().st_size
    with path.open("rb") as handle:
        sha256 = hashlib.file_digest(handle, "sha256").hexdigest()

    status, detail = _compare(size, sha256, stated, recorded)
    return FileCheck(path.name, status, detail, sha256, required)


def _compare(size: int, sha256: str, stated: dict[str, Any], recorded: dict[str, Any] | None) -> tuple[Status, str]:
    if stated["bytes"] is not None and size != stated["bytes"]:
        return "changed", f"{size:,} bytes instead of {stated['bytes']:,}"
    if stated["sha256"]:
        same = sha256 == stated["sha256"]
        other = f"sha256 {sha256} instead of {stated['sha256']}"
        return ("verified", "size and sha256 as published") if same else ("changed", other)
    if recorded is None:
        return "unknown", "no primary source states its sha256, and none was recorded"
    known, date = recorded.get("sha256"), recorded.get("date")
    if sha256 != known:
        return "changed", f"sha256 {sha256} instead of {known}, recorded on {date}"
    return "as recorded", f"sha256 as recorded on {date}; no primary source states it"


def _by_hand(name: str, folder: Path, problems: dict[str, str]) -> str:
    lines = [f"{len(problems)} file(s) of {name} could not be downloaded:"]
    lines += [f"  {file}: {problem}" for file, problem in problems.items()]
    lines += [
        f"Save them under these names in {folder}, then run: bulkformer models verify {name} --folder {folder}",
    ]
    return "\n".join(lines)


def _plain(name: str) -> str:
    """Return a file name that cannot leave its folder.

    Raises
    ------
    ValueError
        If it could.
    """
    if name in {"", ".", ".."} or Path(name).name != name or "\\" in name:
        message = f"{name!r} is no plain file name"
        raise ValueError(message)
    return name


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        message = f"{path} is not JSON ({error}); delete it to start anew"
        raise ValueError(message) from error
    if not isinstance(content, dict) or not isinstance(content.get("files", {}), dict):
        message = f"{path} does not list files"
        raise ValueError(message)  # noqa: TRY004  the file is wrong, not the argument's type
    return content


def _write(path: Path, content: dict[str, Any]) -> None:
    with replacing(path) as unfinished:
        unfinished.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
