from __future__ import annotations

from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.stats import false_discovery_control, ttest_ind

import bulkformer_tl as bf
from bulkformer_tl.metrics import Protocol, paper_protocol
from bulkformer_tl.metrics._complete import own_slope
from bulkformer_tl.tl._contextual import within_between

QUICK = Protocol(n_splits=3, n_bootstrap=100, duplicates=None)
N, G, M = 48, 60, 40


def make(*, line: float = 1.0, own: float = 0.0, seed: int = 0) -> tuple[ad.AnnData, pd.DataFrame]:
    """Genes that differ in their mean effect, and line by line with the embedding or with their own expression."""
    rng = np.random.default_rng(seed)
    embedding, vectors = rng.normal(size=(N, 4)), rng.normal(size=(G, 5))
    values = np.abs(rng.normal(3, 0.7, (N, G))).astype(np.float32)
    effect = vectors @ rng.normal(size=5) * 2 + line * (embedding @ rng.normal(size=(4, 5)) @ vectors.T) / 3
    effect = effect - own * (values - values.mean(axis=0)) + rng.normal(0, 0.5, (N, G))
    names, genes = [f"line {i}" for i in range(N)], [f"gene {i}" for i in range(G)]
    obs = pd.DataFrame({"kind": np.array(["a", "b", "c"])[np.arange(N) % 3]}, index=names)
    adata = ad.AnnData(values, obs=obs.astype("category"), var=pd.DataFrame(index=genes))
    adata.obsm["X_emb"], adata.varm["vectors"] = embedding.astype(np.float32), vectors.astype(np.float32)
    table = pd.DataFrame(effect, index=names, columns=genes).iloc[:, :M]
    return adata, table.mask(rng.random(table.shape) < 0.05)


@pytest.fixture
def cohort():
    return make()


def run(adata, effect, **options):
    bf.tl.essentiality(adata, effect, **{"use_rep": "X_emb", "protocol": QUICK, **options})
    return adata.uns[options.get("key_added", "essentiality")]


def score(result, name, axis="per_gene", metric="pearson"):
    table = result["scores"]
    rows = (table["representation"] == name) & (table["metric"] == metric) & (table["axis"] == axis)
    (found,) = table.loc[rows, "mean"]
    return found


def test_what_was_planted_is_found_gene_by_gene(cohort):
    adata, effect = cohort
    result = run(adata, effect)
    assert score(result, "X_emb") > 0.6
    assert abs(score(result, "expression")) < 0.2
    better = result["differences"].query("metric == 'rmse' and axis == 'per_gene'")
    assert set(better["baseline"]) == {"gene_mean", "expression", "raw", "pca"}
    assert (better["better"] == "X_emb").all()
    predicted = adata.layers["essentiality_pred"]
    assert predicted.shape == adata.shape
    assert np.isnan(predicted[:, M:]).all()
    assert np.isfinite(predicted[:, :M]).all()


def test_null_is_not_found_and_the_global_correlation_hides_it():
    found = []
    for seed in range(4):
        adata, effect = make(line=0.0, seed=seed)
        result = run(adata, effect)
        found.append(score(result, "X_emb"))
        assert score(result, "X_emb", "global") > 0.95
        assert score(result, "gene_mean", "global") > 0.95
        assert score(result, "gene_mean", "per_line") > 0.95
        assert np.isnan(score(result, "gene_mean"))
    assert abs(np.mean(found)) < 0.1


def test_expression_alone_wins_where_it_decides():
    adata, effect = make(line=0.0, own=1.0)
    result = run(adata, effect)
    assert score(result, "expression") > 0.6
    assert score(result, "X_emb") < 0.2
    rows = result["differences"].query("baseline == 'expression' and metric == 'pearson' and axis == 'per_gene'")
    assert rows["better"].tolist() == ["expression"]


@pytest.mark.parametrize("unseen", ["gene", "both"])
def test_new_genes_are_predicted_from_their_vectors(cohort, unseen):
    adata, effect = cohort
    result = run(adata, effect, gene_vectors="vectors", unseen=unseen)
    assert score(result, "X_emb") > 0.5
    assert score(result, "X_emb", "per_line") > 0.8
    assert score(result, "X_emb", metric="rmse") < score(result, "nearest_gene", metric="rmse")
    assert np.isnan(score(result, "gene_mean", "per_line"))


def test_contextual_vectors_are_a_row_of_their_own(cohort):
    adata, effect = make(line=0.0, own=1.0)
    adata.obs["line"] = pd.Categorical([f"l{i // 2}" for i in range(N)])
    rng = np.random.default_rng(0)
    for name in adata.obs["line"].cat.categories:
        mean = np.asarray(adata.X)[adata.obs["line"] == name].mean(axis=0)
        noise = rng.normal(size=(G, 2))
        adata.varm[f"context_{name}"] = np.column_stack([mean, noise]).astype(np.float32)
    adata.uns["context"] = {"params": {"package": "bulkformer_tl", "groupby": "line"}}
    result = run(adata, effect, gene_vectors="context", lines=None, groups="line")
    assert result["params"]["contextual"]
    assert score(result, "context (contextual)") > 0.4
    del adata.varm["context_l3"]
    with pytest.raises(KeyError, match=r"adata.varm has no vectors 'context_l3'; call bf.tl.gene_embeddings"):
        run(adata, effect, gene_vectors="context")


def test_within_between_equals_a_regression_on_pairs():
    rng = np.random.default_rng(0)
    vectors, groups = rng.normal(size=(6, 9, 3)), np.arange(12) % 6
    known = vectors[groups] @ np.array([1.0, -2.0, 0.5]) + rng.normal(0, 5, 9)
    known[2, 3], known[:, 8], known[11] = np.nan, np.nan, np.nan
    found = within_between(known, vectors, groups)
    rows, columns = np.nonzero(~np.isnan(known))
    pairs, y = vectors[groups[rows], columns], known[rows, columns]
    genes = np.eye(9)[columns][:, :8]
    center = genes @ np.linalg.lstsq(genes, pairs, rcond=None)[0]
    level = genes @ np.linalg.lstsq(genes, y, rcond=None)[0]
    deviation = pairs - center
    scale = (deviation**2).sum() / (3 * len(y))
    slope = np.linalg.solve(deviation.T @ deviation + 100 * scale * np.eye(3), deviation.T @ (y - level))
    np.testing.assert_allclose(found[rows, columns], level + deviation @ slope)
    assert np.isfinite(found).all()


def test_own_slope_shrinks_to_the_shared_one():
    rng = np.random.default_rng(0)
    own = rng.normal(size=(200, 5)) + np.arange(5)
    slopes = np.array([1.0, 1.0, 1.0, 3.0, 1.0])
    known = own * slopes + 10 * np.arange(5)
    known[:, 4] = np.nan
    found = own_slope(known, own)
    fitted = [np.polyfit(own[:, g], found[:, g], 1)[0] for g in range(5)]
    shared = np.polyfit((own - own.mean(0))[:, :4].ravel(), (known - known.mean(0))[:, :4].ravel(), 1)[0]
    assert fitted[4] == pytest.approx(shared)
    assert shared < fitted[3] < 3
    assert found[:, 4].mean() == pytest.approx(
        np.polyval(np.polyfit(own[:, :4].mean(0), known[:, :4].mean(0), 1), own[:, 4].mean())
    )
    own[0, 0] = np.nan
    assert np.isfinite(own_slope(known, own)).all()


def test_selective_genes_are_welch_and_benjamini_hochberg(cohort):
    adata, effect = cohort
    kind = adata.obs["kind"].to_numpy()
    effect.loc[kind == "b", "gene 5"] -= 6
    adata.obsm["X_emb"] = np.column_stack([adata.obsm["X_emb"], 8 * (kind == "b")]).astype(np.float32)
    table = run(adata, effect, selective="kind")["selective"]
    assert len(table) == 3 * M
    first = table.iloc[0]
    assert (first["group"], first["gene"]) == ("b", "gene 5")
    assert first["difference"] < -3
    assert first["predicted_difference"] < -0.5
    assert "predicted_p" not in table
    row = table[(table["group"] == "c") & (table["gene"] == "gene 7")].iloc[0]
    one, other = effect.loc[kind == "c", "gene 7"].dropna(), effect.loc[kind != "c", "gene 7"].dropna()
    assert row["p"] == pytest.approx(ttest_ind(one, other, equal_var=False).pvalue)
    assert (row["n"], row["n_others"]) == (len(one), len(other))
    assert row["difference"] == pytest.approx(one.mean() - other.mean())
    np.testing.assert_allclose(table["fdr"], false_discovery_control(table["p"]))


def test_selective_genes_of_a_null_are_none():
    adata, effect = make(line=0.0, seed=3)
    adata.obs["kind"] = adata.obs["kind"].cat.add_categories("rare")
    adata.obs.loc[["line 0", "line 1"], "kind"] = "rare"
    adata.obs.loc["line 2", "kind"] = None
    table = run(adata, effect, selective="kind")["selective"]
    assert (table["fdr"] > 0.05).all()
    assert set(table["group"]) == {"a", "b", "c"}
    # lines of a small group are others, a line without a group is neither
    assert (table["n"] + table["n_others"]).max() == N - 1


@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_results_and_head_survive_a_file(cohort, form, tmp_path):
    adata, effect = cohort
    run(adata, effect, gene_vectors="vectors", selective="kind")
    path = tmp_path / f"a.{form}"
    (adata.write_h5ad if form == "h5ad" else adata.write_zarr)(path)
    again = (ad.read_h5ad if form == "h5ad" else ad.read_zarr)(path)
    head = bf.tl.fitted_head(again, "essentiality")
    head.save(tmp_path / "head")
    found = bf.tl.PairHead.load(tmp_path / "head").predict(adata)
    unknown = effect.isna().to_numpy()
    predicted = adata.layers["essentiality_pred"][:, :M]
    np.testing.assert_array_equal(found.to_numpy().astype(np.float32)[unknown], predicted[unknown])
    new = pd.DataFrame(adata.varm["vectors"][M:], index=adata.var_names[M:])
    assert head.predict(adata[:3], new).shape == (3, G - M)


def test_a_layer_a_reference_and_the_paper(cohort, caplog):
    adata, effect = cohort
    layer = np.full(adata.shape, np.nan)
    layer[:, :M] = effect
    adata.layers["effect"] = layer
    here, there = adata[:16].copy(), adata[16:].copy()
    result = run(here, "effect", reference=there, gene_vectors="vectors", selective="kind")
    assert score(result, "X_emb") > 0.4
    assert result["params"]["trained_on"] == "reference"
    paper = replace(paper_protocol("essentiality"), n_splits=2, n_bootstrap=100)
    paper = replace(paper, head_options={**paper.head_options, "max_iter": 10})
    result = run(adata, effect, gene_vectors="vectors", protocol=paper)
    assert "drawn over pairs" in caplog.text
    assert (result["params"]["unseen"], result["params"]["head"]) == ("pair", "mlp")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda t: t.rename(columns=str.upper), ValueError, r"none of the 40 genes of effect .*'GENE 0'.*'gene 0'"),
        (lambda t: t.rename(index=str.upper), ValueError, "none of 48 samples is in the index of effect"),
        (lambda t: t > 0, TypeError, "effect holds booleans; pass the effects themselves"),
        (lambda t: t * 0, ValueError, r"effect is constant \(0\)"),
        (lambda t: "chronos", KeyError, r"adata.layers has no 'chronos'; it holds \[\]"),
        (lambda t: t.to_numpy(), TypeError, "effect is ndarray; pass a data frame of lines by genes"),
    ],
)
def test_wrong_effects_are_refused(cohort, change, error, message):
    adata, effect = cohort
    with pytest.raises(error, match=message):
        run(adata, change(effect))
    assert list(adata.uns) == []
    assert list(adata.layers) in ([], [None])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"unseen": "gene"}, ValueError, "by their features; pass gene_vectors=, a key of varm"),
        ({"unseen": "drug"}, ValueError, r"choose among \['line', 'gene', 'both', 'pair'\]"),
        ({"gene_vectors": "esm"}, KeyError, r"adata.varm has no 'esm'; it holds \['vectors'\]. bf.tl.gene_embeddings"),
        ({"selective": "cancer"}, KeyError, r"no column 'cancer' \(selective\)"),
        ({"selective": "alone"}, ValueError, "has no group of 3 measured lines beside 3 others"),
        ({"selective": "empty"}, ValueError, "has no group of 3 measured lines beside 3 others: {}"),
        ({"gene_vectors": "nothing"}, ValueError, r"adata.varm\['nothing'\] has no vector of any gene"),
    ],
)
def test_wrong_options_are_refused(cohort, options, error, message):
    adata, effect = cohort
    adata.obs["alone"], adata.obs["empty"] = adata.obs_names, None
    if options.get("gene_vectors") == "nothing":
        adata.varm["nothing"] = adata.varm["vectors"] * np.nan
    with pytest.raises(error, match=message):
        run(adata, effect, **options)
    assert list(adata.uns) == []


def test_genes_that_do_not_match_are_left_out(cohort, caplog):
    adata, effect = cohort
    effect["other"] = 1.0
    adata.varm["vectors"][3] = np.nan
    with caplog.at_level("INFO", "bulkformer_tl"):
        result = run(adata, effect, gene_vectors="vectors")
    assert "1 of 41 genes are not in adata.var_names and left out, such as ['other']" in caplog.text
    assert "1 of 40 genes have no vector and left out" in caplog.text
    assert result["params"]["n_genes"] == M - 1
    adata.var_names = ["gene 1", *adata.var_names[1:]]
    with pytest.raises(ValueError, match=r"not unique; call bf.pp.merge_duplicates"):
        run(adata, effect, key_added="b")
