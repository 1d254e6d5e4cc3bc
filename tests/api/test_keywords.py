"""Unknown keywords are answered with what to write; wrong arguments name the user's own word."""

from __future__ import annotations

import inspect

import pytest

import mixlm_sparse as mx
from tests.support.corpus import load_data

FORMULA = "Reaction ~ Days + (Days | Subject)"


@pytest.mark.parametrize(
    ("keyword", "value", "remedy"),
    [
        ("REML", False, "write reml=False"),
        ("groups", "Subject", r"written in the formula, as in 'y ~ x \+ \(x \| group\)'"),
        ("re_formula", "~ Days", "written in the formula"),
        ("family", "binomial", "linear mixed models only"),
        ("correlation", "ar1", "take residual=mx.AR1"),
        ("weigths", [1], "did you mean weights"),
        ("cluster", "Subject", "fit.robust"),
        ("verbose", True, "progress=True"),
        ("nonsense", 1, "its arguments are formula, data, reml"),
    ],
)
def test_unknown_keywords_of_lmer_are_answered(keyword, value, remedy):
    with pytest.raises(mx.OptionError, match=f"lmer has no argument '{keyword}': .*{remedy}"):
        mx.lmer(FORMULA, load_data("sleepstudy"), **{keyword: value})
    with pytest.raises(TypeError):  # as Python says it, too
        mx.lmer(FORMULA, load_data("sleepstudy"), **{keyword: value})


def test_help_still_lists_the_arguments():
    assert list(inspect.signature(mx.lmer).parameters)[:3] == ["formula", "data", "reml"]
    assert "reml" in inspect.getdoc(mx.lmer)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_evaluations", 0), ("max_evaluations", 2.5), ("tolerance", -1), ("xtol", "small"),
        ("ftol", float("nan")), ("gradient_tolerance", None), ("check_boundary", 1), ("warn", "no"),
    ],
)  # fmt: skip
def test_fields_of_control_are_checked(field, value):
    with pytest.raises(mx.OptionError, match=f"{field} is"):
        mx.Control(**{field: value})


def test_stages_of_the_fit_refuse_what_is_not_theirs():
    sleep = load_data("sleepstudy")
    system = mx.penalized_system(mx.model_matrices(FORMULA, sleep))
    other = mx.penalized_system(mx.model_matrices("Reaction ~ Days + (1 | Subject)", sleep))
    with pytest.raises(mx.OptionError, match=r"matrices is 'x': use mx.model_matrices"):
        mx.penalized_system("x")
    with pytest.raises(mx.OptionError, match=r"system is None: use mx.penalized_system"):
        mx.optimize(None)
    with pytest.raises(mx.OptionError, match=r"use mx.penalized_system"):
        mx.solve_pls([1, 0, 1], system.matrices)
    with pytest.raises(mx.OptionError, match=r"theta has 1 values: give 3 numbers"):
        mx.solve_pls([1.0], system)
    with pytest.raises(mx.OptionError, match=r"optimum has 1 parameters, system 3"):
        mx.make_fit(system, mx.optimize(other))


def test_files_that_are_not_there(tmp_path):
    fit = mx.lmer("Reaction ~ Days + (1 | Subject)", load_data("sleepstudy"))
    with pytest.raises(mx.SavedFitError, match=r"there is no folder .*missing"):
        fit.save(tmp_path / "missing" / "fit.mixlm")
    with pytest.raises(mx.SavedFitError, match=r"there is no file .*nothing"):
        mx.load(tmp_path / "nothing.mixlm")
    with pytest.raises(FileNotFoundError):
        mx.load(tmp_path / "nothing.mixlm")
    with pytest.raises(mx.OptionError, match="path is 5: give the name of a file"):
        fit.save(5)


def test_a_profile_lists_what_it_has():
    profile = mx.lmer(FORMULA, load_data("sleepstudy")).profile("sigma", progress=False)
    with pytest.raises(mx.OptionError, match="there is no profile of 'zz': use one of 'sigma'"):
        profile["zz"]
    assert profile.get("zz") is None
    assert "zz" not in profile


SLEEP = load_data("sleepstudy")


@pytest.mark.parametrize(
    ("call", "remedy"),
    [
        (lambda fit: mx.power(fit, effect="Days"), r"\(fit.formula, data, fit, effect='Days'\)"),
        (lambda fit: mx.power_curve(fit, SLEEP, effect="Days", n=[9]), "parameters: power_curve"),
        (lambda fit: mx.power(FORMULA, SLEEP), "needs parameters, effect: write power"),
        (lambda fit: mx.lmer(FORMULA), r"lmer needs data: write lmer\(formula, data\)$"),
        (lambda fit: mx.lmer(SLEEP), "the formula in quotes and first"),
        (lambda fit: mx.gls(data=SLEEP), "gls needs formula"),
        (lambda fit: mx.load(), "load needs path"),
        (lambda fit: fit.contest(), r"contest needs L: write contest\(L\)"),
        (lambda fit: fit.emtrends(), r"write emtrends\(variable\)"),
    ],
)
def test_arguments_that_are_needed_are_named(call, remedy):
    fit = mx.lmer(FORMULA, SLEEP)
    with pytest.raises(mx.OptionError, match=remedy):
        call(fit)
    with pytest.raises(TypeError):  # as Python says it, too
        call(fit)
