"""docs/cli.md and docs/api.md are what the commands and the docstrings say today."""

import importlib.util
import inspect
import subprocess
import sys
from pathlib import Path

import click
import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "docs" / "generate.py"


@pytest.fixture(scope="module")
def generate():
    spec = importlib.util.spec_from_file_location("generate", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["cli.md", "api.md"])
def test_a_page_is_up_to_date(generate, name):
    written = (ROOT / "docs" / name).read_text("utf-8")
    assert written == generate.PAGES[name](), "run `make docs`, or python docs/generate.py"


def test_every_command_and_every_option_is_there(generate):
    page = generate.cli_page()
    for name, command in generate.commands.commands.items():
        part = page.partition(f"## sourcesep {name}\n")[2].partition("\n## ")[0]
        assert part
        options = [p for p in command.params if isinstance(p, click.Option) and p.help]
        assert [o.opts for o in options if f"{o.opts[-1]}" not in part] == []


def test_every_public_name_is_there_with_its_parameters(generate):
    import sourcesep

    page = generate.api_page()
    assert "\n## sourcesep.separate\n" in page
    assert "\n### sourcesep.metrics.mcc\n" in page
    for name in inspect.signature(sourcesep.separate).parameters:
        assert f"- **{name}**" in page
    assert "**find_bads_eog**" in page, "what a class inherits"
    assert "| `InputError` | SourcesepError, ValueError |" in page


def test_a_docstring_becomes_markdown(generate):
    doc = inspect.cleandoc(
        """Do it with ``x``.

        Parameters
        ----------
        a, b : int
            First
            and second.

        See Also
        --------
        other : does not.

        Examples
        --------
        >>> 1
        1
        """
    )
    assert generate.rendered(doc) == [
        "Do it with `x`.",
        "*Parameters*",
        "- **a, b** (int): First and second.",
        "*See Also*",
        "- `other`: does not.",
        "*Examples*",
        "```pycon\n>>> 1\n1\n```",
    ]


def test_a_long_call_is_wrapped_between_its_arguments(generate):
    def call(first_of_all=1, *, second=("a", "b"), third_that_is_long="x" * 40, fourth=None): ...

    lines = generate._signature("call", call).splitlines()
    assert max(map(len, lines)) <= generate.WIDTH
    assert (
        "".join(line.strip() + " " for line in lines)
        .replace("  ", " ")
        .strip()
        .startswith("call(first_of_all=1, *, second=('a', 'b'),")
    )


def test_check_tells_an_old_page_and_writes_nothing(tmp_path):
    copy = tmp_path / "generate.py"
    copy.write_text(SCRIPT.read_text("utf-8"), "utf-8")
    (tmp_path / "cli.md").write_text("old", "utf-8")
    done = subprocess.run(
        [sys.executable, copy, "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "cli.md, api.md" in done.stderr
    assert (tmp_path / "cli.md").read_text("utf-8") == "old"
    assert not (tmp_path / "api.md").exists()
