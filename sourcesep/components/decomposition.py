"""What is done with components once they are found: time courses, maps, cleaning."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np

from sourcesep.checks import is_whole
from sourcesep.components.background import artefact_part
from sourcesep.components.channels import kind_of, samples, with_drops
from sourcesep.components.containers import put_back, wrap
from sourcesep.components.mne_ica import as_mne_ica
from sourcesep.exceptions import InputError, SettingsError, SourcesepWarning
from sourcesep.ivae.model import Array, Model
from sourcesep.recording import LOWEST_HIGH_PASS

__all__ = ["Decomposition"]

MUCH = 0.25
"""Share of a component's power that stays as its background, from which on that is said."""
PIECE = 200_000
"""Samples that are unmixed at a time, for the memory's sake."""


class Decomposition:
    """Components of some channels: a model, and what brings channels to its scale.

    Parameters
    ----------
    mixing : str
        Family of the model.
    """

    info: Any
    ch_names: list[str]
    model_: Model
    n_samples_: int
    _scale: Array
    _correlation: Array
    _signal: Array

    def __init__(self, mixing: str) -> None:
        self.mixing = mixing
        self.exclude: list[int] = []
        self.labels_: dict[str, list[int]] = {}

    @property
    def n_components_(self) -> int:
        """Number of components."""
        return self._fitted().n_components

    def get_components(self) -> Array:
        """Return the components' maps, (n_channels, n_components).

        In the channels' units (volts, teslas) for one standard deviation of the source: what
        goes along with it in each channel, which is its covariance with the channel.

        References
        ----------
        S. Haufe et al., "On the interpretation of weight vectors of linear models in
        multivariate neuroimaging", NeuroImage 87, 2014.
        """
        model = self._fitted()
        if model.matrices is None:
            step = np.eye(model.n_components)
            maps = model.decode(0.01 * step) - model.decode(-0.01 * step)
            return np.asarray(maps / 0.02 * self._scale[:, None])
        return np.asarray(model.matrices[1] @ self._correlation * self._scale[:, None])

    def get_sources(self, inst: Any) -> Any:
        """Return the components' time courses, as an object of the type given.

        Parameters
        ----------
        inst : mne.io.BaseRaw, mne.BaseEpochs or mne.Evoked
            With all channels of the fit.

        Returns
        -------
        mne.io.RawArray, mne.EpochsArray or mne.EvokedArray
            A channel ``IVAE000`` ... a component, of unit variance over the samples of the
            fit; those in `exclude` are marked bad. Times, annotations, measurement date,
            events and metadata are kept.

        Raises
        ------
        InputError
            If `inst` lacks a channel, or cannot be used.
        """
        model = self._fitted()
        inst = with_drops(inst)
        sources = _by_pieces(lambda x: model.posterior(x).mean, self._scaled(inst))
        return wrap(inst, sources, self._components(self.exclude))

    def apply(
        self,
        inst: Any,
        *,
        include: Sequence[int] | None = None,
        exclude: Sequence[int] | None = None,
        undistort: bool = False,
        keep_background: bool = False,
    ) -> Any:
        """Remove components from a recording, in place.

        What is taken out is the best estimate of what the components' sources add to the
        channels: of each component, map times time course, the share that is its source's own
        and not the electrodes' noise. Nearly all of one that is found well; little of one that
        is mostly noise, of which a regression would take out more noise than artefact.

        Parameters
        ----------
        inst : mne.io.BaseRaw, mne.BaseEpochs or mne.Evoked
            With all channels of the fit, filtered or not; loaded if it was not.
        include : sequence of int, optional
            Components to keep: all others are removed, and what is excluded. An empty list
            says nothing, as in MNE.
        exclude : sequence of int, optional
            Components to remove beside those in the attribute `exclude`. Where there are none
            nothing changes, to the bit.
        undistort : bool
            Whether to undo a curve too, so that the result is what an amplifier that does
            not saturate would have recorded, less each channel's mean. By default it is
            what the same amplifier would have recorded without these components. It
            makes no difference where mixing is linear.
        keep_background : bool
            Whether to take of each component only what exceeds its background, the power that
            it has at quiet times (a quarter of the time; power is followed over .5 s). For what
            comes and goes, as blinks do: brain and noise that the component also holds then stay.
            What is always there, as mains hum and heartbeats, would stay as well.

        Returns
        -------
        mne.io.BaseRaw, mne.BaseEpochs or mne.Evoked
            The same object.

        Raises
        ------
        InputError
            If `inst` lacks a channel, or cannot be used.
        SettingsError
            If there is no such component, or the background of an average is asked for.

        Warns
        -----
        SourcesepWarning
            If more than a quarter of a component's power is background.
        """
        import mne

        model = self._fitted()
        chosen = self._removed(include, exclude)
        if kind_of(inst) != "evoked":
            with mne.use_log_level("error"):
                inst.load_data()
        x = self._scaled(inst)
        bends = undistort and model.matrices is None
        if keep_background and bends:
            raise SettingsError(
                "keep_background=True, undistort=True: where mixing is a curve only one of them "
                "is possible; leave one out"
            )
        if not x.size or not (chosen or bends):
            return inst
        shared = self._correlation[:, chosen] * self._signal[chosen]

        def less(piece: Array, z: Array, part: Array) -> Array:
            return piece + model.decode(z - shared @ part) - model.decode(z)

        def without(piece: Array) -> Array:
            z = model.posterior(piece).mean
            return less(piece, z, z[chosen])

        def without_part(piece: Array, part: Array) -> Array:
            return less(piece, model.posterior(piece).mean, part)

        def undistorted(piece: Array) -> Array:
            clean = model.mixture(piece).copy()
            for k in chosen:
                clean -= model.image(piece, k)
            return clean

        if keep_background:
            out = _by_pieces(without_part, x, self._artefact_part(inst, x, chosen))
        else:
            out = _by_pieces(undistorted if bends else without, x)
        put_back(inst, self.ch_names, out * self._scale[:, None])
        return inst

    def _artefact_part(self, inst: Any, x: Array, chosen: Sequence[int]) -> Array:
        """What of the chosen components is more than their background, (n_chosen, n_times)."""
        kind = kind_of(inst)
        if kind == "evoked":
            raise SettingsError(
                "keep_background=True: an average has no quiet times to go by; clean the epochs "
                "that it is of"
            )
        model = self._fitted()
        z = _by_pieces(lambda piece: model.posterior(piece).mean[chosen], x)
        stretch = x.shape[1] if kind == "raw" else len(inst.times)
        drifts = inst.info["highpass"] < LOWEST_HIGH_PASS
        part, fast = artefact_part(z, inst.info["sfreq"], stretch, drifts=drifts)
        left = np.square(fast - part).sum(axis=1)
        much = left > MUCH * np.square(fast).sum(axis=1)
        if much.any():
            always = [k for k, its in zip(chosen, much, strict=True) if its]
            warnings.warn(
                f"components {always} are much the same all the time, so much of them is taken "
                "for background and stays: remove them without keep_background",
                SourcesepWarning,
                stacklevel=3,
            )
        return part

    def to_mne_ica(self) -> Any:
        """Return the same components as a fitted `mne.preprocessing.ICA`.

        Its sources are these to rounding, so every plot, report and file format that MNE
        has for ICA, and mne-icalabel, take it. MNE puts a cleaned recording together from the
        components that are kept, so that its maps have to be the columns of the inverse, and
        its `ICA.apply` takes components out whole, with the noise that is in them. `apply`
        and `get_components` here do better under noise.

        Returns
        -------
        mne.preprocessing.ICA
            With `exclude` and `labels_` as they are here.

        Raises
        ------
        SettingsError
            If the mixing is not linear.
        """
        model = self._fitted()
        if model.matrices is None:
            raise SettingsError(
                f"mixing={self.mixing!r}: MNE's ICA is linear and cannot hold a curve; fit with "
                "mixing='linear'"
            )
        unmixing, mixing = model.matrices
        mean = model.decode(np.zeros((model.n_components, 1)))[:, 0]
        ica = as_mne_ica(unmixing, mixing, mean, self._scale, self.info, self.n_samples_)
        ica.exclude = self._components(self.exclude)
        ica.labels_ = {name: list(which) for name, which in self.labels_.items()}
        return ica

    def copy(self) -> Self:
        """Return a copy that shares nothing."""
        return copy.deepcopy(self)

    def _fitted(self) -> Model:
        if not hasattr(self, "model_"):
            raise InputError("ComponentAnalysis is not fitted: call fit first")
        return self.model_

    def _check_parts(self) -> None:
        """Refuse parts of a file that do not belong together (ValueError)."""
        n_channels, n_components = len(self.ch_names), self.n_components_
        right = {
            "channels": self.model_.n_channels == n_channels
            and self._scale.shape == (n_channels,),
            "scale": bool((self._scale > 0).all()),
            "correlation": self._correlation.shape == (n_components, n_components)
            and bool(np.isfinite(self._correlation).all())
            and np.allclose(np.diag(self._correlation), 1)
            and bool(np.linalg.eigvalsh(self._correlation)[0] > 0),
            "signal": self._signal.shape == (n_components,)
            and bool(((self._signal >= 0) & (self._signal <= 1)).all()),
        }
        for name, is_right in right.items():
            if not is_right:
                raise ValueError(f"{name} does not fit the model")
        self.model_.decode(self.model_.posterior(np.zeros((n_channels, 2))).mean)

    def _removed(self, include: Sequence[int] | None, exclude: Sequence[int] | None) -> list[int]:
        """What `apply` removes: MNE's rules, but that what is excluded is never kept."""
        removed = set(self._components(self.exclude))
        if exclude is not None:
            removed |= set(self._components(exclude))
        if include is not None and (kept := self._components(include, "include")):
            removed |= set(range(self.n_components_)) - set(kept)
        return sorted(removed)

    def _components(self, which: Sequence[int], name: str = "exclude") -> list[int]:
        """Check numbers of components."""
        is_list = isinstance(which, list | tuple | np.ndarray | range | set)
        if not (is_list and all(map(is_whole, which))):
            raise SettingsError(
                f"{name}={which!r}: must be a list of components' numbers, as in [0, 2]; those "
                "found to be eyes are labels_['eog']"
            )
        absent = [k for k in which if not 0 <= k < self.n_components_]
        if absent:
            raise SettingsError(
                f"{name}={absent}: no such component; they are 0 to {self.n_components_ - 1}"
            )
        return sorted({int(k) for k in which})

    def _scaled(self, inst: Any) -> Array:
        """Samples as the model knows them, (n_channels, n_times)."""
        data = samples(inst, self.ch_names)
        self._check_filters(inst.info)
        scaled: Array = data / self._scale[:, None]
        return scaled

    def _check_filters(self, info: Any) -> None:
        """Refuse or warn about data that are not in the state of those of the fit."""
        idle = _applied(self.info) - _applied(info)
        if idle:
            raise InputError(
                f"projectors {', '.join(sorted(idle))} were applied to the data of the fit and "
                "are not to these: call apply_proj first"
            )
        grades = [_grades(one, self.ch_names) for one in (info, self.info)]
        if grades[0] != grades[1]:
            raise InputError(
                f"compensation grade {grades[0]}, the fit had {grades[1]}: call "
                "apply_gradient_compensation first"
            )
        if bool(self.info["custom_ref_applied"]) != bool(info["custom_ref_applied"]):
            warnings.warn(
                "by the headers these data and those of the fit have different references: "
                "components are right for the reference they were fitted under",
                SourcesepWarning,
                stacklevel=4,
            )
        if self._fitted().matrices is None and info["highpass"] != self.info["highpass"]:
            raise InputError(
                f"highpass={info['highpass']:g} Hz, the fit had {self.info['highpass']:g} Hz: a "
                "curve undoes what the amplifier did to unfiltered data only; give data filtered "
                "as those of the fit"
            )


def _by_pieces(function: Callable[..., Array], x: Array, *others: Array) -> Array:
    """Apply a map without memory to some samples at a time, of x and all others."""
    pieces = [
        function(*(values[:, k : k + PIECE] for values in (x, *others)))
        for k in range(0, max(1, x.shape[1]), PIECE)
    ]
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=1)


def _applied(info: Any) -> set[str]:
    """The projectors that are in the data."""
    return {proj["desc"] for proj in info["projs"] if proj["active"]}


def _grades(info: Any, names: Sequence[str]) -> list[int]:
    """Grades of gradient compensation (CTF) of these channels: what MNE keeps above 16 bits."""
    return sorted({int(c["coil_type"]) >> 16 for c in info["chs"] if c["ch_name"] in names})
