"""Probes of sample vectors on studies made for the purpose."""

from __future__ import annotations

from types import SimpleNamespace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch


@pytest.fixture
def probe(script, monkeypatch):
    module = script("probe")
    monkeypatch.setattr(module.metrics, "batch_mixing", lambda points, labels, batches: {"ilisi": points.shape[1]})
    return module


@pytest.fixture
def labelled(workshop, tmp_path):
    """Two studies share two diseases, which raise all genes or do not; one of them has another label."""
    rng = np.random.default_rng(0)
    for file in "abcdef":
        own = workshop.files == f"{file}.h5ad"
        obs = pd.DataFrame(index=[f"s{i}" for i in range(own.sum())])
        if file in "ab":
            sick = np.arange(len(obs)) % 2 == 0
            workshop.expression[own] += np.where(sick[:, None], 2, 0)
            obs["disease"] = np.where(sick, "Sick", "healthy")
            obs.loc["s3", "disease"] = "none given"
            obs["subtype"] = rng.permutation(["x", "y"] * 8) if file == "a" else "x"
        ad.AnnData(np.zeros((len(obs), 1), dtype=np.float32), obs=obs).write_h5ad(tmp_path / f"{file}.h5ad")

    def model(fold):
        def encode(values, outputs):
            filled = np.nan_to_num(values, nan=np.nanmean(values))
            vectors = np.column_stack([filled.mean(axis=1), rng.normal(size=(len(values), 3))])
            return SimpleNamespace(pooled=torch.from_numpy(vectors))

        return SimpleNamespace(encode=encode)

    workshop.model = model
    return workshop


@pytest.fixture
def table(probe, labelled, tmp_path, monkeypatch):
    monkeypatch.setattr(probe, "WIDTHS", (1, 2))
    return probe.probe(labelled, tmp_path, [0, 1, 2])


def test_labels_are_predicted_within_studies(table):
    within = table[table["kind"] == "within"]
    assert set(zip(within["file"], within["label"], strict=True)) == {
        ("a.h5ad", "disease"),
        ("b.h5ad", "disease"),
        ("a.h5ad", "subtype"),
    }
    assert set(within["width"]) == {1, 2, 4}
    disease = within[(within["label"] == "disease") & (within["width"] == 1)]
    assert (disease["mini"] > 0.8).all()
    assert (within["chance"] == 0.5).all()


def test_labels_are_predicted_across_studies(table):
    across = table[table["kind"] == "across"]
    assert set(across["file"]) == {"a.h5ad", "b.h5ad"}
    assert set(across["label"]) == {"disease"}
    assert (across.loc[across["width"] == 1, "mini"] > 0.8).all()


def test_mixing_is_of_studies_that_share_classes(table):
    mixing = table[table["kind"] == "mixing"]
    assert mixing[["label", "file", "score", "width"]].to_numpy().tolist() == [["disease", "2 files", "ilisi", 4]]
    assert mixing["PCA"].tolist() == [4]


def test_people_stay_together(probe):
    """Labels that follow people alone cannot be learnt when whole people are left out."""
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(24), 4)
    points = 5 * rng.normal(size=(24, 16))[people]
    labels = rng.permutation(np.repeat(["a", "b"], 12))[people]
    study = probe.Study("f", np.arange(96), labels, people)
    alone = probe.Study("f", np.arange(96), labels, np.zeros(96))
    vectors = {"mini": points, "PCA": points}
    together, apart = (next(probe._within([part], vectors))["mini"] for part in (study, alone))
    assert together < 0.75 < apart


def test_summary_is_paired(probe):
    table = pd.DataFrame(
        {
            "kind": "within",
            "score": "balanced accuracy",
            "width": 16,
            "file": list("aabbc"),
            "chance": 0.5,
            "PCA": [0.5, 0.6, 0.7, 0.8, 0.9],
        }
    ).assign(mini=lambda rows: rows["PCA"] + 0.05)
    row = probe.summarise_probe(table).iloc[0]
    assert row["n"] == 5
    assert row["PCA"] == 0.7
    assert row[["difference", "difference_low", "difference_high"]].to_list() == [0.05] * 3
    both = pd.concat([table, table.iloc[:1].assign(kind="mixing")])
    both["chance"] = both["chance"].where(both["kind"] == "within")
    text = probe.render_probe(both)
    assert "| within | balanced accuracy | 16 | 5 | 0.5 | 0.75 | 0.7 | +0.050 [+0.050, +0.050] |" in text
    assert "| mixing | balanced accuracy | 16 | 1 |  | 0.55 | 0.5 | +0.050 |" in text
