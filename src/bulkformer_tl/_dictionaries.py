"""Dictionaries of gene identifiers in JSON or pickle files, read without running what is in them."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bulkformer_tl._unfinished import replacing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn

Entry = str | int | float

#: What a damaged or hostile pickle may end in.
_FAULTS = (
    pickle.UnpicklingError,
    ArithmeticError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)


class _PlainUnpickler(pickle.Unpickler):
    """Makes nothing that needs a class or a function: no name is looked up, so that nothing can be called."""

    def find_class(self, module_name: str, global_name: str, /) -> NoReturn:
        message = f"it asks for {module_name}.{global_name}"
        raise pickle.UnpicklingError(message)


def read_dictionary(path: str | Path) -> dict[str, Entry]:
    """Read a dictionary from a JSON or pickle file, such as those published with Geneformer.

    Parameters
    ----------
    path
        The file, ``.json``, ``.pkl`` or ``.pickle``.

    Returns
    -------
    Text to text or number.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is of another kind, damaged, or holds anything but a dictionary of text to text or numbers.
    """
    file = Path(path)
    if not file.is_file():
        message = f"there is no dictionary {file}"
        raise FileNotFoundError(message)
    if file.suffix == ".json":
        try:
            content: Any = json.loads(file.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            message = f"{file} is not JSON: {error}"
            raise ValueError(message) from error
    elif file.suffix in {".pkl", ".pickle"}:
        content = _unpickle(file)
    else:
        message = f"{file} is neither .json nor .pkl; dictionaries of genes are one of them"
        raise ValueError(message)
    return _check(content, file)


def write_dictionary(path: str | Path, content: Mapping[str, Entry]) -> None:
    """Write a dictionary as JSON, complete or not at all.

    Parameters
    ----------
    path
        The file.
    content
        Text to text or number.
    """
    with replacing(Path(path)) as unfinished:
        unfinished.write_text(json.dumps(dict(content), indent=0) + "\n", encoding="utf-8")


def _unpickle(file: Path) -> Any:
    try:
        with file.open("rb") as handle:
            return _PlainUnpickler(handle).load()
    except _FAULTS as error:
        message = (
            f"{file} is damaged or holds more than a dictionary of text and numbers, possibly code; it was not run "
            f"({error})"
        )
        raise ValueError(message) from error


def _check(content: Any, file: Path) -> dict[str, Entry]:
    # exact types: truth values are numbers, and nothing else may pass for text
    if type(content) is not dict:
        message = f"{file} holds {type(content).__name__}, not a dictionary"
        raise ValueError(message)
    for key, value in content.items():
        if type(key) is not str or type(value) not in {str, int, float}:
            message = (
                f"{file} holds the entry {str(key)[:40]!r} of type {type(value).__name__}; "
                "a dictionary of genes maps text to text or numbers"
            )
            raise ValueError(message)
    return content
