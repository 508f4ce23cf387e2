"""A small cohort with planted structure, made on the spot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from bulkformer_tl._vocabulary import gene_table, load_vocabulary

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Well-known markers of each tissue; liver, muscle, blood and brain are the first that come to a biologist's mind.
MARKERS = {
    "liver": ("ALB", "APOA1", "APOA2", "APOC3", "TTR", "FGA", "FGB", "SERPINA1", "CYP2E1", "CYP3A4", "HP", "TF"),
    "muscle": ("ACTA1", "CKM", "MYH2", "MYH7", "MYL2", "TNNT3", "TNNC2", "MB", "PYGM", "TNNI2", "DES", "TCAP"),
    "blood": ("HBB", "HBA1", "PTPRC", "CD3E", "CD19", "S100A8", "S100A9", "LYZ", "FCN1", "CD74", "NKG7", "IL7R"),
    "brain": ("GFAP", "MBP", "PLP1", "SNAP25", "SYT1", "NRGN", "ENO2", "GAD1", "NEFL", "NEFM", "STMN2", "AQP4"),
}

#: Genes that tell the sex of a donor.
FEMALE, MALE = ("XIST",), ("RPS4Y1", "DDX3Y", "KDM5D", "EIF1AY", "UTY", "ZFY", "USP9Y")

#: Samples of one donor.
_PER_DONOR = 3
#: Genes of the vocabulary that the table does not have.
_N_ABSENT = 300
#: Genes of each tissue's random program besides its markers.
_N_PROGRAM = 400


def toy(n_obs: int = 60, *, rng: int | np.random.Generator | None = 0) -> AnnData:
    """Make raw counts of a few tissues on real human genes.

    Every gene of ``bulkformer-mini`` starts from its mean in the corpus. Four tissues raise their well-known markers
    and change a random program of up to 400 genes each; donors (three samples each) differ a little in all genes, and
    ``XIST`` and genes of the Y chromosome follow the donor's sex. Libraries have 10 to 40 million reads; reads follow
    gene length and a negative binomial distribution with dispersion 0.1. 300 genes of the vocabulary are absent;
    ``XIST`` is not part of it. Nothing is downloaded.

    Parameters
    ----------
    n_obs
        Samples, shared evenly between tissues.
    rng
        Seed or generator; the same seed gives the same data.

    Returns
    -------
    An :class:`~anndata.AnnData` of ``n_obs`` samples by all but 300 genes of the vocabulary, and ``XIST``:

    ``X`` : :class:`scipy.sparse.csr_matrix` (dtype ``float32``)
        Read counts, whole numbers.
    ``obs`` : :class:`pandas.DataFrame`
        ``tissue``, ``donor`` and ``sex``, categorical.
    ``var`` : :class:`pandas.DataFrame`
        ``symbol`` and ``length`` (bp), by Ensembl id without version.

    Raises
    ------
    ValueError
        If ``n_obs`` is not positive.

    Examples
    --------
    >>> import bulkformer_tl as bf
    >>> adata = bf.datasets.toy()
    >>> adata.n_obs, adata.obs["tissue"].nunique()
    (60, 4)
    """
    if n_obs < 1:
        message = f"n_obs must be at least 1, found {n_obs}"
        raise ValueError(message)
    random = np.random.default_rng(rng)
    genes = _draw_genes(random)
    obs = _draw_samples(n_obs, random)
    log_tpm = _expression(genes, obs, random)
    reads = np.expm1(log_tpm) * genes["length"].to_numpy()
    library = random.uniform(10e6, 40e6, size=(n_obs, 1))
    mean = reads / reads.sum(axis=1, keepdims=True) * library
    # a gamma-Poisson mixture is negative binomial; dispersion 0.1 is that of human donors
    counts = random.poisson(mean * random.gamma(10.0, 0.1, size=mean.shape))
    var = genes[["symbol", "length"]]
    return AnnData(sp.csr_matrix(counts, dtype=np.float32), obs=obs, var=var)


def _draw_genes(random: np.random.Generator) -> pd.DataFrame:
    """Return ``XIST`` and the vocabulary without some random genes that carry no planted structure."""
    embedded = load_vocabulary()
    table = pd.DataFrame(
        {"symbol": embedded.symbols, "length": embedded.lengths, "mean": embedded.means}, index=embedded.ids
    )
    planted = [symbol for markers in (*MARKERS.values(), MALE) for symbol in markers]
    optional = np.flatnonzero(~table["symbol"].isin(planted))
    absent = random.choice(optional, _N_ABSENT, replace=False)
    known = gene_table()
    female = known.loc[known["symbol"].isin(FEMALE), ["symbol", "length"]].assign(mean=0.0)
    genes = pd.concat([table.drop(index=table.index[absent]), female])
    return genes[~genes.index.duplicated()].sort_index().rename_axis(None)


def _draw_samples(n_obs: int, random: np.random.Generator) -> pd.DataFrame:
    n_donors = -(-n_obs // _PER_DONOR)
    donor = np.arange(n_obs) % n_donors
    sex = random.permutation(np.resize(["female", "male"], n_donors))[donor]
    tissue = random.permutation(np.resize(list(MARKERS), n_obs))
    obs = pd.DataFrame({"tissue": tissue, "donor": [f"donor_{i + 1:02d}" for i in donor], "sex": sex})
    obs.index = pd.Index([f"sample_{i + 1:03d}" for i in range(n_obs)])
    return obs.astype("category")


def _expression(genes: pd.DataFrame, obs: pd.DataFrame, random: np.random.Generator) -> NDArray[np.float64]:
    """Return ln(TPM+1) before noise, shape (N, G)."""
    symbols = genes["symbol"].to_numpy(dtype=str)
    mean = genes["mean"].to_numpy(dtype=np.float64)
    expression = np.tile(mean, (len(obs), 1))
    for tissue, markers in MARKERS.items():
        here = (obs["tissue"] == tissue).to_numpy()
        marked = np.isin(symbols, markers)
        expression[:, marked] = np.where(here[:, None], random.uniform(6.5, 8.5, marked.sum()), 0.3)
        # a program is up or down by the same amount in all samples of the tissue
        program = random.choice(np.flatnonzero(mean > 0.5), _N_PROGRAM, replace=False)
        program = program[~np.isin(symbols[program], [s for m in MARKERS.values() for s in m])]
        expression[np.ix_(here, program)] += random.normal(0.0, 1.2, len(program))
    donors = random.normal(0.0, 0.15, size=(obs["donor"].nunique(), len(genes)))
    expression += donors[obs["donor"].cat.codes.to_numpy()]
    female = (obs["sex"] == "female").to_numpy()[:, None]
    expression[:, np.isin(symbols, FEMALE)] = np.where(female, 4.0, 0.0)
    expression[:, np.isin(symbols, MALE)] = np.where(female, 0.0, 3.5)
    clipped: NDArray[np.float64] = np.maximum(expression, 0.0)
    return clipped
