"""Model files: the same model to the bit, and no file that can harm or mislead."""

import hashlib
import json
import os
import struct
import subprocess
import sys
import warnings
from copy import deepcopy

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sourcesep import IVAE, Recording, load, save, separate
from sourcesep.exceptions import InputError, ModelFileError, OutputError, SettingsError
from sourcesep.ivae.flows.fit import EFFORT, Effort
from sourcesep.persistence import SCHEMA_VERSION, read_metadata
from sourcesep.simulate.protocols import ivae

STARTS = ("segments",)


def mixture(seed=0, n_times=1200, d=3):
    rng = np.random.default_rng(seed)
    scale = np.repeat(rng.uniform(0.2, 2, (d, n_times // 40)), 40, axis=1)
    return rng.standard_normal((d, d)) @ (rng.laplace(size=(d, n_times)) * scale)


def recording(seed=0, **changes):
    data = mixture(seed)
    fields = {
        "data": data,
        "sfreq": 100.0,
        "names": ("a", "b", "c"),
        "units": ("V", "V", "V"),
        "kind": "array",
    }
    return Recording(**(fields | changes))


@pytest.fixture(scope="module")
def fitted():
    return IVAE(2, starts=STARTS, random_state=0).fit(mixture().T)


@pytest.fixture(scope="module")
def separation():
    return separate(recording())


@pytest.fixture(scope="module")
def content(fitted, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    save(fitted, path)
    return path.read_bytes()


@pytest.fixture
def file(content, tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    return path


def parts(content):
    """Header, facts and tensors of a model file."""
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    return header, json.loads(header["__metadata__"]["sourcesep"]), content[8 + length :]


def rebuilt(content, facts):
    header, _, body = parts(content)
    header["__metadata__"]["sourcesep"] = facts if isinstance(facts, str) else json.dumps(facts)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def refusal(path):
    """The one line that loading gives."""
    with pytest.raises(ModelFileError) as error:
        load(path)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"model={path}: ")
    return str(error.value)


class TestRoundTrip:
    def test_is_the_same_model_to_the_bit(self, fitted, file):
        model, x, fresh = load(file), mixture().T, mixture(1).T
        for call in (
            lambda m: m.transform(x),
            lambda m: m.transform(fresh),
            lambda m: m.inverse_transform(m.transform(fresh)),
            lambda m: m.elbo(fresh),
            lambda m: m.sample(7),
            lambda m: m.effect(1),
            lambda m: m.mixing_,
            lambda m: m.components_,
        ):
            for a, b in zip(call(fitted), call(model), strict=True):
                np.testing.assert_array_equal(a, b)
        assert model.prior_table() == fitted.prior_table()
        assert model.verdict_.as_dict() == fitted.verdict_.as_dict()
        assert model.get_params() == fitted.get_params()
        for name in ("history_", "scores_", "reason_", "n_iter_", "n_features_in_", "u_names_"):
            assert getattr(model, name) == getattr(fitted, name), name

    def test_gives_the_same_latents_in_another_process(self, fitted, file, tmp_path):
        np.save(tmp_path / "x.npy", mixture(3).T)
        script = (
            "import sys, numpy as np, sourcesep; from pathlib import Path; f = Path(sys.argv[1]);"
            "m = sourcesep.load(f / 'm.safetensors');"
            "np.save(f / 's.npy', m.transform(np.load(f / 'x.npy')))"
        )
        subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
        np.testing.assert_array_equal(np.load(tmp_path / "s.npy"), fitted.transform(mixture(3).T))

    def test_so_does_a_nonlinear_model(self, tmp_path, monkeypatch, unasked_for_noise):
        monkeypatch.setitem(EFFORT, "fast", Effort(2, 60))
        X = ivae(2, 20, 200, random_state=0).observations
        model = IVAE(mixing="nonlinear", quality="fast", aux="segments:200", random_state=0).fit(X)
        assert model.model_.family == "nonlinear"
        save(model, tmp_path / "m.safetensors")
        np.save(tmp_path / "x.npy", X)
        script = (
            "import sys, numpy as np, sourcesep; from pathlib import Path; f = Path(sys.argv[1]);"
            "m = sourcesep.load(f / 'm.safetensors'); x = np.load(f / 'x.npy');"
            "np.savez(f / 's.npz', m.transform(x), m.inverse_transform(m.transform(x)))"
        )
        subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
        S = model.transform(X)
        found = np.load(tmp_path / "s.npz")
        np.testing.assert_array_equal(found["arr_0"], S)
        np.testing.assert_array_equal(found["arr_1"], model.inverse_transform(S))

    def test_what_auto_may_choose_among_is_kept(self, tmp_path):
        fitted = IVAE(mixing=("linear", "post-nonlinear"), starts=STARTS).fit(mixture().T)
        save(fitted, tmp_path / "m.safetensors")
        assert load(tmp_path / "m.safetensors").get_params() == fitted.get_params()

    def test_the_same_fit_is_the_same_bytes_in_another_process(self, content, tmp_path):
        np.save(tmp_path / "x.npy", mixture().T)
        script = (
            "import sys, numpy as np, sourcesep; from pathlib import Path; f = Path(sys.argv[1]);"
            "x = np.load(f / 'x.npy');"
            "m = sourcesep.IVAE(2, starts=('segments',), random_state=0).fit(x);"
            "sourcesep.save(m, f / 'm.safetensors')"
        )
        env = os.environ | {"PYTHONHASHSEED": "7"}
        subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, env=env)
        found = hashlib.sha256((tmp_path / "m.safetensors").read_bytes())
        assert found.hexdigest() == hashlib.sha256(content).hexdigest()

    def test_saving_what_was_loaded_gives_the_same_bytes(self, content, file, tmp_path):
        save(load(file), tmp_path / "again.safetensors")
        assert (tmp_path / "again.safetensors").read_bytes() == content

    def test_labels_and_feature_names_come_back(self, tmp_path):
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame(mixture().T, columns=["left", "mid", "right"])
        u = np.repeat(["rest", "task", "sleep"], 400)
        save(IVAE(starts=STARTS, random_state=0).fit(frame, u=u), tmp_path / "m.safetensors")
        model = load(tmp_path / "m.safetensors")
        assert set(model.u_names_) == {"u=rest", "u=task", "u=sleep"}
        assert list(model.feature_names_in_) == ["left", "mid", "right"]
        assert model.transform(frame, u=u).shape == (1200, 3)

    def test_a_generator_is_not_kept(self, tmp_path):
        model = IVAE(2, starts=STARTS, random_state=np.random.default_rng(0)).fit(mixture().T)
        save(model, tmp_path / "m.safetensors")
        assert load(tmp_path / "m.safetensors").random_state is None

    def test_no_fewer_components_than_checks_allow(self, tmp_path):
        model = IVAE(1, starts=STARTS, random_state=0).fit(mixture().T)
        save(model, tmp_path / "m.safetensors")
        again = load(tmp_path / "m.safetensors")
        assert again.verdict_ == model.verdict_
        save(again, tmp_path / "n.safetensors")


class TestFile:
    def test_metadata_is_one_key_of_canonical_json(self, content):
        header, facts, _ = parts(content)
        assert list(header["__metadata__"]) == ["sourcesep"]
        text = header["__metadata__"]["sourcesep"]
        assert text == json.dumps(facts, sort_keys=True, separators=(",", ":"))
        assert facts["schema_version"] == SCHEMA_VERSION
        assert facts["parameters"]["random_state"] == 0
        assert facts["contract"] == {"n_channels": 3}
        assert {"family", "facts", "verdict", "history", "scores", "reason"} <= set(facts)

    def test_read_metadata_reads_no_tensor(self, content, file):
        assert read_metadata(file) == parts(content)[1]

    def test_holds_no_pickle(self, content):
        assert b"numpy.core" not in content
        assert b"sourcesep.estimator" not in content


class TestSave:
    def test_unfitted(self, tmp_path):
        with pytest.raises(ValueError, match="not fitted"):
            save(IVAE(), tmp_path / "m.safetensors")
        assert list(tmp_path.iterdir()) == []

    def test_another_suffix(self, fitted, tmp_path):
        with pytest.raises(OutputError, match=r"path=.*m\.pkl: a model file must end in \.safet"):
            save(fitted, tmp_path / "m.pkl")

    def test_an_unwritable_place(self, fitted, tmp_path):
        (tmp_path / "f").write_text("x")
        with pytest.raises(OutputError, match=r"cannot be written \(.*\); choose another folder"):
            save(fitted, tmp_path / "f" / "m.safetensors")
        with pytest.raises(OutputError, match=r"cannot be written \(File name too long\)"):
            save(fitted, tmp_path / ("x" * 300 + ".safetensors"))

    def test_a_failure_leaves_the_old_file_and_no_trace(self, fitted, file, monkeypatch):
        before = file.read_bytes()

        def full(descriptor):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OutputError, match="No space left"):
            save(fitted, file)
        assert file.read_bytes() == before
        assert list(file.parent.iterdir()) == [file]


class TestHostile:
    @pytest.mark.parametrize("name", ["no.safetensors", "x" * 300 + ".safetensors", "."])
    def test_no_file(self, tmp_path, name):
        refusal(tmp_path / name)

    def test_says_how_to_get_one(self, tmp_path):
        assert refusal(tmp_path / "no").endswith(
            "no: no such file; name a file written by sourcesep.save or --save-model"
        )

    @pytest.mark.parametrize(
        "bad",
        [
            b"",
            b"\0" * 7,
            b"RIFF\x24\0\0\0WAVEfmt ",
            b"\x80\x04\x95pickle" * 9,
            struct.pack("<Q", 2**63),
            struct.pack("<Q", 99_000_000) + b"{}",
            struct.pack("<Q", 2) + b"{}",
            struct.pack("<Q", 2) + b"[]",
            struct.pack("<Q", 200_000) + b"[" * 200_000,
            struct.pack("<Q", 20) + b'{"__metadata__":null}'[:20],
        ],
        ids=lambda b: f"{len(b)} bytes {b[:12]!r}",
    )
    def test_is_no_model_file(self, tmp_path, bad):
        path = tmp_path / "m.safetensors"
        path.write_bytes(bad)
        assert "is no sourcesep model file; name a file written by" in refusal(path)

    @pytest.mark.parametrize("keep", [1, 8, 100, -8, -1])
    def test_truncated(self, content, tmp_path, keep):
        path = tmp_path / "m.safetensors"
        path.write_bytes(content[:keep])
        refusal(path)

    def test_another_safetensors_file(self, tmp_path):
        from safetensors.numpy import save_file

        path = tmp_path / "m.safetensors"
        save_file({"a": np.zeros(3)}, path)
        assert "is no sourcesep model file" in refusal(path)

    def test_a_newer_version(self, content, file):
        facts = parts(content)[1] | {"schema_version": SCHEMA_VERSION + 1}
        file.write_bytes(rebuilt(content, facts))
        assert refusal(file).endswith(
            f"schema_version={SCHEMA_VERSION + 1}, this sourcesep "
            f"{facts['written_by']['sourcesep']} reads up to {SCHEMA_VERSION}; "
            "upgrade: pip install -U sourcesep"
        )

    @pytest.mark.parametrize("version", [0, -1, 1.5, True, "1", None, [1], float("inf")])
    def test_a_version_that_is_none(self, content, file, version):
        file.write_bytes(rebuilt(content, parts(content)[1] | {"schema_version": version}))
        assert "is no sourcesep model file" in refusal(file)

    @pytest.mark.parametrize(
        "text", ["", "nul", "[]", "[" * 100_000, '{"a":' * 50_000, "9" * 5000]
    )
    def test_facts_that_are_none(self, content, file, text):
        file.write_bytes(rebuilt(content, text))
        assert "is no sourcesep model file" in refusal(file)

    def tensors(self, content, **changes):
        from safetensors.numpy import load as tensors_of
        from safetensors.numpy import save as bytes_of

        tensors = tensors_of(content) | {k.replace("__", "."): v for k, v in changes.items()}
        tensors = {k: v for k, v in tensors.items() if v is not None}
        return bytes_of(tensors, metadata=parts(content)[0]["__metadata__"])

    @pytest.mark.parametrize(
        "name",
        [
            *("mean", "unmixing", "mixing", "complement", "remainder"),
            *("prior__mean", "prior__scale", "prior__shape"),
        ],
    )
    @pytest.mark.parametrize("how", ["missing", "cut", "float32", "deeper", "nan", "inf"])
    def test_tensors_that_cannot_be(self, content, file, name, how):
        from safetensors.numpy import load as tensors_of

        tensor = tensors_of(content)["model." + name.replace("__", ".")]
        bad = {
            "missing": None,
            "cut": tensor[:-1],
            "float32": tensor.astype(np.float32),
            "deeper": tensor[None],
            "nan": np.full_like(tensor, np.nan),
            "inf": np.full_like(tensor, np.inf),
        }[how]
        file.write_bytes(self.tensors(content, **{f"model__{name}": bad}))
        assert "damaged model file (" in refusal(file)

    @pytest.mark.parametrize(
        "counts",
        [np.zeros(40, np.int64), -np.ones(40, np.int64), np.ones(39, np.int64), np.ones(40)],
    )
    def test_counts_that_cannot_be(self, content, file, counts):
        file.write_bytes(self.tensors(content, label_counts=counts))
        assert "label_counts does not fit the model" in refusal(file)

    @pytest.mark.parametrize("name", ["prior__scale", "prior__shape"])
    def test_scales_are_above_0(self, content, file, name):
        from safetensors.numpy import load as tensors_of

        tensor = tensors_of(content)["model." + name.replace("__", ".")]
        file.write_bytes(self.tensors(content, **{f"model__{name}": -tensor}))
        assert "values that are not above 0" in refusal(file)

    @settings(max_examples=150, deadline=None)
    @given(data=st.data())
    def test_any_fact_may_lie(self, content, tmp_path_factory, data):
        """Whatever the facts say, the file is refused or the model works in all its verbs."""
        facts = deepcopy(parts(content)[1])
        where = facts
        while True:
            key = data.draw(st.sampled_from(sorted(where)))
            if not (isinstance(where[key], dict) and where[key] and data.draw(st.booleans())):
                break
            where = where[key]
        lies = st.sampled_from([None, 5, -1, 1.5, "x", True, float("inf"), float("nan")])
        where[key] = data.draw(
            st.recursive(
                lies, lambda s: st.lists(s) | st.dictionaries(st.just("a"), s), max_leaves=3
            )
        )
        path = tmp_path_factory.mktemp("lie") / "m.safetensors"
        path.write_bytes(rebuilt(content, facts))
        try:
            model = load(path)
        except ModelFileError as error:
            assert "\n" not in str(error)  # noqa: PT017 (either outcome is right)
            return
        vars(model).pop("feature_names_in_", None)  # of arrays scikit-learn says they have none
        x = mixture().T
        assert np.isfinite(model.score(x))
        assert model.sample(3)[1].shape == (3, 3)
        assert len(model.prior_table()) > 0
        save(model, path)

    @settings(max_examples=100, deadline=None)
    @example(flips=[(3567, 95)])  # a scale whose square is more than a float holds
    @given(
        flips=st.lists(
            st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4
        )
    )
    def test_any_byte_may_lie(self, content, tmp_path_factory, flips):
        damaged = bytearray(content)
        for position, value in flips:
            damaged[position % len(damaged)] = value
        path = tmp_path_factory.mktemp("flip") / "m.safetensors"
        path.write_bytes(damaged)
        try:
            model = load(path)
        except ModelFileError:
            return
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert model.transform(mixture().T).shape == (1200, 2)


class TestContract:
    @pytest.fixture
    def model(self, separation, tmp_path):
        path = tmp_path / "m.safetensors"
        separation.save_model(path)
        return path

    def test_another_recording_of_the_same_kind(self, separation, model):
        other = separate(recording(seed=5), model=model)
        np.testing.assert_array_equal(
            other.sources, separation.ivae.transform(recording(seed=5).data.T).T
        )
        assert other.settings["model"] == str(model)

    def test_the_same_recording_gives_the_same_sources(self, separation, model):
        again = separate(recording(), model=model)
        np.testing.assert_array_equal(again.sources, separation.sources)
        np.testing.assert_allclose(again.elbo, separation.elbo, rtol=1e-9)

    def test_the_elbo_is_that_of_the_recording_it_is_used_on(self, separation, model):
        other = separate(recording(seed=5), model=model)
        assert sum(other.elbo) != pytest.approx(sum(separation.elbo), rel=1e-3)
        expected = separation.ivae.elbo(recording(seed=5).data.T, u=other.u)
        np.testing.assert_allclose(other.elbo, expected)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"kind": "table"}, "the recording: kind=table, the model has kind=array; both must"),
            ({"names": ("a", "b", "z")}, "channels differ from those of the model: missing ['c']"),
            ({"sfreq": 99.0}, "the recording: sfreq=99, the model has 100; resample it first"),
        ],
    )
    def test_what_differs_is_named(self, model, changes, message):
        with pytest.raises(InputError) as error:
            separate(recording(**changes), model=model)
        assert message in str(error.value)
        assert "\n" not in str(error.value)

    def test_a_model_of_arrays_asks_for_their_width_alone(self, fitted):
        assert separate(recording(), model=fitted).n_components == 2
        x = mixture(d=2)
        with pytest.raises(InputError, match="n_channels=2, the model has 3; give the same"):
            separate((x, 100.0), model=fitted)

    def test_another_number_of_components(self, model):
        with pytest.raises(SettingsError, match="n_components=1: the model has 3; leave it out"):
            separate(recording(), model=model, n_components=1)

    def test_another_mixing(self, model):
        with pytest.raises(SettingsError, match="mixing=factor: the model has linear mixing"):
            separate(recording(), model=model, mixing="factor")
        assert separate(recording(), model=model, mixing="linear").n_components == 3

    def test_no_model_at_all(self):
        with pytest.raises(SettingsError, match="model=5: must be a model file or a fitted IVAE"):
            separate(recording(), model=5)
        with pytest.raises(ValueError, match="not fitted yet"):
            separate(recording(), model=IVAE())

    def test_values_beyond_all_bounds(self, content, tmp_path):
        path = tmp_path / "m.safetensors"
        huge = np.full((1, 3), 1e300)
        path.write_bytes(TestHostile().tensors(content, model__complement=huge))
        with pytest.raises(InputError, match="makes infinite values of this recording"):
            separate(recording(), model=path)
