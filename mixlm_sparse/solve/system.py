"""What a model is to the solver: products that do not depend on theta, structures, engine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from mixlm_sparse.common.checks import listed, require_instance, require_one_of, shown
from mixlm_sparse.common.errors import DataError, EngineError, OptionError
from mixlm_sparse.common.keywords import answers_unknown_keywords
from mixlm_sparse.common.text import in_brackets
from mixlm_sparse.common.types import Vector
from mixlm_sparse.covariance.random import CovarianceStructure
from mixlm_sparse.design.grouping import MemberFactor
from mixlm_sparse.design.matrices import ModelMatrices
from mixlm_sparse.engines.choose import make_engine
from mixlm_sparse.engines.deferred import DeferredEngine
from mixlm_sparse.engines.interface import Engine, EngineLock, Penalties, Penalty
from mixlm_sparse.engines.krylov.settings import Estimation
from mixlm_sparse.engines.names import ENGINES
from mixlm_sparse.solve.chart import Chart
from mixlm_sparse.solve.fusing import (
    Fused,
    fuse,
    fused_form,
    fused_words,
    is_compiled,
    needs_no_engine,
)
from mixlm_sparse.solve.hold import Held
from mixlm_sparse.solve.products.accumulate import CrossProducts, cross_products
from mixlm_sparse.solve.products.final import Products, orthonormal_products
from mixlm_sparse.solve.products.small import products_at_once
from mixlm_sparse.solve.products.wide import wide_products
from mixlm_sparse.solve.rows import BLOCK_ROWS, InMemory, RowBlock, RowSource
from mixlm_sparse.solve.separate import Separated, separate
from mixlm_sparse.solve.whitened.frame import Whitened, whitened_frame


@dataclass(frozen=True, repr=False)
class PenalizedSystem:
    """Theta-free products, covariance templates and the engine with its symbolic work done.

    The engine's numeric factor is the one buffer that changes; everything else is constant.

    Parameters
    ----------
    matrices : the design that was learnt: names, terms, levels.
    may_fuse : allow the evaluations of `engines.fused` in the engine's place.
    may_compile : allow the compiled ones among them.
    source : where the rows are read; None for those of `matrices`.
    whitened : of a model with a residual structure, its rows at one rho: `products` are theirs.
    held : variance parameters at given values; None where all are estimated.
    separated : what random effects cannot reach of [X y], where it is known without the rows.
    judged : what `identification` has found of the design.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> matrices = mx.model_matrices("Yield ~ 1 + (1 | Batch)", mx.datasets.load("Dyestuff"))
    >>> print(mx.penalized_system(matrices).describe().splitlines()[1].strip())
    eliminated in closed form: Batch (6 levels, 1 effect a level)
    """

    matrices: ModelMatrices
    products: Products
    templates: tuple[CovarianceStructure, ...]
    engine: Engine
    may_fuse: bool = True
    cross: CrossProducts | None = field(default=None, repr=False)
    source: RowSource | None = field(default=None, repr=False)
    whitened: Whitened | None = field(default=None, repr=False)
    held: Held | None = None
    separated: Separated | None = field(default=None, repr=False)
    lock: EngineLock = field(default_factory=EngineLock, repr=False, compare=False)
    judged: dict[tuple[bool, bool | str], Any] = field(
        default_factory=dict, repr=False, compare=False
    )
    may_compile: bool = True

    def __repr__(self) -> str:
        return in_brackets(
            f"PenalizedSystem: {self.n} rows, {self.p} fixed columns, {self.q} random effects, "
            f"{self.n_theta} parameters"
        )

    def __getstate__(self) -> dict[str, Any]:
        # buffers of compiled evaluations are made anew where they are used, in the same form
        made = ("fused", "white_source")
        state = {name: value for name, value in vars(self).items() if name not in made}
        if "fused" in vars(self):
            state["_form"] = is_compiled(self.fused)
        return state

    @property
    def n(self) -> int:
        return self.products.n

    @property
    def p(self) -> int:
        return self.products.p

    @cached_property
    def q(self) -> int:
        return self.products.blocks.q

    @cached_property
    def chart(self) -> Chart:
        """The maps between theta, phi, T and Lambda."""
        return Chart(
            self.templates,
            self.products.Rz,
            self.products.layout,
            tuple(f.width for f in self.products.blocks.factors),
        )

    @property
    def n_theta(self) -> int:
        return self.chart.m

    @cached_property
    def theta_names(self) -> tuple[str, ...]:
        names: list[str] = []
        for term, template in zip(self.matrices.terms, self.templates, strict=True):
            label = self.matrices.factors[term.factor].label
            names.extend(template.names(label, term.column_names))
        return tuple(names)

    @property
    def theta0(self) -> Vector:
        return self.chart.theta_start.copy()

    @property
    def lower(self) -> Vector:
        return self.chart.lower

    @cached_property
    def x_names(self) -> tuple[str, ...]:
        """Names of the columns of X that are kept."""
        return tuple(self.matrices.fixed.names[j] for j in self.products.kept)

    @cached_property
    def dropped(self) -> tuple[str, ...]:
        """Names of the columns of X that are combinations of earlier ones."""
        kept = set(self.products.kept)
        return tuple(name for j, name in enumerate(self.matrices.fixed.names) if j not in kept)

    @cached_property
    def log_det_R_x(self) -> float:
        """log|det R_x|^2 of the map to the user's columns of X."""
        return 2.0 * float(np.log(np.abs(self.products.R_x.diagonal())).sum())

    @property
    def row_source(self) -> RowSource:
        """Where the rows are read, as the data have them.

        With a residual structure they refuse to be weighted: see `white_rows`.
        """
        return InMemory.of(self.matrices) if self.source is None else self.source

    def rows(self, size: int = BLOCK_ROWS) -> Iterator[RowBlock]:
        """Walk over the rows, with the columns of X that are kept."""
        return self.row_source.blocks(self.products.kept, size=size)

    @cached_property
    def white_source(self) -> RowSource:
        """Rows with independent residuals, which is what products are formed of."""
        return self.row_source if self.whitened is None else self.whitened.rows(self.matrices)

    def white_rows(self, size: int = BLOCK_ROWS) -> Iterator[RowBlock]:
        """Walk over rows with independent residuals: whitened where there is a structure."""
        return self.white_source.blocks(self.products.kept, size=size)

    @cached_property
    def fused(self) -> Fused | None:
        """The evaluation of models with one factor, few effects or a wide fixed part, if in use."""
        if self.known or not self.may_fuse:
            return None
        form: bool | None = vars(self).get("_form")  # that of the system this is a copy of
        return fused_form(self.products, may_compile=self.may_compile, compiled=form)

    def fuse(self, *, compiled: bool = True) -> Fused:
        """Return the evaluation of this model, of one factor or few effects, in either form."""
        return fuse(self.products, compiled=compiled)

    @cached_property
    def apart(self) -> Separated:
        """What random effects cannot reach of [X y]; leaves the engine factored otherwise."""
        if self.separated is not None:
            return self.separated
        if not self.engine.exact:
            raise EngineError(
                "random effects are so much larger than the residuals that engine='krylov' cannot "
                "tell them apart: fit with engine='auto'"
            )
        with self.lock:
            return separate(self.products, self.engine, self.white_rows)

    def with_products(
        self,
        products: Products,
        matrices: ModelMatrices,
        source: RowSource | None = None,
        *,
        same_design: bool = False,
    ) -> PenalizedSystem:
        """Return the system for other products with the same Z'WZ; the engine is shared.

        Parameters
        ----------
        same_design : whether X is the same too.
        """
        return PenalizedSystem(
            matrices, products, self.templates, self.engine, self.may_fuse,
            source=source, held=self.held, lock=self.lock,
            judged=self.judged if same_design else {}, may_compile=self.may_compile,
        )  # fmt: skip

    @property
    def n_rho(self) -> int:
        """Number of parameters of the residual structure."""
        return 0 if self.whitened is None else self.whitened.law.n_rho

    @property
    def known(self) -> bool:
        """Whether the levels of a grouping factor have a known covariance."""
        return any(factor.known is not None for factor in self.matrices.factors)

    @property
    def several_levels(self) -> bool:
        """Whether rows may have several levels of a grouping factor."""
        factors = self.matrices.factors
        return self.products.blocks.own_pairs or any(isinstance(f, MemberFactor) for f in factors)

    def at_rho(self, rho: Vector, *, centered: bool = False) -> PenalizedSystem:
        """Return the system with residual parameters rho (n_rho,); the symbolic work is shared.

        Parameters
        ----------
        centered : leave the mean of log sd to sigma (see `Whitening.of`).
        """
        assert self.whitened is not None
        whitened = self.whitened.frame.at(rho, centered=centered)
        engine = self.engine.reload(whitened.products.blocks)
        return PenalizedSystem(
            self.matrices, whitened.products, self.templates, engine, self.may_fuse,
            whitened=whitened,
        )  # fmt: skip

    def describe(self) -> str:
        """Say in words how an evaluation is done."""
        text = self.engine.describe()
        if self.whitened is not None:
            law = self.whitened.law
            how = "each row is turned from the one before" if law.markov else "by dense factors"
            groups = f", {law.sizes.size} groups: {how}" if law.correlated else ""
            grown = self.whitened.frame.grown
            pattern = "the pattern of Z'Z stays"
            if grown:
                pattern = f"residual groups cross {listed(grown, quoted=True)}: Z'Z fills in"
            text += (
                f"\n  rows whitened for each of {law.n_rho} residual parameters' values{groups}; "
                f"{pattern}"
            )
        for (g, h), pair in self.products.blocks.pairs.items():
            if g == h:
                L = self.products.blocks.factors[g].n_levels
                text += (
                    f"\n  levels of {self.matrices.factors[g].label} share rows: {pair.rows.size} "
                    f"pairs of {L * (L - 1) // 2} have a block in Z'WZ"
                )
        return text + fused_words(self.fused)


def penalties_of(matrices: ModelMatrices) -> Penalties:
    """Return, per grouping factor, what its levels' known covariance puts in the place of I."""
    found = [
        None
        if factor.known is None
        else Penalty(factor.known.precision, factor.known.root, factor.known.log_det)
        for factor in matrices.factors
    ]
    return found if any(penalty is not None for penalty in found) else ()


@answers_unknown_keywords
def penalized_system(
    matrices: ModelMatrices,
    engine: str = "auto",
    *,
    cross: CrossProducts | None = None,
    source: RowSource | None = None,
    estimation: Estimation | None = None,
) -> PenalizedSystem:
    """Form the products, choose the engine and do its symbolic work.

    Parameters
    ----------
    matrices : the design.
    engine : "auto", "blocked", "sparse", "cholmod" or "krylov".
    cross : products formed before; by default they are formed from the rows.
    source : the rows; by default those of `matrices`.
    estimation : random vectors and tolerance of engine="krylov": `mx.Control(...).estimation`.

    Raises
    ------
    DataError : there are not fewer fixed-effects coefficients than rows.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> formula = "diameter ~ 1 + (1 | plate) + (1 | sample)"
    >>> matrices = mx.model_matrices(formula, mx.datasets.load("Penicillin"))
    >>> system = mx.penalized_system(matrices)
    >>> system.n, system.p, system.q, system.theta_names
    (144, 1, 30, ('plate.(Intercept)', 'sample.(Intercept)'))
    """
    require_instance("matrices", matrices, ModelMatrices, "use mx.model_matrices(formula, data)")
    require_one_of("engine", engine, ENGINES)
    if estimation is not None:
        require_instance("estimation", estimation, Estimation, "use mx.Control(...).estimation")
    if source is not None and not callable(getattr(source, "blocks", None)):
        raise OptionError(f"source is {shown(source)}: leave it out, or give rows of this design")
    if matrices.law is not None:
        return _whitened_system(matrices, engine)
    penalties = penalties_of(matrices)
    formed = products_at_once(matrices) if cross is None and source is None else None
    if formed is None:
        if cross is None:
            rows = InMemory.of(matrices) if source is None else source
            cross = wide_products(matrices, rows) or cross_products(matrices, source=rows)
        remedy = "leave it out, or use products of this design"
        require_instance("cross", cross, CrossProducts, remedy)
        plain = engine == "auto" and not penalties
        formed = cross, orthonormal_products(cross, may_be_sparse=plain)
    cross, products = formed
    if products.p >= products.n:
        raise DataError(
            f"the fixed part has {products.p} coefficients for {products.n} rows, which leaves "
            "nothing to estimate variances from: use fewer terms or more rows"
        )
    return PenalizedSystem(
        matrices=matrices,
        products=products,
        templates=tuple(term.template for term in matrices.terms),
        engine=DeferredEngine(products.blocks)
        if engine == "auto" and not penalties and needs_no_engine(products)
        else make_engine(engine, products.blocks, penalties, estimation),
        may_fuse=engine == "auto",
        cross=cross,
        source=source,
    )


def require_few_parameters(n: int, p: int, n_theta: int, n_rho: int) -> None:
    """Raise a DataError unless a model with a residual structure has fewer parameters than rows."""
    n_par = p + n_theta + n_rho + 1
    if n_par >= n:
        raise DataError(
            f"the model has {n_par} parameters, {n_rho} of them of the residuals, for {n} rows: "
            "use a residual structure with fewer parameters, or fewer terms"
        )


def _whitened_system(matrices: ModelMatrices, engine: str) -> PenalizedSystem:
    """Return the system of a design with a residual structure, at independent residuals."""
    if engine == "krylov":
        raise EngineError(
            "engine='krylov' has independent residuals alone: leave residual= and variance= out, "
            "or use engine='auto'"
        )
    plain = penalized_system(replace(matrices, law=None), engine)
    law = matrices.law
    assert law is not None
    require_few_parameters(plain.n, plain.p, plain.n_theta, law.n_rho)
    whitened = whitened_frame(matrices, plain.products).at(law.start, centered=False)
    blocks = whitened.products.blocks
    return replace(
        plain,
        matrices=matrices,
        products=whitened.products,
        engine=make_engine(engine, blocks, penalties_of(matrices))
        if whitened.frame.grown
        else plain.engine.reload(blocks),
        cross=None,
        whitened=whitened,
    )
