"""`bulkformer vocabulary` gives what the function behind it gives."""

from __future__ import annotations

import numpy as np
import pytest

import bulkformer_tl as bf
from bulkformer_tl._vocabulary import GeneVocabulary


def test_vocabulary(run, counts, folder):
    adata = bf.read(counts)
    adata[:3, 5:].copy().write_h5ad("other.h5ad")
    ended = run("vocabulary", counts, "other.h5ad", "--counts", "--min-share", 1, "-o", "genes.csv", "--json")
    assert (ended.code, ended.json["n_files"], ended.json["n_genes"]) == (0, 2, 85)
    expected = bf.pp.build_vocabulary([adata, adata[:3, 5:]], min_share=1)
    found = GeneVocabulary.from_csv(folder / "genes.csv")
    for name in ("ids", "symbols", "lengths", "means", "medians"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_other_units_are_converted(run, table, folder):
    (table / table.sum(axis=1).to_numpy()[:, None] * 1e6).to_csv("tpm.csv")
    assert run("vocabulary", "tpm.csv", "--unit", "tpm", "-o", "genes.csv").code == 0
    found = GeneVocabulary.from_csv(folder / "genes.csv")
    adata = bf.read("tpm.csv")
    np.testing.assert_allclose(found.means, np.log1p(adata.to_df()[found.ids]).mean(), rtol=1e-5)
    assert found.medians is None


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["-o", "genes.h5ad"], 2, ".csv"),
        (["--min-share", 2, "-o", "genes.csv"], 2, "0<=x<=1"),
        (
            ["-o", "genes.csv"],
            3,
            "pass --unit counts for raw counts, and pass --unit UNIT on anything else; in cohort 1",
        ),
        (["--counts", "--default-length", 1000, "-o", "genes.csv"], 3, "leave them out with counts"),
        (["--counts", "--identifiers", "entrez", "-o", "genes.csv"], 3, "leave out --identifiers"),
    ],
)
def test_refused(run, counts, folder, words, code, message):
    ended = run("vocabulary", counts, counts, *words)
    assert ended.code == code
    assert message in ended.err
    assert sorted(path.name for path in folder.iterdir()) == ["counts.csv"]


def test_duplicates_are_merged_when_asked(run, table, folder):
    table.set_axis([*table.columns[:-1], f"{table.columns[0]}.7"], axis=1).to_csv("twice.csv")
    ended = run("vocabulary", "twice.csv", "--counts", "-o", "genes.csv")
    assert ended.code == 3
    assert "pass --merge-duplicates" in ended.err
    assert run("vocabulary", "twice.csv", "--counts", "--merge-duplicates", "-o", "genes.csv").code == 0
    assert len(GeneVocabulary.from_csv(folder / "genes.csv")) == 89
