"""EEG-like data: the forward model against its series, and artefacts where they belong."""

import numpy as np
import pytest
from numpy.polynomial import legendre

from sourcesep import simulate
from sourcesep.exceptions import InputError, SettingsError
from sourcesep.simulate.heads import CONDUCTIVITY


@pytest.fixture(scope="module", params=[0, 1, 2])
def simulated(request):
    return simulate.eeg(random_state=request.param)


def on_sphere(rng, n, radius):
    points = rng.standard_normal((n, 3))
    return radius * points / np.linalg.norm(points, axis=1, keepdims=True)


class TestForwardModel:
    def test_dipole_at_the_centre(self):
        """3 p cos(angle) / (4 pi sigma R^2)."""
        electrodes = on_sphere(np.random.default_rng(0), 50, 0.1)
        moment = np.array([[1e-8, -2e-8, 3e-8]])
        found = simulate.dipole_potentials(electrodes, np.zeros((1, 3)), moment)[:, 0]
        expected = 3 * electrodes @ moment[0] / 0.1 / (4 * np.pi * CONDUCTIVITY * 0.1**2)
        np.testing.assert_allclose(found, expected, rtol=1e-9)

    @pytest.mark.parametrize("eccentricity", [0.3, 0.6, 0.8])
    def test_radial_dipole_against_the_legendre_series(self, eccentricity):
        radius, moment = 0.09, 1e-8
        electrodes = on_sphere(np.random.default_rng(1), 40, radius)
        found = simulate.dipole_potentials(
            electrodes, [[0, 0, eccentricity * radius]], [[0, 0, moment]]
        )[:, 0]
        n = np.arange(1, 200)
        series = np.r_[0, (2 * n + 1) * eccentricity ** (n - 1.0)]
        expected = legendre.legval(electrodes[:, 2] / radius, series)
        expected *= moment / (4 * np.pi * CONDUCTIVITY * radius**2)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-12)

    def test_any_dipole_averages_to_zero_over_the_sphere(self):
        rng = np.random.default_rng(2)
        z = (np.arange(20000) + 0.5) / 10000 - 1
        turn = np.arange(20000) * np.pi * (3 - np.sqrt(5))
        ring = np.sqrt(1 - z**2)
        sphere = np.stack([ring * np.cos(turn), ring * np.sin(turn), z], axis=1)
        field = simulate.dipole_potentials(
            sphere, on_sphere(rng, 5, 0.7), rng.standard_normal((5, 3))
        )
        assert (np.abs(field.mean(0)) < 1e-4 * field.std(0)).all()

    def test_refusals(self):
        electrodes = on_sphere(np.random.default_rng(3), 8, 0.1)
        with pytest.raises(InputError, match="positions: every dipole must be inside"):
            simulate.dipole_potentials(electrodes, [[0.2, 0, 0]], [[1, 0, 0]])
        with pytest.raises(InputError, match="electrodes: must lie on one sphere"):
            simulate.dipole_potentials(electrodes * [1, 1, 2], [[0, 0, 0]], [[1, 0, 0]])


def share(row, sfreq, low, high):
    power = np.abs(np.fft.rfft(row)) ** 2
    f = np.fft.rfftfreq(row.size, 1 / sfreq)
    return power[(f >= low) & (f < high)].sum() / power.sum()


class TestEEG:
    def test_mixing_explains_all_but_the_noise(self, simulated):
        rest = simulated.data - simulated.mixing @ simulated.sources
        np.testing.assert_allclose(rest.std(1), 1e-6, rtol=0.05)
        np.testing.assert_allclose(simulated.sources.std(1), 1)
        np.testing.assert_allclose(simulated.mixing.mean(0), 0, atol=1e-18)
        assert np.abs(np.corrcoef(simulated.sources) - np.eye(20)).max() < 0.2
        assert np.linalg.matrix_rank(simulated.mixing) == 20

    def test_volts_of_an_eeg(self, simulated):
        assert (simulated.data.std(1) > 5e-6).all()
        assert (simulated.data.std(1) < 60e-6).all()

    def test_rhythms(self, simulated):
        by_kind = {"alpha": [], "beta": [], "background": []}
        for name, row in zip(simulated.source_names[:16], simulated.sources, strict=False):
            kind = name.rstrip("0123456789")
            bands = share(row, 250, 8, 12), share(row, 250, 15, 25)
            by_kind[kind].append([*bands, share(row, 250, 0.5, 5) / share(row, 250, 30, 100)])
        alpha, beta, background = (np.mean(v, 0) for v in by_kind.values())
        assert alpha[0] > 2 * max(beta[0], background[0])
        assert beta[1] > 2 * max(alpha[1], background[1])
        assert background[2] > 1.5  # 1/f: as much from 0.5 to 5 Hz as in three octaves above 30

    def test_bursts_change_the_variance(self, simulated):
        for name, row in zip(simulated.source_names, simulated.sources, strict=True):
            spread = np.log(row[: row.size // 125 * 125].reshape(-1, 125).std(1) + 1e-3).std()
            assert spread > (0.04 if name == "line" else 0.15)

    def test_blinks_are_frontal_and_a_hundred_microvolts(self, simulated):
        k = simulated.source_names.index("blink")
        image = np.outer(simulated.mixing[:, k], simulated.sources[k])
        strongest = np.abs(image).max(1)
        loudest = [simulated.names[c] for c in np.argsort(strongest)[-2:]]
        assert set(loudest) == {"Fp1", "Fp2"}
        assert strongest.max() == pytest.approx(100e-6, rel=0.15)
        assert strongest[simulated.names.index("Oz")] < 0.3 * strongest.max()

    def test_muscle_line_and_heart(self, simulated):
        row = dict(zip(simulated.source_names, simulated.sources, strict=True))
        field = dict(zip(simulated.source_names, simulated.mixing.T, strict=True))
        assert share(row["muscle"], 250, 20, 125) > 0.9
        near = simulated.names[np.abs(field["muscle"]).argmax()]
        assert near in ("T7", "T8", "FC5", "FC6", "F7", "F8")
        assert share(row["line"], 250, 49, 51) > 0.95
        beats = (np.diff((row["heart"] > 0.5 * row["heart"].max()).astype(int)) > 0).sum()
        assert 50 < beats < 90

    def test_a_seed_is_a_head(self):
        first, again, other = (simulate.eeg(6, 5, random_state=s) for s in (1, 1, 2))
        np.testing.assert_array_equal(first.data, again.data)
        assert not np.allclose(first.data, other.data)

    @pytest.mark.parametrize("n_channels", [4, 19, 32, 64])
    def test_any_number_of_electrodes(self, n_channels):
        head = simulate.eeg(6, 5, n_channels=n_channels, random_state=0)
        assert head.data.shape == (n_channels, 1250)
        assert len(set(head.names)) == n_channels
        np.testing.assert_allclose(np.linalg.norm(head.positions, axis=1), 0.09)
        gaps = np.linalg.norm(head.positions[:, None] - head.positions, axis=-1)
        assert gaps[np.triu_indices(n_channels, 1)].min() > 0.01
        assert ("Fp1" in head.names) == (n_channels <= 32)

    def test_positions_are_where_the_montage_has_them(self):
        from mne.channels import get_builtin_montages, make_standard_montage

        head = simulate.eeg(5, 2)
        names = get_builtin_montages()
        montage = "colin27_1020" if "colin27_1020" in names else "standard_1020"
        known = make_standard_montage(montage).get_positions()["ch_pos"]
        theirs = np.array([known[name] for name in head.names])
        theirs /= np.linalg.norm(theirs, axis=1, keepdims=True)
        angle = np.rad2deg(np.arccos((theirs * head.positions / 0.09).sum(1)))
        assert angle.max() < 15

    def test_other_mains_and_no_artefacts(self):
        head = simulate.eeg(4, 10, n_artefacts=3, line_frequency=60, random_state=0)
        assert head.source_names == ("alpha00", "blink", "muscle", "line")
        assert share(head.sources[3], 250, 59, 61) > 0.95
        assert simulate.eeg(2, 5, n_artefacts=0).source_names == ("alpha00", "beta01")

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"n_sources": 0}, "n_sources=0: must be a whole number, 1 or more"),
            ({"n_channels": 4.5}, "n_channels=4.5: must be a whole number, 4 or more"),
            ({"n_artefacts": 5}, "n_artefacts=5: must be 4 at most, and n_sources at most"),
            ({"n_sources": 2}, "n_artefacts=4: must be 4 at most, and n_sources"),
            ({"n_artefacts": None}, "n_artefacts=None: must be a whole number, 0 or more"),
            ({"noise": -1.0}, r"noise=-1.0: must be a number, 0 or more"),
            ({"noise": "a"}, "noise=a: must be a number, 0 or more"),
            ({"line_frequency": "a"}, "line_frequency=a: must be a number above 0"),
            ({"sfreq": 100.0, "line_frequency": 60.0}, "line noise below half of it"),
        ],
    )
    def test_refusals(self, settings, message):
        with pytest.raises(SettingsError, match=message):
            simulate.eeg(**settings)
