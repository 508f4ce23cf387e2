from __future__ import annotations

from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from mudata import MuData

import bulkformer_tl as bf
from bulkformer_tl.metrics import Protocol

KEY = "perturbation_response"
N_GENES, N_LATENT = 60, 3
SIMPLE = ("no_change", "mean_change", "nearest")
QUICK = Protocol(n_splits=4, n_bootstrap=100, baselines=SIMPLE)
LONE = Protocol(scheme="leave_one_group_out", n_bootstrap=100, baselines=("no_change", "mean_change"))


def make(
    n_perturbations: int = 16, n_donors: int = 3, *, effect: float = 1.0, copies: int = 1, seed: int = 0
) -> tuple[ad.AnnData, pd.DataFrame]:
    """Donors under perturbations whose change follows three planted features, and two kinds of representation."""
    rng = np.random.default_rng(seed)
    known = rng.normal(size=(n_perturbations, N_LATENT))
    loading = rng.normal(size=(N_LATENT, N_GENES))
    base = rng.normal(4, 0.5, (n_donors, N_GENES))
    rows, obs = [], []
    for donor in range(n_donors):
        for i in range(-1, n_perturbations):
            for copy in range(2 if i < 0 else copies):
                change = 0 if i < 0 else effect * 0.4 * known[i] @ loading
                rows.append(base[donor] + change + rng.normal(0, 0.15, N_GENES))
                obs.append(("none" if i < 0 else f"p{i:02d}", f"d{donor}", copy))
    names = [f"s{i}" for i in range(len(rows))]
    adata = ad.AnnData(
        np.maximum(np.array(rows), 0).astype(np.float32),
        obs=pd.DataFrame(obs, columns=["treatment", "donor", "copy"], index=names),
        var=pd.DataFrame(index=[f"g{i}" for i in range(N_GENES)]),
    )
    adata.obsm["X_emb"] = adata.X[:, :10].copy()
    adata.obsm["X_noise"] = rng.normal(size=(len(rows), 4)).astype(np.float32)
    table = pd.DataFrame(known, index=[f"p{i:02d}" for i in range(n_perturbations)], columns=["a", "b", "c"])
    return adata, table


def respond(adata: ad.AnnData, **options: object) -> None:
    given = {"control": "none", "match": "donor", "use_rep": "X_emb", "protocol": QUICK, **options}
    bf.tl.perturbation_response(adata, "treatment", **given)


def score(adata: ad.AnnData, name: str, metric: str = "pearson_delta", key: str = KEY) -> float:
    table = adata.uns[key]["scores"]
    (found,) = table.loc[(table["representation"] == name) & (table["metric"] == metric), "mean"]
    return found


def better(adata: ad.AnnData, name: str, baseline: str, metric: str = "pearson_delta") -> str:
    table = adata.uns[KEY]["differences"].set_index(["representation", "baseline", "metric"])
    return table.loc[(name, baseline, metric), "better"]


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_a_planted_response_is_found(head):
    adata, known = make()
    respond(adata, features=known, head=head, protocol=Protocol(n_splits=2, n_bootstrap=100))
    name = "X_emb" if head == "linear" else "X_emb (mlp)"
    assert score(adata, name) > 0.8
    assert score(adata, name, "pearson_delta_top20") > 0.8
    assert better(adata, name, "mean_change") == name
    assert better(adata, name, "no_change", "rmse") == name
    assert better(adata, name, "nearest") == name
    assert set(adata.uns[KEY]["scores"]["representation"]) == {
        name,
        "no_change",
        "mean_change",
        "nearest",
        "mlp",
        "raw",
    }


def test_no_response_is_not_found():
    found = []
    for seed in range(4):
        adata, known = make(effect=0.0, seed=seed)
        respond(adata, features=known, protocol=Protocol(n_splits=4, n_bootstrap=100, baselines=("mean_change",)))
        found.append([score(adata, name) for name in ("X_emb", "mean_change")])
        assert better(adata, "X_emb", "mean_change") != "X_emb"
    assert np.abs(np.mean(found, axis=0)).max() < 0.1


def test_noise_of_shared_controls_is_no_response(caplog):
    adata, _ = make(effect=0.0, n_donors=1, copies=4)
    respond(adata, match=None, protocol=LONE)
    assert adata.uns[KEY]["params"]["n_sharing_one_control"] == 0
    halved = score(adata, "mean_change")
    single = adata[~((adata.obs["treatment"] == "none") & (adata.obs["copy"] == 1))].copy()
    respond(single, match=None, protocol=LONE)
    assert single.uns[KEY]["params"]["n_sharing_one_control"] == 64
    assert "64 treated samples share their only control" in caplog.text
    assert abs(halved) < 0.3
    assert score(single, "mean_change") > 0.8


def test_scores_are_those_of_the_stored_changes_and_profiles():
    adata, known = make(6, copies=2)
    respond(adata, features=known, protocol=LONE)
    table = adata.uns[KEY]["perturbations"]
    own = table[table["representation"] == "X_emb"]
    assert own["perturbation"].tolist() == sorted(known.index)
    assert (own["n"] == 6).all()
    measured, predicted = adata.varm[f"{KEY}_measured"], adata.varm[f"{KEY}_predicted"]
    assert measured.shape == predicted.shape == (N_GENES, 6)
    for i, row in enumerate(own.to_dict("records")):
        assert np.corrcoef(measured[:, i], predicted[:, i])[0, 1] == pytest.approx(row["pearson_delta"], abs=1e-5)
        top = np.argsort(-np.abs(measured[:, i]))[:20]
        r = np.corrcoef(measured[top, i], predicted[top, i])[0, 1]
        assert r == pytest.approx(row["pearson_delta_top20"], abs=1e-5)
        here = (adata.obs["treatment"] == row["perturbation"]).to_numpy()
        truth, profile = adata.X[here].mean(axis=0), adata.layers[KEY][here].mean(axis=0)
        assert np.corrcoef(truth, profile)[0, 1] == pytest.approx(row["pearson"], abs=1e-5)
        assert np.sqrt(np.mean((truth - profile) ** 2)) == pytest.approx(row["rmse"], abs=1e-5)
    assert own["pearson_delta"].mean() == pytest.approx(score(adata, "X_emb"))
    treated = (adata.obs["treatment"] != "none").to_numpy()
    assert np.isfinite(adata.layers[KEY][treated]).all()
    assert np.isnan(adata.layers[KEY][~treated]).all()
    assert (adata.layers[KEY][treated] >= 0).all()


def test_baselines_are_what_they_are_called():
    adata, _ = make(3, n_donors=2, copies=1)
    # own controls, so that none is halved
    adata.obs["pair"] = adata.obs["donor"]
    parts = []
    for name in ("p00", "p01", "p02"):
        part = adata[adata.obs["treatment"].isin([name, "none"]).to_numpy()].copy()
        part.obs["pair"] = part.obs["donor"] + name
        part.obs_names = [f"{name}{sample}" for sample in part.obs_names]
        parts.append(part)
    adata = ad.concat(parts)
    near = pd.DataFrame({"x": [1.0, 0.9, -1.0], "y": [0.0, 0.3, 0.2]}, index=["p00", "p01", "p02"])
    names = ("no_change", "mean_change", "nearest")
    protocol = Protocol(scheme="leave_one_group_out", n_bootstrap=100, baselines=names)
    respond(adata, features=near, match="pair", protocol=protocol)
    table = adata.uns[KEY]["perturbations"].set_index(["representation", "perturbation"])
    change = pd.DataFrame(adata.varm[f"{KEY}_measured"], columns=["p00", "p01", "p02"])

    def r(one, other):
        return np.corrcoef(one, other)[0, 1]

    found = table["pearson_delta"]
    assert np.isnan(found["no_change", "p00"])
    # profiles stay well above zero here, so that nothing is cut off
    assert found["mean_change", "p00"] == pytest.approx(r(change["p00"], change[["p01", "p02"]].mean(axis=1)), abs=1e-3)
    assert found["nearest", "p00"] == pytest.approx(r(change["p00"], change["p01"]), abs=1e-3)
    assert found["nearest", "p01"] == pytest.approx(r(change["p01"], change["p00"]), abs=1e-3)


def test_unseen_donors_know_the_perturbation_and_folds_do_not_leak():
    adata, _ = make(5, n_donors=6)
    respond(adata, groups="donor", protocol=Protocol(n_splits=3, n_bootstrap=100, baselines=SIMPLE))
    assert score(adata, "nearest") > 0.85
    assert score(adata, "nearest") > score(adata, "mean_change") + 0.3
    assert score(adata, "X_emb") > 0.8
    table = adata.uns[KEY]["perturbations"]
    assert set(table["held_out"]) == set(adata.obs["donor"])
    # a donor's own treated samples decide nothing that is predicted of it
    before = adata.layers[KEY].copy()
    mine = ((adata.obs["donor"] == "d0") & (adata.obs["treatment"] != "none")).to_numpy()
    adata.X[mine] = adata.X[mine][:, ::-1]
    adata.obsm["X_emb"][mine] = 0
    respond(adata, groups="donor", protocol=Protocol(n_splits=3, n_bootstrap=100, baselines=SIMPLE))
    np.testing.assert_array_equal(adata.layers[KEY][mine], before[mine])


def test_doses_scale_the_response():
    adata, known = make(8, n_donors=4)
    rng = np.random.default_rng(0)
    treated = (adata.obs["treatment"] != "none").to_numpy()
    doses = np.where(treated, 10.0 ** rng.integers(-2, 2, adata.n_obs), 0.0)
    base = np.stack([adata.X[~treated & (adata.obs["donor"] == name)].mean(axis=0) for name in adata.obs["donor"]])
    share = (np.log10(doses, where=treated, out=np.zeros(adata.n_obs)) + 2) / 3
    adata.X[treated] = np.maximum(base + share[:, None] * (adata.X - base), 0)[treated]
    adata.obs["uM"] = doses
    protocol = Protocol(n_splits=4, n_bootstrap=100, baselines=("mean_change", "nearest"))
    respond(adata, features=known, groups="donor", protocol=protocol, key_added="plain")
    respond(adata, features=known, groups="donor", dose="uM", protocol=protocol)
    assert score(adata, "X_emb", "rmse") < 0.9 * score(adata, "X_emb", "rmse", key="plain")
    head = bf.tl.fitted_head(adata, KEY)
    control = adata[~treated][:3].copy()
    small, large = (head.predict(control, "p01", dose=amount) - control.X for amount in (0.01, 10.0))
    assert np.abs(large).to_numpy().mean() > 2 * np.abs(small).to_numpy().mean()


@pytest.mark.parametrize("head", ["linear", "mlp"])
@pytest.mark.parametrize("use_rep", ["X_emb", None])
def test_the_head_is_kept_without_pickle_and_predicts_the_same_bits(head, use_rep, tmp_path):
    adata, known = make(6)
    respond(adata, features=known, head=head, use_rep=use_rep, protocol=LONE)
    kept = bf.tl.fitted_head(adata, KEY)
    kept.save(tmp_path / "head")
    assert {path.suffix for path in (tmp_path / "head").iterdir()} == {".json", ".safetensors"}
    again = bf.tl.PerturbationHead.load(tmp_path / "head")
    adata.write_h5ad(tmp_path / "a.h5ad")
    stored = bf.tl.fitted_head(ad.read_h5ad(tmp_path / "a.h5ad"), KEY)
    control = adata[adata.obs["treatment"] == "none"].copy()
    new = known.iloc[0] + 0.5
    found = kept.predict(control, "new", features=new)
    assert found.shape == control.shape
    for other in (again, stored):
        pd.testing.assert_frame_equal(other.predict(control, "new", features=new), found)
    pd.testing.assert_frame_equal(kept.predict(control[3:4], "new", features=new), found.iloc[3:4])
    pd.testing.assert_frame_equal(kept.predict(control, "p01"), kept.predict(control, "p01", features=known.loc["p01"]))
    # it knows the perturbations it was fitted to
    truth = adata[(adata.obs["treatment"] == "p01").to_numpy()].X.mean(axis=0) - control.X.mean(axis=0)
    change = (kept.predict(control, "p01") - control.X).mean(axis=0)
    assert np.corrcoef(truth, change)[0, 1] > 0.9


def test_compounds_are_read_from_smiles():
    pytest.importorskip("rdkit")
    adata, _ = make(4)
    smiles = {"p00": "CCO", "p01": "CCCO", "p02": "c1ccccc1", "p03": "Cc1ccccc1"}
    respond(adata, features=smiles, protocol=Protocol(n_splits=4, n_bootstrap=100, baselines=("nearest",)))
    assert adata.uns[KEY]["params"]["features"] == "smiles"
    head = bf.tl.fitted_head(adata, KEY)
    one = head.predict(adata[:1], "p00")
    pd.testing.assert_frame_equal(head.predict(adata[:1], "the same", features="OCC"), one)
    with pytest.raises(KeyError, match="not to 'new'; pass features=, its SMILES"):
        head.predict(adata[:1], "new")
    with pytest.raises(ValueError, match="SMILES of 'p01'"):
        respond(adata, features={**smiles, "p01": "C1CC"})


def test_signed_genes_and_their_vectors():
    adata, _ = make(4, effect=0.0)
    treatment = adata.obs["treatment"].to_numpy()
    up = np.random.default_rng(3).normal(size=N_GENES).astype(np.float32)
    signs = {"p00": 1, "p01": -1, "p02": 1, "p03": -1}
    for name, sign in signs.items():
        adata.X[treatment == name] += sign * 0.3 * up
    adata.X = np.maximum(adata.X, 0)
    genes = {name: {f"g{i // 2}": sign} for i, (name, sign) in enumerate(signs.items())}
    respond(adata, features=genes, protocol=Protocol(n_splits=4, n_bootstrap=100, baselines=("mean_change",)))
    # the same gene with the other sign moves the other way
    assert score(adata, "X_emb") > 0.5 > score(adata, "mean_change")
    head = bf.tl.fitted_head(adata, KEY)
    pd.testing.assert_frame_equal(head.predict(adata[:1], "x", features={"g0": -1}), head.predict(adata[:1], "p01"))
    with pytest.raises(KeyError, match=r"knows no mark of 'g7'; fit it to vectors of genes, see bf.tl.gene_features"):
        head.predict(adata[:1], "x", features={"g7": 1})
    adata.varm["vectors"] = np.random.default_rng(0).normal(size=(N_GENES, 2))
    table = bf.tl.gene_features(adata, genes, varm="vectors")
    np.testing.assert_allclose(table.loc["p01"], -adata.varm["vectors"][0])
    respond(adata, features=table)
    assert adata.uns[KEY]["params"]["features"] == "table"


def test_reruns_add_rows_and_files_keep_results(tmp_path):
    adata, known = make(5)
    respond(adata, features=known)
    respond(adata, features=known, use_rep="X_noise")
    for table in ("scores", "perturbations"):
        assert {"X_emb", "X_noise", "nearest"} <= set(adata.uns[KEY][table]["representation"])
    adata.write_zarr(tmp_path / "a.zarr")
    again = ad.read_zarr(tmp_path / "a.zarr")
    respond(again, features=known, head="mlp")
    assert {"X_emb", "X_noise", "X_emb (mlp)"} <= set(again.uns[KEY]["scores"]["representation"])
    respond(again, features=None)
    assert "X_noise" not in set(again.uns[KEY]["scores"]["representation"])
    copy = bf.tl.perturbation_response(
        adata, "treatment", control="none", use_rep="X_emb", key_added="mine", protocol=QUICK, copy=True
    )
    assert "mine" in copy.uns
    assert "mine" not in adata.uns


def test_the_order_of_samples_and_missing_genes_do_not_matter():
    adata, known = make(6)
    adata.X[0, 5] = np.nan
    adata.X[adata.n_obs - 1, 7] = np.nan
    respond(adata, features=known, protocol=LONE)
    assert adata.uns[KEY]["params"]["n_genes"] == N_GENES - 2
    assert np.isnan(adata.varm[f"{KEY}_predicted"][[5, 7]]).all()
    own = adata.obs["treatment"] != "none"
    assert np.isfinite(adata.layers[KEY][own][:, [4, 6]]).all()


def test_inner_folds_choose_the_penalty():
    adata, known = make(8, effect=0.3)
    respond(
        adata,
        features=known,
        use_rep="X_noise",
        protocol=Protocol(n_splits=4, n_bootstrap=100, n_inner=3, baselines=()),
    )
    inner = score(adata, "X_noise", "rmse")
    weak = Protocol(n_splits=4, n_bootstrap=100, baselines=(), head="linear", head_options={"alpha": 1e-6})
    respond(adata, features=known, use_rep="X_noise", protocol=weak)
    assert inner < score(adata, "X_noise", "rmse")


def test_the_papers_protocol(caplog):
    adata, known = make(12)
    paper = bf.metrics.paper_protocol(KEY)
    respond(adata, features=known, protocol=replace(paper, baselines=(), n_bootstrap=100))
    params = adata.uns[KEY]["params"]
    assert params["head"] == "mlp"
    assert params["protocol"]["head_options"]["hidden_layer_sizes"] == [256, 128]
    assert "withdrew this task" in caplog.text
    with pytest.raises(TypeError, match=r'pass a bf.metrics.Protocol, "paper"'):
        respond(adata, protocol="pape")


def edit(**columns):
    def change(adata):
        for name, values in columns.items():
            adata.obs[name] = values(adata.obs) if callable(values) else values

    return change


def drop_controls(adata):
    adata.obs.loc[(adata.obs["treatment"] == "none") & (adata.obs["donor"] == "d1"), "treatment"] = np.nan


def one_perturbation(adata):
    adata.obs["treatment"] = np.where(adata.obs["treatment"] == "none", "none", "x")


def values(change):
    def apply(adata):
        adata.X = change(adata.X)

    return apply


BAD = [
    (None, {"control": "DMSO"}, ValueError, r"obs\['treatment'\] has no control 'DMSO'; it holds 'none', 'p00'"),
    (edit(treatment="none"), {}, ValueError, "holds 'none' only; samples under a perturbation are needed"),
    (drop_controls, {}, ValueError, r"no control 'none' matches 5 samples under 'p00'.*with donor=d1. Match by fewer"),
    (one_perturbation, {}, ValueError, "'x' is the only perturbation, .* pass groups=, such as the donor"),
    (edit(line="A"), {"groups": "line"}, ValueError, r"'A' is the only value of adata.obs\['line'\] \(groups\)"),
    (None, {"match": "patient"}, KeyError, r"no column 'patient' \(match\)"),
    (None, {"groups": "patient"}, KeyError, r"no column 'patient' \(groups\)"),
    (None, {"dose": "uM"}, KeyError, r"no column 'uM' \(dose\)"),
    (edit(donor=None), {}, ValueError, r"obs\['donor'\] \(match\) is missing in 21 samples, such as 's2'"),
    (edit(line=""), {"groups": "line"}, ValueError, r"obs\['line'\] \(groups\) is missing in 15 samples"),
    (edit(uM=0.0), {"dose": "uM"}, ValueError, r"'uM'\] \(dose\) is 0 in the treated sample 's2' .* in 15; .* 'none'"),
    (edit(uM=np.nan), {"dose": "uM"}, ValueError, r"\(dose\) is nan in the treated sample"),
    (edit(uM="1 uM"), {"dose": "uM"}, TypeError, r"\(dose\) must be numbers and holds '1 uM'; take the unit off"),
    (
        None,
        {"features": {"p00": "CCO"}},
        KeyError,
        "features know nothing of 'p01', 'p02', 'p03', 'p04'; they hold 'p0",
    ),
    (None, {"features": {f"p0{i}": np.nan for i in range(5)}}, TypeError, "the SMILES of 'p00' is nan"),
    (None, {"features": ["CCO"]}, TypeError, "features is list; pass a mapping"),
    (None, {"features": {f"p0{i}": {"TP53": -1} for i in range(5)}}, KeyError, "name 'TP53', not among .* like 'g0'"),
    (None, {"features": {f"p0{i}": {"g0": 0} for i in range(5)}}, ValueError, "give each gene -1 .knock-down., .1"),
    (
        None,
        {"features": {**{f"p0{i}": {"g0": 1} for i in range(4)}, "p04": "CCO"}},
        TypeError,
        "mixes SMILES and signed genes",
    ),
    (None, {"features": pd.DataFrame({"x": 1.0}, index=["p00"])}, KeyError, "features know nothing of 'p01'"),
    (None, {"features": pd.DataFrame({"x": 1.0}, index=["p00"] * 2)}, ValueError, "several rows for 'p00'"),
    (
        None,
        {"features": pd.DataFrame({"x": "a"}, index=[f"p0{i}" for i in range(5)])},
        TypeError,
        "features must be numbers: column 'x' holds",
    ),
    (
        None,
        {"features": pd.DataFrame({"x": np.nan}, index=[f"p0{i}" for i in range(5)])},
        ValueError,
        "features of 'p00', .* are missing or infinite",
    ),
    (None, {"use_rep": "X_pca"}, KeyError, "no 'X_pca'; it holds .* Call bf.tl.embed"),
    (None, {"layer": "tpm"}, KeyError, "no layer 'tpm'"),
    (None, {"head": "knn"}, ValueError, r"no head 'knn' for a response; choose among \['linear', 'mlp'\]"),
    (None, {"protocol": Protocol(n_splits=6)}, ValueError, "5 groups cannot fill 6 folds; set n_splits to 5"),
    (None, {"protocol": Protocol(baselines=("pca",))}, ValueError, "no baseline 'pca' for a response"),
    (
        None,
        {"protocol": Protocol(head_options={"C": 1.0})},
        ValueError,
        r"'linear' of a response has no option 'C'; its options are \['alpha'\]",
    ),
    (values(np.exp), {}, ValueError, "is not ln.TPM.1., which expression has to be"),
    (values(np.floor), {}, ValueError, "whole numbers only, as counts do; call bf.pp.log_tpm"),
    (values(lambda x: x * np.nan), {}, ValueError, "has no measured gene"),
    (values(lambda x: np.where(np.eye(*x.shape), x, np.nan)[:, ::-1] * 1), {}, ValueError, "measured"),
    (values(lambda x: np.tile(x[:1], (len(x), 1))), {}, ValueError, "every treated sample equals its controls"),
]


@pytest.mark.parametrize(("change", "options", "error", "message"), BAD)
def test_bad_input_is_refused_and_nothing_written(change, options, error, message):
    adata, _ = make(5)
    if change is not None:
        change(adata)
    with pytest.raises(error, match=message):
        respond(adata, **options)
    assert not len(adata.uns)
    assert KEY not in adata.layers
    assert not len(adata.varm)


def test_no_slot_of_the_user_is_overwritten():
    adata, _ = make(5)
    adata.varm[f"{KEY}_measured"] = np.zeros((N_GENES, 1))
    with pytest.raises(ValueError, match=r"varm\['perturbation_response_measured'\] exists .* pass another key_added"):
        respond(adata)


def array_like(n_genes: int, change) -> ad.AnnData:
    adata, _ = make(4)
    values = np.random.default_rng(0).uniform(4, 15, (adata.n_obs, n_genes)).astype(np.float32)
    wide = ad.AnnData(change(values), obs=adata.obs.copy())
    wide.obsm["X_emb"] = adata.obsm["X_emb"]
    return wide


@pytest.mark.parametrize(
    ("n_genes", "change", "message"),
    [
        (978, lambda x: x - 9, "negative values .* 978 genes, as many as LINCS L1000 measures. .* withdrew"),
        (978, lambda x: x, "logarithms between 4.0 and 15.0 without a common smallest value, as intensities are"),
        (500, lambda x: x, "have logarithms between .* Values of an array are not ln.TPM.1. of sequencing"),
        (978, np.exp2, "978 genes"),
    ],
)
def test_values_of_arrays_are_refused(n_genes, change, message):
    adata = array_like(n_genes, change)
    with pytest.raises(ValueError, match=message):
        respond(adata)
    assert not len(adata.uns)


def test_landmark_genes_of_sequencing_are_warned_of():
    adata = array_like(978, lambda x: np.where(x < 6, 0, x / 3).astype(np.float32))
    with pytest.warns(UserWarning, match="978 genes, as many as LINCS L1000 measures"):
        respond(adata)
    assert KEY in adata.uns


def test_what_a_head_refuses(tmp_path):
    adata, known = make(5)
    respond(adata, features=known)
    head = bf.tl.fitted_head(adata, KEY)
    one = adata[:1].copy()
    cases = [
        ({"perturbation": "new"}, KeyError, "not to 'new'; pass features=, its row"),
        ({"perturbation": "new", "features": "CCO"}, TypeError, "features of 'new' are str; .* 'table' features"),
        (
            {"perturbation": "new", "features": [1.0]},
            ValueError,
            "are 1 finite numbers; the head reads 3, 'a', 'b', 'c'",
        ),
        ({"perturbation": "p00", "dose": 1.0}, ValueError, "dose is 1.0; the head was fitted without doses"),
    ]
    for options, error, message in cases:
        with pytest.raises(error, match=message):
            head.predict(one, **options)
    with pytest.raises(KeyError, match=r"lacks 20 of the head's 60 genes, such as 'g40'"):
        head.predict(one[:, :40].copy(), "p00")
    one.obsm["X_emb"] = one.obsm["X_emb"][:, :4]
    with pytest.raises(ValueError, match="has 4 columns and the head reads 10"):
        head.predict(one, "p00")
    respond(adata, key_added="blind")
    with pytest.raises(KeyError, match="fitted without features and predicts these only"):
        bf.tl.fitted_head(adata, "blind").predict(adata[:1], "new")
    adata.obs["uM"] = 2.0
    respond(adata, features=known, dose="uM", key_added="dosed")
    with pytest.raises(ValueError, match="dose is None; the head needs dose="):
        bf.tl.fitted_head(adata, "dosed").predict(adata[:1], "p00")
    with pytest.raises(ValueError, match="dose is -1; pass a positive number"):
        bf.tl.fitted_head(adata, "dosed").predict(adata[:1], "p00", dose=-1)


@pytest.mark.parametrize(
    ("facts", "arrays", "message"),
    [
        ({"task": "classification"}, {}, "no head of 'perturbation_response' has the task 'classification'"),
        ({"genes": "g"}, {}, r"\['genes'\] do not fit"),
        ({"dose": [1.0, 0.0]}, {}, r"the dose \[1.0, 0.0\]"),
        ({}, {"extra": np.zeros(1)}, "cannot consist of the arrays"),
        (
            {},
            {"mean": np.zeros(3)},
            r"the array 'mean' is float64 \(3,\); expected finite float64 of the shape \(60,\)",
        ),
        ({}, {"coef0": np.full((1, 1), np.nan)}, "the array 'coef0'"),
        ({}, {"scale": np.zeros(13)}, "divides by none above zero"),
    ],
)
def test_a_hostile_head_is_refused(facts, arrays, message):
    adata, known = make(5)
    respond(adata, features=known)
    head = bf.tl.fitted_head(adata, KEY)
    with pytest.raises(ValueError, match=message):
        bf.tl.PerturbationHead({**head.facts, **facts}, {**head.arrays, **arrays})


def test_gene_features_refuse_what_is_not_there():
    adata, _ = make(4)
    with pytest.raises(KeyError, match=r"varm has no 'bulkformer_genes'; .* Call bf.tl.gene_embeddings"):
        bf.tl.gene_features(adata, {"x": {"g0": 1}}, varm="bulkformer_genes")
    adata.varm["v"] = np.full((N_GENES, 2), np.nan)
    with pytest.raises(ValueError, match="has no vector of 'g0', which the model does not know"):
        bf.tl.gene_features(adata, {"x": {"g0": 1}}, varm="v")


def test_the_plot_draws_held_out_changes():
    import matplotlib as mpl

    mpl.use("Agg")
    adata, known = make(5)
    adata.var["symbol"] = [f"S{i}" for i in range(N_GENES)]
    respond(adata, features=known, groups="donor", protocol=Protocol(n_splits=3, n_bootstrap=100, baselines=SIMPLE))
    ax = bf.pl.perturbation_response(adata, perturbation="p01", gene_symbols="symbol", n_labels=7)
    change = adata.varm[f"{KEY}_measured"]
    table = adata.uns[KEY]["perturbations"]
    own = table[table["representation"] == "X_emb"].reset_index(drop=True)
    # one of median score rather than an average, which would flatter
    middle = own[own["perturbation"] == "p01"].sort_values("pearson_delta").iloc[[1]]
    shown = change[:, middle.index[0]]
    assert {text.get_text() for text in ax.texts} == {f"S{i}" for i in np.argsort(-np.abs(shown))[:7]}
    np.testing.assert_allclose(ax.collections[0].get_offsets()[:, 0], shown, rtol=1e-5)
    assert ax.get_title().startswith(f"p01, {middle['held_out'].iloc[0]}, median of 3: X_emb")
    assert f"r = {middle['pearson_delta'].iloc[0]:.2f}, top 7" in ax.get_title()
    one = bf.pl.perturbation_response(adata, perturbation="p01", held_out="d1", ax=ax)
    assert one is ax
    assert ax.get_title().startswith("p01, d1: X_emb")
    for options, message in (
        ({"perturbation": "p99"}, "no perturbation 'p99' .* choose among"),
        ({"perturbation": "p01", "dose": 1.0}, r"no dose 1.0 in .* choose among \[\]"),
        ({"perturbation": "p01", "held_out": "d9"}, "no held_out 'd9'"),
        ({"perturbation": "p01", "gene_symbols": "name"}, "var has no column 'name'"),
        ({"perturbation": "p01", "key": "nothing"}, "no result of bf.tl.perturbation_response"),
    ):
        with pytest.raises(KeyError, match=message):
            bf.pl.perturbation_response(adata, **options)
    from matplotlib import pyplot as plt

    plt.close("all")
    bf.pl.scores(adata, KEY)
    plt.close("all")


def test_modalities_are_judged_together_and_each_alone():
    adata, known = make()
    rng = np.random.default_rng(3)
    protein = ad.AnnData(rng.normal(size=(adata.n_obs, 5)) * [1, 1, 100, 1, 1], obs=pd.DataFrame(index=adata.obs_names))
    protein.var_names = [f"P{i}" for i in range(5)]
    obs = adata.obs.copy()
    adata.obs = adata.obs[[]]
    mdata = MuData({"rna": adata, "protein": protein})
    mdata.obs[obs.columns] = obs
    bf.tl.fuse(mdata, {"rna": "X_emb", "protein": None})
    respond(mdata, features=known, use_rep="X_fused")
    assert score(mdata, "X_fused") > 0.8
    assert set(mdata.uns[KEY]["scores"]["representation"]) == {"X_fused", "rna: X_emb", "protein", *SIMPLE}
    assert mdata["rna"].layers[KEY].shape == adata.shape
    assert f"{KEY}_predicted" in mdata["rna"].varm
    adata.obs = obs
    respond(adata, features=known, key_added="alone")
    assert score(adata, "X_emb", key="alone") == pytest.approx(score(mdata, "rna: X_emb"))
    mdata.obsm["X_fused"][0, -1] = np.nan
    with pytest.raises(ValueError, match=r"obsm\['X_fused'\] holds missing values"):
        respond(mdata, features=known, use_rep="X_fused", key_added="other")


def parted(n_known: int = 12, **options: object) -> tuple[ad.AnnData, ad.AnnData, pd.DataFrame]:
    """One screen as a reference with some of the perturbations, and a cohort with the others."""
    adata, known = make(**options)
    early = adata.obs["treatment"].isin([f"p{i:02d}" for i in range(n_known)])
    control = adata.obs["treatment"] == "none"
    first, second = adata[early | (control & (adata.obs["copy"] == 0))], adata[~early & (adata.obs["copy"] == 1)]
    rest = adata[~early & ~control].copy()
    return first.copy(), ad.concat([second, rest], merge="same"), known


def test_a_reference_is_what_is_trained_on():
    reference, adata, known = parted()
    respond(adata, features=known, reference=reference)
    assert score(adata, "X_emb") > 0.8
    params = adata.uns[KEY]["params"]
    assert (params["trained_on"], params["n"], params["n_reference"], params["n_held_out"]) == ("reference", 12, 36, 4)
    assert set(adata.uns[KEY]["perturbations"]["perturbation"]) == {f"p{i}" for i in range(12, 16)}
    assert adata.varm[KEY + "_measured"].shape == (N_GENES, 4)
    treated = (adata.obs["treatment"] != "none").to_numpy()
    np.testing.assert_array_equal(np.isnan(adata.layers[KEY]).all(axis=1), ~treated)
    # the head that is kept was fitted to the same pairs, from controls of the same donor
    head = bf.tl.fitted_head(adata, KEY)
    (control,) = np.flatnonzero((adata.obs["donor"] == "d1") & (adata.obs["treatment"] == "none"))
    (row,) = np.flatnonzero((adata.obs["donor"] == "d1") & (adata.obs["treatment"] == "p13"))
    found = head.predict(adata[[control]], "p13", features=known.loc["p13"])
    np.testing.assert_allclose(found.to_numpy()[0], adata.layers[KEY][row], atol=1e-5)


def test_treated_profiles_of_the_cohort_are_not_trained_on():
    reference, adata, known = parted()
    other = adata.copy()
    treated = (other.obs["treatment"] != "none").to_numpy()
    other.X[treated] = other.X[treated][:, ::-1]
    for one in (adata, other):
        respond(one, features=known, reference=reference)
    np.testing.assert_array_equal(adata.layers[KEY], other.layers[KEY])
    assert score(other, "X_emb") < 0.5


def test_what_a_reference_shares_with_the_cohort_is_left_out():
    reference, adata, known = parted()
    more = ad.concat([reference, adata[adata.obs["treatment"] != "none"]], index_unique="-")
    genes = more.var_names.tolist()
    for one in (reference, more[:, [*genes[30:], *genes[:30]]].copy()):
        respond(adata, features=known, reference=one, key_added=f"r{one.n_obs}")
    assert adata.uns[f"r{more.n_obs}"]["params"]["n_reference"] == 36
    np.testing.assert_allclose(adata.layers[f"r{more.n_obs}"], adata.layers[f"r{reference.n_obs}"], atol=1e-5)
    with pytest.raises(ValueError, match="all perturbations of the reference are in adata as well"):
        respond(adata, features=known, reference=adata.copy(), key_added="shared")
    donors = adata[adata.obs["donor"] == "d0"].copy()
    respond(donors, features=known, reference=adata, groups="donor")
    assert donors.uns[KEY]["params"]["n_reference"] == 8
    assert not [key for key in adata.uns if "shared" in key]


def test_covariates_are_a_baseline():
    """What donors of one sex answer with is known from the sex alone."""
    adata, _ = make(12, 6, effect=0.0)
    adata.obs["sex"] = np.where(adata.obs["donor"].isin(["d0", "d1", "d2"]), "f", "m")
    adata.obs["age"] = 40.0
    adata.obs.loc[adata.obs["donor"] == "d1", "age"] = np.nan
    moved = (adata.obs["treatment"] != "none").to_numpy()
    change = np.random.default_rng(0).normal(size=N_GENES).astype(np.float32)
    adata.X[moved] += np.where(adata.obs["sex"][moved] == "f", 1.0, -1.0)[:, None].astype(np.float32) * change
    adata.X[:] = np.maximum(adata.X, 0)
    protocol = Protocol(n_splits=3, n_bootstrap=100, baselines=("mean_change", "covariates"))
    respond(adata, use_rep="X_noise", groups="donor", covariates=["sex", "age"], protocol=protocol)
    assert score(adata, "covariates") > 0.8
    assert score(adata, "X_noise") < 0.6
    assert adata.uns[KEY]["params"]["covariates"] == ["sex", "age"]
    for options, error, says in (
        ({"covariates": "sex"}, TypeError, "pass a list of columns"),
        ({"covariates": ["stage"]}, KeyError, "no column 'stage'"),
        ({"protocol": protocol}, ValueError, "needs covariates="),
    ):
        with pytest.raises(error, match=says):
            respond(adata, use_rep="X_noise", key_added="bad", **options)
    assert "bad" not in adata.uns
