"""Which evaluation of `engines.fused` a model has, if any."""

from __future__ import annotations

from mixlm_sparse.engines.compiled import have_numba
from mixlm_sparse.engines.decisions import compiled_pays
from mixlm_sparse.engines.fused.absorbed import MOST_EFFECTS, AbsorbedFixed
from mixlm_sparse.engines.fused.bordered import BorderedFixed
from mixlm_sparse.engines.fused.dense import SmallDense, sweep_dense
from mixlm_sparse.engines.fused.levels import SingleFactor, sweep_levels
from mixlm_sparse.engines.fused.plain import PlainDense, PlainFactor
from mixlm_sparse.engines.fused.profile import profile
from mixlm_sparse.solve.products.final import Products

__all__ = ["Fused", "fuse", "fused_form", "fused_words", "is_compiled"]

# Up to this many columns of X loops over levels are quicker than calls of BLAS.
FUSED_COLUMNS = 150

# Up to this many numbers of Z'W[X y] a model with one factor is evaluated in few calls of NumPy.
PLAIN_SIZE = 20_000

# Up to this many random effects C is treated as one dense matrix, if kernels are compiled.
SMALL_DENSE_Q = 72

# Evaluations of a search, its Hessian among them, and multiply-adds that take as long as the calls
# of NumPy in one, about 25 us.
EVALUATIONS = 10.0
CALLS_SAVED = 2.5e3

Fused = SingleFactor | SmallDense | PlainFactor | PlainDense | AbsorbedFixed | BorderedFixed


def fused_form(
    products: Products, *, may_compile: bool, compiled: bool | None = None
) -> Fused | None:
    """Return the evaluation in the engine's place; None where the engine does better.

    Parameters
    ----------
    may_compile : allow machine code.
    compiled : take it, or not; by default when that pays.
    """
    factors = products.blocks.factors
    if not factors or products.blocks.own_pairs:
        return None
    q = products.blocks.q
    if products.sparse:
        return BorderedFixed(products.blocks, products.yy, products.pwrss_floor)
    if products.p > FUSED_COLUMNS:
        if q > min(products.p, MOST_EFFECTS):
            return None
        return AbsorbedFixed(products.blocks, products.yy, products.pwrss_floor)
    f = factors[0]
    if len(factors) > 1 and q > SMALL_DENSE_Q:
        return None
    if compiled is None:
        # the arithmetic of several factors is LAPACK's, and takes no longer
        work = f.n_levels * f.width**2 * (f.width + products.p + 1) if len(factors) == 1 else 0
        kernel = profile if f.ztx.size < PLAIN_SIZE else sweep_levels
        if len(factors) > 1:
            kernel = sweep_dense
        compiled = may_compile and compiled_pays(EVALUATIONS * (work + CALLS_SAVED), kernel)
    if compiled and have_numba():
        return fuse(products)
    return fuse(products, compiled=False) if needs_no_engine(products) else None


def needs_no_engine(products: Products) -> bool:
    """Say whether a model is so small that a few calls of NumPy evaluate it."""
    blocks = products.blocks
    if not blocks.factors or blocks.own_pairs or products.sparse or products.p > FUSED_COLUMNS:
        return False
    if len(blocks.factors) == 1:
        return blocks.factors[0].ztx.size < PLAIN_SIZE
    return blocks.q <= SMALL_DENSE_Q


def is_compiled(fused: Fused | None) -> bool:
    """Say whether an evaluation is machine code."""
    return isinstance(fused, SingleFactor | SmallDense)


def fuse(products: Products, *, compiled: bool = True) -> Fused:
    """Return the evaluation of a model of one factor or few effects, in either form."""
    factors = products.blocks.factors
    yy, floor = products.yy, products.pwrss_floor
    if len(factors) == 1:
        single = SingleFactor if compiled else PlainFactor
        return single(factors[0].ztz, factors[0].ztx, yy, floor)
    return (SmallDense if compiled else PlainDense)(products.blocks, yy, floor)


def fused_words(fused: Fused | None) -> str:
    """Say in a line how criterion and gradient are evaluated; "" where the engine does it."""
    if fused is None:
        return ""
    if isinstance(fused, SingleFactor):
        return "\n  criterion and gradient fused in two compiled sweeps over the levels"
    if isinstance(fused, BorderedFixed):
        return (
            "\n  criterion and gradient level by level, with the entries of the fixed part alone: "
            f"a dense border of order {fused.order}"
        )
    if isinstance(fused, AbsorbedFixed):
        return (
            "\n  the fixed part is taken out once: criterion and gradient in dense matrices of "
            f"order q = {fused.order}"
        )
    if isinstance(fused, SmallDense):
        return f"\n  criterion and gradient in compiled dense sweeps, q = {fused.order}"
    return "\n  criterion and gradient fused in a few calls of NumPy"
