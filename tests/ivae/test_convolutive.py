"""Family ``convolutive``: talkers in rooms."""

import numpy as np
import pytest
from scipy.signal import resample_poly
from sklearn.decomposition import FastICA

from sourcesep import metrics, simulate, windows
from sourcesep.demo import best_si_sdr
from sourcesep.exceptions import InputError, SettingsError
from sourcesep.ivae.convolutive import FLOOR, STARTS, TIE, ConvolutiveModel, Start
from sourcesep.ivae.stft import projection
from sourcesep.ivae.stft.cells import FAINT, to_spectrum
from sourcesep.ivae.stft.cepstrum import cepstral_variances
from sourcesep.ivae.stft.level import COARSE, Level

from ..conftest import labelled

SFREQ = 8000


def in_time(n_times, sfreq=SFREQ):
    return labelled(windows.segments(n_times, int(0.02 * sfreq)))


def room(seed, n=2, n_mics=None, seconds=4.0, sfreq=SFREQ, rt60=0.15):
    voices = [simulate.speech(seconds, sfreq, random_state=100 * seed + k) for k in range(n)]
    return simulate.room(voices, sfreq=sfreq, n_mics=n_mics, rt60=rt60, random_state=seed)


def fit(x, n=None, sfreq=SFREQ, quality="fast"):
    model = ConvolutiveModel(n, sfreq=sfreq, starts=STARTS[quality])
    return model.fit(x, in_time(x.shape[1], sfreq), np.random.default_rng(0))


def gain(mixture, heard):
    """Mean gain in dB of SI-SDR at the first microphone, of (n, n_times)."""
    true = mixture.images[:, 0]
    return best_si_sdr(true, heard) - metrics.si_sdr(true, mixture.data[0]).mean()


@pytest.fixture(scope="module", params=[0, 1, 2])
def fitted(request):
    mixture = room(request.param)
    return mixture, fit(mixture.data, quality="normal")


class TestSeparation:
    def test_it_separates_what_a_matrix_cannot(self, fitted):
        mixture, model = fitted
        ours = gain(mixture, model.images(mixture.data)[:, 0])
        ica = FastICA(2, whiten="unit-variance", random_state=0, max_iter=1000)
        theirs = gain(mixture, ica.fit_transform(mixture.data.T).T)
        assert ours > 11
        assert ours > theirs + 8

    def test_fast_is_one_of_the_starts(self, fitted):
        mixture, model = fitted
        quick = fit(mixture.data)
        assert list(quick.scores) == ["128 ms"]
        assert set(model.scores) == {"64 ms", "128 ms", "256 ms"}
        assert quick.scores["128 ms"] == pytest.approx(model.scores["128 ms"], abs=1e-3)
        assert "128 ms" in quick.choice
        assert "3 starts" in model.choice

    def test_of_starts_that_tie_the_middle_one_is_kept(self, fitted):
        _, model = fitted
        least = max(model.scores.values()) - TIE
        ties = [name for name, score in model.scores.items() if score >= least]
        assert next(iter(model.scores)) == "128 ms"
        assert f"windows of {ties[0]}" in model.choice

    @pytest.mark.parametrize(
        ("n", "n_mics", "sfreq", "least"), [(2, 4, 8000, 12), (3, 3, 16_000, 11)]
    )
    def test_more_microphones_and_more_talkers(self, n, n_mics, sfreq, least):
        mixture = room(5, n, n_mics, sfreq=sfreq)
        model = fit(mixture.data, n, sfreq=sfreq, quality="normal")
        images = model.images(mixture.data)
        assert images.shape == (n, n_mics, mixture.data.shape[1])
        assert gain(mixture, images[:, 0]) > least
        # at every microphone the image is what that microphone hears of the talker
        true = mixture.images.transpose(1, 0, 2)
        for m in range(n_mics):
            heard = metrics.si_sdr(true[m], mixture.data[m]).mean()
            assert best_si_sdr(true[m], images[:, m]) - heard > least - 3

    def test_images_add_up_to_nearly_everything(self, fitted):
        mixture, model = fitted
        x = mixture.data
        rest = x - x.mean(axis=1, keepdims=True) - model.images(x).sum(axis=0)
        assert np.square(rest).mean() < 1e-4 * np.square(x).mean()

    def test_sources_are_what_the_reference_channel_hears(self, fitted):
        mixture, model = fitted
        z, images = model.posterior(mixture.data).mean, model.images(mixture.data)
        for source, image in zip(z, images[:, model.basis.reference], strict=True):
            scale = image @ source / (source @ source)
            assert scale > 0
            np.testing.assert_allclose(image, scale * source, atol=1e-4 * scale)

    def test_decoding_the_sources_gives_most_of_the_mixture(self, fitted):
        """Sources as signals cannot say all that their cells say."""
        mixture, model = fitted
        back = model.decode(model.posterior(mixture.data).mean)
        assert metrics.si_sdr(mixture.data, back).min() > 10


@pytest.fixture(scope="module", params=[0, 1, 3])
def fit_of_one_size(request):
    x = room(request.param).data
    x = (x / x.std(axis=1, keepdims=True)).astype(np.float32)
    level = Level(x, 4096, 2)
    return x, level, level.begun(60, 10)


class TestAlignment:
    """Bands that another source has taken are told by their delays."""

    def test_what_is_right_stays_as_it_is(self, fit_of_one_size):
        _, level, rows = fit_of_one_size
        assert level.aligned(rows) is rows

    @pytest.mark.parametrize(("lo", "hi"), [(500, 800), (1200, 2049)])
    @pytest.mark.parametrize("polarity", [1, -1])
    def test_what_was_swapped_is_given_back(self, fit_of_one_size, lo, hi, polarity):
        x, level, rows = fit_of_one_size
        other = Level(x * np.float32([[1], [polarity]]), 4096, 2)
        turned = rows * np.array([1, polarity])[:, None]
        swapped = turned.copy()
        swapped[:, :, lo:hi] = turned[::-1, :, lo:hi]
        assert other.compactness(swapped) < level.compactness(rows)
        mended = other.aligned(swapped)
        # which source is the first is not known, and some bands' wavelengths fit both delays
        ends = turned, turned[::-1]
        wrong = min((np.abs(mended - end).max(axis=(0, 1)) > 0).mean() for end in ends)
        assert wrong < 0.4 * (hi - lo) / 2049

    def test_equal_delays_say_nothing(self):
        rng = np.random.default_rng(0)
        x = rng.laplace(size=(2, 16_000)) * np.repeat(rng.gamma(0.5, size=(2, 40)), 400, axis=1)
        level = Level((np.array([[1, 0.6], [0.5, 1]]) @ x).astype(np.float32), 2048, 2)
        rows = level.begun(40, 5)
        rows[:, :, 300:600] = rows[::-1, :, 300:600]
        assert level.aligned(rows) is rows


class TestStart:
    def test_it_ends_when_nothing_changes(self, monkeypatch):
        x = room(1, seconds=2.0).data.astype(np.float32)
        level = Level(x / x.std(), 1024, 2, overlap=COARSE)
        updates = []
        project = projection.project

        def counted(rows, covariances):
            updates.append(1)
            return project(rows, covariances)

        monkeypatch.setattr("sourcesep.ivae.stft.level.project", counted)
        rows = level.begun(1000, 0)
        assert 5 < len(updates) < 60
        # and there nothing does
        powers = level.products.frame_powers(rows)
        powers /= powers.mean(axis=1, keepdims=True)
        again = project(rows, level.products.covariances(powers[:, :, None] + 1e-6))
        change = np.log(level.products.frame_powers(again) / level.products.frame_powers(rows))
        assert (change - change.mean(axis=1, keepdims=True)).std() < 0.02

    def test_half_the_frames_find_nearly_the_same(self):
        x = room(1).data
        x = x / x.std(axis=1, keepdims=True)
        levels = [Level(x.astype(np.float32), 2048, 2, overlap=n) for n in (4, COARSE)]
        assert levels[1].cells.shape[1] < 0.52 * levels[0].cells.shape[1]
        many, few = (level.signals(level.begun(60, 5)) for level in levels)
        assert best_si_sdr(many, few) > 12


class TestRate:
    """Above 16 kHz, what lies below 8 kHz decides, and the rest follows."""

    @pytest.mark.parametrize("seed", [0, 2])
    def test_a_higher_rate_costs_nothing(self, seed):
        mixture = room(seed, seconds=3.0, sfreq=16_000, rt60=0.3)
        images = [
            resample_poly(mixture.images, up, 1, axis=2) if up > 1 else mixture.images
            for up in (1, 3)
        ]
        true = [heard[:, 0] for heard in images]
        found = []
        for up, heard in zip((1, 3), images, strict=True):
            x = heard.sum(axis=0)
            found.append(fit(x, sfreq=16_000 * up).images(x)[:, 0])
        low, high = (best_si_sdr(*pair) for pair in zip(true, found, strict=True))
        assert high > low - 1

    def test_bins_above_follow_those_below(self):
        rng = np.random.default_rng(0)
        x = rng.laplace(size=(2, 16_000)) * np.repeat(rng.gamma(0.5, size=(2, 40)), 400, axis=1)
        mixing = np.array([[1, 0.6], [0.5, 1]])
        x = (mixing @ x).astype(np.float32)
        below = Level(x, 512, 2, 101)
        assert below.cells.shape[2] == 101
        rows = below.begun(40, 5)
        wide = Level(x, 512, 2).widened(rows)
        assert (wide[:, :, :101] == rows).all()
        through = np.abs(np.einsum("abf,bs->asf", wide, mixing))
        through /= through.max(axis=1, keepdims=True)
        crosstalk = through.min(axis=1)
        assert np.median(crosstalk[:, 101:]) < 0.1
        # above, every source is the one that it is below
        order = through[:, :, :101].mean(axis=2).argmax(axis=1)
        assert sorted(order) == [0, 1]
        assert (through[:, :, 101:].argmax(axis=1) == order[:, None]).mean() > 0.98


class TestWindow:
    @pytest.mark.parametrize(
        ("rt60", "right", "wrong"), [(0.12, 0.384, 0.64), (0.5, 0.512, 0.384)]
    )
    def test_it_is_as_long_as_the_room_asks(self, rt60, right, wrong):
        mixture = room(1, seconds=6.0, rt60=rt60)
        u, gains = in_time(mixture.data.shape[1]), []
        for window in (None, wrong):
            model = ConvolutiveModel(sfreq=SFREQ, starts=STARTS["fast"], window=window)
            model.fit(mixture.data, u, np.random.default_rng(0))
            assert model.size == SFREQ * (window or right)
            gains.append(gain(mixture, model.images(mixture.data)[:, 0]))
        assert gains[0] > gains[1] + 1

    def test_a_refit_keeps_it(self, fitted):
        mixture, model = fitted
        again = model.blank().fit(
            mixture.data, in_time(mixture.data.shape[1]), np.random.default_rng(0)
        )
        assert (again.size, again.base, again.start) == (model.size, model.base, model.start)
        assert list(again.scores) == [model.choice.split("of ")[1].split(":")[0]]

    def test_files_without_it_have_one_window(self, fitted):
        state = fitted[1].state()
        del state.facts["base"]
        old = ConvolutiveModel.from_state(state)
        assert old.base == old.size


def test_long_reverberation_of_simulated_talkers():
    """Most of this mixture was below 10 Hz once, where it came out at 2 dB."""
    mixture = room(8002, seconds=8.0, sfreq=16_000, rt60=0.5)
    model = fit(mixture.data, sfreq=16_000)
    assert gain(mixture, model.images(mixture.data)[:, 0]) > 13


class TestSymmetries:
    @pytest.mark.parametrize("seed", [1, 5, 6])  # in which two talkers are found at all
    def test_channels_in_another_order_and_scale(self, seed):
        mixture = room(seed)
        images = fit(mixture.data).images(mixture.data)
        other = np.array([[-20.0], [0.3]]) * mixture.data[::-1] + 5
        turned = fit(other).images(other)[:, ::-1] / np.array([0.3, -20.0])[:, None]
        order = [0, 1] if abs(np.corrcoef(turned[0, 0], images[0, 0])[0, 1]) > 0.5 else [1, 0]
        assert metrics.si_sdr(images, turned[order]).min() > 20

    def test_a_reference_may_be_silent_or_double(self):
        mixture = room(4, 2, 2)
        plain = fit(mixture.data, quality="normal").images(mixture.data)
        x = np.concatenate([np.full((1, mixture.data.shape[1]), 0.2), mixture.data, mixture.data])
        model = fit(x, quality="normal")
        assert (model.rank, model.n_components) == (2, 2)
        images = model.images(x)
        np.testing.assert_allclose(images[:, 1:3], images[:, 3:], atol=1e-6)
        assert np.abs(images[:, 0]).max() < 1e-6
        assert metrics.si_sdr(plain, images[:, 1:3]).min() > 40

    def test_digital_silence_in_the_middle_stays_silent(self):
        mixture = room(6)
        x = mixture.data.copy()
        x[:, 12_000:24_000] = 0
        images = fit(x).images(x)
        assert np.isfinite(images).all()
        # but for the channels' means, which are taken out of all samples
        assert np.abs(images[..., 17_000:19_000]).max() < 2 * np.abs(x.mean(axis=1)).sum()
        kept = np.r_[0:8_000, 28_000:32_000]
        true = mixture.images[:, 0][:, kept]
        assert best_si_sdr(true, images[:, 0][:, kept]) > 5

    @pytest.mark.parametrize("n", [2, 3])
    def test_silence_around_a_mixture_changes_little(self, n):
        mixture = room(0, n)
        x = np.pad(mixture.data, ((0, 0), (3 * SFREQ, SFREQ)))
        heard = fit(x).images(x)[:, 0, 3 * SFREQ : 7 * SFREQ]
        assert gain(mixture, heard) > 12

    @pytest.mark.parametrize(("sfreq", "n"), [(200, 2), (200, 3), (1000, 3)])
    def test_silence_of_half_the_record_leaves_numbers_numbers(self, sfreq, n):
        rng = np.random.default_rng(0)
        white = rng.standard_normal((2000, n))
        power = np.exp(np.repeat(rng.standard_normal((20, n)), 100, axis=0))
        x = rng.standard_normal((n, n)) @ (white * power).T
        x[:, :1000] = 0
        model = fit(x, sfreq=sfreq, quality="normal")
        assert np.isfinite(model.posterior(x).mean).all()
        assert np.isfinite(model.elbo(x, in_time(x.shape[1], sfreq)).mean)


def clipped(x):
    return np.clip(x, -0.4 * np.abs(x).max(), 0.4 * np.abs(x).max())


def late(x):
    """The second microphone 20 ms behind."""
    return np.stack([x[0], np.roll(x[1], SFREQ // 50)])


def humming(x):
    """As loud a hum as the talkers in both microphones."""
    phase = 2 * np.pi * 50 / SFREQ * np.arange(x.shape[1]) + np.array([[0.0], [0.4]])
    return x + np.sqrt(2) * x.std() * np.sin(phase)


def quiet(x):
    """An offset, and the second microphone 40 dB weaker and the wrong way round."""
    return x * np.array([[1], [-0.01]]) + np.array([[0.3], [0.0]]) * np.abs(x).max()


class TestOddMicrophones:
    @pytest.mark.parametrize("seed", [1, 3])
    @pytest.mark.parametrize("spoilt", [clipped, late, quiet, humming])
    def test_talkers_are_still_told_apart(self, seed, spoilt):
        mixture = room(seed)
        x = spoilt(mixture.data)
        heard = fit(x, quality="normal").images(x)[:, 0]
        # what is asked of it is more than to leave the mixture as it is
        left = best_si_sdr(mixture.images[:, 0], np.stack([x[0], x[0]]))
        assert best_si_sdr(mixture.images[:, 0], heard) > left + 5


class TestEdges:
    @pytest.mark.parametrize("sfreq", [8000, 44_100, 192_000])
    @pytest.mark.parametrize("seconds", [0.02, 0.3])
    def test_short_clips_at_any_rate(self, sfreq, seconds):
        x = room(0, seconds=1.0).data[:, : int(seconds * SFREQ)]
        x = np.repeat(x, sfreq // SFREQ, axis=1)
        model = fit(x, sfreq=sfreq, quality="normal")
        assert model.size / model.sfreq < 0.56
        assert np.isfinite(model.images(x)).all()
        assert np.isfinite(model.elbo(x, in_time(x.shape[1], sfreq)).mean)

    def test_no_start_is_shorter_than_64_ms(self):
        x = room(0, seconds=1.0).data
        model = ConvolutiveModel(sfreq=SFREQ, starts=(Start(8, 2, 1), Start(2, 2, 1)))
        model.fit(x, in_time(x.shape[1]), np.random.default_rng(0))
        assert model.size == 2048
        assert list(model.scores) == ["64 ms", "128 ms"]

    def test_one_source_is_the_strongest_direction(self):
        x = room(1, n_mics=3, seconds=1.0).data
        model = fit(x, 1)
        assert model.images(x).shape == (1, 3, x.shape[1])
        left = x - model.images(x)[0]
        assert np.square(left).mean() < 0.6 * np.square(x).mean()

    def test_what_cannot_be_is_refused(self):
        x = room(0, seconds=0.5).data
        with pytest.raises(SettingsError, match=r"n_components=3: .* independent channels, 2"):
            fit(x, 3)
        with pytest.raises(InputError, match="silent"):
            fit(np.zeros((2, 4000)))


class TestLikelihood:
    @pytest.mark.parametrize("n", [1, 2, 3])
    def test_the_elbo_is_the_density_of_its_cells(self, n):
        """Brute force over every cell: a Gaussian whose covariance is A Lambda A^H + rest."""
        x = room(2, 2, 3, seconds=0.5).data
        u = in_time(x.shape[1])
        model = fit(x, n)
        cells = to_spectrum(model.basis.coordinates(x), model.size)
        z = np.einsum("arf,rtf->atf", model.encoder, cells).astype(complex)
        squares = np.abs(z) ** 2 + FAINT
        colour = squares.mean(axis=1, keepdims=True)
        variances = cepstral_variances(squares / colour, FLOOR) * colour + model.noise[:, None]
        rows = model.encoder.transpose(2, 0, 1).astype(complex)
        inverse = np.linalg.pinv(rows)
        # directions that no row sees have the power that is set aside
        outside = np.eye(3) - inverse @ rows
        reconstruction, kl = model._bound(cells, None)
        for t, f in [(3, 5), (7, 100), (4, 200)]:
            covariance = inverse[f] @ np.diag(variances[:, t, f]) @ inverse[f].conj().T
            covariance = covariance + model.aside[f] * outside[f]
            y = cells[:, t, f].astype(complex)
            expected = -np.linalg.slogdet(np.pi * covariance)[1]
            expected -= (y.conj() @ np.linalg.solve(covariance, y)).real
            found = reconstruction[t, f] - kl[t, f]
            assert found == pytest.approx(expected, abs=0.02 + 1e-4 * abs(expected))
        bound = model.elbo(x, u)
        assert bound.mean == pytest.approx(model.log_density(x, u).mean())

    def test_the_colour_of_a_source_says_nothing(self, fitted):
        """However rough the filter on a source, it is as likely."""
        mixture, model = fitted
        x, u = mixture.data, in_time(mixture.data.shape[1])
        rough = np.random.default_rng(0).lognormal(0, 1, model.noise.shape).astype(np.float32)
        other = ConvolutiveModel.from_state(model.state())
        other.encoder, other.noise = model.encoder * rough[:, None], model.noise * rough**2
        assert other.elbo(x, u).mean == pytest.approx(model.elbo(x, u).mean, abs=5e-3)

    def test_talkers_apart_are_likelier_than_mixed(self, fitted):
        mixture, model = fitted
        x, u = mixture.data, in_time(mixture.data.shape[1])
        other = ConvolutiveModel.from_state(model.state())
        turn = np.array([[1, 1], [-1, 1]]) / np.sqrt(2)
        other.encoder = np.einsum("ab,brf->arf", turn, model.encoder).astype(np.complex64)
        assert model.elbo(x, u).mean > other.elbo(x, u).mean + 0.05
