"""Checks that end with a message."""

from __future__ import annotations


def refuse_unless(condition: bool, message: str) -> None:  # noqa: FBT001  a condition is what it is
    """Raise a ``ValueError`` with the message unless the condition holds."""
    if not condition:
        raise ValueError(message)
