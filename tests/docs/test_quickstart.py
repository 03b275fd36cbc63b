"""docs/quickstart.md is run as it stands, in one folder, as README.md is."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def scripts(page: Path) -> list[list[str]]:
    """Return the commands of a page, by the rules that README.md's are read by."""
    spec = importlib.util.spec_from_file_location("test_readme", ROOT / "tests/test_readme.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.scripts(page.read_text("utf-8"))


@pytest.mark.slow
def test_the_quick_starts_work_as_written(tmp_path):
    commands = scripts(ROOT / "docs" / "quickstart.md")
    assert len(commands) == 6
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for command in commands:
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=os.environ | {"PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command[-1]}\n{done.stdout}{done.stderr}"
    assert (tmp_path / "unmixed/mixture/report.html").is_file()
    assert (tmp_path / "separated/series/loadings.csv").is_file()
    assert (tmp_path / "subject.safetensors").is_file()
