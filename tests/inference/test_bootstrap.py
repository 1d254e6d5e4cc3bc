"""The bootstrap: names, seeds, methods, intervals, failures and an early end."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.special import ndtr, ndtri

import mixlm_sparse as mx
from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.inference.resample.draws import GroupDraw, RowDraw, group_draw
from mixlm_sparse.inference.resample.intervals import interval
from mixlm_sparse.inference.resample.responses import Semiparametric, reflated
from tests.model.test_predict import crossed_data, quiet_fit

NAMES = [
    "sd_(Intercept)|Subject", "cor_Days.(Intercept)|Subject", "sd_Days|Subject", "sigma",
    "(Intercept)", "Days",
]  # fmt: skip


@pytest.fixture(scope="module")
def sleep():
    return mx.datasets.load("sleepstudy")


@pytest.fixture(scope="module")
def fit(sleep):
    return mx.lmer("Reaction ~ Days + (Days | Subject)", sleep)


@pytest.fixture(scope="module")
def boot(fit):
    return fit.bootstrap(200, seed=11)


def test_all_parameters_by_the_names_of_confint(fit, boot):
    assert list(boot.samples.columns) == NAMES
    cov = fit.varcorr["Subject"].to_numpy()
    sd = np.sqrt(np.diag(cov))
    expected = [sd[0], cov[0, 1] / sd[0] / sd[1], sd[1], fit.sigma, *fit.fixef]
    assert boot.original.to_numpy() == pytest.approx(expected)
    assert boot.samples.shape == (200, 6)
    assert boot.complete
    assert boot.n_failed == 0
    # within the Monte-Carlo error of 200 replicates
    assert boot.samples["Days"].std() == pytest.approx(fit.bse["Days"], rel=0.2)


def test_samples_are_refits_of_simulated_responses(fit, boot):
    Y = fit.simulate(3, seed=11)
    for i in range(3):
        again = fit.refit(Y[:, i])
        assert boot.samples.loc[i, "sigma"] == pytest.approx(again.sigma, rel=1e-5)
        assert boot.samples.loc[i, "Days"] == pytest.approx(again.fixef["Days"], rel=1e-4)


@pytest.mark.parametrize("method", ["parametric", "semiparametric", "cases", "groups"])
def test_a_seed_gives_the_same_samples_on_any_number_of_processes(fit, method):
    one = fit.bootstrap(40, seed=5, method=method)
    two = fit.bootstrap(40, seed=5, method=method, n_jobs=2)
    pd.testing.assert_frame_equal(one.samples, two.samples)
    other = fit.bootstrap(40, seed=6, method=method)
    assert not np.array_equal(one.samples, other.samples)
    again = fit.bootstrap(5, seed=one.entropy, method=method)
    pd.testing.assert_frame_equal(one.samples.iloc[:5], again.samples)


def test_statistics_of_ones_own(fit, sleep):
    by_name = fit.bootstrap(
        10, seed=1, statistic=lambda f: {"ratio": f.varcorr["Subject"].iloc[0, 0] / f.scale}
    )
    assert list(by_name.samples.columns) == ["ratio"]
    series = fit.bootstrap(10, seed=1, statistic=lambda f: f.fixef)
    assert list(series.samples.columns) == ["(Intercept)", "Days"]
    all_of_them = fit.bootstrap(10, seed=1)
    assert series.samples["Days"].to_numpy() == pytest.approx(all_of_them.samples["Days"])
    new = sleep.iloc[:2].assign(Days=[20.0, 30.0])
    predicted = fit.bootstrap(10, seed=1, statistic=lambda f: f.predict(new, "population"))
    assert list(predicted.samples.columns) == ["0", "1"]
    X = np.array([[1.0, 20.0], [1.0, 30.0]])
    assert predicted.samples.to_numpy() == pytest.approx(series.samples.to_numpy() @ X.T)
    for method in ("cases", "groups"):
        b = fit.bootstrap(3, seed=1, method=method, statistic=lambda f: f.predict(new, "~0"))
        assert b.n_failed == 0


def test_failures_are_counted_and_kept(fit):
    calls = []

    def fragile(f):
        calls.append(f)
        if len(calls) in (3, 6):
            raise ValueError("no luck")
        return f.sigma

    boot = fit.bootstrap(10, statistic=fragile, seed=1)
    assert boot.n_failed == 2
    assert boot.failures["replicate"].tolist() == [1, 4]
    assert boot.failures["message"].str.contains("ValueError: no luck").all()
    assert boot.samples["t1"].isna().tolist() == [i in (1, 4) for i in range(10)]
    assert np.isfinite(boot.confint().to_numpy()).all()
    assert "2 failed" in repr(boot)
    shapes = iter(range(1, 20))
    ragged = fit.bootstrap(3, statistic=lambda f: np.ones(next(shapes)), seed=1)
    assert "has 2 values, that of the fit has 1" in ragged.message[0]
    with pytest.raises(OptionError, match="too few"):
        ragged.confint()


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_early_end_keeps_what_is_done(fit, jobs):
    whole = fit.bootstrap(300, seed=2)
    seen = []

    def progress(done, total):
        seen.append((done, total))
        return done < 20

    part = fit.bootstrap(300, seed=2, progress=progress, n_jobs=jobs)
    assert not part.complete
    assert 20 <= part.n_done < 300
    assert seen[-1] == (part.n_done, 300)
    pd.testing.assert_frame_equal(part.samples, whole.samples.iloc[: part.n_done])
    assert "ended early" in repr(part)

    def interrupt(done, total):
        if done >= 20:
            raise KeyboardInterrupt

    assert 20 <= fit.bootstrap(300, seed=2, progress=interrupt, n_jobs=jobs).n_done < 300


# ---------------------------------------------------------------------------------------------
# Intervals
# ---------------------------------------------------------------------------------------------


def test_intervals_by_their_definitions(boot):
    t = boot.samples["Days"].to_numpy()
    t0 = boot.original["Days"]
    low, high = np.quantile(t, [0.05, 0.95], method="weibull")
    one = boot.confint(0.9, parm="Days")
    assert one.loc["Days"].tolist() == pytest.approx([low, high])
    assert boot.confint(0.9, "basic").loc["Days"].tolist() == pytest.approx(
        [2 * t0 - high, 2 * t0 - low]
    )
    half = ndtri(0.95) * t.std(ddof=1)
    centre = t0 - (t.mean() - t0)
    assert boot.confint(0.9, "normal").loc["Days"].tolist() == pytest.approx(
        [centre - half, centre + half]
    )
    assert boot.confint(parm="theta_").index.tolist() == NAMES[:4]
    frame = boot.to_frame()
    assert frame["bias"].to_numpy() == pytest.approx(frame["mean"] - frame["estimate"])


def test_bca_without_bias_and_acceleration_is_the_percentile_interval():
    samples = np.arange(-500.0, 501.0)
    flat = np.array([-1.0, 1.0])
    assert interval(samples, 0.0, 0.9, "bca", flat) == pytest.approx(
        interval(samples, 0.0, 0.9, "percentile")
    )


def test_bca_follows_efrons_formula():
    rng = np.random.default_rng(1)
    samples = rng.exponential(size=999)
    left_out = rng.exponential(size=20)
    t0 = 0.8
    z0 = ndtri(np.mean(samples < t0))
    d = left_out.mean() - left_out
    a = (d**3).sum() / (6 * (d**2).sum() ** 1.5)
    tails = [ndtr(z0 + (z0 + z) / (1 - a * (z0 + z))) for z in (ndtri(0.025), ndtri(0.975))]
    expected = np.quantile(samples, tails, method="weibull")
    assert interval(samples, t0, 0.95, "bca", left_out) == pytest.approx(tuple(expected))


def test_bca_takes_one_group_out_at_a_time(fit, sleep, boot):
    left_out = boot.jackknife_values()
    assert left_out.shape == (18, 6)
    without = mx.lmer("Reaction ~ Days + (Days | Subject)", sleep[sleep["Subject"] != "309"],
                      control=mx.Control(warn=False))  # fmt: skip
    assert left_out[1, 3] == pytest.approx(without.sigma, rel=1e-5)
    assert left_out[1, 5] == pytest.approx(without.fixef["Days"], rel=1e-5)
    assert np.isfinite(boot.confint(type="bca").to_numpy()).all()


# ---------------------------------------------------------------------------------------------
# Methods
# ---------------------------------------------------------------------------------------------


def test_reflated_effects_have_the_covariance_asked_for():
    rng = np.random.default_rng(0)
    b = rng.normal(size=(30, 3)) @ rng.normal(size=(3, 3)) + 5.0
    R = np.diag([1.0, 2.0, 0.5]) + 0.1
    out = reflated(b, R)
    assert out.mean(axis=0) == pytest.approx(0.0, abs=1e-12)
    assert out.T @ out / 30 == pytest.approx(R)
    assert reflated(np.zeros((4, 2)), np.eye(2)).tolist() == [[0.0, 0.0]] * 4
    flat = np.outer(np.arange(6.0), [1.0, 0.0])
    assert reflated(flat, np.eye(2))[:, 1] == pytest.approx(0.0)


def test_semiparametric_responses_are_made_of_what_the_fit_has(fit):
    from mixlm_sparse.model.draws import seed_sequence

    held = Semiparametric(fit, seed_sequence(1), use_u=True)(0, 4)
    e = (held - fit.fittedvalues.to_numpy()[:, None]).ravel()
    r = fit.resid.to_numpy()
    r = r - r.mean()
    pool = r * fit.sigma / np.sqrt(np.mean(r**2))
    assert np.abs(e[:, None] - pool[None, :]).min(axis=1).max() < 1e-9
    assert fit.bootstrap(5, method="semiparametric", use_u=True, seed=1).n_failed == 0


def test_weighted_semiparametric_and_rows_with_offsets():
    data = crossed_data()
    fit = quiet_fit("y ~ x + (1 | g)", data, weights="w", offset="o")
    for method in ("parametric", "semiparametric", "cases", "groups"):
        boot = fit.bootstrap(60, method=method, seed=3)
        assert boot.n_failed == 0
        spread = boot.samples["x"].std()
        assert 0.3 * fit.bse["x"] < spread < 3 * fit.bse["x"]


def test_cases_refit_the_rows_drawn(fit, sleep):
    from mixlm_sparse.model.draws import seed_sequence, stream

    boot = fit.bootstrap(2, method="cases", seed=4)
    rows = stream(seed_sequence(4), 1).integers(180, size=180)
    own = mx.lmer("Reaction ~ Days + (Days | Subject)", sleep.iloc[rows],
                  control=mx.Control(warn=False))  # fmt: skip
    assert boot.samples.loc[1, "sigma"] == pytest.approx(own.sigma, rel=1e-5)
    assert boot.samples.loc[1, "Days"] == pytest.approx(own.fixef["Days"], rel=1e-5)


def test_a_group_drawn_twice_is_two_groups(fit, sleep):
    groups = group_draw(fit, None)
    rows, copies = groups.rows(np.array([0, 0, 3, *range(4, 18)]))
    m = RowDraw(fit.matrices).take(rows, copies, groups.nested)
    assert m.factors[0].n_levels == 17
    assert m.factors[0].levels[:3] == ["308", "310", "330"] or "308#2" in m.factors[0].levels
    frame = pd.concat([sleep.iloc[rows]])
    frame["Subject"] = copies
    own = mx.lmer("Reaction ~ Days + (Days | Subject)", frame, control=mx.Control(warn=False))
    system = mx.penalized_system(m)
    assert mx.optimize(system).criterion == pytest.approx(own.criterion, abs=1e-6)


def test_nested_groups_follow_and_crossed_ones_must_be_named():
    pastes = mx.datasets.load("Pastes")
    nested = mx.lmer("strength ~ 1 + (1 | batch/cask)", pastes, control=mx.Control(warn=False))
    groups = group_draw(nested, None)
    assert groups.n_groups == 10
    assert len(groups.nested) == 2
    rows, copies = groups.rows(np.array([1, 1, 2, 3]))
    m = RowDraw(nested.matrices).take(rows, copies, groups.nested)
    assert sorted(f.n_levels for f in m.factors) == [4, 12]
    penicillin = mx.datasets.load("Penicillin")
    crossed = mx.lmer("diameter ~ 1 + (1 | plate) + (1 | sample)", penicillin)
    with pytest.raises(OptionError, match=r"'plate', 'sample' are crossed.*by="):
        crossed.bootstrap(3, method="groups")
    assert crossed.bootstrap(3, method="groups", by="plate", seed=1).n_failed == 0
    assert isinstance(group_draw(crossed, "sample"), GroupDraw)


@pytest.mark.parametrize(("options", "words"), [
    ({"method": "magic"}, "'parametric', 'semiparametric', 'cases', 'groups'"),
    ({"nsim": 0}, "at least 1"),
    ({"statistic": "sigma"}, "function of a fit"),
    ({"method": "groups", "by": "School"}, "'School'.*'Subject'"),
    ({"by": "Subject"}, 'method="groups"'),
    ({"method": "cases", "use_u": True}, "use_u"),
    ({"statistic": lambda f: "text"}, "returned str"),
    ({"n_jobs": -3}, "n_jobs"),
    ({"progress": 5}, "progress"),
])  # fmt: skip
def test_wrong_arguments_are_named(fit, options, words):
    with pytest.raises(OptionError, match=words):
        fit.bootstrap(**{"nsim": 2, **options})


def test_wrong_arguments_of_intervals_are_named(boot):
    with pytest.raises(OptionError, match="'percentile', 'basic', 'normal', 'bca'"):
        boot.confint(type="perc")
    with pytest.raises(OptionError, match="between 0 and 1"):
        boot.confint(95)
    with pytest.raises(OptionError, match="'Weeks'"):
        boot.confint(parm="Weeks")


def test_a_singular_fit_can_be_bootstrapped():
    fit = quiet_fit("Yield ~ 1 + (1 | Batch)", mx.datasets.load("Dyestuff2"))
    boot = fit.bootstrap(50, seed=1)
    assert boot.n_failed == 0
    assert (boot.samples["sd_(Intercept)|Batch"] == 0).any()
    assert "singular" in boot.status
