"""A file that is written under another name first."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import save_file

from bulkformer_tl._unfinished import replacing


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
