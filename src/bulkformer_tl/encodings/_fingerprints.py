"""Morgan fingerprints of compounds, from SMILES."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bulkformer_tl import _optional

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

#: Bonds around each atom, and length of the fingerprint: ECFP4, as commonly used.
RADIUS, N_BITS = 2, 2048


def morgan_fingerprints(
    smiles: Mapping[str, str], *, radius: int = RADIUS, n_bits: int = N_BITS
) -> NDArray[np.float32]:
    """Compute Morgan fingerprints of compounds (Rogers and Hahn 2010, doi:10.1021/ci100050t), by RDKit.

    Parameters
    ----------
    smiles
        Name and SMILES of each of P compounds.
    radius
        Bonds around each atom that make up a fragment.
    n_bits
        Number of bits that fragments are hashed to.

    Returns
    -------
    0 or 1, shape (P, ``n_bits``), compounds in the order of ``smiles``.

    Raises
    ------
    ImportError
        If RDKit is not installed.
    TypeError
        If a SMILES is not text.
    ValueError
        If a SMILES is empty or no molecule; the message names the compounds.
    """
    _optional.require("rdkit", extra="drugs", purpose="a fingerprint of a compound")
    from rdkit.Chem import rdFingerprintGenerator

    molecules = read_molecules(smiles)
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=radius, fpSize=n_bits)
    found = np.zeros((len(molecules), n_bits), dtype=np.float32)
    for row, molecule in enumerate(molecules):
        found[row] = generator.GetFingerprintAsNumPy(molecule)
    return found


def read_molecules(smiles: Mapping[str, str]) -> list[Any]:
    """Parse SMILES, or name every compound whose SMILES is none."""
    from rdkit import Chem, rdBase

    other = {name: text for name, text in smiles.items() if not isinstance(text, str)}
    if other:
        name, text = next(iter(other.items()))
        message = f"the SMILES of {name!r} is {text!r}, and {len(other)} of {len(smiles)} are no text; leave them out"
        raise TypeError(message)
    # RDKit would print each failure beside the exception
    with rdBase.BlockLogs():
        molecules = [Chem.MolFromSmiles(text) if text.strip() else None for text in smiles.values()]
    broken = {name: smiles[name] for name, found in zip(smiles, molecules, strict=True) if found is None}
    if broken:
        some = ", ".join(f"{name!r} ({text!r})" for name, text in list(broken.items())[:5])
        more = f" and {len(broken) - 5} more" if len(broken) > 5 else ""
        message = f"no molecule can be read from the SMILES of {some}{more}; correct them, or leave the compounds out"
        raise ValueError(message)
    return molecules
