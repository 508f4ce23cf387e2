"""From the page that a primary source names to the address that sends the file."""

from __future__ import annotations

import http.client
import json
import re
import urllib.error
from typing import Any
from urllib.parse import urlsplit

from bulkformer_tl.registry._transfer import DownloadError, Source, open_url

#: What answers for the two places where the authors publish; tests put their own here.
DRIVE = "https://drive.usercontent.google.com/download?id={}&export=download&confirm=t"
ZENODO = "https://zenodo.org/api/records/{}"

_DRIVE_PAGE = re.compile(r"https://drive\.google\.com/file/d/([\w-]+)")
_ZENODO_DOI = re.compile(r"https://doi\.org/10\.5281/zenodo\.(\d+)")


def resolve(file: dict[str, Any]) -> Source:
    """Find what sends a file of the registry.

    Pages of Google Drive have an address that sends the file. A Zenodo record is asked for its files, and states the
    size and MD5 of each. Anything else is taken as it is.

    Parameters
    ----------
    file
        Entry of the registry: ``name``, ``url``, ``bytes``, ``sha256``.

    Raises
    ------
    DownloadError
        If no address is known, or the record does not answer or does not hold the file.
    """
    url = file["url"]
    if url is None:
        message = "no primary source states its address"
        raise DownloadError(message)
    hashes = {"sha256": file["sha256"]} if file["sha256"] else {}
    if found := _ZENODO_DOI.fullmatch(url):
        return _of_record(ZENODO.format(found[1]), file, hashes)
    if found := _DRIVE_PAGE.match(url):
        url = DRIVE.format(found[1])
    return Source(url, file["bytes"], hashes)


def _of_record(address: str, file: dict[str, Any], hashes: dict[str, str]) -> Source:
    try:
        with open_url(address) as response:
            listed = json.loads(response.read(1 << 24))["files"]
        entries = {str(entry["key"]): entry for entry in listed}
        if file["name"] not in entries:
            message = f"the record {file['url']} holds {sorted(entries)}, and no {file['name']}"
            raise DownloadError(message)
        entry = entries[file["name"]]
        url, size, checksum = str(entry["links"]["self"]), int(entry["size"]), str(entry.get("checksum", ""))
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        message = f"{address} does not answer ({getattr(error, 'reason', error)})"
        raise DownloadError(message) from error
    except (ValueError, KeyError, TypeError) as error:
        message = f"{address} answers in an unknown form"
        raise DownloadError(message) from error
    if urlsplit(url)[:2] != urlsplit(address)[:2]:
        message = f"{address} points to another place, {url}"
        raise DownloadError(message)
    algorithm, _, digest = checksum.partition(":")
    stated = {"md5": digest} if algorithm == "md5" and digest else {}
    return Source(url, file["bytes"] or size, {**stated, **hashes})
