"""One source in several heads, told by how it follows the conditions."""

import json

import mne
import numpy as np
import pytest
from click.testing import CliRunner

from sourcesep import IVAE, ComponentAnalysis, match_components, metrics, save, simulate
from sourcesep.cli import main
from sourcesep.components.profile import follow_alike
from sourcesep.exceptions import InputError, SettingsError
from sourcesep.misfit import Misfit
from sourcesep.verdict import Verdict

N_BRAIN = 8
SECONDS = 120
BLOCK = 3
N_CONDITIONS = 8
AUX = "segments:.5,2,8+annotations"


def subject(seed, which, gain):
    """A head of its own whose first sources follow the conditions, in an order of its own."""
    head = simulate.eeg(
        N_BRAIN + 4, SECONDS, n_channels=20, random_state=np.random.default_rng([seed, which])
    )
    effect = gain * np.random.default_rng(seed).standard_normal((N_BRAIN, N_CONDITIONS))
    rng = np.random.default_rng([seed, which, 1])
    order = rng.permuted(np.tile(np.arange(N_CONDITIONS), (5, 1)), axis=1).ravel()
    sources = head.sources.copy()
    sources[:N_BRAIN] *= np.exp(0.5 * np.repeat(effect[:, order], BLOCK * 250, axis=1))
    noise = 1e-6 * rng.standard_normal(head.data.shape)
    info = mne.create_info(list(head.names), 250.0, "eeg", verbose="error")
    raw = mne.io.RawArray(head.mixing @ sources + noise, info, verbose="error")
    marks = np.arange(len(order)) * BLOCK
    raw.set_annotations(mne.Annotations(marks, BLOCK, [f"condition {c}" for c in order]))
    raw.filter(1.0, None, verbose="error")
    ca = ComponentAnalysis(aux=AUX).fit(raw)
    match = metrics.match_sources(sources.T, ca.get_sources(raw).get_data().T)
    return ca, dict(zip(match.components.tolist(), match.sources.tolist(), strict=True)), raw


@pytest.fixture(scope="module")
def subjects():
    return [subject(11, which, 1.0) for which in range(3)]


@pytest.fixture(scope="module")
def files(subjects, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    paths = [str(folder / f"{k}.safetensors") for k in range(3)]
    for (ca, _, _), path in zip(subjects, paths, strict=True):
        # judging them takes seconds, and is not what this is about
        ca.verdict_ = Verdict("doubtful", "not judged", (0.0,), (0.0,), Misfit(0.0, 0.0))
        ca.save(path)
    return paths


def test_components_that_follow_the_conditions_alike_are_one_source(subjects):
    matching = match_components([ca for ca, _, _ in subjects])
    right = wrong = 0
    for group in matching.groups:
        found = {subjects[k][1].get(c) for k, c in group.components.items()}
        right += len(found) == 1
        wrong += len(found) > 1
    assert right >= 6
    assert wrong == 0
    # maps of different heads say nothing
    by_maps = match_components([ca for ca, _, _ in subjects], by="maps")
    hits = [
        len({subjects[k][1].get(c) for k, c in group.components.items()}) == 1
        for group in by_maps.groups
    ]
    assert sum(hits) < right


def test_nothing_is_matched_where_nothing_follows_the_conditions():
    analyses = [subject(12, which, 0.0)[0] for which in range(2)]
    assert match_components(analyses).groups == ()


def test_every_component_is_in_the_table_once(subjects):
    analyses = [ca for ca, _, _ in subjects]
    rows = match_components(analyses).table()
    places = [(row["recording"], row["component"]) for row in rows]
    assert len(places) == len(set(places)) == sum(ca.n_components_ for ca in analyses)
    by_group = {}
    for row in rows:
        if row["group"] is not None:
            by_group.setdefault(row["group"], []).append(row["recording"])
    assert all(len(set(found)) == len(found) > 1 for found in by_group.values())


def test_one_recording_in_halves_is_matched_by_maps(subjects):
    raw = subjects[0][2]
    halves = [
        ComponentAnalysis(10).fit(part)
        for part in (raw.copy().crop(0, 59.9), raw.copy().crop(60, None))
    ]
    matching = match_components(halves, by="maps", min_corr=0.9)
    assert len(matching.groups) >= 7
    assert all(group.margin > 0 for group in matching.groups)


def test_epochs_are_matched_by_their_conditions(subjects):
    (_, _, raw), other = subjects[0], subjects[1][0]
    epochs = mne.make_fixed_length_epochs(raw, 1.0, preload=True, proj=False, verbose="error")
    names = [epochs.annotations.description[i // 3] for i in range(len(epochs))]
    codes = {name: k for k, name in enumerate(sorted(set(names)))}
    epochs.events[:, 2] = [codes[name] for name in names]
    epochs.event_id = codes
    ca = ComponentAnalysis(aux=AUX).fit(epochs)
    assert ca.profile_.conditions == other.profile_.conditions
    assert len(match_components([ca, other]).groups) >= 3


def test_what_cannot_be_matched(subjects):
    ca, _, raw = subjects[0]
    blind = ComponentAnalysis().fit(raw)
    assert blind.profile_ is None
    with pytest.raises(InputError, match="without conditions"):
        match_components([ca, blind])
    renamed = raw.copy()
    renamed.annotations.description = np.array([f"x{d}" for d in raw.annotations.description])
    with pytest.raises(InputError, match="0 conditions in common"):
        match_components([ca, ComponentAnalysis(aux=AUX).fit(renamed)])
    for wrong in ({"by": "names"}, {"min_corr": 0}, {"min_corr": 1.2}, {"names": ["a"]}):
        with pytest.raises(SettingsError):
            match_components([ca, ca], **wrong)
    with pytest.raises(SettingsError, match=r"^analyses=1: two at least"):
        match_components([ca])


def test_the_command_says_the_same(subjects, files):
    matching = match_components([ca for ca, _, _ in subjects])
    done = CliRunner().invoke(main, ["match", *files])
    assert done.exit_code == 0
    assert len(done.stdout.splitlines()) == 1 + len(matching.groups) + 3
    first = matching.groups[0]
    assert all(f"{files[k]}:{c}" in done.stdout for k, c in first.components.items())
    rows = json.loads(CliRunner().invoke(main, ["match", *files, "--json"]).stdout)
    assert rows == matching.table()


def test_the_command_refuses(files, tmp_path):
    assert CliRunner().invoke(main, ["match", files[0]]).exit_code == 2
    done = CliRunner().invoke(main, ["match", files[0], str(tmp_path / "none.safetensors")])
    assert done.exit_code == 1
    assert "no such file" in done.stderr


def stages(seed, n_labels=40, jitter=0.2, mixing="linear", size=100):
    """Two fits of the same sources through other maps, and which source each component is."""
    fits, truth = [], []
    for r in simulate.scenes(
        2, 4, n_labels, size, 1, sensors="other", jitter=jitter, random_state=seed
    ):
        ivae = IVAE(mixing=mixing, starts=("segments",), random_state=0)
        ivae.fit(r.observations, u=np.array([f"stage {k}" for k in r.u]))
        fits.append(ivae)
        match = metrics.match_sources(r.sources, ivae.transform(r.observations))
        truth.append(dict(zip(match.components.tolist(), match.sources.tolist(), strict=True)))
    return fits, truth


class TestModels:
    @pytest.mark.parametrize("seed", [0, 1, 2])
    def test_priors_over_labels_in_common_find_the_same_source(self, seed):
        fits, truth = stages(seed)
        matching = match_components(fits)
        assert len(matching.groups) == 4
        for group in matching.groups:
            assert truth[0][group.components[0]] == truth[1][group.components[1]]
        orders = [matching.order(k) for k in (0, 1)]
        assert [truth[0][k] for k in orders[0]] == [truth[1][k] for k in orders[1]]

    def test_labels_that_are_not_in_common_do_not_count(self):
        (one, other), truth = stages(3)
        other.u_names_ = tuple(
            name if k % 2 else f"{name}, not there" for k, name in enumerate(other.u_names_)
        )
        matching = match_components([one, other])
        assert matching.groups
        for group in matching.groups:
            assert truth[0][group.components[0]] == truth[1][group.components[1]]
        other.u_names_ = tuple(f"other {name}" for name in other.u_names_)
        with pytest.raises(InputError, match="model 0 and model 1 have 0 conditions in common"):
            match_components([one, other])

    def test_chance_is_not_called_a_match(self):
        (one, _), _ = stages(4)
        (stranger, _), _ = stages(5)
        assert match_components([one, stranger]).groups == ()
        assert len(match_components([one, stranger], min_corr=0.01).groups) > 0

    def test_models_of_stretches_of_time_have_nothing_in_common(self):
        (one, _), _ = stages(4)
        in_time = IVAE(mixing="linear", starts=("segments",), random_state=0)
        in_time.fit(simulate.scenes(1, 4, 10, 100, 1, random_state=0)[0].observations)
        with pytest.raises(InputError, match=r"model 1 was fitted without conditions \(u is time"):
            match_components([one, in_time])
        assert match_components([one, one], by="maps").groups[0].correlation == pytest.approx(1)

    def test_the_command_reads_model_files(self, files, tmp_path):
        (one, other), _ = stages(6)
        paths = [str(tmp_path / f"{k}.safetensors") for k in "ab"]
        for ivae, path in zip((one, other), paths, strict=True):
            save(ivae, path)
        found = CliRunner().invoke(main, ["match", *paths, "--json"])
        assert json.loads(found.stdout) == match_components([one, other]).table()
        mixed = CliRunner().invoke(main, ["match", paths[0], files[0]])
        assert mixed.exit_code == 2
        assert "match those of each kind by themselves" in mixed.stderr

    def test_errors_call_files_by_their_names(self, files, tmp_path):
        (one, _), _ = stages(6)
        one.u_names_ = None
        save(one, tmp_path / "a.safetensors")
        found = CliRunner().invoke(main, ["match", *[str(tmp_path / "a.safetensors")] * 2])
        assert found.exit_code == 1
        assert "a.safetensors was fitted without conditions" in found.stderr
        alone = CliRunner().invoke(main, ["match", files[0]])
        assert (alone.exit_code, alone.stderr) == (2, "error: MODEL=1: two at least are needed\n")


def test_recordings_are_compared_as_wholes_before_any_pair_is():
    rng = np.random.default_rng(5)
    right = wrong = by_chance = 0
    for _ in range(20):
        effect, spectrum = rng.standard_normal((10, 8, 1)), rng.standard_normal((10, 1, 5))
        one, other = (
            spectrum + 0.5 * effect + 0.4 * rng.standard_normal((10, 8, 5)) for _ in range(2)
        )
        right += follow_alike(one, other)
        wrong += follow_alike(one, other - 0.5 * effect)
        by_chance += follow_alike(one[:, rng.permutation(8)], other)
    assert right >= 19
    assert wrong + by_chance <= 2
    assert not follow_alike(one[:0], other)
