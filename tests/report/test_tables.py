"""Tables for papers: Markdown, LaTeX, several models side by side, and maketables."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx
from mixlm_sparse.common.render import latex_cell, latex_table, latex_text, markdown_table
from tests.support import corpus
from tests.support.other_tools import needed


@pytest.fixture
def sleep():
    return corpus.load_data("sleepstudy")


@pytest.fixture
def fits(sleep):
    small = mx.lmer("Reaction ~ Days + (1 | Subject)", sleep)
    return [small, corpus.fit("sleep_rs_reml")]


def rows_of(markdown: str) -> list[list[str]]:
    """Cells of the tables in Markdown, the rules under the heads left out."""
    rows = []
    for line in markdown.splitlines():
        if line.startswith("|") and not re.fullmatch(r"[|:\- ]+", line):
            cells = re.split(r"(?<!\\)\|", line)[1:-1]
            rows.append([re.sub(r"\\(.)", r"\1", cell).strip() for cell in cells])
    return rows


class Reader(HTMLParser):
    """Cells of the tables in HTML, and whether every tag is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        if tag != "br":
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def balanced(latex: str) -> bool:
    bare = latex.replace(r"\{", "").replace(r"\}", "")
    begun = re.findall(r"\\begin\{(\w+)\}", latex)
    return (
        bare.count("{") == bare.count("}")
        and begun == re.findall(r"\\end\{(\w+)\}", latex)
        and latex.replace(r"\$", "").count("$") % 2 == 0
    )


# ------------------------------------------------------------------------------------------- cells


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("-1.5", "$-1.5$"),
        ("(0.25)", "($0.25$)"),
        ("251.405***", "$251.405^{***}$"),
        ("1.2e-05", r"$1.2 \times 10^{-5}$"),
        ("<2e-16", r"$< 2 \times 10^{-16}$"),
        ("a_b & 50%", r"a\_b \& 50\%"),
        ("(Intercept)", "(Intercept)"),
        ("I(x^2)", r"I(x\textasciicircum{}2)"),
        ("NaN", "NaN"),
        ("", ""),
    ],
)
def test_latex_cells(text, latex):
    assert latex_cell(text) == latex


def test_latex_escapes_everything_special():
    assert latex_text("\\#$%&~_^{}<>|") == (
        r"\textbackslash{}\#\$\%\&\textasciitilde{}\_\textasciicircum{}\{\}"
        r"\textless{}\textgreater{}\textbar{}"
    )


def test_markdown_keeps_columns_apart():
    lines = markdown_table([("a|b", "x*y"), ("n", "1")])
    assert lines == [
        r"| a\|b |   n |",
        "| ---- | --: |",
        r"| x\*y |   1 |",
    ]


def test_latex_rules():
    lines = latex_table([("", "a", "b"), ("n", "1", "2")], rules=[1])
    assert [line.strip() for line in lines] == [
        r"\begin{tabular}{lr}", r"\toprule", r"& n \\", r"\midrule", r"a & $1$ \\", r"\midrule",
        r"b & $2$ \\", r"\bottomrule", r"\end{tabular}",
    ]  # fmt: skip


# ------------------------------------------------------------------------------------- the summary


@pytest.mark.parametrize("model", ["sleep_rs_reml", "penicillin_reml", "pub_rikz_rs_ml"])
def test_the_summary_says_the_same_in_every_format(model):
    fit = corpus.fit(model)
    summary = fit.summary()
    markdown, latex, html = summary.to_markdown(), summary.to_latex(), summary.to_html()
    assert html == summary.html == summary._repr_html_()
    cells = [cell for row in rows_of(markdown) for cell in row]
    shown = [cell for row in Reader(html).rows for cell in row]
    assert cells == shown
    for value in summary.split("Fixed effects")[1].split("Correlation")[0].split():
        assert value.strip("():") in markdown.replace("\\", "")
    assert balanced(latex)
    assert latex.count(r"\begin{tabular}") == html.count("<table>")
    assert fit.formula in markdown
    for message in fit.messages:
        assert message in markdown.replace("\\", "")


def test_summary_with_weights_and_odd_names(sleep):
    frame = sleep.assign(w=np.linspace(1, 2, 180)).rename(columns={"Days": "days_of_50%"})
    fit = mx.lmer("Reaction ~ `days_of_50%` + (1 | Subject)", frame, weights="w")
    summary = fit.summary()
    assert r"days\_of\_50\%" in summary.to_latex()
    assert balanced(summary.to_latex())
    assert "Weights: w" in summary.to_markdown()
    assert "Weights: w" in summary.to_latex()


# ------------------------------------------------------------------------------------ side by side


def test_models_side_by_side(fits):
    table = mx.compare_table(fits)
    lines = table.splitlines()
    assert lines[0].split() == ["(1)", "(2)"]
    cells = {line[:32].strip(): line[32:].split() for line in lines}
    assert cells["(Intercept)"] == ["251.405", "251.405"]
    assert cells["Days"] == ["10.467", "10.467"]
    assert "(0.804)   (1.546)" in table
    assert cells["SD (Intercept) | Subject"] == ["37.124", "24.740"]
    assert cells["SD Days | Subject"] == ["5.922"]
    assert cells["SD residual"] == ["30.991", "25.592"]
    assert cells["Groups: Subject"] == ["18", "18"]
    assert cells["Observations"] == ["180", "180"]
    assert cells["AIC"] == ["1794.5", "1755.6"]
    assert cells["Log-likelihood"] == ["-893.2", "-871.8"]
    icc = [fit.icc().loc["adjusted", "estimate"] for fit in fits]
    assert cells["ICC"] == [f"{value:.3f}" for value in icc]
    for kind in ("marginal", "conditional"):
        values = [fit.r2().loc[kind, "estimate"] for fit in fits]
        assert cells[f"R² {kind}"] == [f"{value:.3f}" for value in values]
    # the residual comes last of the components
    order = [line.split("  ")[0] for line in lines]
    assert order.index("SD residual") > order.index("Cor (Intercept), Days | Subject")
    assert all(len(line) <= 100 for line in lines)
    assert table._repr_html_().startswith('<div class="mixlm-comparison">')


def test_formats_agree(fits):
    names = ["a & b", "c|d"]
    html = Reader(mx.compare_table(fits, names=names, format="html")).rows
    markdown = rows_of(mx.compare_table(fits, names=names, format="markdown"))
    assert html == markdown
    assert html[0] == ["", "a & b", "c|d"]
    latex = mx.compare_table(fits, names=names, format="latex")
    assert balanced(latex)
    assert r"a \& b & c\textbar{}d \\" in latex
    assert latex.count(r"\midrule") == 3
    assert len(re.findall(r"\\\\$", latex, re.MULTILINE)) == len(html)


def test_stars(fits):
    table = mx.compare_table(fits, stars=True)
    assert "251.405***" in table
    assert "* p < 0.05, ** p < 0.01, *** p < 0.001" in table
    assert "$251.405^{***}$" in mx.compare_table(fits, stars=True, format="latex")
    # the decimal points of one column are below each other
    points = {
        line.index(".", 30) for line in table.splitlines() if line.startswith(("(Int", "Days", " "))
        and "." in line[30:]
    }  # fmt: skip
    assert len(points) <= 2
    assert "*" not in mx.compare_table(fits)


def test_many_models_go_below_each_other(fits):
    table = mx.compare_table(fits * 6, names=[f"model number {i}" for i in range(12)])
    lines = table.splitlines()
    assert max(map(len, lines)) <= 100
    assert sum(line.startswith("Observations") for line in lines) > 1
    assert len(re.findall(r"model number \d+", table)) == 12


def test_long_names_are_cut(sleep):
    name = "a_predictor_with_a_name_that_goes_on_and_on_and_on_for_ever_and_a_day"
    fit = mx.lmer(f"Reaction ~ {name} + (1 | Subject)", sleep.rename(columns={"Days": name}))
    table = mx.compare_table([fit, fit], names=["x" * 70, "y" * 70])
    assert max(map(len, table.splitlines())) <= 100
    assert "a_predictor_with_a_" in table
    assert "for_ever_and_a_day" in table
    assert name in mx.compare_table([fit], format="html")


def test_notes_say_what_cannot_be_compared(sleep, fits):
    other = mx.lmer("Reaction ~ 1 + (1 | Subject)", sleep)
    assert "different fixed effects" in mx.compare_table([*fits, other])
    assert "by REML and by ML" in mx.compare_table([fits[0], fits[1].refit_ml()])
    assert "cannot be compared" not in mx.compare_table(fits)
    short = mx.lmer("Reaction ~ Days + (1 | Subject)", sleep[:170])
    assert "different numbers of rows" in mx.compare_table([fits[0], short])
    singular = corpus.fit("pub_rikz_rs_ml")
    assert "(1): singular fit." in mx.compare_table([singular])


def test_one_fit_and_different_factors(fits):
    assert mx.compare_table(fits[0]) == mx.compare_table([fits[0]])
    table = mx.compare_table([fits[0], corpus.fit("penicillin_reml")])
    assert "Groups: plate" in table
    assert "Groups: Subject" in table


def test_large_and_tiny_numbers(sleep):
    for scale in (1e9, 1e-9):
        fit = mx.lmer(
            "Reaction ~ Days + (1 | Subject)", sleep.assign(Reaction=sleep.Reaction * scale)
        )
        table = mx.compare_table([fit])
        (cell,) = (line for line in table.splitlines() if line.startswith("Days"))
        assert float(cell.split()[-1]) == pytest.approx(10.467 * scale, rel=1e-3)


def test_perfect_fit_has_no_shares(sleep):
    data = sleep.assign(Reaction=3.0 + 2.0 * sleep["Days"])
    fit = mx.lmer("Reaction ~ Days + (1 | Subject)", data, control=mx.Control(warn=False))
    for stars in (False, True):
        assert "perfect fit" in mx.compare_table([fit], stars=stars)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fits": []}, "no fit to compare"),
        ({"fits": [3]}, r"compare_table takes fits of lmer or a list of them, but was given 3"),
        ({"names": ["a"]}, "give a list of 2"),
        ({"names": "ab"}, "give a list of 2"),
        ({"format": "pdf"}, "format is 'pdf': use one of 'text', 'markdown', 'latex', 'html'"),
    ],
)
def test_arguments(fits, arguments, message):
    arguments = dict(arguments)
    with pytest.raises(mx.OptionError, match=message):
        mx.compare_table(arguments.pop("fits", fits), **arguments)


def test_fits_need_no_list(fits):
    assert mx.compare_table(*fits) == mx.compare_table(fits)


# -------------------------------------------------------------------------------------- maketables


def test_plug_in_attributes(fits):
    fit = fits[1]
    for thing in (fit, fit.for_maketables()):
        table = thing.__maketables_coef_table__
        assert isinstance(table, pd.DataFrame)
        assert list(table.index) == ["(Intercept)", "Days"]
        assert {"b", "se", "t", "p", "ci95l", "ci95u"} <= set(table.columns)
        np.testing.assert_allclose(table["b"], fit.fixef)
        np.testing.assert_allclose(table["p"], fit.pvalues)
        assert thing.__maketables_stat__("N") == 180
        assert thing.__maketables_stat__("groups") == "Subject 18"
        assert thing.__maketables_stat__("ll") == fit.llf
        assert thing.__maketables_stat__("method") == "REML"
        assert thing.__maketables_stat__("fvalue") is None
        assert thing.__maketables_depvar__ == "Reaction"
        assert thing.__maketables_fixef_string__ is None
        assert thing.__maketables_var_labels__ is None
        assert thing.__maketables_vcov_info__["vcov_type"] == "model-based"
        for key in thing.__maketables_default_stat_keys__:
            assert thing.__maketables_stat__(key) is not None
        assert set(thing.__maketables_stat_labels__) >= {"groups", "icc"}
    # statsmodels' names, which maketables asks for first
    assert not any(hasattr(fit.for_maketables(), name) for name in ("params", "bse", "pvalues"))
    normal = fit.for_maketables(ddf="normal").__maketables_coef_table__
    assert (normal["p"] < fit.pvalues.to_numpy()).all()


@pytest.mark.filterwarnings("ignore")
def test_maketables_shows_fits(fits):
    maketables = needed("maketables")
    models = [fit.for_maketables() for fit in fits]
    assert type(maketables.get_extractor(models[0])).__name__ == "PluginExtractor"
    latex = maketables.ETable(models).make("tex")
    for text in ("251.405", "Reaction", "Subject 18", "ICC", "1,755.6", "-871.8"):
        assert text in latex
    # a fit as it is: statsmodels' extractor reads it
    assert "251.405" in maketables.ETable(fits).make("tex")


def shares_of(table):
    lines = [line.split() for line in str(table).splitlines()]
    return {line[-2]: line[-1] for line in lines if len(line) > 1 and line[-2] in SHARE_ENDS}


SHARE_ENDS = ("ICC", "marginal", "conditional")


def test_shares_that_cannot_be_had_are_nan_with_the_reason(tmp_path):
    rng = np.random.default_rng(4)
    data = pd.DataFrame({"g": np.repeat(np.arange(12), 5), "x": np.tile(np.arange(5), 12)})
    data["y"] = data.x + rng.normal(size=12)[data.g] + rng.normal(size=60)
    data["exact"] = 2.0 * data.x
    formula, quiet = "y ~ x + (1 | g)", mx.Control(warn=False)
    fit = mx.lmer(formula, data)
    fit.save(tmp_path / "fit.mixlm", include_data=False)
    table = {
        "made from products": mx.fit_products(mx.cross_products(formula, data)),
        "nothing is left to the residuals": mx.lmer("exact ~ x + (1 | g)", data, control=quiet),
    }
    for reason, other in table.items():
        found = mx.compare_table(other)
        assert shares_of(found) == dict.fromkeys(SHARE_ENDS, "NaN")
        assert reason in " ".join(found.split())
    structured = mx.lmer(formula, data, residual=mx.AR1(time="x", group="g"), control=quiet)
    for other in (fit, structured, mx.load(tmp_path / "fit.mixlm")):
        assert "NaN" not in shares_of(mx.compare_table(other)).values()
    both = mx.compare_table(table["made from products"], fit, table["made from products"])
    assert "(1), (3): no ICC" in both
