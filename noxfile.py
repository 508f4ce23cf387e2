"""Sessions of the project: ``nox -l`` lists them.

Python versions stand in ``.python-version``, dependencies in ``pyproject.toml``; nothing is repeated here. uv links
packages from its cache, so a further environment costs seconds and hardly any disk.
"""

from __future__ import annotations

from pathlib import Path

import nox

PROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = Path(".python-version").read_text(encoding="utf-8").split()
LOWEST = PYTHONS[0]

nox.options.default_venv_backend = "uv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["tests", "lint", "types", "docs"]


def install(session: nox.Session, *groups: str, options: tuple[str, ...] = ()) -> None:
    """Install the package as it lies here, with some of its dependency groups."""
    session.install(*options, "-e", ".", *nox.project.dependency_groups(PROJECT, *groups))


@nox.session(python=LOWEST)
def demo(session: nox.Session) -> None:
    """Run the main job end to end, on toy data or on the file that is named."""
    install(session)
    session.run("python", "examples/demo.py", *session.posargs, "--out", "demo-output")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests on every supported Python."""
    install(session, "test")
    session.run("pytest", *session.posargs)


@nox.session(python=LOWEST)
def tests_lowest(session: nox.Session) -> None:
    """Run the tests with the oldest direct dependencies that pyproject.toml allows."""
    install(session, "test", options=("--resolution", "lowest-direct"))
    session.run("pytest", *session.posargs)


@nox.session(python=LOWEST)
def lint(session: nox.Session) -> None:
    """Check style and format of the whole repository."""
    session.install(*nox.project.dependency_groups(PROJECT, "lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session(python=LOWEST)
def types(session: nox.Session) -> None:
    """Check the types of the package."""
    install(session, "types")
    session.run("mypy")


@nox.session(python=LOWEST)
def docs(session: nox.Session) -> None:
    """Build the documentation; a warning is an error, and nothing is fetched."""
    install(session, "doc")
    session.run("sphinx-build", "-W", "-n", "--keep-going", "-b", "html", "docs", "docs/_build/html", *session.posargs)


@nox.session(python=LOWEST)
def bench(session: nox.Session) -> None:
    """Run every benchmark, or those that are named, with the options that follow.

    Each prints a table or a ratio; ``nox -s bench -- benchmarks/probes.py --write`` makes its page of the docs anew.
    """
    install(session, "test")
    named = [word for word in session.posargs if word.endswith(".py")]
    options = [word for word in session.posargs if word not in named]
    for script in named or sorted(map(str, Path("benchmarks").glob("*.py"))):
        session.run("python", script, *options)
