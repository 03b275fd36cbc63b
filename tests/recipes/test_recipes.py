"""Every recipe has its row in recipes.csv, its README, and the shape that all share."""

import csv
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "recipes"
COLUMNS = [
    "script",
    "data",
    "licence",
    "quick_command",
    "expected_files",
    "expected_figure",
    "run_here",
]
SECTIONS = ("Data", "Run", "Result", "Published")
FACTS = ("Source", "Licence", "Size")


def rows(text: str) -> dict[str, dict[str, str]]:
    """Return the rows of a recipes.csv by the recipe's name."""
    reader = csv.DictReader(text.splitlines())
    assert reader.fieldnames == COLUMNS
    found = {Path(row["script"]).parent.name: row for row in reader}
    assert found
    return found


def on_disk(folder: Path) -> set[str]:
    """Return the recipes that there are."""
    return {path.parent.name for path in folder.glob("*/run.py")}


def unlisted(listed: set[str], there: set[str]) -> list[str]:
    """Return what is wrong between the list and the disk."""
    return [f"{name}: no row" for name in sorted(there - listed)] + [
        f"{name}: no recipe" for name in sorted(listed - there)
    ]


def lacks(readme: str, name: str, row: dict[str, str]) -> list[str]:
    """Return what a recipe's README leaves out."""
    heads = re.findall(r"^## (.+)$", readme, re.MULTILINE)
    missing = [f"section {head}" for head in SECTIONS if head not in heads]
    missing += [fact for fact in FACTS if not re.search(rf"^- {fact}: \S", readme, re.MULTILINE)]
    if f"python recipes/{name}/run.py" not in readme:
        missing.append("the command")
    figure = re.search(r"([\d.]+) \+- [\d.]+", row["expected_figure"])
    if figure and figure[0] not in readme:
        missing.append(f"the figure {figure[0]}")
    if row["run_here"] == "no" and "not run here" not in readme:
        missing.append("that it was not run here")
    return missing


LISTED = rows((RECIPES / "recipes.csv").read_text("utf-8"))


def test_every_recipe_is_listed_and_every_row_is_a_recipe() -> None:
    assert unlisted(set(LISTED), on_disk(RECIPES)) == []


@pytest.mark.parametrize("name", LISTED)
def test_a_row_is_whole(name: str) -> None:
    row = LISTED[name]
    assert row["script"] == f"recipes/{name}/run.py"
    assert row["quick_command"].startswith(f"python recipes/{name}/run.py")
    assert "--quick" in row["quick_command"]
    assert "result.json" in row["expected_files"].split()
    assert row["run_here"] in ("yes", "no")
    assert bool(row["expected_figure"]) == (row["run_here"] == "yes")
    assert row["data"]
    assert row["licence"]


@pytest.mark.parametrize("name", LISTED)
def test_a_readme_says_what_one_needs_to_know(name: str) -> None:
    readme = (RECIPES / name / "README.md").read_text("utf-8")
    assert lacks(readme, name, LISTED[name]) == []


@pytest.mark.parametrize("name", LISTED)
def test_a_recipe_has_the_shape_and_a_test(name, recipe) -> None:
    module = recipe(name)
    for function in ("download", "load", "main"):
        assert next(iter(inspect.signature(getattr(module, function)).parameters)) == "root"
        assert getattr(module, function).__doc__
    assert inspect.signature(module.main).parameters["quick"].default is False
    tests = [path.read_text("utf-8") for path in Path(__file__).parent.glob("test_*.py")]
    assert any(f'recipe("{name}")' in text for text in tests)


def test_the_rules_can_fail() -> None:
    assert unlisted({"a", "b"}, {"b", "c"}) == ["c: no row", "a: no recipe"]
    row = {"expected_figure": "MCC 0.990 +- 0.006", "run_here": "no"}
    assert lacks("## Data\n- Source: x\n", "a", row) == [
        "section Run",
        "section Result",
        "section Published",
        "Licence",
        "Size",
        "the command",
        "the figure 0.990 +- 0.006",
        "that it was not run here",
    ]
    with pytest.raises(AssertionError):
        rows("script,data\n")


def test_common_prints_tables_and_keeps_promises(recipe, tmp_path, capsys) -> None:
    common = sys.modules[recipe("factors").finish.__module__]
    result = common.finish(
        "ivae_synthetic",
        [{"a": 0.5, "b": 12.345}, {"a": None, "c": "x"}],
        quick=False,
        output=tmp_path,
        figure=0.98,
    )
    shown = capsys.readouterr().out
    assert "| 0.500 | 12.3 |  |" in shown
    assert "|  |  | x |" in shown
    assert "NOT reproduced" in shown
    assert result["reproduced"] is False
    assert json.loads((tmp_path / "result.json").read_text("utf-8")) == result
    common.finish("musdb", [{"a": float("nan")}], quick=False, output=tmp_path)
    assert json.loads((tmp_path / "result.json").read_text("utf-8"))["rows"] == [{"a": None}]
    quick = common.finish("ivae_synthetic", [{"a": 1}], quick=True, output=tmp_path, figure=0.1)
    assert quick["reproduced"] is None


def test_the_command_line_says_in_one_line_what_is_missing(tmp_path) -> None:
    done = subprocess.run(
        [sys.executable, RECIPES / "musdb" / "run.py", tmp_path / "nowhere", "--quick"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("musdb: ")
    assert "zenodo.org" in done.stderr
    assert len(done.stderr.splitlines()) == 1
