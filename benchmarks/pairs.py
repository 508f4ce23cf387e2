"""Tables of tasks with two axes as Markdown, shared by their benchmarks; run by itself it does nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from probes import MODEL

if TYPE_CHECKING:
    import pandas as pd


def label(name: str, result: dict[str, Any]) -> str:
    """Name the model where it is meant, and put baselines in italics."""
    if name in result["params"]["baselines"]:
        return f"*{name}*"
    return name.replace("X_bulkformer", MODEL)


def scores_table(result: dict[str, Any], metrics: tuple[tuple[str, str], ...]) -> list[str]:
    """Return one row per representation and baseline, one column per score and axis."""
    scores: pd.DataFrame = result["scores"]
    lines = [f"| representation | {' | '.join(f'{metric} ({axis})' for metric, axis in metrics)} |"]
    lines.append("| --- |" + " --- |" * len(metrics))
    for name in dict.fromkeys(scores["representation"]):
        own = scores[scores["representation"] == name].set_index(["metric", "axis"])
        cells = [own.loc[at] for at in metrics]
        shown = [f"{cell['mean']:.3f} ({cell['low']:.3f} to {cell['high']:.3f})" for cell in cells]
        lines.append(f"| {label(name, result)} | {' | '.join(shown)} |".replace("nan (nan to nan)", "undefined"))
    return lines


def verdict(result: dict[str, Any], metric: str, axis: str) -> str:
    """Say in one sentence each how the model stands to every baseline that has the score."""
    differences, scores = result["differences"], result["scores"]
    own = result["params"]["representation"]
    rows = differences[(differences["metric"] == metric) & (differences["axis"] == axis)]
    said = []
    for row in rows[rows["representation"] == own].dropna(subset="difference").to_dict("records"):
        gap = f"{row['difference']:+.3f}, {row['low']:+.3f} to {row['high']:+.3f}"
        how = {own: "the model is better than", row["baseline"]: "**the model is worse than**"}
        said.append(f"{how.get(row['better'], 'cannot be told apart from')} *{row['baseline']}* ({gap})")
    ranked = scores[(scores["metric"] == metric) & (scores["axis"] == axis)].dropna(subset="mean").sort_values("mean")
    best = ranked.iloc[0 if metric in ("rmse", "brier") else -1]["representation"]
    won = "" if best not in result["params"]["baselines"] else f" **The best score is that of the baseline *{best}*.**"
    return f"By {metric} ({axis}): {'; '.join(said)}.{won}"
