"""What this machine's processor gives: cache, and threads."""

from __future__ import annotations

import math
import os
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_QUOTA = Path("/sys/fs/cgroup/cpu.max")
#: Bytes of cache for each thread that are believed: virtual machines name those of the whole host.
_LEAST, _MOST = 2**20, 2**23


@lru_cache
def cache_bytes(folder: Path = _CACHES) -> int:
    """Return the bytes of cache that a thread has, its own and its share of what cores have together."""
    total = 0
    for index in folder.glob("index*"):
        try:
            kind, size, shared = ((index / name).read_text().strip() for name in ("type", "size", "shared_cpu_list"))
            total += 0 if kind == "Instruction" else int(size.removesuffix("K")) * 1024 // _count(shared)
        except (OSError, ValueError):
            continue
    return min(max(total, _LEAST), _MOST)


def _count(cpus: str) -> int:
    """Count a list such as ``0-3,8``."""
    ends = [part.split("-") for part in cpus.split(",")]
    return sum(int(part[-1]) - int(part[0]) + 1 for part in ends)


def usable_threads(quota: Path = _QUOTA) -> int:
    """Return how many threads can run at a time, by the processors and the share of them that this process has."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        share, period = quota.read_text().split()
        return max(1, min(processors, math.ceil(int(share) / int(period))))
    # no such file, or "max"
    except (OSError, ValueError):
        return processors


@contextmanager
def no_idle_threads() -> Iterator[None]:
    """Let torch use no more threads than can run: it counts the processors of the host, also in a container."""
    before, usable = torch.get_num_threads(), usable_threads()
    if before <= usable:
        yield
        return
    torch.set_num_threads(usable)
    try:
        yield
    finally:
        torch.set_num_threads(before)
