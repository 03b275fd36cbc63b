"""From one recording to another: lists of recordings, refits, and what is out of range."""

import json

import numpy as np
import pytest

from sourcesep import IVAE, load, save, separate
from sourcesep.exceptions import InputError, SettingsError, SourcesepWarning
from sourcesep.ivae.flows.fit import EFFORT, Effort
from sourcesep.ivae.underdetermined import UnderdeterminedModel
from sourcesep.metrics import mcc
from sourcesep.persistence import read_file, write_file
from sourcesep.simulate import scenes

SEEDS = pytest.mark.parametrize("seed", [0, 1, 2])


def scene(seed, n=3, **settings):
    return scenes(n, 3, 20, 200, 1, random_state=seed, **settings)


def quick(**settings):
    return IVAE(starts=("segments",), mixing="linear", random_state=0, **settings)


def order(truth, z):
    """Which source each component is, and with which sign."""
    d = truth.shape[1]
    correlation = np.corrcoef(truth, z, rowvar=False)[:d, d:]
    best = np.abs(correlation).argmax(axis=0)
    return [(int(k), float(np.sign(correlation[k, i]))) for i, k in enumerate(best)]


@pytest.fixture(scope="module")
def nonlinear():
    """A small nonlinear fit, and what it was fitted to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(EFFORT, "fast", Effort(2, 500))
        patch.setattr("sourcesep.verdict.share_hidden_by_noise", lambda *_: None)
        (data,) = scenes(1, 3, 20, 200, 2, random_state=5)
        settings = {"mixing": "nonlinear", "quality": "fast", "aux": "segments:200"}
        ivae = IVAE(**settings, device="cpu", random_state=0).fit(data.observations)
        return ivae, data


class TestLists:
    @SEEDS
    def test_one_map_for_all(self, seed):
        a, b, c = scene(seed)
        ivae = quick().fit([a.observations, b.observations])
        orders = [order(r.sources, ivae.transform(r.observations)) for r in (a, b, c)]
        assert orders[0] == orders[1] == orders[2]
        assert mcc(c.sources, ivae.transform(c.observations)) > 0.99

    def test_labels_of_a_list_are_each_recording_s_own(self):
        a, b, _ = scene(1)
        ivae = quick().fit([a.observations, b.observations], u=[a.u, b.u])
        assert len(ivae.u_names_) == 40
        assert ivae.u_names_[0] == "recording 0 + u=0"
        variance = ivae.model_.prior_moments()[1]
        for k, r in enumerate((a, b)):
            seen = order(r.sources, ivae.transform(r.observations))
            expected = np.log(r.scales[:, [s for s, _ in seen]])
            found = np.log(variance[20 * k : 20 * (k + 1)])
            assert np.diag(np.corrcoef(expected.T, found.T)[:3, 3:]).min() > 0.9
        together = np.concatenate([a.observations, b.observations])
        shared = quick().fit([a.observations, b.observations], u=np.concatenate([a.u, b.u]))
        assert len(shared.u_names_) == 20
        assert ivae.transform([a.observations, b.observations]).shape == together.shape

    def test_covariates_of_a_list(self):
        a, b, _ = scene(2)
        u = [np.linspace(0, 1, len(r.u)) for r in (a, b)]
        ivae = quick().fit([a.observations, b.observations], u=u)
        titles = {name.partition(" + ")[0] for name in ivae.u_names_}
        assert titles == {"recording 0", "recording 1"}

    @pytest.mark.parametrize(
        ("u", "message"),
        [
            ([np.zeros(4000, int)], "u of 1 arrays: X has 2 recordings"),
            ([np.zeros(4000, int), np.zeros(7, int)], r"u\[1\] of shape \(7,\)"),
            ([np.zeros((4000, 1)), np.zeros((4000, 2))], r"u\[1\] of shape \(4000, 2\)"),
        ],
    )
    def test_u_that_does_not_fit_is_named(self, u, message):
        a, b, _ = scene(1)
        with pytest.raises(InputError, match=message):
            quick().fit([a.observations, b.observations], u=u)

    def test_parts_of_other_widths_are_refused(self):
        a, b, _ = scene(1)
        with pytest.raises(InputError, match="X of 3, 2 columns"):
            quick().fit([a.observations, b.observations[:, :2]])


class TestRefit:
    @pytest.mark.parametrize(
        ("mixing", "seed"), [("linear", 0), ("linear", 1), ("linear", 2), ("post-nonlinear", 3)]
    )
    def test_every_component_keeps_its_index_and_sign(self, seed, mixing):
        a, b, _ = scene(seed, loudness=0.5)
        fitted = IVAE(mixing=mixing, starts=("segments",), random_state=0)
        fitted.fit(a.observations)
        again = fitted.refit(b.observations)
        z = again.transform(b.observations)
        assert order(b.sources, z) == order(a.sources, fitted.transform(a.observations))
        assert mcc(b.sources, z) > 0.99
        np.testing.assert_allclose(z.std(axis=0), 1, rtol=1e-6)
        assert again.verdict_ != fitted.verdict_
        assert "saved map" in again.reason_
        assert fitted.transform(a.observations).std(axis=0) == pytest.approx(1)

    def test_a_map_that_has_moved_is_followed(self):
        a, b, _ = scene(3)
        fitted = quick().fit(a.observations)
        moved = np.array([[0, 1, -1], [1, 0, 1], [-1, 1, 0]])
        turned = b.observations @ (np.eye(3) + 0.3 * moved)
        saved, again = fitted.transform(turned), fitted.refit(turned).transform(turned)
        assert mcc(b.sources, saved) < 0.99
        assert mcc(b.sources, again) > 0.995
        assert order(b.sources, again) == order(b.sources, fitted.transform(b.observations))

    def test_a_source_that_is_silent_here_stays_where_it_is(self):
        a, b, _ = scene(4)
        fitted = quick().fit(a.observations)
        seen = order(a.sources, fitted.transform(a.observations))
        matrix = np.linalg.lstsq(a.sources, a.observations)[0]
        sources = b.sources.copy()
        sources[:, seen[1][0]] = 0
        x = sources @ matrix
        again = fitted.refit(x)
        assert again.verdict_.label == "doubtful"
        z = again.transform(x)
        assert z[:, 1].std() < 0.05
        for k in (0, 2):
            assert abs(np.corrcoef(z[:, k], sources[:, seen[k][0]])[0, 1]) > 0.99

    def test_fewer_signals_than_components_are_refused(self):
        a, b, _ = scene(4)
        x = b.observations.copy()
        x[:, 2] = x[:, 0] - x[:, 1]
        with pytest.raises(InputError, match=r"holds 2 linearly independent signals .* 3 compon"):
            quick().fit(a.observations).refit(x)

    def test_families_that_cannot_say_so(self):
        model = UnderdeterminedModel(4)  # unfitted is enough: it refuses at once
        with pytest.raises(SettingsError, match="mixing=underdetermined does not go on"):
            model.warm(np.zeros((2, 10)), None, np.random.default_rng(0))


class TestRange:
    def test_what_is_out_of_it_is_named(self, nonlinear):
        ivae, data = nonlinear
        assert ivae.out_of_range(data.observations) == []
        seen = [k for k, _ in order(data.sources, ivae.transform(data.observations))]
        gains = np.ones((1, 3))
        gains[0, seen[1]] = 3
        (far,) = scenes(1, 3, 20, 200, 2, gains=gains, random_state=5)
        found = ivae.out_of_range(far.observations)
        assert 1 in [row["component"] for row in found]
        row = next(row for row in found if row["component"] == 1)
        assert row["times"] > 1.2
        assert 0.003 < row["share"] < 0.5
        with pytest.warns(
            SourcesepWarning, match=r"beyond the range .*component .*1 \(.*refit=True"
        ):
            separation = separate((far.observations.T, 1.0), model=ivae)
        assert separation.out_of_range == found
        result = json.loads(json.dumps(separation.result()))
        assert result["out_of_range"] == found
        assert any("beyond the range" in note for note in result["warnings"])
        again = separate((far.observations.T, 1.0), model=ivae, refit=True, aux="segments:200")
        assert again.result()["out_of_range"] is None
        assert order(far.sources, again.sources.T) == order(
            data.sources, ivae.transform(data.observations)
        )

    def test_a_single_wild_row_is_not_news(self, nonlinear):
        ivae, data = nonlinear
        x = data.observations.copy()
        x[50] *= 1000
        assert ivae.out_of_range(x) == []

    def test_nor_are_two_of_a_hundred(self):
        data = scene(1)[0]
        ivae = quick().fit(data.observations)
        x = 0.1 * data.observations[:100]
        x[:2] *= 10_000
        assert ivae.out_of_range(x) == []
        x[2] *= 10_000
        assert [row["share"] for row in ivae.out_of_range(x)] == [0.03] * 3

    def test_a_linear_map_holds_everywhere(self, recwarn):
        a, b, _ = scene(1)
        ivae = quick().fit(a.observations)
        separation = separate((5 * b.observations.T, 1.0), model=ivae)
        assert len(separation.out_of_range) == 3
        assert not [w for w in recwarn if "range" in str(w.message)]

    def test_ranges_go_into_the_file_and_old_files_have_none(self, nonlinear, tmp_path):
        ivae, data = nonlinear
        path = tmp_path / "m.safetensors"
        save(ivae, path)
        back = load(path)
        np.testing.assert_array_equal(back.range_, ivae.range_)
        np.testing.assert_array_equal(back.range_[0] < back.range_[1], True)
        with read_file(path, "sourcesep-model") as (facts, tensors):
            del tensors["component_range"]
            write_file(tmp_path / "old.safetensors", "sourcesep-model", facts, tensors)
        old = load(tmp_path / "old.safetensors")
        assert old.range_ is None
        assert old.out_of_range(data.observations) is None
        separation = separate((data.observations.T, 1.0), model=tmp_path / "old.safetensors")
        assert separation.result()["out_of_range"] is None
        np.testing.assert_array_equal(
            old.transform(data.observations), ivae.transform(data.observations)
        )
        save(old, tmp_path / "again.safetensors")
        assert load(tmp_path / "again.safetensors").range_ is None

    def test_ranges_that_do_not_fit_are_damage(self, nonlinear, tmp_path):
        path = tmp_path / "m.safetensors"
        save(nonlinear[0], path)
        with read_file(path, "sourcesep-model") as (facts, tensors):
            tensors["component_range"] = tensors["component_range"][::-1].copy()
            write_file(path, "sourcesep-model", facts, tensors)
        with pytest.raises(InputError, match="component_range does not fit the model"):
            load(path)
