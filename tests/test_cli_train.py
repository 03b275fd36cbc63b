"""``sourcesep train`` and what is done with its model, as users meet them."""

import inspect
import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sourcesep import load, train
from sourcesep.cli import main
from sourcesep.simulate import scenes

from .conftest import run

SFREQ = 8000
MATRIX = np.array([[1.0, 0.6], [-0.5, 1.0]])


def wav(name, seed, sfreq=SFREQ, n_times=4000):
    rng = np.random.default_rng(seed)
    scale = np.exp(rng.normal(size=(2, n_times // 160))).repeat(160, axis=1)
    sources = rng.laplace(size=(2, n_times)) * scale
    soundfile.write(name, 0.02 * (MATRIX @ sources).T, sfreq, "PCM_24")
    return sources


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(found, code=1):
    """The one line that a refusal is; nothing is written."""
    assert found.exit_code == code, found.output
    assert found.stdout == ""
    (line,) = found.stderr.splitlines()
    assert line.startswith("error: ")
    return line


def test_what_is_doubted_is_said():
    """Sources whose loudness never changes and that are Gaussian: nothing tells them apart."""
    for seed, name in enumerate("ab"):
        x = MATRIX @ np.random.default_rng(seed).standard_normal((2, 4000))
        soundfile.write(f"{name}.wav", 0.1 * x.T, SFREQ, "PCM_24")
    found = run("train", "a.wav", "b.wav", "--save-model", "m.safetensors")
    assert found.exit_code == 0
    assert found.stdout == "m.safetensors: 2 components of 2 recordings, not identifiable\n"
    assert found.stderr.startswith("m.safetensors: not identifiable: ")
    assert len(found.stderr.splitlines()) == 1
    quiet = run("train", "a.wav", "b.wav", "--save-model", "m.safetensors", "-f", "-q")
    assert (quiet.exit_code, quiet.output) == (0, "")


def test_out_of_memory(monkeypatch):
    def full(*_, **__):
        raise MemoryError

    monkeypatch.setattr("sourcesep.joint.train", full)
    found = run("train", "a.wav", "b.wav", "--save-model", "m.safetensors")
    assert refused(found) == "error: out of memory; train on fewer or shorter recordings"


def test_a_scene_is_trained_on_and_used():
    for seed, name in enumerate("abc"):
        truth = wav(f"{name}.wav", seed)
    found = run("train", "a.wav", "b.wav", "--save-model", "scene.safetensors")
    assert found.exit_code == 0
    assert found.stdout == "scene.safetensors: 2 components of 2 recordings, trusted\n"
    info = json.loads(run("info", "scene.safetensors").stdout)
    assert info["contract"]["names"] == ["ch0", "ch1"]
    orders = []
    for folder, refit in (("saved", ()), ("again", ("--refit",))):
        used = run("separate", "c.wav", "--model", "scene.safetensors", "-o", folder, *refit)
        assert used.exit_code == 0
        assert used.stdout == f"{folder}/c: 2 sources, trusted\n"
        result = json.loads(Path(folder, "c", "result.json").read_text())
        assert result["settings"]["refit"] == bool(refit)
        assert (result["out_of_range"] is None) == bool(refit)
        images = [soundfile.read(Path(folder, "c", f"source0{k}.wav"))[0][:, k] for k in (0, 1)]
        likeness = np.array([[np.corrcoef(image, s)[0, 1] for s in truth] for image in images])
        orders.append(np.abs(likeness).argmax(axis=1).tolist())
        assert np.abs(likeness).max(axis=1).min() > 0.99
    assert orders[0] == orders[1]
    assert sorted(orders[0]) == [0, 1]
    assert load("scene.safetensors").model_.n_components == 2


def test_tables_with_a_column_as_u():
    for seed, name in enumerate("ab"):
        rng = np.random.default_rng(seed)
        stage = rng.integers(0, 6, 1200)
        scale = np.random.default_rng(9).uniform(0.3, 3, (6, 2))[stage]
        x = (scale * rng.standard_normal((1200, 2))) @ MATRIX
        rows = [f"{p},{q},s{k}" for (p, q), k in zip(x, stage, strict=True)]
        Path(f"{name}.csv").write_text("\n".join(["x,y,stage", *rows]))
    words = (
        "--aux",
        "recording+column:stage",
        "--columns",
        "x,y",
        "-k",
        "2",
        "--mixing",
        "linear",
    )
    found = run("train", "a.csv", "b.csv", "--save-model", "t.safetensors", *words)
    assert found.exit_code == 0, found.output
    names = json.loads(run("info", "t.safetensors").stdout)["u_names"]
    assert len(names) == 12
    assert names[0] == "a + stage=s0"


def test_options_are_the_keyword_arguments_of_the_function():
    given = (
        main.commands["train"].make_context("train", ["a", "--save-model", "m.safetensors"]).params
    )
    talk = {"inputs", "save_model", "kind", "overwrite", "quiet", "aux", "seconds"}
    wanted = {
        name: parameter.default
        for name, parameter in inspect.signature(train).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    del wanted["aux"], wanted["on_failure"]  # it depends on the kind; lines on stderr
    assert {name: value for name, value in given.items() if name not in talk} == wanted


def test_quiet_says_nothing_and_jobs_change_nothing():
    for seed, name in enumerate("ab"):
        wav(f"{name}.wav", seed)
    found = run("train", "a.wav", "b.wav", "--save-model", "one.safetensors", "-q")
    assert (found.exit_code, found.output) == (0, "")
    assert run("train", "a.wav", "b.wav", "--save-model", "two.safetensors", "-j", "2").stdout
    assert Path("one.safetensors").read_bytes() == Path("two.safetensors").read_bytes()


class TestRefusals:
    def test_where_too_few_are_left_each_is_named_and_nothing_is_written(self):
        wav("a.wav", 0)
        wav("b.wav", 1, sfreq=16_000)
        found = run("train", "a.wav", "b.wav", "gone.wav", "--save-model", "m.safetensors")
        assert (found.exit_code, found.stdout) == (1, "")
        lines = found.stderr.splitlines()
        assert lines[0] == "error: b.wav: sfreq=16000, a.wav has 8000; resample it first"
        assert lines[1].startswith("error: input=")
        assert lines[1].endswith("gone.wav: no such file; check the path")
        assert lines[2].startswith("error: 1 of 3 recordings can be fitted together")
        assert len(lines) == 3
        assert sorted(p.name for p in Path().iterdir()) == ["a.wav", "b.wav"]

    def test_bad_ones_are_left_out_and_the_rest_is_fitted(self):
        wav("odd.wav", 1, sfreq=16_000)
        for seed, name in enumerate("abc"):
            wav(f"{name}.wav", seed)
        Path("junk.wav").write_text("no sound")
        good, bad = ("a.wav", "b.wav", "c.wav"), ("odd.wav", "junk.wav")
        found = run("train", *bad, *good, "--save-model", "m.safetensors")
        assert found.exit_code == 1
        assert found.stdout == "m.safetensors: 2 components of 3 recordings, trusted\n"
        lines = found.stderr.splitlines()
        assert lines[0] == "error: odd.wav: sfreq=16000, a.wav has 8000; resample it first"
        assert "junk.wav: not readable as audio" in lines[1]
        assert lines[2:] == ["error: 2 recordings left out:", "  odd.wav", "  junk.wav"]
        assert run("train", *good, "--save-model", "alone.safetensors").exit_code == 0
        assert Path("m.safetensors").read_bytes() == Path("alone.safetensors").read_bytes()

    def test_a_model_that_is_there_is_kept(self):
        for seed, name in enumerate("ab"):
            wav(f"{name}.wav", seed)
        Path("m.safetensors").write_text("mine")
        words = ("train", "a.wav", "b.wav", "--save-model", "m.safetensors")
        assert "exists already" in refused(run(*words))
        assert Path("m.safetensors").read_text() == "mine"
        assert run(*words, "-f").exit_code == 0

    @pytest.mark.parametrize(
        ("words", "code", "message"),
        [
            (("a.wav",), 2, "at least two recordings"),
            (("a.wav", "a.wav"), 2, "a.wav: is given 2 times"),
            (("gone.wav", "lost.wav"), 1, "no such file"),
            (("a.wav", "b.wav", "--aux", "nonsense"), 2, "unknown term 'nonsense'"),
            (("a.wav", "b.wav", "-k", "9", "--mixing", "linear"), 2, "--n-components=9"),
            (("a.wav", "b.wav", "--columns", "x"), 2, "--columns=x"),
        ],
    )
    def test_what_cannot_be(self, words, code, message):
        for seed, name in enumerate("ab"):
            wav(f"{name}.wav", seed)
        found = run("train", *words, "--save-model", "m.safetensors")
        assert message in refused(found, code)
        assert not Path("m.safetensors").exists()

    def test_refit_needs_a_model(self):
        wav("a.wav", 0)
        found = run("separate", "a.wav", "--refit")
        assert found.exit_code == 2
        assert "--refit: needs the model to go on from; give it as --model=FILE" in found.stderr

    @pytest.mark.parametrize(
        ("kind", "option"),
        [("prior", ("-k", "2")), ("prior", ("--dask", "x")), ("model", ("--seconds", "3"))],
    )
    def test_options_of_the_other_kind(self, kind, option):
        wav("a.wav", 0)
        words = ("a.wav", "--kind", kind, "--save-model", "m.safetensors", *option)
        found = run("train", *words)
        assert found.exit_code == 2
        assert f"is no option for --kind {kind}" in found.stderr

    def test_other_kinds_are_not_offered(self):
        found = run("train", "a.wav", "--kind", "nonsense", "--save-model", "m.safetensors")
        assert found.exit_code == 2


def test_the_page_on_recordings_works_as_written():
    for seed, name in enumerate(("monday", "tuesday", "wednesday", "thursday")):
        wav(f"{name}.wav", seed)
    recordings = scenes(2, 3, 20, 60, 1, sensors="other", random_state=1)
    for r, name, names in zip(recordings, ("one", "two"), ("abc", "def"), strict=True):
        rows = np.column_stack([r.observations, r.u])
        text = "\n".join(",".join(map(str, row)) for row in rows.tolist())
        Path(f"{name}.csv").write_text(",".join([*names, "stage"]) + "\n" + text)
    page = (Path(__file__).parents[1] / "docs" / "recordings.md").read_text("utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    commands = [line.split() for block in blocks for line in block.splitlines()]
    assert len(commands) == 6
    for number, (program, *words) in enumerate(commands):
        assert program == "sourcesep"
        output = ("-o", f"out{number}") if words[0] == "separate" else ()
        found = run(*words, *output)
        assert found.exit_code == 0, found.output
    assert "without a partner in one.safetensors: none" in found.stdout
