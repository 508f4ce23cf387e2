"""Parts in a folder: shared among workers without computing one twice, and not mixed with those of another call."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier

import numpy as np
import pytest

from bulkformer_tl.tl import _perturb_store
from bulkformer_tl.tl._perturb_store import FACTS, PartStore

COUNT = 12


def test_workers_divide_the_parts(tmp_path):
    ran: list[int] = []
    fast = PartStore(tmp_path / "passes", {"a": 1})

    def compute(index):
        ran.append(index)
        return {"square": np.array([index**2])}

    others = fast.parts(COUNT, compute)

    def slow(index):
        # in the meantime the other worker, which has found this one taken, does half of the rest
        if not ran:
            ran.append(index)
            assert [next(others)[0] for _ in range(COUNT // 2)] == [*range(1, COUNT // 2 + 1)]
            return {"square": np.array([index**2])}
        return compute(index)

    own = list(PartStore(tmp_path / "passes", {"a": 1}).parts(COUNT, slow))
    rest = list(others)
    assert sorted(ran) == list(range(COUNT))
    assert sorted([index for index, _ in rest]) == [0, *range(COUNT // 2 + 1, COUNT)]
    assert {index: int(part["square"][0]) for index, part in own} == {index: index**2 for index in range(COUNT)}
    assert not list((tmp_path / "passes").glob("*.taken"))


def test_two_workers_at_once_repeat_at_most_what_the_other_has_in_hand_at_the_end(tmp_path):
    ran: list[int] = []
    together = Barrier(2)

    def compute(index):
        ran.append(index)
        time.sleep(0.01)
        return {"square": np.array([index**2])}

    def work(_):
        store = PartStore(tmp_path / "passes", {"a": 1})
        together.wait(timeout=20)
        return {index: int(part["square"][0]) for index, part in store.parts(COUNT, compute)}

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(work, range(2)))
    assert found == [{index: index**2 for index in range(COUNT)}] * 2
    assert set(ran) == set(range(COUNT))
    assert len(ran) <= COUNT + 1


def test_workers_that_start_at_once_share_a_folder(tmp_path):
    folder = tmp_path / "passes"
    folder.mkdir()
    (folder / ".0a1b2c3d.facts.json").write_text("{")
    PartStore(folder, {"a": 1})
    together = Barrier(4)

    def start(number):
        together.wait(timeout=20)
        return PartStore(tmp_path / f"passes {number // 4}", {"a": 1})

    with ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(start, range(80)))) == 80


def test_refuses_parts_of_another_call_that_started_at_once(tmp_path, monkeypatch):
    plain = _perturb_store.replacing

    @contextmanager
    def overtaken(path):
        with plain(path) as unfinished:
            yield unfinished
        path.write_text('{"a": 2}')

    monkeypatch.setattr(_perturb_store, "replacing", overtaken)
    with pytest.raises(FileExistsError, match=r"passes of another call \(with other a\); name another folder, or"):
        PartStore(tmp_path / "passes", {"a": 1})


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_refuses_something_else(tmp_path, kind):
    if kind == "folder":
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "notes.txt").write_text("mine")
    else:
        (tmp_path / "mine").write_text("mine")
    with pytest.raises(FileExistsError, match="mine exists and holds something else than passes; name another folder"):
        PartStore(tmp_path / "mine", {"a": 1})
    assert not (tmp_path / "mine" / FACTS).exists()
