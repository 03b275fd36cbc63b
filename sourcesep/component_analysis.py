"""`ComponentAnalysis`: what an MNE user puts where `mne.preprocessing.ICA` stood."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from threadpoolctl import threadpool_limits

from sourcesep import auxiliary
from sourcesep.checks import one_of, whole
from sourcesep.components.channels import to_one_scale, with_drops
from sourcesep.components.cutting import Cut
from sourcesep.components.fitting import (
    check_number,
    choose_number,
    common_channels,
    said_rank,
    warn_about_filters,
)
from sourcesep.components.gathering import Gathered, gather
from sourcesep.components.headers import from_plain, to_plain
from sourcesep.components.plots import Plots
from sourcesep.components.profile import Profile, profile
from sourcesep.componentwise import componentwise, reliability_in_words
from sourcesep.exceptions import OutputError, SettingsError
from sourcesep.ivae.brain import BrainModel, Halves
from sourcesep.ivae.heldout import excerpt
from sourcesep.ivae.matrices.brain_rows import signal_shares
from sourcesep.ivae.model import Array, State, under
from sourcesep.ivae.reproducibility import split_half_correlations
from sourcesep.ivae.settings import Settings
from sourcesep.persistence import COMPONENTS, read_file, write_file
from sourcesep.selection import FAMILIES
from sourcesep.verdict import Verdict, judge

__all__ = ["ComponentAnalysis", "read_components"]

MIXINGS = ("linear", "post-nonlinear")
PARAMETERS = ("n_components", "aux", "bands", "mixing", "random_state")
N_SPLITS = 2
"""Random halvings of the data behind `reliability_`."""


class ComponentAnalysis(Plots):
    """Components of EEG or MEG, as `mne.preprocessing.ICA` has them, that are unique.

    An identifiable VAE with a linear decoder: sources are told apart by how their power
    changes with u, by default over time segments of .5, 2 and 8 s. The fit is a joint
    diagonalisation: it takes a fraction of ICA's time, has no random start, and every
    component comes with a reliability.

    Parameters
    ----------
    n_components : int, float or None
        How many; the share of variance that they should explain; or the rank.
    aux : str
        SPEC of u (see ``docs/auxiliary.md``): ``segments:SECONDS,...``,
        ``annotations[:REGEX]`` (of epochs: their conditions), ``column:NAME`` (of epochs'
        metadata), ``recording`` (of several), joined by ``+``. Segments longer than half
        of the recording are left out.
    bands : bool
        Also use how power changes in each frequency band.
    mixing : {"linear", "post-nonlinear"}
        ``"post-nonlinear"`` also fits a curve a channel, for amplifiers that saturate. It
        needs as many components as channels, and takes longer.
    random_state : int
        Seeds the halves that `reliability_` and `verdict_` are found by. The components
        of a linear fit do not depend on it.

    Attributes
    ----------
    n_components_ : int
        How many components.
    reliability_ : ndarray of shape (n_components,)
        Correlation of the component's counterparts in fits to random halves of the data:
        from .95 on it comes out again, below it is not to be read as a source. Worked out
        when it is first asked for, as `verdict_` is.
    verdict_ : sourcesep.verdict.Verdict
        How far to trust the components.
    exclude : list of int
        Components that `apply` removes.
    labels_ : dict of str to list of int
        Components by what they were found or said to be.
    ch_names : list of str
        Channels of the fit.
    info : mne.Info
        Of these channels.
    n_samples_ : int
        How many samples the fit saw.
    profile_ : sourcesep.components.profile.Profile or None
        Log power of every component in each condition and frequency band, where u has
        conditions: what `match_components` compares.
    model_ : sourcesep.ivae.model.Model
        Prior and map.

    See Also
    --------
    match_components : which components are one source in several recordings.

    Notes
    -----
    Components are ordered by the power they explain, have unit variance over the samples of
    the fit, and their map's largest value is positive.

    References
    ----------
    I. Khemakhem, D. P. Kingma, R. P. Monti & A. Hyvarinen, "Variational autoencoders and
    nonlinear ICA: a unifying framework", AISTATS 2020, arXiv:1907.04809.
    D.-T. Pham & J.-F. Cardoso, "Blind separation of instantaneous mixtures of
    nonstationary sources", IEEE Trans. Signal Processing 49(9), 2001.

    Examples
    --------
    >>> import mne, sourcesep
    >>> head = sourcesep.simulate.eeg(8, 60.0, n_channels=16, random_state=0)
    >>> info = mne.create_info(list(head.names), head.sfreq, "eeg")
    >>> raw = mne.io.RawArray(head.data, info, verbose="error")
    >>> raw = raw.filter(1.0, None, verbose="error")
    >>> ca = sourcesep.ComponentAnalysis(8).fit(raw)
    >>> bool(ca.reliability_.min() > 0.95)
    True
    >>> ca.exclude = [0]
    >>> cleaned = ca.apply(raw.copy())
    """

    profile_: Profile | None
    _evidence: tuple[Array, auxiliary.Auxiliary, float]
    _halves: Halves

    def __init__(
        self,
        n_components: float | None = None,
        *,
        aux: str = "segments:.5,2,8",
        bands: bool = False,
        mixing: str = "linear",
        random_state: int = 0,
    ) -> None:
        one_of(MIXINGS, mixing=mixing)
        if bands and mixing != "linear":
            raise SettingsError(
                f"bands=True, mixing={mixing!r}: bands are for linear mixing only; leave one out"
            )
        check_number(n_components)
        if random_state is not None:
            whole(0, random_state=random_state)
        auxiliary.parse(aux)
        super().__init__(mixing)
        self.n_components = n_components
        self.aux = aux
        self.bands = bands
        self.random_state = random_state

    def _parameters(self) -> dict[str, Any]:
        """The arguments of `__init__` by name."""
        return {name: getattr(self, name) for name in PARAMETERS}

    def __repr__(self) -> str:
        if not hasattr(self, "model_"):
            return f"<ComponentAnalysis | not fitted, aux={self.aux!r}>"
        return (
            f"<ComponentAnalysis | {self.n_components_} components of {len(self.ch_names)} "
            f"channels, {self.n_samples_} samples, {reliability_in_words(self.reliability_)}, "
            f"exclude={self.exclude}>"
        )

    def fit(
        self,
        inst: Any,
        picks: Any = None,
        *,
        start: float | None = None,
        stop: float | None = None,
        decim: int | None = None,
        reject: dict[str, float] | None = None,
        flat: dict[str, float] | None = None,
        tstep: float = 2.0,
        reject_by_annotation: bool = True,
    ) -> Self:
        """Find the components of one recording, or of several together.

        Parameters
        ----------
        inst : mne.io.BaseRaw, mne.BaseEpochs, or list of these
            Recordings, best high-passed at 1 Hz and not baseline-corrected. They are left
            as they are, and need not be loaded. Segments never cross from one recording
            or epoch to the next. Of a Raw of more than 100 million values (channels times
            samples) stretches of 64 s are used, from its beginning to its end.
        picks : str, int, sequence of these, or None
            Channels or channel types; by default all good data channels. Types of
            different units are brought to one scale, that of their noise.
        start, stop : int or float, optional
            Part of a Raw: samples, or seconds if floats.
        decim : int, optional
            Use every so many-th sample.
        reject, flat : dict, optional
            Largest and smallest peak-to-peak amplitude by channel type; pieces of a Raw of
            `tstep` seconds, and epochs, outside of these are left out.
        tstep : float
            See `reject`.
        reject_by_annotation : bool
            Whether samples annotated as ``BAD...`` are left out.

        Returns
        -------
        ComponentAnalysis
            Itself.

        Raises
        ------
        InputError
            If the data cannot be used: NaN, all flat, too short, no channel.
        SettingsError
            If a setting cannot be, alone or for these data.
        """
        cut = Cut(start, stop, decim, reject, flat, tstep, reject_by_annotation)
        insts = list(inst) if isinstance(inst, list | tuple) else [inst]
        if not insts:
            raise SettingsError("inst=[]: give at least one recording")
        insts = [with_drops(one) for one in insts]
        names = common_channels(insts, picks)
        warn_about_filters(insts, is_linear=self.mixing == "linear")
        fitted = type(self).__new__(type(self))  # a copy would work out reliability first
        fitted.__dict__ = self._parameters() | {"exclude": [], "labels_": {}}
        with threadpool_limits(limits=1, user_api="blas"):
            data = gather(insts, names, self.aux, cut, self.n_components)
            fitted._fit_unfitted(data, said_rank(insts, names))
        self.__dict__ = fitted.__dict__  # all at once: a fit that ends early changes nothing
        return self

    def _fit_unfitted(self, data: Gathered, most: int) -> None:
        """Fit to gathered data; `most` is the rank that the headers leave."""
        x, u, conditions, info, sfreq = data
        self.info, self.ch_names, self.n_samples_ = info, list(info["ch_names"]), x.shape[1]
        self._scale, moments = to_one_scale(x, info.get_channel_types(), most)
        number = choose_number(*moments, x.shape[1], self.n_components, most)
        auxiliary.check(u)
        rng = np.random.default_rng(self.random_state)
        starts = ("bands",) if self.bands else ("segments",)
        settings = Settings(number, starts=starts, sfreq=sfreq)
        brain, halves = BrainModel.configured(settings), None
        if self.mixing == "linear":
            self.model_ = brain.fit(x, u, rng, moments)
            self._correlation, self._signal = brain.correlation, brain.signal
            halves = brain.halves(rng, N_SPLITS)
        else:
            self.model_ = FAMILIES[self.mixing].configured(settings).fit(x, u, rng)
            # a curve's components share none that is the same whatever their amplitudes
            self._correlation, self._signal = np.eye(number), np.ones(number)
        if halves is not None:
            self._halves = halves
        else:
            y, z = self.model_.mixture(x), self.model_.posterior(x).mean
            told = split_half_correlations(y, z, u, brain.rows, rng, n_splits=N_SPLITS)
            self.reliability_ = told
        self.profile_ = None
        if conditions is not None:
            self.profile_ = profile(self.model_.posterior(x).mean, conditions, sfreq)
        keep = excerpt(u)
        self._evidence = (x[:, keep], u.take(keep), sfreq)

    @cached_property
    def reliability_(self) -> Array:  # type: ignore[override]
        """Correlation of each component's counterparts in fits to random halves of the data."""
        self._fitted()
        with threadpool_limits(limits=1, user_api="blas"):
            told = self._halves.reliability()
        self.__dict__.pop("_halves", None)  # it may be large
        return told

    def __getstate__(self) -> dict[str, Any]:
        """Take along the reliability, not the covariances that it is worked out from."""
        told = {"reliability_": self.reliability_} if "_halves" in vars(self) else {}
        return vars(self) | told

    @cached_property
    def verdict_(self) -> Verdict:
        """How far to trust the components, judged on up to 64 000 samples of the fit."""
        model = self._fitted()
        x, u, sfreq = self._evidence
        with threadpool_limits(limits=1, user_api="blas"):
            verdict = judge(model, x, u, sfreq, np.random.default_rng(self.random_state))
        return componentwise(verdict, self.reliability_)

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write model, channels, `exclude`, `labels_`, reliability and verdict to one file.

        It holds no samples, and of the header only channels and filters.

        Parameters
        ----------
        path : str or pathlib.Path
            Ends in ``.safetensors``.
        overwrite : bool
            Whether an existing file is replaced.

        Raises
        ------
        OutputError
            If the file exists, or cannot be written.
        """
        state = self._fitted().state()
        path = Path(path)
        if path.exists() and not overwrite:
            raise OutputError(f"path={path}: exists already; replace it with overwrite=True")
        facts = {
            "family": self.model_.family,
            "facts": state.facts,
            "parameters": self._parameters(),
            "contract": {"kind": "eeg", "names": self.ch_names, "n_channels": len(self.ch_names)},
            "info": to_plain(self.info),
            "exclude": self._components(self.exclude),
            "labels": {k: self._components(which, k) for k, which in self.labels_.items()},
            "verdict": self.verdict_.as_dict(),
            "n_samples": self.n_samples_,
            "profile": None
            if self.profile_ is None
            else {"conditions": self.profile_.conditions, "bands": self.profile_.bands},
        }
        tensors = under("model", state.tensors) | {
            "scale": self._scale,
            "reliability": self.reliability_,
            "correlation": self._correlation,
            "signal": self._signal,
        }
        if self.profile_ is not None:
            tensors["log_power"] = self.profile_.log_power
        write_file(path, COMPONENTS, facts, tensors)


def read_components(path: str | Path) -> ComponentAnalysis:
    """Read what `ComponentAnalysis.save` wrote.

    Parameters
    ----------
    path : str or pathlib.Path
        The file.

    Returns
    -------
    ComponentAnalysis
        Fitted.

    Raises
    ------
    ModelFileError
        If it is no such file, damaged, or of a newer format.
    """
    with read_file(Path(path), COMPONENTS) as (facts, tensors):
        ca = ComponentAnalysis(**facts["parameters"])
        state = State(State(tensors).part("model"), facts["facts"])
        ca.model_ = FAMILIES[facts["family"]].from_state(state)
        ca.info = from_plain(facts["info"])
        ca.ch_names = list(ca.info["ch_names"])
        ca._scale, ca.reliability_ = tensors["scale"], tensors["reliability"]
        # files of before they were kept hold components that hardly correlate, or say no noise
        ca._correlation = together = tensors.get("correlation", np.eye(ca.n_components_))
        ca._signal = tensors.get("signal", signal_shares(together, together, 0.0))
        ca.n_samples_ = facts["n_samples"]
        ca.exclude = ca._components(facts["exclude"])
        ca.labels_ = {name: ca._components(which) for name, which in facts["labels"].items()}
        ca.verdict_ = Verdict.from_dict(facts["verdict"])
        kept = facts["profile"]
        ca.profile_ = kept and Profile(
            tuple(kept["conditions"]), tuple(kept["bands"]), tensors["log_power"]
        )
        n, told = ca.n_components_, ca.profile_
        if ca.reliability_.shape != (n,):
            raise ValueError("reliability does not fit the model")
        if told and told.log_power.shape != (n, len(told.conditions), len(told.bands) - 1):
            raise ValueError("profile does not fit the model")
        ca._check_parts()
    return ca
