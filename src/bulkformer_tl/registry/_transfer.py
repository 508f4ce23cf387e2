"""One address to one file: resumed where the connection broke, verified, and there only when complete.

pooch verifies and caches but starts a broken download again from its first byte, which for 400 MB over a slow line
means never; hence these few lines over :mod:`urllib`, with HTTP ranges.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import logging
import os
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, override
from urllib.parse import urlsplit

from bulkformer_tl._settings import settings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

logger = logging.getLogger(__name__)

#: Bytes read together, seconds a server may be silent, and attempts in a row that bring nothing.
BLOCK, PATIENCE, ATTEMPTS = 1 << 18, 30.0, 5
#: Seconds before the second attempt; they double with each further one.
PAUSE = 1.0
#: Most bytes of a file whose size nobody states.
LIMIT = 1 << 34

_HTML = (b"<!doctype html", b"<html")


class DownloadError(OSError):
    """A file could not be downloaded, or is not the one it should be."""


class _BrokenOffError(Exception):
    """The connection ended too early; another attempt may help."""


@dataclass(frozen=True)
class Source:
    """Where a file is, and what is known of it.

    Parameters
    ----------
    url
        Address that sends the file itself.
    size
        In bytes, ``None`` where unknown.
    hashes
        Name of an algorithm of :mod:`hashlib` to the digest of the file.
    """

    url: str
    size: int | None = None
    hashes: Mapping[str, str] = field(default_factory=dict)


class _KeepHttps(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never from an encrypted connection to a plain one."""

    @override
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        check_scheme(newurl, encrypted=req.type == "https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def check_scheme(url: str, *, encrypted: bool = False) -> None:
    """Refuse addresses that are not of the web, and plain ones where the connection was encrypted.

    Raises
    ------
    DownloadError
        If the scheme is another one.
    """
    allowed = {"https"} if encrypted else {"http", "https"}
    if urlsplit(url).scheme not in allowed:
        message = f"{url} is not {' or '.join(sorted(allowed))} and is not followed"
        raise DownloadError(message)


def open_url(url: str, headers: Mapping[str, str] | None = None) -> Any:
    """Open an address; the response is to be closed by the caller."""
    check_scheme(url)
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity", **(headers or {})})  # noqa: S310
    return urllib.request.build_opener(_KeepHttps).open(request, timeout=PATIENCE)


def fetch(source: Source, target: Path) -> str:
    """Download a file, going on where an earlier attempt stopped.

    What arrives is kept beside the target as ``.<name>.part`` until it is complete and right, then takes its place.

    Parameters
    ----------
    source
        Where it is.
    target
        Where it goes.

    Returns
    -------
    SHA-256 of the file.

    Raises
    ------
    DownloadError
        If the server refuses, sends a web page, breaks off again and again, or sends another file than expected; or if
        another process downloads the same file.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    with part.open("ab") as handle:
        try:
            _lock(handle)
        except BlockingIOError as error:
            message = f"another process is downloading {target}; wait for it"
            raise DownloadError(message) from error
        try:
            _receive_all(source, handle, part)
            os.fsync(handle.fileno())
        finally:
            if not handle.tell():
                _discard(part)
    found = _digests(part, {"sha256", *source.hashes})
    for algorithm, expected in source.hashes.items():
        if found[algorithm] != expected.lower():
            _discard(part)
            message = f"{source.url} sent a file of {algorithm} {found[algorithm]} instead of {expected}; thrown away"
            raise DownloadError(message)
    part.replace(target)
    _discard(part)
    return found["sha256"]


def _lock(handle: IO[bytes]) -> None:
    # Windows has no such locks; there the second process fails when it renames the file
    if sys.platform != "win32":
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _receive_all(source: Source, handle: IO[bytes], part: Path) -> None:
    failures = 0
    while True:
        before = handle.tell()
        try:
            _receive(source, handle, part)
        except (_BrokenOffError, urllib.error.URLError, http.client.HTTPException, OSError) as error:
            if isinstance(error, DownloadError):
                raise
            failures = 0 if handle.tell() > before else failures + 1
            if failures >= ATTEMPTS:
                reason = getattr(error, "reason", None) or error
                message = f"{source.url} does not answer ({reason}); {handle.tell():,} bytes are kept, try again later"
                raise DownloadError(message) from error
            logger.info("the connection broke after %s bytes (%s); going on", f"{handle.tell():,}", error)
            time.sleep(PAUSE * 2**failures)
        else:
            return


def _receive(source: Source, handle: IO[bytes], part: Path) -> None:
    """Make one request for what is still lacking."""
    offset, headers = _resume(source, handle, part)
    if offset and offset == source.size:
        return
    try:
        response = open_url(source.url, headers)
    except urllib.error.HTTPError as error:
        error.close()
        _refused(source, handle, error.code, error.reason)
        return
    with response:
        if offset and not _continues(response, offset):
            _restart(handle)
            if response.status == http.client.PARTIAL_CONTENT:
                message = "another part than asked for"
                raise _BrokenOffError(message)
            offset = 0
        length = response.headers.get("Content-Length")
        total = offset + int(length) if length is not None else None
        _check_offer(source, response, total)
        validator = _validator(response)
        _state(part).write_text(json.dumps({"url": source.url, "validator": validator}), encoding="utf-8")
        _copy(source, response, handle, total)


def _resume(source: Source, handle: IO[bytes], part: Path) -> tuple[int, dict[str, str]]:
    """Return from where to go on, and the headers that ask for it."""
    offset = handle.tell()
    known: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        known = dict(json.loads(_state(part).read_text(encoding="utf-8")))
    validator = known.get("validator") or ""
    same = known.get("url") == source.url and (validator or source.hashes)
    if not offset or not same or (source.size is not None and offset > source.size):
        _restart(handle)
        return 0, {}
    # without a validator the hash at the end tells whether both halves are of one file
    return offset, {"Range": f"bytes={offset}-", **({"If-Range": validator} if validator else {})}


def _continues(response: Any, offset: int) -> bool:
    start = str(response.headers.get("Content-Range", "")).removeprefix("bytes ").split("-")[0]
    return response.status == http.client.PARTIAL_CONTENT and start == str(offset)


def _validator(response: Any) -> str:
    tag = response.headers.get("ETag", "")
    return str(response.headers.get("Last-Modified", "") if not tag or tag.startswith("W/") else tag)


def _check_offer(source: Source, response: Any, total: int | None) -> None:
    """Refuse what is no file, or another one, before it is written."""
    if "text/html" in response.headers.get("Content-Type", ""):
        raise DownloadError(_web_page(response.read(1 << 16)))
    if None not in (source.size, total) and total != source.size:
        message = f"{source.url} offers {total:,} bytes instead of {source.size:,}: another file"
        raise DownloadError(message)


def _copy(source: Source, response: Any, handle: IO[bytes], total: int | None) -> None:
    from tqdm.auto import tqdm

    limit, position = total or LIMIT if source.size is None else source.size, handle.tell()
    name = urlsplit(source.url).path.rsplit("/", 1)[-1]
    bar: Any = tqdm(
        total=total, initial=position, unit="B", unit_scale=True, desc=name, disable=not settings.progress, leave=False
    )
    with bar:
        while block := response.read(BLOCK):
            if not position and block.lstrip()[:14].lower().startswith(_HTML):
                raise DownloadError(_web_page(block))
            position += len(block)
            if position > limit:
                _restart(handle)
                message = f"{source.url} sends more than {limit:,} bytes; thrown away"
                raise DownloadError(message)
            handle.write(block)
            handle.flush()
            bar.update(len(block))
    wanted = source.size if total is None else total
    if wanted is not None and position < wanted:
        message = f"{position:,} of {wanted:,} bytes"
        raise _BrokenOffError(message)


def _refused(source: Source, handle: IO[bytes], code: int, reason: str) -> None:
    if code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
        _restart(handle)
    if code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE or code >= http.client.INTERNAL_SERVER_ERROR:
        message = f"{code} {reason}"
        raise _BrokenOffError(message)
    why = {403: "access is denied, or too many people downloaded it today", 404: "it is no longer there"}
    message = f"{source.url} answers {code} {reason}: {why.get(code, 'the server refuses')}"
    raise DownloadError(message)


def _web_page(content: bytes) -> str:
    text = content.decode("utf-8", errors="replace").lower()
    if "quota" in text or "too many users" in text:
        return "the drive's quota for this file is used up: it sends a web page that says so; try again in 24 hours"
    if "sign in" in text or "accounts.google" in text:
        return "the server sends a page that asks to sign in instead of the file"
    return "the server sends a web page instead of the file"


def _restart(handle: IO[bytes]) -> None:
    handle.seek(0)
    handle.truncate()


def _state(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _state(part).unlink(missing_ok=True)


def _digests(path: Path, algorithms: set[str]) -> dict[str, str]:
    digests = {name: hashlib.new(name, usedforsecurity=False) for name in algorithms}
    with path.open("rb") as handle:
        while block := handle.read(1 << 20):
            for digest in digests.values():
                digest.update(block)
    return {name: digest.hexdigest() for name, digest in digests.items()}
