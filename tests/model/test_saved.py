"""Saved fits: the same in every way, whole or not at all, and never pickled."""

from __future__ import annotations

import json
import os
import zipfile

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx
from mixlm_sparse.model.saved.model import WITHOUT_STRUCTURE
from tests.support import corpus
from tests.support.saved import sealed

SLEEP = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "fit.mixlm"


@pytest.fixture
def sleep():
    return corpus.load_data("sleepstudy")


def again(fit, path, **options):
    """The fit, saved and loaded, which nothing may warn of."""
    load = {name: options.pop(name) for name in ("data", "env", "engine") if name in options}
    fit.save(path, **options)
    return mx.load(path, **load)


def assert_same(a, b):
    assert type(a) is type(b)
    assert a.formula == b.formula
    assert a.criterion == b.criterion
    np.testing.assert_array_equal(a.theta, b.theta)
    pd.testing.assert_series_equal(a.fixef, b.fixef, rtol=1e-12)
    pd.testing.assert_series_equal(a.bse, b.bse, rtol=1e-12)
    assert str(a.summary()) == str(b.summary())
    assert a.messages == b.messages
    assert repr(a.varcorr) == repr(b.varcorr)
    for label, effects in a.ranef().items():
        pd.testing.assert_frame_equal(effects, b.ranef()[label], rtol=1e-10, atol=1e-12)
    assert a.convergence.status == b.convergence.status
    assert a.optimum.history == b.optimum.history
    assert (a.nobs, a.ngroups, a.theta_names) == (b.nobs, b.ngroups, b.theta_names)


MODELS = [model for model in corpus.MODELS if model not in corpus.LARGE]


@pytest.mark.parametrize("model", MODELS)
def test_every_model_comes_back(model, path):
    fit = corpus.fit(model)
    loaded = again(fit, path)
    assert_same(loaded, fit)
    # sums of terms: rounding goes by the size of the response, not of a value near zero
    size = float(np.abs(fit.matrices.y).max())
    np.testing.assert_allclose(loaded.fittedvalues, fit.fittedvalues, rtol=0, atol=1e-12 * size)
    np.testing.assert_allclose(loaded.resid, fit.resid, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "held", [{"sigma": 1.0}, {"sd_(Intercept)|g": 0.8}, {"cor_x.(Intercept)|g": 0.2}]
)
def test_held_parameters_without_data(held, path):
    rng = np.random.default_rng(4)
    data = pd.DataFrame({"g": np.arange(60) % 10, "x": rng.normal(size=60)})
    data["y"] = rng.normal(size=10)[data["g"]] + rng.normal(size=60)
    fit = mx.lmer("y ~ x + (x | g)", data, fixed=held, control=mx.Control(warn=False))
    assert_same(again(fit, path, include_data=False), fit)


@pytest.mark.parametrize("model", MODELS[::4])
def test_without_data(model, path):
    fit = corpus.fit(model)
    loaded = again(fit, path, include_data=False)
    assert_same(loaded, fit)
    with pytest.raises(mx.SavedFitError, match="saved without its data"):
        _ = loaded.resid
    with zipfile.ZipFile(path) as archive:
        assert not [name for name in archive.namelist() if name.startswith("data")]
    data = corpus.data_of(corpus.load_model(model))
    whole = mx.load(path, data=data)
    np.testing.assert_allclose(whole.resid, fit.resid, rtol=1e-9, atol=1e-9)


# ---------------------------------------------------------------------------- what it still does


FORMULAS = [
    "Reaction ~ poly(Days, 2) + (Days | Subject)",
    "Reaction ~ scale(Days) * half + (1 | Subject)",
    "log(Reaction) ~ bs(Days, df=4) + (1 | Subject)",
    "Reaction ~ C(half, sum) + diag(half | Subject)",
    "Reaction ~ Days + I(2 * Days) + (Days || Subject)",
    "Reaction ~ Days + (1 | half:Subject) + (1 | Subject)",
]


@pytest.mark.parametrize("include_data", [True, False])
@pytest.mark.parametrize("formula", FORMULAS)
def test_predicts_and_tests_as_the_original(sleep, path, formula, include_data):
    data = sleep.assign(half=np.where(sleep["Days"] < 5, "early", "late"))
    fit = corpus.quiet(mx.lmer, formula, data)
    loaded = again(fit, path, include_data=include_data)
    new = pd.DataFrame(
        {"Days": [0.5, 3.0, 9.5], "half": ["early", "late", "late"], "Subject": ["308", "372", "?"]}
    )
    for interval in ("confidence", "prediction"):
        arguments = {"newdata": new, "interval": interval, "allow_new_levels": True}
        pd.testing.assert_frame_equal(
            loaded.predict(**arguments), fit.predict(**arguments), rtol=1e-9
        )
    with pytest.raises(mx.DataError, match=r"\?"):
        loaded.predict(new)
    pd.testing.assert_frame_equal(
        loaded.tidy(["fixed", "ran_pars"], conf_int=True),
        fit.tidy(["fixed", "ran_pars"], conf_int=True),
        rtol=1e-6,
    )
    assert loaded.refit_ml().criterion == pytest.approx(fit.refit_ml().criterion, abs=1e-8)
    wald, expected = loaded.confint(method="wald"), fit.confint(method="wald")
    pd.testing.assert_frame_equal(wald, expected, rtol=1e-6)


def test_parameters_held_come_back_without_data(sleep, path):
    held = {"sd_Days|Subject": 5.0, "cor_Days.(Intercept)|Subject": 0.1}
    for fixed in ({"sigma": 25.0}, held):
        fit = mx.lmer(SLEEP, sleep, fixed=fixed)
        loaded = again(fit, path, include_data=False)
        assert loaded.criterion == fit.criterion
        pd.testing.assert_series_equal(loaded.bse, fit.bse, rtol=1e-12)
        assert repr(loaded.varcorr) == repr(fit.varcorr)


def test_with_data_it_does_everything(sleep, path):
    frame = sleep.assign(Reaction=sleep["Reaction"].mask(sleep["Days"] == 3))
    frame.index = pd.Index([f"row{i}" for i in range(180)], name="id")
    fit = mx.lmer(SLEEP, frame, na_action="exclude")
    loaded = again(fit, path)
    assert_same(loaded, fit)
    assert np.isnan(loaded.resid).sum() == 18
    pd.testing.assert_frame_equal(loaded.augment(), fit.augment())
    simpler = loaded.update(". ~ . - (Days | Subject) + (1 | Subject)")
    assert simpler.criterion == pytest.approx(
        fit.update(". ~ . - (Days | Subject) + (1 | Subject)").criterion, abs=1e-9
    )
    np.testing.assert_allclose(loaded.simulate(2, seed=1), fit.simulate(2, seed=1))
    np.testing.assert_allclose(loaded.hatvalues(), fit.hatvalues())
    pd.testing.assert_frame_equal(mx.anova(loaded, simpler), mx.anova(fit, simpler))
    new = fit.fittedvalues[~np.isnan(fit.fittedvalues)] + 1.0
    assert loaded.refit(new).criterion == pytest.approx(fit.refit(new).criterion, rel=1e-8)


def test_arguments_as_arrays_and_strings(sleep, path):
    rng = np.random.default_rng(0)
    w = pd.Series(rng.uniform(0.5, 2.0, 180), index=sleep.index)
    arrays = {
        "weights": w, "offset": rng.normal(size=180), "subset": np.arange(180) % 7 != 0,
    }  # fmt: skip
    fit = mx.lmer(SLEEP, sleep, **arrays)
    for include_data in (True, False):
        loaded = again(fit, path, include_data=include_data)
        assert_same(loaded, fit)
        assert loaded.nobs == fit.nobs < 180
    whole = mx.load(path, data=sleep)
    np.testing.assert_allclose(whole.resid, fit.resid)
    named = mx.lmer(
        SLEEP, sleep.assign(w=w, o=1.5), weights="w", offset="o * 2", subset="Days > 1",
    )  # fmt: skip
    loaded = again(named, path)
    assert_same(loaded, named)
    assert "Weights: w" in loaded.summary()
    assert loaded.update(reml=False).criterion == pytest.approx(named.refit_ml().criterion)


@pytest.mark.parametrize("ordered", [True, False])
def test_kinds_of_columns(path, ordered):
    rng = np.random.default_rng(1)
    n = 120
    frame = pd.DataFrame(
        {
            "y": rng.normal(size=n),
            "dose": pd.Categorical(
                rng.choice(["low", "mid", "high"], n), ["low", "mid", "high"], ordered=ordered
            ),
            "flag": rng.random(n) < 0.5,
            "count": pd.array(rng.integers(0, 5, n), dtype="Int64"),
            "day": pd.to_datetime("2020-01-01") + pd.to_timedelta(np.arange(n) % 10, unit="D"),
            "site": rng.integers(7, 12, n),
            "code": pd.Categorical(rng.integers(1, 13, n)),
        }
    )
    frame.loc[3, "count"] = pd.NA
    formula = "y ~ dose + flag + count + factor(site) + (1 | day) + (flag | code)"
    fit = corpus.quiet(mx.lmer, formula, frame)
    loaded = again(fit, path)
    assert_same(loaded, fit)
    np.testing.assert_allclose(loaded.fittedvalues, fit.fittedvalues)
    assert list(loaded.ranef()["code"].index) == list(range(1, 13))
    assert loaded.ranef()["day"].index.dtype == fit.ranef()["day"].index.dtype == frame["day"].dtype


def test_contrasts_and_functions_of_the_user(sleep, path):
    data = sleep.assign(third=pd.Categorical(np.arange(180) % 3))
    choices = {"third": np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])}
    fit = mx.lmer(
        "Reaction ~ third + twice(Days) + (1 | Subject)",
        data,
        contrasts=choices,
        env={"twice": lambda x: 2 * x},
    )
    fit.save(path)
    with pytest.raises(mx.SavedFitError, match=r"calls the function 'twice'.*env={'twice'"):
        mx.load(path)
    loaded = mx.load(path, env={"twice": lambda x: 2 * x})
    assert_same(loaded, fit)
    assert loaded.update(reml=False).criterion == pytest.approx(fit.refit_ml().criterion)


def test_refits_and_fits_of_matrices(sleep, path):
    fit = corpus.fit("sleep_rs_reml")
    other = fit.refit(fit.matrices.y[::-1].copy())
    loaded = again(other, path)
    assert_same(loaded, other)
    np.testing.assert_allclose(loaded.resid, other.resid)
    other.save(path, include_data=False)
    assert mx.load(path).criterion == other.criterion
    with pytest.raises(mx.SavedFitError, match=r"given to refit\(y\)"):
        mx.load(path, data=sleep)

    X = np.column_stack([np.ones(180), sleep["Days"]])
    made = mx.fit_matrices(
        sleep["Reaction"], X, [(sleep["Subject"], X, "Subject")], weights=np.linspace(1, 2, 180)
    )
    for include_data in (True, False):
        loaded = again(made, path, include_data=include_data)
        assert_same(loaded, made)
    with pytest.raises(mx.SavedFitError, match="made from matrices"):
        mx.load(path, data=sleep)
    loaded = again(made, path)
    np.testing.assert_allclose(loaded.resid, made.resid)
    assert loaded.update(reml=False).criterion == pytest.approx(made.refit_ml().criterion)


def test_perfect_and_singular_fits(sleep, path):
    data = sleep.assign(Reaction=3.0 + 2.0 * sleep["Days"])
    fit = corpus.quiet(mx.lmer, "Reaction ~ Days + (1 | Subject)", data)
    loaded = again(fit, path)
    assert loaded.criterion == -np.inf
    assert loaded.sigma == 0.0
    assert_same(loaded, fit)
    assert_same(again(corpus.fit("pub_rikz_rs_ml"), path), corpus.fit("pub_rikz_rs_ml"))


def test_engine_may_be_chosen(path):
    fit = corpus.fit("penicillin_reml")
    loaded = again(fit, path, engine="sparse")
    assert loaded.system.engine.name == "sparse"
    np.testing.assert_allclose(loaded.fixef, fit.fixef)
    with pytest.raises(mx.OptionError, match="engine is 'dense'"):
        mx.load(path, engine="dense")


def test_saved_again(path):
    fit = corpus.fit("sleep_rs_reml")
    fit.save(path)
    first = path.read_bytes()
    mx.load(path).save(path)
    assert path.read_bytes() == first
    mx.load(path).save(path, include_data=False)
    small = path.read_bytes()
    mx.load(path).save(path)  # there are no data to include
    assert path.read_bytes() == small


# ---------------------------------------------------------------------------- without the rows


@pytest.mark.parametrize(
    "need",
    [
        lambda fit: fit.fittedvalues,
        lambda fit: fit.hatvalues(),
        lambda fit: fit.augment(),
        lambda fit: fit.getME("X"),
        lambda fit: fit.getME("flist"),
        lambda fit: fit.refit(np.ones(180)),
        lambda fit: fit.update(". ~ . + I(Days^2)"),
        lambda fit: fit.bootstrap(2),
        lambda fit: fit.predict(),
    ],
)
def test_what_needs_the_rows_says_so(path, need):
    loaded = again(corpus.fit("sleep_rs_reml"), path, include_data=False)
    with pytest.raises(
        mx.SavedFitError, match=r"mx\.load\(path, data=frame\), or save it with include_data=True"
    ):
        need(loaded)


def test_the_file_holds_no_rows(path, sleep):
    fit = mx.lmer(SLEEP, sleep)
    fit.save(path, include_data=False)
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            content = archive.read(info)
            if info.filename.endswith(".npy"):
                assert len(content) < 180 * 8
    table = mx.compare_table([mx.load(path)])
    assert "ICC" in table


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d[:170], "do not go with the saved fit: rows 170"),
        (lambda d: d.assign(Reaction=d["Reaction"] + 1), "another response"),
        (lambda d: d.rename(columns={"Days": "days"}), "no column 'Days'"),
        (lambda d: d.assign(Subject=np.arange(180) % 20), "levels"),
    ],
)
def test_other_data_are_refused(path, sleep, change, message):
    mx.lmer(SLEEP, sleep).save(path, include_data=False)
    with pytest.raises(mx.SavedFitError, match=message):
        mx.load(path, data=change(sleep))


def test_data_that_changed_since_the_fit_do_not_matter(path, sleep):
    frame = sleep.copy()
    fit = mx.lmer(SLEEP, frame)
    expected = fit.augment()
    frame.loc[180] = frame.loc[0]
    frame["Reaction"] = frame["Reaction"] + 1.0
    frame.loc[3, "Days"] = 77.0
    frame["Subject"] = frame["Subject"].to_numpy()[::-1]
    loaded = again(fit, path)
    assert_same(loaded, fit)
    pd.testing.assert_frame_equal(loaded.augment(), expected)
    assert loaded.update(reml=False).criterion == pytest.approx(fit.refit_ml().criterion)


# ------------------------------------------------------------------------ files that are not whole


def test_no_pickle_in_the_file(path):
    corpus.fit("sleep_rs_reml").save(path)
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        document = json.loads(archive.read("fit.json"))
    assert names[0] == "fit.json"
    assert all(name.endswith(".npy") for name in names[1:])
    assert document["version"] == WITHOUT_STRUCTURE
    with np.load(path, allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["optimum.theta"], corpus.fit("sleep_rs_reml").theta)


def test_a_failure_leaves_the_old_file(path, tmp_path, monkeypatch):
    fit = corpus.fit("sleep_rs_reml")
    fit.save(path)
    before = path.read_bytes()

    def fail(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space"):
        fit.refit_ml().save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["fit.mixlm"]


def test_links_are_followed(path, tmp_path):
    corpus.fit("sleep_rs_reml").save(path)
    link = tmp_path / "link.mixlm"
    link.symlink_to(path)
    corpus.fit("penicillin_reml").save(link)
    assert link.is_symlink()
    assert "penicillin" in mx.load(path).formula or "plate" in mx.load(path).formula


def test_foreign_files(tmp_path):
    with pytest.raises(FileNotFoundError):
        mx.load(tmp_path / "none.mixlm")
    text = tmp_path / "a.csv"
    text.write_text("x,y\n1,2\n")
    with pytest.raises(mx.SavedFitError, match="is not a saved fit"):
        mx.load(text)
    other = tmp_path / "b.zip"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("hello.txt", "hello")
    with pytest.raises(mx.SavedFitError, match=r"without fit\.json"):
        mx.load(other)
    arrays = tmp_path / "c.npz"
    np.savez(arrays, x=np.ones(3))
    with pytest.raises(mx.SavedFitError, match=r"without fit\.json"):
        mx.load(arrays)


def rewritten(path, change=None, drop=(), replace=None):
    """The archive with its document changed, and members left out or replaced."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    document = json.loads(members["fit.json"])
    if change is not None:
        change(document)
    members["fit.json"] = json.dumps(document).encode()
    members.update(replace or {})
    kept = {name: content for name, content in members.items() if name not in drop}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in sealed(kept).items():
            archive.writestr(name, content)


def pickled() -> bytes:
    import io

    stream = io.BytesIO()
    np.save(stream, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"change": lambda d: d.update(version=99)}, "later version.*upgrade"),
        ({"change": lambda d: d.update(version="x")}, "is broken"),
        ({"change": lambda d: d.update(version=0)}, "is broken"),
        ({"change": lambda d: d.update(version=True)}, "is broken"),
        ({"change": lambda d: d.update(call=None)}, "is broken"),
        ({"change": lambda d: d.update(format="else")}, "does not say that it is a saved fit"),
        ({"change": lambda d: d.pop("optimum")}, "is broken"),
        ({"change": lambda d: d["products"].update(kept=[0])}, "is broken"),
        ({"change": lambda d: d["matrices"].update(nobs=7)}, "is broken"),
        ({"drop": ("ztz.0.npy",)}, r"the array 'ztz\.0' is missing"),
        ({"drop": ("optimum.theta.npy",)}, "is missing"),
        ({"replace": {"fit.json": b"{"}}, "is broken"),
        ({"replace": {"fit.json": b"[1]"}}, "is broken"),
        ({"replace": {"R_x.npy": b"nonsense"}}, "is broken"),
        ({"replace": {"R_x.npy": pickled()}}, "is broken"),
    ],
)
def test_broken_files(path, options, message):
    corpus.fit("sleep_rs_reml").save(path)
    rewritten(path, **options)
    with pytest.raises(mx.SavedFitError, match=message):
        mx.load(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_truncated_files(path, share):
    corpus.fit("sleep_rs_reml").save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(mx.SavedFitError, match="not a saved fit, or not the whole of it"):
        mx.load(path)


def test_flipped_bits_are_noticed(path):
    corpus.fit("sleep_rs_reml").save(path)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("R_x.npy")
    content[info.header_offset + 60] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(mx.SavedFitError):
        mx.load(path)


def test_models_are_compared_without_rows(path):
    loaded = again(corpus.fit("sleep_rs_reml"), path, include_data=False)
    table = mx.anova(loaded, corpus.fit("sleep_rs_reml").update(". ~ . + I(Days^2)"))
    assert np.isfinite(table["Chisq"].iloc[1])
