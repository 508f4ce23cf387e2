from __future__ import annotations

import dataclasses
import hashlib
import json
import logging

import pytest

import bulkformer_tl as bf
from bulkformer_tl import registry
from bulkformer_tl.registry import DownloadError, _download, _models, _sources

from .conftest import Page, sha256

NAME = "bulkformer-37M"
WEIGHTS, GRAPH = b"weights" * 100, b"graph" * 100


def entry(name, role, url, size=None, digest=None):
    return {"name": name, "role": role, "url": url, "bytes": size, "sha256": digest}


@pytest.fixture
def published(server, monkeypatch):
    """A model of three files: on a drive, in a record with MD5, and by address alone."""
    monkeypatch.setattr(_sources, "DRIVE", server.address + "/drive/{}?confirm=t")
    monkeypatch.setattr(_sources, "ZENODO", server.address + "/api/records/{}")
    files = (
        entry("model.pt", "weights", "https://drive.google.com/file/d/abc-D_1", len(WEIGHTS), sha256(WEIGHTS)),
        entry("graph.pt", "graph", "https://doi.org/10.5281/zenodo.42"),
        entry("genes.csv", "genes", f"{server.address}/genes.csv"),
        entry("esm2.pt", "protein", f"{server.address}/esm2.pt"),
    )
    server.pages["/drive/abc-D_1"] = Page(WEIGHTS)
    server.pages["/api/records/42"] = Page(record(server, GRAPH), kind="application/json")
    server.pages["/files/graph"] = Page(GRAPH)
    server.pages["/genes.csv"] = Page(b"ensembl_id\n")
    server.pages["/esm2.pt"] = Page(b"protein")
    return use(monkeypatch, files)


def use(monkeypatch, files):
    known = dataclasses.replace(registry.info(NAME), files=files)
    monkeypatch.setitem(_models._registry(), NAME, known)
    return known


def record(server, body, *, key="graph.pt", link=None, digest=None):
    checksum = "md5:" + (digest or hashlib.md5(body).hexdigest())
    link = link or f"{server.address}/files/graph"
    return json.dumps(
        {"files": [{"key": key, "size": len(body), "checksum": checksum, "links": {"self": link}}]}
    ).encode()


def statuses(**options):
    return {check.name: check.status for check in registry.verify(NAME, **options)}


def test_models_offers_it():
    assert bf.models.download is registry.download


def test_all_sources_together(published, server, caplog):
    with caplog.at_level(logging.INFO, logger="bulkformer_tl"):
        folder = registry.download(NAME)
    assert folder == bf.settings.cache_dir / "models" / NAME
    assert sorted(path.name for path in folder.iterdir()) == ["downloads.json", "genes.csv", "graph.pt", "model.pt"]
    assert (folder / "graph.pt").read_bytes() == GRAPH
    assert "graph.pt: md5 as published" in caplog.text
    assert (
        f"genes.csv: no primary source states its sha256; recorded {sha256(b'ensembl_id' + bytes([10]))}" in caplog.text
    )
    assert statuses() == {
        "model.pt": "verified",
        "graph.pt": "as recorded",
        "genes.csv": "as recorded",
        "esm2.pt": "absent",
    }
    assert all(check.ok for check in registry.verify(NAME))


def test_a_second_call_asks_nobody(published, server):
    registry.download(NAME)
    server.asked.clear()
    registry.download(NAME)
    assert server.asked == []


def test_protein_on_request(published):
    folder = registry.download(NAME, protein=True)
    assert (folder / "esm2.pt").read_bytes() == b"protein"


def test_another_folder(published, tmp_path):
    assert registry.download(NAME, folder=tmp_path / "here") == tmp_path / "here"
    assert statuses(folder=tmp_path / "here")["model.pt"] == "verified"
    assert not bf.settings.cache_dir.exists()


def test_what_arrived_stays_and_the_rest_is_named(published, server):
    server.pages["/drive/abc-D_1"] = Page(b"<html>Quota exceeded", kind="text/html")
    with pytest.raises(DownloadError) as caught:
        registry.download(NAME)
    message = str(caught.value)
    folder = bf.settings.cache_dir / "models" / NAME
    assert "model.pt: the drive's quota" in message
    assert "By hand: https://drive.google.com/file/d/abc-D_1" in message
    assert f"in {folder}, then run: bulkformer models verify {NAME} --folder {folder}" in message
    assert sorted(path.name for path in folder.iterdir()) == ["downloads.json", "genes.csv", "graph.pt"]
    (folder / "model.pt").write_bytes(WEIGHTS)
    assert registry.download(NAME) == folder


def test_files_put_there_by_hand_are_checked_and_recorded(published, server):
    folder = bf.settings.cache_dir / "models" / NAME
    folder.mkdir(parents=True)
    for name, body in (("model.pt", WEIGHTS), ("graph.pt", GRAPH), ("genes.csv", b"mine")):
        (folder / name).write_bytes(body)
    assert statuses()["genes.csv"] == "unknown"
    registry.download(NAME)
    assert server.asked == []
    assert statuses()["genes.csv"] == "as recorded"
    assert json.loads((folder / "downloads.json").read_text())["files"]["genes.csv"]["origin"] == "put there by hand"


@pytest.mark.parametrize(
    ("name", "body"), [("model.pt", WEIGHTS[:-1]), ("model.pt", WEIGHTS[::-1]), ("graph.pt", b"x")]
)
def test_a_changed_file_is_refused_not_replaced(published, name, body):
    folder = registry.download(NAME)
    (folder / name).write_bytes(body)
    assert statuses()[name] == "changed"
    with pytest.raises(DownloadError, match=f"{name} is there but is not the published file"):
        registry.download(NAME)
    assert (folder / name).read_bytes() == body


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key": "other.pt"}, r"holds \['other.pt'\], and no graph.pt"),
        ({"link": "http://elsewhere.org/graph"}, "points to another place"),
        ({"digest": "0" * 32}, "md5 [0-9a-f]+ instead of 0+"),
    ],
)
def test_records_that_do_not_fit(published, server, options, message):
    server.pages["/api/records/42"].body = record(server, GRAPH, **options)
    with pytest.raises(DownloadError, match=message):
        registry.download(NAME)


@pytest.mark.parametrize("body", [b"no json", b"[]", b'{"files": [{}]}', b'{"files": 3}'])
def test_records_of_another_form(published, server, body):
    server.pages["/api/records/42"].body = body
    with pytest.raises(DownloadError, match="unknown form"):
        registry.download(NAME)


def test_a_file_without_address(published, monkeypatch):
    use(monkeypatch, (entry("genes.csv", "genes", None),))
    with pytest.raises(DownloadError, match=r"no primary source states its address\. By hand: Google Drive"):
        registry.download(NAME)
    assert registry.place(NAME).is_dir()


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "a/b", "..", "", "a\\b"])
def test_names_do_not_escape(published, monkeypatch, server, name):
    use(monkeypatch, (entry(name, "weights", f"{server.address}/genes.csv"),))
    with pytest.raises(ValueError, match="no plain file name"):
        registry.download(NAME)
    assert server.asked == []


def test_damaged_record_of_downloads(published):
    folder = registry.download(NAME)
    (folder / "downloads.json").write_text("{")
    with pytest.raises(ValueError, match=r"downloads.json is not JSON .* delete it"):
        registry.verify(NAME)
    (folder / "downloads.json").write_text("[]")
    with pytest.raises(ValueError, match="does not list files"):
        registry.verify(NAME)


def test_verify_without_a_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"bf.models.download\('bulkformer-latest'\)"):
        registry.verify("bulkformer-latest")


def test_bundles_are_verified_by_their_manifest(tmp_path):
    (tmp_path / "genes.csv").write_bytes(b"genes")
    listed = {"genes.csv": {"bytes": 5, "sha256": sha256(b"genes")}, "config.json": {"bytes": 1, "sha256": "0"}}
    assert [check.status for check in registry.verify("bulkformer-mini", folder=tmp_path)] == ["absent"]
    (tmp_path / "manifest.json").write_text(json.dumps({"files": listed}))
    found = {check.name: check.status for check in registry.verify("bulkformer-mini", folder=tmp_path)}
    assert found == {"genes.csv": "verified", "config.json": "absent"}
    (tmp_path / "genes.csv").write_bytes(b"Genes")
    assert registry.verify("bulkformer-mini", folder=tmp_path)[1].status == "changed"
    (tmp_path / "manifest.json").write_text(json.dumps({"files": {"../x": {}}}))
    with pytest.raises(ValueError, match="no plain file name"):
        registry.verify("bulkformer-mini", folder=tmp_path)


def test_the_embedded_model_needs_no_download():
    assert registry.download("bulkformer-mini") == registry.locate("bulkformer-mini")


def test_nothing_is_downloaded_by_load(published, server):
    with pytest.raises(FileNotFoundError, match=r"bf.models.download\('bulkformer-37M'\)"):
        bf.models.load(NAME)
    _download.place(NAME).mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"bf.models.download\('bulkformer-37M'\)"):
        bf.models.load(NAME)
    assert server.asked == []
