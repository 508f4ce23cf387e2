"""The picture of ``inference.py``."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


def draw(results: dict[str, Any], ways: tuple[str, ...], path: Path) -> None:
    """Draw rates over work per byte, beneath the machine's limits."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np

    peaks = {
        name: max(case["peaks"][name] for case in results.values()) for name in next(iter(results.values()))["peaks"]
    }
    memory = peaks.pop("memory")
    figure, axes = plt.subplots(figsize=(7, 4.6), layout="constrained")
    x = np.geomspace(1, 3000, 200)
    lowest = min(peaks.values())
    for name, rate in peaks.items():
        axes.plot(x, np.minimum(rate, memory * x) / 1e9, color="0.6", linewidth=1)
        below = rate == lowest
        axes.text(
            2900, rate / 1e9 * (0.97 if below else 1.03), name, ha="right", va="top" if below else "bottom", size=8
        )
    markers = dict(zip(results, "osD^vP", strict=False))
    colours = {"notebook": "#999999", "float32": "#0072b2", "bf16": "#d55e00"}
    for name, case in results.items():
        points = []
        for way in ways:
            # work that the notebook does for nothing does not count
            work, moved = case["work"]["float32"]["flop"], case["work"][way]["bytes"]
            points.append((work / moved, work / statistics.median(case["seconds"]["1"][way]) / 1e9))
            axes.scatter(*points[-1], marker=markers[name], color=colours[way], s=45, zorder=3)
        axes.plot(*zip(*points, strict=True), color="0.85", linewidth=1, zorder=1)
    handles = [axes.scatter([], [], marker="s", color=colour, label=way) for way, colour in colours.items()]
    handles += [axes.scatter([], [], marker=marker, color="0.3", label=name) for name, marker in markers.items()]
    axes.legend(handles=handles, fontsize=8, loc="lower right", frameon=False)
    axes.set(xscale="log", yscale="log", xlabel="needed work per byte that passes through memory, FLOP/byte")
    axes.set_ylabel("needed work per second, GFLOP/s")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
