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
from bulkformer_tl.train._checkpoints import load_state, save_state
from bulkformer_tl.train._journal import Journal


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
    states, end = out / "training" / "states", time.monotonic() + 300
    while not any(state.stem >= f"round-{after:06d}" for state in states.glob("round-*.pt")):
        assert time.monotonic() < end
        assert not (out / "manifest.json").exists(), "the run ended before it could be killed"
        time.sleep(0.002)
    time.sleep(np.random.default_rng(0).uniform(0, 0.1))
    os.kill(pid, signal.SIGKILL)
    assert forks.wait(pid) == -signal.SIGKILL


def test_interruption_stays_one(files, config, vocabulary, graph, tmp_path, monkeypatch):
    """Ctrl-C in the middle of a round, in a notebook say; nothing is switched off afterwards."""
    given = {"vocabulary": vocabulary, "graph": graph}
    settled = config(epochs=0.8)
    model = bf.train.pretrain(files, settled, out=tmp_path / "whole", **given)
    before, counted = signal.getsignal(signal.SIGINT), []

    def interrupt(*_, **__):
        counted.append(1)
        if len(counted) == 8:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "on_train_batch_end", interrupt)
        with pytest.raises(KeyboardInterrupt, match="the same call goes on"):
            bf.train.pretrain(files, settled, out=tmp_path / "model", **given)
    assert signal.getsignal(signal.SIGINT) is before
    assert [path.name for path in (tmp_path / "model" / "training" / "states").iterdir()] == ["round-000001.pt"]
    assert same(bf.train.pretrain(files, settled, out=tmp_path / "model", **given), model)


def test_states_without_a_whole_one(tmp_path, caplog):
    """Damaged states are never used; where all are, a run begins anew."""
    folder = tmp_path / "states"
    assert load_state(folder) is None
    for finished in (1, 2, 3):
        save_state(folder, finished, {"round": torch.tensor(finished)})
    (folder / "round-000009.unfinished").write_bytes(b"killed while writing")
    assert sorted(path.name for path in folder.glob("*.pt")) == ["round-000002.pt", "round-000003.pt"]
    assert load_state(folder)[0] == 3
    for path, content in zip(sorted(folder.glob("*.pt")), (b"", b"PK\x03\x04 cut"), strict=True):
        path.write_bytes(content)
    assert load_state(folder) is None
    assert caplog.text.count("is not used") == 2


def test_states_hold_no_code(tmp_path):
    folder = tmp_path / "states"
    folder.mkdir()
    torch.save({"network": Hostile()}, folder / "round-000001.pt")
    assert load_state(folder) is None
    assert not Hostile.ran


class Hostile:
    """Would run code where a pickle is trusted."""

    ran = False

    def __reduce__(self):
        return (setattr, (Hostile, "ran", True))


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
