from __future__ import annotations

import bz2
import gzip
import lzma
import re

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from bulkformer_tl._read import read

GENES = ["ENSG00000141510", "ENSG00000111640", "ENSG00000075624", "ENSG00000000003", "ENSG00000000419"]
SYMBOLS = ["TP53", "GAPDH", "ACTB", "TSPAN6", "DPM1"]
SAMPLES = ["donor_a", "donor_b", "donor_c"]
COUNTS = np.array([[1, 2, 3], [0, 50, 6], [7, 8, 9], [10, 0, 12], [130, 14, 15]])


@pytest.fixture
def write(tmp_path):
    def write(text, name="counts.csv", encoding="utf-8"):
        path = tmp_path / name
        path.write_bytes(text.encode(encoding) if isinstance(text, str) else text)
        return path

    return write


def table(delimiter=",", genes=GENES, samples=SAMPLES, corner="gene", counts=COUNTS) -> str:
    rows = [delimiter.join(map(str, [gene, *row])) for gene, row in zip(genes, counts, strict=True)]
    return "\n".join([delimiter.join([corner, *samples]), *rows]) + "\n"


def check(adata, genes=GENES, samples=SAMPLES, counts=COUNTS) -> None:
    assert adata.obs_names.tolist() == list(samples)
    assert adata.var_names.tolist() == list(genes)
    np.testing.assert_array_equal(adata.X, np.asarray(counts).T)


@pytest.mark.parametrize("delimiter", [",", "\t", ";", " "])
def test_separators(write, delimiter):
    adata = read(write(table(delimiter)))
    check(adata)
    assert adata.X.dtype == np.int32
    assert adata.uns["read"] == {
        "source": "counts.csv",
        "layout": "table",
        "orientation": "genes_by_samples",
        "n_samples": 3,
        "n_genes": 5,
        "n_duplicated_genes": 0,
        "n_spreadsheet_dates": 0,
    }


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress], ids=["gzip", "bzip2", "xz"])
def test_compression_is_told_from_content(write, pack):
    check(read(write(pack(table().encode()), "counts.csv")))


@pytest.mark.parametrize("genes", [GENES, [f"{gene}.{i}" for i, gene in enumerate(GENES)], SYMBOLS])
@pytest.mark.parametrize("transpose", [False, True])
def test_both_orientations(write, genes, transpose):
    if transpose:
        adata = read(write(table(genes=SAMPLES, samples=genes, corner="", counts=COUNTS.T)))
    else:
        adata = read(write(table(genes=genes)))
    check(adata, genes=genes)
    assert adata.uns["read"]["orientation"] == ("samples_by_genes" if transpose else "genes_by_samples")


def test_entrez_numbers_are_genes(write):
    entrez = ["7157", "2597", "60", "7105", "8813"]
    check(read(write(table("\t", genes=entrez, corner="GeneID"))), genes=entrez)
    check(read(write(table(genes=SAMPLES, samples=entrez, counts=COUNTS.T))), genes=entrez)


def test_numbered_rows_are_no_entrez_ids(write):
    with pytest.raises(ValueError, match=r"cannot tell genes from samples.*look like genes; pass orientation="):
        read(write(table(genes=["1", "2", "3", "4", "5"])))


def test_ambiguous_orientation(write):
    text = table(samples=["TP53", "GAPDH", "ACTB"])
    message = r"100% of the 5 row names .* and 100% of the 3 column names .*pass orientation='genes_by_samples' or"
    with pytest.raises(ValueError, match=message):
        read(write(text))
    check(read(write(text), orientation="genes_by_samples"), samples=["TP53", "GAPDH", "ACTB"])
    assert read(write(text), orientation="samples_by_genes").shape == (5, 3)


def test_r_leaves_the_corner_out(write):
    check(read(write(table().removeprefix("gene,"))))


def test_quotes_byte_order_mark_and_windows_line_ends(write):
    text = '"","donor_a","donor_b","donor_c"\r\n' + "".join(
        f'"{gene}",{",".join(map(str, row))}\r\n' for gene, row in zip(GENES, COUNTS, strict=True)
    )
    check(read(write("\ufeff" + text + "\r\n")))


def test_other_columns_go_to_var(write):
    lines = table("\t").splitlines()
    extra = ["symbol\tlength\tnote", *(f'{symbol}\t{100 * i}\t"a, {i}"' for i, symbol in enumerate(SYMBOLS, 1))]
    text = "\n".join(
        "\t".join([*line.split("\t")[:1], more, *line.split("\t")[1:]]) for line, more in zip(lines, extra, strict=True)
    )
    adata = read(write(text))
    check(adata)
    assert adata.var["symbol"].tolist() == SYMBOLS
    assert adata.var["length"].tolist() == [100, 200, 300, 400, 500]
    assert adata.var["note"].tolist() == [f"a, {i}" for i in range(1, 6)]
    assert adata.uns["read"]["var_columns"] == ["symbol", "length", "note"]


def test_text_columns_of_samples_go_to_obs(write):
    text = "sample,tissue,TP53,GAPDH\ndonor_a,liver,1,2\ndonor_b,lung,3,4\n"
    adata = read(write(text))
    assert adata.obs["tissue"].tolist() == ["liver", "lung"]
    check(adata, ["TP53", "GAPDH"], SAMPLES[:2], [[1, 3], [2, 4]])


def test_numbers_unlike_genes_are_reported(write, caplog):
    genes = [f"ENSG{i:011d}" for i in range(20)]
    adata = read(write(table(genes=SAMPLES, samples=["age", *genes], counts=np.arange(63).reshape(3, 21))))
    assert adata.uns["read"]["columns_unlike_genes"] == ["age"]
    assert "['age'] do not look like genes but hold numbers; they are kept, drop" in caplog.text
    assert adata.n_vars == 21


@pytest.mark.parametrize("transpose", [False, True])
def test_uncounted_reads_are_no_genes(write, transpose):
    genes = [*GENES[:3], "__no_feature", "N_unmapped"]
    names = (SAMPLES, genes) if transpose else (genes, SAMPLES)
    adata = read(write(table(genes=names[0], samples=names[1], counts=COUNTS.T if transpose else COUNTS)))
    check(adata, genes=GENES[:3], counts=COUNTS[:3])
    assert adata.uns["read"]["dropped_rows"] == ["__no_feature", "N_unmapped"]


def test_a_column_that_counts_rows_is_passed_over(write):
    lines = table().splitlines()
    text = "\n".join([f",{lines[0]}", *(f"{i},{line}" for i, line in enumerate(lines[1:]))])
    check(read(write(text)))


def test_empty_cells_are_missing(write):
    adata = read(write("gene,a,b\nTP53,1,\nGAPDH,NA,4.5\n"))
    np.testing.assert_array_equal(adata.X, [[1, np.nan], [np.nan, 4.5]])
    assert adata.X.dtype == np.float64


@pytest.mark.parametrize("end", ["\n", "", "\n\n"])
def test_the_last_cell_may_be_empty(write, end):
    adata = read(write(f"gene,a,b\nTP53,,2\nGAPDH,3,{end}"))
    np.testing.assert_array_equal(adata.X, [[np.nan, 3], [2, np.nan]])


def test_quoted_numbers(write):
    check(read(write(re.sub(r"[^,\n]+", r'"\g<0>"', table()))))


@pytest.mark.parametrize("file", ["seqc_reference_counts.h5ad", "pbmc12_tpm.h5ad"])
@pytest.mark.parametrize("names", ["var_names", "gene_symbol"])
@pytest.mark.parametrize("transpose", [False, True])
def test_real_cohorts_come_back(cohorts, tmp_path, file, names, transpose):
    adata = ad.read_h5ad(cohorts / file)
    genes = adata.var_names if names == "var_names" else adata.var["gene_symbol"]
    values = adata.X.toarray() if sp.issparse(adata.X) else np.asarray(adata.X)
    frame = pd.DataFrame(values[:, ::5], list(adata.obs_names), list(genes[::5]))
    (frame if transpose else frame.T).to_csv(tmp_path / "x.tsv.gz", sep="\t")
    again = read(tmp_path / "x.tsv.gz", metadata=adata.obs)
    np.testing.assert_allclose(again.X, frame, rtol=1e-6)
    assert again.var_names.tolist() == frame.columns.tolist()
    assert again.uns["read"]["metadata"]["n_matched"] == adata.n_obs


def test_the_gene_called_nan_keeps_its_name(write):
    adata = read(write("gene,a\nNA,1\nTP53,2\nNaN,3\n"))
    assert adata.var_names.tolist() == ["NA", "TP53", "NaN"]


def test_negative_and_large_values_stay(write):
    adata = read(write("gene,a,b\nTP53,-1.25,3000000000\nGAPDH,1e-3,2\n"))
    np.testing.assert_array_equal(adata.X, [[-1.25, 1e-3], [3e9, 2]])


def test_integers_beyond_32_bits(write):
    adata = read(write("gene,a,b\nTP53,1,3000000000\nGAPDH,4,2\n"))
    assert adata.X.dtype == np.int64
    assert adata.X[1, 0] == 3_000_000_000
    assert read(write("gene,a\nTP53,99999999999999999999\n")).X.tolist() == [[1e20]]


def test_several_batches_equal_one(write, monkeypatch):
    path = write(table())
    monkeypatch.setattr("bulkformer_tl._read._table._BATCH", 20)
    check(read(path))


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ('gene,a,b\nTP53,"1,234",5\nGAPDH,6,"12,345,678"\n', {"thousands": ","}, [[1234, 6], [5, 12345678]]),
        ("gene;a;b\nTP53;1,5;2\nGAPDH;3;4,25\n", {"decimal": ","}, [[1.5, 3], [2, 4.25]]),
        ("gene;a\nTP53;1.234,5\nGAPDH;3\n", {"decimal": ",", "thousands": "."}, [[1234.5, 3]]),
    ],
)
def test_numbers_of_other_countries(write, text, options, expected):
    with pytest.raises(ValueError, match=r"line 2 .*is no finite number"):
        read(write(text))
    np.testing.assert_allclose(read(write(text), **options).X, expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "counts.csv is empty"),
        ("gene,a,b\n", "is empty below its header"),
        ("# only\n# comments\n", "only 2 comment lines"),
        ("gene,a,b\nTP53,1,2\nGAPDH,3\n", r"line 3 \(row 'GAPDH'\): 2 fields where the header has 3.*cut short"),
        ("gene,a,b\nTP53,1,2\n\nGAPDH,3,4,5\n", r"line 4 \(row 'GAPDH'\): 4 fields where the header has 3"),
        ("gene,a\nTP53,1,2\nGAPDH,3,4\n", "line 2 .*3 fields where the header has 2"),
        ("gene,a\nTP53,1\nGAPDH,1,234\nACTB,3\n", "line 3 .*digits are grouped.*quote those cells"),
        (
            "gene,a,b\nTP53,1,2\nGAPDH,3,low\nACTB,x,4\nDPM1,1,1\n",
            r"line 3 \(row 'GAPDH'\), column 3 \('b'\): 'low' is no finite number; correct it, or leave the cell empty",
        ),
        (
            "gene\ta\tb\nTP53\t1\t2\nGAPDH\t1,234\t4\n",
            "'1,234' is no finite number; pass thousands=',' if .*decimal=','",
        ),
        ("gene\ta\tb\nTP53\t1\t2\nGAPDH\t1,234,567\t4\n", "pass thousands=','"),
        ("gene\ta\tb\nTP53\t1,5\t2\nGAPDH\t1,234\t4\n", "the comma separates a fraction: pass decimal=','"),
        ("gene\ta\tb\nTP53\t1.234,5\t2\nGAPDH\t1\t4\n", r"pass thousands='\.', decimal=','"),
        ("gene,a,b\nTP53,1,2\nGAPDH,3,#REF!\n", "column 3 .*a spreadsheet left this error"),
        ("gene,a,b\nTP53,1,2\nGAPDH,inf,4\n", r"column 2 \('a'\): 'inf' is no finite number"),
        ("gene,a,b\nTP53,1,2\nGAPDH,TRUE,4\n", r"column 2 \('a'\): 'TRUE' is no finite number"),
        ("gene,a,b,a\nTP53,1,2,3\nGAPDH,4,5,6\n", r"the sample 'a' occurs 2 times \(samples \[1, 3\] of 3\)"),
        ("gene,a,,b\nTP53,1,2,3\nGAPDH,4,5,6\n", "sample 2 of 3 has no name"),
        ("sample,TP53,GAPDH\na,1,2\na,3,4\n", "the sample 'a' occurs 2 times"),
        ("TP53,1,2.5\nGAPDH,3,4.5\n", "has no header: line 1 is 'TP53,1,2.5'"),
        ("a,b\nTP53,1,\nGAPDH,3,\n", "every row ends with ',' but the header does not"),
        ("just a sentence\n", "is empty below its header"),
        ("word\nanother\n", "has a single column, starting with 'word'"),
        ("gene,symbol\nENSG00000141510,TP53\nENSG00000111640,GAPDH\n", "holds no column of numbers"),
    ],
)
def test_unsound_tables_are_refused(write, text, message):
    with pytest.raises(ValueError, match=message):
        read(write(text))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04 and so on", "is a zip archive"),
        (b"\x80\x04\x95 pickled", "a Python pickle, which is never opened"),
        (b"gene,a\nTP53,1\nGAP\x00DH,2\n", "is no text: it holds zero bytes"),
        (gzip.compress(table().encode())[:-12], "damaged or cut short.*get it again"),
        (bz2.compress(table().encode())[:-12], "damaged or cut short"),
        (lzma.compress(table().encode())[:-12], "damaged or cut short"),
        (
            gzip.compress(table().encode())[:20] + b"rubbish" + gzip.compress(table().encode())[27:],
            "damaged or cut short",
        ),
        (table().encode("utf-16"), "the byte 0xff is no utf-8; pass encoding=, for example 'latin-1' or 'utf-16'"),
        (table().encode("utf-16-le"), "looks like UTF-16; pass encoding='utf-16'"),
        (table(samples=["dönor", "b", "c"]).encode("latin-1"), "line 1: the byte 0xf6 is no utf-8; pass encoding="),
    ],
)
def test_files_that_are_no_text_are_refused(write, content, message):
    with pytest.raises(ValueError, match=message):
        read(write(content))


def test_encoding(write):
    names = ["dönor", "b", "c"]
    check(read(write(table(samples=names), encoding="latin-1"), encoding="latin-1"), samples=names)
    check(read(write(table(samples=names), encoding="utf-16"), encoding="utf-16"), samples=names)


def test_line_of_an_undecodable_byte(write):
    text = table().encode() + b"ENSG00000000457,1,2,3\xff\n"
    with pytest.raises(ValueError, match="line 7: the byte 0xff"):
        read(write(text))


def test_a_line_without_end_is_no_table(write, monkeypatch):
    monkeypatch.setattr("bulkformer_tl._read._text.MAX_LINE", 50)
    with pytest.raises(ValueError, match="line 1: more than 50 characters without a line end"):
        read(write(gzip.compress(b"0" * 10_000)))


def test_endless_rows_are_no_table(write, monkeypatch):
    monkeypatch.setattr("bulkformer_tl._read._table.MAX_ROWS", 4)
    with pytest.raises(ValueError, match="has more than 4 rows"):
        read(write(table()))


def test_duplicated_genes_are_kept_and_reported(write, caplog):
    genes = ["TP53", "GAPDH", "TP53", "ACTB", "GAPDH"]
    adata = read(write(table(genes=genes)))
    check(adata, genes=genes)
    assert adata.uns["read"]["n_duplicated_genes"] == 2
    assert adata.uns["read"]["duplicated_genes"] == ["TP53", "GAPDH"]
    assert "call bf.pp.merge_duplicates" in caplog.text


def test_genes_that_became_dates_are_kept_and_reported(write, caplog):
    genes = ["TP53", "1-Mar", "Sep-02", "44621", "GAPDH"]
    adata = read(write(table(genes=genes)))
    check(adata, genes=genes)
    assert adata.uns["read"]["spreadsheet_dates"] == ["line 3: 1-Mar", "line 4: Sep-02", "line 5: 44621"]
    assert "a spreadsheet turned 3 gene names into dates" in caplog.text
    by_column = read(write(table(genes=SAMPLES, samples=genes, counts=COUNTS.T)))
    assert by_column.uns["read"]["spreadsheet_dates"][0] == "column 3: 1-Mar"


def test_five_digits_among_entrez_ids_are_no_dates(write):
    entrez = ["7157", "2597", "44621", "7105", "8813"]
    assert read(write(table(genes=entrez))).uns["read"]["n_spreadsheet_dates"] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"orientation": "wide"}, "orientation must be one of .*found 'wide'"),
        ({"strandedness": "yes"}, "strandedness must be one of"),
        ({"decimal": "·"}, "decimal must be one of"),
        ({"thousands": "x"}, "thousands must be one of"),
        ({"thousands": "."}, "both '.'; they have to differ"),
    ],
)
def test_options_are_checked_first(options, message):
    with pytest.raises(ValueError, match=message):
        read("nowhere.csv", **options)


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file or folder .*nowhere\.csv"):
        read(tmp_path / "nowhere.csv")


def test_feature_counts(write):
    text = '# Program:featureCounts v2.0.1; Command:"featureCounts" "-a" "x.gtf"\n' + table(
        "\t",
        genes=["\t".join([gene, "1;1", "10;30", "20;40", "+;+", "22"]) for gene in GENES],
        corner="Geneid\tChr\tStart\tEnd\tStrand\tLength",
        samples=["aligned/a.bam", "aligned/b.bam", "aligned/c.sam"],
    )
    adata = read(write(text))
    check(adata, samples=["a", "b", "c"])
    assert adata.uns["read"]["layout"] == "featureCounts"
    assert adata.var["length"].tolist() == [22] * 5
    assert adata.var["start"].tolist() == ["10;30"] * 5
    assert adata.obs["file"].tolist() == ["aligned/a.bam", "aligned/b.bam", "aligned/c.sam"]


def test_gct(write):
    body = table("\t", genes=[f"{g}\t{s}" for g, s in zip(GENES, SYMBOLS, strict=True)], corner="Name\tDescription")
    adata = read(write(f"#1.2\n5\t3\n{body}"))
    check(adata)
    assert adata.uns["read"]["layout"] == "gct"
    assert adata.var["symbol"].tolist() == SYMBOLS
    with pytest.raises(ValueError, match="line 2 states 6 genes x 3 samples, found 5 x 3"):
        read(write(f"#1.2\n6\t3\n{body}"))
    with pytest.raises(ValueError, match="line 2: GCT states its rows and columns there"):
        read(write(f"#1.2\n{body}"))


def test_gct_with_annotations(write):
    rows = [f"{g}\t{s}\t{i}" for i, (g, s) in enumerate(zip(GENES, SYMBOLS, strict=True))]
    header, *body = table("\t", genes=rows, corner="id\tsymbol\trank").splitlines()
    text = "\n".join(
        ["#1.3", "5\t3\t2\t2", header, "tissue\tna\tna\tliver\tliver\tlung", "age\tna\tna\t30\t40\t50", *body]
    )
    adata = read(write(text))
    check(adata)
    assert adata.var["rank"].tolist() == [0, 1, 2, 3, 4]
    assert adata.obs["tissue"].tolist() == ["liver", "liver", "lung"]
    assert adata.obs["age"].tolist() == [30, 40, 50]


def test_xena_is_left_as_it_is(write):
    samples = ["TCGA-AA-0001-01A", "TCGA-AA-0002-01A", "TCGA-AA-0003-11A"]
    values = np.round(np.log2(COUNTS + 1), 4)
    adata = read(write(table("\t", corner="Ensembl_ID", samples=samples, counts=values)))
    check(adata, samples=samples, counts=values)
    assert adata.uns["read"]["layout"] == "xena"
    assert "left as Xena publishes them" in adata.uns["read"]["note"]


def test_recount3(write):
    comments = "##annotation=G026\n##date.generated=2020-01-01\n"
    adata = read(write(gzip.compress((comments + table("\t", corner="gene_id")).encode()), "x.G026.gz"))
    check(adata)
    assert adata.uns["read"]["layout"] == "recount3"
    assert "divide by the read length" in adata.uns["read"]["note"]


def test_a_header_may_look_like_a_comment(write):
    check(read(write("#" + table("\t"))))


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_stored(write, tmp_path, suffix):
    adata = read(write(table()), metadata=pd.DataFrame({"tissue": ["liver", "lung", None]}, index=SAMPLES))
    path = tmp_path / f"stored.{suffix}"
    getattr(adata, f"write_{suffix}")(path)
    again = read(path)
    check(again)
    assert again.uns["read"]["layout"] == suffix
    assert again.obs["tissue"].tolist()[:2] == ["liver", "lung"]


def test_stored_genes_in_rows_are_transposed(tmp_path):
    adata = ad.AnnData(COUNTS, obs=pd.DataFrame(index=GENES), var=pd.DataFrame(index=SAMPLES))
    adata.write_h5ad(tmp_path / "x.h5ad")
    check(read(tmp_path / "x.h5ad"))


def test_other_hdf5_is_refused(tmp_path):
    import h5py

    with h5py.File(tmp_path / "x.h5ad", "w") as file:
        file["table"] = [1, 2]
    with pytest.raises(
        ValueError, match=re.escape("holds no AnnData: it has ['table'] where obs and var are expected")
    ):
        read(tmp_path / "x.h5ad")


def test_pickled_zarr_is_never_loaded(tmp_path):
    folder = tmp_path / "x.zarr"
    (folder / "obs").mkdir(parents=True)
    (folder / ".zgroup").write_text('{"zarr_format": 2}')
    (folder / "obs" / ".zarray").write_text('{"filters": [{"id": "pickle", "protocol": 5}]}')
    with pytest.raises(ValueError, match="says that an array is pickled; pickles are never loaded"):
        read(folder)
