from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

import bulkformer_tl as bf


def test_defaults_need_no_machine():
    fresh = type(bf.settings)()
    assert fresh.device == "auto"
    assert fresh.batch_size == 8
    assert fresh.progress is True
    assert fresh.cache_dir.name == "bulkformer_tl"


def test_environment_sets_each_setting(tmp_path):
    names = {"CACHE_DIR": str(tmp_path), "DEVICE": "cuda:1", "BATCH_SIZE": "3", "PROGRESS": "false"}
    environment = os.environ | {f"BULKFORMER_TL_{name}": value for name, value in names.items()}
    code = (
        "import bulkformer_tl as bf\n"
        "print(bf.settings.cache_dir, bf.settings.device, bf.settings.batch_size, bf.settings.progress)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(tmp_path), "cuda:1", "3", "False"]


def test_override_is_local():
    before = bf.settings.model_dump()
    with bf.settings.override(device="cpu", batch_size=2):
        assert (bf.settings.device, bf.settings.batch_size) == ("cpu", 2)
    assert bf.settings.model_dump() == before


def test_override_is_undone_after_an_error():
    before = bf.settings.model_dump()
    with pytest.raises(RuntimeError, match="halfway"), bf.settings.override(device="cpu"):
        raise RuntimeError("halfway")
    assert bf.settings.model_dump() == before


@pytest.mark.parametrize("size", [0, -1, "many"])
def test_bad_batch_size_is_refused(size):
    before = bf.settings.batch_size
    with pytest.raises(ValidationError, match="batch_size"):
        bf.settings.batch_size = size
    assert bf.settings.batch_size == before


def test_paths_are_paths(tmp_path):
    with bf.settings.override(cache_dir=str(tmp_path)):
        assert bf.settings.cache_dir == Path(tmp_path)


def test_importing_makes_no_cache_folder(tmp_path):
    folder = tmp_path / "cache"
    environment = os.environ | {"BULKFORMER_TL_CACHE_DIR": str(folder)}
    subprocess.run([sys.executable, "-c", "import bulkformer_tl"], env=environment, check=True)
    assert not folder.exists()
