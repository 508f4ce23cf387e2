"""Writes the embedded checkpoint as a bundle with its card."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import corpus as corpora
import numpy as np
import pandas as pd
from probe import render_probe
from scores import markdown, render
from tuning import apply, tuning_without

from bulkformer_tl.models import BulkFormer, convert
from bulkformer_tl.models._files import sha256

if TYPE_CHECKING:
    import torch
    from mini import Workshop

    from bulkformer_tl.models._mini import MiniNetwork

#: Folds whose left-out samples choose shrinkage and calibration of the model that ships.
TUNING_FOLDS = range(5)
#: Shares of the vocabulary that may be missing without a warning.
TRAINED_MISSING = (0.0, 0.95)
CARD = Path(__file__).with_name("mini_card.md")
RESULTS = Path(__file__).with_name("results")


def write_bundle(workshop: Workshop) -> Path:
    """Train on all samples and write ``bulkformer-mini``; an older bundle in the folder is replaced.

    Parameters
    ----------
    workshop
        Corpus and stages.

    Returns
    -------
    The bundle's folder.
    """
    network = workshop.network()
    apply(network, [tuning_without(workshop, fold) for fold in TUNING_FOLDS])
    model = as_model(workshop, network, workshop.graph())
    target = workshop.out / "bulkformer-mini"
    with tempfile.TemporaryDirectory(dir=workshop.out) as temporary:
        folder = convert(model, Path(temporary) / "bulkformer-mini", card=card(workshop))
        _add_mean(folder, workshop)
        shutil.rmtree(target, ignore_errors=True)
        folder.replace(target)
    return target


def as_model(workshop: Workshop, network: MiniNetwork, graph: tuple[torch.Tensor, torch.Tensor]) -> BulkFormer:
    """Put a network together with its genes and what is known of it."""
    return BulkFormer(
        network,
        workshop.vocabulary,
        graph=graph,
        name="bulkformer-mini",
        family="mini",
        denominator="vocabulary",
        default_pooling="scores",
        trained_missing=TRAINED_MISSING,
        provenance={"source": "training/mini.py", "corpus": [entry["original"] for entry in corpora.entries()]},
    )


def _add_mean(folder: Path, workshop: Workshop) -> None:
    """Give ``genes.csv`` the corpus mean of ln(TPM+1) and list the file anew in the manifest."""
    path = folder / "genes.csv"
    corpora.write_genes(workshop.vocabulary, np.nanmean(workshop.expression, axis=0), path)
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    manifest["files"]["genes.csv"] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def card(workshop: Workshop) -> str:
    """Return the card: ``mini_card.md`` with the tables of the last evaluation and the list of source files."""
    text = CARD.read_text(encoding="utf-8")
    for mark, table in {
        "scores": render(pd.read_csv(RESULTS / "mini.csv")),
        "probe": render_probe(pd.read_csv(RESULTS / "mini_probe.csv")),
        "sources": markdown(_sources(workshop)),
    }.items():
        text = text.replace(f"<!-- {mark} -->", table)
    return text


def _sources(workshop: Workshop) -> pd.DataFrame:
    missing = pd.Series(np.isnan(workshop.expression).mean(axis=1)).groupby(workshop.files).first()
    table = pd.DataFrame(corpora.entries())
    table["missing"] = [f"{missing[file]:.1%}" for file in table["file"]]
    table["file"] = [f"`{file}`" for file in table["file"]]
    names = ["file", "samples", "unit", "missing", "original", "source", "licence"]
    return table[names].rename(columns={"missing": "genes missing"})
