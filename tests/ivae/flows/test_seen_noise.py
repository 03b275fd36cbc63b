"""Noise is seen in what components share, by maps that are known and not fitted."""

from types import SimpleNamespace

import numpy as np
import pytest

from sourcesep.ivae.flows.seen_noise import seen_noise
from sourcesep.ivae.priors import LabelPrior
from sourcesep.ivae.settings import GAUSSIAN

from ...conftest import labelled

N_LABELS, LENGTH = 50, 400
LEANING = np.array([[1.0, 0.6, 0.3], [0.2, 1.0, 0.5], [0.4, -0.3, 1.0]])


class Waves:
    """x_1 = s_1, x_2 = s_2 + sin(2 s_1), x_3 = s_3 + s_1 s_2 / 2."""

    @staticmethod
    def decode(s):
        return np.stack([s[0], s[1] + np.sin(2 * s[0]), s[2] + s[0] * s[1] / 2])

    @staticmethod
    def latents(x):
        second = x[1] - np.sin(2 * x[0])
        return np.stack([x[0], second, x[2] - x[0] * second / 2])


def matrix(mixing):
    back = np.linalg.inv(mixing)
    return SimpleNamespace(decode=lambda s: mixing @ s, latents=lambda x: back @ x)


def seen(f, seed, noise, *, wrong=None):
    """What is seen where f maps sources of changing variance, and noise comes on top.

    `wrong` is a map that follows the right one, as that of a fit might.
    """
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(N_LABELS), LENGTH)
    scales = np.exp(rng.uniform(-2, 1, (N_LABELS, 3)))
    s = scales[labels].T * rng.standard_normal((3, len(labels)))
    x = f.decode(s) + noise * rng.standard_normal(s.shape)
    latents, decode = f.latents, f.decode
    if wrong is not None:
        latents, decode = (lambda x: wrong @ f.latents(x)), (lambda z: f.decode(back @ z))
        back = np.linalg.inv(wrong)
    prior = LabelPrior.fit(latents(x), labels, N_LABELS, with_mean=False, shapes=GAUSSIAN)
    flow = SimpleNamespace(latents=latents, decode=decode, prior=prior)
    return seen_noise(flow, x, labelled(labels), max(noise, 0.02) ** 2) ** 0.5


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("f", [matrix(LEANING), Waves()], ids=["matrix", "waves"])
class TestNoise:
    def test_is_measured(self, f, seed):
        assert seen(f, seed, 0.2) == pytest.approx(0.2, rel=0.15)

    def test_is_not_seen_where_there_is_none(self, f, seed):
        assert seen(f, seed, 0.0) == 0

    def test_is_not_what_a_wrong_map_leaves(self, f, seed):
        """Components with some of the others in them share that, and follow their variances."""
        mixed = np.eye(3) + 0.05 * np.random.default_rng(seed).standard_normal((3, 3))
        assert seen(f, seed, 0.0, wrong=mixed) < 0.1


@pytest.mark.parametrize("seed", range(3))
def test_a_rotation_shares_nothing(seed):
    turn = np.linalg.qr(np.random.default_rng(seed).standard_normal((3, 3)))[0]
    assert seen(matrix(turn), seed, 0.2) == 0
