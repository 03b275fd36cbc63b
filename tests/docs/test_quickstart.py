"""docs/quickstart.md is run as it stands, in one folder, as README.md is."""

from pathlib import Path

import pytest

from ..test_readme import run_as_written

PAGE = Path(__file__).parents[2] / "docs" / "quickstart.md"


@pytest.mark.slow
def test_the_quick_starts_work_as_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_as_written(PAGE) == 6
    assert (tmp_path / "unmixed/mixture/report.html").is_file()
    assert (tmp_path / "separated/series/loadings.csv").is_file()
    assert (tmp_path / "subject.safetensors").is_file()
