from __future__ import annotations

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from bulkformer_tl.tl._pair_mlp import fit_mlp, make_mlp
from bulkformer_tl.tl._pair_model import PairModel, check_model, fit_linear


@pytest.fixture
def given():
    """Return a matrix with gaps, a new row, a new column, and features of both sides."""
    rng = np.random.default_rng(0)
    rows, columns = rng.normal(size=(30, 6)), rng.normal(size=(12, 4))
    known = rows @ rng.normal(size=(6, 4)) @ columns.T + rng.normal(0, 0.1, (30, 12)) + rng.normal(0, 2, 12)
    truth = known.copy()
    known[rng.random(known.shape) < 0.1] = np.nan
    known[29], known[:, 11] = np.nan, np.nan
    return known, truth, rows, columns


def scaled(matrix, train):
    scale = StandardScaler().fit(matrix[train])
    return (matrix - scale.mean_) / np.sqrt(scale.var_.mean())


@pytest.mark.parametrize("wide", [False, True])
def test_linear_is_two_ridge_regressions(given, wide):
    known, _, rows, columns = given
    rng = np.random.default_rng(1)
    if wide:
        # more features than rows: solved in the space of the rows
        rows, columns = rows @ rng.normal(size=(6, 50)), columns @ rng.normal(size=(4, 20))
    found = fit_linear(known, rows, columns, penalties=(3.0, 2.0)).predict(rows)
    x, z = scaled(rows, slice(29)), scaled(columns, slice(11))
    weights, shifts = [], []
    for column in range(11):
        here = ~np.isnan(known[:, column])
        ridge = Ridge(alpha=3.0).fit(x[here], known[here, column])
        np.testing.assert_allclose(found[:, column], ridge.predict(x), rtol=1e-6)
        weights.append(ridge.coef_)
        shifts.append(ridge.intercept_)
    second = Ridge(alpha=2.0 * z.shape[1]).fit(z[:11], np.column_stack([weights, shifts]))
    code = second.predict(z[11:])[0]
    np.testing.assert_allclose(found[:, 11], x @ code[:-1] + code[-1], rtol=1e-6)


def test_network_equals_scikit_learn(given):
    known, _, rows, columns = given
    options = {"hidden_layer_sizes": (8, 5), "max_iter": 5, "early_stopping": False}
    model = fit_mlp(known, rows, columns, options=options, rng=3)
    x, z = scaled(rows, slice(29)), scaled(columns, slice(11))
    at = np.nonzero(~np.isnan(known))
    mean, spread = known[at].mean(), known[at].std()
    network = make_mlp(options, 3)
    with pytest.warns(ConvergenceWarning):
        network.fit(np.hstack([x[at[0]], z[at[1]]]).astype("f4"), ((known[at] - mean) / spread).astype("f4"))
    pairs = np.hstack([np.repeat(x, 12, axis=0), np.tile(z, (30, 1))]).astype("f4")
    expected = network.predict(pairs).reshape(30, 12) * spread + mean
    np.testing.assert_allclose(model.predict(rows), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(model.predict(rows, columns), model.predict(rows))


def test_network_without_features_tells_columns_apart(given):
    known, truth, rows, _ = given
    options = {"max_iter": 200, "early_stopping": False, "learning_rate_init": 0.01}
    model = fit_mlp(known[:, :11], rows, options=options)
    found = model.predict(rows)
    assert np.corrcoef(found.ravel(), truth[:, :11].ravel())[0, 1] > 0.95
    assert "map" not in model.arrays


@pytest.mark.parametrize("fit", [fit_linear, lambda *a: fit_mlp(*a, options={"max_iter": 3})])
def test_entries_do_not_depend_on_each_other(given, fit):
    known, _, rows, columns = given
    model = fit(known, rows, columns)
    whole = model.predict(rows, columns)
    np.testing.assert_array_equal(model.predict(rows[4:9], columns[2:5]), whole[4:9, 2:5])
    np.testing.assert_array_equal(model.predict(rows[::-1]), model.predict(rows)[::-1])


def test_what_is_hidden_is_not_fitted_to(given):
    known, _, rows, columns = given
    other = rows.copy(), columns.copy()
    other[0][29], other[1][11] = 100.0, -100.0
    one, two = fit_linear(known, rows, columns), fit_linear(known, *other)
    np.testing.assert_array_equal(one.predict(rows)[:29, :11], two.predict(rows)[:29, :11])


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_arrays_are_checked(given, kind):
    known, _, rows, columns = given
    model = fit_linear(known, rows, columns) if kind == "linear" else fit_mlp(known, rows, columns, options={})
    good = dict(model.arrays)
    check_model(kind, good, 12)
    other = "mlp" if kind == "linear" else "linear"
    for wrong, arrays, n in [
        (other, good, 12),
        ("pickle", good, 12),
        (kind, good, 11),
        (kind, {name: array for name, array in good.items() if name != "row_fill"}, 12),
        (kind, {name: array for name, array in good.items() if name != "shift"}, 12),
        (kind, {**good, "more": good["codes"]}, 12),
        (kind, {**good, "codes": good["codes"] * np.nan}, 12),
        (kind, {**good, "codes": good["codes"].astype("f4")}, 12),
        (kind, {**good, "map": good["map"][:, 1:].copy()}, 12),
        (kind, {**good, "row_scale": np.float64(1)}, 12),
    ]:
        with pytest.raises(ValueError, match=r"the array|cannot consist of the arrays"):
            check_model(wrong, arrays, n)


def test_a_network_has_one_activation():
    with pytest.raises(ValueError, match="has the activation 'relu' and no other, not 'tanh'"):
        make_mlp({"activation": "tanh"}, 0)
    with pytest.raises(ValueError, match="the head 'mlp' has no option 'depth'"):
        make_mlp({"depth": 3}, 0)


def test_a_model_is_its_arrays(given):
    known, _, rows, columns = given
    model = fit_linear(known, rows, columns)
    again = PairModel("linear", {name: array.copy() for name, array in model.arrays.items()})
    np.testing.assert_array_equal(again.predict(rows), model.predict(rows))
