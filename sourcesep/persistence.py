"""Model files: one .safetensors file, tensors and one JSON text, never pickle.

The tensors are the model's own. The metadata has the single key ``sourcesep``: canonical
JSON with the format's version, the estimator's parameters, what the model needs of a
recording (its contract) and the verdict of its fit. One key, because the order of
several is not fixed, and equal models should be equal bytes.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from sourcesep._version import __version__
from sourcesep.auxiliary import Auxiliary, Scale
from sourcesep.exceptions import ModelFileError, OutputError
from sourcesep.ivae.model import Model, State, under
from sourcesep.messages import in_brief
from sourcesep.output import alone, beside, check_model_output, plain

if TYPE_CHECKING:
    from sourcesep.estimator import IVAE

__all__ = [
    "COMPONENTS",
    "SCHEMA_VERSION",
    "SOURCE_PRIOR",
    "TRAINING",
    "load",
    "read_file",
    "read_metadata",
    "save",
    "write_file",
]

FORMAT = "sourcesep-model"
COMPONENTS = "sourcesep-components"
SOURCE_PRIOR = "sourcesep-source-prior"
TRAINING = "sourcesep-training"


class _Form(NamedTuple):
    """What messages call a kind of file: the setting that names it, its reader, its writer."""

    setting: str
    reader: str
    writer: str


FORMS = {
    FORMAT: _Form("model", "sourcesep.load or --model", "sourcesep.save or --save-model"),
    COMPONENTS: _Form("model", "sourcesep.read_components", "ComponentAnalysis.save"),
    SOURCE_PRIOR: _Form(
        "prior", "sourcesep.load_prior or --prior", "sourcesep train --kind prior"
    ),
    TRAINING: _Form("training", *2 * ("the `sourcesep train` that was interrupted",)),
}
SCHEMA_VERSION = 1
"""Raised by one whenever older readers would misunderstand a file."""
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""For each earlier schema version, the function that brings its facts to the next one. A version
that was ever released keeps its function, and a file in the tests."""
N_TRIED = 512
"""The fewest samples on which a model that was read is tried out."""
LARGEST_HEADER = 100_000_000
"""Bytes, as in the safetensors format itself."""


def save(model: IVAE, path: str | Path, *, contract: Mapping[str, Any] | None = None) -> None:
    """Write a fitted `IVAE` to one file.

    Parameters
    ----------
    model : IVAE
        Fitted.
    path : str or pathlib.Path
        Ends in ``.safetensors``; replaced if it exists.
    contract : mapping, optional
        What the model needs of a recording: ``kind``, ``names``, ``units``, ``sfreq``.
        By default what the model itself was given.

    Raises
    ------
    OutputError
        If the path does not end in ``.safetensors`` or cannot be written.
    """
    from sklearn.utils.validation import check_is_fitted

    check_is_fitted(model)
    state = model.model_.state()
    parameters = model.get_params()
    if not isinstance(parameters["random_state"], int | np.integer | type(None)):
        parameters["random_state"] = None  # a generator's position is no setting
    for name in ("source_prior", "source_labels"):
        del parameters[name]  # needed for the fit only; a prior has a file of its own
    facts = {
        "family": model.model_.family,
        "facts": state.facts,
        "parameters": parameters,
        "contract": {"n_channels": model.model_.n_channels}
        | dict(contract if contract is not None else model.contract_),
        "feature_names": getattr(model, "feature_names_in_", None),
        "u_names": model.u_names_,
        "verdict": model.verdict_.as_dict(),
        "history": model.history_,
        "scores": model.scores_,
        "reason": model.reason_,
    }
    tensors = under("model", state.tensors)
    tensors["label_counts"] = np.asarray(model.label_counts_, np.int64)
    if model.range_ is not None:
        tensors["component_range"] = model.range_
    write_file(Path(path), FORMAT, facts, tensors)


def write_file(
    path: Path, form: str, facts: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]
) -> None:
    """Write facts and tensors to one file; equal ones make equal bytes.

    Parameters
    ----------
    path : pathlib.Path
        Ends in ``.safetensors``; replaced if it exists.
    form : str
        One of `FORMS`.
    facts : mapping
        JSON-ready.
    tensors : mapping of str to ndarray
        Any shapes.

    Raises
    ------
    OutputError
        If the path does not end in ``.safetensors`` or cannot be written.
    """
    from safetensors.numpy import save as to_bytes

    check_model_output(path)
    stamped = dict(facts) | {
        "format": form,
        "schema_version": SCHEMA_VERSION,
        "written_by": {"sourcesep": __version__, "numpy": np.__version__},
    }
    text = json.dumps(
        stamped, sort_keys=True, separators=(",", ":"), allow_nan=False, default=plain
    )
    content = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    _write(path, to_bytes(content, metadata={"sourcesep": text}))


def _write(path: Path, content: bytes) -> None:
    """Write under a temporary name and rename, so that no half a file is ever seen."""
    temporary = beside(path, "new")
    try:
        with alone(path):
            try:
                temporary.unlink(missing_ok=True)  # of a process that was killed
                with temporary.open("xb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(
            f"path={path}: cannot be written ({in_brief(error)}); choose another folder"
        ) from error


def load(path: str | Path) -> IVAE:
    """Read a model file.

    Parameters
    ----------
    path : str or pathlib.Path
        Written by `save`.

    Returns
    -------
    IVAE
        Fitted, with the attribute ``contract_``.

    Raises
    ------
    ModelFileError
        If it is no model file, damaged, or of a newer format.
    """
    from sourcesep.estimator import IVAE
    from sourcesep.selection import FAMILIES
    from sourcesep.verdict import Verdict

    # numbers of a damaged file may overflow; the checks below find that, no warning is needed
    with np.errstate(all="ignore"), read_file(Path(path), FORMAT) as (facts, tensors):
        family = FAMILIES[facts["family"]]
        state = State(State(tensors).part("model"), facts["facts"])
        parameters: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in facts["parameters"].items()
        }
        model = IVAE(**parameters)
        model.model_ = family.from_state(state)
        model.n_features_in_ = model.model_.n_channels
        if facts["feature_names"] is not None:
            model.feature_names_in_ = np.array(facts["feature_names"], dtype=object)
        model.verdict_ = Verdict.from_dict(facts["verdict"])
        model.u_names_ = None if facts["u_names"] is None else tuple(facts["u_names"])
        model.label_counts_ = tensors["label_counts"]
        model.range_ = tensors.get("component_range")  # files of before 0.2 have none
        model.history_ = facts["history"]
        model.scores_, model.reason_ = facts["scores"], facts["reason"]
        model.n_iter_ = len(model.history_["kl"])
        model.contract_ = facts["contract"]
        model._settings()
        _check_facts(model)
        _try(model.model_)
        model._publish()
    return model


@contextmanager
def read_file(path: Path, form: str) -> Iterator[tuple[dict[str, Any], dict[str, NDArray[Any]]]]:
    """Read facts and tensors; errors of the ``with`` block mean that the file is damaged.

    Raises
    ------
    ModelFileError
        If it is no model file, damaged, of another form, or of a newer format.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load as from_bytes

    facts = read_metadata(path, form)
    if facts["format"] != form:
        raise ModelFileError(
            f"{FORMS[form].setting}={path}: holds {facts['format']}, not {form}; read it with "
            f"{FORMS[facts['format']].reader}"
        )
    try:
        tensors = from_bytes(path.read_bytes())
        for name, tensor in tensors.items():
            if not np.isfinite(tensor).all():
                raise ValueError(f"tensor {name} has NaN or infinite values")
        yield facts, tensors
    except (
        *(LookupError, TypeError, ValueError, AttributeError, OSError, SafetensorError),
        RuntimeError,  # torch's, of tensors that do not fit each other
    ) as error:
        raise ModelFileError(
            f"{FORMS[form].setting}={path}: damaged model file ({type(error).__name__}: {error}); "
            f"write it again with {FORMS[form].writer}"
        ) from error


def _check_facts(model: IVAE) -> None:
    """Refuse facts that do not belong to the model that came with them (ValueError)."""
    from sourcesep.verdict import Label

    n_channels, n_labels = model.model_.n_channels, len(model.model_.prior_moments()[0])
    contract, counts, no_names = model.contract_, model.label_counts_, ("",) * n_channels
    right = {
        "contract": contract.get("n_channels") == n_channels
        and _are_texts(contract.get("names", no_names), n_channels)
        and _are_texts(contract.get("units", no_names), n_channels)
        and isinstance(contract.get("sfreq", 1.0), int | float),
        "feature_names": _are_texts(getattr(model, "feature_names_in_", no_names), n_channels),
        "u_names": model.u_names_ is None or _are_texts(model.u_names_, n_labels),
        "label_counts": counts.shape == (n_labels,)
        and counts.dtype == np.int64
        and counts.min() >= 0
        and counts.sum() > 0,
        "verdict": model.verdict_.label in get_args(Label)
        and np.shape(model.verdict_.richness) == (model.model_.n_components,)
        and np.shape(model.verdict_.agreement) == (model.model_.n_components,),
        "component_range": model.range_ is None
        or (
            model.range_.shape == (2, model.model_.n_components)
            and model.range_.dtype == np.float64
            and bool((model.range_[0] <= model.range_[1]).all())
        ),
        "reason": isinstance(model.reason_, str) and isinstance(model.scores_, dict),
    }
    for name, is_right in right.items():
        if not is_right:
            raise ValueError(f"{name} does not fit the model")


def _try(model: Model) -> None:
    """Use every verb once: tensors that do not fit each other raise, whatever the family."""
    n_labels = len(model.prior_moments()[0])
    labels = np.resize(np.arange(n_labels), max(n_labels, N_TRIED))
    scale = Scale(labels, tuple(map(str, range(n_labels))))
    u = Auxiliary((scale,), None, is_time=True, spec="labels")
    with np.errstate(all="ignore"):
        z, x = model.sample(u, np.random.default_rng(0))
        model.elbo(x, u)
        model.decode(model.posterior(x, u).mean, u)
        model.refit_prior(x, u)
        model.image(x, 0, u)
    shapes = {"z": (z, model.n_components), "x": (x, model.n_channels)}
    for name, (signal, number) in shapes.items():
        if signal.shape != (number, len(labels)):
            raise ValueError(f"{name} comes out in shape {signal.shape}")


def _are_texts(values: Any, number: int) -> bool:
    return len(values) == number and all(isinstance(value, str) for value in values)


def read_metadata(path: str | Path, form: str = FORMAT) -> dict[str, Any]:
    """Read a file's facts, without its tensors; messages call it what `form` is called.

    Raises
    ------
    ModelFileError
        If it is no model file, damaged, or of a newer format.
    """
    path = Path(path)
    where = f"{FORMS[form].setting}={path}"
    advice = f"name a file written by {FORMS[form].writer}"
    try:
        if not path.is_file():
            raise ModelFileError(f"{where}: no such file; {advice}")
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(LARGEST_HEADER, path.stat().st_size):
                raise ValueError("its header is longer than the file")
            header = json.loads(file.read(length))
        facts = json.loads(header["__metadata__"]["sourcesep"])
        if facts["format"] not in FORMS:
            raise ValueError(f"format {facts['format']!r}")
        json.dumps(facts, allow_nan=False)  # what could not be written again is damage
        version = facts["schema_version"]
        if type(version) is not int:
            raise ValueError(f"schema_version {version!r}")
        for step in range(version, SCHEMA_VERSION):
            facts = MIGRATIONS[step](facts) | {"schema_version": step + 1}
    except ModelFileError:
        raise
    except (OSError, struct.error, ValueError, KeyError, TypeError, RecursionError) as error:
        reason = getattr(error, "strerror", None)
        what = f"cannot be read ({reason})" if reason else "is no sourcesep model file"
        raise ModelFileError(f"{where}: {what}; {advice}") from error
    if version > SCHEMA_VERSION:
        raise ModelFileError(
            f"{where}: schema_version={version}, this sourcesep {__version__} reads up to "
            f"{SCHEMA_VERSION}; upgrade: pip install -U sourcesep"
        )
    checked: dict[str, Any] = facts
    return checked
