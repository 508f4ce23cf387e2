from __future__ import annotations

import json
import pickle
from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save

import bulkformer_tl as bf
from bulkformer_tl.metrics import Protocol, probe
from bulkformer_tl.tl._extract import check_arrays, extract, forward

QUICK = Protocol(n_splits=3, n_bootstrap=100, duplicates=None, baselines=())
FOREST = {"n_estimators": 5, "n_components": 8}


def make(n: int = 60, *, classes: int = 3) -> ad.AnnData:
    rng = np.random.default_rng(0)
    codes = np.arange(n) % classes
    values = np.abs(rng.normal(2, 0.7, (n, 40))).astype(np.float32)
    for k in range(classes):
        values[:, 4 * k : 4 * k + 4] += 1.5 * (codes == k)[:, None]
    obs = pd.DataFrame({"kind": np.array(list("abc"))[codes], "age": values[:, 0] * 10.0}, index=map(str, range(n)))
    adata = ad.AnnData(values, obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(40)]))
    adata.obsm["X_emb"] = values[:, :20].copy()
    return adata


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("head", ["linear", "elastic_net", "random_forest", "mlp"])
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("rotated", [False, True])
def test_arrays_predict_what_scikit_learn_predicts(task, head, classes, rotated):
    adata = make(classes=classes)
    target = pd.factorize(adata.obs["kind"])[0] if task == "classification" else adata.obs["age"].to_numpy()
    for matrix in (adata.obsm["X_emb"], adata.X[:30]):  # the second has more genes than samples and is rotated
        options = {"n_components": 6} if rotated else {}
        options |= {"random_forest": {"n_estimators": 10}, "mlp": {"tol": 1e-2}}.get(head, {})
        model = probe(head, task=task, shape=matrix.shape, options=options)
        fitted = model.fit(matrix, target[: len(matrix)])
        expected = fitted.predict_proba(matrix) if task == "classification" else fitted.predict(matrix)
        kind, link, arrays = extract(fitted)
        np.testing.assert_allclose(forward(kind, link, arrays, matrix), expected, atol=1e-5, rtol=1e-5)
        check_arrays(kind, arrays, matrix.shape[1], classes if task == "classification" else 0)


@pytest.mark.parametrize("head", ["linear", "elastic_net", "mlp"])
@pytest.mark.parametrize("use_rep", ["X_emb", None])
def test_loaded_heads_predict_the_same_bits(head, use_rep, tmp_path):
    adata = make()
    truth = adata.obs["kind"].copy()
    adata.obs["kind"] = truth.where(np.arange(60) % 7 != 0)
    blank = adata.obs["kind"].isna().to_numpy()
    bf.tl.classify(adata, "kind", use_rep=use_rep, head=head, protocol=QUICK)
    kept = bf.tl.fitted_head(adata, "classify_kind")
    kept.save(tmp_path / "head")
    loaded = bf.tl.Head.load(tmp_path / "head")
    table = loaded.predict(adata)
    pd.testing.assert_frame_equal(table, kept.predict(adata))
    assert table.columns.tolist() == ["prediction", "a", "b", "c"]
    # what was written for samples without a label comes from this head, and rows do not depend on each other
    np.testing.assert_array_equal(table[["a", "b", "c"]].to_numpy()[blank], adata.obsm["kind_proba"][blank])
    np.testing.assert_array_equal(loaded.predict(adata[5:6].copy())[["a", "b", "c"]], table[["a", "b", "c"]][5:6])
    assert (table["prediction"].astype(str) == truth).mean() > 0.9


def test_forests_and_intervals_are_kept_too(tmp_path):
    adata = make()
    adata.obs.loc["0", "age"] = np.nan
    bf.tl.regress(adata, "age", use_rep="X_emb", protocol=replace(QUICK, head="random_forest", head_options=FOREST))
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad")
    bf.tl.fitted_head(again, "regress_age").save(tmp_path / "head")
    table = bf.tl.Head.load(tmp_path / "head").predict(adata)
    assert table.columns.tolist() == ["prediction", "low", "high"]
    np.testing.assert_array_equal(table.loc["0"], adata.obs.loc["0", ["age_pred", "age_low", "age_high"]].astype(float))


def test_heads_on_expression_find_genes_by_name(tmp_path):
    adata = make()
    bf.tl.classify(adata, "kind", use_rep=None, protocol=QUICK)
    head = bf.tl.fitted_head(adata, "classify_kind")
    shuffled = adata[:, ::-1].copy()
    pd.testing.assert_frame_equal(head.predict(shuffled), head.predict(adata))
    with pytest.raises(KeyError, match="lacks 1 of the head's 40 genes, such as 'g3'; add them as missing with"):
        head.predict(adata[:, adata.var_names != "g3"].copy())


def test_heads_that_do_not_fit_are_refused():
    adata = make()
    bf.tl.classify(adata, "kind", use_rep="X_emb", protocol=QUICK)
    head = bf.tl.fitted_head(adata, "classify_kind")
    adata.obsm["X_emb"] = adata.obsm["X_emb"][:, :5]
    with pytest.raises(ValueError, match=r"reads 20 columns and the matrix has the shape \(60, 5\)"):
        head.predict(adata)
    del adata.obsm["X_emb"]
    with pytest.raises(KeyError, match="no 'X_emb'"):
        head.predict(adata)
    with pytest.raises(KeyError, match=r"is no result of bf.tl.classify, bf.tl.regress or bf.tl.survival"):
        bf.tl.fitted_head(adata, "classify_age")
    with pytest.raises(TypeError, match="expected an AnnData"):
        head.predict(adata.obs)


def test_neighbours_are_not_kept():
    adata = make()
    bf.tl.classify(adata, "kind", use_rep="X_emb", head="knn", protocol=QUICK)
    with pytest.raises(ValueError, match=r"head='knn' is not kept, .* use one of .*'linear', 'elastic_net'"):
        bf.tl.fitted_head(adata, "classify_kind")


def test_a_head_knows_its_model(cohort, latest):
    adata = ad.concat([cohort] * 4, index_unique="-")
    adata.obs["kind"] = np.resize(["a", "b"], adata.n_obs)
    bf.tl.embed(adata, model=latest)
    bf.tl.classify(adata, "kind", protocol=QUICK)
    head = bf.tl.fitted_head(adata, "classify_kind")
    adata.uns["bulkformer"]["params"]["checksum"] = "other"
    with pytest.raises(ValueError, match="comes from another model than the head was fitted to"):
        head.predict(adata)


@pytest.fixture
def saved(tmp_path):
    adata = make()
    bf.tl.classify(adata, "kind", use_rep="X_emb", protocol=QUICK)
    bf.tl.fitted_head(adata, "classify_kind").save(tmp_path / "head")
    return tmp_path / "head"


def test_files_are_what_they_say(saved):
    assert sorted(path.name for path in saved.iterdir()) == ["head.json", "head.safetensors"]
    facts = json.loads((saved / "head.json").read_text())
    assert facts["facts"]["classes"] == ["a", "b", "c"]
    assert {"version", "scikit-learn", "sha256", "bytes"} <= set(facts)


def test_truncated_and_changed_files_are_refused(saved):
    path = saved / "head.safetensors"
    data = path.read_bytes()
    for wrong in (data[:-1], data[:100], b"", data[:-1] + bytes([data[-1] ^ 1])):
        path.write_bytes(wrong)
        with pytest.raises(ValueError, match="it was cut or changed"):
            bf.tl.Head.load(saved)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no head.safetensors"):
        bf.tl.Head.load(saved)


def rewrite(folder, edit=None, arrays=None, data=None):
    """Change the files as somebody would who also corrects the hash."""
    import hashlib

    facts = json.loads((folder / "head.json").read_text())
    if arrays is not None:
        data = save(arrays)
    if data is not None:
        (folder / "head.safetensors").write_bytes(data)
        facts |= {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    if edit is not None:
        edit(facts)
    (folder / "head.json").write_text(json.dumps(facts))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda f: f.update(format=2), "has the format 2; this version reads 1"),
        (lambda f: f.pop("sha256"), "does not describe a fitted head"),
        (lambda f: f["facts"].update(kind="pickle"), "kind 'pickle' cannot consist of"),
        (lambda f: f["facts"].update(link="identity"), "the link 'identity'"),
        (lambda f: f["facts"].update(classes=["a", "a", "c"]), "no .linear. head .* 3 classes, the link"),
        (lambda f: f["facts"].update(classes=["a", ["b"], "c"]), "3 classes, the link"),
        (lambda f: f["facts"].update(calibration=0), "the calibration 0"),
        (lambda f: f["facts"].update(calibration=float("nan")), "the calibration nan"),
        (lambda f: f["facts"].update(extra=1), r"\['extra'\] do not fit"),
        (lambda f: f["facts"].update(genes=["g"]), "names 1 genes and weighs 20"),
    ],
)
def test_hostile_facts_are_refused(saved, edit, message):
    rewrite(saved, edit)
    with pytest.raises(ValueError, match=message):
        bf.tl.Head.load(saved)


def test_hostile_arrays_are_refused(saved):
    good = load_file(saved / "head.safetensors")
    for arrays, message in [
        ({**good, "coef": good["coef"][:, :5].copy()}, r"'coef' is float64 \(3, 5\); expected the shape \(3, 20\)"),
        ({**good, "coef": good["coef"] * np.nan}, "'coef' holds values that are NaN or infinite"),
        ({**good, "coef": good["coef"].astype(np.float32)}, "'coef' is float32"),
        ({**good, "more": good["coef"]}, "cannot consist of the arrays"),
        ({"coef": good["coef"]}, "cannot consist of the arrays"),
    ]:
        rewrite(saved, arrays=arrays)
        with pytest.raises(ValueError, match=message):
            bf.tl.Head.load(saved)
    rewrite(saved, data=pickle.dumps({"coef": 1}))
    with pytest.raises(ValueError, match="is no safetensors file"):
        bf.tl.Head.load(saved)
    (saved / "head.json").write_text("{")
    with pytest.raises(ValueError, match="is no JSON"):
        bf.tl.Head.load(saved)


def test_trees_that_go_in_circles_are_refused():
    adata = make(classes=2)
    model = probe("random_forest", task="classification", shape=(60, 20), options={"n_estimators": 5})
    kind, link, arrays = extract(model.fit(adata.obsm["X_emb"], pd.factorize(adata.obs["kind"])[0]))
    facts = {"task": "classification", "label": "kind", "kind": kind, "link": link, "use_rep": "X_emb"}
    facts |= {"checksum": "", "classes": ["a", "b"], "genes": [], "calibration": 1.0}
    bf.tl.Head(facts, arrays)
    for name, value in {"left": 0, "right": 10**6, "feature": 20}.items():
        wrong = {**arrays, name: arrays[name].copy()}
        wrong[name][0] = value
        with pytest.raises(ValueError, match="outside it or in a circle"):
            bf.tl.Head(facts, wrong)


def test_other_folders_are_left_alone(saved, tmp_path):
    head = bf.tl.Head.load(saved)
    head.save(saved)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("text")
    with pytest.raises(FileExistsError, match="holds something else than a fitted head"):
        head.save(tmp_path / "mine")
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == ["thesis.txt"]
