"""The command line as its users meet it: lines, exit codes, and nothing left half-done."""

import inspect
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sourcesep import Separation, separate
from sourcesep.cli import main

from .conftest import mixture, run

SFREQ = 8000


def wav(path, x, subtype="PCM_16"):
    soundfile.write(path, np.atleast_2d(x).T, SFREQ, subtype, format="WAV")


def lines_of(x):
    return "\n".join(",".join(map(repr, row)) for row in x.T.tolist()) + "\n"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def eeg(tmp_path_factory):
    import mne

    info = mne.create_info(["E0", "E1", "E2"], 100.0, "eeg", verbose="error")
    with info._unlock():
        info["highpass"] = 1.0
    path = tmp_path_factory.mktemp("eeg") / "rest_raw.fif"
    raw = mne.io.RawArray(1e-5 * mixture(n=3, n_times=3200), info, verbose="error")
    raw.save(path, verbose="error")
    return path


def process(*arguments, **options):
    command = [sys.executable, "-c", "from sourcesep.cli import main; main()"]
    command += map(str, arguments)
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def error_of(found, code=1):
    """The one line that a refusal is."""
    assert found.exit_code == code, found.output
    assert found.stdout == ""
    assert "Traceback" not in found.stderr
    lines = found.stderr.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0].removeprefix("error: ")


def usage_of(found):
    assert found.exit_code == 2, found.output
    assert found.stdout == ""
    lines = found.stderr.splitlines()
    assert lines[0].startswith("Usage: ")
    return lines[-1].removeprefix("Error: ")


def make(kind):
    """A file that cannot be separated, and its path."""
    x = mixture(n_times=320)
    text = {
        "text.csv": "a,b\n1,x\n2,y\n3,z\n",
        "gap.csv": "a,b\n1,2\n2,\n3,4\n",
        "one column.csv": "a\n1\n2\n3\n",
        "header only.csv": "a,b\n",
        "ragged.csv": "a,b\n1,2\n3\n",
        "two rows.csv": "a,b\n1,2\n2,1\n",
        "booleans.csv": "a,b\nTrue,False\nFalse,True\n",
        "infinite.csv": "a,b\n1e999,2\n2,1\n",
        "huge.csv": "a,b\n1e200,2\n2,1\n",
        "song.m4a": "x",
        "notes.xyz": "x",
        "noext": "x",
        "empty.wav": "",
        "junk.wav": "junk" * 99,
        "junk.npy": "\x93NUMPY\x01",
        "junk.edf": "0       junk",
        "junk.bdf": "junk" * 99,
        "junk.set": "junk" * 99,
        "junk.vhdr": "junk" * 99,
        "junk_raw.fif": "junk" * 99,
        "junk.parquet": "PAR1junk",
    }
    sound = {
        "no samples.wav": x[:, :0],
        "one sample.wav": x[:, :1],
        "seven samples.wav": x[:, :7],
        "silent.wav": 0 * x,
        "nan.wav": np.where(np.abs(x) > 0.05, np.nan, x),
        "inf.wav": np.where(np.abs(x) > 0.05, np.inf, x),
        "huge.wav": 1e200 * x,
        "tiny.wav": 1e-200 * x,
    }
    arrays = {
        "complex.npy": x.T * 1j,
        "bytes.npy": np.array([[b"a", b"b"]] * 3),
        "objects.npy": np.array([[1, None]] * 9, object),
        "cube.npy": np.zeros((9, 2, 2)),
        "wide.npy": np.zeros((2, 9)),
        "nan.npy": np.stack([np.full_like(x[0], np.nan), x[1]], axis=1),
        "constant.npy": 1 + 1e-15 * x.T,
    }
    if kind in text:
        Path(kind).write_bytes(text[kind].encode("latin1"))
    elif kind in sound:
        wav(kind, sound[kind], "DOUBLE")
    elif kind in arrays:
        np.save(kind, arrays[kind], allow_pickle=True)
    elif kind == "truncated.wav":
        wav(kind, x)
        Path(kind).write_bytes(Path(kind).read_bytes()[:200])
    elif kind == "folder.wav":
        Path(kind).mkdir()
    elif kind == "pipe.wav":
        os.mkfifo(kind)
    elif kind == "loop.wav":
        Path(kind).symlink_to(kind)


REFUSALS = {
    "missing.wav": "input=missing.wav: no such file; check the path",
    "loop.wav": "input=loop.wav: no such file; check the path",
    "folder.wav": "input=folder.wav: is a folder; name a file, or several",
    "pipe.wav": "input=pipe.wav: is no regular file; name a file, or several",
    "empty.wav": "input=empty.wav: the file is empty (0 bytes); was it copied completely?",
    "no samples.wav": "no samples.wav: n_channels=2, n_times=0: at least one channel and two sa",
    "one sample.wav": "one sample.wav: n_channels=2, n_times=1: at least one channel and two sa",
    "seven samples.wav": "seven samples.wav: n_times=7: too few samples to find sources in, at",
    "silent.wav": "silent.wav: every channel is constant (silent): there is nothing to separate",
    "tiny.wav": "tiny.wav: samples up to 5e-201: 1e-150 is the smallest that can be computed w",
    "nan.wav": "nan.wav: NaN or infinite samples in channel ch0, ch1: all must be finite; repair",
    "inf.wav": "inf.wav: NaN or infinite samples in channel ch0, ch1: all must be finite; repair",
    "huge.wav": "huge.wav: samples up to 5e+199: 1e+100 is the largest that can be computed with",
    "junk.wav": "input=junk.wav: not readable as audio (Format not recognised); it may be trunca",
    "truncated.wav": "input=truncated.wav: the file is truncated: its header promises 1316 bytes",
    "song.m4a": "input=song.m4a: cannot read .m4a; convert it first: ffmpeg -i INPUT.m4a OUTPUT.",
    "notes.xyz": "input=notes.xyz: cannot read .xyz; known are .wav",
    "noext": "input=noext: cannot read a file without suffix; known are .wav",
    "text.csv": "input=text.csv: column=b holds text (row 1: 'x'): only numbers can be separated",
    "booleans.csv": "input=booleans.csv: column=a holds text (row 1: 'True'): only numbers can",
    "gap.csv": "gap.csv: n_times=3: too few samples to find sources in, at least 8 are needed",
    "one column.csv": "input=one column.csv: 1 column of numbers (a): at least two are needed",
    "header only.csv": "input=header only.csv: no rows: a table needs a row for each sample",
    "ragged.csv": "input=ragged.csv: line 3 has 1 values, the first row has 2: every row needs",
    "two rows.csv": "two rows.csv: n_times=2: too few samples to find sources in, at least 8 are",
    "infinite.csv": "infinite.csv: NaN or infinite samples in channel a: all must be finite",
    "huge.csv": "huge.csv: samples up to 1e+200: 1e+100 is the largest that can be computed with",
    "complex.npy": "input=complex.npy: column=col0: type complex128 cannot be separated; real nu",
    "bytes.npy": "input=bytes.npy: column=col0: type |S1 cannot be separated; real numbers, text",
    "objects.npy": "input=objects.npy: not a readable .npy file of numbers (",
    "cube.npy": "input=cube.npy: shape=(9, 2, 2): a table has two axes, (rows, columns), and at",
    "wide.npy": "input=wide.npy: shape=(2, 9): more columns than rows; rows are samples and colu",
    "nan.npy": "input=nan.npy: column=col0 has no value at all: choose the other columns wit",
    "constant.npy": "constant.npy: every channel is constant (silent): there is nothing to separa",
    "junk.npy": "input=junk.npy: not a readable .npy file of numbers (",
    "junk.edf": "input=junk.edf: cannot be read (",
    "junk.bdf": "input=junk.bdf: cannot be read (",
    "junk.set": "input=junk.set: cannot be read (",
    "junk.vhdr": "input=junk.vhdr: cannot be read (",
    "junk_raw.fif": "input=junk_raw.fif: cannot be read (",
    "junk.parquet": "input=junk.parquet: ",
}


class TestRefusedInputs:
    @pytest.mark.parametrize("name", REFUSALS)
    def test_in_one_line_and_nothing_written(self, name):
        make(name)
        assert error_of(run("separate", "--", name)).startswith(REFUSALS[name])
        assert not Path("separated").exists()

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            (".", "input=.: is a folder; name a file, or several"),
            ("/", "input=/: is a folder"),
            ("*.flac", "input=*.flac: no file matches; check the pattern"),
            ("x" * 5000 + ".wav", "cannot be "),
            ("\udcff.wav", "cannot be opened (its name is not valid Unicode); check the path"),
            ("a\nb\x1b[2J.wav", "input=a b\\x1b[2J.wav: no such file; check the path"),
        ],
        ids=["dot", "root", "pattern", "long", "bytes", "control characters"],
    )
    def test_by_name(self, name, message):
        assert message in error_of(run("separate", "--", name))

    def test_others_still_run(self):
        wav("a.wav", mixture())
        wav("z.wav", mixture()[:1])
        make("text.csv")
        found = run("separate", "a.wav", "missing.wav", "text.csv", "z.wav")
        assert found.exit_code == 1
        assert found.stdout.splitlines() == [
            "separated/a: 2 sources, trusted",
            "separated/z: 2 sources, not identifiable",
        ]
        lines = found.stderr.splitlines()
        assert lines[0] == "error: input=missing.wav: no such file; check the path"
        assert lines[1].startswith("error: input=text.csv: column=b holds text")
        assert lines[2].startswith("z.wav: not identifiable: ")
        assert lines[3:] == ["error: 2 of 4 inputs failed:", "  missing.wav", "  text.csv"]
        assert sorted(p.name for p in Path("separated").iterdir()) == ["a", "z"]

    def test_without_any(self):
        assert usage_of(run("separate")) == "Missing argument 'INPUT...'."
        assert usage_of(run("separate", "a.wav", "")) == (
            "Invalid value for 'INPUT...': is empty; name a file"
        )


class TestRefusedSettings:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (
                ["-k", "0"],
                "Invalid value for '-k' / '--n-components': 0 is not in the range x>=1.",
            ),
            (["-k", "two"], "Invalid value for '-k' / '--n-components': 'two' is not a valid int"),
            (["--mixing", "magic"], "Invalid value for '--mixing': 'magic' is not one of 'auto'"),
            (
                ["--aux", "tides"],
                "--aux=tides: unknown term 'tides'; known are segments, adapti",
            ),
            (["--aux", ""], "--aux='': is empty; known are"),
            (["--aux", "segments:0"], "--aux='segments:0': seconds=0 must be a number above 0"),
            (["--exclude", "0,x"], "--exclude=0,x: must be component numbers or eog, ecg, muscle"),
            (["--exclude", "1.5"], "--exclude=1.5: must be component numbers"),
            (["--exclude", "9" * 5000], "joined by commas: 0,3 or eog,ecg"),
            (["--seed", "-1"], "Invalid value for '--seed': -1 is not in the range x>=0."),
            (["--bit-depth", "12"], "Invalid value for '--bit-depth': '12' is not one of '16'"),
            (["-o", ""], "'--output': is empty; name a folder (this one is .)"),
            (["--save-model", ""], "'--save-model': is empty; name a file"),
            (["--model", ""], "'--model': is empty; name a file"),
            (["--save-model", "m.pkl"], "--save-model=m.pkl: must end in .safetensors"),
            (["b.wav", "--save-model", "m.safetensors"], "--save-model: takes one INPUT; give"),
            (["--frobnicate"], "No such option"),
        ],
    )
    def test_before_anything_is_read(self, arguments, message):
        assert message in usage_of(run("separate", "no such file.wav", *arguments))

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (
                ["-k", "3", "--mixing", "linear"],
                "a.wav: --n-components=3: the 2 channels hold 2 linearly independent signa",
            ),
            (["--aux", "column:c"], "a.wav: --aux='column:c': no column 'c'; there are: none"),
            (["--aux", "annotations"], "a.wav: --aux=annotations: no such annotation lasts any"),
            (
                ["--aux", "file:none.csv"],
                "a.wav: --aux='file:none.csv': no such file; check the p",
            ),
            (["--columns", "a,b"], "a.wav: --columns=a,b: is no option for audio files; leave it"),
            (["--model", "no.safetensors"], "a.wav: --model=no.safetensors: no such file; name a"),
            (["--exclude", "0"], "a.wav: --exclude=0: components are removed from EEG only"),
        ],
    )
    def test_for_this_input(self, arguments, message):
        wav("a.wav", mixture(n_times=960))
        assert error_of(run("separate", "a.wav", *arguments)).startswith(message)
        assert not Path("separated").exists()

    @pytest.mark.parametrize(
        ("columns", "message"),
        [
            ("a,z", "--columns=z: no such column; the file has a, b"),
            ("", "--columns='': names at l"),
        ],
    )
    def test_columns(self, columns, message):
        Path("t.csv").write_text("a,b\n" + lines_of(mixture(n_times=320)))
        assert message in error_of(run("separate", "t.csv", "--columns", columns))

    @pytest.mark.parametrize(
        ("exclude", "message"),
        [
            ("3", "--exclude=3: no such component; they are 0 to 2"),
            ("-1,0", "--exclude=-1: no su"),
        ],
    )
    def test_components_that_do_not_exist(self, eeg, exclude, message):
        assert message in error_of(run("separate", eeg, "--exclude", exclude))
        assert not Path("separated").exists()


class TestOutput:
    @pytest.fixture(autouse=True)
    def _file(self):
        wav("a.wav", mixture())

    def test_an_existing_result_is_refused_and_replaced_when_asked(self):
        assert run("separate", "a.wav").exit_code == 0
        before = Path("separated/a/result.json").read_text()
        message = error_of(run("separate", "a.wav"))
        assert message == (
            "a.wav: output=separated/a: exists already; name another folder with -o, or replace "
            "it with -f"
        )
        assert Path("separated/a/result.json").read_text() == before
        assert run("separate", "a.wav", "-f", "-k", "1").exit_code == 0
        assert not Path("separated/a/source01.wav").exists()
        assert [p.name for p in Path("separated").iterdir()] == ["a"]

    def test_what_is_no_result_is_never_deleted(self):
        Path("separated/a").mkdir(parents=True)
        Path("separated/a/thesis.txt").write_text("years of work")
        assert "is not the result of an earlier run" in error_of(run("separate", "-f", "a.wav"))
        assert Path("separated/a/thesis.txt").read_text() == "years of work"

    @pytest.mark.parametrize("output", ["a.wav", "a.wav/deeper", "/proc/none", "/dev/null/x"])
    def test_an_unwritable_folder(self, output):
        reason = "cannot be written" if output == "/proc/none" else "is no folder; name another"
        assert reason in error_of(run("separate", "a.wav", "-o", output))

    def test_a_name_too_long(self):
        assert "File name too long" in error_of(run("separate", "a.wav", "-o", "x" * 300))

    def test_inputs_of_one_name_mirror_their_folders(self):
        for folder in ("x", "y"):
            Path(folder).mkdir()
            wav(f"{folder}/m.wav", mixture()[:1])
        found = run("separate", "x/m.wav", "y/m.wav", "x/../y/m.wav")
        assert usage_of(found).startswith("input=")
        assert run("separate", "-q", "x/m.wav", "y/m.wav", "./x/m.wav").exit_code == 0
        assert Path("separated/x/m/result.json").is_file()
        assert Path("separated/y/m/result.json").is_file()

    @pytest.mark.parametrize(
        ("name", "folder"),
        [
            ("sp ace.wav", "sp ace"),
            ("日本é.wav", "日本é"),
            ("-dash.wav", "-dash"),
            ("x" * 240 + ".wav", "x" * 240),
            ("new\nline.wav", "new\nline"),
            ("..wav", "..wav"),
            ("...wav", "...wav"),
            ("%s{0}$HOME.wav", "%s{0}$HOME"),
        ],
        ids=["space", "unicode", "dash", "long", "newline", "dot", "dots", "format"],
    )
    def test_odd_names(self, name, folder):
        wav(f"./{name}", mixture()[:1])
        found = run("separate", "--", name)
        assert found.exit_code == 0
        assert [p.name for p in Path("separated").iterdir()] == [folder]
        assert (Path("separated") / folder / "source00.wav").is_file()
        assert len(found.stdout.splitlines()) == 1
        assert len(found.stderr.splitlines()) == 1

    def test_interrupted(self, monkeypatch):
        from sourcesep.adapters import audio

        def interrupt(separation, folder, **options):
            (folder / "source00.wav").write_text("half")
            raise KeyboardInterrupt

        monkeypatch.setattr(audio, "write", interrupt)
        found = run("separate", "a.wav")
        assert found.exit_code == 130
        assert found.stderr.strip() == "Aborted!"
        assert sorted(p.name for p in Path.cwd().iterdir()) == ["a.wav"]

    def test_out_of_memory(self, monkeypatch):
        import sourcesep.separation as module

        def full(*args, **kwargs):
            raise MemoryError

        monkeypatch.setattr(module, "read", full)
        assert error_of(run("separate", "a.wav")) == (
            "a.wav: out of memory; run fewer at once (-j), ask for fewer components (-k) or less "
            "quality (--quality fast), or cut the recording into parts"
        )


class TestSays:
    @pytest.fixture(autouse=True)
    def _file(self):
        wav("a.wav", mixture())

    def test_a_line_a_result(self):
        found = run("separate", "a.wav")
        assert (found.exit_code, found.stderr) == (0, "")
        assert found.stdout == "separated/a: 2 sources, trusted\n"

    def test_mono_is_not_identifiable_and_no_failure(self):
        wav("m.wav", mixture()[:1])
        found = run("separate", "m.wav")
        assert found.exit_code == 0
        assert found.stdout == "separated/m: 2 sources, not identifiable\n"
        said = "one channel: told apart by spectrum only"
        assert found.stderr == f"m.wav: not identifiable: {said}\n"

    def test_a_warning_a_line(self):
        wav("w.wav", np.concatenate([mixture(), np.zeros((1, 8000))]) * 0.5 + 0.3)
        found = run("separate", "w.wav")
        lines = found.stderr.splitlines()
        assert len(lines) == 2
        assert all(line.startswith("warning: w.wav: ") for line in lines)
        assert "DC offset" in found.stderr
        assert "is constant (silent)" in found.stderr

    def test_json_is_an_object_a_line(self):
        wav("m.wav", mixture()[:1])
        found = run("separate", "--json", "a.wav", "m.wav")
        results = [json.loads(line) for line in found.stdout.splitlines()]
        for name, result in zip("am", results, strict=True):
            assert result == json.loads(Path(f"separated/{name}/result.json").read_text())

    def test_quiet_says_nothing_but_errors(self):
        wav("m.wav", np.stack([mixture()[0]] * 2))
        found = run("separate", "-q", "a.wav", "m.wav")
        assert (found.exit_code, found.output) == (0, "")
        assert "exists already" in error_of(run("separate", "-q", "a.wav"))
        found = run("separate", "-q", "-f", "--json", "a.wav")
        assert json.loads(found.stdout)["verdict"] == "trusted"

    def test_verbose_lists_what_was_compared(self):
        found = run("separate", "-v", "a.wav")
        lines = found.stderr.splitlines()
        assert lines[0].startswith("a.wav: linear mixing, ")
        assert lines[0].endswith("; u = segments:.02")
        for start in ("segments", "bands", "spectrum", "cells", "non-gaussian"):
            pattern = rf"a\.wav: linear {start}: -?\d+\.\d{{4}} nats a sample"
            assert any(re.fullmatch(pattern, line) for line in lines), start

    def test_a_channel_that_is_silent_beside_one_that_is_not(self):
        wav("left.wav", np.concatenate([mixture()[:1], np.zeros((1, 8000))]))
        found = run("separate", "left.wav")
        assert found.exit_code == 0, found.stderr
        assert found.stdout == "separated/left: 2 sources, not identifiable\n"

    def test_verbose_gives_every_score_its_own_unit(self):
        wav("three.wav", mixture(n=3)[:2])
        found = run("separate", "-v", "--mixing", "underdetermined", "-k", "3", "three.wav")
        scores = [line for line in found.stderr.splitlines() if " ms: " in line]
        assert scores
        assert all(line.endswith("where one source is alone") for line in scores)

    def test_a_family_that_was_asked_for_and_is_not_given(self):
        found = run("separate", "a.wav", "--mixing", "factor")
        assert found.stdout == "separated/a: 2 sources, trusted\n"
        assert "a.wav: --mixing=factor was asked for, but" in found.stderr
        assert run("separate", "-q", "-f", "a.wav", "--mixing", "factor").output == ""

    def test_a_table_with_gaps_and_no_number_of_factors(self):
        x = mixture(n=3, n_times=480)
        x[0, ::7], x[1, 3::7] = np.nan, np.nan
        Path("gaps.csv").write_text("a,b,c\n" + lines_of(x))
        found = run("separate", "gaps.csv", "--mixing", "amortised", "--quality", "fast")
        assert found.exit_code == 0, found.stderr

    def test_a_model_goes_out_and_in(self):
        wav("b.wav", 0.5 * mixture())
        assert run("separate", "a.wav", "--save-model", "m.safetensors").exit_code == 0
        assert run("separate", "b.wav", "--model", "m.safetensors").exit_code == 0
        results = [json.loads(Path(f"separated/{n}/result.json").read_text()) for n in "ab"]
        assert results[1]["settings"]["model"] == "m.safetensors"
        assert results[0]["evidence"] == results[1]["evidence"]
        assert "exists already; name another file, or replace it with -f" in error_of(
            run("separate", "a.wav", "-o", "other", "--save-model", "m.safetensors")
        )
        info = json.loads(run("info", "m.safetensors").stdout)
        assert info["contract"]["kind"] == "audio"
        wav("m.wav", mixture()[:1])
        assert "channels differ from those of the model: missing ['ch1'], extra none" in error_of(
            run("separate", "m.wav", "--model", "m.safetensors")
        )

    def test_eeg_and_tables(self, eeg):
        Path("t.csv").write_text("a,b\n" + lines_of(mixture(n_times=960)))
        found = run("separate", eeg, "t.csv", "--exclude", "")
        assert found.exit_code == 0
        assert Path("separated/rest_raw/sources_raw.fif").is_file()
        assert Path("separated/rest_raw/model.safetensors").is_file()
        assert Path("separated/t/loadings.csv").is_file()
        assert "cleaned_raw.fif" not in found.stderr
        found = run("separate", "-f", eeg, "--exclude", "0,2,0")
        assert "cleaned_raw.fif is without components 0, 2\n" in found.stderr
        assert Path("separated/rest_raw/cleaned_raw.fif").is_file()


class TestOtherCommands:
    def test_simulate_separate_evaluate(self):
        found = run("simulate", "--seconds", "1")
        assert found.stdout.splitlines() == [
            "simulated/mixture.wav",
            "simulated/image00.wav",
            "simulated/image01.wav",
        ]
        assert run("separate", "simulated/mixture.wav").exit_code == 0
        files = ["-r", "simulated/image00.wav", "-r", "simulated/image01.wav"]
        found = run("evaluate", *files, "-e", "separated/mixture")
        assert found.exit_code == 0
        assert len(found.stdout.splitlines()) == 3
        rows = json.loads(run("evaluate", *files, "-e", "separated/mixture", "--json").stdout)
        assert min(row["si_sdr"] for row in rows) > 30
        result = json.loads(run("info", "separated/mixture").stdout)
        assert result["input"]["name"] == "mixture.wav"

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["evaluate", "-r", "no.wav", "-e", "no.wav"], "input=no.wav: no such file"),
            (["evaluate", "-r", "no.wav", "-e", "."], "no source*.wav in this folder"),
            (["simulate", "--from", "no.wav", "--from", "no.wav"], "input=no.wav: no such file"),
            (["simulate", "-o", "/proc/none", "--seconds", "1"], "cannot be written"),
            (["simulate", "-o", "."], "exists already"),
            (["info", "no"], "path=no: is neither a model nor a result (no such file or folder)"),
            (["info", "."], "path=.: is neither a model nor a result (has no result.json)"),
            (["info", "no.safetensors"], "model=no.safetensors: no such file"),
        ],
    )
    def test_refuse_in_one_line(self, arguments, message):
        assert message in error_of(run(*arguments))
        assert list(Path.cwd().iterdir()) == []

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["simulate", "--from", "no.wav"], "--from=no.wav: one recording makes no mixture"),
            (["simulate", "--seconds", "nan"], "seconds=nan: must be a number above 0"),
            (["simulate", "--kind", "room", "-k", "9"], "--n-sources=9: at most 5 talkers fit"),
        ],
    )
    def test_refuse_settings_that_no_input_would_change(self, arguments, message):
        assert message in error_of(run(*arguments), code=2)
        assert list(Path.cwd().iterdir()) == []

    @pytest.mark.parametrize("name", ["", "\udcff"])
    @pytest.mark.parametrize("command", [["simulate"], ["separate", "a.wav"]])
    def test_refuse_folders_without_a_name(self, command, name):
        message = usage_of(run(*command, "-o", name))
        assert "is empty" in message or "is not valid Unicode" in message

    def test_simulate_refuses_a_recording_without_a_name(self):
        message = usage_of(run("simulate", "--from", "a.wav", "--from", ""))
        assert "'--from': is empty; name a file" in message

    def test_demo_refuses_in_one_line(self):
        Path("f").write_text("x")
        found = run("demo", "-o", "f")
        assert found.exit_code == 1
        assert found.stderr == (
            "error: output=f: cannot be written (File exists); free some space or choose another "
            "with -o\n"
        )

    def test_demo_says_each_gain_beside_fastica_s(self, monkeypatch):
        from sourcesep import demo

        rows = [demo.Row("room", 23.46, -1.5, "trusted", 4.2)]
        monkeypatch.setattr(demo, "run", lambda folder: iter(rows))
        found = run("demo", "-o", "d")
        assert found.stdout.splitlines()[2:] == [
            "room                23.5     -1.5      4.2  trusted"
        ]
        assert found.stderr == "listen to d/instantaneous/source00.wav and its neighbours\n"

    @pytest.mark.parametrize(
        "arguments",
        [
            ["evaluate"],
            ["evaluate", "-r", "a"],
            ["info"],
            ["simulate", "-k", "1"],
            ["simulate", "--rt60", "9"],
            ["simulate", "--seed", "-1"],
            ["simulate", "-o", ""],
            ["demo", "-o", ""],
            ["train", "a.wav", "--save-model", ""],
            ["frobnicate"],
        ],
    )
    def test_usage(self, arguments):
        usage_of(run(*arguments))


class TestHelp:
    def commands(self):
        return {"": main, **main.commands}

    @pytest.mark.parametrize(
        "name", ["", "separate", "train", "evaluate", "simulate", "info", "match", "demo"]
    )
    def test_of_every_command(self, name):
        for flag in ("-h", "--help"):
            found = run(*filter(None, [name, flag]))
            assert found.exit_code == 0
            assert found.stdout.startswith("Usage: ")
        for parameter in self.commands()[name].params:
            if isinstance(parameter, click.Option):
                assert parameter.help, parameter.name
                assert parameter.opts[-1] in found.stdout

    @pytest.mark.parametrize("name", ["", "separate"])
    def test_says_what_it_is_not_for(self, name):
        text = " ".join(run(*filter(None, [name, "--help"])).stdout.split())
        assert "Not for vocals or drums by name" in text
        assert "for those use a supervised separator" in text

    def test_names_every_kind_of_file_and_every_term(self):
        shown = run("separate", "--help").stdout
        assert "\n  Audio  .wav .flac" in shown  # a table, not a paragraph
        text = " ".join(shown.split())
        for word in (".wav", ".fif", ".csv", "source00.wav", "sources_raw.fif", "loadings.csv"):
            assert word in text
        for term in ("segments[:SECONDS", "adaptive", "annotations[:REGEX]", "column:", "file:"):
            assert term in text
        for verdict in ("trusted", "doubtful", "not identifiable"):
            assert verdict in text

    def test_artefacts_are_those_that_can_be_found(self):
        """Named twice, as the command line starts without numpy."""
        from sourcesep.cli.separate import ARTEFACTS
        from sourcesep.components.artefact_scores import THRESHOLDS

        assert tuple(THRESHOLDS) == ARTEFACTS

    def test_version(self):
        assert re.fullmatch(r"sourcesep, version \d+\.\d+\.\d+\n", run("--version").stdout)

    def test_every_command_is_listed(self):
        assert set(main.commands) == {
            *("separate", "train", "evaluate", "simulate", "info", "match", "demo"),
        }


def test_options_are_the_keyword_arguments_of_the_functions():
    options = {p.name: p for p in main.commands["separate"].params}
    functions = {
        **inspect.signature(separate).parameters,
        **inspect.signature(Separation.save).parameters,
    }
    settings = {k for k, p in functions.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}
    talk = {"inputs", "output", "save_model", "as_json", "quiet", "verbose"}
    assert set(options) == settings | talk | {"n_jobs", "dask", "shard", "resume"}
    given = main.commands["separate"].make_context("separate", ["a.wav"]).params
    for name in settings - {"exclude"}:  # a list there, text here
        assert given[name] == functions[name].default, name
    assert options["mixing"].type.choices


class TestManyInputs:
    def test_side_by_side_in_shares_and_resumed(self):
        for name in "abc":
            wav(f"{name}.wav", mixture())
        first = run("separate", "--shard", "1/2", "a.wav", "b.wav", "c.wav")
        assert first.stdout.splitlines() == [
            f"separated/{name}: 2 sources, trusted" for name in "ac"
        ]
        rest = run("separate", "--resume", "-j", "2", "a.wav", "b.wav", "c.wav")
        assert rest.exit_code == 0
        assert sorted(rest.stdout.splitlines()) == [
            "separated/a: 2 sources, trusted, was there already",
            "separated/b: 2 sources, trusted",
            "separated/c: 2 sources, trusted, was there already",
        ]

    @pytest.mark.parametrize("part", ["0/2", "3/2", "half"])
    def test_wrong_shares(self, part):
        wav("a.wav", mixture())
        found = run("separate", "--shard", part, "a.wav")
        assert found.exit_code == 2
        assert f"--shard={part}: must be I/N" in found.stderr


OPTIONS = sorted(
    option
    for parameter in main.commands["separate"].params
    for option in parameter.opts
    if option.startswith("-") and option not in ("--dask", "-d", "--device")
)
VALUES = (
    "a.wav",
    "b.wav",
    "",
    "-1",
    "0",
    "1",
    "3",
    "1/2",
    "linear",
    "segments",
    "x,y",
    "out",
    "/",
)


class TestAnyWords:
    @settings(
        max_examples=40,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(st.lists(st.sampled_from([*OPTIONS, *VALUES]), max_size=6))
    def test_end_in_0_1_or_2_and_say_why(self, here, words):
        wav(here / "a.wav", mixture(n_times=480))
        (here / "b.wav").write_bytes(b"no sound")
        found = run("separate", "--mixing", "linear", "--quality", "fast", *words)
        assert found.exit_code in (0, 1, 2)
        assert "Traceback" not in found.output
        assert bool(found.exit_code) <= bool(found.stderr.strip())
        shutil.rmtree(here / "separated", ignore_errors=True)


class TestProcess:
    """As a shell sees it."""

    def test_as_a_module(self):
        command = [sys.executable, "-m", "sourcesep", "--version"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout == process("--version").stdout.replace("-c", "sourcesep")

    def test_the_module_is_the_command(self, monkeypatch, capsys):
        monkeypatch.setattr(sys, "argv", ["somewhere/__main__.py", "separate"])
        with pytest.raises(SystemExit) as end:
            runpy.run_module("sourcesep", run_name="__main__")
        assert end.value.code == 2
        assert capsys.readouterr().err.startswith("Usage: sourcesep separate")

    def test_exit_codes(self):
        wav("a.wav", mixture())
        done = process("separate", "a.wav")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == "separated/a: 2 sources, trusted\n"
        failed = process("separate", "a.wav")
        assert failed.returncode == 1
        assert failed.stdout == ""
        assert failed.stderr.startswith("error: a.wav: output=separated/a: exists already")
        assert len(failed.stderr.splitlines()) == 1
        assert process("separate", "a.wav", "--aux", "tides").returncode == 2

    def test_a_full_disk_behind_the_standard_output_is_said(self):
        wav("a.wav", mixture())
        with Path("/dev/full").open("w") as full:
            command = [sys.executable, "-m", "sourcesep", "separate", "a.wav"]
            done = subprocess.run(
                command, stdout=full, stderr=subprocess.PIPE, text=True, check=False
            )
        assert done.returncode == 1
        assert done.stderr == (
            "error: what is printed cannot be written (No space left on device)\n"
        )
        assert Path("separated/a/result.json").is_file()

    @pytest.mark.parametrize("words", [["--help"], ["--version"], ["train", "--help"]])
    def test_so_it_is_where_help_is_printed(self, words):
        with Path("/dev/full").open("w") as full:
            command = [sys.executable, "-m", "sourcesep", *words]
            done = subprocess.run(
                command, stdout=full, stderr=subprocess.PIPE, text=True, check=False
            )
        assert done.returncode == 1
        assert done.stderr == (
            "error: what is printed cannot be written (No space left on device)\n"
        )

    def test_a_closed_standard_error_stops_nothing(self, monkeypatch):
        for name in "ab":
            wav(f"{name}.wav", mixture())
        with monkeypatch.context() as closed:
            closed.setattr(sys, "stderr", None)
            with pytest.raises(SystemExit, match="1"):
                main(["separate", "a.wav", "b.wav", "none.wav"])
        assert sorted(p.name for p in Path("separated").iterdir()) == ["a", "b"]

    def test_no_warning_of_another_library_is_seen(self):
        wav("m.wav", mixture()[:1])
        found = process("separate", "m.wav", env=os.environ | {"PYTHONWARNINGS": "error"})
        assert found.returncode == 0, found.stderr
        assert len(found.stderr.splitlines()) == 1

    def test_bytes_that_are_no_text_in_a_name(self):
        path = b"bad\xff.wav"
        wav("a.wav", mixture())
        Path("a.wav").rename(os.fsdecode(path))
        found = process("separate", os.fsdecode(path))
        assert found.returncode == 1
        assert found.stderr.startswith("error: ")
        assert "its name is not valid Unicode" in found.stderr
