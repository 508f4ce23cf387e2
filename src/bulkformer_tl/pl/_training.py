"""How a training run went."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bulkformer_tl.pl._palette import OKABE_ITO, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS = ("step", "training_loss", "validation_loss", "baseline_loss")


def training(history: pd.DataFrame | str | Path, *, ax: Axes | None = None) -> Axes:
    """Losses of a training run, beside that of the simplest prediction.

    Parameters
    ----------
    history
        Folder that :func:`bulkformer_tl.train.pretrain` writes to, also while it runs; its ``history.csv``; or the
        table.
    ax
        Axes to draw on. ``None`` makes a new figure.

    Returns
    -------
    The axes: the mean training loss since the last validation, the loss in left-out studies, that of the simplest
    prediction there (of expression each gene's mean, of bins and ranks how often each occurs), and a mark at the
    weights that are kept.

    Raises
    ------
    FileNotFoundError
        If the folder holds no history yet.
    ValueError
        If the table is something else.

    Examples
    --------
    >>> import bulkformer_tl as bf
    >>> ax = bf.pl.training("mine")  # doctest: +SKIP
    """
    table = history if isinstance(history, pd.DataFrame) else pd.read_csv(_find(Path(history)))
    if absent := [column for column in _COLUMNS if column not in table]:
        message = f"the history lacks the columns {absent}; expected one that bf.train.pretrain wrote"
        raise ValueError(message)
    axes = new_axes(ax, (5.6, 3.6))
    steps, losses = table["step"].to_numpy(), table["validation_loss"].to_numpy()
    axes.plot(steps, table["training_loss"], color="#999999", label="training", linewidth=1.5)
    axes.plot(steps, losses, color=OKABE_ITO[0], label="left-out studies", linewidth=2.5, marker="o", markersize=3)
    axes.plot(steps, table["baseline_loss"], color=OKABE_ITO[5], label="simplest prediction there", linestyle="--")
    best = int(np.nanargmin(losses))
    axes.plot(steps[best], losses[best], color=OKABE_ITO[0], label="kept", linestyle="none", marker="D", markersize=8)
    # what an untrained network costs would press the rest together
    settled = table.iloc[1:] if len(table) > 2 else table
    drawn = settled[list(_COLUMNS[1:])].to_numpy()
    low, high = np.nanmin(drawn), np.nanmax(drawn)
    margin = 0.05 * (high - low) or 0.1
    axes.set(xlabel="step", ylabel="loss", ylim=(low - margin, high + margin))
    axes.legend(frameon=False)
    return axes


def _find(path: Path) -> Path:
    candidates = [path / "training" / "history.csv", path / "history.csv", path]
    found = [place for place in candidates if place.is_file()]
    if not found:
        message = f"{path} holds no training history (training/history.csv); a run writes it after its first validation"
        raise FileNotFoundError(message)
    return found[0]
