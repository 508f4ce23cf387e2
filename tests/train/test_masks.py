from __future__ import annotations

import numpy as np
import pytest

from bulkformer_tl._vocabulary import GeneVocabulary
from bulkformer_tl.train import Masking
from bulkformer_tl.train._masks import MaskMaker

IDS = np.array([f"ENSG{i:011d}" for i in range(400)])
VOCABULARY = GeneVocabulary(IDS, name="four hundred")


@pytest.fixture
def values():
    found = np.random.default_rng(0).uniform(0, 8, 400).astype(np.float32)
    found[:100] = np.nan
    found[100:200] = 0
    return found


def draw(masking, values, *, position=0, step=0, progress=0.0, seed=0):
    return MaskMaker(masking, VOCABULARY, seed).draw(values, position=position, step=step, progress=progress)


@pytest.mark.parametrize("kind", ["entry", "gene", "balanced"])
def test_missing_genes_are_never_hidden(values, kind):
    for position in range(20):
        marks = draw(Masking(0.9, kinds={kind: 1}), values, position=position, step=position)
        assert not marks[:100].any()
        assert (~marks[100:]).any()


def test_range_of_fractions(values):
    shares = [draw(Masking((0.05, 0.15)), values, position=i).sum() / 300 for i in range(300)]
    assert min(shares) >= 0.05 - 0.002
    assert max(shares) <= 0.15 + 0.002
    assert np.std(shares) == pytest.approx(0.1 / np.sqrt(12), rel=0.15)


def test_curriculum_reaches_ninety_percent(values):
    masking = Masking(fraction=0.1, final=0.9, ramp=0.5)
    shares = [draw(masking, values, progress=done).sum() / 300 for done in (0.0, 0.25, 0.5, 1.0)]
    assert shares == pytest.approx([0.1, 0.5, 0.9, 0.9], abs=0.003)
    assert masking.extremes == (0.1, 0.9)


def test_whole_genes_are_hidden_in_all_samples_of_a_step(values):
    masking = Masking(0.3, kinds={"gene": 1})
    first, second, later = (
        draw(masking, np.abs(values) + 1, position=i, step=step) for i, step in ((0, 0), (1, 0), (2, 1))
    )
    assert (first == second).all()
    assert (first != later).any()


def test_panels_stay_visible(values):
    masking = Masking(kinds={"panel": 1}, panels={"a": tuple(IDS[150:250]), "b": tuple(IDS[300:310])})
    seen = {tuple(np.flatnonzero(draw(masking, values, position=i))) for i in range(30)}
    measured = np.arange(100, 400)
    assert seen == {
        tuple(np.setdiff1d(measured, np.arange(150, 250))),
        tuple(np.setdiff1d(measured, np.arange(300, 310))),
    }


def test_kinds_are_mixed(values):
    masking = Masking(0.1, kinds={"entry": 3, "panel": 1}, panels={"a": tuple(IDS[150:250])})
    wide = [draw(masking, values, position=i).sum() == 200 for i in range(400)]
    assert np.mean(wide) == pytest.approx(0.25, abs=0.07)


def test_masks_depend_on_seed_position_and_nothing_else(values):
    masking = Masking((0.05, 0.15))
    maker = MaskMaker(masking, VOCABULARY, 3)
    first = maker.draw(values, position=7, step=1, progress=0.2)
    maker.draw(values, position=8, step=1, progress=0.2)
    again = maker.draw(values, position=7, step=1, progress=0.2)
    assert (first == again).all()
    assert (first != draw(masking, values, position=7, seed=4)).any()
    validation = maker.draw_validation(values, row=5)
    assert (validation == maker.draw_validation(values, row=5)).all()
    assert validation.sum() == 30


def test_panel_of_foreign_genes():
    with pytest.raises(ValueError, match=r"panels \['mouse'\] have no gene of 'four hundred'"):
        MaskMaker(Masking(kinds={"panel": 1}, panels={"mouse": ("ENSMUSG1",)}), VOCABULARY, 0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"fraction": 0.0}, "fraction is the share of hidden genes"),
        ({"fraction": (0.3, 0.1)}, "fraction is the share of hidden genes"),
        ({"fraction": (0.1, 0.2, 0.3)}, "a range has two ends"),
        ({"final": 0.99}, "final is the share of hidden genes"),
        ({"kinds": {"row": 1}}, r"no kinds of masks \['row'\]; choose among \['entry'"),
        ({"kinds": {}}, "how often each kind"),
        ({"kinds": {"entry": -1}}, "how often each kind"),
        ({"kinds": {"panel": 1}}, "need panels="),
        ({"ramp": 0}, "ramp is a share of the run"),
        ({"nonzero": 2}, "nonzero is a share"),
    ],
)
def test_impossible_masks(given, message):
    with pytest.raises(ValueError, match=message):
        Masking(**given)
