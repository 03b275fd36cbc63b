"""The recipe of the spoken digits, on tiny recordings of the same names."""

import json

import pytest
import soundfile

from sourcesep import simulate
from sourcesep.exceptions import InputError

SFREQ = 4000


@pytest.fixture(name="fsdd")
def loaded(recipe):
    return recipe("fsdd")


def test_quick_on_tiny_digits(fsdd, tmp_path, capsys, monkeypatch):
    # the peer is there on some machines only, and warns of silence
    monkeypatch.setattr(fsdd.importlib.util, "find_spec", lambda _: None)
    folder = tmp_path / "recordings"
    folder.mkdir()
    for k, talker in enumerate(("ann", "bob", "cyd")):
        speech = simulate.speech(40.0, SFREQ, pitch=90.0 + 50 * k, random_state=k)
        for i, part in enumerate(0.5 * speech.reshape(20, -1) / abs(speech).max()):
            digit, index = divmod(i, 10)
            soundfile.write(folder / f"{digit}_{talker}_{index}.wav", part, SFREQ)
    result = fsdd.main(tmp_path, quick=True, output=tmp_path / "out")
    rows = {row["method"]: row for row in result["rows"]}
    assert rows["linear oracle"]["SDR at 0.15 s"] > rows["blind"]["SDR at 0.15 s"] > 5
    assert {"trained, labels known", "trained, labels unknown"} < set(rows)
    assert "trained, labels unknown" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "result.json").read_text())["talkers"] == [
        *("ann", "bob", "cyd")
    ]


def test_without_data_it_says_where_they_are(fsdd, tmp_path):
    with pytest.raises(InputError, match="git clone --depth 1 --branch v1"):
        fsdd.main(tmp_path, quick=True)
