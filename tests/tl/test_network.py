"""Networks of genes: weights by hand, groups, halves, what is recovered of known pairs, and export."""

from __future__ import annotations

import json

import anndata as ad
import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score

import bulkformer_tl as bf
from bulkformer_tl.models._gene_attention import attention_reader
from bulkformer_tl.tl._network_scores import rewired
from bulkformer_tl.tl._untrained import untrained


def edges(adata, genes=None, *, key="network", **options):
    bf.tl.network(adata, genes, key_added=key, **options)
    return adata.uns[key]["edges"]


def read_all(model, adata):
    """Attention of each sample, (N, L, targets, sources) in units of uniform attention, and what is received."""
    reader = attention_reader(model)
    place = pd.Index(model.vocabulary.ids).get_indexer(adata.var_names)
    weights, received, values = [], [], []
    for row in np.asarray(adata.X):
        whole = np.full(len(model.vocabulary), np.nan, dtype=np.float32)
        whole[place] = row
        found = reader(whole, {}, place, place, range(reader.n_layers))
        weights.append(found.weights * found.n_tokens)
        received.append(found.received)
        values.append(whole)
    return np.stack(weights).astype(float), np.stack(received), np.stack(values)


def check_strongest(table, matrix, names, n_edges):
    """Each target has its strongest sources, with their weights; ``matrix`` is (sources, targets)."""
    matrix = pd.DataFrame(matrix, index=names, columns=names)
    for target, own in table.groupby("target"):
        column = matrix[target].drop(target)
        expected = column.sort_values(ascending=False, kind="stable").head(n_edges)
        assert set(own["source"]) == set(expected.index)
        np.testing.assert_allclose(own.set_index("source")["weight"][expected.index], expected, rtol=1e-5)


def test_attention_by_hand(cohort, latest):
    weights, received, values = read_all(latest, cohort)
    regulators = cohort.var_names[[3, 8]].tolist()
    table = edges(cohort, cohort.var_names.tolist(), model=latest, n_edges=3)
    check_strongest(table, weights.mean(axis=(0, 1)).T, cohort.var_names, 3)
    assert table["weight"].is_monotonic_decreasing
    assert len(table) == 3 * cohort.n_vars
    layers = cohort.uns["network"]["layers"]
    assert layers["regulator_share"].isna().all()
    for layer, found in layers.set_index("layer")["rank_correlation"].items():
        each = []
        for own, seen in zip(received[:, layer], values, strict=True):
            known = ~np.isnan(seen)
            each.append(stats.spearmanr(own[known], seen[known]).statistic)
        assert found == pytest.approx(np.mean(each))
    edges(cohort, cohort.var_names.tolist(), model=latest, regulators=regulators)
    places = pd.Index(latest.vocabulary.ids).get_indexer(regulators)
    layers = cohort.uns["network"]["layers"].set_index("layer")
    np.testing.assert_allclose(layers["regulator_share"], received[:, :, places].sum(axis=2).mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(layers["uniform_share"], 2 / len(latest.vocabulary))
    assert set(cohort.uns["network"]["edges"]["source"]) == set(regulators)


def test_layers_can_be_chosen(cohort, latest):
    weights, _, _ = read_all(latest, cohort)
    last = weights.shape[1] - 1
    table = edges(cohort, cohort.var_names.tolist(), model=latest, attention_layers=[-1], n_edges=2)
    check_strongest(table, weights[:, last].mean(axis=0).T, cohort.var_names, 2)
    assert cohort.uns["network"]["layers"]["layer"].tolist() == [last]
    assert "frequency" not in table


def test_runs_say_how_often_an_edge_comes_again(cohort, latest):
    other = untrained(latest, rng=1)
    first, _, _ = read_all(latest, cohort)
    second, _, _ = read_all(other, cohort)
    table = edges(cohort, cohort.var_names.tolist(), model=[latest, other], n_edges=4)
    runs = [*first.mean(axis=0), *second.mean(axis=0)]
    check_strongest(table, np.mean(runs, axis=0).T, cohort.var_names, 4)
    counted = np.zeros((cohort.n_vars, cohort.n_vars))
    for run in runs:
        weight = np.where(np.eye(len(run), dtype=bool), -np.inf, run.T)
        top = np.argsort(-weight, axis=0, kind="stable")[:4]
        np.add.at(counted, (top, np.arange(len(run))), 1 / len(runs))
    places = cohort.var_names.get_indexer
    np.testing.assert_allclose(table["frequency"], counted[places(table["source"]), places(table["target"])])
    assert set(cohort.uns["network"]["layers"]["model"]) == {latest.name, other.name}


def test_models_of_one_name_are_told_apart(cohort, latest):
    other = untrained(latest, rng=1)
    other.name = latest.name
    edges(cohort, cohort.var_names[:9].tolist(), model=[latest, other], attention_layers=[0])
    layers = cohort.uns["network"]["layers"]
    assert layers["model"].tolist() == [f"{latest.name} (1)", f"{latest.name} (2)"]
    assert layers["rank_correlation"].nunique() == 2


def test_halves_are_drawn_within_groups(cohort, latest):
    cohort.obs["kind"] = ["a", "b"] * 3
    options = {"model": latest, "groupby": "kind", "resamples": 4}
    one = edges(cohort, cohort.var_names.tolist(), **options).copy()
    assert cohort.uns["network"]["params"]["n_runs"] == 4 * cohort.uns["network"]["layers"]["layer"].nunique()
    assert one["frequency"].between(0, 1).all()
    assert 0 < one["frequency"].mean() < 1
    pd.testing.assert_frame_equal(one, edges(cohort, cohort.var_names.tolist(), **options))
    assert not one.equals(edges(cohort, cohort.var_names.tolist(), **options, rng=1))


def test_groups_and_their_contrast(cohort, latest):
    cohort.obs["kind"] = pd.Categorical(["x", "y", "x", "y", "y", "x"])
    weights, _, _ = read_all(latest, cohort)
    each = weights.mean(axis=1)
    table = edges(cohort, cohort.var_names.tolist(), model=latest, groupby="kind", n_edges=3)
    x = (cohort.obs["kind"] == "x").to_numpy()
    for name, inside in (("x", x), ("y", ~x)):
        check_strongest(table[table["group"] == name], each[inside].mean(axis=0).T, cohort.var_names, 3)
    contrast = cohort.uns["network"]["contrast"]
    assert set(contrast["group"]) == {"x"}
    assert set(contrast["other"]) == {"y"}
    assert len(contrast) == len(table[["source", "target"]].drop_duplicates())
    source, target = (cohort.var_names.get_indexer(contrast[end]) for end in ("source", "target"))
    test = stats.ttest_ind(each[x][:, target, source], each[~x][:, target, source], equal_var=False)
    np.testing.assert_allclose(contrast["p"], test.pvalue, rtol=1e-3)
    np.testing.assert_allclose(contrast["fdr"], stats.false_discovery_control(contrast["p"]))
    gap = each[x].mean(axis=0) - each[~x].mean(axis=0)
    np.testing.assert_allclose(contrast["difference"], gap[target, source], rtol=1e-4, atol=1e-7)


def test_three_groups_are_each_compared_with_all_others(cohort, latest):
    cohort.obs["kind"] = ["x", "x", "y", "y", "z", "z"]
    edges(cohort, cohort.var_names[:8].tolist(), model=latest, groupby="kind", n_edges=2)
    contrast = cohort.uns["network"]["contrast"]
    assert set(contrast["group"]) == {"x", "y", "z"}
    assert set(contrast["other"]) == {"others"}


def test_order_and_storage_of_samples_change_nothing(cohort, latest):
    genes = cohort.var_names.tolist()
    one = edges(cohort, genes, model=latest)
    other = cohort[::-1].copy()
    other.X = np.asfortranarray(other.X)
    two = edges(other, genes, model=latest).set_index(["source", "target"])["weight"]
    np.testing.assert_allclose(two[pd.MultiIndex.from_frame(one[["source", "target"]])], one["weight"], rtol=1e-12)


def planted(n=60, seed=0):
    """Two regulators with ten targets each, and genes of their own."""
    rng = np.random.default_rng(seed)
    names = ["TP53", "MYC", *(f"p{i}" for i in range(10)), *(f"m{i}" for i in range(10)), *(f"o{i}" for i in range(20))]
    values = rng.normal(0, 0.6, (n, len(names))) + 4
    values[:, 2:12] += values[:, [0]] * 1.5 - 6
    values[:, 12:22] -= values[:, [1]] * 1.5 - 6
    adata = ad.AnnData(values.clip(0).astype(np.float32), var=pd.DataFrame(index=names))
    adata.obs["kind"] = np.resize(["a", "b"], n)
    pairs = [("TP53", f"p{i}") for i in range(10)] + [("MYC", f"m{i}") for i in range(10)]
    return adata, pd.DataFrame(pairs, columns=["source", "target"])


def test_coexpression_is_pearson_and_its_contrast_fisher():
    adata, _ = planted()
    table = edges(adata, adata.var_names.tolist(), method="coexpression", groupby="kind", n_edges=3, resamples=2)
    assert not (table["source"] == table["target"]).any()
    assert not table[["source", "target", "group"]].apply(lambda row: tuple(sorted(row)), axis=1).duplicated().any()
    assert (table["weight"] < -0.5).any()
    values = pd.DataFrame(adata.X, columns=adata.var_names)
    a = (adata.obs["kind"] == "a").to_numpy()
    for row in table.iloc[::7].to_dict("records"):
        own = values[a if row["group"] == "a" else ~a]
        assert row["weight"] == pytest.approx(np.corrcoef(own[row["source"]], own[row["target"]])[0, 1], abs=1e-5)
    row = adata.uns["network"]["contrast"].iloc[0]
    r, s = (values[own].corr().loc[row["source"], row["target"]] for own in (a, ~a))
    assert row["difference"] == pytest.approx(r - s, abs=1e-5)
    z = abs(np.arctanh(r) - np.arctanh(s)) / np.sqrt(1 / 27 + 1 / 27)
    assert row["p"] == pytest.approx(2 * stats.norm.sf(z), rel=1e-3)
    assert set(table["frequency"]) <= {0.0, 0.5, 1.0}


def test_what_is_planted_is_recovered():
    adata, pairs = planted()
    table = edges(adata, adata.var_names.tolist(), method="coexpression", regulators=pairs, n_edges=1)
    found = adata.uns["network"]
    recovery = found["recovery"].set_index("edges")
    assert recovery.index.tolist() == ["coexpression", "level"]
    assert recovery.loc["coexpression", "auroc"] > 0.95 > recovery.loc["level", "auroc"]
    assert recovery.loc["coexpression", "n_found"] >= 18
    assert recovery.loc["coexpression", "null_p"] < 0.05
    assert recovery.loc["coexpression", "null_z"] > 3
    assert table["known"].sum() == recovery.loc["coexpression", "n_found"]
    scores = found["scores"].set_index("representation")["mean"]
    assert scores["coexpression"] > 0.95
    assert found["differences"]["baseline"].tolist() == ["level"]
    regulators = found["regulators"].set_index("regulator")
    assert (regulators["fdr"] < 0.01).all()
    np.testing.assert_allclose(regulators["fdr"], stats.false_discovery_control(regulators["p"]))
    own = table[table["source"] == "TP53"]
    inside, n_edges = int(own["known"].sum()), len(own)
    counts = [[inside, n_edges - inside], [10 - inside, adata.n_vars - 1 - n_edges - 10 + inside]]
    assert regulators.loc["TP53", "p"] == pytest.approx(stats.fisher_exact(counts, alternative="greater").pvalue)
    corrected = np.array(counts) + 0.5
    expected = corrected[0, 0] * corrected[1, 1] / corrected[0, 1] / corrected[1, 0]
    assert regulators.loc["TP53", "odds_ratio"] == pytest.approx(expected)


def test_areas_by_hand_beside_coexpression_and_level(cohort, latest):
    genes = cohort.var_names.tolist()
    rng = np.random.default_rng(0)
    pairs = pd.DataFrame([(tf, gene) for tf in genes[:3] for gene in rng.choice(genes[3:], 9, replace=False)])
    pairs.columns = ["tf", "target"]
    edges(cohort, genes, model=latest, regulators=pairs, n_edges=2, n_null=5)
    recovery = cohort.uns["network"]["recovery"].set_index("edges")
    assert recovery.index.tolist() == ["attention", "coexpression", "level"]
    weights = read_all(latest, cohort)[0].mean(axis=(0, 1)).T[:3]
    known = np.array([[((pairs["tf"] == tf) & (pairs["target"] == gene)).any() for gene in genes] for tf in genes[:3]])
    apart = ~np.eye(len(genes), dtype=bool)[:3]
    assert recovery.loc["attention", "auroc"] == pytest.approx(roc_auc_score(known[apart], weights[apart]))
    rank = stats.rankdata(np.nan_to_num(np.nanmean(cohort.X, axis=0)))
    level = rank[:3, None] + rank
    assert recovery.loc["level", "auroc"] == pytest.approx(roc_auc_score(known[apart], level[apart]), abs=1e-6)
    assert recovery.loc["attention", ["n_pairs", "n_known"]].tolist() == [apart.sum(), known.sum()]
    own = [roc_auc_score(known[i][apart[i]], weights[i][apart[i]]) for i in range(3)]
    np.testing.assert_allclose(np.sort(cohort.uns["network"]["regulators"]["auroc"]), np.sort(own))
    assert cohort.uns["network"]["scores"].iloc[0]["mean"] == pytest.approx(np.mean(own))


def test_null_keeps_all_degrees():
    rng = np.random.default_rng(0)
    mask, same = rng.random((8, 20)) < 0.3, np.zeros((8, 20), dtype=bool)
    same[np.arange(8), np.arange(8)] = True
    mask &= ~same
    drawn = rewired(mask, same, 6, rng)
    for other in drawn:
        np.testing.assert_array_equal(other.sum(axis=0), mask.sum(axis=0))
        np.testing.assert_array_equal(other.sum(axis=1), mask.sum(axis=1))
        assert not (other & same).any()
        assert (other != mask).any()
    assert rewired(mask[:1], same[:1], 3, rng) == []


@pytest.mark.parametrize("kind", ["file", "tf", "list"])
def test_regulators_can_be_given_in_several_ways(kind, tmp_path):
    adata, pairs = planted()
    adata.var_names = ["ENSG00000141510", "ENSG00000136997.20", *adata.var_names[2:]]
    if kind == "file":
        pairs.assign(mor=1).to_csv(tmp_path / "pairs.csv.gz")
        given = str(tmp_path / "pairs.csv.gz")
    else:
        given = pairs.rename(columns={"source": "tf"}) if kind == "tf" else ["TP53", "MYC", "NOGENE"]
    table = edges(adata, adata.var_names.tolist(), method="coexpression", regulators=given, n_edges=1)
    assert set(table["source"]) == {"ENSG00000141510", "ENSG00000136997.20"}
    assert ("known" in table) == ("recovery" in adata.uns["network"]) == (kind != "list")
    assert ("programs" in adata.uns["network"]) is False


def vectors_of_clusters():
    """Two clusters of six genes and one of four."""
    rng = np.random.default_rng(0)
    centers = np.repeat(np.eye(3), [6, 6, 4], axis=0)
    adata = ad.AnnData(rng.random((4, 16)).astype(np.float32), var=pd.DataFrame(index=[f"g{i}" for i in range(16)]))
    adata.varm["genes"] = (centers + rng.normal(0, 0.1, (16, 3))).astype(np.float32)
    return adata


def test_confidence_of_dorothea_is_left_to_the_caller(tmp_path):
    """All its levels are known pairs; a table of some of them is another one."""
    adata, pairs = planted()
    table = pd.DataFrame(
        {
            "tf": pairs["source"],
            "confidence": ["A", "D"] * 10,
            "target": pairs["target"],
            "mor": [1, -1] * 10,
            "tf_ensembl": "",
            "target_ensembl": "",
        }
    )
    table.to_csv(tmp_path / "dorothea.csv.gz", index=False)
    genes, known = adata.var_names.tolist(), {}
    trusted = pd.read_csv(tmp_path / "dorothea.csv.gz").query("confidence in ['A', 'B', 'C']")
    for name, given in (("all", tmp_path / "dorothea.csv.gz"), ("trusted", trusted)):
        edges(adata, genes, method="coexpression", regulators=given, n_edges=1)
        known[name] = adata.uns["network"]["recovery"]["n_known"].unique().tolist()
    assert known == {"all": [20], "trusted": [10]}


def test_cosine_and_programs_of_five_genes_or_more():
    adata = vectors_of_clusters()
    adata.varm["other"] = adata.varm["genes"][:, ::-1] * 2
    adata.varm["other"][0] *= -1
    table = edges(adata, adata.var_names.tolist(), method="cosine", vectors=["genes", "other"], n_edges=3)
    unit = adata.varm["genes"] / np.linalg.norm(adata.varm["genes"], axis=1, keepdims=True)
    both = unit @ unit.T
    flipped = both.copy()
    flipped[0], flipped[:, 0] = -both[0], -both[:, 0]
    mean = pd.DataFrame((both + flipped) / 2, index=adata.var_names, columns=adata.var_names)
    np.testing.assert_allclose(
        table["weight"], [mean.loc[a, b] for a, b in table[["source", "target"]].to_numpy()], atol=1e-6
    )
    # an edge may be among the strongest of the mean and of neither
    assert set(table["frequency"]) == {0.0, 0.5, 1.0}
    edges(adata, adata.var_names.tolist(), method="cosine", vectors="genes", n_edges=3)
    programs = adata.uns["network"]["programs"].groupby("program")["gene"].agg(set)
    assert programs.tolist() == [{f"g{i}" for i in range(6)}, {f"g{i}" for i in range(6, 12)}]


def test_vectors_of_groups_are_contrasted():
    adata = vectors_of_clusters()
    adata.obs["kind"] = ["a", "a", "b", "b"]
    adata.varm["v_a"], adata.varm["v_b"] = adata.varm["genes"], adata.varm["genes"][:, [1, 0, 2]] ** 2
    adata.uns["v"] = {"params": {"package": "bulkformer_tl", "groupby": "kind"}}
    table = edges(adata, adata.var_names.tolist(), method="cosine", vectors="v", groupby="kind", n_edges=3)
    assert set(table["group"]) == {"a", "b"}
    contrast = adata.uns["network"]["contrast"]
    assert contrast["p"].isna().all()
    mean = edges(adata, adata.var_names.tolist(), method="cosine", vectors="v", key="mean")
    assert set(mean["group"]) == {"all"}


def test_most_variable_genes_are_taken():
    adata, _ = planted()
    adata.X[:, 5] = 3.3
    table = edges(adata, method="coexpression", n_edges=1)
    assert "p3" not in set(table["source"]) | set(table["target"])
    assert adata.uns["network"]["params"]["n_targets"] == adata.n_vars - 1


def test_geneformer(geneformer_folders):
    pytest.importorskip("transformers")
    model = bf.models.load(f"geneformer:{geneformer_folders['v2']}", device="cpu")
    ids = list(json.loads((geneformer_folders["v2"] / "gene_median_dictionary.json").read_text()))
    rng = np.random.default_rng(0)
    genes = [gene for gene in model.vocabulary.ids if gene in ids][:30]
    counts = (rng.poisson(20, (5, 30)) * (rng.random((5, 30)) < 0.6)).astype(np.float32)
    adata = ad.AnnData(counts, var=pd.DataFrame(index=genes), obs=pd.DataFrame(index=list("abcde")))
    pairs = pd.DataFrame({"source": genes[0], "target": genes[1:8]})
    bf.tl.network(adata, genes, model=model, regulators=pairs, attention_layers=[0], n_edges=1)
    table = adata.uns["network"]["edges"].set_index("target")["weight"]
    whole = np.full((5, len(model.vocabulary)), np.nan, dtype=np.float32)
    whole[:, pd.Index(model.vocabulary.ids).get_indexer(genes)] = counts
    source = model.vocabulary.ids.tolist().index(genes[0])
    for gene in genes[1:5]:
        target = model.vocabulary.ids.tolist().index(gene)
        each = []
        for row in whole:
            if row[source] > 0 and row[target] > 0:
                (own,) = model.attention(row[None], layer=0)
                at = {g: token for token, g in enumerate(own.genes.tolist())}
                each.append(float(own.weights.mean(dim=0)[at[target], at[source]]) * len(own.genes))
        assert table[gene] == pytest.approx(np.mean(each), rel=1e-5)
    layers = adata.uns["network"]["layers"]
    assert layers["rank_correlation"].between(-1, 1).all()
    assert {"attention", "coexpression", "level"} == set(adata.uns["network"]["recovery"]["edges"])


def test_result_is_written_exported_and_copied(cohort, latest, tmp_path):
    cohort.var["symbol"] = ["", *(f"S{i}" for i in range(1, cohort.n_vars))]
    cohort.obs["kind"] = ["a", "b"] * 3
    made = bf.tl.network(cohort, cohort.var_names.tolist(), model=latest, groupby="kind", resamples=2, copy=True)
    assert "network" not in cohort.uns
    made.write_h5ad(tmp_path / "net.h5ad")
    made = ad.read_h5ad(tmp_path / "net.h5ad")
    graph = bf.tl.network_graph(made, group="b", min_frequency=0.9, gene_symbols="symbol")
    assert graph.is_directed()
    table = made.uns["network"]["edges"]
    table = table[(table["group"] == "b") & (table["frequency"] >= 0.9)]
    assert graph.number_of_edges() == len(table)
    nx.write_graphml(graph, tmp_path / "net.graphml")
    again = nx.read_graphml(tmp_path / "net.graphml")
    row = table.iloc[0]
    assert again.edges[row["source"], row["target"]]["weight"] == pytest.approx(row["weight"])
    symbols = nx.get_node_attributes(again, "symbol")
    assert symbols[row["source"]] == (made.var.loc[row["source"], "symbol"] or row["source"])
    bf.tl.network(made, made.var_names.tolist(), method="coexpression", key_added="co")
    assert not bf.tl.network_graph(made, "co").is_directed()


class _Ask:
    """One call that must fail."""

    def __init__(self, error, says, genes=None, **options):
        self.error, self.says, self.genes, self.options = error, says, genes, options


BAD = {
    "method": _Ask(
        ValueError, r"method is 'copula'; choose among \['attention', 'cosine', 'coexpression'\]", method="copula"
    ),
    "no edges": _Ask(ValueError, "n_edges is 0; it must be at least 1", n_edges=0),
    "halves": _Ask(ValueError, "resamples is -1; it must be at least 0", resamples=-1),
    "halves of vectors": _Ask(ValueError, "make several vectors", method="cosine", vectors="genes", resamples=3),
    "no column": _Ask(KeyError, "no column 'state'", groupby="state"),
    "missing group": _Ask(ValueError, r"adata.obs\['gap'\] is missing for 1 samples", groupby="gap"),
    "one group": _Ask(ValueError, "has the one group 'only', and groupby compares; leave groupby out", groupby="one"),
    "empty group": _Ask(ValueError, r"the group 'c' of adata.obs\['empty'\] has no sample", groupby="empty"),
    "small group": _Ask(
        ValueError, "the group 'a' of .* has 2 samples, and this needs 3", groupby="small", method="coexpression"
    ),
    "absent gene": _Ask(KeyError, r"\['NOGENE'\] \(1 of 2 genes\) are not in adata", ["NOGENE", "first"]),
    "gene twice": _Ask(ValueError, "genes names .* twice; name it once", ["first", "first"]),
    "no genes": _Ask(ValueError, "0 genes can be used, and edges need two", []),
    "no regulators": _Ask(ValueError, "none of the 1 regulators", regulators=["NOGENE"]),
    "no known pair": _Ask(
        ValueError, "none of the 1 pairs of regulators has its target", regulators=[("first", "NOGENE")]
    ),
    "no table": _Ask(KeyError, r"columns \['a'\]; it needs 'source'", regulators=pd.DataFrame({"a": ["x"]})),
    "no file": _Ask(FileNotFoundError, "there is no file nowhere.csv", regulators="nowhere.csv"),
    "no names": _Ask(TypeError, "regulators is a table with the columns", regulators=[1, 2]),
    "no layer": _Ask(ValueError, r"has the layers 0 to \d, found attention_layers=\[9\]", attention_layers=[9]),
    "no vectors": _Ask(KeyError, "bf.tl.gene_embeddings", method="cosine", vectors="none"),
    "vectors without groups": _Ask(
        KeyError,
        "has no vectors of 'genes' for the groups of 'small'",
        method="cosine",
        vectors="genes",
        groupby="small",
    ),
    "counts": _Ask(ValueError, "is not ln", layer="counts"),
    "no such layer": _Ask(KeyError, "no layer 'none'", layer="none", method="coexpression"),
    "slot": _Ask(ValueError, "was not written by this call before", key_added="mine"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_and_nothing_written(cohort, latest, case):
    ask = BAD[case]
    cohort.obs["gap"] = ["a", "b", None, "a", "b", "a"]
    cohort.obs["one"] = "only"
    cohort.obs["small"] = ["a", "a", "b", "b", "b", "b"]
    cohort.obs["empty"] = pd.Categorical(["a", "b"] * 3, categories=["a", "b", "c"])
    cohort.layers["counts"] = np.nan_to_num(cohort.X) * 1000
    cohort.varm["genes"] = np.random.default_rng(0).random((cohort.n_vars, 3)).astype(np.float32)
    cohort.uns["mine"] = 1
    first = cohort.var_names[0]
    genes = None if ask.genes is None else [first if name == "first" else name for name in ask.genes]
    options = {"model": latest, **ask.options}
    if case == "no known pair":
        options["regulators"] = pd.DataFrame([(first, "NOGENE")], columns=["source", "target"])
    with pytest.raises(ask.error, match=ask.says):
        bf.tl.network(cohort, genes, **options)
    assert set(cohort.uns) == {"mine"}


def test_refuses_what_does_not_fit(cohort, latest, monkeypatch):
    monkeypatch.setattr("bulkformer_tl.tl._network_weights.MOST_WEIGHTS", 100)
    with pytest.raises(ValueError, match=r"pairs of genes in 1 groups, .* more than 100; pass fewer genes"):
        bf.tl.network(cohort, cohort.var_names.tolist(), model=latest)
    monkeypatch.undo()
    monkeypatch.setattr("bulkformer_tl.tl._network_weights.MOST_GENES", 5)
    with pytest.raises(ValueError, match="too large; pass at most 5 genes"):
        bf.tl.network(cohort, cohort.var_names.tolist(), method="coexpression")


def test_refuses_models_without_attention_and_repeated_genes(cohort, latest):
    bare = untrained(latest)
    bare.network.performer.net.layers = torch.nn.ModuleList()
    with pytest.raises(ValueError, match="has no layer of attention"):
        bf.tl.network(cohort, cohort.var_names.tolist(), model=bare)
    twice = cohort.copy()
    twice.var_names = [cohort.var_names[1], *cohort.var_names[1:]]
    with pytest.raises(ValueError, match=r"bf.pp.merge_duplicates"):
        bf.tl.network(twice, method="coexpression")


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"key": "other"}, KeyError, r"call bf\.tl\.network\(adata\) first"),
        ({"group": "liver"}, KeyError, r"no group 'liver'; it has \['all'\]"),
        ({"min_frequency": 0.5}, ValueError, "comes of one run; pass resamples="),
        ({"gene_symbols": "name"}, KeyError, "no column 'name'"),
    ],
)
def test_graph_refuses(options, error, says):
    adata, _ = planted()
    bf.tl.network(adata, adata.var_names.tolist(), method="coexpression")
    with pytest.raises(error, match=says):
        bf.tl.network_graph(adata, **options)


def test_graph_without_edges():
    adata, _ = planted()
    bf.tl.network(adata, adata.var_names.tolist(), method="coexpression", resamples=3)
    with pytest.raises(ValueError, match=r"no edge of .* is left with min_frequency=1.5"):
        bf.tl.network_graph(adata, min_frequency=1.5)
