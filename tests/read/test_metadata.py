from __future__ import annotations

import pandas as pd
import pytest

from bulkformer_tl._read import read

COUNTS = "gene,d1,d2,d3\nTP53,1,2,3\nGAPDH,4,5,6\n"


@pytest.fixture
def counts(tmp_path):
    path = tmp_path / "counts.csv"
    path.write_text(COUNTS)
    return path


@pytest.fixture
def samples(tmp_path):
    def write(text):
        path = tmp_path / "samples.csv"
        path.write_text(text)
        return path

    return write


def test_the_column_is_found_by_values(counts, samples):
    adata = read(counts, samples("number,run,age,tissue\n1,d3,30,lung\n2,d1,40,liver\n3,d2,,liver\n"))
    assert adata.obs_names.tolist() == ["d1", "d2", "d3"]
    assert adata.obs["tissue"].tolist() == ["liver", "liver", "lung"]
    assert adata.obs["age"].tolist()[::2] == [40, 30]
    assert list(adata.obs) == ["number", "age", "tissue"]
    report = adata.uns["read"]["metadata"]
    assert report | {"file": ""} == {
        "file": "",
        "column": "run",
        "trimmed": False,
        "n_matched": 3,
        "n_duplicated_rows": 0,
        "n_samples_without_metadata": 0,
        "n_metadata_without_sample": 0,
    }


def test_both_sides_that_do_not_match_are_reported(counts, samples, caplog):
    adata = read(counts, samples("run\tage\nd1\t40\nd9\t50\nd8\t60\n"))
    report = adata.uns["read"]["metadata"]
    assert report["n_matched"] == 1
    assert report["samples_without_metadata"] == ["d2", "d3"]
    assert report["metadata_without_sample"] == ["d9", "d8"]
    assert adata.obs["age"].isna().tolist() == [False, True, True]
    assert "2 samples_without_metadata" in caplog.text


def test_white_space_is_trimmed_only_where_needed(counts, samples):
    adata = read(counts, samples("run,age\n d1 ,40\nd2\t,50\nd3 ,60\n"))
    assert adata.obs["age"].tolist() == [40, 50, 60]
    assert adata.uns["read"]["metadata"]["trimmed"] is True


@pytest.mark.parametrize("index", [True, False])
def test_data_frame(counts, index):
    frame = pd.DataFrame({"run": ["d2", "d1", "d3"], "tissue": pd.Categorical(["a", "b", "a"])})
    frame = frame.set_index("run") if index else frame
    adata = read(counts, frame)
    assert adata.obs["tissue"].tolist() == ["b", "a", "a"]
    assert adata.obs["tissue"].dtype == "category"


def test_unnamed_index(counts):
    adata = read(counts, pd.DataFrame({"age": [1, 2, 3]}, index=["d1", "d2", "d3"]))
    assert adata.obs["age"].tolist() == [1, 2, 3]
    assert list(adata.obs) == ["age"]


def test_numbers_as_names_keep_their_zeros(tmp_path, samples):
    path = tmp_path / "counts.csv"
    path.write_text("gene,007,7\nTP53,1,2\nGAPDH,4,5\n")
    adata = read(path, samples("id,age\n7,70\n007,40\n"))
    assert adata.obs["age"].tolist() == [40, 70]


def test_equal_rows_are_merged_and_counted(counts, samples):
    adata = read(counts, samples("run,age\nd1,40\nd1,40\nd2,50\nd3,60\n"))
    assert adata.obs["age"].tolist() == [40, 50, 60]
    assert adata.uns["read"]["metadata"]["n_duplicated_rows"] == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("run,age\nx1,40\nx2,50\n", r"no column of .*Samples are called \['d1', 'd2', 'd3'\].*'run': \['x1', 'x2'\]"),
        ("run,age,sex\nd1,40,f\nd1,41,f\n", r"has 2 rows for the sample 'd1', which differ in \['age'\]; keep one row"),
        ("run,age\nd1,40,5\nd2,50\n", "line 2: 3 fields where the header has 2"),
        ("sample,age\nd1,40,f\nd2,50,m\n", "line 2: 3 fields where the header has 2"),
        ("run,age\nd1,40\nd2\n", "line 3: 1 fields where the header has 2"),
        ("run,age,age\nd1,40,41\n", r"the columns \['age'\] occur more than once"),
        ("", "is empty"),
    ],
)
def test_unsound_metadata_is_refused(counts, samples, text, message):
    with pytest.raises(ValueError, match=message):
        read(counts, samples(text))


def test_columns_of_the_file_are_not_overwritten(tmp_path, samples):
    path = tmp_path / "counts.csv"
    path.write_text("sample,tissue,TP53,GAPDH\nd1,liver,1,2\nd2,lung,3,4\n")
    with pytest.raises(ValueError, match=r"has the columns \['tissue'\], which adata.obs has from the file already"):
        read(path, samples("run,tissue\nd1,x\nd2,y\n"))


def test_other_kinds_are_refused(counts):
    with pytest.raises(TypeError, match="metadata must be a path or a DataFrame, found list"):
        read(counts, [1])
    with pytest.raises(FileNotFoundError, match=r"there is no file nowhere\.csv"):
        read(counts, "nowhere.csv")
