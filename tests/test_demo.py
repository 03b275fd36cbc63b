"""The demo: what it shows, and that it is honest about what it cannot do."""

import numpy as np
import pytest
import soundfile

from sourcesep import demo, metrics
from sourcesep.exceptions import OutputError


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "out"
    return folder, {row.name: row for row in demo.run(folder)}


@pytest.mark.slow
class TestRows:
    def test_one_a_mixture(self, rows):
        assert list(rows[1]) == ["instantaneous", "saturated", "room"]

    def test_the_instantaneous_one_comes_apart(self, rows):
        row = rows[1]["instantaneous"]
        assert row.ours > 60
        assert row.ours > row.fastica + 10
        assert row.verdict == "trusted"

    def test_the_saturated_one_comes_apart_or_is_not_trusted(self, rows):
        row = rows[1]["saturated"]
        assert row.ours > row.fastica
        assert row.verdict != "trusted" or row.ours > row.fastica + 6

    def test_the_room_comes_apart(self, rows):
        """An echo takes more than one matrix: FastICA makes it worse."""
        row = rows[1]["room"]
        assert row.ours > 18
        assert row.fastica < 0
        assert row.verdict != "not identifiable"

    def test_files_are_there_to_listen_to(self, rows):
        for name in rows[1]:
            mixture, _ = soundfile.read(rows[0] / f"{name}.wav")
            sources = [soundfile.read(rows[0] / name / f"source0{k}.wav")[0] for k in (0, 1)]
            assert all(source.shape == mixture.shape for source in sources)


class TestMixtures:
    def test_are_the_same_every_time(self):
        for a, b in zip(demo.mixtures(1).values(), demo.mixtures(1).values(), strict=True):
            np.testing.assert_array_equal(a.data, b.data)

    def test_are_as_long_as_asked(self):
        assert {m.data.shape for m in demo.mixtures(1).values()} == {(2, demo.SFREQ)}


def test_best_si_sdr_matches_sources():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 1000))
    found = np.stack([-2 * (b + 0.1 * a), a + 0.1 * rng.standard_normal(1000)])
    expected = (metrics.si_sdr(a, found[1]) + metrics.si_sdr(b, found[0])) / 2
    assert demo.best_si_sdr(np.stack([a, b]), found) == pytest.approx(expected)
    assert demo.best_si_sdr(np.stack([a, b]), np.stack([b, a])) == np.inf


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "f").write_text("x")
    with pytest.raises(OutputError, match=r"output=.*f: cannot be written \(File exists\); free"):
        next(demo.run(tmp_path / "f"))
