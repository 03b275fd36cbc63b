"""Write a small model file of every family, and the latents that it gives today.

    python tests/model_files/make.py

Run it when the schema version is raised, into files of the new version's name, or when there is a
new family. What is here stays, for a later sourcesep must read it and give the same latents
(`tests/test_model_files.py`).
The fits are too short to be good; that is not what they are for.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import mne
import numpy as np

from sourcesep import IVAE, ComponentAnalysis, estimator, save
from sourcesep.ivae.amortised import AmortisedModel
from sourcesep.ivae.convolutive import STARTS, ConvolutiveModel
from sourcesep.ivae.coupling import CouplingModel
from sourcesep.ivae.factor import FactorModel
from sourcesep.ivae.linear import LinearModel
from sourcesep.ivae.post_nonlinear import PostNonlinearModel
from sourcesep.ivae.underdetermined import UnderdeterminedModel
from sourcesep.persistence import SCHEMA_VERSION
from sourcesep.selection import Selection
from sourcesep.verdict import judge

HERE = Path(__file__).parent
SFREQ, N_TIMES, N_LABELS = 100.0, 400, 8
STEP = 10
"""Latents are kept of every tenth sample."""

FAMILIES = {
    "linear": LinearModel(starts=("segments",), shapes=(2.0,)),
    "linear-shapes": LinearModel(starts=("non-gaussian",)),
    "post-nonlinear": PostNonlinearModel(),
    "convolutive": ConvolutiveModel(sfreq=SFREQ, starts=STARTS["fast"]),
    "underdetermined": UnderdeterminedModel(3, sfreq=SFREQ),
    "nonlinear": CouplingModel(n_restarts=2, n_steps=40, n_blocks=4, n_hidden=8),
    "factor": FactorModel(1),
    "amortised-matrix": AmortisedModel(kernel_size=1, candidates=("linear",)),
    "amortised-networks": AmortisedModel(
        kernel_size=1, candidates=("networks",), n_restarts=1, n_steps=40
    ),
}


def mixture() -> np.ndarray:
    """Two bent mixtures of sources whose power changes, (channels, times), of 12 bits each."""
    rng = np.random.default_rng(0)
    scale = rng.uniform(0.2, 2, (2, N_LABELS)).repeat(N_TIMES // N_LABELS, axis=1)
    x = np.array([[1, 0.6], [-0.4, 1]]) @ (rng.laplace(size=(2, N_TIMES)) * scale)
    return np.rint(300 * np.tanh(x / 3)).astype(np.int16)


def raw(x: np.ndarray) -> mne.io.RawArray:
    """The mixture, and a sum and a difference, as EEG."""
    channels = 1e-8 * np.vstack([x, x[0] + x[1] / 2, x[0] / 3 - x[1]])
    info = mne.create_info(["E0", "E1", "E2", "E3"], SFREQ, "eeg", verbose="error")
    with info._unlock():
        info["highpass"] = 1.0
    return mne.io.RawArray(channels, info, verbose="error")


def labels() -> np.ndarray:
    """u of every sample, by name."""
    return np.repeat([f"label {k}" for k in range(N_LABELS)], N_TIMES // N_LABELS)


def main() -> None:
    """Fit and write what is missing, without `select`, which would refuse such short fits."""
    x, latents, record = mixture(), {}, HERE / f"latents-{SCHEMA_VERSION}.npz"
    if record.exists():
        with np.load(record, allow_pickle=False) as kept:
            latents = {name: kept[name] for name in kept.files if name != "x"}
    for name in FAMILIES.keys() - latents.keys():
        unfitted = FAMILIES[name]

        def only(x, u, rng, *, mixing, settings, unfitted=unfitted):
            model = unfitted.fit(x, u, rng)
            verdict = judge(model, x, u, settings.sfreq, rng)
            return Selection(model, verdict, name := model.family, {name: {}}, name)

        estimator.select = only
        ivae = IVAE(mixing=unfitted.family, sfreq=SFREQ, random_state=0)
        ivae.fit(x.T / 300, u=labels())
        save(ivae, HERE / f"{name}-{SCHEMA_VERSION}.safetensors")
        latents[name] = ivae.transform(x.T / 300, u=labels())[::STEP]
    if "components" not in latents:
        components = ComponentAnalysis(2, random_state=0).fit(raw(x))
        components.save(HERE / f"components-{SCHEMA_VERSION}.safetensors")
        latents["components"] = components.get_sources(raw(x)).get_data().T[::STEP]
    np.savez_compressed(record, x=x, **latents)


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main()
