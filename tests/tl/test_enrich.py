from __future__ import annotations

from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import stats

import bulkformer_tl as bf
from bulkformer_tl.tl._gene_sets import read_gene_sets

if TYPE_CHECKING:
    from pathlib import Path

GENES = 120
SETS = {
    "UP": [f"g{i}" for i in range(12)],
    "NOISE": [f"g{i}" for i in range(40, 55)],
    "SMALL": ["g1", "g2"],
    "ELSEWHERE": [f"other{i}" for i in range(30)],
}


def make(*, imputed: bool = False) -> ad.AnnData:
    """A screen whose first twelve genes were found, as a task leaves it."""
    rng = np.random.default_rng(0)
    names = [f"g{i}" for i in range(GENES)]
    adata = ad.AnnData(np.ones((2, GENES), dtype=np.float32), var=pd.DataFrame(index=names))
    adata.var["symbol"] = [f"S{i}" for i in range(GENES)]
    table = pd.DataFrame({"statistic": rng.normal(size=GENES)}, index=pd.Index(names, name="gene"))
    table.iloc[:12, 0] += 4
    table["fdr"] = np.where(np.arange(GENES) < 12, 0.01, 0.8)
    table.iloc[-10:] = np.nan
    params = {"package": "bulkformer_tl", "alpha": 0.05}
    after = table.assign(statistic=rng.normal(size=GENES), fdr=0.9)
    adata.uns["screen"] = {"params": params, "genes": table, **({"imputed": after} if imputed else {})}
    return adata


def sets(adata: ad.AnnData, **options: object) -> pd.DataFrame:
    bf.tl.enrich(adata, "screen", **{"gene_sets": SETS, **options})
    return adata.uns[str(options.get("key_added", "screen_enrichment"))]["sets"].set_index("set")


@pytest.fixture
def gmt(tmp_path: Path) -> Path:
    path = tmp_path / "sets.gmt"
    path.write_text("\n".join("\t".join([name, "a description", *genes]) for name, genes in SETS.items()) + "\n\n")
    return path


def test_ulm_is_the_t_test_of_a_slope():
    pytest.importorskip("decoupler", reason='pip install "bulkformer-tl[de]"')
    adata = make()
    found = sets(adata)
    table = adata.uns["screen"]["genes"].dropna()
    assert found.index.tolist() == ["UP", "NOISE"]
    for name in found.index:
        member = table.index.isin(SETS[name]).astype(float)
        fit = stats.linregress(member, table["statistic"])
        assert found.loc[name, "score"] == pytest.approx(fit.slope / fit.stderr, rel=1e-3)
    assert found.loc["UP", "fdr"] < 1e-6 < 0.05 < found.loc["NOISE", "fdr"]
    assert found["n_genes"].tolist() == [12, 15]
    assert set(found.loc["UP", "found"].split(", ")) == set(SETS["UP"])
    assert found.loc["NOISE", "found"] == ""


def test_ora_is_fishers_test_on_tested_genes(gmt):
    pytest.importorskip("decoupler", reason='pip install "bulkformer-tl[de]"')
    found = sets(make(), gene_sets=gmt, method="ora", min_genes=2)
    p = [
        stats.fisher_exact([[12, 0], [0, 98]], alternative="greater").pvalue,
        stats.fisher_exact([[2, 0], [10, 98]], alternative="greater").pvalue,
        stats.fisher_exact([[0, 15], [12, 83]], alternative="greater").pvalue,
    ]
    np.testing.assert_allclose(found.loc[["UP", "SMALL", "NOISE"], "fdr"], stats.false_discovery_control(p))
    assert found.loc["UP", "score"] > 0


def test_before_and_after_imputation():
    pytest.importorskip("decoupler", reason='pip install "bulkformer-tl[de]"')
    found = sets(make(imputed=True)).reset_index().set_index(["values", "set"])
    assert found.loc[("measured", "UP"), "fdr"] < 1e-6
    assert found.loc[("imputed", "UP"), "fdr"] > 0.05


def test_other_names_of_genes():
    pytest.importorskip("decoupler", reason='pip install "bulkformer-tl[de]"')
    adata = make()
    named = {"UP": [f"S{i}" for i in range(12)]}
    assert sets(adata, gene_sets=named, symbols="symbol").index.tolist() == ["UP"]
    table = bf._vocabulary.gene_table().query("symbol != ''").drop_duplicates("symbol").iloc[:GENES]
    adata.var_names = table.index
    adata.uns["screen"]["genes"].index = table.index
    found = sets(adata, gene_sets={"UP": table["symbol"].iloc[:12].tolist()})
    assert found.loc["UP", "n_genes"] == 12


@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_tables_survive_a_file(form, tmp_path):
    pytest.importorskip("decoupler", reason='pip install "bulkformer-tl[de]"')
    adata = make()
    del adata.uns["screen"]["genes"]["fdr"]
    adata.uns["screen"]["genes"]["fdr"] = 0.5
    sets(adata)
    path = tmp_path / f"a.{form}"
    (adata.write_h5ad if form == "h5ad" else adata.write_zarr)(path)
    again = (ad.read_h5ad if form == "h5ad" else ad.read_zarr)(path)
    expected = adata.uns["screen_enrichment"]["sets"]
    read = again.uns["screen_enrichment"]["sets"]
    pd.testing.assert_frame_equal(read, expected, check_dtype=False, check_index_type=False)
    sets(again)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": "best"}, ValueError, r"method is 'best'; choose among \['ulm', 'ora', 'gsea'\]"),
        (
            {"gene_sets": {"A": ["x", "y"]}},
            ValueError,
            r"names no gene of adata: it holds \['x', 'y'\] and adata \['g0'",
        ),
        ({"gene_sets": {"A": "g1"}}, TypeError, "the gene set 'A' is the text 'g1'; pass a list"),
        ({"gene_sets": ["g1"]}, TypeError, "gene_sets is of type list; pass a GMT file or a dict"),
        ({"gene_sets": {}}, ValueError, "no set with a gene"),
        ({"gene_sets": "nowhere.gmt"}, FileNotFoundError, "there is no file nowhere.gmt; pass a GMT file"),
        (
            {"min_genes": 50},
            ValueError,
            r"no gene set has 50 measured genes .* the largest of 4 has 15. Lower min_genes",
        ),
        ({"symbols": "name"}, KeyError, r"no column 'name' \(symbols\); its columns are \['symbol'\]"),
        ({"key_added": "mine"}, ValueError, r"uns\['mine'\] exists"),
    ],
)
def test_bad_input_is_refused_and_nothing_written(options, error, message):
    adata = make()
    adata.uns["mine"] = 1
    with pytest.raises(error, match=message):
        sets(adata, **options)
    assert set(adata.uns) == {"screen", "mine"}


def test_only_screens_can_be_asked():
    adata = make()
    with pytest.raises(KeyError, match=r"uns\['mine'\] holds no tested genes; call bf.tl.differential_expression"):
        bf.tl.enrich(adata, "mine", gene_sets=SETS)


def test_decoupler_is_named_where_it_is_absent(monkeypatch):
    monkeypatch.setattr("bulkformer_tl._optional.find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r'bf.tl.enrich needs decoupler: pip install "bulkformer-tl\[de\]"'):
        sets(make())


def test_gmt_files_are_read(gmt):
    found = read_gene_sets(gmt)
    assert found.groupby("source")["target"].agg(list).to_dict() == SETS
    assert len(read_gene_sets({"A": ["x", "x", "y"]})) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"A\tabout", r"line 1 of .* is 'A\\tabout'; each line of a GMT file is the name"),
        (b"A\tabout\tg1\n\tabout\tg2\n", "line 2 of"),
        (b"gene,set\ng1,A\n", "line 1 of .* 'gene,set'"),
        (b"A\tabout\tg1\nA\tagain\tg2\n", "holds the set 'A' twice, the second time in line 2"),
        (b"\x1f\x8b\x08\x00\xff\xfe", "is no text, so no GMT file; unpack it first"),
        (b"\n\n", "no set with a gene"),
    ],
)
def test_files_that_are_no_gmt_are_refused(content, message, tmp_path):
    path = tmp_path / "bad.gmt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_gene_sets(path)


def test_huge_files_are_refused(gmt, monkeypatch):
    monkeypatch.setattr("bulkformer_tl.tl._gene_sets.LARGEST", 10)
    with pytest.raises(ValueError, match="more than the 10 that a GMT file may have"):
        read_gene_sets(gmt)
