"""Of EEG it is said which components come out again."""

from dataclasses import replace

import numpy as np
import pytest

from sourcesep.componentwise import DEPENDENT, come_again, componentwise, reliability_in_words
from sourcesep.misfit import Misfit
from sourcesep.verdict import MISFITS, Verdict
from sourcesep.wording import in_one_sentence, misfits


def verdict(label="doubtful"):
    return Verdict(label, "for another reason", (4.0,) * 3, (0.5,) * 3, Misfit(20.0, 2.0))


def test_those_that_come_again_are_named():
    reliability = np.array([0.97, 0.4, 0.99])
    assert come_again(reliability) == [0, 2]
    assert reliability_in_words(reliability) == "2 of 3 components come out again: numbers 0, 2"
    said = componentwise(verdict("not identifiable"), reliability)
    assert said.label == "doubtful"
    assert (
        "2 of 3 components come out again: numbers 0, 2; do not read the others" in said.sentence
    )


def test_many_are_only_counted():
    assert (
        reliability_in_words(np.append(np.ones(20), 0.1)) == "20 of 21 components come out again"
    )
    assert (
        reliability_in_words(np.array([0.1, 0.99]))
        == "1 of 2 components comes out again: number 1"
    )
    assert reliability_in_words(np.ones(3)) == "3 of 3 components come out again"


@pytest.mark.parametrize("label", ["trusted", "doubtful", "not identifiable"])
def test_where_none_comes_again_nothing_is_identifiable(label):
    said = componentwise(verdict(label), np.full(3, 0.9))
    assert said.label == "not identifiable"
    assert "0 of 3" in said.sentence


def test_where_all_come_again_it_is_said_why_they_are_doubtful():
    again = "from random halves of the data 3 of 3 components come out again, but "
    assert componentwise(verdict("doubtful"), np.ones(3)).sentence == f"{again}for another reason"
    wrong = Misfit(20.0, 12.0)
    echo = in_one_sentence(misfits(Misfit(*(value / MISFITS for value in wrong))))
    judged = replace(verdict("doubtful"), misfit=wrong, sentence=echo)
    assert "echo" in echo  # of sound, which electrodes do not hear
    assert componentwise(judged, np.ones(3)).sentence == again + DEPENDENT
    both = replace(judged, sentence=f"2 reasons: {echo}; another")
    assert componentwise(both, np.ones(3)).sentence == again + both.sentence


def test_what_a_joint_model_has_said_of_its_components_is_not_said_twice():
    for reliability in (np.ones(3), np.array([0.97, 0.4, 0.99]), np.zeros(3)):
        once = componentwise(verdict(), reliability)
        assert componentwise(once, reliability) is once


def test_good_components_make_no_verdict_better_than_doubtful():
    assert componentwise(verdict("doubtful"), np.ones(3)).label == "doubtful"
    assert componentwise(verdict("trusted"), np.ones(3)) == verdict("trusted")
    assert componentwise(verdict("trusted"), np.array([1.0, 1.0, 0.9])).label == "doubtful"
    alone = Verdict("not identifiable", "one only", (0.0,), (1.0,), Misfit(0.0, 0.0))
    assert componentwise(alone, np.ones(1)) is alone
