"""Using a fitted model on another recording: whether the two go together, and the result."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sourcesep.auxiliary import Auxiliary
from sourcesep.contracts import check_alike, contract_of
from sourcesep.exceptions import InputError, SettingsError, SourcesepWarning
from sourcesep.ivae.heldout import excerpt
from sourcesep.ivae.model import Array
from sourcesep.recording import Recording

if TYPE_CHECKING:
    from sourcesep.estimator import IVAE

__all__ = ["NO_GAPS", "Use", "check", "columns_of", "given", "use"]

FAR_BEHIND = 1.0
"""Nats a value by which rows may be less likely than those of the fit: each value then lies as if
e times as far from what is expected."""
NO_GAPS = (
    "needs every value; fill short gaps with interpolate=ROWS, leave those columns out, or take "
    "mixing='factor', which allows for missing values"
)
OF_A_FIT: dict[str, Any] = {
    "kernel_size": None,
    "quality": "normal",
    "device": "auto",
    "random_state": 0,
}
"""Settings that only a fit has a use for, with their defaults."""


class Use(NamedTuple):
    """A model of a recording: fitted to it, or fitted before and used on it.

    Parameters
    ----------
    ivae : IVAE
        The estimator, with a prior for this recording, or fitted again to it.
    u : Auxiliary
        The auxiliary variable, with labels numbered as in the model.
    elbo : tuple of float
        The two terms of the ELBO, nats a sample.
    out_of_range : list of dict, or None
        Components that reach beyond the range of the fit; see `IVAE.out_of_range`.
    """

    ivae: IVAE
    u: Auxiliary
    elbo: tuple[float, float]
    out_of_range: list[dict[str, Any]] | None


def check(model: Any, refit: bool, settings: Mapping[str, Any]) -> None:
    """Refuse settings that contradict each other, before any file is read.

    Raises
    ------
    SettingsError
        If there is a model and a setting that only fits need, or `refit` and no model, or
        something about a prior and none.
    """
    for name in ("labels", "resample"):
        if settings["prior"] is None and settings[name] not in (None, False):
            raise SettingsError(
                f"{name}={settings[name]}: goes with a trained prior; give it as prior=FILE, or "
                "leave this out"
            )
    if model is None:
        if refit:
            raise SettingsError("refit=True: needs the model to go on from; give it as model=FILE")
        return
    for name, default in OF_A_FIT.items():
        if settings[name] != default:
            raise SettingsError(
                f"{name}={settings[name]}: a model is used as it was fitted; leave it out. With "
                "model=FILE go aux=SPEC, columns=LIST, interpolate=ROWS and refit=True"
            )


def given(model: Any, settings: Mapping[str, Any]) -> IVAE:
    """Return the fitted estimator that ``model=`` names, if no other setting contradicts it.

    Raises
    ------
    SettingsError
        If it is no model, or a setting asks for another one.
    ModelFileError
        If its file cannot be read.
    """
    from sklearn.utils.validation import check_is_fitted

    from sourcesep.estimator import IVAE
    from sourcesep.persistence import load

    ivae = load(model) if isinstance(model, str | Path) else model
    if not isinstance(ivae, IVAE):
        raise SettingsError(f"model={model!r}: must be a model file or a fitted IVAE")
    check_is_fitted(ivae)
    number, mixing = settings["n_components"], settings["mixing"]
    if number not in (None, ivae.model_.n_components):
        raise SettingsError(
            f"n_components={number}: the model has {ivae.model_.n_components}; leave it out, or "
            "fit anew without a model"
        )
    if mixing not in ("auto", ivae.model_.family):
        raise SettingsError(
            f"mixing={mixing}: the model has {ivae.model_.family} mixing; leave it out, or fit "
            "anew without a model"
        )
    return ivae


def columns_of(ivae: IVAE) -> list[str] | None:
    """Names of the columns that the model was fitted on; None if that was no table."""
    is_of_a_table = ivae.contract_.get("kind") == "table"
    return ivae.contract_.get("names") if is_of_a_table else None


def use(ivae: IVAE, recording: Recording, x: Array, u: Auxiliary, *, refit: bool) -> Use:
    """Use a fitted model on another recording, or fit its map again from where it is.

    Parameters
    ----------
    ivae : IVAE
        Fitted.
    recording : Recording
        What it is used on.
    x : ndarray of shape (n_channels, n_times)
        The recording's samples to fit on.
    u : Auxiliary
        Their auxiliary variable.
    refit : bool
        Whether the map is fitted again too; the prior of new stretches of time always is.

    Raises
    ------
    InputError
        If the recording is not what the model was fitted on: what differs is named.
    SettingsError
        If a map of this family cannot go on.
    """
    needed = {"n_channels": ivae.n_features_in_} | ivae.contract_
    where = recording.path.name if recording.path else "the recording"
    check_alike(needed, contract_of(recording), where=where, other="the model")
    if not ivae.model_.accepts_missing:
        recording.check_missing(f"the model's mixing={ivae.model_.family!r} {NO_GAPS}")
    if refit:
        ivae = ivae.refit(x.T, u=u)
        ivae.contract_ = contract_of(recording)
    if not ivae.model_.is_invertible:
        ivae, u = ivae.adapted(x.T, u=u)
    keep = excerpt(u, ivae.model_.memory)
    with np.errstate(over="ignore", invalid="ignore"):
        elbo = ivae.elbo(x.T[keep], u=u.take(keep))
    if not np.isfinite(elbo).all():
        raise InputError(
            "the model makes infinite values of this recording; bring it to the units and level "
            "of that which the model was fitted on, or fit anew"
        )
    if recording.kind == "table":
        _compare(ivae, elbo, recording)
    return Use(ivae, u, elbo, None if refit else _out_of_range(ivae, x, u))


def _compare(ivae: IVAE, elbo: tuple[float, float], recording: Recording) -> None:
    """Warn if rows of a table are much less likely than those that the model was fitted on."""
    own = ivae.history_["reconstruction"][-1] - ivae.history_["kl"][-1]
    behind = (own - (elbo[0] - elbo[1])) / recording.n_channels
    if behind > FAR_BEHIND:
        warnings.warn(
            f"the model explains these rows worse than its own, by {behind:.1f} nats a value, as "
            "if they were of another kind or in other units: fit anew, or convert them first",
            SourcesepWarning,
            stacklevel=4,
        )


def _out_of_range(ivae: IVAE, x: Array, u: Auxiliary) -> list[dict[str, Any]] | None:
    """Which components reach beyond the range of the fit; warn where that matters."""
    found = ivae.out_of_range(x.T, u=None if ivae.model_.is_invertible else u)
    if found and not ivae.model_.holds_everywhere:
        which = ", ".join(
            f"{row['component']} ({row['times']:.3g} times as far out, {row['share']:.2%} of the "
            "samples)"
            for row in found
        )
        cure = "use refit=True" if ivae.model_.goes_on else "fit this recording anew"
        warnings.warn(
            f"beyond the range of the model's fit: component {which}; there a nonlinear map only "
            f"guesses, {cure}",
            SourcesepWarning,
            stacklevel=4,
        )
    return found
