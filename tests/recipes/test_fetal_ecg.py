"""The recipe of the fetal heartbeat, on simulated hearts in files of the real form."""

import hashlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import edfio
import numpy as np
import pytest

from sourcesep.exceptions import InputError


def heart(rate, seconds, sfreq, width, rng):
    """Return beats in seconds and the sum of their waves, a QRS complex and what follows."""
    intervals = 60 / rate * (1 + 0.02 * rng.standard_normal(int(1.1 * seconds * rate / 60)))
    beats = 0.3 + np.cumsum(intervals)
    beats = beats[beats < seconds - 0.5]
    t = np.arange(round(seconds * sfreq)) / sfreq
    wave = np.zeros(t.size)
    for beat in beats:
        near = slice(*np.searchsorted(t, (beat - 0.3, beat + 0.5)))
        late = t[near] - beat
        wave[near] += (1 - (late / width) ** 2) * np.exp(-0.5 * (late / width) ** 2)
        wave[near] += 0.2 * np.exp(-0.5 * ((late - 3 * 0.08) / 0.04) ** 2)
    return beats, wave


def belly(n_leads, seconds, sfreq, seed):
    """Return the child's beats, its wave, and leads that see mother, child and noise."""
    rng = np.random.default_rng(seed)
    _, mother = heart(80, seconds, sfreq, 0.018, rng)
    beats, child = heart(140, seconds, sfreq, 0.010, rng)
    weights = rng.uniform(0.5, 1.5, (n_leads, 2)) * rng.choice([-1, 1], (n_leads, 2))
    leads = weights @ np.stack([60 * mother, 12 * child])
    return beats, child, leads + 1.0 * rng.standard_normal(leads.shape)


def write_edf(path, seed=1, seconds=60):
    """Write a recording as PhysioNet's adfecgdb has them: scalp first, then the belly."""
    _, child, leads = belly(4, seconds, 1000, seed)
    names = ["Direct_1", "Abdomen_1", "Abdomen_2", "Abdomen_3", "Abdomen_4"]
    signals = [
        edfio.EdfSignal(x, 1000, label=name, physical_dimension="uV")
        for name, x in zip(names, [100 * child, *leads], strict=True)
    ]
    edfio.Edf(signals).write(path)


def write_daisy(path):
    """Write a text file as DaISy has it: time and 8 leads, 250 Hz, 10 s."""
    _, _, leads = belly(8, 10, 250, 3)
    np.savetxt(path, np.c_[np.arange(2500) / 250, leads.T], fmt="%11.4f")


@pytest.mark.slow
def test_both_collections(recipe, tmp_path):
    write_edf(tmp_path / "r01.edf")
    write_daisy(tmp_path / "foetal_ecg.dat")
    rows = recipe("fetal_ecg").main(tmp_path, quick=True)["rows"]
    ours = {row["recording"]: row for row in rows if row["method"] == "sourcesep"}
    assert ours["r01"]["F1"] > 0.95
    for row in ours.values():
        assert row["child, 1/min"] == pytest.approx(140, abs=5)
        assert row["mother, 1/min"] == pytest.approx(80, abs=5)
        assert row["mother's in it"] < 0.2
    leads = next(r for r in rows if r["method"] == "the leads themselves" and "F1" in r)
    assert leads["F1"] < 0.5, "in no single lead does the child beat loudest"


def test_f1_counts_each_beat_once(recipe):
    f1 = recipe("fetal_ecg").beats.f1
    reference = np.arange(1.0, 21.0)
    assert f1(reference + 0.03, reference) == 1.0
    assert f1(reference[::2], reference) == pytest.approx(2 * 10 / 30)
    assert f1(np.sort(np.r_[reference, reference + 0.3]), reference) == pytest.approx(2 * 20 / 60)
    assert f1(reference + 0.5, reference) == 0.0
    assert f1(reference[:0], reference) == 0.0


def test_a_share_that_is_locked_is_someones_own(recipe):
    locked = recipe("fetal_ecg").beats.locked_share
    rng = np.random.default_rng(0)
    beats, wave = heart(140, 60, 250, 0.01, rng)
    assert locked(wave, beats, 250) > 0.9
    assert locked(wave, np.sort(rng.uniform(1, 59, 100)), 250) < 0.1
    assert locked(rng.standard_normal(wave.size), beats, 250) < 0.02


def test_what_cannot_be_read_is_named(recipe, tmp_path):
    module = recipe("fetal_ecg")
    (tmp_path / "foetal_ecg.dat").write_text("0 1 2\n0.004 1 2\n")
    with pytest.raises(InputError, match="a row has the time and 8 leads"):
        module.load(tmp_path)
    (tmp_path / "foetal_ecg.dat").unlink()
    with pytest.raises(InputError, match="neither foetal_ecg"):
        module.load(tmp_path)


@pytest.fixture
def physionet(tmp_path):
    """Serve a folder as PhysioNet does, to this machine alone."""
    folder = tmp_path / "served"
    folder.mkdir()
    lines = []
    for name in ("r01", "r04", "r07", "r08", "r10"):
        (folder / f"{name}.edf").write_bytes(name.encode())
        lines.append(f"{hashlib.sha256(name.encode()).hexdigest()} {name}.edf")
    (folder / "SHA256SUMS.txt").write_text("\n".join(lines) + "\n")
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    handler.log_message = lambda *_: None
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_a_download_agrees_with_the_list_of_sums(recipe, tmp_path, monkeypatch, physionet):
    folder, url = physionet
    module = recipe("fetal_ecg")
    monkeypatch.setattr(module, "PHYSIONET", url)
    module.download(tmp_path / "data")
    assert (tmp_path / "data/r07.edf").read_bytes() == b"r07"
    (folder / "r08.edf").write_bytes(b"damaged on the way")
    with pytest.raises(InputError, match=r"could not be fetched .*r08\.edf.* yourself"):
        module.download(tmp_path / "again")
    assert not (tmp_path / "again/r08.edf").exists()
