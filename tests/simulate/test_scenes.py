"""Several recordings of the same sources."""

import numpy as np
import pytest

from sourcesep.exceptions import SettingsError
from sourcesep.simulate import scenes


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_same_sensors_are_one_map(seed):
    a, b = scenes(2, 3, 10, 300, 1, random_state=seed)
    matrices = [np.linalg.lstsq(r.sources, r.observations)[0] for r in (a, b)]
    np.testing.assert_allclose(*matrices, atol=1e-12)
    assert np.abs(np.corrcoef(np.log(a.scales), np.log(b.scales), rowvar=False)[:3, 3:]).max() < 1
    other = scenes(2, 3, 10, 300, 1, sensors="other", random_state=seed)
    matrices = [np.linalg.lstsq(r.sources, r.observations)[0] for r in other]
    assert np.abs(matrices[0] - matrices[1]).max() > 0.1
    profile = np.corrcoef(*(np.log(r.scales).T for r in other))[:3, 3:]
    assert np.diag(profile).min() > 0.8


def test_gains_are_loudness_and_leave_the_scene_as_it_is():
    gains = np.ones((2, 3))
    gains[1, 2] = 5
    plain, louder = scenes(2, 3, random_state=4), scenes(2, 3, gains=gains, random_state=4)
    np.testing.assert_array_equal(plain[0].observations, louder[0].observations)
    np.testing.assert_allclose(louder[1].sources, plain[1].sources * gains[1])
    deviation = louder[1].sources[louder[1].u == 0].std(axis=0)
    np.testing.assert_allclose(deviation, louder[1].scales[0], rtol=0.2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_recordings": 0}, "n_recordings=0"),
        ({"sensors": "some"}, "allowed are same, other"),
        ({"loudness": -1}, "loudness=-1"),
        ({"jitter": np.inf}, "jitter=inf"),
        ({"gains": np.ones(5)}, r"gains of shape \(5,\)"),
    ],
)
def test_what_cannot_be_is_refused(settings, message):
    with pytest.raises(SettingsError, match=message):
        scenes(**settings)
