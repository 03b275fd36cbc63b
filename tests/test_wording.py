"""The sentence of a verdict: all that failed, the first reason first, for any kind of data."""

import numpy as np
import pytest

from sourcesep.misfit import Misfit
from sourcesep.verdict import USUAL, Found, _decide

GOOD = Misfit(2.0, 2.0, 2.0)


def said(rich, agree, wrong=GOOD, compared="halves of the data", **more):
    found = Found(np.array(rich), np.array(agree), wrong, USUAL, compared)
    verdict = _decide(found, **more)
    return verdict.label, verdict.sentence


def test_nothing_failed():
    label, sentence = said([9, 9], [1, 1])
    assert label == "trusted"
    assert "nothing speaks against the model" in sentence


@pytest.mark.parametrize(
    ("agree", "words"),
    [
        ([1, 0.9, 1], "the 2nd of the 3 components comes"),
        ([0.9, 1, 0.9], "the 1st and 3rd of the 3 components come"),
        ([0.9] * 3, "all 3 components come"),
        ([1] * 10 + [0.9] * 3, "the 11th, 12th and 13th of the 13 components come"),
        ([1] * 20 + [0.9, 0.9], "the 21st and 22nd of the 22 components come"),
        ([1] * 5 + [0.9] * 5, "5 of the 10 components come"),
    ],
)
def test_components_are_named_where_they_are_few(agree, words):
    label, sentence = said([9.0] * len(agree), agree)
    assert label == "doubtful"
    assert sentence == f"{words} out differently from two halves of the data"


def test_what_makes_fits_differ_is_said_where_they_do():
    causes = "perhaps noise"
    assert said([9, 9], [1, 0.9], causes=causes)[1].endswith(
        "two halves of the data (perhaps noise)"
    )
    assert said([9, 9], [1, 1], causes=causes) == said([9, 9], [1, 1])


def test_all_that_failed_is_counted_and_the_first_reason_comes_first():
    label, sentence = said([9, 1, 9, 9], [1, 1, 0.8, 1], Misfit(20.0, 30.0, 99.0))
    assert label == "doubtful"
    assert sentence.startswith("4 reasons: the components still depend on each other's amp")
    places = [
        sentence.index(words)
        for words in ("amplitudes", "at some delay", "told apart", "out differently")
    ]
    assert places == sorted(places)
    assert "how large" not in sentence  # amplitudes say it


def test_one_reason_is_not_counted():
    _, sentence = said([9, 9], [1, 1], Misfit(2.0, 2.0, 12.0))
    assert sentence.startswith("how large one component is still tells how large another is")


@pytest.mark.parametrize(
    ("kind", "where"),
    [("correlation", "single labels"), ("coherence", "bands of frequencies (more sources than")],
)
def test_what_goes_together_within_labels_or_bands_is_said(kind, where):
    usual = USUAL._replace(misfit=USUAL.misfit._replace(**{kind: 0.05}))
    wrong = GOOD._replace(**{kind: 0.1})
    found = Found(np.array([9, 9]), np.array([1, 1]), wrong, usual, "restarts")
    verdict = _decide(found)
    assert verdict.label == "doubtful"
    assert verdict.sentence.startswith(f"the components go together within {where}")
    assert said([9, 9], [1, 1], wrong)[0] == "trusted"  # where it is not looked for


def test_what_other_checks_say_comes_last():
    _, sentence = said([9, 9], [1, 0.8], further=("there is noise",))
    assert sentence == (
        "2 reasons: the 2nd of the 2 components comes out differently from two halves of the "
        "data; there is noise"
    )
    assert said([9, 9], [1, 1], further=("there is noise",)) == ("doubtful", "there is noise")


def test_what_cannot_be_told_apart_is_refused_whatever_else_failed():
    label, sentence = said([1, 9, 2], [0.5, 1, 0.5])
    assert label == "not identifiable"
    assert sentence.startswith("nothing in the data tells the 1st and 3rd of the 3 components")
    label, sentence = said([1, 2], [0.5, 1], Misfit(20.0, 2.0, 2.0))
    assert label == "not identifiable"
    assert sentence.startswith("2 reasons: nothing in the data tells both components apart")
    assert "at some delay" in sentence


@pytest.mark.parametrize("wrong", [Misfit(20.0, 2, 2), Misfit(2, 20.0, 2), Misfit(2, 2, 20.0)])
def test_no_kind_of_data_is_taken_for_granted(wrong):
    _, sentence = said([9, 9], [1, 1], wrong)
    assert "sources that" in sentence
    assert not any(word in sentence for word in ("microphone", "sensor", "talker", "channel"))
