"""``bulkformer models``, with a local server where something is downloaded."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

import bulkformer_tl as bf
from bulkformer_tl import registry
from bulkformer_tl.registry import _models

NAME = "bulkformer-latest"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        """Keep quiet."""


@pytest.fixture
def published(bundle, monkeypatch):
    """The tiny bundle as the published model, on a local server."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(bundle)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    known = registry.info(NAME)
    files = tuple(
        {
            **file,
            "url": f"http://127.0.0.1:{server.server_port}/{file['name']}",
            "bytes": (bundle / file["name"]).stat().st_size,
            "sha256": hashlib.sha256((bundle / file["name"]).read_bytes()).hexdigest(),
        }
        for file in known.files
    )
    monkeypatch.setitem(_models._registry(), NAME, dataclasses.replace(known, files=files, n_genes=96, width=32))
    yield files
    server.shutdown()
    server.server_close()
    thread.join()


def test_list(run):
    ended = run("models", "list")
    assert ended.code == 0
    assert [line.split()[0] for line in ended.out.splitlines()[1:]] == registry.available()
    entries = {entry["name"]: entry for entry in run("models", "list", "--json").json["models"]}
    latest = entries[NAME]
    assert latest["bytes"] == sum(file["bytes"] for file in registry.info(NAME).files)
    assert latest["here"] is False
    assert {"unit", "denominator", "corpus", "licence", "citation", "source"} <= set(latest)
    assert entries["bulkformer-37M"]["bytes"] is None


def test_get_verify_and_use(run, published, counts):
    ended = run("models", "get", NAME, "--json")
    assert ended.code == 0, ended.err
    assert [file["status"] for file in ended.json["files"]] == ["verified"] * 6
    assert "downloading model.pt" in ended.err
    assert run("models", "verify", NAME).code == 0
    here = {entry["name"]: entry["here"] for entry in run("models", "list", "--json").json["models"]}
    assert here[NAME] is True
    assert run("embed", counts, "--counts", "--model", NAME, "-o", "o.csv").code == 0


def test_get_into_a_folder(run, published, folder):
    assert run("models", "get", NAME, "--folder", "here").code == 0
    ended = run("models", "verify", NAME, "--folder", "here")
    assert ended.out.splitlines()[0] == "here"
    assert "verified    model.pt: size and sha256 as published" in ended.out


def test_verify_changed_and_absent(run, published, folder):
    run("models", "get", NAME, "--folder", "here")
    (folder / "here" / "gene_vocab.csv").unlink()
    assert run("models", "verify", NAME, "--folder", "here").code == 4
    (folder / "here" / "model.pt").write_bytes(b"other")
    ended = run("models", "verify", NAME, "--folder", "here", "--json")
    assert ended.code == 5
    assert ended.json["ok"] is False
    assert {file["name"]: file["status"] for file in ended.json["files"]}["model.pt"] == "changed"


def test_get_says_how_to_do_it_by_hand(run, published, monkeypatch, folder):
    lost = tuple({**file, "url": file["url"] + ".gone"} if file["name"] == "model.pt" else file for file in published)
    monkeypatch.setitem(_models._registry(), NAME, dataclasses.replace(registry.info(NAME), files=lost))
    ended = run("models", "get", NAME, "--folder", "here")
    assert ended.code == 5
    assert "model.pt.gone answers 404" in ended.err
    assert f"in here, then run: bulkformer models verify {NAME} --folder here" in ended.err
    assert (folder / "here" / "gene_vocab.csv").is_file()


def test_convert(run, bundle, golden, folder):
    ended = run("models", "convert", bundle, "new", "--json")
    assert ended.code == 0
    assert ended.json["family"] == "g3"
    before, after = bf.models.load(bundle, device="cpu"), bf.models.load("new", device="cpu")
    values = np.random.default_rng(0).uniform(0, 5, (2, 96)).astype(np.float32)
    np.testing.assert_array_equal(before.encode(values).pooled, after.encode(values).pooled)
    ended = run("models", "convert", bundle, "new")
    assert ended.code == 2
    assert "holds something already" in ended.err


def test_convert_a_checkpoint_needs_its_files(run, bundle):
    ended = run("models", "convert", bundle / "model.pt", "new")
    assert ended.code == 3
    assert "--graph" in ended.err
    assert "--genes" in ended.err
