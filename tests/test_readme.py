"""README.md is run as it stands: every `sh` and `python` block, in order, in one folder."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import run

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"

SKIPPED = (
    "make ",  # installs, and runs these tests
    "python3 -m venv ",
    ". .venv/bin/activate",
    "pip install ",
)
"""Commands that are not run, as they install."""
SHOWN = ("text", "json")
"""Blocks that show something and are not run."""


def blocks(text: str) -> list[tuple[str, str]]:
    """Return the language and the content of every fenced block."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert 2 * len(found) == len(re.findall(r"^\s*```", text, re.MULTILINE)), "a fence is open"
    return found


def scripts(text: str) -> list[tuple[str, str]]:
    """Return what to run, in order, and its language; raise ValueError at what is not known."""
    found = []
    for language, body in blocks(text):
        if language == "python":
            found.append((language, body))
        elif language == "sh":
            for line in body.replace("\\\n", " ").splitlines():
                command = line.partition("  #")[0].strip()
                if command.startswith("sourcesep "):
                    found.append((language, command))
                elif command and not command.startswith(("#", *SKIPPED)):
                    raise ValueError(f"neither run nor skipped: {command}")
        elif language not in SHOWN:
            raise ValueError(f"a block of {language or 'no language'}")
    return found


def run_as_written(page: Path) -> int:
    """Run all of a page in the current folder, in this process; return how many scripts."""
    found = scripts(page.read_text("utf-8"))
    for language, text in found:
        if language == "python":
            exec(compile(text, page.name, "exec"), {"__name__": "__main__"})
        else:
            done = run(*shlex.split(text)[1:])
            assert done.exit_code == 0, f"{text}\n{done.output}"
    return len(found)


@pytest.mark.slow
def test_the_readme_works_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_as_written(README) >= 10


def test_the_command_is_installed() -> None:
    command = Path(sys.executable).parent / "sourcesep"
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("sourcesep, version ")


def test_every_command_of_the_help_is_in_the_readme() -> None:
    from sourcesep.cli import main

    shown = [text for _, text in scripts(README.read_text("utf-8"))]
    missing = [n for n in main.commands if not any(f"sourcesep {n} " in s for s in shown)]
    assert missing == ["demo"], "demo is run by `make demo`, which the README names"
    assert "make demo" in README.read_text("utf-8")


@pytest.mark.parametrize(
    "text",
    [
        "```sh\nsudo rm -r x\n```\n",
        "```sh\nsourcesep demo\nffmpeg -i a b\n```\n",
        "```bash\nsourcesep demo\n```\n",
        "```\nsourcesep demo\n```\n",
    ],
)
def test_what_is_not_known_fails(text: str) -> None:
    with pytest.raises(ValueError, match=r"neither run nor skipped|a block of"):
        scripts(text)


def test_an_open_fence_fails() -> None:
    with pytest.raises(AssertionError, match="a fence is open"):
        scripts("```sh\nsourcesep demo\n```\n```python\n")


def test_lines_are_joined_and_comments_dropped() -> None:
    text = "```sh\n# first\nmake demo\nsourcesep info \\\n  x  # what it holds\n```\n"
    assert scripts(text) == [("sh", "sourcesep info    x")]


def test_links_within_the_repository_lead_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("data/*.md")]
    broken = [
        f"{page.name}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
        if not (page.parent / target).exists()
    ]
    assert pages
    assert broken == []
