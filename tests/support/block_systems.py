"""Random block systems with the dense matrices they stand for."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from mixlm_sparse.engines.interface import BlockSystem, FactorBlock, PairBlock


@dataclass(frozen=True)
class DenseTwin:
    """A block system, its sizes, and Z'WZ as one dense matrix."""

    system: BlockSystem
    levels: tuple[int, ...]
    widths: tuple[int, ...]
    A: np.ndarray

    def Lambda(self, lambdas: list[np.ndarray]) -> np.ndarray:
        """The dense block-diagonal Lambda (q, q)."""
        blocks = [lam for lam, L in zip(lambdas, self.levels, strict=True) for _ in range(L)]
        q = self.A.shape[0]
        out = np.zeros((q, q))
        at = 0
        for block in blocks:
            k = block.shape[0]
            out[at : at + k, at : at + k] = block
            at += k
        return out

    def C(self, lambdas: list[np.ndarray]) -> np.ndarray:
        Lambda = self.Lambda(lambdas)
        return Lambda.T @ self.A @ Lambda + np.eye(self.A.shape[0])

    def block(self, M: np.ndarray, g: int, i: int, h: int, j: int) -> np.ndarray:
        """The (K_g, K_h) block of M for level i of factor g and level j of factor h."""
        starts = np.concatenate(
            [[0], np.cumsum([L * K for L, K in zip(self.levels, self.widths, strict=True)])]
        )
        a = int(starts[g]) + i * self.widths[g]
        b = int(starts[h]) + j * self.widths[h]
        return M[a : a + self.widths[g], b : b + self.widths[h]]


def codes_of(kind: str, n: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Level codes of the factors of a design; every level occurs."""

    def crossed(levels: int) -> np.ndarray:
        return np.concatenate([np.arange(levels), rng.integers(0, levels, n - levels)])

    inner = crossed(24)
    return {
        "one": [inner],
        "crossed": [crossed(15), crossed(6)],
        "crossed, small first": [crossed(5), crossed(18)],
        "three crossed": [crossed(15), crossed(6), crossed(4)],
        "nested": [inner, inner // 4],
        "nested, outer first": [inner // 4, inner],
        "nested thrice": [inner, inner // 4, inner // 12],
        "nested and crossed": [inner, inner // 4, crossed(7)],
        "nested thrice and two crossed": [inner // 4, crossed(5), inner, inner // 12, crossed(3)],
    }[kind]


KINDS = (
    "one",
    "crossed",
    "crossed, small first",
    "three crossed",
    "nested",
    "nested, outer first",
    "nested thrice",
    "nested and crossed",
    "nested thrice and two crossed",
)


def random_system(kind: str, widths: list[int], seed: int, n: int = 80) -> DenseTwin:
    """Draw a system of the given kind; widths are recycled over its factors."""
    rng = np.random.default_rng(seed)
    codes = codes_of(kind, n, rng)
    widths = [widths[g % len(widths)] for g in range(len(codes))]
    levels = [int(c.max()) + 1 for c in codes]
    Z = [rng.standard_normal((n, K)) for K in widths]
    D = rng.standard_normal((n, 3))
    dense = []
    for c, z, L, K in zip(codes, Z, levels, widths, strict=True):
        M = np.zeros((n, L, K))
        M[np.arange(n), c] = z
        dense.append(M.reshape(n, L * K))
    factors = tuple(
        FactorBlock(
            f"g{g}",
            np.stack([z[c == j].T @ z[c == j] for j in range(L)]),
            np.stack([z[c == j].T @ D[c == j] for j in range(L)]),
        )
        for g, (c, z, L) in enumerate(zip(codes, Z, levels, strict=True))
    )
    pairs = {}
    for g, h in itertools.combinations(range(len(codes)), 2):
        found = sorted(set(zip(codes[g].tolist(), codes[h].tolist(), strict=True)))
        values = np.stack(
            [
                Z[g][(codes[g] == i) & (codes[h] == j)].T @ Z[h][(codes[g] == i) & (codes[h] == j)]
                for i, j in found
            ]
        )
        rows, cols = np.array(found, dtype=np.int32).T
        pairs[g, h] = PairBlock(np.ascontiguousarray(rows), np.ascontiguousarray(cols), values)
    whole = np.hstack(dense)
    return DenseTwin(BlockSystem(factors, pairs), tuple(levels), tuple(widths), whole.T @ whole)


def random_lambdas(twin: DenseTwin, kind: str, seed: int) -> list[np.ndarray]:
    """Relative factors: general, triangular, singular (a zero column) or zero."""
    rng = np.random.default_rng(seed)
    out = []
    for K in twin.widths:
        lam = rng.standard_normal((K, K))
        if kind == "triangular":
            lam = np.tril(lam)
        elif kind == "singular":
            lam[:, -1] = 0.0
        elif kind == "zero":
            lam[:] = 0.0
        out.append(lam)
    return out


def check_engine(engine: object, twin: DenseTwin, lambdas: list[np.ndarray]) -> None:
    """Compare an engine with dense algebra: log-determinant, solve, selected inverse."""
    C = twin.C(lambdas)
    inverse = np.linalg.inv(C)
    scale = float(np.abs(inverse).max())
    engine.factorize(lambdas)  # type: ignore[attr-defined]
    assert np.isclose(engine.logdet, np.linalg.slogdet(C)[1], rtol=1e-11, atol=1e-11)  # type: ignore[attr-defined]

    rng = np.random.default_rng(0)
    rhs = [rng.standard_normal((L, K, 2)) for L, K in zip(twin.levels, twin.widths, strict=True)]
    solved = engine.solve(rhs)  # type: ignore[attr-defined]
    expected = inverse @ np.vstack([r.reshape(-1, 2) for r in rhs])
    np.testing.assert_allclose(
        np.vstack([s.reshape(-1, 2) for s in solved]), expected, rtol=1e-8, atol=1e-10 * scale
    )

    products = engine.multiply(rhs)  # type: ignore[attr-defined]
    np.testing.assert_allclose(
        np.vstack([p.reshape(-1, 2) for p in products]),
        twin.A @ np.vstack([r.reshape(-1, 2) for r in rhs]),
        atol=1e-10 * float(np.abs(twin.A).max()),
    )
    whole = twin.A @ twin.Lambda(lambdas) @ inverse
    traces = engine.trace_products(lambdas)  # type: ignore[attr-defined]
    for g, L in enumerate(twin.levels):
        expected = sum(twin.block(whole, g, j, g, j) for j in range(L))
        size = 1.0 + float(np.abs(whole).max()) * L
        np.testing.assert_allclose(traces[g], expected, atol=1e-9 * size)

    selected = engine.selected_inverse()  # type: ignore[attr-defined]
    for g, L in enumerate(twin.levels):
        for j in range(L):
            np.testing.assert_allclose(
                selected.diag[g][j], twin.block(inverse, g, j, g, j), atol=1e-9 * scale
            )
    assert set(selected.pairs) == set(twin.system.pairs)
    for (g, h), blocks in selected.pairs.items():
        pair = twin.system.pairs[g, h]
        for t in range(pair.rows.size):
            np.testing.assert_allclose(
                blocks[t],
                twin.block(inverse, g, int(pair.rows[t]), h, int(pair.cols[t])),
                atol=1e-9 * scale,
            )
