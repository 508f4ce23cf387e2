"""What all commands share: where their words go, and which errors end them with which code."""

from __future__ import annotations

import functools
import json
import logging
import math
import sys
import traceback
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bulkformer_tl.cli._translate import translate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

USAGE, BAD_DATA, ABSENT, UNVERIFIED, SYSTEM, INTERRUPTED = 2, 3, 4, 5, 6, 130


@dataclass(frozen=True)
class Answer:
    """What a command has to say on standard output.

    Parameters
    ----------
    data
        For ``--json``.
    text
        For people; empty where the result is a file.
    code
        Exit code.
    """

    data: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""
    code: int = 0


class Failure(click.ClickException):
    """An error that a user can mend, with its exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        # click declares one code per class, and reads the instance's
        self.exit_code = code  # type: ignore[misc]


def session(command: Callable[..., Answer]) -> Callable[..., int]:
    """Add ``--json``, ``--quiet`` and ``--debug``, and turn expected errors into a line and an exit code."""

    @click.option("--json", "as_json", is_flag=True, help="Write the result as JSON to standard output.")
    @click.option("--quiet", "-q", is_flag=True, help="Only warnings and errors on standard error, no progress.")
    @click.option("--debug", is_flag=True, help="Show the traceback of errors.")
    @functools.wraps(command)
    def run(*, as_json: bool, quiet: bool, debug: bool, **options: Any) -> int:
        try:
            with _reporting(quiet=quiet):
                answer = command(**options)
        except (ValueError, KeyError, OSError) as error:
            if isinstance(error, BrokenPipeError):
                raise
            if debug:
                traceback.print_exc()
            failure = _failure(error)
            if as_json:
                click.echo(json.dumps({"error": {"code": failure.exit_code, "message": failure.message}}))
            raise failure from error
        if as_json:
            click.echo(json.dumps(_plain(answer.data), indent=2))
        elif answer.text:
            click.echo(answer.text)
        return answer.code

    return run


@contextmanager
def _reporting(*, quiet: bool) -> Iterator[None]:
    """Send logs, warnings and progress of the package to standard error while a command runs."""
    from bulkformer_tl._settings import settings

    logger, handler = logging.getLogger("bulkformer_tl"), logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    try:
        # what libraries announce to programmers is of no use here; a bar would fill a file with its steps
        with warnings.catch_warnings(), settings.override(progress=_shows_progress(quiet=quiet)):
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", UserWarning)
            warnings.showwarning = lambda message, *_args, **_kwargs: logger.warning("%s", message)
            yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def _shows_progress(*, quiet: bool) -> bool:
    from bulkformer_tl._settings import settings

    return settings.progress and not quiet and sys.stderr.isatty()


class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        kind = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        return kind + translate(record.getMessage())


def _failure(error: Exception) -> Failure:
    from bulkformer_tl.registry import DownloadError

    # str() of a KeyError is its repr
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    text = "; ".join([text, *getattr(error, "__notes__", [])])
    codes: list[tuple[type[Exception], int]] = [
        (DownloadError, UNVERIFIED),
        (FileExistsError, USAGE),
        (FileNotFoundError, ABSENT),
        (OSError, SYSTEM),
    ]
    code = next((code for kind, code in codes if isinstance(error, kind)), BAD_DATA)
    return Failure(translate(text), code)


def _plain(value: Any) -> Any:
    """Return what JSON can hold; ``NaN`` becomes ``null``."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value
