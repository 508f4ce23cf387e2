"""Make the package's gene table, ``src/bulkformer_tl/resources/genes.csv.gz``.

Run ``BULKFORMER_TL_DATA=<folder> python training/gene_table.py``; the same sources give the same bytes.
"""

from __future__ import annotations

import gzip
import io
import os
from pathlib import Path

import pandas as pd

TARGET = Path(__file__).parents[1] / "src" / "bulkformer_tl" / "resources" / "genes.csv.gz"


def gene_table(resources: Path) -> pd.DataFrame:
    """Join the Ensembl 109 annotation with the authors' lengths; a gene that has only a length is kept."""
    annotation = pd.read_csv(resources / "gene_annotation_ensembl109.csv.gz", dtype=str, keep_default_na=False)
    lengths = pd.read_csv(resources / "bulkformer_gene_length_df.csv.gz", dtype=str, keep_default_na=False)
    annotation = annotation.drop(columns="length").rename(columns={"chr": "chromosome"})
    table = annotation.merge(lengths.rename(columns={"ensg_id": "ensembl_id"}), on="ensembl_id", how="outer")
    columns = ["ensembl_id", "symbol", "length", "biotype", "chromosome", "entrez"]
    return table[columns].fillna("").sort_values("ensembl_id", ignore_index=True)


def write(table: pd.DataFrame, target: Path) -> None:
    """Write a CSV whose compressed bytes depend on the table alone."""
    text = table.to_csv(index=False, lineterminator="\n").encode()
    buffer = io.BytesIO()
    # neither the time nor the file's name goes into the gzip header
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, compresslevel=9, mtime=0) as stream:
        stream.write(text)
    part = target.with_name(target.name + ".part")
    part.write_bytes(buffer.getvalue())
    part.replace(target)


def main() -> None:
    folder = os.environ.get("BULKFORMER_TL_DATA")
    if not folder:
        message = "set BULKFORMER_TL_DATA to the folder that holds resources/"
        raise SystemExit(message)
    table = gene_table(Path(folder) / "resources")
    write(table, TARGET)
    known = table["symbol"] != ""
    print(f"{len(table):,} genes, {known.sum():,} with a symbol, {(table['length'] != '').sum():,} with a length")


if __name__ == "__main__":
    main()
