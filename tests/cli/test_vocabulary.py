"""`bulkformer vocabulary` gives what the function behind it gives."""

from __future__ import annotations

import numpy as np

import bulkformer_tl as bf
from bulkformer_tl._vocabulary import GeneVocabulary


def test_vocabulary(run, counts, folder):
    ended = run("vocabulary", counts, counts, "-o", "genes.csv", "--json")
    assert (ended.code, ended.json["n_files"]) == (0, 2)
    expected = bf.pp.build_vocabulary([bf.read(counts)] * 2)
    found = GeneVocabulary.from_csv(folder / "genes.csv")
    assert found.ids.tolist() == expected.ids.tolist()
    np.testing.assert_array_equal(found.medians, expected.medians)


def test_refused(run, counts, folder):
    assert run("vocabulary", counts, "-o", "genes.h5ad").code == 2
    assert run("vocabulary", counts, "--min-share", 2, "-o", "genes.csv").code == 3
    assert sorted(path.name for path in folder.iterdir()) == ["counts.csv"]
