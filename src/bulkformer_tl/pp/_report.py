"""The report of :func:`bulkformer_tl.pp.diagnose`."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bulkformer_tl._vocabulary import Identifiers
    from bulkformer_tl.encodings._platform import Platform
    from bulkformer_tl.pp._recognise_names import Species

Severity = Literal["ok", "note", "warning", "error"]

#: Background of a row in a notebook, readable in light and dark themes.
_COLOURS = {"ok": "transparent", "note": "#4477aa22", "warning": "#ccbb4455", "error": "#ee667755"}


@dataclass(frozen=True)
class Finding:
    """One fact about a data set.

    Parameters
    ----------
    check
        What was looked at.
    where
        ``"X"``, ``"layers['<name>']"``, ``"raw"``, ``"var_names"``, ``"obs_names"`` or a column.
    found
        The fact, with its numbers.
    severity
        ``"ok"``; ``"note"``, worth knowing; ``"warning"``, results may suffer; ``"error"``, the model cannot read this.
    call
        Python that mends it, or the next step; empty where no call can.
    """

    check: str
    where: str
    found: str
    severity: Severity = "ok"
    call: str = ""


@dataclass(frozen=True, eq=False)
class Report:
    """What a data set is, and what to call next. A notebook shows it as a table, ``print`` as text.

    Parameters
    ----------
    findings
        One row per finding, with the columns ``check``, ``where``, ``found``, ``severity`` and ``call``.
    unit
        Unit of the proposed matrix, for example ``"counts"``, ``"log_tpm"`` (natural) or ``"log2_cpm"``;
        ``"tpm_or_fpkm"`` where the values cannot tell, ``"unknown"`` where they lead nowhere.
    identifiers
        What ``var_names`` are: the value of ``identifiers=`` in other functions, or ``None`` for other names.
    layer
        The layer to start from; ``None`` means ``X``.
    coverage
        Share of the vocabulary's genes that are there.
    species
        ``"human"``, ``"mouse"`` (or rat, where there are symbols only), ``"other"``; ``None`` where names do not tell.
    platform
        ``"bulk"``, ``"single-cell"``, ``"microarray"``, ``"panel"`` (or a selection of genes); ``"unknown"`` where the
        values cannot tell.
    sex
        ``"female"``, ``"male"`` or ``"undetermined"`` by sample, where a column was compared; else ``None``.
    """

    findings: pd.DataFrame
    unit: str
    identifiers: Identifiers | None
    layer: str | None
    coverage: float
    species: Species | None = None
    platform: Platform = "unknown"
    sex: pd.Series | None = None

    @classmethod
    def from_findings(
        cls,
        findings: Sequence[Finding],
        *,
        unit: str,
        identifiers: Identifiers | None,
        layer: str | None,
        coverage: float,
        species: Species | None = None,
        platform: Platform = "unknown",
        sex: pd.Series | None = None,
    ) -> Report:
        """Make the table from single findings."""
        table = pd.DataFrame(findings, columns=["check", "where", "found", "severity", "call"])
        return cls(table, unit, identifiers, layer, coverage, species, platform, sex)

    @property
    def calls(self) -> list[str]:
        """The calls of all findings in the order in which to make them; the last one is the next step."""
        return list(dict.fromkeys(call for call in self.findings["call"] if call))

    @property
    def ok(self) -> bool:
        """Whether there is no error among the findings."""
        return not (self.findings["severity"] == "error").any()

    def __str__(self) -> str:
        lines: list[str] = []
        for row in self.findings.astype(str).to_dict("records"):
            head = f"{row['severity']:<8}{row['check']}, {row['where']}: {row['found']}"
            lines += textwrap.wrap(head, width=110, subsequent_indent=" " * 8)
            lines += [f"{'':8}>>> {row['call']}"] if row["call"] else []
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        colours = self.findings["severity"].map(_COLOURS)
        styler = (
            self.findings.style.hide(axis="index")
            .apply(lambda column: [f"background-color: {colours[i]}" for i in column.index], axis=0)
            .map(lambda _: "text-align: left; vertical-align: top")
            .map(lambda _: "font-family: monospace", subset=["call"])
            .format(escape="html")
        )
        return str(styler.to_html())
