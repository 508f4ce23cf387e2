"""Progress of long work: a bar that settings can switch off, and an estimate for runs over a minute."""

from __future__ import annotations

import logging
import sys
import time
from typing import TYPE_CHECKING, Any

from bulkformer_tl._settings import settings

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

logger = logging.getLogger(__name__)

#: Runs expected to last longer than this (seconds) announce their time and memory.
LONG_RUN = 60.0


class Progress:
    """Context manager that counts samples (or something else), shows a bar and announces long runs.

    Parameters
    ----------
    total
        Number of them.
    description
        What is being done, shown before the bar and in the log.
    unit
        What is counted.
    """

    def __init__(self, total: int, description: str, *, unit: str = "sample") -> None:
        self._total = total
        self._description = description
        self._unit = unit
        self._done = 0
        self._announced = False

    def __enter__(self) -> Self:
        # tqdm.auto looks for notebook widgets when it is imported
        from tqdm.auto import tqdm

        self._start = time.perf_counter()
        self._bar: Any = tqdm(total=self._total, desc=self._description, unit=self._unit, disable=not settings.progress)
        return self

    def update(self, n: int = 1) -> None:
        """Count ``n`` more; the first call decides whether the run is announced."""
        self._done += n
        self._bar.update(n)
        if not self._announced:
            self._announced = True
            expected = (time.perf_counter() - self._start) / self._done * self._total
            if expected > LONG_RUN:
                logger.info(
                    "%s: about %.0f min for %d %ss on this machine, peak memory so far %.1f GiB",
                    self._description,
                    expected / 60,
                    self._total,
                    self._unit,
                    peak_memory() / 2**30,
                )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.close()


def peak_memory() -> int:
    """Return the largest resident memory of this process so far, in bytes; 0 on Windows, which does not tell."""
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # macOS counts bytes, Linux KiB
    return peak if sys.platform == "darwin" else peak * 1024
