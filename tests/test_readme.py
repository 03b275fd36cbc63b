"""README.md is run as it stands: every `sh` and `python` block, in order, in one folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"

RUN = ("sourcesep ", "python ")
"""Commands that are run."""
SKIPPED = (
    "make ",  # installs, and runs these tests
    "python3 -m venv ",
    ". .venv/bin/activate",
    "pip install ",
)
"""Commands that are not, as they install."""
SHOWN = ("text", "json")
"""Blocks that show something and are not run."""


def blocks(text: str) -> list[tuple[str, str]]:
    """Return the language and the content of every fenced block."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert 2 * len(found) == len(re.findall(r"^\s*```", text, re.MULTILINE)), "a fence is open"
    return found


def scripts(text: str) -> list[list[str]]:
    """Return the commands to run, in order; raise ValueError at what is not known."""
    commands = []
    for language, body in blocks(text):
        if language == "python":
            commands.append([sys.executable, "-W", "error", "-c", body])
        elif language == "sh":
            for line in body.replace("\\\n", " ").splitlines():
                command = line.partition("  #")[0].strip()
                if command.startswith(RUN):
                    commands.append(["bash", "-c", command])
                elif command and not command.startswith(("#", *SKIPPED)):
                    raise ValueError(f"neither run nor skipped: {command}")
        elif language not in SHOWN:
            raise ValueError(f"a block of {language or 'no language'}")
    return commands


@pytest.mark.slow
def test_the_readme_works_as_written(tmp_path: Path) -> None:
    commands = scripts(README.read_text("utf-8"))
    assert len(commands) >= 10
    folder = Path(sys.executable).parent
    assert (folder / "sourcesep").is_file()
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    for command in commands:
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=os.environ | {"PATH": path, "PYTHONPATH": ""},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command[-1]}\n{done.stdout}{done.stderr}"


def test_every_command_of_the_help_is_in_the_readme() -> None:
    from sourcesep.cli import main

    shown = [line for command in scripts(README.read_text("utf-8")) for line in command]
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
    assert scripts(text) == [["bash", "-c", "sourcesep info    x"]]


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
