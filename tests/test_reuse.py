"""A fitted model on another recording: its own columns, and no settings that it would ignore."""

import numpy as np
import pytest
from click.testing import CliRunner

from sourcesep import IVAE, separate
from sourcesep.cli import main
from sourcesep.exceptions import InputError, SettingsError, SourcesepWarning
from sourcesep.ivae.settings import Settings
from sourcesep.selection import FAMILIES, unheeded


def table(path, names, seed=0):
    rng = np.random.default_rng(seed)
    scale = np.repeat(rng.uniform(0.2, 2, (len(names), 20)), 40, axis=1)
    mixing = np.random.default_rng(9).standard_normal((len(names),) * 2)
    x = mixing @ (rng.laplace(size=scale.shape) * scale)
    rows = "\n".join(",".join(map(repr, row)) for row in x.T.tolist())
    path.write_text(",".join(names) + "\n" + rows + "\n")
    return str(path)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    path = tmp_path_factory.mktemp("t") / "old.csv"
    return separate(table(path, "abcd"), columns="b,a,c", n_components=3, mixing="linear").ivae


class TestColumns:
    def test_are_the_models_and_others_are_left_out(self, fitted, tmp_path):
        path = table(tmp_path / "new.csv", "abcxy", seed=1)
        with pytest.warns(SourcesepWarning, match=r"^new.csv: x, y left out: the model"):
            found = separate(path, model=fitted)
        assert found.recording.names == ("b", "a", "c")
        asked = separate(path, model=fitted, columns="b,a,c")
        np.testing.assert_array_equal(found.sources, asked.sources)

    def test_nothing_is_said_where_nothing_is_left_out(self, fitted, tmp_path):
        path = table(tmp_path / "new.csv", "cab", seed=1)
        assert separate(path, model=fitted).warnings == []

    def test_missing_ones_are_named(self, fitted, tmp_path):
        path = table(tmp_path / "new.csv", "axy", seed=1)
        message = r"new.csv: column=b,c: the model was fitted on it, .* the file has a, x, y$"
        with pytest.raises(InputError, match=message):
            separate(path, model=fitted)

    def test_those_asked_for_must_be_the_models(self, fitted, tmp_path):
        path = table(tmp_path / "new.csv", "abcx", seed=1)
        with pytest.raises(InputError, match=r"missing \['c'\], extra \['x'\]"):
            separate(path, model=fitted, columns="b,a,x")


@pytest.mark.parametrize(
    "setting",
    [{"kernel_size": 3}, {"quality": "best"}, {"device": "cpu"}, {"random_state": 1}],
    ids=str,
)
def test_settings_of_a_fit_are_refused(fitted, setting):
    [(name, value)] = setting.items()
    with pytest.raises(SettingsError, match=f"^{name}={value}: a model is used as it was fitted"):
        separate("gone.csv", model=fitted, **setting)


def test_the_command_line_says_so_once_and_what_may_be():
    found = CliRunner().invoke(
        main, ["separate", "a.csv", "b.csv", "--model", "m", "--kernel-size", "3"]
    )
    assert found.exit_code == 2
    assert found.stderr.splitlines()[-1] == (
        "Error: --kernel-size=3: a model is used as it was fitted; leave it out. With "
        "--model=FILE go --aux=SPEC, --columns=LIST, --interpolate=ROWS and --refit"
    )


class TestSettingsThatAFamilyIgnores:
    x = np.random.default_rng(0).laplace(size=(400, 2))

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            (
                {"mixing": "linear", "condition_decoder": True},
                "condition_decoder=True: makes no difference to mixing=linear",
            ),
            (
                {"mixing": ("linear", "factor"), "kernel_size": 3},
                "kernel_size=3: makes no difference to mixing=linear or factor",
            ),
        ],
    )
    def test_are_said_once(self, settings, message):
        with pytest.warns(SourcesepWarning) as caught:
            IVAE(random_state=0, starts=("segments",), **settings).fit(self.x)
        assert [str(w.message) for w in caught if "difference" in str(w.message)] == [message]

    def test_go_by_what_the_families_read(self):
        """What `configured` reads, whichever families there are."""
        settings = Settings(kernel_size=3, n_restarts=2, condition_decoder=True)
        asked = {"kernel_size", "n_restarts", "condition_decoder"}
        for name, family in FAMILIES.items():
            assert "n_components" in family.heeded(), name
            said = {text.partition("=")[0] for text in unheeded(settings, name)}
            assert said == asked - family.heeded(), name
        heeding = [set(FAMILIES[n].heeded()) & asked for n in ("linear", "nonlinear", "amortised")]
        assert heeding == [set(), {"n_restarts"}, asked]
        assert unheeded(Settings(kernel_size=1), "linear") == []
