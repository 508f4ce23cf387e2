from __future__ import annotations

import gzip

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from bulkformer_tl._vocabulary import GeneVocabulary, gene_table
from bulkformer_tl.pp._lengths import exon_lengths, resolve_lengths

IDS = np.array(["ENSG00000141510", "ENSG00000111640", "ENSG00000999999"])

GTF = """\
#!genome-build GRCh38
1\tx\tgene\t1\t900\t.\t+\t.\tgene_id "ENSG00000141510"; gene_version "18";
1\tx\texon\t101\t200\t.\t+\t.\tgene_id "ENSG00000141510.18"; transcript_id "T1";
1\tx\texon\t151\t250\t.\t+\t.\tgene_id "ENSG00000141510.18"; transcript_id "T2";
1\tx\texon\t160\t170\t.\t+\t.\tgene_id "ENSG00000141510.18"; transcript_id "T3";
1\tx\texon\t251\t260\t.\t+\t.\tgene_id "ENSG00000141510.18"; transcript_id "T3";
1\tx\texon\t401\t401\t.\t+\t.\tgene_id "ENSG00000141510.18"; transcript_id "T3";
2\tx\texon\t101\t110\t.\t-\t.\tgene_id "ENSG00000111640"; transcript_id "T4";
2\tx\tCDS\t1\t1000\t.\t-\t.\tgene_id "ENSG00000111640"; transcript_id "T4";
Y\tx\texon\t1\t1000\t.\t-\t.\tgene_id "ENSG00000111640.3_PAR_Y"; transcript_id "T5";
"""

GFF = """\
##gff-version 3
1\tx\tgene\t1\t900\t.\t+\t.\tID=gene:ENSG00000141510;Name=TP53
1\tx\tmRNA\t1\t900\t.\t+\t.\tID=transcript:T1;Parent=gene:ENSG00000141510;Name=TP53-201
1\tx\texon\t101\t200\t.\t+\t.\tParent=transcript:T1;Name=E1
1\tx\texon\t191\t210\t.\t+\t.\tID=exon:T9:1;Parent=T9;gene_id=ENSG00000111640.2;gene_name=GAPDH
"""


def table(**var) -> ad.AnnData:
    return ad.AnnData(np.ones((1, 3), dtype=np.float32), var=pd.DataFrame(var, index=list(IDS)))


def lengths(given, *, adata=None, vocabulary=None):
    return resolve_lengths(adata or table(), given, ids=IDS, vocabulary=vocabulary)


@pytest.mark.parametrize("compressed", [False, True])
def test_gtf_gives_the_union_of_exons(tmp_path, compressed):
    path = tmp_path / ("genes.gtf.gz" if compressed else "genes.gtf")
    path.write_bytes(gzip.compress(GTF.encode()) if compressed else GTF.encode())
    found = exon_lengths(path)
    # 101-250, 251-260 and 401; the copy on the Y chromosome does not count
    assert found.to_dict() == {"ENSG00000111640": 10, "ENSG00000141510": 161}
    np.testing.assert_array_equal(lengths(path).bp, [161, 10, np.nan])
    assert lengths(str(path)).source == path.name


def test_gff3_of_ensembl_and_gencode(tmp_path):
    path = tmp_path / "genes.gff3"
    path.write_text(GFF)
    assert exon_lengths(path).to_dict() == {"ENSG00000111640": 20, "ENSG00000141510": 100}


def test_union_agrees_with_counting_bases(tmp_path):
    rng = np.random.default_rng(0)
    lines, bases = [], {}
    for _ in range(300):
        gene, chromosome = f"ENSG{rng.integers(5):011d}", str(rng.integers(1, 3))
        start = int(rng.integers(1, 500))
        end = start + int(rng.integers(0, 40))
        lines.append(f'{chromosome}\tx\texon\t{start}\t{end}\t.\t+\t.\tgene_id "{gene}";\n')
        bases.setdefault(gene, set()).update((chromosome, base) for base in range(start, end + 1))
    (tmp_path / "a.gtf").write_text("".join(lines))
    assert exon_lengths(tmp_path / "a.gtf").to_dict() == {gene: len(own) for gene, own in bases.items()}


def test_truncated_and_foreign_files_are_refused(tmp_path):
    whole = gzip.compress((GTF * 100).encode())
    (tmp_path / "cut.gtf.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cut\.gtf\.gz is cut short or not an annotation file"):
        exon_lengths(tmp_path / "cut.gtf.gz")
    (tmp_path / "plain.gtf.gz").write_text(GTF)
    with pytest.raises(ValueError, match="not an annotation file"):
        exon_lengths(tmp_path / "plain.gtf.gz")
    (tmp_path / "genes.csv").write_text("gene,length\nA,3\n")
    with pytest.raises(ValueError, match="no exon with a gene_id"):
        exon_lengths(tmp_path / "genes.csv")


def test_default_is_the_vocabulary_then_the_table():
    known = gene_table()["length"]
    found = lengths(None)
    np.testing.assert_array_equal(found.bp, [known[IDS[0]], known[IDS[1]], np.nan])
    own = GeneVocabulary(IDS[[2, 0]], lengths=np.array([77.0, np.nan]), name="mine")
    found = lengths(None, vocabulary=own)
    np.testing.assert_array_equal(found.bp, [known[IDS[0]], known[IDS[1]], 77])
    assert found.source == "mine, then package table"


def test_var_column_series_and_mapping():
    column = lengths("bp", adata=table(bp=[1, 2, 3]))
    np.testing.assert_array_equal(column.bp, [1, 2, 3])
    assert column.source == "var['bp']"
    np.testing.assert_array_equal(lengths({f"{IDS[1]}.7": 5}).bp, [np.nan, 5, np.nan])
    np.testing.assert_array_equal(lengths(pd.Series([4, 5], index=IDS[[2, 0]])).bp, [5, np.nan, 4])


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ("nowhere", KeyError, "neither a var column nor a file; the columns are"),
        ([1, 2, 3], TypeError, "found list"),
        ({IDS[0]: 0}, ValueError, "must be positive, in bp; found 0"),
        ({IDS[0]: -5.0}, ValueError, "must be positive, in bp; found -5"),
        ({IDS[0]: np.inf}, ValueError, "must be positive"),
        ({IDS[0]: "long"}, TypeError, "must be numbers"),
        ({f"{IDS[0]}.1": 3, f"{IDS[0]}.2": 4}, ValueError, "lists genes twice"),
    ],
)
def test_bad_lengths(given, error, message):
    with pytest.raises(error, match=message):
        lengths(given)
