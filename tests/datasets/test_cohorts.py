from __future__ import annotations

import gzip
import hashlib
import re
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest

from bulkformer_tl._read import read
from bulkformer_tl._settings import settings
from bulkformer_tl.datasets import _cohorts
from bulkformer_tl.datasets._cohorts import cohorts, fetch

CONTENT = gzip.compress(b"gene,d1,d2\nTP53,1,2\nGAPDH,4,5\n")
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def served(tmp_path):
    """Serve a folder on this machine, for as long as a test lasts."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "counts.csv.gz").write_bytes(CONTENT)
    (folder / "page.csv").write_bytes(b"\n<!DOCTYPE html><html>Sign in</html>")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join(timeout=5)


@pytest.fixture
def registry(monkeypatch, tmp_path):
    """Register one cohort, "mine", and put the cache into a folder of the test."""

    def register(**entry):
        blank = dict.fromkeys(_cohorts._COLUMNS) | {"source": "https://example.org/mine", "file": "counts.csv.gz"}
        monkeypatch.setattr(_cohorts, "_registry", lambda: {"mine": blank | entry})

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with settings.override(cache_dir=tmp_path / "cache"):
        yield register


def cached(tmp_path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache").rglob("*") if path.is_file())


def test_registry_is_complete_and_plausible():
    table = cohorts()
    assert table.index.is_unique
    assert list(table.index) == sorted(table.index)
    assert list(table.columns) == _cohorts._COLUMNS
    assert table[["title", "unit", "source", "file", "url"]].notna().all(axis=None)
    assert table["url"].is_unique
    for name, entry in _cohorts._registry().items():
        assert set(entry) == set(_cohorts._COLUMNS), name
        assert urlsplit(entry["source"]).scheme == urlsplit(entry["url"]).scheme == "https", name
        assert re.fullmatch(r"[\w.-]+", entry["file"]), name
        assert unquote(entry["url"]).endswith(entry["file"]), name


def test_checksums_have_a_source_and_their_absence_a_reason():
    table = cohorts()
    stated = table["sha256"].notna()
    assert stated.sum() >= 8
    assert table.loc[stated, "sha256"].str.fullmatch(r"[0-9a-f]{64}").all()
    assert table.loc[stated, "sha256"].is_unique
    assert table.loc[stated, "checksum_source"].str.startswith("https://").all()
    assert table.loc[~stated, "checksum_source"].isna().all()
    assert table.loc[~stated, "note"].str.contains("no checksum").all()


def test_git_lfs_pointers_state_the_very_file():
    table = cohorts()
    pointed = table[table["url"].str.contains("media.githubusercontent.com")]
    assert len(pointed)
    for name, entry in pointed.iterrows():
        at = entry["url"].removeprefix("https://media.githubusercontent.com/media/")
        assert entry["checksum_source"] == f"https://raw.githubusercontent.com/{at}", name
        assert re.fullmatch(r"[0-9a-f]{40}", at.split("/")[2]), name
        assert entry["bytes"] > 1e6, name


def test_archives_say_where_the_samples_are():
    table = cohorts()
    archives = table[table["file"].str.endswith(".tar.gz")]
    assert len(archives)
    for name, entry in archives.iterrows():
        assert f"an archive: the samples are under {entry['file'].split('_')[0]}/inst/extdata/" in entry["note"], name


def test_unknown_facts_are_none():
    assert cohorts().loc["cardiomyocytes", ["sha256", "checksum_source", "bytes"]].tolist() == [None, None, None]


def test_layout_of_most_files_is_read(tmp_path):
    path = tmp_path / "data_mrna_seq_read_counts.txt"
    path.write_text(
        "Hugo_Symbol\tEntrez_Gene_Id\tTCGA-06-0125-01\tTCGA-06-0130-01\nTP53\t7157\t12\t0\nEGFR\t1956\t3\t4\n"
    )
    adata = read(path)
    assert list(adata.obs_names) == ["TCGA-06-0125-01", "TCGA-06-0130-01"]
    assert list(adata.var_names) == ["TP53", "EGFR"]
    assert adata.X.tolist() == [[12, 3], [0, 4]]


def test_archive_is_unpacked_and_read(tmp_path, served, registry):
    header = "gene_id\ttranscript_id(s)\tlength\teffective_length\texpected_count\tTPM\tFPKM\n"
    for name, count in (("ERR1", 5), ("ERR2", 7.5)):
        folder = tmp_path / "package" / "inst/extdata/rsem" / name
        folder.mkdir(parents=True)
        (folder / f"{name}.genes.results").write_text(f"{header}ENSG00000141510.11\tt\t9\t8\t{count}\t3\t2\n")
    with tarfile.open(tmp_path / "served" / "package_1.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "package", "package")
    content = (tmp_path / "served" / "package_1.tar.gz").read_bytes()
    registry(file="package_1.tar.gz", url=f"{served}/package_1.tar.gz", sha256=hashlib.sha256(content).hexdigest())
    path = fetch("mine")
    with tarfile.open(path) as archive:
        archive.extractall(path.parent, filter="data")
    adata = read(path.parent / "package/inst/extdata/rsem")
    assert adata.obs_names.tolist() == ["ERR1", "ERR2"]
    assert adata.X.tolist() == [[5], [7.5]]


def test_download_is_verified_cached_and_readable(served, registry, tmp_path):
    registry(url=f"{served}/counts.csv.gz", sha256=SHA256, bytes=len(CONTENT))
    path = fetch("mine")
    assert path == tmp_path / "cache" / "cohorts" / "mine" / "counts.csv.gz"
    assert read(path).X.tolist() == [[1, 4], [2, 5]]
    registry(url="http://127.0.0.1:9/gone", sha256=SHA256)
    assert fetch("mine") == path
    assert cached(tmp_path) == ["counts.csv.gz"]


def test_file_url(registry, tmp_path):
    (tmp_path / "source.gz").write_bytes(CONTENT)
    registry(url=(tmp_path / "source.gz").as_uri(), sha256=SHA256)
    assert fetch("mine").read_bytes() == CONTENT


@pytest.mark.parametrize("stated", ["registry", "caller"])
def test_wrong_checksum_is_refused_and_nothing_is_left(served, registry, tmp_path, stated):
    wrong = "0" * 64
    registry(url=f"{served}/counts.csv.gz", sha256=wrong if stated == "registry" else None)
    with pytest.raises(
        ValueError, match=f"has the sha256 {SHA256}, expected 0000.*thrown away; see https://example.org"
    ):
        fetch("mine", sha256=None if stated == "registry" else wrong)
    assert cached(tmp_path) == []
    assert not (tmp_path / "cache" / "cohorts" / "mine").exists()


def test_checksum_of_the_caller(served, registry):
    registry(url=f"{served}/counts.csv.gz")
    assert fetch("mine", sha256=SHA256.upper()).is_file()
    registry(url=f"{served}/counts.csv.gz", sha256=SHA256)
    with pytest.raises(ValueError, match=f"the registry states the sha256 {SHA256} of mine, not ffff"):
        fetch("mine", sha256="f" * 64)


def test_unverifiable_downloads_need_consent(served, registry, tmp_path, caplog):
    caplog.set_level("INFO")
    registry(url=f"{served}/counts.csv.gz")
    with pytest.raises(ValueError, match=r"no source states the sha256 of mine.*verify=False to take what"):
        fetch("mine")
    assert cached(tmp_path) == []
    fetch("mine", verify=False)
    assert f"sha256 {SHA256}" in caplog.text


@pytest.mark.parametrize(("size", "message"), [(10, "sends more than the 10 bytes"), (10**6, "of the 1,000,000 bytes")])
def test_wrong_size_is_refused(served, registry, tmp_path, size, message):
    registry(url=f"{served}/counts.csv.gz", sha256=SHA256, bytes=size)
    with pytest.raises(ValueError, match=message):
        fetch("mine")
    assert cached(tmp_path) == []


def test_a_web_page_is_no_data(served, registry, tmp_path):
    registry(url=f"{served}/page.csv")
    with pytest.raises(ValueError, match="the server sent a web page instead of mine"):
        fetch("mine", verify=False)
    assert cached(tmp_path) == []


@pytest.mark.parametrize("url", ["{served}/absent.csv", "http://127.0.0.1:9/counts.csv.gz"])
def test_offline_names_the_landing_page(served, registry, tmp_path, url):
    registry(url=url.format(served=served), sha256=SHA256)
    message = r"mine could not be downloaded from .*get the file from https://example\.org/mine and put it at .*counts"
    with pytest.raises(FileNotFoundError, match=message):
        fetch("mine")
    assert cached(tmp_path) == []


def test_changed_cache_is_noticed(registry, tmp_path):
    folder = tmp_path / "cache" / "cohorts" / "mine"
    folder.mkdir(parents=True)
    (folder / "counts.csv.gz").write_bytes(b"something else")
    registry(url="http://127.0.0.1:9/gone", sha256=SHA256)
    with pytest.raises(ValueError, match=r"which was put there before, has the sha256 .*delete it and call again"):
        fetch("mine")


def test_other_schemes_and_names(registry):
    registry(url="ftp://example.org/x", sha256=SHA256)
    with pytest.raises(ValueError, match=r"the URL of mine, 'ftp://example\.org/x', is neither http nor a file"):
        fetch("mine")
    with pytest.raises(KeyError, match=r"no cohort is called 'yours'; the cohorts are \['mine'\]"):
        fetch("yours")
