"""Cox regressions of all genes at once give the numbers of lifelines and statsmodels, one gene at a time."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from statsmodels.duration.hazard_regression import PHReg

from bulkformer_tl.metrics._cox_screen import cox_screen


def simulate(n: int = 90, genes: int = 5, *, seed: int = 0) -> dict[str, np.ndarray]:
    """Genes of which the first shortens survival; many times are tied."""
    rng = np.random.default_rng(seed)
    values = rng.normal(3, [0.3, 1, 2, 1, 5][:genes], (n, genes))
    time = np.ceil(rng.exponential(12 * np.exp(-1.5 * (values[:, 0] - 3))))
    return {
        "time": time,
        "event": rng.random(n) < 0.6,
        "values": values,
        "strata": rng.integers(0, 3, n),
        "covariates": rng.normal(size=(n, 2)),
    }


CASES = {"alone": [], "strata": ["strata"], "covariates": ["covariates"], "both": ["strata", "covariates"]}


@pytest.mark.parametrize("use", CASES.values(), ids=CASES)
def test_equals_statsmodels_gene_by_gene(use):
    data = simulate()
    given = {name: data[name] for name in use}
    coefficient, error = cox_screen(data["time"], data["event"], data["values"], **given)
    for gene in range(data["values"].shape[1]):
        columns = np.column_stack([data["values"][:, gene], data["covariates"]][: 1 + ("covariates" in use)])
        strata = data["strata"] if "strata" in use else None
        fit = PHReg(data["time"], columns, status=data["event"].astype(int), strata=strata, ties="efron").fit()
        assert coefficient[gene] == pytest.approx(fit.params[0], rel=1e-5, abs=1e-6)
        assert error[gene] == pytest.approx(fit.bse[0], rel=1e-5)


@pytest.mark.parametrize("use", CASES.values(), ids=CASES)
def test_equals_lifelines_gene_by_gene(use):
    lifelines = pytest.importorskip("lifelines", reason="lifelines needs pandas 2")
    data = simulate(seed=1)
    given = {name: data[name] for name in use}
    coefficient, error = cox_screen(data["time"], data["event"], data["values"], **given)
    for gene in range(data["values"].shape[1]):
        table = pd.DataFrame({"gene": data["values"][:, gene], "time": data["time"], "event": data["event"]})
        if "strata" in use:
            table["strata"] = data["strata"]
        if "covariates" in use:
            table[["a", "b"]] = data["covariates"]
        fitter = lifelines.CoxPHFitter()
        tight = {"precision": 1e-12, "r_precision": 1e-15}
        fitter.fit(table, "time", "event", strata=["strata"] if "strata" in use else None, fit_options=tight)
        assert coefficient[gene] == pytest.approx(fitter.params_["gene"], rel=1e-4, abs=1e-6)
        assert error[gene] == pytest.approx(fitter.standard_errors_["gene"], rel=1e-4)


def test_one_gene_or_many_make_no_difference():
    data = simulate()
    together = cox_screen(data["time"], data["event"], data["values"], covariates=data["covariates"])
    for gene in range(data["values"].shape[1]):
        alone = cox_screen(data["time"], data["event"], data["values"][:, [gene]], covariates=data["covariates"])
        np.testing.assert_allclose([part[0] for part in alone], [part[gene] for part in together], rtol=1e-10)


def test_unit_and_origin_of_a_gene_do_not_matter():
    data = simulate()
    coefficient, error = cox_screen(data["time"], data["event"], data["values"])
    moved, moved_error = cox_screen(data["time"], data["event"], 1000 * data["values"] + 1e5)
    np.testing.assert_allclose(1000 * moved, coefficient, rtol=1e-6)
    np.testing.assert_allclose(1000 * moved_error, error, rtol=1e-6)


def test_what_has_no_maximum_is_unknown():
    time = np.arange(1.0, 21)
    event = np.ones(20, dtype=bool)
    separated, noise = -time, np.random.default_rng(0).normal(size=20)
    coefficient, error = cox_screen(time, event, np.column_stack([separated, noise, 2 * noise + 1]), covariates=None)
    assert np.isnan([coefficient[0], error[0]]).all()
    assert np.isfinite([coefficient[1:], error[1:]]).all()
    coefficient, _ = cox_screen(time, event, np.column_stack([noise, time % 3]), covariates=(2 * noise + 1)[:, None])
    assert np.isnan(coefficient[0])
    assert np.isfinite(coefficient[1])
