from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

import bulkformer_tl as bf


@pytest.fixture(autouse=True)
def _figures():
    mpl.use("agg")
    yield
    plt.close("all")


@pytest.fixture
def history():
    return pd.DataFrame(
        {
            "step": [0, 5, 10, 15],
            "training_loss": [np.nan, 1.0, 0.8, 0.5],
            "validation_loss": [30.0, 1.2, 0.7, 0.9],
            "baseline_loss": [1.1] * 4,
        }
    )


def test_lines_are_the_columns(history):
    axes = bf.pl.training(history)
    drawn = {line.get_label(): line for line in axes.get_lines()}
    np.testing.assert_array_equal(drawn["left-out studies"].get_ydata(), history["validation_loss"])
    np.testing.assert_array_equal(drawn["training"].get_ydata(), history["training_loss"])
    np.testing.assert_array_equal(drawn["simplest prediction there"].get_ydata(), history["baseline_loss"])
    assert drawn["kept"].get_xydata().tolist() == [[10, 0.7]]
    # an untrained network does not press the rest together
    assert axes.get_ylim()[1] < 2


def test_reads_what_a_run_wrote(history, tmp_path):
    (tmp_path / "training").mkdir()
    history.to_csv(tmp_path / "training" / "history.csv", index=False)
    _, ax = plt.subplots()
    assert bf.pl.training(str(tmp_path), ax=ax) is ax
    for place in (tmp_path / "training", tmp_path / "training" / "history.csv"):
        assert len(bf.pl.training(place).get_lines()) == 4


def test_one_validation(history):
    assert np.isfinite(bf.pl.training(history.iloc[:1]).get_ylim()).all()


def test_no_history(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no training history \(training/history.csv\)"):
        bf.pl.training(tmp_path)
    with pytest.raises(ValueError, match=r"lacks the columns \['step'"):
        bf.pl.training(pd.DataFrame({"loss": [1]}))
