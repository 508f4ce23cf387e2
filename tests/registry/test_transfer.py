"""Downloads against a local server that breaks off, refuses and lies."""

from __future__ import annotations

import fcntl
import hashlib
import logging

import numpy as np
import pytest

from bulkformer_tl import settings
from bulkformer_tl.registry import DownloadError
from bulkformer_tl.registry._transfer import Source, check_scheme, fetch

from .conftest import Page, sha256

BODY = np.random.default_rng(0).bytes(600_000)


@pytest.fixture
def target(tmp_path):
    return tmp_path / "models" / "model.pt"


def files(target):
    return sorted(path.name for path in target.parent.iterdir())


def test_a_file_arrives_and_nothing_else(server, target):
    server.pages["/model.pt"] = Page(BODY)
    found = fetch(Source(f"{server.address}/model.pt", len(BODY), {"sha256": sha256(BODY)}), target)
    assert target.read_bytes() == BODY
    assert found == sha256(BODY)
    assert files(target) == ["model.pt"]


def test_a_dropped_connection_is_resumed_where_it_broke(server, target, caplog):
    server.pages["/model.pt"] = Page(BODY, cuts=[250_000])
    with caplog.at_level(logging.INFO, logger="bulkformer_tl"):
        fetch(Source(f"{server.address}/model.pt"), target)
    assert target.read_bytes() == BODY
    assert server.asked == [("/model.pt", None), ("/model.pt", "bytes=250000-")]
    assert "broke after 250,000 bytes" in caplog.text


def test_a_later_call_goes_on_too(server, target, monkeypatch):
    page = server.pages["/model.pt"] = Page(BODY, cuts=[100_000])
    monkeypatch.setattr("bulkformer_tl.registry._transfer.ATTEMPTS", 1)
    page.cuts += [0]
    with pytest.raises(DownloadError, match=r"does not answer .* 100,000 bytes are kept"):
        fetch(Source(f"{server.address}/model.pt"), target)
    assert not target.exists()
    fetch(Source(f"{server.address}/model.pt"), target)
    assert target.read_bytes() == BODY
    assert server.asked[-1] == ("/model.pt", "bytes=100000-")
    assert files(target) == ["model.pt"]


def test_a_file_that_changed_meanwhile_starts_anew(server, target):
    """``If-Range`` keeps halves of two versions apart."""
    page = server.pages["/model.pt"] = Page(b"old" * 1000, cuts=[1000, 0, 0, 0, 0, 0])
    with pytest.raises(DownloadError, match="1,000 bytes are kept"):
        fetch(Source(f"{server.address}/model.pt"), target)
    page.body, page.etag, page.cuts = b"new" * 1000, '"v2"', []
    fetch(Source(f"{server.address}/model.pt"), target)
    assert target.read_bytes() == b"new" * 1000


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_validator_only_a_known_hash_allows_to_resume(server, target, etag):
    server.pages["/model.pt"] = Page(BODY, etag=etag, cuts=[1000])
    fetch(Source(f"{server.address}/model.pt"), target)
    assert server.asked[-1] == ("/model.pt", None)
    target.unlink()
    server.pages["/model.pt"].cuts = [1000]
    fetch(Source(f"{server.address}/model.pt", hashes={"md5": hashlib.md5(BODY).hexdigest()}), target)
    assert server.asked[-1] == ("/model.pt", "bytes=1000-")
    assert target.read_bytes() == BODY


def test_a_server_without_ranges_sends_all_again(server, target):
    server.pages["/model.pt"] = Page(BODY, ranges=False, cuts=[1000])
    fetch(Source(f"{server.address}/model.pt"), target)
    assert target.read_bytes() == BODY


def test_endless_breaking_ends(server, target):
    server.pages["/model.pt"] = Page(BODY, ranges=False, cuts=[1000] * 50)
    with pytest.raises(DownloadError, match="does not answer"):
        fetch(Source(f"{server.address}/model.pt"), target)
    assert len(server.asked) < 10


def test_a_part_that_is_longer_than_the_file_starts_anew(server, target):
    page = server.pages["/model.pt"] = Page(BODY, cuts=[5000, 0, 0, 0, 0, 0])
    with pytest.raises(DownloadError):
        fetch(Source(f"{server.address}/model.pt"), target)
    page.body, page.cuts = BODY[:100], []
    fetch(Source(f"{server.address}/model.pt"), target)
    assert target.read_bytes() == BODY[:100]


@pytest.mark.parametrize(
    ("page", "message"),
    [
        (Page(b"<!DOCTYPE html><p>Quota exceeded</p>", kind="text/html; charset=utf-8"), "quota .* 24 hours"),
        (Page(b"<html>Too many users have viewed this file", states_length=False), "quota"),
        (Page(b"<html>Sign in to continue", kind="text/html"), "asks to sign in"),
        (Page(b"  \n<html>anything", states_length=False), "web page instead of the file"),
        (Page(b"", status=403), "403 .*access is denied"),
        (Page(b"", status=404), "404 .*no longer there"),
        (Page(b"", status=429), "429 .*refuses"),
        (Page(b"", status=503), "does not answer"),
        (Page(b"x" * 11), "offers 11 bytes instead of 10"),
        (Page(b"x" * 11, states_length=False), "more than 10 bytes"),
        (Page(b"y" * 10), "sha256 [0-9a-f]+ instead of"),
        (Page(b"", status=302, location="ftp://127.0.0.1/x"), "not followed|does not answer"),
    ],
)
def test_refusals_say_why_and_leave_nothing(server, target, page, message):
    server.pages["/file"] = page
    with pytest.raises(DownloadError, match=message):
        fetch(Source(f"{server.address}/file", 10, {"sha256": sha256(b"x" * 10)}), target)
    assert files(target) == []


def test_nobody_there(target):
    with pytest.raises(DownloadError, match="does not answer"):
        fetch(Source("http://127.0.0.1:9/file"), target)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://somewhere/file", "data:,hello"])
def test_only_the_web(url, target):
    with pytest.raises(DownloadError, match="not http or https"):
        fetch(Source(url), target)


def test_redirects_do_not_leave_encryption():
    check_scheme("https://a.org", encrypted=True)
    with pytest.raises(DownloadError, match="not https"):
        check_scheme("http://a.org", encrypted=True)


def test_two_processes_do_not_write_one_file(server, target):
    server.pages["/model.pt"] = Page(BODY)
    target.parent.mkdir()
    with (target.parent / ".model.pt.part").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(DownloadError, match="another process"):
            fetch(Source(f"{server.address}/model.pt"), target)
    assert not server.asked


def test_progress_obeys_settings(server, target, capsys):
    server.pages["/model.pt"] = Page(BODY)
    fetch(Source(f"{server.address}/model.pt"), target)
    assert capsys.readouterr().err == ""
    with settings.override(progress=True):
        fetch(Source(f"{server.address}/model.pt"), target)
    assert "model.pt" in capsys.readouterr().err
