"""What X may be given as, and what is said where it has no value."""

import numpy as np
import pytest

from sourcesep import IVAE
from sourcesep.exceptions import InputError
from sourcesep.rows import end_to_end


def test_what_is_masked_in_one_of_several_recordings_is_missing():
    parts = [np.ma.masked_array(np.ones((3, 2)), np.zeros((3, 2), bool)), np.ones((2, 2))]
    parts[0][1, 0] = np.ma.masked
    whole = end_to_end(parts)
    assert not np.ma.isMaskedArray(whole)
    assert np.flatnonzero(np.isnan(whole.ravel())).tolist() == [2]


@pytest.mark.parametrize("asked", ["linear", "amortised", ("amortised",)])
def test_nan_where_the_fit_has_no_place_for_it(asked):
    """A family that accepts it may have been asked for, and the linear solution given."""
    X = np.random.default_rng(0).standard_normal((400, 2))
    found = IVAE(mixing="linear", random_state=0).fit(X).set_params(mixing=asked)
    X[3, 1] = np.nan
    told = r"1 values that are NaN: a fit of mixing='linear' needs them all; fill them in"
    with pytest.raises(InputError, match=told):
        found.transform(X)


def test_nan_in_a_fit_names_what_was_asked_for():
    X = np.random.default_rng(0).standard_normal((400, 2))
    X[3, 1] = np.nan
    with pytest.raises(InputError, match="NaN: mixing='nonlinear' needs them all"):
        IVAE(mixing="nonlinear", random_state=0).fit(X)
