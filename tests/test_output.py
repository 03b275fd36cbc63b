"""Result folders: where each goes, what may be replaced, and nothing half-written."""

import json
import os
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sourcesep.exceptions import OutputError, SettingsError
from sourcesep.output import (
    alone,
    beside,
    check_model_output,
    check_output,
    folders_for,
    plain,
    read_result,
    recover,
    replacing,
    sha256,
)

from .conftest import names_in


def result(folder, **more):
    """A folder as an earlier run leaves it."""
    folder.mkdir(parents=True)
    facts = {"versions": {"sourcesep": "0"}} | more
    (folder / "result.json").write_text(json.dumps(facts))
    return folder


class TestFolders:
    @pytest.mark.parametrize(
        ("inputs", "expected"),
        [
            (["a.wav"], ["o/a"]),
            (["x/a.wav", "y/b.wav"], ["o/a", "o/b"]),
            (["x/a.wav", "y/a.wav"], ["o/x/a", "o/y/a"]),
            (["a.wav", "x/a.wav"], ["o/a", "o/x/a"]),
            (["../a.wav", "../x/a.wav", "b.wav"], ["o/a", "o/x/a", "o/b"]),
            (["/r/s/a.wav", "/r/t/a.wav"], ["o/s/a", "o/t/a"]),
            (["a.wav", "a.csv"], ["o/a.wav", "o/a.csv"]),
            (["a.fif.gz"], ["o/a"]),
            (["a.b.wav"], ["o/a.b"]),
            (["noext"], ["o/noext"]),
            ([".csv", "..csv", "...csv"], ["o/.csv", "o/..csv", "o/...csv"]),
            (["..", "/"], ["o/input", "o/input"]),
        ],
    )
    def test_mirror_what_tells_inputs_apart(self, inputs, expected):
        if inputs == ["..", "/"]:
            for path in inputs:
                assert folders_for([path], Path("o")) == {Path(path): Path("o/input")}
            return
        found = folders_for(inputs, Path("o"))
        assert list(found) == list(map(Path, inputs))
        assert [f.as_posix() for f in found.values()] == expected

    def test_an_input_named_twice_is_one(self):
        assert len(folders_for(["a.wav", "./a.wav", "a.wav"], Path("o"))) == 1

    def test_by_another_way_it_is_the_same(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        names = ["b.wav", "./a.wav", str(tmp_path / "a.wav")]
        expected = {Path("b.wav"): Path("out/b"), Path("./a.wav"): Path("out/a")}
        assert folders_for(names, Path("out")) == expected

    def test_results_never_lie_in_one_another(self):
        with pytest.raises(SettingsError, match=r"input=a/a\.wav: its result would lie in o/a, "):
            folders_for(["a.wav", "a/a.wav"], Path("o"))
        with pytest.raises(SettingsError, match=r"^input=.*; separate them one by one, each with"):
            folders_for(["x/a.wav", "x/../x/a.wav"], Path("o"))

    @settings(max_examples=200, deadline=None)
    @given(st.lists(st.from_regex(r"\A(\.\./|/)?([abA. ]{1,3}/){0,2}[ab.é ]{1,4}\Z"), max_size=4))
    def test_stay_below_the_output(self, inputs):
        try:
            found = folders_for(inputs, Path("o/p"))
        except SettingsError:
            return
        places = [Path(os.path.normpath(f)) for f in found.values()]
        assert all(p.is_relative_to("o/p") and p != Path("o/p") for p in places)
        assert len(set(places)) == len(places) == len(set(map(Path, inputs)))


class TestCheck:
    def test_a_new_place_is_fine(self, tmp_path):
        check_output(tmp_path / "a/b/c", overwrite=False)
        assert names_in(tmp_path) == []

    def test_an_existing_folder_needs_overwrite(self, tmp_path):
        folder = result(tmp_path / "r")
        with pytest.raises(OutputError, match=r"^output=.*r: exists already; .* -o, .* with -f$"):
            check_output(folder, overwrite=False)
        check_output(folder, overwrite=True)

    def test_an_empty_folder_may_be_replaced(self, tmp_path):
        check_output(tmp_path, overwrite=True)

    @pytest.mark.parametrize(
        "text",
        [None, "", "[]", "{}", '{"versions": 1}', '{"versions": {"other": 1}}', "[" * 100_000],
    )
    def test_what_is_no_result_is_never_replaced(self, tmp_path, text):
        (tmp_path / "thesis.txt").write_text("years of work")
        if text is not None:
            (tmp_path / "result.json").write_text(text)
        with pytest.raises(OutputError, match="is not the result of an earlier run"):
            check_output(tmp_path, overwrite=True)

    def test_a_file_in_the_way(self, tmp_path):
        file = tmp_path / "f"
        file.write_text("x")
        with pytest.raises(OutputError, match="is a file; name another folder with -o"):
            check_output(file, overwrite=True)
        with pytest.raises(OutputError, match="f is no folder; name another with -o"):
            check_output(file / "a/b", overwrite=False)

    def test_a_name_too_long(self, tmp_path):
        with pytest.raises(OutputError, match=r"cannot be written \(File name too long\)"):
            check_output(tmp_path / ("x" * 300), overwrite=False)

    def test_of_a_model(self, tmp_path):
        with pytest.raises(OutputError, match=r"must end in \.safetensors"):
            check_model_output(tmp_path / "m.pkl")
        path = tmp_path / "m.safetensors"
        check_model_output(path, overwrite=False)
        path.write_text("x")
        check_model_output(path)
        with pytest.raises(OutputError, match=r"m\.safetensors: exists already; .* with -f"):
            check_model_output(path, overwrite=False)


class TestReplacing:
    def test_the_new_takes_the_place_of_the_old(self, tmp_path):
        folder = result(tmp_path / "r", old=True)
        (folder / "old.txt").write_text("old")
        with replacing(folder) as temporary:
            (temporary / "new.txt").write_text("new")
            assert (folder / "old.txt").exists()
        assert names_in(tmp_path) == ["r", "r/new.txt"]

    @pytest.mark.parametrize(
        "error", [ValueError("x"), KeyboardInterrupt(), MemoryError(), OutputError("said")]
    )
    def test_a_failure_leaves_the_old_and_no_trace(self, tmp_path, error):
        folder = result(tmp_path / "r")
        with pytest.raises(type(error)), replacing(folder) as temporary:  # noqa: PT012
            (temporary / "half.txt").write_text("half")
            raise error
        assert names_in(tmp_path) == ["r", "r/result.json"]

    def test_a_failure_leaves_no_parents_either(self, tmp_path):
        with pytest.raises(ValueError, match="x"), replacing(tmp_path / "a/b/c"):
            raise ValueError("x")
        assert names_in(tmp_path) == []

    def test_a_disk_that_fails_is_said_in_one_line(self, tmp_path):
        with (
            pytest.raises(OutputError, match=r"cannot be written \(No space left on device\); fr"),
            replacing(tmp_path / "r"),
        ):
            raise OSError(28, "No space left on device")
        assert names_in(tmp_path) == []

    def test_the_old_comes_back_if_the_new_cannot_be_moved(self, tmp_path, monkeypatch):
        folder = result(tmp_path / "r")
        rename = Path.rename

        def fail(self, target):
            if Path(target) == folder and not self.name.endswith(".old"):
                raise OSError(5, "Input/output error")
            return rename(self, target)

        monkeypatch.setattr(Path, "rename", fail)
        with pytest.raises(OutputError, match="Input/output error"), replacing(folder):
            pass
        assert names_in(tmp_path) == ["r", "r/result.json"]

    def test_a_link_stays_and_its_target_is_replaced(self, tmp_path):
        target = result(tmp_path / "target")
        link = tmp_path / "link"
        link.symlink_to(target)
        with replacing(link) as temporary:
            (temporary / "new.txt").write_text("new")
        assert link.is_symlink()
        assert names_in(tmp_path) == ["link", "target", "target/new.txt"]

    @pytest.mark.parametrize("mask", [0o022, 0o077])
    def test_keeps_the_umask(self, tmp_path, mask):
        before = os.umask(mask)
        try:
            with replacing(tmp_path / "r"):
                pass
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "r").stat().st_mode) == 0o777 & ~mask

    def test_a_long_name(self, tmp_path):
        with replacing(tmp_path / ("é" * 120)):
            pass
        assert names_in(tmp_path) == ["é" * 120]

    def test_an_unwritable_place(self, tmp_path):
        file = tmp_path / "f"
        file.write_text("x")
        with pytest.raises(OutputError, match="cannot be written"), replacing(file / "a"):
            pass

    def test_a_killed_run_leaves_nothing_under_the_name(self, tmp_path):
        script = f"""
            import os
            from pathlib import Path
            from sourcesep.output import replacing
            with replacing(Path({str(tmp_path / "r")!r})) as temporary:
                (temporary / "source00.wav").write_text("half")
                os._exit(9)
        """
        run = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
        assert run.returncode == 9
        assert not (tmp_path / "r").exists()
        assert [p for p in tmp_path.iterdir() if not p.name.startswith(".")] == []


class TestKilled:
    @pytest.mark.parametrize(
        ("left", "kept"),
        [
            (("r", "new"), "r"),  # while it wrote
            (("old", "new"), "new"),  # between the two steps of a replacement
            (("r", "old"), "r"),  # after both
            (("old",), "old"),
            (("new",), None),
        ],
    )
    def test_what_was_whole_is_not_lost(self, tmp_path, left, kept):
        folder = tmp_path / "r"
        for what in left:
            place = folder if what == "r" else beside(folder, what)
            place.mkdir()
            (place / what).touch()
        recover(folder)
        assert names_in(tmp_path) == ([] if kept is None else ["r", f"r/{kept}"])

    def test_a_lock_on_a_file_that_was_removed_meanwhile_is_none(self, tmp_path, monkeypatch):
        import fcntl

        path, asked = tmp_path / "r", []

        def flock(descriptor, how):
            if not asked:  # as by the one that had it before
                beside(path, "lock").unlink()
            asked.append(how)

        monkeypatch.setattr(fcntl, "flock", flock)
        with alone(path):
            assert len(asked) == 2
            assert beside(path, "lock").exists()


def test_read_result(tmp_path):
    path = tmp_path / "result.json"
    with pytest.raises(ValueError, match="No such file or directory"):
        read_result(path)
    path.write_text("[1]")
    with pytest.raises(ValueError, match="holds a list, not an object"):
        read_result(path)
    path.write_text('{"a": 1}')
    assert read_result(path) == {"a": 1}


def test_sha256(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"abc")
    assert sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_plain():
    values = [np.float32(1.5), np.int64(2), np.array([[1, 2]])]
    assert json.dumps(values, default=plain) == "[1.5, 2, [[1, 2]]]"
    with pytest.raises(TypeError, match="set cannot be written as JSON"):
        json.dumps({1}, default=plain)
