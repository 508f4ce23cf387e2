"""Counts from a stated model, with everything that was planted in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData

from bulkformer_tl._vocabulary import gene_table

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Spread of the genes' abundances, and of donors around it (standard deviations of natural logarithms).
_ABUNDANCE_SD, _DONOR_SD = 1.5, 0.1
#: Share of genes that tell a tissue, and by how much (log2).
_TISSUE_SHARE, _TISSUE_LOG2 = 0.1, 2.0
#: Reads per gene of the smallest and the largest library; 20,000 genes get 10 to 40 million.
_READS_PER_GENE = (500.0, 2000.0)
_SAMPLES_PER_DONOR = 2
_YOUNGEST, _OLDEST, _MIDDLE = 20, 80, 50


def simulate(
    n_obs: int = 120,
    *,
    n_vars: int = 2000,
    n_tissues: int = 4,
    n_batches: int = 3,
    n_differential: int = 100,
    effect: float = 1.0,
    age_effect: float = 0.3,
    batch_effect: float = 0.3,
    dispersion: float = 0.1,
    missing: float = 0.0,
    rng: int | np.random.Generator | None = 0,
) -> AnnData:
    r"""Simulate counts of tissues, batches, cases and controls, and keep the truth.

    Read counts of sample s and gene g follow a negative binomial distribution,

    .. math::

        y_{sg} \sim \mathrm{NB}(\mu_{sg}, \mu_{sg} + \phi \mu_{sg}^2), \qquad
        \mu_{sg} = L_s \frac{\ell_g e^{\eta_{sg}}}{\sum_h \ell_h e^{\eta_{sh}}},

    .. math::

        \eta_{sg} = b_g + u_{g,\mathrm{donor}} + c_{g,\mathrm{batch}} + \ln 2 \left(t_{g,\mathrm{tissue}}
        + \beta_g\, \mathrm{case}_s + \alpha_g \frac{\mathrm{age}_s - 50}{10}\right)

    with library size L (log-uniform, 500 to 2,000 reads per gene), gene length l, dispersion phi, abundance b of
    standard deviation 1.5, donor effects u of 0.1 and batch effects c of ``batch_effect``, all normal. A tenth of the
    genes tells each tissue: t is 2 or -2 there. beta is ``effect`` or ``-effect`` for ``n_differential`` genes, alpha
    is ``age_effect`` or ``-age_effect`` for as many others. Each donor gives two samples, of neighbouring tissues;
    tissues and cases are balanced as far as their numbers allow, batches are dealt out at random. Genes are drawn from
    the protein-coding ones.

    Parameters
    ----------
    n_obs
        Samples.
    n_vars
        Genes.
    n_tissues
        Tissues.
    n_batches
        Batches.
    n_differential
        Genes that differ between cases and controls, and genes that follow age.
    effect
        Difference of cases, log2.
    age_effect
        Change per ten years of age, log2.
    batch_effect
        Standard deviation of the batches' factors on each gene, natural logarithm.
    dispersion
        phi; 0 gives Poisson counts.
    missing
        Share of entries that are hidden (``NaN``), completely at random.
    rng
        Seed or generator; the same seed gives the same data.

    Returns
    -------
    An :class:`~anndata.AnnData` of ``n_obs`` samples by ``n_vars`` genes:

    ``X`` : :class:`numpy.ndarray` (dtype ``float32``)
        Read counts, whole numbers; ``NaN`` where hidden.
    ``layers["complete"]`` : :class:`numpy.ndarray` (dtype ``float32``)
        The counts before hiding, if ``missing`` is not 0.
    ``obs`` : :class:`pandas.DataFrame`
        ``tissue``, ``batch``, ``condition`` ("case" or "control") and ``donor``, categorical; ``age`` in years.
    ``var`` : :class:`pandas.DataFrame`
        ``symbol`` and ``length`` (bp), by Ensembl id without version;
        ``log2_fold_change`` and ``log2_per_decade`` are the planted beta and alpha, 0 elsewhere; ``differential`` and
        ``age_associated`` tell which genes have them.
    ``varm["tissue_log2"]``, ``varm["batch_log2"]`` : :class:`numpy.ndarray` (shape ``(G, tissues)``, ``(G, batches)``)
        The planted t and c, log2, in the order of the categories.
    ``uns["simulate"]["params"]`` : :class:`dict`
        The parameters.

    Raises
    ------
    ValueError
        If a number is out of range; before anything is drawn.

    Examples
    --------
    >>> import bulkformer_tl as bf
    >>> adata = bf.datasets.simulate(40, n_vars=500)
    >>> int(adata.var["differential"].sum())
    100
    """
    sizes = {"n_obs": n_obs, "n_vars": n_vars, "n_tissues": n_tissues, "n_batches": n_batches}
    amounts = {"age_effect": age_effect, "batch_effect": batch_effect, "dispersion": dispersion}
    genes = _candidates()
    _check(sizes | {"n_differential": n_differential}, amounts | {"effect": effect, "missing": missing}, len(genes))
    generator = np.random.default_rng(rng)
    genes = genes.iloc[np.sort(generator.choice(len(genes), n_vars, replace=False))]
    obs = _design(n_obs, n_tissues, n_batches, generator)
    planted = generator.permutation(n_vars)[: 2 * n_differential]
    fold, slope = np.zeros(n_vars), np.zeros(n_vars)
    fold[planted[:n_differential]] = effect * generator.choice([-1, 1], n_differential)
    slope[planted[n_differential:]] = age_effect * generator.choice([-1, 1], n_differential)
    told = generator.random((n_vars, n_tissues)) < _TISSUE_SHARE
    tissues = _TISSUE_LOG2 * told * generator.choice([-1, 1], (n_vars, n_tissues))
    batches = generator.normal(0, batch_effect, (n_vars, n_batches))
    donors = generator.normal(0, _DONOR_SD, (n_vars, obs["donor"].cat.categories.size))
    log2 = tissues[:, obs["tissue"].cat.codes] + np.outer(fold, obs["condition"] == "case")
    log2 += np.outer(slope, (obs["age"] - _MIDDLE) / 10)
    eta = generator.normal(0, _ABUNDANCE_SD, n_vars)[:, None] + np.log(2) * log2
    eta += batches[:, obs["batch"].cat.codes] + donors[:, obs["donor"].cat.codes]
    counts = _draw(eta.T + np.log(genes["length"].to_numpy()), dispersion, generator)
    hidden = generator.random(counts.shape) < missing
    var = (
        genes[["symbol", "length"]]
        .rename_axis(None)
        .assign(differential=fold != 0, log2_fold_change=fold, age_associated=slope != 0, log2_per_decade=slope)
    )
    effects: Any = {"tissue_log2": tissues, "batch_log2": batches / np.log(2)}
    return AnnData(
        np.where(hidden, np.float32(np.nan), counts),
        obs=obs,
        var=var,
        varm=effects,
        layers={"complete": counts} if missing else {},
        uns={"simulate": {"params": sizes | amounts | {"effect": effect, "missing": missing}}},
    )


def _candidates() -> pd.DataFrame:
    """Return protein-coding genes with a symbol and a length, on the primary chromosomes."""
    table = gene_table()
    primary = table["chromosome"].isin([*map(str, range(1, 23)), "X", "Y", "MT"])
    return table[(table["biotype"] == "protein_coding") & (table["symbol"] != "") & table["length"].notna() & primary]


def _check(sizes: dict[str, int], amounts: dict[str, float], n_genes: int) -> None:
    for name, size in sizes.items():
        least = 0 if name == "n_differential" else 1
        if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < least:
            message = f"{name} must be a whole number of at least {least}, found {size!r}"
            raise ValueError(message)
    for name, amount in amounts.items():
        if not np.isfinite(amount) or (amount < 0 and name not in {"effect", "age_effect"}):
            message = f"{name} must be a number of at least 0, found {amount!r}"
            raise ValueError(message)
    if sizes["n_vars"] > n_genes:
        message = f"n_vars is {sizes['n_vars']:,}, but there are {n_genes:,} protein-coding genes; ask for fewer"
        raise ValueError(message)
    if 2 * sizes["n_differential"] > sizes["n_vars"]:
        message = (
            f"n_differential is {sizes['n_differential']}: that many genes differ and as many follow age, but n_vars "
            f"is {sizes['n_vars']}; pass at most {sizes['n_vars'] // 2}"
        )
        raise ValueError(message)
    if amounts["missing"] >= 1:
        message = f"missing is the share of hidden entries, below 1; found {amounts['missing']!r}"
        raise ValueError(message)


def _design(n_obs: int, n_tissues: int, n_batches: int, generator: np.random.Generator) -> pd.DataFrame:
    """Return tissues, batches, conditions, donors and ages of the samples."""
    sample = np.arange(n_obs)
    donor = sample // _SAMPLES_PER_DONOR
    # donors 0 and 1, a control and a case, give the same tissues, and so on
    tissue = (donor // 2 * _SAMPLES_PER_DONOR + sample % _SAMPLES_PER_DONOR) % n_tissues
    batch = generator.permutation(sample % n_batches)
    age = generator.integers(_YOUNGEST, _OLDEST + 1, donor.max() + 1)[donor]
    return pd.DataFrame(
        {
            "tissue": _named("tissue", tissue, n_tissues),
            "batch": _named("batch", batch, n_batches),
            "condition": pd.Categorical(np.where(donor % 2, "case", "control"), categories=["control", "case"]),
            "donor": _named("donor", donor, int(donor.max()) + 1),
            "age": age.astype(np.float64),
        },
        index=pd.Index([f"sample_{i + 1}" for i in sample]),
    )


def _named(what: str, codes: NDArray[np.int64], n: int) -> pd.Categorical:
    names = [f"{what}_{i + 1}" for i in range(n)]
    return pd.Categorical([names[code] for code in codes], categories=names)


def _draw(log_rate: NDArray[np.float64], dispersion: float, generator: np.random.Generator) -> NDArray[np.float32]:
    """Draw counts from unnormalised log rates, shape (N, G)."""
    share = np.exp(log_rate - log_rate.max(axis=1, keepdims=True))
    share /= share.sum(axis=1, keepdims=True)
    low, high = np.log(_READS_PER_GENE)
    reads = np.exp(generator.uniform(low, high, (len(share), 1))) * share.shape[1]
    mean = reads * share
    if dispersion:
        mean = generator.gamma(1 / dispersion, dispersion * mean)
    counts: NDArray[np.float32] = generator.poisson(mean).astype(np.float32)
    return counts
