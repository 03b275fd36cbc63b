"""Pages are run as they stand: docs/eeg.md and docs/source_prior.md on small files, here."""

import re
import shlex
from pathlib import Path

import mne
import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

import sourcesep
from sourcesep import ComponentAnalysis, prior_training, simulate
from sourcesep.cli import main
from sourcesep.selection import FAMILIES

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SFREQ = 4000


def blocks(name, language):
    page = (DOCS / name).read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def command(line):
    words = shlex.split(line)
    assert words[0] == "sourcesep"
    found = CliRunner().invoke(main, words[1:])
    assert found.exit_code == 0, f"{line}\n{found.output}"
    return found


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


RUN_BY = {
    "README.md": "tests/test_readme.py",
    "docs/quickstart.md": "tests/docs/test_quickstart.py",
    "docs/recordings.md": "tests/test_cli_train.py",
    "docs/representations.md": "tests/test_representations.py",
    "docs/tables.md": "tests/test_tables_page.py",
    "docs/eeg.md": "tests/docs/test_pages.py",
    "docs/source_prior.md": "tests/docs/test_pages.py",
    "docs/auxiliary.md": "tests/docs/test_pages.py",
    "data/README.md": "tests/docs/test_pages.py",
}
NOT_RUN = {
    "docs/cli.md": "written from the commands: how they are called, in words",
    "docs/figures.md": "benchmarks, which take from minutes to hours",
    "CONTRIBUTING.md": "installs, and runs these tests",
}


def has_commands(page):
    return re.search(r"^```(sh|python)$|^    (sourcesep[ .]|python |make )", page, re.MULTILINE)


def test_every_page_with_commands_is_run_by_a_test_or_says_why_not():
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("data/*.md")]
    names = {str(p.relative_to(ROOT)) for p in pages if has_commands(p.read_text("utf-8"))}
    assert names == {*RUN_BY, *NOT_RUN}
    for page, test in RUN_BY.items():
        assert Path(page).name in (ROOT / test).read_text("utf-8"), page


def test_the_page_on_data_works_as_written():
    for k in (1, 2):
        soundfile.write(f"talker{k}.wav", simulate.speech(1, 8000, random_state=k), 8000)
    page = (ROOT / "data/README.md").read_text("utf-8")
    (line,) = re.findall(r"^    (sourcesep .*)$", page, re.MULTILINE)
    command(line)
    assert Path("scene/mixture.wav").is_file()


def test_the_page_on_u_works_as_written():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), 400)
    data = rng.standard_normal((2, 2)) @ (
        rng.laplace(size=(2, 4000)) * (1 + rng.random((2, 10)))[:, labels]
    )
    known = {"data": data, "labels": labels, "X": data.T, "sourcesep": sourcesep}
    known["recording"] = sourcesep.Recording(data, 250.0, ("a", "b"), ("V", "V"), "eeg")
    page = (DOCS / "auxiliary.md").read_text("utf-8")
    lines = re.findall(r"^    (sourcesep\..*)$", page, re.MULTILINE)
    assert len(lines) == 4
    for line in lines:
        exec(line, known)


def head(seed):
    """A minute of EEG in which power follows four conditions."""
    made = simulate.eeg(
        8, 60.0, 100.0, n_channels=12, n_artefacts=1, line_frequency=40, random_state=seed
    )
    effect = np.random.default_rng(9).standard_normal((8, 4))
    order = np.tile(np.arange(4), 5)
    sources = made.sources * np.exp(0.5 * np.repeat(effect[:, order], 300, axis=1))
    info = mne.create_info(list(made.names), 100.0, "eeg", verbose="error")
    raw = mne.io.RawArray(made.mixing @ sources, info, verbose="error")
    noise = 1e-6 * np.random.default_rng(seed).standard_normal(raw.get_data().shape)
    raw._data += noise
    marks = mne.Annotations(3.0 * np.arange(20), 3.0, [f"condition {c}" for c in order])
    return raw.set_annotations(marks)


@pytest.mark.filterwarnings("ignore::sourcesep.exceptions.SourcesepWarning")
def test_the_page_on_eeg_works_as_written(monkeypatch):
    head(0).save("subject_raw.fif", verbose="error")
    for k, other in ((1, "a"), (2, "b"), (3, "c")):
        raw = head(k).filter(1.0, None, verbose="error")
        ca = ComponentAnalysis(aux="segments:.5,2,8+annotations").fit(raw)
        ca.save(f"subject{k}.safetensors")
        ca.save(f"{other}.safetensors")
    found = {}
    python = blocks("eeg.md", "python")
    assert len(python) >= 2
    for block in python:
        exec(compile(block, "docs/eeg.md", "exec"), found)
    assert found["cleaned"].ch_names == found["raw"].ch_names
    assert Path("subject.safetensors").is_file()
    assert len(found["rows"]) > 0
    page = (DOCS / "eeg.md").read_text("utf-8")
    commands = re.findall(r"`(sourcesep [^`]+)`", page)
    assert "sourcesep match a.safetensors b.safetensors" in commands
    for line in commands:
        command(line)


@pytest.mark.slow
def test_the_page_on_source_priors_works_as_written(monkeypatch):
    """But for the length of the training: two steps say nothing of anybody."""
    pytest.importorskip("torch", reason="torch is not installed")
    monkeypatch.setitem(prior_training.STEPS, "normal", 2)
    talkers = {"ann": 210.0, "bob": 100.0}
    for label, pitch in talkers.items():
        folder = Path("CLEAN_FOLDER") / label
        folder.mkdir(parents=True)
        for k in range(3):
            x = simulate.speech(8, SFREQ, pitch=pitch, random_state=10 * k + len(label))
            soundfile.write(folder / f"{k}.wav", x, SFREQ)
    said = [simulate.speech(3, SFREQ, pitch=p, random_state=7) for p in talkers.values()]
    room = simulate.room(said, sfreq=SFREQ, rt60=0.15, random_state=4)
    soundfile.write("input.wav", 0.5 * room.data.T / np.abs(room.data).max(), SFREQ)
    lines = [line for block in blocks("source_prior.md", "sh") for line in block.splitlines()]
    assert len(lines) == 3
    for line in lines:
        command(line)
    assert Path("named/input/source01.wav").is_file()
    shown = command("sourcesep info talkers.safetensors").stdout
    assert '"bob"' in shown


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_has_what_a_reader_looks_for(family):
    page = (DOCS / "families.md").read_text("utf-8")
    (section,) = re.findall(rf"^## {family}\n(.*?)(?=^## )", page, re.M | re.S | re.I)
    assert re.search(r"^    x.* = ", section, re.MULTILINE), "the generative process"
    assert [
        t for t in ("Inference", "Use it", "Limits", "Reference") if f"**{t}" not in section
    ] == []
    cited = re.findall(r"\*\*Reference\.\*\* (.*)", section)[0]
    references = page.partition("## References")[2]
    surnames = re.findall(
        r"([A-Z][^\W\d]+)(?: et al\.|(?:, [^\W\d]+)* (?:& [^\W\d]+ )?)\s?\d{4}", cited
    )
    assert surnames
    assert [name for name in surnames if name not in references] == []
