"""Errors of the command line speak of its options, and leave every other word alone."""

import warnings

import click
import pytest

from sourcesep.cli import main
from sourcesep.cli.talk import about, in_lines, spoken
from sourcesep.exceptions import SourcesepWarning

COMMANDS = main.commands


def said(text, command="separate"):
    with click.Context(COMMANDS[command]):
        return spoken(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("refit=True: needs the model; give it as model=FILE", "--refit: needs the model; give it "
         "as --model=FILE"),
        ("n_components=3: the model has 2", "--n-components=3: the model has 2"),
        ("random_state=-1: must be", "--seed=-1: must be"),
        ("take mixing='factor', which", "take --mixing=factor, which"),
        ("labels=None: 2 of 9 labels", "without --labels: 2 of 9 labels"),
        ("kernel_size=2, post_kernel_size=1", "--kernel-size=2, post_kernel_size=1"),
        ("aux='segments:0': seconds=0", "--aux='segments:0': seconds=0"),
        ("a.wav: bit_depth=24: only", "a.wav: --bit-depth=24: only"),
    ],
)  # fmt: skip
def test_settings_are_options(text, expected):
    assert said(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "output=separated/a: exists already",
        "t.csv: kind=table, a.wav has kind=audio",
        "folder/model=1.wav and x.mixing=2",
        "column=a, sfreq=8000, u=None, path=no",
        "--mixing=linear, mixing, model",
    ],
)
def test_other_words_stay(text):
    assert said(text) == text


def test_each_command_has_its_own():
    assert said("sources=a.wav: at least two", "train") == "INPUT=a.wav: at least two"
    assert said("match by='maps'", "match") == "match --by=maps"
    assert said("n_jobs=0", "info") == "n_jobs=0"


def test_a_file_that_is_called_like_a_setting_keeps_its_name():
    with click.Context(COMMANDS["separate"]):
        assert about("model=1.wav", "model=1.wav: mixing=linear") == "model=1.wav: --mixing=linear"
        assert about("d/aux=a", "input=d/aux=a: aux='b'") == "input=d/aux=a: --aux=b"
        assert about("aux=a", "model=b: gone") == "aux=a: --model=b: gone"
        assert about("", "model=b: gone") == "--model=b: gone"


def test_outside_a_command_nothing_changes():
    assert spoken("n_components=3") == "n_components=3"


@pytest.mark.parametrize("quiet", [False, True])
def test_a_warning_is_said_while_the_work_goes_on(capsys, quiet):
    before = warnings.showwarning
    with in_lines("a.wav", quiet=quiet):
        warnings.warn("one channel is silent", SourcesepWarning, stacklevel=1)
        warnings.warn("of another library", UserWarning, stacklevel=1)
        assert capsys.readouterr().err == "warning: a.wav: one channel is silent\n" * (not quiet)
    assert warnings.showwarning is before
