"""Optional dependencies: a clear word where one is absent."""

from __future__ import annotations

from importlib.util import find_spec


def require(module: str, *, extra: str, purpose: str) -> None:
    """Refuse to go on without a package that an extra installs.

    Parameters
    ----------
    module
        Name to import.
    extra
        Extra of this package that installs it.
    purpose
        What needs it, for the message.

    Raises
    ------
    ImportError
        If it is not installed; the message says how to install it.
    """
    if find_spec(module) is None:
        message = f'{purpose} needs {module}: pip install "bulkformer-tl[{extra}]"'
        raise ImportError(message)
