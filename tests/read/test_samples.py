"""Files of one sample each, alone and in folders."""

from __future__ import annotations

import gzip

import numpy as np
import pandas as pd
import pytest

from bulkformer_tl._read import read

GENES = ["ENSG00000141510.18", "ENSG00000111640.15", "ENSG00000075624.17"]
TX2GENE = pd.DataFrame({"tx": ["ENST01234561", "ENST01234562", "ENST01234563"], "gene": [GENES[0], GENES[0], GENES[1]]})


def put(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def star(counts) -> str:
    rows = [("N_unmapped", 9, 9, 9), ("N_multimapping", 8, 8, 8), ("N_noFeature", 7, 70, 7), ("N_ambiguous", 6, 3, 3)]
    rows += [(gene, *row) for gene, row in zip(GENES, counts, strict=True)]
    return "".join("\t".join(map(str, row)) + "\n" for row in rows)


def salmon(names, reads, tpm=(10.0, 30.0, 5.0), lengths=(100.0, 200.0, 300.0)) -> str:
    rows = zip(names, (150, 250, 350), lengths, tpm, reads, strict=True)
    body = "".join("\t".join(map(str, row)) + "\n" for row in rows)
    return f"Name\tLength\tEffectiveLength\tTPM\tNumReads\n{body}"


def rsem(reads) -> str:
    rows = [
        f"{g}\tENST1,ENST2\t1000.0\t{800.5 + i}\t{n}\t{2.0 * n}\t1.0\n"
        for i, (g, n) in enumerate(zip(GENES, reads, strict=True))
    ]
    return "gene_id\ttranscript_id(s)\tlength\teffective_length\texpected_count\tTPM\tFPKM\n" + "".join(rows)


def test_star(tmp_path):
    path = put(tmp_path / "s1_ReadsPerGene.out.tab", star([(10, 4, 6), (20, 0, 20), (0, 0, 0)]))
    adata = read(path)
    assert adata.obs_names.tolist() == ["s1"]
    assert adata.var_names.tolist() == GENES
    assert adata.X.tolist() == [[10, 20, 0]]
    assert adata.uns["read"]["layout"] == "star"
    assert adata.uns["read"]["dropped_rows"] == ["N_unmapped", "N_multimapping", "N_noFeature", "N_ambiguous"]
    assert read(path, strandedness="forward").X.tolist() == [[4, 0, 0]]
    reverse = read(path, strandedness="reverse")
    assert reverse.X.tolist() == [[6, 20, 0]]
    assert reverse.uns["read"]["strandedness"] == "reverse"


def test_folder_of_star(tmp_path):
    for name, count in (("b", 1), ("a", 2)):
        put(tmp_path / name / "ReadsPerGene.out.tab", star([(count, 0, 0)] * 3))
        put(tmp_path / name / "Log.final.out", "Uniquely mapped reads % |\t90%\n")
        put(tmp_path / name / "SJ.out.tab", "chr1\t14830\t14969\t2\t2\t1\t0\t3\t35\n" * 3)
        put(tmp_path / name / "Aligned.out.bam", b"BAM\x01\x00\x00")
    adata = read(tmp_path)
    assert adata.obs_names.tolist() == ["a", "b"]
    assert adata.X.tolist() == [[2, 2, 2], [1, 1, 1]]
    assert adata.X.dtype == np.int32
    assert adata.uns["read"]["n_files"] == 2
    assert adata.uns["read"]["n_files_left_aside"] == 6
    assert "a/SJ.out.tab" in adata.uns["read"]["files_left_aside"]


def test_htseq(tmp_path, caplog):
    caplog.set_level("INFO")
    text = "".join(f"{gene}\t{i}\n" for i, gene in enumerate(GENES)) + "__no_feature\t99\n__ambiguous\t5\n"
    put(tmp_path / "s1.htseq.counts.gz", gzip.compress(text.encode()))
    put(tmp_path / "s2.htseq.counts", text)
    adata = read(tmp_path)
    assert adata.obs_names.tolist() == ["s1", "s2"]
    assert adata.X.tolist() == [[0, 1, 2]] * 2
    assert adata.uns["read"]["dropped_rows"] == ["__no_feature", "__ambiguous"]
    assert "count reads without a gene and were dropped" in caplog.text


def test_two_columns_without_header(tmp_path):
    path = put(tmp_path / "s1.tsv", "".join(f"{gene}\t{i}\n" for i, gene in enumerate(GENES)))
    with pytest.raises(ValueError, match=r"has no header: line 1 is .*add a header such as 'gene'"):
        read(path)


def test_salmon_genes(tmp_path):
    adata = read(put(tmp_path / "s1" / "quant.genes.sf", salmon(GENES, (7.5, 2.0, 0.0))))
    assert adata.obs_names.tolist() == ["s1"]
    assert adata.X.tolist() == [[7.5, 2.0, 0.0]]
    assert adata.layers["tpm"].tolist() == [[10, 30, 5]]
    assert adata.layers["effective_length"].tolist() == [[100, 200, 300]]
    assert adata.uns["read"]["layout"] == "salmon"


def test_salmon_transcripts_are_summed(tmp_path):
    path = put(tmp_path / "s1" / "quant.sf", salmon(TX2GENE["tx"], (7.5, 2.0, 4.0)))
    put(tmp_path / "tx2gene.tsv", TX2GENE.to_csv(sep="\t", index=False))
    for mapping in (TX2GENE, TX2GENE[["gene", "tx"]], tmp_path / "tx2gene.tsv"):
        adata = read(path, tx2gene=mapping)
        assert adata.var_names.tolist() == GENES[:2]
        assert adata.X.tolist() == [[9.5, 4.0]]
        assert adata.layers["tpm"].tolist() == [[40, 5]]
        # (10 * 100 + 30 * 200) / 40
        assert adata.layers["effective_length"].tolist() == [[175, 300]]


def test_effective_length_of_a_silent_gene_is_the_mean(tmp_path):
    path = put(tmp_path / "s1" / "quant.sf", salmon(TX2GENE["tx"], (0, 0, 4), tpm=(0, 0, 5)))
    assert read(path, tx2gene=TX2GENE).layers["effective_length"].tolist() == [[150, 300]]


def test_versions_of_transcripts_may_differ(tmp_path, caplog):
    path = put(tmp_path / "s1.sf", salmon([f"{tx}.9" for tx in TX2GENE["tx"]], (1, 2, 3)))
    adata = read(path, tx2gene=TX2GENE.iloc[:2].assign(tx=["ENST01234561.2", "ENST01234562.9"]))
    assert adata.X.tolist() == [[3]]
    assert adata.uns["read"]["n_transcripts_without_gene"] == 1
    assert "1 of 3 transcripts, 0.5 of the reads, have no gene" in caplog.text


def test_transcripts_need_genes(tmp_path):
    path = put(tmp_path / "s1" / "quant.sf", salmon(TX2GENE["tx"], (1, 2, 3)))
    with pytest.raises(
        ValueError, match=r"quant.sf counts transcripts \('ENST01234561' \.\.\.\), not genes; pass tx2gene="
    ):
        read(path)
    with pytest.raises(ValueError, match=r"tx2gene knows none of the transcripts .*'ENST01234561'.*'ENST09'"):
        read(path, tx2gene=pd.DataFrame({"tx": ["ENST09"], "gene": ["ENSG00000141510"]}))
    with pytest.raises(ValueError, match=r"gives the transcript 'ENST01234561' to several genes: \['A', 'B'\]"):
        read(path, tx2gene=pd.DataFrame({"tx": ["ENST01234561"] * 2, "gene": ["A", "B"]}))
    with pytest.raises(ValueError, match=r"needs a column of transcripts and one of genes, found the columns \['tx'\]"):
        read(path, tx2gene=TX2GENE[["tx"]])
    with pytest.raises(TypeError, match="tx2gene must be a path or a DataFrame, found dict"):
        read(path, tx2gene={})


def test_gencode_names_carry_the_gene(tmp_path):
    names = [f"{tx}|{gene}|OTT|x|SYMBOL|" for tx, gene in zip(TX2GENE["tx"], TX2GENE["gene"], strict=True)]
    adata = read(put(tmp_path / "s1" / "quant.sf", salmon(names, (1, 2, 3))))
    assert adata.var_names.tolist() == GENES[:2]
    assert adata.X.tolist() == [[3, 3]]


def test_folder_of_salmon_takes_genes_unless_told_the_mapping(tmp_path):
    for sample in ("s1", "s2"):
        put(tmp_path / sample / "quant.sf", salmon(TX2GENE["tx"], (1, 2, 3)))
        put(tmp_path / sample / "quant.genes.sf", salmon(GENES, (4, 5, 6)))
    assert read(tmp_path).X.tolist() == [[4, 5, 6]] * 2
    summed = read(tmp_path, tx2gene=TX2GENE)
    assert summed.X.tolist() == [[3, 3]] * 2
    assert summed.layers["effective_length"].shape == (2, 2)


def test_kallisto(tmp_path):
    rows = "".join(f"{tx}\t150\t100\t{i}\t{i}.5\n" for i, tx in enumerate(TX2GENE["tx"]))
    path = put(tmp_path / "s1" / "abundance.tsv", f"target_id\tlength\teff_length\test_counts\ttpm\n{rows}")
    adata = read(path, tx2gene=TX2GENE)
    assert adata.obs_names.tolist() == ["s1"]
    assert adata.X.tolist() == [[1, 2]]


def test_folder_of_rsem(tmp_path):
    put(tmp_path / "s1.genes.results", rsem((1.5, 2, 3)))
    put(tmp_path / "s2.genes.results.gz", gzip.compress(rsem((4, 5, 6.25)).encode()))
    put(tmp_path / "samples.csv", "sample,age\ns1,40\ns2,50\n")
    adata = read(tmp_path, metadata=tmp_path / "samples.csv")
    assert adata.obs_names.tolist() == ["s1", "s2"]
    assert adata.X.tolist() == [[1.5, 2, 3], [4, 5, 6.25]]
    assert adata.layers["tpm"][1].tolist() == [8, 10, 12.5]
    assert adata.layers["effective_length"][0].tolist() == [800.5, 801.5, 802.5]
    assert adata.obs["age"].tolist() == [40, 50]


def test_rsem_isoforms_know_their_genes(tmp_path):
    text = "transcript_id\tgene_id\tlength\teffective_length\texpected_count\tTPM\tFPKM\tIsoPct\n"
    text += f"ENST01234561\t{GENES[0]}\t10\t5\t1\t2\t3\t50\nENST01234562\t{GENES[0]}\t10\t5\t1.5\t2\t3\t50\n"
    adata = read(put(tmp_path / "s1.isoforms.results", text))
    assert adata.var_names.tolist() == GENES[:1]
    assert adata.X.tolist() == [[2.5]]


def test_gdc(tmp_path):
    header = (
        "gene_id\tgene_name\tgene_type\tunstranded\tstranded_first\tstranded_second\ttpm_unstranded\tfpkm_unstranded"
    )
    rows = ["N_unmapped\t\t\t5\t5\t5\t\t", f"{GENES[0]}\tTP53\tprotein_coding\t10\t4\t6\t1.5\t1.0"]
    text = "\n".join(["# gene-model: GENCODE v36", header, *rows, ""])
    adata = read(put(tmp_path / "x.rna_seq.augmented_star_gene_counts.tsv", text), strandedness="reverse")
    assert adata.obs_names.tolist() == ["x"]
    assert adata.X.tolist() == [[6]]
    assert adata.layers["tpm"].tolist() == [[1.5]]
    assert adata.var["symbol"].tolist() == ["TP53"]
    assert adata.uns["read"]["dropped_rows"] == ["N_unmapped"]


def test_genes_that_a_file_lacks_are_missing(tmp_path, caplog):
    put(tmp_path / "a.csv", "gene,symbol,s1\nENSG00000141510,TP53,1\nENSG00000111640,GAPDH,2\n")
    put(tmp_path / "b.csv", "gene,symbol,s2\nENSG00000111640,GAPDH,3\nENSG00000075624,ACTB,0\n")
    adata = read(tmp_path)
    assert adata.var_names.tolist() == ["ENSG00000141510", "ENSG00000111640", "ENSG00000075624"]
    np.testing.assert_array_equal(adata.X, [[1, 2, np.nan], [np.nan, 3, 0]])
    assert adata.var["symbol"].tolist() == ["TP53", "GAPDH", "ACTB"]
    assert adata.uns["read"]["n_files_lacking_genes"] == 2
    assert "the genes that 2 files lack are NaN there" in caplog.text


def test_files_that_cannot_be_joined(tmp_path):
    put(tmp_path / "a.csv", "gene,s1\nTP53,1\nTP53,2\n")
    put(tmp_path / "b.csv", "gene,s2\nTP53,3\n")
    with pytest.raises(ValueError, match=r"a.csv names the gene 'TP53' more than once.*bf.pp.merge_duplicates"):
        read(tmp_path)
    put(tmp_path / "a.csv", "gene,s2\nTP53,1\n")
    with pytest.raises(ValueError, match=r"a.csv and .*b.csv both hold a sample 's2'; rename one"):
        read(tmp_path)


def test_mixed_and_empty_folders(tmp_path):
    with pytest.raises(ValueError, match="holds no file with expression that can be recognised"):
        read(tmp_path)
    put(tmp_path / "a.genes.results", rsem((1, 2, 3)))
    put(tmp_path / "b_ReadsPerGene.out.tab", star([(1, 0, 0)] * 3))
    with pytest.raises(ValueError, match=r"mixes layouts, .*'rsem': \(1, 'a.genes.results'\).*a folder of its own"):
        read(tmp_path)


def test_links_out_of_a_folder_are_not_followed(tmp_path, caplog):
    put(tmp_path / "elsewhere" / "b.csv", "gene,s2\nTP53,3\n")
    put(tmp_path / "in" / "a.csv", "gene,s1\nTP53,1\n")
    (tmp_path / "in" / "b.csv").symlink_to(tmp_path / "elsewhere" / "b.csv")
    (tmp_path / "in" / "more").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    adata = read(tmp_path / "in")
    assert adata.obs_names.tolist() == ["s1"]
    assert "b.csv is a link that leads out of" in caplog.text


def test_what_was_read_can_be_written(tmp_path):
    put(tmp_path / "s1" / "quant.sf", salmon(TX2GENE["tx"], (1, 2, 3)))
    put(tmp_path / "notes.txt", "nothing\n")
    adata = read(tmp_path, tx2gene=TX2GENE.iloc[:2])
    adata.write_h5ad(tmp_path / "out.h5ad")
    adata.write_zarr(tmp_path / "out.zarr")
    assert read(tmp_path / "out.h5ad").X.tolist() == [[3]]
