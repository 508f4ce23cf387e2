from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
import pytest

from bulkformer_tl._vocabulary import (
    GeneVocabulary,
    entrez_table,
    gene_table,
    load_vocabulary,
    match_genes,
    strip_version,
    symbol_table,
    to_ensembl,
)

TP53, GAPDH, ACTB = "ENSG00000141510", "ENSG00000111640", "ENSG00000075624"


@pytest.fixture
def vocabulary() -> GeneVocabulary:
    return GeneVocabulary(np.array([TP53, GAPDH, ACTB]), name="three")


def test_gene_table_is_what_its_readme_says():
    table = gene_table()
    assert table.index.is_unique
    assert table.index.is_monotonic_increasing
    assert len(table) == 80_164
    assert int((table["biotype"] != "").sum()) == 62_710
    assert int(table["length"].isna().sum()) == 1_232
    assert table.loc[TP53, ["symbol", "biotype", "chromosome", "entrez"]].tolist() == [
        "TP53",
        "protein_coding",
        "17",
        "7157",
    ]
    assert (table["length"].dropna() > 0).all()


def test_gene_table_agrees_with_its_sources(cohorts):
    lengths = pd.read_csv(cohorts / "resources" / "bulkformer_gene_length_df.csv.gz", index_col="ensg_id")["length"]
    table = gene_table()
    np.testing.assert_array_equal(table["length"].reindex(lengths.index), lengths)
    annotation = pd.read_csv(
        cohorts / "resources" / "gene_annotation_ensembl109.csv.gz",
        index_col="ensembl_id",
        dtype=str,
        keep_default_na=False,
    )
    columns = ["symbol", "biotype", "entrez"]
    assert (table.loc[annotation.index, columns] == annotation[columns]).all(axis=None)


def test_symbols_of_several_genes_go_to_the_coding_one_on_a_chromosome():
    table = gene_table()
    several = table[(table["symbol"] != "") & table["symbol"].duplicated(keep=False)]
    coding = several[several["biotype"] == "protein_coding"].groupby("symbol").size()
    single = coding[coding == 1].index
    chosen = table.loc[symbol_table()[single]]
    assert "RGS5" in single
    assert (chosen["biotype"] == "protein_coding").all()
    assert symbol_table().index.is_unique


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (f"{TP53}.18", TP53),
        (TP53, TP53),
        ("ENSG00000182378.14_PAR_Y", "ENSG00000182378"),
        ("ENSMUSG00000059552.9", "ENSMUSG00000059552"),
        ("RP11-34P13.7", "RP11-34P13.7"),
    ],
)
def test_versions_are_dropped_of_ensembl_ids_only(name, expected):
    assert strip_version([name]).tolist() == [expected]


def test_symbols_become_ids():
    assert to_ensembl(["TP53", "no such gene", "GAPDH"], identifiers="symbol").tolist() == [TP53, "", GAPDH]


def test_unknown_kind_of_identifier():
    with pytest.raises(ValueError, match="must be 'ensembl', 'symbol' or 'entrez', found 'refseq'"):
        to_ensembl(["NM_000546"], identifiers="refseq")


def test_entrez_ids_become_ids():
    assert to_ensembl(["7157", "no such gene", "2597"], identifiers="entrez").tolist() == [TP53, "", GAPDH]


def test_entrez_ids_of_several_genes_go_to_the_coding_one_on_a_chromosome():
    table = gene_table()
    several = table[(table["entrez"] != "") & table["entrez"].duplicated(keep=False)]
    coding = several[several["biotype"] == "protein_coding"].groupby("entrez").size()
    single = coding[coding == 1].index
    assert len(single) > 10
    assert (table.loc[entrez_table()[single], "biotype"] == "protein_coding").all()
    assert entrez_table().index.is_unique
    assert set(entrez_table().index) == set(table["entrez"]) - {""}


def test_vocabulary_refuses_duplicates_and_nothing():
    with pytest.raises(ValueError, match=f"lists genes twice: .*{TP53}"):
        GeneVocabulary(np.array([TP53, TP53]))
    with pytest.raises(ValueError, match="holds no gene"):
        GeneVocabulary(np.array([], dtype=str))


def test_checksum_is_of_the_ids_in_order(vocabulary):
    assert vocabulary.checksum == hashlib.sha256(f"{TP53}\n{GAPDH}\n{ACTB}".encode()).hexdigest()


def test_match_and_align(vocabulary):
    match = match_genes([f"{ACTB}.1", "ENSG00000000003", f"{TP53}.18"], vocabulary)
    assert match.columns.tolist() == [2, -1, 0]
    assert match.in_vocabulary.tolist() == [True, False, True]
    assert (match.n_found, match.coverage) == (2, 2 / 3)
    np.testing.assert_array_equal(match.align(np.array([[1.0, 2.0, 3.0]])), [[3.0, np.nan, 1.0]])


def test_match_names_the_other_kind(vocabulary):
    with pytest.raises(ValueError, match="pass identifiers='symbol'"):
        match_genes(["TP53", "GAPDH"], vocabulary)
    with pytest.raises(ValueError, match="pass identifiers='ensembl'"):
        match_genes([TP53], vocabulary, identifiers="symbol")
    with pytest.raises(ValueError, match="50% of them are of the kind 'entrez'; pass identifiers='entrez'"):
        match_genes(["7157", "1"], vocabulary)


def test_match_refuses_foreign_names_too_few_and_several(vocabulary):
    with pytest.raises(ValueError, match=r"call bf\.pp\.diagnose"):
        match_genes(["a", "b"], vocabulary)
    with pytest.raises(ValueError, match=r"only 1 of the 3 genes .* at least 50% are needed"):
        match_genes([TP53], vocabulary, min_share=0.5)
    with pytest.raises(ValueError, match=r"merge_duplicates"):
        match_genes([f"{TP53}.1", f"{TP53}.2", GAPDH], vocabulary)


def test_duplicates_outside_the_vocabulary_do_no_harm(vocabulary):
    assert match_genes(["x", "x", GAPDH], vocabulary).columns.tolist() == [-1, 2, -1]
    assert match_genes(["no", "such", "GAPDH"], vocabulary, identifiers="symbol").columns.tolist() == [-1, 2, -1]


def test_csv_round_trip(tmp_path):
    before = GeneVocabulary(np.array([TP53, GAPDH]), np.array(["TP53", ""]), np.array([2512.0, np.nan]))
    before.to_csv(tmp_path / "genes.csv")
    after = load_vocabulary(tmp_path)
    assert after.checksum == before.checksum
    assert after.symbols.tolist() == ["TP53", ""]
    np.testing.assert_array_equal(after.lengths, before.lengths)
    assert after.means is None


def test_corpus_means_are_kept(tmp_path):
    means = np.array([1.5, np.nan])
    GeneVocabulary(np.array([TP53, GAPDH]), means=means).to_csv(tmp_path / "genes.csv")
    np.testing.assert_array_equal(load_vocabulary(tmp_path).means, means)
    embedded = load_vocabulary()
    # housekeeping genes are high everywhere, TP53 is moderate
    mean = dict(zip(embedded.ids, embedded.means, strict=True))
    assert mean[GAPDH] > 5 > mean[TP53] > 1


def test_published_tables_are_read(golden):
    bundle = load_vocabulary(golden / "bulkformer_latest" / "bundle")
    table = pd.read_csv(golden / "bulkformer_latest" / "bundle" / "gene_vocab.csv")
    assert bundle.ids.tolist() == table["canonical_ensg"].tolist()
    np.testing.assert_array_equal(bundle.lengths, table["gene_length_bp"])
    plain = load_vocabulary(golden / "preprocess_vocabulary.csv")
    assert (len(plain), plain.symbols, plain.lengths) == (150, None, None)


def test_load_says_what_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no genes file"):
        load_vocabulary(tmp_path)
    (tmp_path / "genes.csv").write_text("name\nTP53\n")
    with pytest.raises(ValueError, match="expected one of"):
        load_vocabulary(tmp_path)


def test_default_is_the_embedded_model():
    default = load_vocabulary()
    assert default.name == "bulkformer-mini"
    assert len(default) > 10_000
    assert load_vocabulary(default) is default
