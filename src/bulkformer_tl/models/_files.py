"""Reading other people's files: checked first, and never running what is in them."""

from __future__ import annotations

import hashlib
import json
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def require_file(path: str | Path, what: str, where: str = "") -> Path:
    """Return the path if it is a file.

    Raises
    ------
    FileNotFoundError
        If not; the message says what it would be and where to get it.
    """
    found = Path(path)
    if not found.is_file():
        message = f"{what} is not at {found}" + (f"; get it from {where}" if where else "")
        raise FileNotFoundError(message)
    return found


def verify_file(path: Path, *, size: int | None, digest: str | None) -> None:
    """Compare a file with the size (bytes) and SHA-256 that are known of it.

    Raises
    ------
    ValueError
        If one of them differs: the file was cut, changed, or is another one.
    """
    if size is not None and path.stat().st_size != size:
        message = f"{path} has {path.stat().st_size:,} bytes instead of {size:,}: it is incomplete or another file"
        raise ValueError(message)
    if digest is not None and (found := sha256(path)) != digest:
        message = f"{path} has the SHA-256 {found} instead of {digest}: it was changed or is another file"
        raise ValueError(message)


def verify_manifest(folder: Path, listed: Any, names: set[str]) -> None:
    """Check that a manifest lists exactly these files and that each has its size and SHA-256.

    Parameters
    ----------
    folder
        Where the files are.
    listed
        The manifest's entry ``files``: name -> ``bytes`` and ``sha256``.
    names
        File names expected.

    Raises
    ------
    ValueError
        If the manifest is of another form, names other files (in other folders, say), or a file differs.
    FileNotFoundError
        If a file is absent.
    """
    if not isinstance(listed, dict) or set(listed) != names:
        found = sorted(map(str, listed)) if isinstance(listed, dict) else listed
        message = f"the manifest in {folder} lists the files {found}; expected exactly {sorted(names)}"
        raise ValueError(message)
    for name in sorted(names):
        entry = listed[name]
        if not isinstance(entry, dict) or not {"bytes", "sha256"} <= set(entry):
            message = f"the manifest in {folder} does not state the bytes and sha256 of {name}"
            raise ValueError(message)
        require_file(folder / name, f"the file {name} of the model")
        verify_file(folder / name, size=entry["bytes"], digest=entry["sha256"])


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises
    ------
    ValueError
        If the file is not JSON or not an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        message = f"{path} is not JSON: {error}"
        raise ValueError(message) from error
    if not isinstance(content, dict):
        message = f"{path} should hold a JSON object, found {type(content).__name__}"
        raise ValueError(message)  # noqa: TRY004  the file is wrong, not the argument's type
    return content


def read_tensors(path: Path) -> Any:
    """Read a ``.pt`` or ``.safetensors`` file; a pickle that holds more than plain data is refused and not run.

    Raises
    ------
    ValueError
        If the file is damaged or holds code.
    """
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            message = f"{path} is damaged: {error}"
            raise ValueError(message) from error
    _check_archive(path)
    try:
        with warnings.catch_warnings():
            # torch wonders about files that it did not write itself; those it cannot read are refused below
            warnings.filterwarnings("ignore", message="Detected pickle protocol", category=UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        message = f"{path} is damaged or holds more than tensors, possibly code; it was not run. {_first_line(error)}"
        raise ValueError(message) from error
    except (RuntimeError, EOFError, KeyError, ValueError) as error:
        message = f"{path} is damaged or not a file of tensors: {_first_line(error)}"
        raise ValueError(message) from error


def read_tensor(path: Path, what: str) -> Tensor:
    """Read a file that holds one tensor.

    Raises
    ------
    ValueError
        If it holds something else.
    """
    content = read_tensors(path)
    if not isinstance(content, Tensor):
        message = f"{path} should hold {what} as one tensor, found {type(content).__name__}"
        raise ValueError(message)  # noqa: TRY004  the file is wrong, not the argument's type
    return content


def _check_archive(path: Path) -> None:
    # torch does not compare the checksums of the archive's members, so that a flipped bit would go unnoticed
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, NotImplementedError) as error:
        message = f"{path} is damaged: {error}"
        raise ValueError(message) from error
    if damaged is not None:
        message = f"{path} is damaged: the checksum of its part {damaged} is wrong; download it again"
        raise ValueError(message)


def _first_line(error: Exception) -> str:
    return str(error).split("\n", maxsplit=1)[0]
