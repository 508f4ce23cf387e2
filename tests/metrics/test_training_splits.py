"""The leave-study-out folds of training/splits.yaml keep together what belongs together."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import h5py
import pandas as pd
import pytest
import yaml

from bulkformer_tl.metrics import leave_one_group_out

SPLITS = Path(__file__).parents[2] / "training" / "splits.yaml"


@pytest.fixture(scope="module")
def table():
    return pd.DataFrame(yaml.safe_load(SPLITS.read_text(encoding="utf-8")))


def test_groups_are_whole(table):
    assert table["file"].is_unique
    assert not table[["group", "fold"]].drop_duplicates()["group"].duplicated().any()
    splits = leave_one_group_out(table["fold"])
    assert [split.name for split in splits] == ["0", "1", "2", "3", "4"]


def test_folds_are_balanced(table):
    sizes = table.groupby("fold")["samples"].sum()
    largest = table.groupby("group")["samples"].sum().max()
    # no fold can be smaller than its largest group, and none needs to be much larger than an even share
    assert sizes.max() <= max(largest, 1.05 * sizes.mean())
    assert sizes.min() >= 0.9 * sizes.mean()


def test_files_are_those_of_the_folder_but_for_agpl(table, cohorts):
    found = {path.name for path in cohorts.glob("*.h5ad")}
    assert found - set(table["file"]) == {"brain_age9_counts.h5ad"}
    assert set(table["file"]) <= found


def test_people_are_in_one_fold(table, cohorts):
    """Names of people and lines that two files share stand in one fold."""
    seen: dict[str, set[int]] = {}
    for row in table.itertuples():
        with h5py.File(cohorts / row.file) as file:
            obs = ad.io.read_elem(file["obs"])
        assert len(obs) == row.samples
        if isinstance(row.people, str):
            study = obs.get("study", pd.Series(row.group, index=obs.index))
            for name in set(obs[row.people].astype(str)):
                # numbers and letters of a study's own are no names that another study shares
                key = name if name.startswith(("TCGA-", "NA", "GTEX-")) else f"{study.iloc[0]} {name}"
                seen.setdefault(key, set()).add(row.fold)
    assert {name: folds for name, folds in seen.items() if len(folds) > 1} == {}
    assert len([name for name in seen if name.startswith("TCGA-")]) > 400
    assert {"NA18855", "NA18856", "NA19160"} <= set(seen)
