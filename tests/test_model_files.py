"""Files that earlier versions have written are read by this one, and give the same latents.

`tests/model_files/make.py` has written those of today; none of them is ever written anew.
"""

import importlib.util
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from sourcesep import load, persistence, read_components, save
from sourcesep.exceptions import ModelFileError
from sourcesep.persistence import SCHEMA_VERSION, read_metadata
from sourcesep.selection import FAMILIES

FOLDER = Path(__file__).parent / "model_files"
FILES = sorted(FOLDER.glob("*.safetensors"))


@pytest.fixture(scope="module")
def make():
    spec = importlib.util.spec_from_file_location("make", FOLDER / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_kept_files_give_the_latents_that_they_gave(path, make):
    name, _, version = path.stem.rpartition("-")
    kept = np.load(FOLDER / f"latents-{version}.npz", allow_pickle=False)
    x = kept["x"]
    if name == "components":
        found = read_components(path).get_sources(make.raw(x)).get_data().T
    else:
        found = load(path).transform(x.T / 300, u=make.labels())
    # what is computed in single precision depends on the order of its sums
    single = any(t.dtype in (np.float32, np.complex64) for t in load_file(path).values())
    atol = 1e-5 if single else 1e-9
    np.testing.assert_allclose(found[:: make.STEP], kept[name], rtol=0, atol=atol)


def test_there_is_a_file_of_every_family_and_they_are_small():
    facts = [read_metadata(path) for path in FILES]
    now = [f for f in facts if f["schema_version"] == SCHEMA_VERSION]
    assert {f["family"] for f in now if "family" in f} == set(FAMILIES)
    assert {f["format"] for f in now} == {"sourcesep-model", "sourcesep-components"}
    assert sum(path.stat().st_size for path in FOLDER.iterdir() if path.is_file()) < 100_000


def aged(content, change):
    """The content with other facts, as an earlier version might have written it."""
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    facts = json.loads(header["__metadata__"]["sourcesep"])
    change(facts)
    header["__metadata__"]["sourcesep"] = json.dumps(facts)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


class TestMigrations:
    """There never was a version 0: here is one whose facts had another name."""

    @pytest.fixture
    def old(self, tmp_path):
        def change(facts):
            facts |= {"schema_version": 0, "kind_of_map": facts.pop("family")}

        path = tmp_path / "old.safetensors"
        path.write_bytes(aged((FOLDER / "linear-1.safetensors").read_bytes(), change))
        return path

    @staticmethod
    def from_0(facts):
        renamed = dict(facts)
        return renamed | {"family": renamed.pop("kind_of_map")}

    def test_an_old_file_is_read_and_written_as_a_new_one(self, old, tmp_path, monkeypatch):
        monkeypatch.setitem(persistence.MIGRATIONS, 0, self.from_0)
        model = load(old)
        x = np.random.default_rng(0).standard_normal((50, 2))
        new = load(FOLDER / "linear-1.safetensors")
        np.testing.assert_array_equal(model.transform(x), new.transform(x))
        save(model, tmp_path / "new.safetensors")
        assert read_metadata(tmp_path / "new.safetensors")["schema_version"] == SCHEMA_VERSION

    def test_steps_follow_each_other(self, old, monkeypatch):
        monkeypatch.setattr(persistence, "SCHEMA_VERSION", 2)
        monkeypatch.setattr(
            persistence, "MIGRATIONS", {0: self.from_0, 1: lambda facts: facts | {"new": 5}}
        )
        facts = read_metadata(old)
        assert (facts["schema_version"], facts["new"]) == (2, 5)
        assert "kind_of_map" not in facts

    def test_without_a_step_it_is_refused(self, old):
        with pytest.raises(ModelFileError, match="is no sourcesep model file"):
            load(old)

    def test_what_a_step_cannot_read_is_damaged(self, old, monkeypatch):
        monkeypatch.setitem(persistence.MIGRATIONS, 0, lambda facts: facts["nowhere"])
        with pytest.raises(ModelFileError, match="is no sourcesep model file"):
            load(old)


@pytest.mark.parametrize(
    ("name", "message"),
    [("networks", "damaged model file"), ("parameters", "mixing=1099511627776: to choose among")],
)
def test_facts_that_no_file_of_ours_has(tmp_path, name, message):
    """As a fuzzer found them: a size below zero, and a family that is a number."""

    def change(facts):
        if name == "networks":
            facts["facts"]["map"]["net"]["architecture"]["condition_decoder"] = -1
        else:
            facts["parameters"]["mixing"] = 2**40

    path = tmp_path / "odd.safetensors"
    path.write_bytes(aged((FOLDER / "amortised-networks-1.safetensors").read_bytes(), change))
    with pytest.raises(ModelFileError, match=message):
        load(path)
