"""In-silico perturbation of models that read genes by rank: the published numbers, other changes, what is refused."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch

import bulkformer_tl as bf
from bulkformer_tl._rank_vocabulary import SPECIALS, RankVocabulary
from bulkformer_tl._vocabulary import match_genes

pytest.importorskip("transformers")

VERSIONS = ("v1", "v2")
STATES = bf.tl.States("state", start="dcm", goal="nf", alternates=["hcm"])
#: How close published cosines come.
CLOSE = 2e-6


@pytest.fixture(scope="module")
def load(geneformer_folders):
    cache: dict[tuple[str, int], bf.models.Geneformer] = {}

    def make(version: str, emb_layer: int = -1) -> bf.models.Geneformer:
        key = version, emb_layer
        if key not in cache:
            folder = geneformer_folders[version]
            cache[key] = bf.models.load_geneformer(folder, emb_layer=emb_layer, device="cpu")
        return cache[key]

    return make


@pytest.fixture(scope="module")
def published(golden):
    return pd.read_csv(golden / "geneformer" / "expected_perturbation.csv").fillna({"state": ""})


@pytest.fixture
def cells(geneformer_cells):
    return geneformer_cells.copy()


def perturbed(adata, genes, **options):
    return bf.tl.perturb(adata, genes, **{"n_null": 0, "per_sample": True, "copy": True, **options})


def listed(part: pd.DataFrame) -> list[str | tuple[str, ...]]:
    """Return what to perturb: names, and lists of names as tuples."""
    genes = [tuple(item.split("+")) for item in dict.fromkeys(part["perturbed_gene"])]
    return [item if len(item) > 1 else item[0] for item in genes]


def found_in(result, output: str) -> pd.DataFrame:
    """Return effects, samples by perturbations, of one output."""
    columns = result.uns["perturb"]["columns"]
    own = (columns["output"] == output).to_numpy()
    return pd.DataFrame(result.obsm["perturb"][:, own], result.obs_names, columns["perturbation"][own])


@pytest.mark.parametrize("version", VERSIONS)
def test_published_shifts_of_samples(load, cells, published, version):
    own = (published["version"] == version) & (published["state"] == "") & (published["table"] == "cell_embs")
    table = published[own]
    assert {"all", "set_both_present", "set_single_gene"} <= set(table["case"])
    for (_, layer, kind, cell), part in table.groupby(["case", "emb_layer", "perturb_type", "cell_id"]):
        result = perturbed(cells[[cell]].copy(), listed(part), model=load(version, layer), change=kind)
        effects = found_in(result, "shift").loc[cell, part["perturbed_gene"]]
        np.testing.assert_allclose(1 - effects, part["cosine"], rtol=0, atol=CLOSE)


@pytest.mark.parametrize("version", VERSIONS)
def test_published_shifts_toward_states(load, cells, published, version):
    table = published[(published["version"] == version) & (published["state"] != "")]
    assert set(table["case"]) == {"all_states", "set_states"}
    ways = {"nf": ("toward nf", 1), "dcm": ("away from dcm", -1), "hcm": ("away from hcm", -1)}
    for (_, kind, cell), part in table.groupby(["case", "perturb_type", "cell_id"]):
        # samples without a group make states, and are not perturbed
        cells.obs["chosen"] = np.where(cells.obs_names == cell, cell, None)
        options = {"change": kind, "readout": STATES, "groupby": "chosen"}
        result = perturbed(cells, listed(part), model=load(version), **options)
        for state, rows in part.groupby("state"):
            output, sign = ways[state]
            effects = sign * found_in(result, output).loc[cell, rows["perturbed_gene"]]
            np.testing.assert_allclose(effects, rows["cosine"], rtol=0, atol=CLOSE)


@pytest.mark.parametrize("version", VERSIONS)
def test_published_shifts_of_genes(load, cells, published, version):
    table = published[(published["version"] == version) & (published["table"] == "gene_embs")]
    for (kind, cell), part in table.groupby(["perturb_type", "cell_id"]):
        options = {"change": kind, "readout": "genes", "model": load(version)}
        result = perturbed(cells[[cell]].copy(), listed(part), **options)
        columns = result.uns["perturb"]["gene_columns"]["perturbation"]
        shifts = pd.DataFrame(result.varm["perturb"], result.var_names, columns)
        # where several columns could be meant, the one that leads to the gene by the dictionary of names
        renamed = {new: old for old, new in load(version).vocabulary.renamed.items() if old in shifts.index}
        for gene, affected, wanted in part[["perturbed_gene", "affected_corrected", "cosine"]].itertuples(index=False):
            assert 1 - shifts.loc[renamed[affected], gene] == pytest.approx(wanted, abs=CLOSE)
        assert np.isnan(shifts.loc[renamed[part["perturbed_gene"].iloc[0]], part["perturbed_gene"].iloc[0]])


def after(adata, model, cell, edit) -> np.ndarray:
    """Return the sample vector of a cell whose counts were changed."""
    changed = adata[[cell]].to_memory()
    changed.X = changed.X.toarray().astype(np.float32)
    edit(changed)
    return bf.tl.embed(changed, model=model, copy=True).obsm["X_bulkformer"][0].astype(np.float64)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return 1 - float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def ranked(model, cells, cell) -> list[str]:
    """Return the columns that a cell reads, in the order of their rank."""
    match = match_genes(cells.var_names, model.vocabulary)
    (tokens,) = model.tokenize(match.align(cells[[cell]].X.toarray().astype(np.float32)))
    genes = model.gene_of[tokens]
    return cells.var_names[match.columns[genes[genes >= 0]]].tolist()


@pytest.mark.parametrize(
    ("change", "factor"),
    [
        (bf.tl.Change("activate", factor=3), 3.0),
        (bf.tl.Change("inhibit", factor=0.25), 0.25),
        (bf.tl.Change("inhibit", factor=0.0), 0.0),
    ],
)
@pytest.mark.parametrize("version", VERSIONS)
def test_factors_rank_changed_counts_again(load, cells, version, change, factor):
    model, cell = load(version, 0), "cell03"
    gene = ranked(model, cells, cell)[4]

    def edit(adata):
        adata.X[:, adata.var_names == gene] *= factor

    expected = distance(after(cells, model, cell, lambda adata: None), after(cells, model, cell, edit))
    result = perturbed(cells[[cell]].copy(), gene, model=model, change=change, pooling=model.default_pooling)
    assert expected > 1e-3
    assert result.obsm["perturb"][0, 0] == pytest.approx(expected, abs=CLOSE)


@pytest.mark.parametrize(("kind", "quantile"), [("activate", 0.95), ("inhibit", 0.05)])
def test_quantiles_are_those_of_shares_of_the_sample(load, cells, kind, quantile):
    model = load("v2")
    known = match_genes(cells.var_names, model.vocabulary)
    counts = cells.X.toarray()
    libraries = counts[:, known.columns[known.found]].sum(axis=1)
    gene = cells.var_names[known.columns[known.found]][(counts[:, known.columns[known.found]] > 0).sum(axis=0).argmax()]
    shares = counts[:, cells.var_names == gene][:, 0] / libraries
    # the cell whose share is in the middle of those above zero
    row = np.flatnonzero(shares)[np.argsort(shares[shares > 0])[(shares > 0).sum() // 2]]
    cell = cells.obs_names[row]
    cells.obs["chosen"] = np.where(cells.obs_names == cell, cell, None)
    value = np.quantile(shares, quantile) * libraries[row]

    def edit(adata):
        adata.X[:, adata.var_names == gene] = value

    expected = distance(after(cells, model, cell, lambda adata: None), after(cells, model, cell, edit))
    change = bf.tl.Change(kind, quantile=quantile)
    result = perturbed(cells, gene, model=model, change=change, groupby="chosen")
    assert expected > 1e-4
    assert result.obsm["perturb"][row, 0] == pytest.approx(expected, abs=CLOSE)


G, N = 30, 6
IDS = [f"ENSG{i:011d}" for i in range(G)]


def tiny(specials: tuple[str, ...] = SPECIALS, context: int = 12) -> bf.models.Geneformer:
    """A Geneformer whose context cuts samples off."""
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    network = BertForMaskedLM(BertConfig(vocab_size=G + len(specials), max_position_embeddings=context, **sizes))
    medians = dict(zip(IDS, np.linspace(1, 2, G), strict=True))
    return bf.models.Geneformer(network, RankVocabulary.of(medians, specials=specials), name="tiny")


@pytest.fixture(scope="module")
def model():
    return tiny()


@pytest.fixture
def counts() -> ad.AnnData:
    values = np.random.default_rng(0).poisson(20, (N, G)).astype(np.float32) + 1
    obs = pd.DataFrame({"state": ["ill", "ill", "well"] * (N // 3)}, index=[f"s{i}" for i in range(N)])
    return ad.AnnData(values, obs=obs, var=pd.DataFrame(index=IDS))


def effect(adata, genes, model, **options) -> pd.Series:
    found = perturbed(adata, genes, model=model, **options)
    return found.uns["perturb"]["table"].set_index("perturbation")["effect"]


def test_nothing_comes_in_from_behind_the_context(model, counts):
    one = counts[:1].copy()
    (tokens,) = model.tokenize(one.X)
    first = IDS[model.gene_of[tokens[1]]]
    before, without = (vectors[0].double().numpy() for vectors in model.token_vectors([tokens, np.delete(tokens, 1)]))
    assert effect(one, first, model).item() == pytest.approx(distance(before, without), abs=1e-7)
    # those behind it have no token that could be taken out, and push the last one out when they come to the front
    behind = sorted(set(range(G)) - set(model.gene_of[tokens]))[0]
    moved = np.concatenate([tokens[:1], [model.dictionary.tokens[behind]], tokens[1:-2], tokens[-1:]])
    (pushed,) = model.token_vectors([moved])
    found = effect(one, IDS[behind], model, change="overexpress").item()
    assert found == pytest.approx(distance(before, pushed[0].double().numpy()), abs=1e-7)
    table = perturbed(counts, None, model=model).uns["perturb"]["table"].set_index("perturbation")
    read = {IDS[gene] for own in model.tokenize(counts.X) for gene in model.gene_of[own] if gene >= 0}
    assert set(table.index[table["n"] > 0]) == read
    assert len(read) < G


def test_a_gene_that_is_first_already_moves_nothing(model, counts):
    one = counts[:1].copy()
    first = IDS[model.gene_of[model.tokenize(one.X)[0][1]]]
    assert effect(one, first, model, change="overexpress").item() == 0


@pytest.mark.parametrize("specials", [SPECIALS, SPECIALS[:2]])
def test_passes_together_equal_passes_one_by_one(counts, specials):
    model, genes = tiny(specials, 64), IDS[:20:4]
    together = perturbed(counts, genes, model=model).obsm["perturb"]
    for position in (0, 3):
        alone = perturbed(counts[::2].copy(), genes[position], model=model).obsm["perturb"][:, 0]
        np.testing.assert_array_equal(alone, together[::2, position])


@pytest.mark.parametrize("specials", [SPECIALS, SPECIALS[:2]])
def test_synergy_and_null(counts, specials):
    model = tiny(specials, 64)
    genes = [*IDS[:4], (IDS[0], IDS[1]), (IDS[2], IDS[3])]
    found = bf.tl.perturb(counts, genes, model=model, n_null=5, copy=True)
    table = found.uns["perturb"]["table"].set_index("perturbation")
    both = table.loc[f"{IDS[0]}+{IDS[1]}"]
    assert both["synergy"] == pytest.approx(both["effect"] - both["expected"])
    assert both["expected"] > 0
    assert table["null"].notna().all()
    assert ((table["p"] > 0) & (table["p"] <= table["fdr"])).all()


def test_a_null_where_the_context_cuts(model, counts):
    # four genes that all samples read, six that every other one reads, and one that a single sample reads
    counts.X[:] = 1
    counts.X[:, :4] = 1000
    counts.X[::2, 4:10], counts.X[1::2, 10:16] = 500, 500
    counts.X[::2, 4], counts.X[0, [4, 29]] = 900, [1, 100]
    with pytest.warns(UserWarning, match=rf"1 of \d+ perturbations, such as '{IDS[29]}', have no null"):
        found = bf.tl.perturb(counts, None, model=model, n_null=3, copy=True)
    table = found.uns["perturb"]["table"].set_index("perturbation")
    read = table[table["n"] > 0]
    assert read["n"].sort_values().tolist() == [1, 2, *[3] * 11, *[N] * 4]
    assert read["null"].drop(IDS[29]).notna().all()
    assert np.isnan(read.loc[IDS[29], "null"])


@pytest.mark.parametrize("version", VERSIONS)
def test_a_null_of_cells_that_read_different_genes(load, cells, version):
    few = cells[:12].copy()
    with pytest.warns(UserWarning, match="have no null"):
        table = perturbed(few, None, model=load(version), n_null=5).uns["perturb"]["table"]
    read = table[table["n"] > 0]
    assert read["null"].notna().mean() > 0.8


def test_heads_and_other_pooling(load, cells):
    model = load("v2")
    bf.tl.embed(cells, model=model, pooling="mean")
    cells.obs["ill"] = (cells.obs["state"] == "nf").map({True: "no", False: "yes"}).astype("category")
    fast = bf.metrics.Protocol(n_splits=2, n_bootstrap=100, duplicates=None, baselines=())
    bf.tl.classify(cells, "ill", protocol=fast)
    gene, head = ranked(model, cells, "cell03")[0], bf.tl.fitted_head(cells, "classify_ill")
    cells.obs["chosen"] = np.where(cells.obs_names == "cell03", "it", None)
    result = perturbed(cells, gene, model=model, readout="classify_ill", groupby="chosen")
    changed = cells[["cell03"]].to_memory()
    before = head.predict(changed)["yes"].item()
    changed.X = changed.X.toarray()
    changed.X[:, changed.var_names == gene] = 0
    bf.tl.embed(changed, model=model, pooling="mean")
    row = cells.obs_names.get_loc("cell03")
    assert result.obsm["perturb"][row, 0] == pytest.approx(head.predict(changed)["yes"].item() - before, abs=1e-6)


def test_a_stop_is_resumed_by_the_same_layer_only(load, cells, tmp_path):
    gene = ranked(load("v1"), cells, "cell03")[0]
    options = {"groupby": "chosen", "store": tmp_path / "passes"}
    cells.obs["chosen"] = np.where(cells.obs_names == "cell03", "it", None)
    first = perturbed(cells, gene, model=load("v1"), **options)
    again = perturbed(cells, gene, model=load("v1"), **options)
    np.testing.assert_array_equal(first.obsm["perturb"], again.obsm["perturb"])
    with pytest.raises(FileExistsError, match=r"passes of another call \(with other pooling\)"):
        perturbed(cells, gene, model=load("v1", 0), **options)


def test_results_can_be_written(model, counts, tmp_path):
    bf.tl.perturb(counts, IDS[:2], model=tiny(context=64), n_null=3, readout="genes")
    counts.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad")
    assert again.uns["perturb"]["params"]["pooling"] == ""
    assert again.uns["perturb"]["table"]["output"].unique().tolist() == ["gene shift"]


SET = bf.tl.Change("set", value=2.0)
BAD = {
    "a value": ({"change": SET}, r"value of a change is ln\(TPM\+1\), and tiny reads the order of counts; pass"),
    "expression": ({"readout": "expression"}, r"tiny predicts no expression; pass readout='genes'"),
    "a screen": ({"screen": 5}, r"a screen follows slopes along expression, .* pass screen=None, and genes= to choose"),
    "zero": ({"genes": IDS[3]}, r"the gene '.*3' is zero in 1 of 6 samples, the first 's1', so that 'delete' changes"),
    "zero, inhibited": (
        {"genes": IDS[3], "change": bf.tl.Change("inhibit", factor=0.5)},
        r"is zero in 1 .* so that 'inhibit' changes nothing; pass change='overexpress'",
    ),
    "missing": ({"genes": IDS[4], "change": "overexpress"}, r"is missing in 1 of 6 .* has no rank; fill in its counts"),
    "behind the context": (
        {"genes": IDS[5]},
        r"is behind the 10 genes that tiny reads in 1 of 6 samples, the first 's0', so that 'delete' changes nothing",
    ),
    "the only gene": (
        {"genes": IDS[6]},
        r"is all that tiny reads in 1 of 6 samples, the first 's5', so that no other gene is left to compare",
    ),
    "pooling": ({"genes": IDS[6], "pooling": "sum"}, "pooling must be one of .* for tiny, found 'sum'"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_refused(model, counts, case):
    options, message = BAD[case]
    # all but one sample read the genes in question first
    counts.X[:, 3:7] = 500
    counts.X[1, 3], counts.X[2, 4], counts.X[0, 5] = 0, np.nan, 1
    counts.X[5, np.arange(G) != 6] = 0
    if case != "the only gene":
        counts.X[5] = counts.X[4]
    with pytest.raises(ValueError, match=message):
        perturbed(counts, options.pop("genes", IDS[6]), model=model, **options)
    assert "perturb" not in counts.uns


def test_refuses_what_is_no_count(model, counts):
    counts.X = np.log1p(counts.X)
    with pytest.raises(ValueError, match="counts"):
        perturbed(counts, IDS[0], model=model)


def test_refuses_models_of_bins(counts):
    model = tiny()
    model.encoding = "bins"
    with pytest.raises(ValueError, match="tiny reads bins, which no perturbation changes yet; pass a model of the"):
        perturbed(counts, IDS[0], model=model)
