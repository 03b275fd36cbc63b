"""docs/tables.md is run as it stands, block by block, and prints what it says."""

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from sourcesep.cli import main

PAGE = Path(__file__).parents[1] / "docs" / "tables.md"


def test_the_examples_work_as_written(tmp_path, monkeypatch):
    pytest.importorskip("pandas")
    pytest.importorskip("statsmodels")
    monkeypatch.chdir(tmp_path)
    found = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    printed, runs = "", []
    for language, body in found:
        if language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(body, str(PAGE), "exec"), {})
            printed = out.getvalue()
        elif language == "sh":
            program, *words = shlex.split(body)
            assert program == "sourcesep"
            done = CliRunner().invoke(main, words)
            assert done.exit_code == 0, done.output
            printed = done.stdout
            runs.append(words[1])
        else:
            assert language == "text"
            assert printed == body
    assert runs == ["cells.csv", "macro.csv"]
    assert (tmp_path / "separated" / "macro" / "report.html").stat().st_size > 10_000
