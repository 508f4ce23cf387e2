"""In-silico perturbation: exact passes, readouts, the screen, statistics, and what is refused."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.decomposition import FactorAnalysis

import bulkformer_tl as bf
from bulkformer_tl._vocabulary import GeneVocabulary, entrez_table, gene_table, symbol_table
from bulkformer_tl.models._latest import LatestConfig, LatestNetwork
from bulkformer_tl.models._mini import MiniConfig, MiniNetwork
from bulkformer_tl.models._neighbour_model import pack
from bulkformer_tl.models._paper import PaperConfig, PaperNetwork
from bulkformer_tl.models._perturb import Passes
from bulkformer_tl.models._preprint import PreprintConfig, PreprintNetwork
from bulkformer_tl.tl import _perturb_sets
from bulkformer_tl.tl._perturb_null import matched_genes
from bulkformer_tl.tl._perturb_sets import Perturbation

G, N = 60, 8
IDS = np.array([f"ENSG{i:011d}" for i in range(G)])


def mini_network() -> MiniNetwork:
    generator = torch.Generator().manual_seed(2)
    genes = torch.stack([torch.randperm(G, generator=generator)[:7].sort()[0] for _ in range(G)])
    packed = pack(genes, torch.randn(G, 7, generator=generator) / 7)
    sizes = {"n_genes": G, "n_factors": 8, "n_scores": 4, "n_entries": len(packed["codes"])}
    network = MiniNetwork(MiniConfig(**sizes, context=8, n_global=3, heads=2))
    loadings = torch.linalg.qr(torch.randn(G, 8)).Q
    network.factors.set_model(torch.rand(G) * 5, loadings, torch.linspace(40, 2, 8), 0.1 + torch.rand(G))
    network.neighbours.set_packed(**packed)
    network.neighbour_share.fill_(0.3)
    torch.nn.init.normal_(network.head.weight)
    return network


NETWORKS = {
    "g1": lambda: PreprintNetwork(PreprintConfig(G, dim=16, protein_dim=5, heads=2, n_performers=1, n_blocks=2)),
    "g2": lambda: PaperNetwork(PaperConfig(G, dim=16, heads=2)),
    "g3": lambda: LatestNetwork(
        LatestConfig(G, dim=16, depth=1, heads=2, dim_head=8, nb_features=16, graph_hidden_dim=8)
    ),
    "mini": mini_network,
}
POOLING = {"g1": "max", "g2": "mean", "g3": "mean", "mini": "scores"}


def make_model(family: str) -> bf.models.BulkFormer:
    torch.manual_seed(0)
    network = NETWORKS[family]()
    generator = torch.Generator().manual_seed(1)
    graph = torch.randint(0, G, (2, 4 * G), generator=generator), torch.rand(4 * G, generator=generator)
    return bf.models.BulkFormer(
        network,
        GeneVocabulary(IDS),
        graph=graph,
        name=f"tiny-{family}",
        family=family,
        denominator="vocabulary",
        default_pooling=POOLING[family],
    )


@pytest.fixture(scope="module")
def g2() -> bf.models.BulkFormer:
    return make_model("g2")


@pytest.fixture(scope="module", params=NETWORKS)
def model(request) -> bf.models.BulkFormer:
    return make_model(request.param)


@pytest.fixture
def adata() -> ad.AnnData:
    rng = np.random.default_rng(0)
    values = (rng.gamma(2, 1.5, (N, G)) + 0.05).astype(np.float32)
    obs = pd.DataFrame(
        {"state": ["ill", "ill", "well", "other"] * (N // 4), "site": ["a", "b"] * (N // 2)},
        index=[f"s{i}" for i in range(N)],
    )
    return ad.AnnData(values, obs=obs, var=pd.DataFrame(index=IDS))


def run(adata: ad.AnnData, genes=None, **options) -> pd.DataFrame:
    """Return the table by perturbation."""
    options = {"n_null": 0, **options}
    found = bf.tl.perturb(adata, genes, copy=True, **options)
    return found.uns["perturb"]["table"].set_index("perturbation")


def deleted(adata: ad.AnnData, *genes: str) -> ad.AnnData:
    other = adata.copy()
    other.X[:, other.var_names.get_indexer(list(genes))] = 0
    return other


def vectors(adata: ad.AnnData, model: bf.models.BulkFormer, **options) -> np.ndarray:
    return bf.tl.embed(adata, model=model, copy=True, **options).obsm["X_bulkformer"].astype(np.float64)


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def test_deletion_is_embedding_with_the_gene_at_zero(adata, model):
    expected = 1 - cosine(vectors(adata, model), vectors(deleted(adata, IDS[3]), model))
    found = bf.tl.perturb(adata, IDS[3], model=model, n_null=0, per_sample=True, copy=True)
    np.testing.assert_allclose(found.obsm["perturb"][:, 0], expected, rtol=1e-3, atol=2e-7)
    row = found.uns["perturb"]["table"].iloc[0]
    np.testing.assert_allclose(row["effect"], expected.mean(), rtol=1e-3, atol=2e-7)
    assert row["low"] < row["effect"] < row["high"]
    assert (row["perturbation"], row["kind"], row["n"], row["output"]) == (IDS[3], "gene", N, "shift")


def test_known_response_of_the_embedded_family_equals_running_it_again(adata):
    model = make_model("mini")
    values = np.asarray(adata.X)
    values[:, 5] = np.nan
    edit = np.array([2, 9]), np.array([0.0, 7.5], dtype=np.float32)
    again = values.copy()
    again[:, [2, 9]] = edit[1]
    passes = Passes(model)
    for before, after in zip(values, again, strict=True):
        difference = passes.vectors(after[None])[0] - passes.vectors(before[None])[0]
        np.testing.assert_allclose(passes.differences(before, [edit])[0], difference, atol=1e-5)


def test_passes_together_equal_passes_one_by_one(adata, model):
    genes = IDS[:40:8].tolist()
    together = bf.tl.perturb(adata, genes, model=model, n_null=0, per_sample=True, copy=True).obsm["perturb"]
    for position in (0, 4):
        alone = bf.tl.perturb(adata[::3].copy(), genes[position], model=model, n_null=0, per_sample=True, copy=True)
        np.testing.assert_array_equal(alone.obsm["perturb"][:, 0], together[::3, position])


CHANGES = {
    "overexpress": ("overexpress", lambda x, own: x.max(axis=1)),
    "inhibit": (bf.tl.Change("inhibit", factor=0.25), lambda x, own: np.log1p(0.25 * np.expm1(own))),
    "activate": (bf.tl.Change("activate", factor=4), lambda x, own: np.log1p(4 * np.expm1(own))),
    "low quantile": (bf.tl.Change("inhibit", quantile=0.2), lambda x, own: np.minimum(own, np.quantile(own, 0.2))),
    "high quantile": (bf.tl.Change("activate", quantile=0.9), lambda x, own: np.maximum(own, np.quantile(own, 0.9))),
    "set": (bf.tl.Change("set", value=2.5), lambda x, own: np.full_like(own, 2.5)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changes(adata, g2, name):
    change, becomes = CHANGES[name]
    other = adata.copy()
    values = np.asarray(adata.X, dtype=np.float64)
    other.X[:, 4] = becomes(values, values[:, 4])
    expected = 1 - cosine(vectors(adata, g2), vectors(other, g2))
    found = run(adata, IDS[4], model=g2, change=change)
    np.testing.assert_allclose(found["effect"], expected.mean(), rtol=1e-2, atol=1e-7)


def test_combinations_groups_and_pathways(adata, g2, tmp_path):
    (tmp_path / "sets.gmt").write_text(f"both\tan example\t{IDS[1]}\t{IDS[2]}\tENSG99999999999\n")
    expected = 1 - cosine(vectors(adata, g2), vectors(deleted(adata, *IDS[1:3]), g2))
    pair = run(adata, [(IDS[1], IDS[2])], model=g2)
    for found in (
        pair,
        run(adata, {"both": IDS[1:3].tolist()}, model=g2),
        run(adata, tmp_path / "sets.gmt", model=g2),
        run(adata, str(tmp_path / "sets.gmt"), model=g2),
    ):
        np.testing.assert_allclose(found["effect"], expected.mean(), rtol=1e-2, atol=1e-7)
        assert found["n_genes"].tolist() == [2]
    assert pair.index.tolist() == [f"{IDS[1]}+{IDS[2]}"]
    assert pair["kind"].tolist() == ["combination"]


def test_genes_go_by_symbol(adata):
    ids = np.array(["ENSG00000141510", "ENSG00000136997", *IDS[2:]])
    named = adata.copy()
    named.var_names = ids
    model = make_model("g2")
    model.vocabulary = GeneVocabulary(ids)
    found = run(named, ["TP53", "ENSG00000136997"], model=model)
    assert set(found.index) == {"TP53", "ENSG00000136997"}


@pytest.fixture(scope="module")
def called() -> dict[str, list[str]]:
    """Names of genes of each kind."""
    entrez = entrez_table()
    genes = pd.Series(entrez.index, index=entrez.to_numpy())
    genes = genes[~genes.index.duplicated()]
    symbols = gene_table()["symbol"].reindex(genes.index)
    known = (symbol_table().reindex(symbols) == symbols.index).to_numpy()
    ids = symbols.index[known][:G]
    return {
        "ensembl": ids.tolist(),
        "versions": [f"{name}.7" for name in ids],
        "symbol": symbols[ids].tolist(),
        "entrez": genes[ids].tolist(),
    }


@pytest.mark.parametrize("asked", ["ensembl", "versions", "symbol"])
@pytest.mark.parametrize("columns", ["ensembl", "versions", "symbol", "entrez"])
def test_genes_go_by_any_of_their_names(adata, called, columns, asked):
    model = make_model("g2")
    model.vocabulary = GeneVocabulary(np.array(called["ensembl"]))
    adata.var_names = called[columns]
    own, other = (
        run(adata[:2].copy(), called[kind][3:5], model=model, identifiers=columns.replace("versions", "ensembl"))
        for kind in (columns, asked)
    )
    assert set(other.index) == set(called[asked][3:5])
    np.testing.assert_array_equal(own.loc[called[columns][3:5], "effect"], other.loc[called[asked][3:5], "effect"])
    with pytest.raises(KeyError, match="ENSG99999999999"):
        run(
            adata,
            [called[asked][0], "ENSG99999999999"],
            model=model,
            identifiers=columns.replace("versions", "ensembl"),
        )


def test_names_are_looked_up_at_once(adata, g2, monkeypatch):
    plain, asked = _perturb_sets.find_genes, []

    def counted(columns, names):
        asked.append(len(names))
        return plain(columns, names)

    monkeypatch.setattr(_perturb_sets, "find_genes", counted)
    found = run(adata, [*IDS[:5], (IDS[7], IDS[6])], model=g2)
    assert asked == [7, 7]
    assert set(found.index) == {*IDS[:5], f"{IDS[7]}+{IDS[6]}"}


def test_synergy_is_what_goes_beyond_added_moves(adata, g2):
    base = vectors(adata, g2)
    one, two, both = (vectors(deleted(adata, *g), g2) for g in ((IDS[1],), (IDS[2],), (IDS[1], IDS[2])))
    expected = 1 - cosine(base, one + two - base)
    row = run(adata, [(IDS[1], IDS[2])], model=g2).iloc[0]
    np.testing.assert_allclose(row["expected"], expected.mean(), rtol=1e-2, atol=1e-7)
    np.testing.assert_allclose(row["synergy"], row["effect"] - row["expected"], atol=1e-9)
    assert row["synergy_low"] < row["synergy"] < row["synergy_high"]
    assert 0 < row["synergy_p"] <= 1
    assert not np.isclose((1 - cosine(base, both)).mean(), expected.mean(), rtol=1e-3)


def test_a_linear_model_knows_no_synergy(adata):
    row = run(adata, [(IDS[1], IDS[2])], model=make_model("mini")).iloc[0]
    assert row["effect"] > 0
    assert (row["synergy"], row["synergy_p"]) == (0, 1)


def test_states(adata, g2):
    states = bf.tl.States("state", start="ill", goal="well", alternates=["other"])
    table = run(adata, [IDS[7]], model=g2, readout=states).set_index("output")["effect"]
    own, base = vectors(adata, g2), (adata.obs["state"] == "ill").to_numpy()
    after = vectors(deleted(adata, IDS[7]), g2)
    assert set(table.index) == {"toward well", "away from ill", "away from other"}
    for output, effect in table.items():
        way, label = str(output).rsplit(" ", 1)
        centre = own[(adata.obs["state"] == label).to_numpy()].mean(axis=0, keepdims=True)
        expected = (cosine(after[base], centre) - cosine(own[base], centre)).mean()
        np.testing.assert_allclose(effect, expected if way == "toward" else -expected, atol=2e-7)


def test_groups_are_described_one_by_one(adata, g2):
    together = run(adata, [IDS[7], IDS[8]], model=g2, groupby="site").set_index("group", append=True)["effect"]
    for site in "ab":
        alone = run(adata[adata.obs["site"] == site].copy(), [IDS[7], IDS[8]], model=g2)["effect"]
        np.testing.assert_array_equal(together.xs(site, level="group")[alone.index], alone)


def test_groups_of_a_null_and_the_parts_of_a_table(adata, g2):
    found = bf.tl.perturb(adata, IDS[:6].tolist(), model=g2, n_null=4, copy=True)
    table = found.uns["perturb"]["table"]
    assert (np.diff(table["effect"]) <= 0).all()
    for _, row in table.iterrows():
        assert 0 <= row["auc"] <= 1
        assert row["p"] <= row["fdr"] <= 1
    assert found.uns["perturb"]["params"]["n_exact"] == 6
    assert found.obsm.keys() == adata.obsm.keys()


def test_the_null_is_matched():
    rng = np.random.default_rng(0)
    level, degree = rng.random(900) * 10, rng.integers(0, 50, 900)
    degree[degree > 25] += 1000
    items = [Perturbation(str(gene), "gene", (gene,)) for gene in (3, 50, 700)]
    items.append(Perturbation("3+50", "combination", (3, 50)))
    usable = np.ones(900, dtype=bool)
    usable[::5] = False
    drawn = matched_genes(items, level, degree, usable, n_null=10, rng=rng)
    for item, others in zip(items, drawn, strict=True):
        assert len(others) == 10
        for other in others:
            assert len(other.genes) == len(item.genes)
            assert not set(other.genes) & set(item.genes)
            assert usable[list(other.genes)].all()
            # sorted by level, the genes of a set stand in the same order
            pairs = zip(sorted(item.genes, key=level.item), sorted(other.genes, key=level.item), strict=True)
            for own, drawn_gene in pairs:
                assert abs(level[own] - level[drawn_gene]) < 1.5


def test_no_null_of_genes_that_are_expressed_otherwise():
    rng = np.random.default_rng(0)
    level, degree = np.arange(300.0), rng.integers(0, 50, 300)
    usable = (level >= 100) & (level < 200)
    genes = (5, 130, 250)
    items = [Perturbation(str(gene), "gene", (gene,)) for gene in genes]
    items.append(Perturbation("all", "set", genes))
    low, inside, high, several = matched_genes(items, level, degree, usable, n_null=5, rng=rng)
    assert (low, high) == ([], [])
    assert len(inside) == 5
    assert several
    assert all(len(other.genes) == 1 and usable[list(other.genes)].all() for other in several)
    assert matched_genes(items, level, degree, usable & False, n_null=5, rng=rng) == [[]] * 4


def test_a_null_of_genes_that_some_samples_do_not_express(adata, g2):
    # each gene is 0 in one sample, and one in all but one
    adata.X[np.arange(G) % N, np.arange(G)] = 0
    adata.X[1:, 0] = 0
    adata.X[0, 0] = 0.1
    with pytest.warns(UserWarning, match=rf"1 of {G} perturbations, such as '{IDS[0]}', have no null: no gene that"):
        found = run(adata, model=g2, n_null=3)
    assert found["n"].drop(IDS[0]).eq(N - 1).all()
    statistics = found[["null", "auc", "p", "fdr"]]
    assert statistics.drop(IDS[0]).notna().all(axis=None)
    assert statistics.loc[IDS[0]].isna().all()


def test_a_stop_is_resumed_and_work_is_shared(adata, g2, tmp_path, monkeypatch):
    whole = run(adata, IDS[:4].tolist(), model=g2, n_null=3)
    ran = []
    plain = Passes.differences

    def counted(self, values, edits):
        if len(ran) == 5:
            raise KeyboardInterrupt
        ran.append(len(edits))
        return plain(self, values, edits)

    monkeypatch.setattr(Passes, "differences", counted)
    with pytest.raises(KeyboardInterrupt):
        run(adata, IDS[:4].tolist(), model=g2, n_null=3, store=tmp_path / "passes")
    # another worker has taken one part and is lost
    (tmp_path / "passes" / "exact" / "part-0000006.taken").touch()
    ran[:] = [0] * 6
    resumed = run(adata, IDS[:4].tolist(), model=g2, n_null=3, store=tmp_path / "passes")
    pd.testing.assert_frame_equal(resumed, whole)
    assert len(ran) - 6 == 2 * N - 5
    ran[:] = [0] * 6
    pd.testing.assert_frame_equal(run(adata, IDS[:4].tolist(), model=g2, n_null=3, store=tmp_path / "passes"), whole)
    assert len(ran) == 6
    with pytest.raises(
        FileExistsError, match=r"holds passes of another call \(with other change\); name another folder"
    ):
        run(adata, IDS[:4].tolist(), model=g2, store=tmp_path / "passes", change="overexpress")


def test_a_part_that_was_cut_is_computed_again(adata, g2, tmp_path):
    whole = run(adata, IDS[0], model=g2, store=tmp_path / "passes")
    part = tmp_path / "passes" / "exact" / "part-0000002.npz"
    part.write_bytes(part.read_bytes()[:100])
    pd.testing.assert_frame_equal(run(adata, IDS[0], model=g2, store=tmp_path / "passes"), whole)


def test_reads_every_other_gene(adata, g2):
    other = deleted(adata, IDS[5])
    values = [np.asarray(x.X) for x in (adata, other)]
    before, after = (g2.encode(x, outputs=("genes", "expression")) for x in values)
    change = (after.expression - before.expression).double().numpy()
    found = bf.tl.perturb(adata, IDS[5], model=g2, readout="expression", n_null=0, copy=True)
    others = np.arange(G) != 5
    np.testing.assert_allclose(found.varm["perturb"][others, 0], change.mean(axis=0)[others], atol=1e-6)
    assert np.isnan(found.varm["perturb"][5, 0])
    effect = found.uns["perturb"]["table"]["effect"].item()
    np.testing.assert_allclose(effect, np.abs(change[:, others]).mean(), rtol=1e-5)
    found = bf.tl.perturb(adata, IDS[5], model=g2, readout="genes", n_null=0, groupby="site", copy=True)
    shift = 1 - torch.cosine_similarity(before.genes.double(), after.genes.double(), dim=-1).numpy()
    np.testing.assert_allclose(found.varm["perturb"][others, 1], shift[1::2].mean(axis=0)[others], rtol=1e-3, atol=1e-7)
    assert found.uns["perturb"]["gene_columns"]["group"].tolist() == ["a", "b"]


def test_slopes_equal_finite_differences(adata, model):
    passes = Passes(model)
    values = np.asarray(adata.X)[0].copy()
    values[7] = np.nan
    width = len(passes.vectors(values[None])[0])
    directions = np.random.default_rng(3).normal(size=(2, width))
    slopes = passes.slopes(values, directions)
    assert slopes[:, 7].tolist() == [0, 0]
    genes, step = [0, 11, 30, 59], 2e-3
    for gene in genes:
        at = np.array([gene])
        sides = [(at, (values[at] + way * step).astype(np.float32)) for way in (1, -1)]
        ahead, behind = passes.differences(values, sides)
        slope = (ahead - behind) @ directions.T / (sides[0][1] - sides[1][1])
        np.testing.assert_allclose(slopes[:, gene], slope, rtol=2e-2, atol=2e-2 * np.abs(slopes).max())


@pytest.mark.parametrize("readout", ["sample", "states"])
def test_small_changes_are_what_the_screen_says(adata, readout):
    model = make_model("mini")
    chosen = bf.tl.States("state", start="ill", goal="well") if readout == "states" else readout
    change = bf.tl.Change("activate", factor=1.001)
    table = run(adata, model=model, readout=chosen, change=change, screen=5)
    exact = table[table["effect"].notna()]
    assert exact.index.nunique() == 5
    np.testing.assert_allclose(exact["first_order"], exact["effect"], rtol=2e-2)
    assert table.groupby("output")["first_order"].count().eq(G).all()


def test_a_screen_finds_what_exact_passes_find(adata, g2):
    change = bf.tl.Change("inhibit", factor=0.9)
    estimates = run(adata[:2].copy(), model=g2, change=change, screen=0)["first_order"]
    exact = run(adata[:2].copy(), model=g2, change=change)["effect"]
    assert estimates.corr(exact, method="spearman") > 0.8
    pair = [(IDS[0], IDS[1]), IDS[0], IDS[1]]
    states = bf.tl.States("site", start="a", goal="b")
    found = run(adata, pair, model=g2, readout=states, screen=0)
    found = found[found["output"] == "toward b"]["first_order"]
    np.testing.assert_allclose(found[f"{IDS[0]}+{IDS[1]}"], found[IDS[0]] + found[IDS[1]], rtol=1e-5)


def test_the_planted_regulator_comes_first():
    """One gene drives ten others; a network fitted to such samples is moved by its deletion more than by any other."""
    rng = np.random.default_rng(0)
    values = rng.gamma(4, 0.75, (300, G)).astype(np.float32)
    targets = np.arange(20, 30)
    values[:, targets] = 0.7 * values[:, [3]] + rng.gamma(4, 0.25, (300, 10))
    fitted = FactorAnalysis(4, random_state=0).fit(values[:-20])
    model = make_model("mini")
    loadings, noise = torch.from_numpy(fitted.components_.T).float(), torch.from_numpy(fitted.noise_variance_).float()
    padded = torch.cat([loadings, torch.zeros(G, 4)], dim=1)
    model.network.factors.set_model(torch.from_numpy(values.mean(axis=0)), padded, torch.ones(8), noise)
    adata = ad.AnnData(values[-20:], var=pd.DataFrame(index=IDS), obs=pd.DataFrame(index=[f"s{i}" for i in range(20)]))
    adata.obs["high"] = np.where(adata.X[:, 3] > np.median(adata.X[:, 3]), "high", "low")
    states = bf.tl.States("high", start="high", goal="low")
    for readout in (states, "sample"):
        for screen in (None, 5):
            table = run(adata, model=model, readout=readout, screen=screen)
            assert table.index[0] == IDS[3]
            effects = table["effect"].abs().to_numpy()
            assert effects[0] > 1.5 * effects[1]


BAD = {
    "absent gene": ({"genes": "MISSING1"}, KeyError, r"\['MISSING1'\] cannot be perturbed .*name genes as in"),
    "gene unknown to the model": (
        {"genes": ["EXTRA", IDS[0]]},
        KeyError,
        r"\['EXTRA'\] cannot be perturbed \(1 of 2 genes\): .* tiny-g2 does not know them",
    ),
    "zero gene": (
        {"genes": [IDS[0], IDS[8]]},
        ValueError,
        rf"the gene '{IDS[8]}' is zero in 1 of {N} samples, the first 's3'",
    ),
    "missing gene": ({"genes": IDS[9]}, ValueError, rf"the gene '{IDS[9]}' is missing in 2 .* 's1', impute it"),
    "zero in a combination": ({"genes": [(IDS[0], IDS[8])]}, ValueError, r"the combination .* is zero in 1"),
    "set of such": ({"genes": {"both": IDS[8:9]}}, ValueError, r"the set 'both' is zero in 1"),
    "set of unknown genes": (
        {"genes": {"none": ["A1", "B2"]}},
        ValueError,
        r"no gene of the set 'none' .*leave the set out",
    ),
    "twice": ({"genes": [IDS[0], IDS[0]]}, ValueError, r"names '.*' twice"),
    "repeated": ({"genes": [(IDS[0], IDS[0])]}, ValueError, r"needs different genes"),
    "no list": ({"genes": [3]}, TypeError, r"a list of names and of tuples of names, .*found 3"),
    "empty list": ({"genes": []}, TypeError, r"found an empty list"),
    "no column": ({"readout": bf.tl.States("stage", "ill", "well")}, KeyError, r"no column 'stage' \(states\)"),
    "goal is start": (
        {"readout": bf.tl.States("state", "ill", "ill")},
        ValueError,
        r"start 'ill', goal 'ill' .*different",
    ),
    "alternates as text": (
        {"readout": bf.tl.States("state", "ill", "well", "other")},
        ValueError,
        r"alternates a list",
    ),
    "state without samples": (
        {"readout": bf.tl.States("state", "ill", "cured")},
        ValueError,
        r"no sample of adata.obs\['state'\] is 'cured'; its states are \['ill', 'other', 'well'\]",
    ),
    "group without samples": (
        {"groupby": "empty"},
        ValueError,
        r"\['c'\] of adata.obs\['empty'\] have no sample; leave",
    ),
    "group without the start": (
        {"groupby": "state", "readout": bf.tl.States("state", "ill", "well")},
        ValueError,
        r"\['other', 'well'\] .* have no sample in the start state 'ill'",
    ),
    "unknown readout": (
        {"readout": "risk"},
        KeyError,
        r"readout is 'risk'; it is one of \['sample', 'genes', 'expression'\]",
    ),
    "readout of a wrong type": ({"readout": 3}, TypeError, r"readout is of type int"),
    "negative": ({"n_null": -1}, ValueError, r"n_null is -1; use 0 or more"),
    "screen of genes": ({"readout": "genes", "screen": 3}, ValueError, r"pass screen=None"),
    "change": ({"change": "remove"}, ValueError, r"a change is one of \['delete', .*found 'remove'"),
    "change without its number": ({"change": "inhibit"}, ValueError, r"takes one of factor= and quantile=, found none"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_refused(adata, g2, name):
    options, error, message = BAD[name]
    adata.X[3, 8], adata.X[[1, 4], 9] = 0, np.nan
    extra = ad.AnnData(np.ones((N, 1), dtype=np.float32), obs=adata.obs, var=pd.DataFrame(index=["EXTRA"]))
    wide = ad.concat([adata, extra], axis=1)
    wide.obs = adata.obs.assign(empty=pd.Categorical(["a", "b"] * (N // 2), categories=["a", "b", "c"]))
    wide.obs["state"] = wide.obs["state"].astype("category")
    before = wide.copy()
    with pytest.raises(error, match=message):
        bf.tl.perturb(wide, options.pop("genes", [IDS[0]]), model=g2, **{"n_null": 0, **options})
    assert before.uns.keys() == wide.uns.keys()
    assert list(wide.obsm) == list(wide.varm) == []


def test_refuses_a_goal_at_the_same_place(adata, g2):
    adata.X[1::2] = adata.X[::2]
    with pytest.raises(ValueError, match="the samples of 'b' are where those of 'a' are"):
        run(adata, IDS[0], model=g2, readout=bf.tl.States("site", "a", "b"))


def test_refuses_too_many_columns(adata, g2, monkeypatch):
    monkeypatch.setattr("bulkformer_tl.tl._perturb.MOST_CHANGES", 10 * G)
    with pytest.raises(ValueError, match=r"60 perturbations of 1 groups .* name at most 10 genes"):
        run(adata, model=g2, readout="expression")


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"kind": "inhibit", "factor": 1.5}, "factor of 'inhibit' lies between 0 and 1, found 1.5"),
        ({"kind": "activate", "factor": 0.5}, "factor of 'activate' lies between 1 and inf"),
        ({"kind": "activate", "quantile": 1.5}, "quantile of 'activate' lies between 0 and 1"),
        ({"kind": "set", "value": 100.0}, "value of 'set' lies between 0 and 13.8155, found 100.0"),
        ({"kind": "delete", "value": 1.0}, r"takes no number, found \['value'\]"),
        ({"kind": "inhibit", "factor": 0.5, "quantile": 0.5}, r"takes one of .* found \['factor', 'quantile'\]"),
    ],
)
def test_refuses_changes(numbers, message):
    with pytest.raises(ValueError, match=message):
        bf.tl.Change(**numbers)


def test_refuses_to_overwrite(adata, g2):
    adata.uns["perturb"] = {"mine": 1}
    with pytest.raises(ValueError, match="pass another key_added"):
        bf.tl.perturb(adata, IDS[0], model=g2)


def test_results_can_be_written(adata, g2, tmp_path):
    bf.tl.perturb(adata, IDS[:2].tolist(), model=g2, n_null=2, per_sample=True, screen=2)
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad")
    pd.testing.assert_frame_equal(
        again.uns["perturb"]["table"], adata.uns["perturb"]["table"], check_dtype=False, check_index_type=False
    )
    assert again.obsm["perturb"].shape == (N, 2)


def fitted(adata: ad.AnnData, model: bf.models.BulkFormer) -> ad.AnnData:
    parts = [ad.AnnData(adata.X + 0.1 * part, obs=adata.obs, var=adata.var) for part in range(3)]
    adata = ad.concat(parts, index_unique="-", keys=["0", "1", "2"])
    bf.tl.embed(adata, model=model)
    rng = np.random.default_rng(2)
    adata.obs["ill"] = (adata.obs["state"] == "ill").map({True: "yes", False: "no"}).astype("category")
    adata.obs["age"] = 40 + 20 * rng.random(adata.n_obs)
    adata.obs["days"] = 1 + 100 * rng.random(adata.n_obs)
    adata.obs["died"] = rng.random(adata.n_obs) < 0.7
    return adata


def fit_heads(adata: ad.AnnData) -> dict[str, tuple[str, object]]:
    fast = bf.metrics.Protocol(n_splits=2, n_bootstrap=100, duplicates=None, baselines=())
    bf.tl.classify(adata, "ill", protocol=fast)
    bf.tl.regress(adata, "age", protocol=fast)
    bf.tl.survival(adata, "days", event="died", protocol=fast)
    return {
        "classify_ill": ("probability of yes", lambda table: table["yes"]),
        "regress_age": ("age", lambda table: table["prediction"]),
        "survival": ("log hazard", lambda table: table["risk"]),
    }


def test_heads(adata, g2):
    cohort = fitted(adata, g2)
    for key, (output, read) in fit_heads(cohort).items():
        head = bf.tl.fitted_head(cohort, key)
        other = deleted(cohort, IDS[11])
        bf.tl.embed(other, model=g2)
        expected = (read(head.predict(other)) - read(head.predict(cohort))).mean()
        by_key = run(cohort, [IDS[11]], model=g2, readout=key)
        np.testing.assert_allclose(by_key["effect"], expected, rtol=1e-3, atol=1e-6)
        assert by_key["output"].tolist() == [output]
        by_head = run(cohort, [IDS[11]], model=g2, readout=head)
        np.testing.assert_array_equal(by_key["effect"], by_head["effect"])


def test_heads_of_many_columns(adata, g2):
    cohort = fitted(adata, g2)
    fast = bf.metrics.Protocol(n_splits=2, n_bootstrap=100, duplicates=None, baselines=())
    rng = np.random.default_rng(3)
    proteins = pd.DataFrame(rng.normal(size=(cohort.n_obs, 2)), index=cohort.obs_names, columns=["CD3", "CD4"])
    cohort.obsm["protein"] = proteins.mul([1, 100])
    bf.tl.regress(cohort, "protein", protocol=fast)
    drugs = pd.DataFrame(rng.normal(size=(cohort.n_obs, 3)), index=cohort.obs_names, columns=["a", "b", "c"])
    bf.tl.drug_response(cohort, drugs, protocol=fast)
    other = deleted(cohort, IDS[11])
    bf.tl.embed(other, model=g2)
    for key, columns in (("regress_protein", ["CD3", "CD4"]), ("drug_response", ["a", "b", "c"])):
        head = bf.tl.fitted_head(cohort, key)
        expected = head.predict(other) - head.predict(cohort)
        found = bf.tl.perturb(cohort, [IDS[11]], model=g2, readout=key, n_null=0, per_sample=True, copy=True)
        assert found.uns["perturb"]["columns"]["output"].tolist() == columns
        np.testing.assert_allclose(found.obsm["perturb"], expected, rtol=1e-3, atol=1e-5 * expected.abs().max().max())
        table = found.uns["perturb"]["table"].set_index("output")
        np.testing.assert_allclose(table["effect"][columns], expected.mean(), rtol=1e-2, atol=1e-6)
        screened = run(cohort, [IDS[11]], model=g2, readout=key, change=bf.tl.Change("inhibit", factor=0.99), screen=1)
        np.testing.assert_allclose(screened["first_order"], screened["effect"], rtol=5e-2, atol=1e-6)


def test_heads_that_no_sample_goes_into(adata, g2):
    cohort = fitted(adata, g2)
    cohort.obs["drug"] = np.resize(["none", "a", "b", "c"], cohort.n_obs)
    fast = bf.metrics.Protocol(n_splits=2, n_bootstrap=100, duplicates=None, baselines=())
    bf.tl.perturbation_response(cohort, "drug", control="none", protocol=fast)
    with pytest.raises(TypeError, match="no single sample goes into it, pass another head"):
        run(cohort, IDS[0], model=g2, readout="perturbation_response")


def test_heads_that_read_something_else(adata, g2):
    cohort = fitted(adata, g2)
    fast = bf.metrics.Protocol(n_splits=2, n_bootstrap=100, duplicates=None, baselines=())
    bf.tl.regress(cohort, "age", protocol=fast)
    with pytest.raises(ValueError, match=r"the head reads 'X_bulkformer' of another model, .*tiny-g3"):
        run(cohort, IDS[0], model=make_model("g3"), readout="regress_age")
    other = cohort.copy()
    other.X = other.X[::-1].copy()
    with pytest.raises(ValueError, match="which are not the sample vector"):
        run(other, IDS[0], model=g2, readout="regress_age")
    bf.tl.regress(cohort, "age", use_rep=None, protocol=fast, key_added="of_genes")
    with pytest.raises(ValueError, match="the head reads expression itself"):
        run(cohort, IDS[0], model=g2, readout="of_genes")
