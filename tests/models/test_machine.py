"""What is read of the processor."""

from __future__ import annotations

import pytest
import torch

from bulkformer_tl.models._machine import cache_bytes, no_idle_threads, usable_threads


@pytest.fixture
def caches(tmp_path):
    def write(*caches):
        for number, parts in enumerate(caches):
            folder = tmp_path / f"index{number}"
            folder.mkdir()
            for name, text in zip(("type", "size", "shared_cpu_list"), parts, strict=True):
                (folder / name).write_text(f"{text}\n")
        return tmp_path

    return write


def test_a_thread_has_its_own_cache_and_its_share_of_others(caches):
    folder = caches(
        ("Data", "32K", "0"),
        ("Instruction", "32K", "0"),
        ("Unified", "1024K", "0,8"),
        ("Unified", "16384K", "0-3,8-11"),
    )
    assert cache_bytes(folder) == (32 + 512 + 2048) * 1024


@pytest.mark.parametrize(("size", "believed"), [("64K", 2**20), ("491520K", 2**23), ("many", 2**20)])
def test_cache_that_is_not_believed(caches, size, believed):
    assert cache_bytes(caches(("Unified", size, "0"))) == believed


def test_cache_of_an_unknown_machine(tmp_path):
    assert cache_bytes(tmp_path / "nowhere") == 2**20


def test_threads_are_those_that_may_run(tmp_path, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    quota = tmp_path / "cpu.max"
    assert usable_threads(quota) == 8
    for text, expected in (("max 100000", 8), ("250000 100000", 3), ("10000 100000", 1), ("9900000 100000", 8)):
        quota.write_text(text)
        assert usable_threads(quota) == expected


def test_idle_threads_are_left_out_for_a_while(monkeypatch):
    monkeypatch.setattr("bulkformer_tl.models._machine.usable_threads", lambda: 1)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with no_idle_threads():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 3
        torch.set_num_threads(1)
        with no_idle_threads():
            assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
