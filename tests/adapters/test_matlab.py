"""Every .set file goes through this before SciPy's C code sees it, which damage can kill."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import loadmat, savemat
from scipy.sparse import csc_array

from sourcesep.adapters._matlab import DEEPEST, check_matlab

HEAD = b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM"
INT8, INT32, UINT32, DOUBLE, MATRIX, PACKED = 1, 5, 6, 9, 14, 15
CELL, CHAR, NUMERIC = 1, 4, 6


def element(kind, content, size=None):
    padded = content + bytes(-len(content) % 8)
    return struct.pack("<II", kind, len(content) if size is None else size) + padded


def array(*parts, kind=NUMERIC, shape=(1, 2), size=None, flags=None):
    content = b"".join(
        [
            element(UINT32, struct.pack("<II", kind if flags is None else flags, 0)),
            element(INT32, struct.pack(f"<{len(shape)}i", *shape)),
            element(INT8, b"x"),
            *parts,
        ]
    )
    return element(MATRIX, content, size)


NUMBERS = element(DOUBLE, struct.pack("<2d", 1, 2))


def check(tmp_path, content):
    path = tmp_path / "a.set"
    path.write_bytes(content)
    check_matlab(path)


@pytest.mark.parametrize("packed", [False, True])
def test_what_scipy_writes_passes(tmp_path, packed):
    struct_array = np.array([("a", 1.0), ("b", 2.0)], dtype=[("type", object), ("at", object)])
    facts = {
        "numbers": np.arange(3.0),
        "complex": 1j * np.arange(3),
        "text": "long enough",
        "texts": np.array(["ab", "c"]),
        "empty": [],
        "cell": np.array([1, "a", np.eye(2)], dtype=object),
        "inner": {"deep": {"deeper": [1, 2]}},
        "array": struct_array,
        "sparse": csc_array(np.eye(3)),
        "bits": np.array([True, False]),
        "long": np.zeros(100_000, np.int16),
    }
    file = io.BytesIO()
    savemat(file, {"EEG": facts} | facts, do_compression=packed)
    check(tmp_path, file.getvalue())


def test_an_array_of_two_numbers_passes_as_the_damaged_ones_are_made(tmp_path):
    check(tmp_path, HEAD + array(NUMBERS))
    assert loadmat(tmp_path / "a.set", appendmat=False)["x"].tolist() == [[1, 2]]
    packed = zlib.compress(array(NUMBERS))
    check(tmp_path, HEAD + struct.pack("<II", PACKED, len(packed)) + packed)


def deep(n):
    inner = array(NUMBERS)
    for _ in range(n):
        inner = array(inner, kind=CELL, shape=(1, 1))
    return inner


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no MATLAB 5 file"),
        (b"x" * 128, "no MATLAB 5 file"),
        (bytes(124) + b"\0\1IM", "no MATLAB 5 file"),
        (HEAD + b"\x0e\0\0", "damaged"),
        (HEAD + array(NUMBERS)[:-1], "truncated"),
        (HEAD + element(99, b""), "an element of type 99"),
        (HEAD + array(element(200, bytes(16))), "type 200 where there must be data"),
        (HEAD + array(element(8, bytes(16))), "type 8 where there must be data"),
        (HEAD + array(array(NUMBERS)), "type 14 where there must be data"),
        (HEAD + array(NUMBERS, kind=CELL), "type 9 where there must be an array"),
        (HEAD + array(NUMBERS, kind=99), "an array of class 99"),
        (HEAD + array(NUMBERS, flags=6 | 1 << 11), "truncated|damaged"),
        (HEAD + array(NUMBERS, NUMBERS), "not as long as it says"),
        (HEAD + array(element(DOUBLE, bytes(16), size=2**31)), "longer than what it is part of"),
        (HEAD + array(kind=CELL, shape=(2**20, 2**20)), f"{2**40} arrays in 0 bytes"),
        (HEAD + array(element(INT8, b"ab"), kind=CHAR, shape=(2**20, 2**20)), "a text of"),
        (HEAD + array(NUMBERS, shape=(-1, 2)), r"an array of shape \(-1, 2\)"),
        (HEAD + array(NUMBERS, shape=(1,)), "an array of shape"),
        (HEAD + deep(DEEPEST + 1), f"more than {DEEPEST} deep"),
        (HEAD + element(PACKED, b"no zlib at all..."), "damaged"),
        (HEAD + element(PACKED, zlib.compress(array(NUMBERS)[:-9])), "truncated"),
    ],
)
def test_what_would_be_believed_is_refused(tmp_path, content, reason):
    with pytest.raises(ValueError, match=reason):
        check(tmp_path, content)


@settings(max_examples=100, deadline=None)
@given(
    flips=st.lists(st.tuples(st.integers(128, 2000), st.integers(0, 255)), min_size=1, max_size=3),
    packed=st.booleans(),
)
def test_nothing_but_refusals_comes_out(tmp_path_factory, flips, packed):
    file = io.BytesIO()
    facts = {"data": np.arange(30.0), "names": np.array(["a", "b"], object), "inner": {"a": 1}}
    savemat(file, {"EEG": facts}, do_compression=packed)
    content = bytearray(file.getvalue())
    for at, value in flips:
        content[at % len(content)] = value
    path = tmp_path_factory.mktemp("flip") / "a.set"
    path.write_bytes(content)
    try:
        check_matlab(path)
    except ValueError:
        return
    with np.errstate(all="ignore"):
        try:
            loadmat(path, appendmat=False)  # a crash would end the tests
        except Exception as error:
            assert not isinstance(error, MemoryError)  # noqa: PT017 (any other is a refusal)
