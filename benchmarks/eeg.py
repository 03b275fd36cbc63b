"""EEG: `sourcesep.ComponentAnalysis` against MNE's Picard, and across recordings.

    python benchmarks/eeg.py TABLE [--seeds N]

TABLE is simulated, wide, few, background, saturated, matching, misfit, conditions, reliability
or hour; real recordings are in eeg_real.py. Seeds start at 300; 0 to 22 and 400 to 501 chose
constants. CPU seconds are of one process, and both methods run in it, one after the other.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import mne
import numpy as np

from sourcesep import ComponentAnalysis, match_components, metrics, simulate
from sourcesep.misfit import misfit as dependence
from sourcesep.simulate import EEGSimulation

FIRST_SEED = 300
ARTEFACTS = ("blink", "muscle", "line", "heart")


class Picard:
    """MNE's Picard with its defaults, behind the same verbs."""

    def __init__(self, n_components: int | None = None) -> None:
        self.n_components = n_components

    def fit(self, raw: Any) -> Picard:
        """Fit as users do."""
        ica = mne.preprocessing.ICA(self.n_components, method="picard", rng=0)
        self.ica = ica.fit(raw, verbose="error")
        return self

    def get_sources(self, raw: Any) -> Any:
        """Return time courses."""
        return self.ica.get_sources(raw)

    def get_components(self) -> Any:
        """Return maps."""
        return self.ica.get_components()

    def apply(self, raw: Any, exclude: Sequence[int], *, undistort: bool = False) -> Any:
        """Remove components; there is no curve to undo."""
        return self.ica.apply(raw, exclude=list(exclude), verbose="error")


METHODS: dict[str, Callable[[], Any]] = {
    "default": ComponentAnalysis,
    "bands": lambda: ComponentAnalysis(bands=True),
    "post-nonlinear": lambda: ComponentAnalysis(mixing="post-nonlinear"),
    "picard": Picard,
}


def raw_of(data: np.ndarray, names: Sequence[str], sfreq: float, *, filtered: bool = True) -> Any:
    """Return a Raw of EEG, high-passed at 1 Hz or as it is."""
    # a RawArray is no copy, and filters work in place
    raw = mne.io.RawArray(data.copy(), mne.create_info(list(names), sfreq, "eeg"), verbose="error")
    return raw.filter(1.0, None, verbose="error") if filtered else raw


def timed(method: str, raw: Any) -> tuple[Any, float]:
    """Return what was fitted and the seconds of CPU that it took."""
    begin = time.process_time()
    fitted = METHODS[method]().fit(raw)
    return fitted, time.process_time() - begin


def reliability_seconds(fitted: Any) -> float:
    """Return the seconds of CPU that the reliability of every component takes; ICA has none."""
    if not isinstance(fitted, ComponentAnalysis):
        return 0.0
    begin = time.process_time()
    _ = fitted.reliability_
    return time.process_time() - begin


def scores(fitted: Any, raw: Any, head: EEGSimulation, *, filtered: bool) -> tuple[float, ...]:
    """MCC of all sources, of the artefacts, and the error of cleaning in dB.

    The artefacts' best components are removed; the error is what then differs from the
    brain and the electrodes' noise, in units of these.
    """
    sources, artefacts = head.sources, np.isin(head.source_names, ARTEFACTS)
    clean = head.data - head.mixing[:, artefacts] @ sources[artefacts]
    if filtered:
        sources, clean = (
            mne.filter.filter_data(x, head.sfreq, 1.0, None, verbose="error")
            for x in (sources, clean)
        )
    match = metrics.match_sources(sources.T, fitted.get_sources(raw).get_data().T)
    exclude = match.components[artefacts[match.sources]]
    out = fitted.apply(raw.copy(), exclude=exclude.tolist(), undistort=True).get_data()
    out, clean = (x - x.mean(axis=1, keepdims=True) for x in (out, clean))
    error = 10 * np.log10(np.square(out - clean).sum() / np.square(clean).sum())
    of_artefacts = match.correlations[artefacts[match.sources]].mean()
    return match.correlations.mean(), of_artefacts, error


def compare(
    title: str,
    methods: Sequence[str],
    heads: Sequence[EEGSimulation],
    *,
    curve: Callable[[np.ndarray], np.ndarray] | None = None,
) -> None:
    """Print a row for each method: means over the heads, and the MCC of each."""
    columns = f"{'MCC':>8}{'artefacts':>11}{'error dB':>10}{'CPU s':>8}{'reliability':>13}"
    print(f"{title}\n{'':16}{columns}  MCC by seed")
    warm = raw_of(heads[0].data[:8, :5000], heads[0].names[:8], heads[0].sfreq)
    for method in methods:
        timed(method, warm)  # imports are not the method's
        rows, seconds, more = [], [], []
        for head in heads:
            data = head.data if curve is None else curve(head.data)
            raw = raw_of(data, head.names, head.sfreq, filtered=curve is None)
            fitted, taken = timed(method, raw)
            rows.append(scores(fitted, raw, head, filtered=curve is None))
            seconds.append(taken)
            more.append(reliability_seconds(fitted))
        mcc, artefacts, error = np.mean(rows, axis=0)
        by_seed = " ".join(f"{row[0]:.4f}" for row in rows)
        print(
            f"{method:16}{mcc:8.4f}{artefacts:11.3f}{error:10.2f}{np.mean(seconds):8.3f}"
            f"{np.mean(more):13.3f}  {by_seed}",
            flush=True,
        )


def simulated(n_seeds: int) -> None:
    """32 channels, 180 s: as many sources as fit, and more than fit."""
    for n_sources in (22, 42):
        heads = [
            simulate.eeg(n_sources, 180.0, n_channels=32, random_state=FIRST_SEED + k)
            for k in range(n_seeds)
        ]
        compare(f"{n_sources} sources, 32 channels", ("default", "bands", "picard"), heads)


def wide(n_seeds: int) -> None:
    """64 channels, 180 s."""
    heads = [
        simulate.eeg(42, 180.0, n_channels=64, random_state=FIRST_SEED + k) for k in range(n_seeds)
    ]
    compare("42 sources, 64 channels", ("default", "bands", "picard"), heads)


def few(n_seeds: int) -> None:
    """As many sources as a few channels of average reference hold, with and without noise."""
    for noise in (0.0, 1e-7, 1e-6):
        heads = [
            simulate.eeg(7, 180.0, n_channels=8, n_artefacts=2, noise=noise, random_state=seed)
            for seed in range(FIRST_SEED, FIRST_SEED + n_seeds)
        ]
        title = f"7 sources, 8 channels, noise {1e6 * noise:g} uV"
        compare(title, ("default", "bands", "picard"), heads)


def background(n_seeds: int) -> None:
    """Each artefact removed alone, whole and but for its background: error of cleaning in dB."""
    print(f"{'sources':>8} {'artefact':10}{'whole':>8}{'but for background':>20}  by seed")
    for n_sources in (22, 42):
        rows: dict[str, list[tuple[float, float]]] = {kind: [] for kind in ARTEFACTS}
        for seed in range(FIRST_SEED, FIRST_SEED + n_seeds):
            head = simulate.eeg(n_sources, 180.0, n_channels=32, random_state=seed)
            raw = raw_of(head.data, head.names, head.sfreq)
            sources = mne.filter.filter_data(head.sources, 250.0, 1.0, None, verbose="error")
            ca = ComponentAnalysis().fit(raw)
            match = metrics.match_sources(sources.T, ca.get_sources(raw).get_data().T)
            for source, component in zip(match.sources, match.components, strict=True):
                kind = head.source_names[source]
                if kind not in rows:
                    continue
                artefact = np.outer(head.mixing[:, source], sources[source])
                clean = raw.get_data() - artefact
                clean -= clean.mean(axis=1, keepdims=True)
                errors = []
                for keep in (False, True):
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")  # some are there all the time
                        out = ca.apply(raw.copy(), exclude=[int(component)], keep_background=keep)
                    left = out.get_data() - out.get_data().mean(axis=1, keepdims=True) - clean
                    errors.append(10 * np.log10(np.square(left).sum() / np.square(clean).sum()))
                rows[kind].append((errors[0], errors[1]))
        for kind, found in rows.items():
            if not found:  # of more sources than components some are matched by none
                continue
            whole, kept = np.mean(found, axis=0)
            by_seed = " ".join(f"{b - a:+.1f}" for a, b in found)
            print(f"{n_sources:8} {kind:10}{whole:8.1f}{kept:20.1f}  {by_seed}", flush=True)


def saturated(n_seeds: int) -> None:
    """Amplifiers with rails at 60 uV; unfiltered, as a curve wants it."""
    heads = [
        simulate.eeg(22, 180.0, n_channels=32, random_state=FIRST_SEED + k) for k in range(n_seeds)
    ]
    methods = ("default", "bands", "post-nonlinear", "picard")
    compare("saturated", methods, heads, curve=lambda x: 60e-6 * np.tanh(x / 60e-6))


def with_conditions(seed: int, which: int, gain: float, seconds: float) -> tuple[Any, np.ndarray]:
    """One of several heads whose 12 brain sources follow 8 conditions alike, and its sources."""
    n_brain, n_conditions, block = 12, 8, 3
    head = simulate.eeg(
        n_brain + 4, seconds, random_state=np.random.default_rng([seed, which]), n_channels=32
    )
    effect = gain * np.random.default_rng(seed).standard_normal((n_brain, n_conditions))
    rng = np.random.default_rng([seed, which, 1])
    n_rounds = int(seconds / block / n_conditions)
    order = rng.permuted(np.tile(np.arange(n_conditions), (n_rounds, 1)), axis=1).ravel()
    sources = head.sources[:, : len(order) * block * 250].copy()
    sources[:n_brain] *= np.exp(0.5 * np.repeat(effect[:, order], block * 250, axis=1))
    noise = 1e-6 * rng.standard_normal((32, sources.shape[1]))
    raw = raw_of(head.mixing @ sources + noise, head.names, head.sfreq)
    names = [f"condition {c}" for c in order]
    raw.set_annotations(mne.Annotations(np.arange(len(order)) * block, block, names))
    return raw, mne.filter.filter_data(sources, 250.0, 1.0, None, verbose="error")


def subject(seed: int, which: int, gain: float, seconds: float) -> tuple[Any, dict[int, int]]:
    """The fit of such a head, and which of its components are which brain source."""
    raw, sources = with_conditions(seed, which, gain, seconds)
    ca = ComponentAnalysis(aux="segments:.5,2,8+annotations").fit(raw)
    match = metrics.match_sources(sources.T, ca.get_sources(raw).get_data().T)
    pairs = zip(match.components.tolist(), match.sources.tolist(), strict=True)
    return ca, {c: s for c, s in pairs if s < 12}


def matching(n_seeds: int) -> None:
    """Three subjects, every order of conditions another; gains in nats of variance."""
    print(f"{'gain':>5}{'seconds':>8}{'by':>7}  right, wrong groups of pairs of 36 a seed")
    for gain, seconds in ((0.5, 120), (0.8, 120), (0.5, 288), (0.8, 288), (0.0, 120)):
        found = {by: np.zeros(2, int) for by in ("prior", "maps")}
        for seed in range(FIRST_SEED, FIRST_SEED + n_seeds):
            subjects = [subject(seed, which, gain, seconds) for which in range(3)]
            for by, counts in found.items():
                for a, b in ((0, 1), (0, 2), (1, 2)):
                    both = [subjects[a], subjects[b]]
                    for group in match_components([ca for ca, _ in both], by).groups:
                        true = [both[k][1].get(c) for k, c in group.components.items()]
                        counts[0 if true[0] == true[1] and true[0] is not None else 1] += 1
        for by, counts in found.items():
            print(f"{gain:5}{seconds:8}{by:>7}  {counts[0]}, {counts[1]}", flush=True)


def misfit(n_seeds: int) -> None:
    """Misfit of the true sources, of the best matrix there is, and of fits."""
    print(f"{'':22}{'MCC':>7}{'delay':>7}{'power':>7}")
    for seed in range(FIRST_SEED, FIRST_SEED + n_seeds):
        for noise, rail in ((1e-6, None), (1e-7, None), (1e-6, 60e-6), (1e-6, 30e-6)):
            head = simulate.eeg(22, 180.0, n_channels=32, noise=noise, random_state=seed)
            data = head.data if rail is None else rail * np.tanh(head.data / rail)
            raw = raw_of(data, head.names, head.sfreq)
            sources = mne.filter.filter_data(head.sources, 250.0, 1.0, None, verbose="error")
            x, by_power = raw.get_data(), np.argsort(-np.square(head.mixing).sum(axis=0))
            gain = (head.mixing * sources.var(axis=1)).T @ np.linalg.inv(np.cov(x))
            found = ComponentAnalysis(22).fit(raw).get_sources(raw).get_data()
            rows = {"truth": sources[by_power], "best matrix": (gain @ x)[by_power], "fit": found}
            print(f"noise {1e6 * noise:g} uV, rail {rail}")
            for name, z in rows.items():
                wrong = dependence(z, head.sfreq)
                mcc = metrics.mcc(sources.T, z.T)
                print(f"{name:22}{mcc:7.3f}{wrong.delay:7.1f}{wrong.power:7.1f}", flush=True)


def conditions(n_seeds: int) -> None:
    """u from time, from what was done when, and from both."""
    specs = ("segments:.5,2,8", "segments:.5,2,8+annotations", "annotations")
    rows: dict[str, list[tuple[float, float, float]]] = {spec: [] for spec in specs}
    for seed in range(FIRST_SEED, FIRST_SEED + n_seeds):
        raw, sources = with_conditions(seed, 0, 0.8, 192)
        for spec in specs:
            ca = ComponentAnalysis(aux=spec).fit(raw)
            match = metrics.match_sources(sources.T, ca.get_sources(raw).get_data().T)
            others = np.delete(ca.reliability_, match.components)
            own = ca.reliability_[match.components]
            rows[spec].append((match.correlations.mean(), np.median(own), np.median(others)))
    print(f"{'aux':30}{'MCC':>7}  median reliability of sources, of the rest")
    for spec, row in rows.items():
        mcc, own, rest = np.mean(row, axis=0)
        print(f"{spec:30}{mcc:7.3f}  {own:.3f}, {rest:.3f}", flush=True)


def reliability(n_seeds: int) -> None:
    """How many components of each reliability are one source, 120 s in 32 channels."""
    edges = (-0.01, 0.8, 0.9, 0.95, 1.01)
    for n_sources in (22, 42):
        found: list[tuple[float, float]] = []
        for seed in range(FIRST_SEED, FIRST_SEED + n_seeds):
            head = simulate.eeg(n_sources, 120.0, n_channels=32, random_state=seed)
            raw = raw_of(head.data, head.names, head.sfreq)
            ca = ComponentAnalysis().fit(raw)
            z = ca.get_sources(raw).get_data()
            sources = mne.filter.filter_data(head.sources, 250.0, 1.0, None, verbose="error")
            likeness = np.abs(np.corrcoef(z, sources)[: len(z), len(z) :]).max(axis=1)
            found += zip(ca.reliability_.tolist(), likeness.tolist(), strict=True)
        told, likeness = np.array(found).T
        for low, high in pairwise(edges):
            own = likeness[(told >= low) & (told < high)]
            print(
                f"{n_sources} sources, {low:.2f} to {high:.2f}: {(own > 0.7).sum()} of {len(own)}"
            )


def hour(n_seeds: int) -> None:
    """256 channels for an hour at 500 Hz, in a file of 1.8 GB: memory and time."""
    del n_seeds  # one is enough
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/hour_raw.fif"
        maps = _write_hour(path)
        raw = mne.io.read_raw_fif(path, verbose="error")
        # in a process of its own, since writing takes more memory
        command = [sys.executable, __file__, "hour-fit", path]
        fitted = subprocess.run(command, check=True, capture_output=True, text=True)
        print(f"{raw.n_times / raw.info['sfreq']:.0f} s, {len(raw.ch_names)} channels")
        print(f"{maps.shape[1]} sources; {fitted.stdout.strip()}")


def _write_hour(path: str) -> np.ndarray:
    rng = np.random.default_rng(FIRST_SEED)
    maps = 1e-5 * rng.standard_normal((256, 100), dtype=np.float32)
    data = np.empty((256, 3600 * 500), np.float32)
    for begin in range(0, data.shape[1], 30_000):
        sources = rng.standard_normal((100, 30_000), dtype=np.float32)
        sources[:, 1:] += np.float32(0.9) * sources[:, :-1]
        sources *= np.repeat(np.exp(0.6 * rng.standard_normal((100, 120))), 250, axis=1)
        noise = 1e-6 * rng.standard_normal((256, 30_000), dtype=np.float32)
        data[:, begin : begin + 30_000] = maps @ sources + noise
    info = mne.create_info(256, 500.0, "eeg", verbose="error")
    with info._unlock():
        info["highpass"] = 1.0
    raw = mne.io.RawArray(data, info, copy="auto", verbose="error")
    raw.save(path, fmt="single", verbose="error")
    return maps


def hour_fit(path: str) -> None:
    """Fit a file that is not loaded, in a process of its own."""
    raw = mne.io.read_raw_fif(path, verbose="error")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few samples for so many components
        begin = time.process_time()
        ca = ComponentAnalysis().fit(raw)
    seconds = time.process_time() - begin
    more = reliability_seconds(ca)
    # of this process alone; ru_maxrss goes on from the parent's
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak = int(status.split("VmHWM:")[1].split()[0]) / 1e6
    print(f"{ca}\n{seconds:.0f} CPU s and {more:.0f} for reliability, {peak:.2f} GB at most")


TABLES = {
    "simulated": (simulated, 6),
    "wide": (wide, 2),
    "few": (few, 6),
    "background": (background, 6),
    "saturated": (saturated, 4),
    "matching": (matching, 3),
    "misfit": (misfit, 3),
    "conditions": (conditions, 3),
    "reliability": (reliability, 3),
    "hour": (hour, 1),
}


def main() -> None:
    """Print the table that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", choices=[*TABLES, "hour-fit"])
    parser.add_argument("file", nargs="?", help="of `hour-fit`, which `hour` calls")
    parser.add_argument("--seeds", type=int, help="how many")
    options = parser.parse_args()
    if options.table == "hour-fit":
        hour_fit(options.file)
        return
    run, usual = TABLES[options.table]
    run(options.seeds or usual)


if __name__ == "__main__":
    main()
