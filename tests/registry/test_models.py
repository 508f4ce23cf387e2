from __future__ import annotations

import re

import pytest

from bulkformer_tl import registry, settings


@pytest.mark.parametrize("name", registry.available())
def test_entries_state_what_a_user_asks(name):
    known = registry.info(name)
    assert known.unit == "log_tpm"
    assert known.denominator in {"all", "vocabulary"}
    assert known.corpus
    assert known.licence
    assert known.source
    for file in known.files:
        assert set(file) == {"name", "role", "url", "bytes", "sha256"}
        assert re.fullmatch(r"[\w.-]+", file["name"])
        assert file["url"] is None or file["url"].startswith(
            ("https://drive.google.com/file/d/", "https://doi.org/10.")
        )
        assert file["bytes"] is None or file["bytes"] > 0
        assert file["sha256"] is None or re.fullmatch(r"[0-9a-f]{64}", file["sha256"])


def test_published_sizes_of_the_latest_model():
    known = registry.info("bulkformer-latest")
    assert {file["name"]: file["bytes"] for file in known.files}["model.pt"] == 406_165_934
    assert all(file["sha256"] for file in known.files)


def test_places(tmp_path):
    with settings.override(cache_dir=tmp_path):
        assert registry.place("bulkformer-37M") == tmp_path / "models" / "bulkformer-37M"
        assert registry.place("bulkformer-mini").name == "bulkformer-mini"
        assert registry.locate("bulkformer-mini").is_dir()


def test_locate_names_the_call_and_the_manual_way(tmp_path):
    with (
        settings.override(cache_dir=tmp_path),
        pytest.raises(FileNotFoundError, match=r"Get model.pt.*bf.models.download\('bulkformer-latest'\).*by hand"),
    ):
        registry.locate("bulkformer-latest")


@pytest.mark.parametrize("name", ["bulkformer-1B", "../bulkformer-37M", "/etc", ""])
def test_unknown_names_never_become_paths(name):
    for function in (registry.info, registry.place, registry.locate, registry.download, registry.verify):
        with pytest.raises(ValueError, match="the models are"):
            function(name)
