"""What goes with a model, or with other recordings: the first thing that differs is named."""

import numpy as np
import pytest

from sourcesep import Recording
from sourcesep.contracts import check_alike, contract_of
from sourcesep.exceptions import InputError

NEEDED = contract_of(
    Recording(np.eye(3), 100.0, ("a", "b", "c"), ("V", "V", "V"), "eeg"),
)


def refusal(needed=NEEDED, **changes):
    with pytest.raises(InputError) as error:
        check_alike(needed, NEEDED | changes, where="b.fif", other="a.fif")
    return str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "table"}, "b.fif: kind=table, a.fif has kind=eeg; both must be of one kind"),
        (
            {"names": ["a", "b", "z"]},
            "b.fif: channels differ from those of a.fif: missing ['c'], extra ['z']; give the "
            "same channels in the same order",
        ),
        ({"names": ["a", "b"]}, "missing ['c'], extra none; give"),
        ({"names": ["b", "a", "c"]}, "of a.fif: they come in another order; give"),
        ({"sfreq": 99.0}, "b.fif: sfreq=99, a.fif has 100; resample it first"),
        ({"units": ["V", "V", "mV"]}, "b.fif: other units than a.fif: c ('mV', not 'V'); convert"),
    ],
)
def test_what_differs_is_named(changes, message):
    assert message in refusal(**changes)


def test_a_number_of_channels_alone():
    message = "b.fif: n_channels=3, a.fif has 2; give the same channels"
    assert refusal({"n_channels": 2}) == message


@pytest.mark.parametrize("needed", [NEEDED, {}, {"n_channels": 3}, {"sfreq": 100.0}])
def test_what_a_contract_leaves_out_may_be_anything(needed):
    check_alike(needed, NEEDED, where="b.fif", other="a.fif")
