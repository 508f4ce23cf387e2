from __future__ import annotations

import numpy as np
import pytest

from bulkformer_tl.encodings import morgan_fingerprints

pytest.importorskip("rdkit")

SMILES = {"ethanol": "CCO", "the same": "OCC", "benzene": "c1ccccc1"}


def test_fingerprints_are_those_of_rdkit_and_of_the_molecule():
    from rdkit import Chem
    from rdkit.Chem import rdFingerprintGenerator

    found = morgan_fingerprints(SMILES)
    assert found.shape == (3, 2048)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[0], found[1])
    assert (found[0] != found[2]).any()
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)
    bits = set(generator.GetFingerprint(Chem.MolFromSmiles("CCO")).GetOnBits())
    assert set(np.flatnonzero(found[0])) == bits
    assert morgan_fingerprints(SMILES, n_bits=64).shape == (3, 64)


@pytest.mark.parametrize(
    ("smiles", "error", "message"),
    [
        ({"good": "CCO", "bad": "C1CC"}, ValueError, r"SMILES of 'bad' \('C1CC'\); correct them"),
        ({"empty": " "}, ValueError, "SMILES of 'empty'"),
        ({str(i): "?" for i in range(7)}, ValueError, "and 2 more"),
        ({"good": "CCO", "missing": np.nan}, TypeError, "the SMILES of 'missing' is nan, and 1 of 2 are no text"),
    ],
)
def test_bad_smiles_are_named(smiles, error, message, capfd):
    with pytest.raises(error, match=message):
        morgan_fingerprints(smiles)
    assert capfd.readouterr().err == ""


def test_missing_rdkit_is_explained(monkeypatch):
    from bulkformer_tl import _optional

    monkeypatch.setattr(_optional, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'pip install "bulkformer-tl\[drugs\]"'):
        morgan_fingerprints(SMILES)
