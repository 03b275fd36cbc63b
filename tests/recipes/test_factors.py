"""The recipe of factors: macrodata as bundled, and industries in a zip of the real form."""

import zipfile

import numpy as np
import pytest

from sourcesep.exceptions import InputError

YEARS = range(1988, 1998)
NAMES = ["Agric", "Food ", "Soda ", "Beer ", "Smoke", "Toys ", "Fun  ", "Books", "Hshld"]


def write_french(path, gap="Soda "):
    """Write returns of five factors whose volatility changes from year to year."""
    rng = np.random.default_rng(0)
    dates = [10_000 * y + 100 * m + d for y in YEARS for m in range(1, 13) for d in range(1, 21)]
    year = np.array(dates) // 10_000 - YEARS[0]
    volatility = rng.uniform(0.3, 2, (len(YEARS), 5))[year]
    loading = np.linalg.qr(rng.standard_normal((9, 9)))[0][:, :5]
    x = (volatility * rng.standard_normal((len(dates), 5))) @ loading.T
    x += 0.02 * rng.standard_normal(x.shape)
    x[:-300, NAMES.index(gap)] = -99.99

    def table(title, values):
        rows = [
            f"{d}," + ",".join(f"{v:7.2f}" for v in row)
            for d, row in zip(dates, values, strict=True)
        ]
        return [f"  {title} -- Daily", "," + ",".join(NAMES), *rows, "", ""]

    text = [
        "This file was created by CMPT_IND_RETS_DAILY using the 202410 CRSP database.",
        "Missing data are indicated by -99.99 or -999.",
        "",
        *table("Average Value Weighted Returns", x),
        *table("Average Equal Weighted Returns", 100 + x),
        "Copyright 2024 Eugene F. Fama and Kenneth R. French",
    ]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("49_Industry_Portfolios_Daily.csv", "\r\n".join(text))


@pytest.mark.slow
def test_both_tables(recipe, tmp_path):
    module = recipe("factors")
    write_french(tmp_path / module.ZIP)
    result = module.main(tmp_path, quick=True)
    assert len(result["sha256"][module.ZIP]) == 64
    rows = {(row["data"], row["method"]): row for row in result["rows"]}
    told = rows["industries", "u = regime"]
    assert (told["rows"], told["columns"]) == (8 * 240, 8), "from 1990 on, and Soda left out"
    assert told["halves agree"] > 0.97
    assert told["halves agree"] > rows["industries", "u shuffled"]["halves agree"] + 0.1
    assert told["verdict"] == "trusted"
    macro = rows["macrodata", "u = regime"]
    assert macro["verdict"] != "trusted"
    assert macro["halves agree"] < 0.85


def test_the_first_table_is_read_and_gaps_are_missing(recipe, tmp_path):
    module = recipe("factors")
    write_french(tmp_path / module.ZIP)
    names, dates, x = module.read_french(tmp_path / module.ZIP)
    assert names == [name.strip() for name in NAMES]
    assert (dates[0], dates[-1], len(dates)) == (19880101, 19971220, 2400)
    assert np.isnan(x).sum() == np.isnan(x[:, 2]).sum() == 2100
    assert np.nanmax(x) < 50, "not the equally weighted ones"


def test_what_is_no_such_file_is_refused(recipe, tmp_path):
    module = recipe("factors")
    path = tmp_path / module.ZIP
    path.write_bytes(b"<html>")
    with pytest.raises(InputError, match="no zip with a file"):
        module.load(tmp_path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.csv", "nothing\n")
    with pytest.raises(InputError, match="no table of"):
        module.load(tmp_path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.csv", f"{module.TITLE}\n,A,B\n\n")
    with pytest.raises(InputError, match="a table without rows"):
        module.load(tmp_path)
