from __future__ import annotations

import logging
import resource
import sys

import pytest

import bulkformer_tl as bf
from bulkformer_tl import _progress
from bulkformer_tl._progress import Progress, peak_memory


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is moved."""

    class Clock:
        now = 100.0

    monkeypatch.setattr(_progress.time, "perf_counter", lambda: Clock.now)
    return Clock


@pytest.fixture
def quiet():
    with bf.settings.override(progress=False):
        yield


def test_bar_counts_samples(capsys):
    with bf.settings.override(progress=True), Progress(3, "embedding") as progress:
        progress.update()
        progress.update(2)
    shown = capsys.readouterr().err
    assert "embedding" in shown
    assert "3/3" in shown


def test_settings_switch_the_bar_off(capsys, quiet):
    with Progress(2, "embedding") as progress:
        progress.update(2)
    assert capsys.readouterr().err == ""


def test_long_run_is_announced_after_the_first_sample(caplog, clock, quiet):
    with caplog.at_level(logging.INFO, logger="bulkformer_tl"), Progress(10, "embedding") as progress:
        clock.now += 30
        progress.update()
        assert len(caplog.records) == 1
        clock.now += 30
        progress.update()
    (record,) = caplog.records
    message = record.getMessage()
    assert message.startswith("embedding: about 5 min for 10 samples")  # 30 s a sample, 10 samples
    assert "GiB" in message
    assert record.levelno == logging.INFO


def test_estimate_divides_by_the_samples_of_the_first_block(caplog, clock, quiet):
    with caplog.at_level(logging.INFO, logger="bulkformer_tl"), Progress(100, "imputing") as progress:
        clock.now += 48
        progress.update(8)
    assert "about 10 min for 100 samples" in caplog.text


def test_short_run_stays_silent(caplog, clock, quiet):
    with caplog.at_level(logging.DEBUG, logger="bulkformer_tl"), Progress(10, "embedding") as progress:
        clock.now += 5.9
        progress.update()
        clock.now += 600
        progress.update()
    assert caplog.records == []


def test_bar_is_closed_after_an_error(capsys):
    def interrupted() -> None:
        with bf.settings.override(progress=True), Progress(5, "embedding") as progress:
            progress.update()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert capsys.readouterr().err.endswith("\n")


def test_peak_memory_is_in_bytes():
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    expected = peak if sys.platform == "darwin" else peak * 1024
    assert peak_memory() == pytest.approx(expected, rel=0.01)
    assert 2**24 < peak_memory() < 2**40
