"""Several recordings at once: the same component in each, and a saved map used on another.

    python benchmarks/recordings.py scene [--seeds 12] [--first 7000] [--without-third]
    python benchmarks/recordings.py sensors [--seeds 12] [--first 7100]
    python benchmarks/recordings.py labels [--seeds 20] [--first 7200]
    python benchmarks/recordings.py many [--seeds 1000] [--first 7300]

`scene`: two recordings of five sources through one nonlinear map are fitted together; a
third one is separated by that model, by a refit of it, and by a fit of its own: as loud as
it comes, and with one source 2.25 times as loud as the fit has seen it. Beside it FastICA,
fitted to each recording alone and matched by what both matrices make of the first.
`sensors`: the same sources under the same labels through two maps, fitted one by one
(quality="fast") and matched by their priors. `labels`: the same with linear maps and fewer
labels. `many`: a thousand files of one linear scene, of which but covariances are held. Of
every segment the last fifth is for the score alone. No seed here has chosen
anything in the package.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from sklearn.decomposition import FastICA
from sklearn.exceptions import ConvergenceWarning

from sourcesep import IVAE, match_components, train
from sourcesep.metrics import mcc
from sourcesep.simulate import Protocol, scenes

SIZE = 500
"""Samples of a segment."""
FITTED = 400
"""Of which this many are fitted on."""
LOUDER = 2.25
"""How far above the louder of both fitted recordings one source of another third one is."""
WILD = 1000.0
"""What one row of a recording is multiplied by, to see whether it ruins the others."""

Array = NDArray[np.float64]
Encode = Callable[[Array], Array]


def is_fitted(data: Protocol) -> NDArray[np.bool_]:
    """Tell which samples are fitted on."""
    return np.arange(len(data.u)) % SIZE < FITTED


def which_source(data: Protocol, encode: Encode) -> NDArray[np.int64]:
    """Return the true source that each component is, on samples not fitted on."""
    held = ~is_fitted(data)
    d = data.sources.shape[1]
    z = encode(data.observations[held])
    correlation = np.corrcoef(data.sources[held], z, rowvar=False)[:d, d:]
    return np.asarray(linear_sum_assignment(-np.abs(correlation.T))[1])


def score(data: Protocol, encode: Encode) -> float:
    """Return the MCC on samples not fitted on."""
    held = ~is_fitted(data)
    return float(mcc(data.sources[held], encode(data.observations[held])))


def fit(seed: int, recordings: list[Protocol]) -> IVAE:
    """Fit one model out of the box, but for the family and the length of the segments."""
    parts = [r.observations[is_fitted(r)] for r in recordings]
    ivae = IVAE(mixing="nonlinear", aux=f"segments:{FITTED}", device="cpu", random_state=seed)
    return ivae.fit(parts if len(parts) > 1 else parts[0])


def fastica(data: Protocol, seed: int) -> Encode:
    """Fit FastICA to one recording."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        ica = FastICA(random_state=seed, max_iter=1000).fit(data.observations[is_fitted(data)])
    return ica.transform  # type: ignore[no-any-return]


def matched_afterwards(one: Encode, other: Encode, data: Protocol) -> NDArray[np.int64]:
    """Return the components of `other` that are those of `one`, by what both make of `data`."""
    a, b = one(data.observations), other(data.observations)
    d = a.shape[1]
    correlation = np.corrcoef(a, b, rowvar=False)[:d, d:]
    return np.asarray(linear_sum_assignment(-np.abs(correlation))[1])


def louder(seed: int, a: Protocol, b: Protocol, third: Protocol) -> Protocol:
    """Return the third recording with one source far louder than a and b have it."""
    d = third.sources.shape[1]
    gains = np.ones((3, d))
    j = seed % d
    peak = [r.scales[:, j].max() for r in (a, b, third)]
    gains[2, j] = LOUDER * max(peak[:2]) / peak[2]
    return scenes(3, gains=gains, random_state=seed)[2]


def seconds(begun: float) -> float:
    """Return the CPU seconds since then."""
    return time.process_time() - begun


def scene(seeds: range, *, with_third: bool = True) -> None:
    """Two recordings fitted together, and a third."""
    same = by_ica = total = 0
    rows = []
    for seed in seeds:
        a, b, as_it_comes = scenes(3, random_state=seed)
        far = louder(seed, a, b, as_it_comes)
        begun = time.process_time()
        ivae = fit(seed, [a, b])
        cpu = seconds(begun)
        one, other = (which_source(r, ivae.transform) for r in (a, b))
        same += int((one == other).sum())
        icas = [fastica(r, seed) for r in (a, b)]
        match = matched_afterwards(*icas, a)
        truth = [which_source(r, ica) for r, ica in zip((a, b), icas, strict=True)]
        by_ica += int((truth[0] == truth[1][match]).sum())
        total += len(one)
        own_ica = np.mean([score(r, ica) for r, ica in zip((a, b), icas, strict=True)])
        print(
            f"seed {seed}: {ivae.model_.family}, {ivae.verdict_.label}, MCC "
            f"{score(a, ivae.transform):.4f} {score(b, ivae.transform):.4f}, CPU {cpu:.0f} s; "
            f"same index {int((one == other).sum())} of {len(one)}; FastICA {own_ica:.3f}",
            flush=True,
        )
        for name, third in (("as it comes", as_it_comes), ("louder", far))[: 2 * with_third]:
            rows.append(another(seed, ivae, one, name, third))
    print(f"\ncomponent k the same in both: {same} of {total}")
    print(f"FastICA one by one, matched afterwards: {by_ica} of {total}")
    for inside in (True, False) if rows else ():
        chosen = np.array([row[1:] for row in rows if row[0] == inside])
        if len(chosen):
            saved, refit, indices, wild = chosen.T
            where = "within the range" if inside else "out of it, and named"
            print(
                f"{where}: {len(chosen)}; less a fit of its own: saved map "
                f"{saved.mean():+.4f} (worst {saved.min():+.4f}), refit "
                f"{refit.mean():+.4f} (worst {refit.min():+.4f}); indices kept "
                f"{int(indices.sum())} of {total // len(seeds) * len(chosen)}; with one wild row "
                f"the saved map {wild.mean():+.4f} (worst {wild.min():+.4f})"
            )


def another(
    seed: int, ivae: IVAE, sources: NDArray[np.int64], name: str, third: Protocol
) -> tuple[bool, float, float, int, float]:
    """Separate a third recording by the saved map, by a refit of it, and by a fit of its own."""
    rows = is_fitted(third)
    named = ivae.out_of_range(third.observations) or []
    own = score(third, fit(seed, [third]).transform)
    begun = time.process_time()
    again = ivae.refit(third.observations[rows])
    cpu = seconds(begun)
    saved, refit = score(third, ivae.transform), score(third, again.transform)
    indices = int((which_source(third, again.transform) == sources).sum())
    wild = third.observations.copy()
    wild[FITTED] *= WILD  # the first row that is scored
    z = ivae.transform(wild)[~rows]
    ruined = float(mcc(third.sources[~rows], z)) - saved
    out = ", ".join(f"{r['component']}: {r['share']:.2%}, {r['times']:.2f}x" for r in named)
    print(
        f"  third, {name}: own {own:.4f}, saved {saved:.4f}, refit {refit:.4f} in CPU {cpu:.1f} s,"
        f" indices kept {indices}, wild row {ruined:+.4f}; out of range: {out or 'none'}",
        flush=True,
    )
    return not named, saved - own, refit - own, indices, ruined


def matched(recordings: list[Protocol], fits: list[IVAE]) -> tuple[int, int, float]:
    """Count the pairs of components matched by their priors, those that are right, and the gap."""
    matching = match_components(fits)
    truth = [which_source(r, f.transform) for r, f in zip(recordings, fits, strict=True)]
    pairs = [(g.components[0], g.components[1]) for g in matching.groups]
    right = sum(int(truth[0][i] == truth[1][j]) for i, j in pairs)
    return len(pairs), right, min((g.correlation for g in matching.groups), default=np.nan)


def sensors(seeds: range) -> None:
    """The same sources through other maps, 40 labels in common, nonlinear."""
    found = correct = total = 0
    for seed in seeds:
        recordings = scenes(2, sensors="other", random_state=seed)
        begun = time.process_time()
        fits = []
        for r in recordings:
            rows = is_fitted(r)
            ivae = IVAE(mixing="nonlinear", quality="fast", device="cpu", random_state=seed)
            fits.append(ivae.fit(r.observations[rows], u=r.u[rows]))
        n, right, least = matched(recordings, fits)
        found, correct, total = found + n, correct + right, total + recordings[0].sources.shape[1]
        scores = [score(r, f.transform) for r, f in zip(recordings, fits, strict=True)]
        print(
            f"seed {seed}: {right} right of {n} matched, least correlation {least:.2f}, MCC "
            f"{scores[0]:.4f} {scores[1]:.4f}, CPU {seconds(begun):.0f} s",
            flush=True,
        )
    print(f"\nmatched rightly {correct} of {total}, wrongly {found - correct}")


def labels(seeds: range) -> None:
    """The same by linear maps and fewer labels; 20 000 samples in all."""
    print("labels  matched rightly  wrongly  left unmatched  assigned rightly without a bound")
    for n_labels in (40, 20, 12, 8, 6, 4):
        counts = np.zeros(4, int)
        for seed in seeds:
            settings = {"n_segments": n_labels, "samples_per_segment": SIZE * 40 // n_labels}
            recordings = scenes(2, n_layers=1, sensors="other", random_state=seed, **settings)
            fits = [
                IVAE(mixing="linear", starts=("segments",), random_state=seed).fit(
                    r.observations, u=r.u
                )
                for r in recordings
            ]
            n, right, _ = matched(recordings, fits)
            d = recordings[0].sources.shape[1]
            assigned = match_components(fits, min_corr=1e-9)
            truth = [which_source(r, f.transform) for r, f in zip(recordings, fits, strict=True)]
            anyway = sum(
                int(truth[0][g.components[0]] == truth[1][g.components[1]])
                for g in assigned.groups
            )
            counts += [right, n - right, d - n, anyway]
        total = d * len(seeds)
        shares = "  ".join(f"{count / total:7.1%}" for count in counts)
        print(f"{n_labels:6d}  {shares}", flush=True)


def many(seeds: range) -> None:
    """Files of one linear scene, far more than are held: a matrix from all their segments."""
    matrix = np.random.default_rng(seeds[0]).standard_normal((4, 4)) + 2 * np.eye(4)
    size = 0
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for seed in seeds:
            rng = np.random.default_rng(seed)
            scales = rng.uniform(0.5, 3, (4, 40)).repeat(SIZE, axis=1)
            x = matrix @ (scales * rng.standard_normal(scales.shape))
            paths.append(Path(folder) / f"{seed}.npy")
            np.save(paths[-1], x.T)
            size += x.nbytes
        begun = time.process_time()
        ivae = train(paths, n_components=4, mixing="linear")
        cpu = seconds(begun)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    leak = np.abs(ivae.components_ @ matrix)
    leak /= leak.max(axis=1, keepdims=True)
    worst = np.sort(leak, axis=1)[:, -2].max()
    print(
        f"{len(seeds)} files, {size / 2**20:.0f} MiB: CPU {cpu:.1f} s, {cpu / len(seeds):.4f} s a "
        f"file, peak memory {peak:.0f} MiB; {ivae.verdict_.label}; "
        f"{ivae.reason_}; largest leak of a source into another component {worst:.5f}"
    )


def main() -> None:
    """Print one of the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", choices=["scene", "sensors", "labels", "many"])
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--first", type=int)
    parser.add_argument("--without-third", action="store_true")
    asked = parser.parse_args()
    table, number, first = {
        "scene": (partial(scene, with_third=not asked.without_third), 12, 7000),
        "sensors": (sensors, 12, 7100),
        "labels": (labels, 20, 7200),
        "many": (many, 1000, 7300),
    }[asked.table]
    first = asked.first if asked.first is not None else first
    table(range(first, first + (asked.seeds or number)))


if __name__ == "__main__":
    main()
