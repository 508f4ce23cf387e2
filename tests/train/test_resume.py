"""A run that was killed ends like one that was not."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import time

import numpy as np
import pandas as pd
import pytest
import torch

import bulkformer_tl as bf


@pytest.fixture(scope="module")
def settled(config):
    # dropout on, several micro-batches a step, changing masks: all that could go another way the second time
    return config(
        "g2",
        micro_batch_size=4,
        masking=bf.train.Masking(fraction=(0.1, 0.2), final=0.9, kinds={"entry": 2, "gene": 1, "balanced": 1}),
    )


@pytest.fixture(scope="module")
def whole(files, settled, vocabulary, graph, tmp_path_factory):
    """The uninterrupted run."""
    out = tmp_path_factory.mktemp("whole") / "model"
    return bf.train.pretrain(files, settled, out=out, vocabulary=vocabulary, graph=graph), out


def same(model, other):
    ours, theirs = model.network.state_dict(), other.network.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def history(out):
    return pd.read_csv(out / "training" / "history.csv")


def killed(forks, files, settled, vocabulary, graph, out, *, after):
    """Start a run in a process of its own and kill it once it has written some states."""
    pid = forks.start(
        corpus=[str(path) for path in files],
        config=settled.to_dict(),
        out=str(out),
        vocabulary=vocabulary.ids.tolist(),
        graph=[part.tolist() for part in graph],
    )
    state = out / "training" / "states" / f"round-{after:06d}.pt"
    end = time.monotonic() + 300
    while not state.exists():
        assert time.monotonic() < end
        time.sleep(0.002)
    time.sleep(np.random.default_rng(0).uniform(0, 0.1))
    os.kill(pid, signal.SIGKILL)
    assert forks.wait(pid) == -signal.SIGKILL


def test_killed_run_ends_like_the_uninterrupted_one(forks, whole, files, settled, vocabulary, graph, tmp_path, caplog):
    out, given = tmp_path / "model", {"vocabulary": vocabulary, "graph": graph}
    killed(forks, files, settled, vocabulary, graph, out, after=2)
    assert not (out / "manifest.json").exists()
    shutil.copytree(out, tmp_path / "copy")
    with caplog.at_level(logging.INFO):
        resumed = bf.train.pretrain(files, settled, out=out, **given)
    assert "resumed after" in caplog.text
    model, uninterrupted = whole
    assert same(resumed, model)
    pd.testing.assert_frame_equal(history(out), history(uninterrupted), check_exact=True)

    # the newest state is damaged: the one before it is used, with the same end
    out = tmp_path / "copy"
    newest = max((out / "training" / "states").glob("round-*.pt"))
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        resumed = bf.train.pretrain(files, settled, out=out, **given)
    assert f"{newest.name} is not used" in caplog.text
    assert "resumed after" in caplog.text
    assert same(resumed, model)
    pd.testing.assert_frame_equal(history(out), history(uninterrupted), check_exact=True)
