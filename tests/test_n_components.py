"""Choosing the number of components, and refusing what cannot be fitted."""

import numpy as np
import pytest

from sourcesep import simulate
from sourcesep.auxiliary import from_array
from sourcesep.exceptions import InputError, SettingsError, SourcesepWarning
from sourcesep.ivae.factor import FactorModel
from sourcesep.ivae.linear import LinearModel
from sourcesep.n_components import check_samples, choose_n_components

from .conftest import mixed_by_matrix, u_of


def rng():
    return np.random.default_rng(0)


class TestNumberOfComponents:
    @pytest.mark.parametrize("seed", [0, 1, 2])
    @pytest.mark.parametrize("n", [1, 3])
    def test_that_stand_out_from_noise(self, seed, n):
        x = mixed_by_matrix("modulated", seed, n=n, n_channels=6, noise=0.05)
        number, scores = choose_n_components(x, u_of(x), rng())
        assert number == n
        assert scores[str(n)] > max(scores.values()) - 0.02
        assert list(scores) == ["1", "2", "3", "4", "5", "6"]
        assert np.isfinite(list(scores.values())).all()

    @pytest.mark.parametrize("n", [4, 8])
    def test_all_where_there_is_no_noise(self, n):
        x = mixed_by_matrix("modulated", 0, n=n)
        number, scores = choose_n_components(x, u_of(x), rng())
        assert number == n
        assert list(scores) == list(map(str, range(1, n + 1)))

    def test_does_not_depend_on_units(self):
        x = mixed_by_matrix("modulated", 1, n=2, n_channels=5, noise=0.05)
        units = 10.0 ** np.array([-30, -6, 0, 6, 30])[:, None]
        one, scores = choose_n_components(x, u_of(x), rng())
        other, scaled = choose_n_components(x * units, u_of(x), rng())
        assert one == other == 2
        for k, score in scores.items():
            assert scaled[k] + np.log(units).sum() == pytest.approx(score, abs=1e-3)

    def test_more_channels_than_samples(self):
        x = rng().standard_normal((100, 50))
        number, scores = choose_n_components(x, u_of(x), rng())
        assert 1 <= number <= 25
        assert max(map(int, scores)) <= 25

    @pytest.mark.parametrize("missing", [0.0, 0.2])
    @pytest.mark.parametrize("seed", [5, 6])
    def test_of_factors_with_noise_and_gaps(self, seed, missing):
        table = simulate.factors(900, 9, 4, missing=missing, random_state=seed)
        u = from_array(table.u, 900)
        both = (LinearModel, FactorModel)
        number, scores = choose_n_components(table.observations.T, u, rng(), families=both)
        assert number == 4
        assert scores["4"] == max(scores.values())

    def test_a_single_column_that_varies_has_no_number_of_factors(self):
        x = np.stack([rng().standard_normal(100), np.ones(100)])
        with pytest.raises(InputError, match=r"^1 column that varies: a number of factors is"):
            choose_n_components(
                x, from_array(np.arange(100) // 10, 100), rng(), families=[FactorModel]
            )

    def test_samples_left_out_do_not_count(self):
        x = mixed_by_matrix("modulated", 0, n=2, n_channels=4, noise=0.05)
        loud = np.concatenate([x, 1e6 * rng().standard_normal((4, 400))], axis=1)
        u = np.concatenate([np.arange(4000) // 100, np.full(400, -1)])
        assert choose_n_components(loud, from_array(u, 4400), rng())[0] == 2

    @pytest.mark.parametrize("x", [np.ones((2, 100)), 1 + 1e-17 * np.ones((3, 100))])
    def test_of_constants(self, x):
        u = from_array(np.arange(100) // 10, 100)
        with pytest.raises(InputError, match=r"^every channel is constant \(silent\): there is"):
            choose_n_components(x, u, rng())


class TestCheck:
    def x(self, channels, times):
        return rng().standard_normal((channels, times))

    @pytest.mark.parametrize("number", [0, -1, 1.0, 2.5, "2", True, [2], np.nan])
    def test_numbers_that_are_none(self, number):
        x = self.x(2, 100)
        with pytest.raises(SettingsError, match=r"^n_components=.*: must be a whole number, 1 or"):
            check_samples(x, u_of(x), number)

    @pytest.mark.parametrize("number", [None, 1, 2, np.int64(2), np.uint8(1)])
    def test_numbers_that_are(self, number):
        x = self.x(2, 1000)
        check_samples(x, u_of(x), number)

    def test_few_samples(self):
        with pytest.raises(InputError) as error:
            check_samples(self.x(2, 7), u_of(self.x(2, 7)))
        assert str(error.value) == (
            "n_times=7: too few samples to find sources in, at least 8 are needed; record longer"
        )

    def test_what_looks_transposed(self):
        with pytest.raises(InputError, match=r"; are samples and channels the wrong way round\?$"):
            check_samples(self.x(500, 2), u_of(self.x(500, 2)))

    def test_too_few_for_the_rank(self):
        x = self.x(30, 50)
        with pytest.raises(InputError) as error:
            check_samples(x, u_of(x))
        assert str(error.value) == (
            "n_times=50: too few samples for 30 components, at least 60 are needed; ask for fewer "
            "components, or give a longer recording"
        )
        check_samples(x, u_of(x, "segments:25"), 25)
        with pytest.raises(InputError, match="for 26 components, at least 52"):
            check_samples(x, u_of(x), 26)

    def test_the_rank_counts_not_the_channels(self):
        x = np.repeat(self.x(3, 50), 20, axis=0)
        check_samples(x, u_of(x, "segments:10"))

    def test_only_samples_with_a_label_count(self):
        x = self.x(2, 1000)
        u = np.full(1000, -1)
        u[:7] = np.arange(7) % 2
        with pytest.raises(InputError, match=r"^n_times=7: .*; u leaves 993 others out$"):
            check_samples(x, from_array(u, 1000))

    def test_u_that_tells_nothing(self):
        with pytest.raises(SettingsError, match="labels with two samples or more: 1"):
            check_samples(self.x(2, 100), from_array(np.zeros(100, int), 100))

    def test_small_labels_are_warned_of_once(self):
        x = self.x(2, 100)
        with pytest.warns(SourcesepWarning, match="half of the 50 labels have 2 samples") as said:
            check_samples(x, from_array(np.arange(100) // 2, 100))
        assert len(said) == 1
