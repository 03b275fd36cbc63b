import pytest

from sourcesep.dates import date_of, year_of


@pytest.mark.parametrize(
    "text", ["1990-03-31", "31.3.1990", " 31.03.1990 12:30", "1990-03-31T12:30Z", "1990-03"]
)
def test_a_date_and_its_year(text):
    assert (date_of(text).year, date_of(text).month) == (1990, 3)
    assert year_of(text) == 1990


def test_a_year_alone_is_no_date():
    assert year_of("1990") == year_of("1990.0") == 1990
    with pytest.raises(ValueError, match="1990"):
        date_of("1990")


@pytest.mark.parametrize("text", ["3/31/1990", "31.3.19901", "31.3.90", "", "March"])
def test_neither(text):
    for read in (date_of, year_of):
        with pytest.raises(ValueError, match=r"Invalid isoformat|no year in"):
            read(text)
