"""What is told of long jobs: only of those, in one line, and in the right order of size."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from sourcesep import batch, forecast
from sourcesep.cli import main
from sourcesep.forecast import Forecast


@pytest.fixture
def wav(tmp_path):
    """Two minutes of silence but for one sample: read as fast as a file can be."""
    path = tmp_path / "long.wav"
    x = np.zeros((120 * 44_100, 2), np.int16)
    x[9] = 5
    soundfile.write(path, x, 44_100)
    return path


def of(path, n_channels, seconds, sfreq=44_100, monkeypatch=None):
    class Header:
        channels, frames = n_channels, seconds * sfreq

    monkeypatch.setattr(soundfile, "info", lambda _: Header)
    return forecast.forecast(path)


@pytest.mark.parametrize(
    ("n_channels", "seconds", "memory", "cpu"),
    [(2, 600, 511, 9.2), (2, 3600, 492, 31.3), (32, 60, 775, 183.8)],
)
def test_what_was_measured_is_foretold(wav, monkeypatch, n_channels, seconds, memory, cpu):
    monkeypatch.setattr(forecast, "LONG", 0)
    found = of(wav, n_channels, seconds, monkeypatch=monkeypatch)
    assert found.memory[0] / 1e6 == pytest.approx(memory, rel=0.25)
    assert found.seconds[0] == pytest.approx(cpu, rel=0.25)


def test_all_families_take_more(wav, monkeypatch):
    """10 minutes of saturated microphones took 661 MiB, and up to 60.6 s where rooms are tried."""
    found = of(wav, 2, 600, monkeypatch=monkeypatch)
    assert found.memory[1] / 2**20 == pytest.approx(661, rel=0.25)
    assert found.seconds[1] == pytest.approx(60.6, rel=0.25)


@pytest.mark.parametrize(
    ("name", "size", "memory", "cpu"),
    [
        ("e_raw.fif", 28_818_332, 699, 9.9),
        ("e_raw.fif", 19_212_316, 754, 20.2),
        ("t.csv", 15_494_094, 332, 5.4),
        ("t.csv", 15_770_230, 342, 6.9),
        ("t.csv", 94_673_679, 866, 18.5),
    ],
)
def test_so_is_what_was_measured_of_eeg_and_tables(tmp_path, monkeypatch, name, size, memory, cpu):
    monkeypatch.setattr(forecast, "LONG", 0)
    path = tmp_path / name
    path.touch()
    with path.open("r+b") as file:
        file.truncate(size)
    found = forecast.forecast(path)
    assert found.memory[0] / 1e6 == pytest.approx(memory, rel=0.25)
    assert cpu / 2 < found.seconds[0] < cpu * 2


def test_little_is_not_worth_a_line(wav, tmp_path):
    assert forecast.forecast(wav) is None
    assert forecast.forecast(tmp_path / "gone.wav") is None
    assert forecast.forecast(Path("nul\0.wav")) is None
    assert forecast.forecast(wav, "nonlinear") is None
    damaged = tmp_path / "damaged.wav"
    damaged.write_bytes(bytes(forecast.SMALL))
    assert forecast.forecast(damaged) is None


def test_much_memory_is_however_short_the_time(tmp_path):
    path = tmp_path / "e_raw.fif"
    path.touch()
    with path.open("r+b") as file:
        file.truncate(80_000_000)
    found = forecast.forecast(path)
    assert found.memory[1] > forecast.LARGE
    assert found.seconds[1] < forecast.LONG


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (Forecast((5e8, 5e8), (90, 90)), "expects about 480 MB and 1.5 minutes"),
        (Forecast((5e8, 9e8), (30, 90)), "expects about 480 to 860 MB and 0.5 to 1.5 minutes"),
        (Forecast((5e8, 5e8), (7200, 7200)), "expects about 480 MB and 120 minutes"),
    ],
)
def test_in_words(found, words):
    assert str(found) == words


def test_the_command_line_tells_it_first(wav, monkeypatch):
    monkeypatch.setattr(forecast, "LONG", 1)
    outcome = batch.Outcome(wav, wav, error="not tried")
    monkeypatch.setattr(batch, "separate_files", lambda *_, **__: iter([outcome]))
    lines = CliRunner().invoke(main, ["separate", str(wav)]).stderr.splitlines()
    assert lines[0].startswith(f"{wav}: expects about ")
    assert len(lines) == 2
    lines = CliRunner().invoke(main, ["separate", "-q", str(wav)]).stderr.splitlines()
    assert len(lines) == 1
