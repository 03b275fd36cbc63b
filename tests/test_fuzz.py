"""A little of `make fuzz`, and that the fuzzer sees what it is there for."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")


def run(*arguments):
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, cwd=BENCHMARKS
    )
    return done.returncode, done.stdout + done.stderr


def test_nothing_comes_out_of_hostile_input_but_errors_that_help(tmp_path):
    code, said = run("fuzz.py", "--cases", "400", "--jobs", "1", "--keep", str(tmp_path / "kept"))
    assert code == 0, said
    assert "0 findings" in said.splitlines()[-1]


CAN_FAIL = """
    import os, pickle, time
    import numpy as np
    import fuzz
    from sourcesep.exceptions import InputError

    def raises(error):
        raise error

    readers = {
        "ZeroDivisionError": lambda path: 1 / 0,
        "message": lambda path: raises(InputError("two\\nlines")),
        "crash": lambda path: os.abort(),
        "hang": lambda path: time.sleep(60),
        "memory": lambda path: np.ones(2**26),
        "MemoryError": lambda path: np.ones(2**50),
        "open": lambda path: open(OUTSIDE, "w").close(),
        "os.rename": lambda path: os.rename(path, OUTSIDE),
        "pickle": lambda path: pickle.loads(pickle.dumps(InputError)),
        "": lambda path: open("inside", "w").close(),
    }
    for name, reader in readers.items():
        fuzz.TARGETS["wav"] = reader
        fuzz.PATIENCE = 1 if name == "hang" else 30
        done, found = fuzz.fuzz(2, only=["wav"])
        assert done == {"wav": 2}, name
        assert len(found) == (2 if name else 0), (name, found)
        assert all(what.startswith(name) for _, _, what in found), (name, found)
"""


def test_the_fuzzer_can_fail(tmp_path):
    outside = f"OUTSIDE = {str(tmp_path / 'outside')!r}\n"
    code, said = run("-c", outside + textwrap.dedent(CAN_FAIL))
    assert code == 0, said


def test_a_case_is_made_again_from_its_number():
    script = (
        "from fuzz import case_of\n"
        "for kind in ('wav', 'csv', 'spec'):\n"
        "    assert case_of(kind, 3, 0) == case_of(kind, 3, 0)\n"
        "    assert len({str(case_of(kind, n, 0)) for n in range(20)}) > 10\n"
    )
    code, said = run("-c", script)
    assert code == 0, said
