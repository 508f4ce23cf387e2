"""Against scikit-learn, by hand, and under resampling weights."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import calibration
from sklearn import metrics as sk

from bulkformer_tl.metrics import auprc, auroc, balanced_accuracy, brier, calibration_error, f1, reliability
from bulkformer_tl.metrics._weighted import classification_scores

CLASSES = np.array(["b", "c", "a"])


@pytest.fixture
def several():
    """Truth and probabilities of three classes, with ties."""
    rng = np.random.default_rng(0)
    truth = rng.choice(CLASSES, size=80, p=[0.6, 0.3, 0.1])
    shares = np.round(rng.dirichlet([1, 1, 1], size=80) + 0.3 * (truth[:, None] == CLASSES), 1) + 1e-9
    return truth, shares / shares.sum(axis=1, keepdims=True)


@pytest.fixture
def binary():
    rng = np.random.default_rng(1)
    truth = rng.integers(2, size=60)
    return truth, np.round(np.clip(0.3 * truth + rng.random(60) * 0.7, 0, 1), 1)


@pytest.mark.parametrize("average", ["macro", "weighted"])
def test_f1_equals_scikit_learn(several, average):
    truth, shares = several
    predicted = CLASSES[shares.argmax(axis=1)]
    assert f1(truth, predicted, average=average) == pytest.approx(sk.f1_score(truth, predicted, average=average))


def test_f1_counts_predicted_classes_that_are_not_there():
    truth, predicted = ["x", "x", "y"], ["x", "z", "y"]
    # x: 2/3, y: 1, z: 0
    assert f1(truth, predicted) == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert f1(truth, predicted, average="weighted") == pytest.approx((2 * 2 / 3 + 1) / 3)


def test_balanced_accuracy_equals_scikit_learn(several):
    truth, shares = several
    predicted = CLASSES[shares.argmax(axis=1)]
    assert balanced_accuracy(truth, predicted) == pytest.approx(sk.balanced_accuracy_score(truth, predicted))


def test_areas_equal_scikit_learn(several, binary):
    truth, shares = several
    order = np.argsort(CLASSES)
    assert auroc(truth, shares, classes=CLASSES) == pytest.approx(
        sk.roc_auc_score(truth, shares[:, order], multi_class="ovr")
    )
    one_hot = truth[:, None] == CLASSES
    assert auprc(truth, shares, classes=CLASSES) == pytest.approx(sk.average_precision_score(one_hot, shares))
    truth, share = binary
    assert auroc(truth, share) == pytest.approx(sk.roc_auc_score(truth, share))
    assert auprc(truth, share) == pytest.approx(sk.average_precision_score(truth, share))
    both = np.stack([1 - share, share], axis=1)
    assert auroc(truth, both) == pytest.approx(auroc(truth, share))


def test_auroc_by_hand():
    # positives at 0.8 and 0.5, negatives at 0.5 and 0.1: 3 pairs won, 1 tied of 4
    assert auroc([1, 1, 0, 0], [0.8, 0.5, 0.5, 0.1]) == pytest.approx(3.5 / 4)
    assert auroc([1, 1, 0, 0], [0.5] * 4) == 0.5


def test_areas_average_over_the_classes_that_are_there():
    shares = np.array([[0.7, 0.2, 0.1], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1]])
    assert auroc(["a", "b", "a"], shares, classes=["a", "b", "c"]) == 1.0


def test_brier_equals_scikit_learn(several, binary):
    truth, share = binary
    assert brier(truth, share) == pytest.approx(sk.brier_score_loss(truth, share))
    truth, shares = several
    assert brier(truth, shares, classes=CLASSES) == pytest.approx(
        np.mean([((share - (label == CLASSES)) ** 2).sum() for label, share in zip(truth, shares, strict=True)])
    )
    # certain and wrong: (1 - 0)^2 + (0 - 1)^2
    assert brier(["a", "b", "c"], np.eye(3)[[1, 2, 0]]) == 2.0
    assert brier([0, 1], [1.0, 0.0]) == 1.0


def test_reliability_equals_scikit_learn(binary):
    truth, share = binary
    confidence = np.maximum(share, 1 - share)
    right = (share > 0.5) == truth
    table = reliability(truth, share)
    fraction, mean = calibration.calibration_curve(right, confidence, n_bins=10)
    filled = table[table["n"] > 0]
    np.testing.assert_allclose(filled["accuracy"], fraction)
    np.testing.assert_allclose(filled["confidence"], mean)
    assert table["n"].sum() == 60
    assert table.loc[table["n"] == 0, "accuracy"].isna().all()
    gap = (filled["n"] / 60 * (filled["accuracy"] - filled["confidence"]).abs()).sum()
    assert calibration_error(truth, share) == pytest.approx(gap)


def test_calibration_error_by_hand():
    # two samples at 0.9 of which one is right, two at 0.6 of which both are: 0.5 * 0.4 + 0.5 * 0.4
    assert calibration_error([1, 0, 1, 0], [0.9, 0.9, 0.6, 0.4]) == pytest.approx(0.4)


def test_weights_are_repetitions(several, binary):
    rng = np.random.default_rng(3)
    for truth, given, classes in ((*several, CLASSES), (*binary, np.array([0, 1]))):
        shares = given if given.ndim == 2 else np.stack([1 - given, given], axis=1)
        codes = (np.asarray(truth)[:, None] == classes).argmax(axis=1)
        weights = rng.multinomial(len(codes), np.full(len(codes), 1 / len(codes)), size=3).astype(float)
        found = classification_scores(codes, shares, weights)
        for row, weight in enumerate(weights.astype(int)):
            drawn, shown = np.repeat(codes, weight), np.repeat(shares, weight, axis=0)
            labels = {"classes": np.arange(len(classes))}
            expected = {
                "auroc": auroc(drawn, shown, **labels),
                "auprc": auprc(drawn, shown, **labels),
                "balanced_accuracy": balanced_accuracy(drawn, shown.argmax(axis=1)),
                "f1_macro": f1(drawn, shown.argmax(axis=1)),
                "f1_weighted": f1(drawn, shown.argmax(axis=1), average="weighted"),
                "brier": brier(drawn, shown, **labels),
                "calibration_error": calibration_error(drawn, shown, **labels),
            }
            assert {name: values[row] for name, values in found.items()} == pytest.approx(expected)


def test_a_resample_of_one_class_has_no_area():
    found = classification_scores(np.array([0, 0, 1]), np.eye(2)[[0, 1, 1]], np.array([[1.0, 2.0, 0.0]]))
    assert np.isnan(found["auroc"]).all()
    assert found["balanced_accuracy"].tolist() == [pytest.approx(1 / 3)]


@pytest.mark.parametrize("score", [auroc, auprc])
def test_one_class_is_refused(score):
    with pytest.raises(ValueError, match="truth holds only 1; at least two classes"):
        score([1, 1], [0.2, 0.3])
    with pytest.raises(ValueError, match="one class only"):
        score([1, 1], [0.2, 0.3], classes=[0, 1])


@pytest.mark.parametrize(
    ("truth", "share", "classes", "message"),
    [
        ([0, 1, np.nan], [0.1] * 3, None, "truth holds 1 missing values of 3, the first at position 2"),
        ([0, 1], [0.1, np.nan], None, "probability holds 1 missing values"),
        ([0, 1, 2], [0.1] * 3, None, r"shape \(3,\) for 3 samples and 3 classes"),
        ([0, 1], [0.1] * 3, None, r"shape \(3, 2\) for 2 samples"),
        ([0, 5], [0.1] * 2, [0, 1], r"truth holds \[5\], which are not among the classes"),
        ([0, 1], [0.1] * 2, [0, 1, 1], "lists a class twice"),
        ([], [], None, "truth is empty"),
    ],
)
def test_refusals(truth, share, classes, message):
    with pytest.raises(ValueError, match=message):
        brier(truth, share, classes=classes)


def test_more_refusals():
    with pytest.raises(ValueError, match="average is 'micro'"):
        f1([0, 1], [0, 1], average="micro")
    with pytest.raises(ValueError, match="prediction has 1 values for 2 samples"):
        balanced_accuracy([0, 1], [0])
    with pytest.raises(ValueError, match="n_bins is 0"):
        reliability([0, 1], [0.1, 0.9], n_bins=0)
    with pytest.raises(TypeError, match="probability must be numbers and holds 'high'"):
        brier([0, 1], ["high", "low"])
