"""Names that files bring along: nothing is written outside the output, or shown as it stands."""

import json
import os
from pathlib import Path

import pytest
import soundfile
from click.testing import CliRunner

from sourcesep import save, separate
from sourcesep.cli import main
from sourcesep.exceptions import OutputError
from sourcesep.output import beside, replacing

from .conftest import mixture


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A folder two levels down, so that what leaves it is seen."""
    (tmp_path / "in" / "here").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "in" / "here")
    return tmp_path


def files(folder):
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir()}


NAMES = (
    "...wav",
    "..\n.wav",
    "a\nb.wav",
    "\x1b[31mred.wav",
    "-o.wav",
    " .wav",
    "a'\"b.wav",
    "~.wav",
)
PLACES = ("..", "../here/../../in", "absolute")


@pytest.mark.parametrize(
    ("place", "name"),
    [(".", name) for name in NAMES] + [(place, "..\n.wav") for place in PLACES],
)
def test_results_stay_in_the_output(here, name, place):
    folder = here / "in" if place == "absolute" else Path(place)
    path = folder / name
    soundfile.write(path, mixture().T, 8000, format="WAV")
    before = files(here)
    words = ["separate", "--mixing", "linear", "-o", "out", "--report", "--", os.fspath(path)]
    found = CliRunner().invoke(main, words)
    assert found.exit_code == 0, found.output
    new = files(here) - before
    assert len(new) == 5
    assert all(n.startswith("in/here/out/") for n in new)
    assert all(c.isprintable() or c == "\n" for c in found.output)
    assert len(found.stdout.splitlines()) == 1


def test_a_link_to_the_input_is_read_and_names_the_result(here):
    soundfile.write(here / "real.wav", mixture().T, 8000)
    Path("link.wav").symlink_to(here / "real.wav")
    assert CliRunner().invoke(main, ["separate", "link.wav"]).exit_code == 0
    about = json.loads(Path("separated/link/result.json").read_text())["input"]
    assert about["name"] == "link.wav"
    assert soundfile.info(here / "real.wav").frames == 8000


def test_a_link_in_the_output_leads_to_no_folder_that_is_not_ours(here):
    (here / "thesis").mkdir()
    (here / "thesis" / "years.txt").write_text("of work")
    Path("separated").mkdir()
    Path("separated/a").symlink_to(here / "thesis")
    soundfile.write("a.wav", mixture().T, 8000)
    for more in ([], ["-f"], ["--resume"]):
        assert CliRunner().invoke(main, ["separate", "a.wav", *more]).exit_code == 1
    assert files(here / "thesis") == {"years.txt"}


@pytest.mark.parametrize("what", ["new", "old", "lock"])
@pytest.mark.parametrize("dangling", [False, True])
def test_links_that_lie_in_wait(here, what, dangling):
    (here / "thesis").mkdir()
    (here / "thesis" / "years.txt").write_text("of work")
    target = here / "thesis" / "new" if dangling else here / "thesis"
    beside(Path("a"), what).symlink_to(target)
    try:
        with replacing(Path("a")) as new:
            (new / "x").write_text("")
    except OutputError:
        assert not Path("a").exists()
    assert files(here / "thesis") == {"years.txt"}


def test_a_link_that_lies_in_wait_for_a_model(here):
    (here / "years.txt").write_text("of work")
    beside(Path("m.safetensors"), "new").symlink_to(here / "years.txt")
    save(separate((mixture(), 8000), mixing="linear").ivae, "m.safetensors")
    assert (here / "years.txt").read_text() == "of work"
    assert Path("m.safetensors").is_file()
    assert not Path("m.safetensors").is_symlink()


def test_a_nul_in_a_name():
    separation = separate((mixture(), 8000), mixing="linear")
    with pytest.raises(OutputError, match="NUL in its name"):
        separation.save("a\0b")
    with pytest.raises(OutputError, match="must end in"):
        separation.save_model("a\0b.safetensors")
