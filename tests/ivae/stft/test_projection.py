"""Unmixing matrices by iterative projection."""

import numpy as np
import pytest
from scipy.linalg import eigh

from sourcesep.ivae.stft import projection
from sourcesep.ivae.stft.projection import (
    Products,
    identity,
    iterative_projection,
    pair_projection,
    principal_rows,
    project,
)

N_FRAMES, N_BINS = 60, 9


def gaussian(rng, *shape):
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def mixed(rng, n):
    """Cells of a mixture, and the variances of its sources."""
    variances = rng.uniform(0.01, 1, (n, N_FRAMES, N_BINS)) ** 3
    sources = np.sqrt(variances) * gaussian(rng, n, N_FRAMES, N_BINS)
    return np.einsum("abf,btf->atf", gaussian(rng, n, n, N_BINS), sources), variances


def cost(rows, covariances):
    """Minus the log-likelihood of every bin, up to a constant."""
    power = np.einsum("naf,nabf,nbf->f", rows, covariances, rows.conj()).real
    return power - 2 * np.linalg.slogdet(rows.transpose(2, 0, 1))[1]


def leakage(rows, covariances):
    """How far w_m V_n w_n^H is from 1 where m = n, and 0 elsewhere: 0 at the optimum."""
    found = np.einsum("maf,nabf,nbf->mnf", rows, covariances, rows.conj())
    return np.abs(found - identity(len(rows), found.shape[2])).max()


class TestProducts:
    @pytest.mark.parametrize("n", [1, 2, 3, 4])
    def test_covariances_and_powers_are_those_of_the_cells(self, n):
        rng = np.random.default_rng(n)
        x, variances = mixed(rng, n)
        products, rows = Products(x), gaussian(rng, n, n, N_BINS)
        expected = np.einsum("ntf,atf,btf->nabf", 1 / variances, x, x.conj()) / N_FRAMES
        found = products.covariances(variances)
        trace = np.einsum("naaf->nf", expected).real[:, None, None]
        np.testing.assert_allclose(found / trace, expected / trace, atol=2e-6)
        power = np.abs(np.einsum("naf,atf->ntf", rows, x)) ** 2
        np.testing.assert_allclose(products.powers(rows), power, atol=1e-9 * power.max())
        np.testing.assert_allclose(products.frame_powers(rows), power.mean(axis=2))

    def test_one_variance_a_frame_is_one_for_all_its_bins(self):
        rng = np.random.default_rng(0)
        products = Products(mixed(rng, 3)[0])
        variances = rng.uniform(0.1, 1, (3, N_FRAMES, 1))
        full = np.repeat(variances, N_BINS, axis=2)
        np.testing.assert_allclose(
            products.covariances(variances), products.covariances(full), rtol=1e-9, atol=1e-12
        )


class TestPair:
    @pytest.mark.parametrize("seed", range(3))
    def test_rows_are_the_generalised_eigenvectors(self, seed):
        rng = np.random.default_rng(seed)
        x, variances = mixed(rng, 2)
        covariances = Products(x).covariances(variances)
        rows = pair_projection(covariances)
        for f in range(N_BINS):
            vectors = eigh(covariances[0, :, :, f], covariances[1, :, :, f])[1]
            for row, vector in zip(rows[:, :, f], vectors.T, strict=True):
                overlap = abs(row @ vector) / np.linalg.norm(row) / np.linalg.norm(vector)
                assert overlap == pytest.approx(1, abs=1e-9)

    def test_no_other_rows_are_likelier(self):
        rng = np.random.default_rng(1)
        x, variances = mixed(rng, 2)
        covariances = Products(x).covariances(variances)
        rows = pair_projection(covariances)
        assert leakage(rows, covariances) < 1e-9
        for _ in range(20):
            other = rows + 0.1 * gaussian(rng, *rows.shape)
            assert (cost(other, covariances) > cost(rows, covariances)).all()

    def test_equal_and_silent_covariances_give_finite_rows(self):
        covariances = np.stack([identity(2, 4)] * 2)
        covariances[..., 1] *= 1e-12
        covariances[:, 0, 1, 2] = covariances[:, 1, 0, 2] = 0.5
        covariances[1, :, :, 3] *= 2
        rows = pair_projection(covariances)
        assert np.isfinite(rows).all()
        assert (np.abs(np.linalg.det(rows.transpose(2, 0, 1))) > 1e-3).all()


class TestSweeps:
    @pytest.mark.parametrize("n", [2, 3, 4, 6])
    def test_every_sweep_is_likelier_until_nothing_leaks(self, n):
        rng = np.random.default_rng(n)
        x, variances = mixed(rng, n)
        covariances = Products(x).covariances(variances)
        rows, before = identity(n, N_BINS), np.inf
        for _ in range(60):
            rows = iterative_projection(rows, covariances)
            now = cost(rows, covariances)
            assert (now <= before + 1e-9).all()
            before = now
        assert leakage(rows, covariances) < 1e-3

    def test_sweeps_over_two_rows_end_at_the_closed_form(self):
        x, variances = mixed(np.random.default_rng(5), 2)
        covariances = Products(x).covariances(variances)
        rows = identity(2, N_BINS)
        for _ in range(200):
            rows = iterative_projection(rows, covariances)
        best = cost(pair_projection(covariances), covariances)
        np.testing.assert_allclose(cost(rows, covariances), best, atol=1e-6)
        np.testing.assert_array_equal(project(rows, covariances), pair_projection(covariances))

    @pytest.mark.parametrize("n", [1, 3, 4, 5])
    def test_minors_find_what_a_solver_finds(self, monkeypatch, n):
        x, variances = mixed(np.random.default_rng(n), n)
        covariances = Products(x).covariances(variances)
        rows = gaussian(np.random.default_rng(1), n, n, N_BINS)
        by_minors = iterative_projection(rows, covariances)
        monkeypatch.setattr(projection, "MOST_MINORS", 0)
        solved = iterative_projection(rows, covariances)
        # a row's phase is free
        phase = np.einsum("naf,naf->nf", by_minors, solved.conj())
        assert np.abs(by_minors - solved * (phase / np.abs(phase))[:, None]).max() < 1e-9

    @pytest.mark.parametrize("n", [2, 3, 4])
    def test_known_variances_undo_the_mixing(self, n):
        """Each output holds one source: its power follows that source's variance alone."""
        rng = np.random.default_rng(10 + n)
        variances = rng.uniform(0.01, 1, (n, 2000, 3)) ** 3
        sources = np.sqrt(variances) * gaussian(rng, n, 2000, 3)
        mixing = gaussian(rng, n, n, 3)
        covariances = Products(np.einsum("abf,btf->atf", mixing, sources)).covariances(variances)
        rows = identity(n, 3)
        for _ in range(40):
            rows = project(rows, covariances)
        through = np.abs(np.einsum("abf,bcf->acf", rows, mixing))
        wanted = np.einsum("aaf->af", through)
        rest = through.sum(axis=1) - wanted
        assert (rest < 0.15 * wanted).all()


def test_principal_rows_keep_the_strongest_directions():
    rng = np.random.default_rng(0)
    x = np.einsum("abf,btf->atf", gaussian(rng, 4, 4, N_BINS), gaussian(rng, 4, N_FRAMES, N_BINS))
    covariance = np.einsum("atf,btf->abf", x, x.conj()) / N_FRAMES
    rows = principal_rows(covariance, 2)
    gram = np.einsum("arf,brf->abf", rows, rows.conj())
    np.testing.assert_allclose(gram, identity(2, N_BINS), atol=1e-12)
    kept = np.einsum("arf,rsf,asf->f", rows, covariance, rows.conj()).real
    values = np.linalg.eigvalsh(covariance.transpose(2, 0, 1))
    np.testing.assert_allclose(kept, values[:, 2:].sum(axis=1))
