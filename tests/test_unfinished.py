"""A file that is written under another name first."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import save_file

from bulkformer_tl._unfinished import remove, replacing, take_place


def test_has_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "usual").touch()
    with replacing(tmp_path / "tensors.safetensors") as path:
        save_file({"a": np.zeros(2)}, path)
    assert (tmp_path / "tensors.safetensors").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_after_an_error_what_was_there_before_is_there(tmp_path):
    (tmp_path / "file").write_text("before")

    def fail():
        with replacing(tmp_path / "file") as path:
            path.write_text("half")
            message = "disk"
            raise OSError(message)

    with pytest.raises(OSError, match="disk"):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "before"


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_takes_the_place_of_what_was_there(tmp_path, kind):
    for name in ("new", "place"):
        if kind == "folder":
            (tmp_path / name).mkdir()
        (tmp_path / name / "in" if kind == "folder" else tmp_path / name).write_text(name)
    take_place(tmp_path / "new", tmp_path / "place")
    assert [path.name for path in tmp_path.iterdir()] == ["place"]
    assert (tmp_path / "place" / "in" if kind == "folder" else tmp_path / "place").read_text() == "new"


def test_what_was_there_stays_if_its_place_cannot_be_taken(tmp_path):
    (tmp_path / "place").mkdir()
    (tmp_path / "place" / "in").write_text("before")
    with pytest.raises(FileNotFoundError):
        take_place(tmp_path / "absent", tmp_path / "place")
    assert (tmp_path / "place" / "in").read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["place"]


def test_what_is_not_there_is_removed_already(tmp_path):
    remove(tmp_path / "absent")
    assert not list(tmp_path.iterdir())
