"""``bulkformer diagnose``."""

from __future__ import annotations

import shlex
import textwrap
from typing import TYPE_CHECKING, Any

import click

from bulkformer_tl.cli._options import PATH, complete_models, reading_options
from bulkformer_tl.cli._prepare import read_input
from bulkformer_tl.cli._session import BAD_DATA, Answer, session
from bulkformer_tl.cli._translate import options_of

if TYPE_CHECKING:
    from pathlib import Path

    from bulkformer_tl.cli._options import Reading


@click.command()
@click.argument("file", type=PATH)
@click.option("--model", metavar="NAME|FOLDER", shell_complete=complete_models, help="Whose genes to look for.")
@click.option("--groups", metavar="COLUMN", help="Compare units between groups, such as studies, of the metadata.")
@click.option("--check", is_flag=True, help="Exit with code 3 if a finding is an error.")
@reading_options
@session
def diagnose(*, file: Path, model: str | None, groups: str | None, check: bool, reading: Reading) -> Answer:
    """Say what FILE holds and which command comes next.

    Finds the unit (counts, TPM, FPKM, CPM, which logarithm), the kind of gene names, the orientation, duplicates,
    missing and impossible values, and the share of the model's genes that are there. Nothing is written.

    \b
    Examples:
      bulkformer diagnose counts.csv
      bulkformer diagnose quants/ --tx2gene tx2gene.csv
      bulkformer diagnose cohort.h5ad --groups study --json > report.json
    """
    from bulkformer_tl import pp

    adata = read_input(file, reading)
    report = pp.diagnose(adata, vocabulary=model, groups=groups)
    command = _next(file, report.calls, model)
    findings: list[dict[Any, Any]] = report.findings.to_dict("records")
    lines = [f"{file}: {adata.n_obs} samples x {adata.n_vars} genes", ""]
    for found in findings:
        head = f"{found['severity']:<8}{found['check']}, {found['where']}: {found['found']}"
        lines += textwrap.wrap(head, width=100, subsequent_indent=" " * 8)
        lines += [f"{'':8}>>> {found['call']}"] if found["call"] and command is None else []
    lines += ["", f"Next: {command}"] if command else ["", "No option does all of this; the lines with >>> are Python."]
    data = {
        "file": file,
        "n_samples": adata.n_obs,
        "n_genes": adata.n_vars,
        "unit": report.unit,
        "identifiers": report.identifiers,
        "layer": report.layer,
        "coverage": report.coverage,
        "ok": report.ok,
        "findings": findings,
        "calls": report.calls,
        "command": command,
        "read": adata.uns.get("read", {}),
    }
    return Answer(data, "\n".join(lines), BAD_DATA if check and not report.ok else 0)


def _next(file: Path, calls: list[str], model: str | None) -> str | None:
    """Return the command that does what the calls do, ``None`` if options cannot."""
    options: list[str] = []
    for call in calls:
        for statement in call.split("; "):
            found = options_of(statement)
            if found is None:
                return None
            options += found
    if not calls:
        return None
    if model and "--model" not in options:
        options += ["--model", model]
    pairs = list(dict.fromkeys(_pairs(options)))
    words = [word for pair in pairs for word in pair]
    return shlex.join(["bulkformer", "embed", str(file), *words, "-o", f"{file.name.split('.')[0]}_embedded.h5ad"])


def _pairs(options: list[str]) -> list[tuple[str, ...]]:
    """Put each option and its value together, so that none is given twice."""
    pairs: list[tuple[str, ...]] = []
    for word in options:
        if word.startswith("--"):
            pairs.append((word,))
        else:
            pairs[-1] += (word,)
    return pairs
