"""Tables: the factor family against what else there is, on simulated and on real tables.

    python benchmarks/tables.py recovery --seeds 2000-2019
    python benchmarks/tables.py number --seeds 2000-2019
    python benchmarks/tables.py verdict --seeds 2000-2019
    python benchmarks/tables.py real
    python benchmarks/tables.py large

`recovery`, `number` and `verdict` draw `sourcesep.simulate.factors`: 6 factors in 12 series,
1500 rows, 8 regimes as u, noise of 10 % of each series' variance. `real` needs statsmodels,
whose macroeconomic table it reads, and scikit-learn's table of breast cancer. `large` writes
a CSV of 10^6 rows and 50 columns (940 MB) and separates it by the command line. One thread.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from sourcesep import auxiliary, simulate
from sourcesep.auxiliary import Auxiliary
from sourcesep.exceptions import SourcesepWarning
from sourcesep.ivae.factor import FactorModel
from sourcesep.ivae.linear import LinearModel
from sourcesep.ivae.matrices.linear_gaussian import LinearGaussian
from sourcesep.ivae.missing import impute
from sourcesep.ivae.model import Model
from sourcesep.ivae.prior_tables import gaussian_prior
from sourcesep.ivae.settings import Settings
from sourcesep.metrics import match_sources, mcc
from sourcesep.n_components import choose_n_components
from sourcesep.recording import from_array
from sourcesep.selection import FAMILIES, select
from sourcesep.simulate import FactorTable

Array = NDArray[np.float64]

N_FACTORS = 6
KINDS: dict[str, dict[str, Any]] = {
    "5 % missing": {"missing": 0.05},
    "20 % missing": {"missing": 0.2},
    "none missing": {"missing": 0.0},
}
CONTROLS: dict[str, dict[str, Any]] = KINDS | {
    "constant volatility, 5 % missing": {"volatility": "constant"},
    "constant volatility, none missing": {"volatility": "constant", "missing": 0.0},
    "one volatility for all, none missing": {"volatility": "common", "missing": 0.0},
}


def rng(seed: int = 0) -> np.random.Generator:
    """A generator."""
    return np.random.default_rng(seed)


def regimes(table: FactorTable) -> Auxiliary:
    """u of a simulated table."""
    return auxiliary.from_array(table.u, len(table.u))


def segments(x: Array) -> Auxiliary:
    """u where none is given: a fortieth of the rows."""
    return auxiliary.build(None, from_array(x, 1.0))


# Recovery


def oracle(table: FactorTable) -> Array:
    """The posterior mean under the model that drew the table."""
    prior = gaussian_prior(0 * table.variances, table.variances)
    truth = LinearGaussian(table.loadings, table.noise)
    return truth.infer((table.observations - table.offset).T, prior, table.u).mean.T


def by_factors(table: FactorTable, u: Auxiliary) -> tuple[Array, Array]:
    """Sources and loadings of the factor family."""
    model = FactorModel(N_FACTORS).fit(table.observations.T, u, rng())
    return model.posterior(table.observations.T, u).mean.T, model.mixing


def imputed(table: FactorTable) -> Array:
    """The table, filled in by EM for a Gaussian."""
    return impute(table.observations.T)


def by_diagonalisation(table: FactorTable) -> tuple[Array, Array]:
    """Sources and loadings of joint diagonalisation alone."""
    x = imputed(table)
    model = LinearModel(N_FACTORS, starts=("segments",), standardise_channels=True)
    model.fit(x, regimes(table), rng())
    return model.posterior(x).mean.T, model.mixing


def by_fastica(table: FactorTable) -> tuple[Array, Array]:
    """Sources and loadings of scikit-learn's FastICA."""
    from sklearn.decomposition import FastICA

    x = imputed(table).T
    scale = x.std(axis=0)
    ica = FastICA(N_FACTORS, whiten="unit-variance", max_iter=2000, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sources = ica.fit_transform((x - x.mean(axis=0)) / scale)
    return sources, ica.mixing_ * scale[:, None]


def loading_error(table: FactorTable, sources: Array, loadings: Array) -> Array:
    """Distance of each factor's loadings from the truth, both of length 1."""
    pairs = match_sources(table.sources, sources)
    truth, found = table.loadings[:, pairs.sources], loadings[:, pairs.components] * pairs.signs
    unit = truth / np.linalg.norm(truth, axis=0) - found / np.linalg.norm(found, axis=0)
    error: Array = np.linalg.norm(unit, axis=0)
    return error


def recovery(seeds: Iterable[int]) -> None:
    """MCC and loadings of every method."""
    methods: dict[str, Callable[[FactorTable], tuple[Array, Array]]] = {
        "factor": lambda table: by_factors(table, regimes(table)),
        "factor, u = 40 segments": lambda table: by_factors(table, segments(table.observations.T)),
        "impute, diagonalise": by_diagonalisation,
        "impute, FastICA": by_fastica,
    }
    for kind, settings in KINDS.items():
        known, found, errors, seconds = [], {}, {}, {}
        for seed in seeds:
            table = simulate.factors(random_state=seed, **settings)
            known.append(mcc(table.sources, oracle(table)))
            for name, method in methods.items():
                begin = time.process_time()
                sources, loadings = method(table)
                seconds.setdefault(name, []).append(time.process_time() - begin)
                found.setdefault(name, []).append(mcc(table.sources, sources))
                errors.setdefault(name, []).append(loading_error(table, sources, loadings))
        print(f"\n{kind}: oracle {np.mean(known):.4f}")
        print("| method | MCC | behind the oracle: mean, most | loadings: median | CPU s |")
        for name, values in found.items():
            behind = np.subtract(known, values)
            print(
                f"| {name} | {np.mean(values):.4f} | {behind.mean():.4f}, {behind.max():.4f} "
                f"| {np.median(errors[name]):.3f} | {np.median(seconds[name]):.2f} |"
            )
        least = np.min(np.subtract(found["factor"], found["impute, FastICA"]))
        wins = np.subtract(found["factor"], found["impute, diagonalise"])
        print(
            f"factor less FastICA: at least {least:+.4f}; less diagonalisation: "
            f"{wins.mean():+.4f}, at least {wins.min():+.4f}",
            flush=True,
        )


# Number of factors, and verdict


def number(seeds: Iterable[int]) -> None:
    """How often the number of factors is right."""
    for kind, settings in KINDS.items():
        chosen, seconds = Counter[int](), []
        for seed in seeds:
            table = simulate.factors(random_state=seed, **settings)
            begin = time.process_time()
            families = FAMILIES["linear"], FAMILIES["factor"]
            k, _ = choose_n_components(
                table.observations.T, regimes(table), rng(), families=families
            )
            seconds.append(time.process_time() - begin)
            chosen[k] += 1
        print(
            f"{kind}: {dict(sorted(chosen.items()))}, {np.median(seconds):.1f} CPU s", flush=True
        )


def verdict(seeds: Iterable[int]) -> None:
    """How often each verdict comes, 6 factors asked for."""
    settings = Settings(n_components=N_FACTORS, standardise=True)
    for kind, options in CONTROLS.items():
        for what, u_of in (("regimes", regimes), ("40 segments", None)):
            labels, kept, correct = Counter[str](), Counter[str](), []
            for seed in seeds:
                table = simulate.factors(random_state=seed, **options)
                x = table.observations.T
                u = u_of(table) if u_of else segments(x)
                mixing = ("linear", "factor")
                chosen = select(x, u, rng(), mixing=mixing, settings=settings)
                labels[chosen.verdict.label] += 1
                kept[chosen.model.family] += 1
                correct.append(mcc(table.sources, chosen.model.posterior(x, u).mean.T))
            row = [kind, what, str(dict(labels)), str(dict(kept)), f"MCC {np.mean(correct):.3f}"]
            print("| " + " | ".join(row) + " |", flush=True)


# Real tables


def breast_cancer() -> tuple[Array, Auxiliary]:
    """Logarithms of scikit-learn's table, u the diagnosis."""
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    x = np.log(data.data + 1e-3 * data.data.mean(axis=0))
    return x.T, auxiliary.from_array(data.target_names[data.target], len(x))


def macrodata(spec: str = "decade") -> tuple[Array, Auxiliary]:
    """Growth rates and differences of statsmodels' table, u the decade, or before 1984."""
    from statsmodels.datasets import macrodata as dataset

    frame = dataset.load_pandas().data
    growing = ["realgdp", "realcons", "realinv", "realgovt", "realdpi", "cpi", "m1"]
    growth = np.diff(np.log(frame[growing].to_numpy()), axis=0)
    levels = np.diff(frame[["tbilrate", "unemp"]].to_numpy(), axis=0)
    year = frame["year"].to_numpy()[1:].astype(int)
    label = year // 10 * 10 if spec == "decade" else (year >= 1984).astype(int)
    return np.concatenate([growth, levels], axis=1).T, auxiliary.from_array(label, len(label))


def agreement(
    build: Callable[[], Model], x: Array, u: Auxiliary, n_splits: int, block: int
) -> tuple[float, float]:
    """MCC of fits to random halves, on all rows; the same with u shuffled."""
    found: tuple[list[float], list[float]] = ([], [])
    for seed in range(n_splits):
        draw = rng(seed)
        n_blocks = -(-u.n_times // block)
        half = (draw.permutation(n_blocks) % 2)[np.arange(u.n_times) // block]
        shuffled = u.take(draw.permutation(u.n_times))
        for given, values in zip((u, shuffled), found, strict=True):
            sources = []
            for which in (0, 1):
                chosen = half == which
                fit = build().fit(x[:, chosen], given.take(chosen), draw)
                sources.append(fit.posterior(x).mean.T)
            values.append(mcc(*sources))
    return float(np.mean(found[0])), float(np.mean(found[1]))


def real(n_splits: int = 20) -> None:
    """Agreement of halves, and verdict."""
    tables = {
        "breast cancer by diagnosis": (breast_cancer(), 1),
        "macrodata by decade": (macrodata(), 4),
        "macrodata by 1984": (macrodata("1984"), 4),
    }
    print("| table | factors | family | agreement of halves | u shuffled | verdict |")
    for name, ((x, u), block) in tables.items():
        x = (x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, keepdims=True)
        for k in (2, 3, 5):
            builders: dict[str, Callable[[], Model]] = {
                "linear": lambda k=k: LinearModel(k, starts=("segments",)),
                "factor": lambda k=k: FactorModel(k),
            }
            for family, build in builders.items():
                with_u, without = agreement(build, x, u, n_splits, block)
                settings = Settings(n_components=k, standardise=True)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", SourcesepWarning)
                    chosen = select(x, u, rng(), mixing=family, settings=settings)
                given = "" if chosen.model.family == family else f" ({chosen.model.family})"
                print(
                    f"| {name} | {k} | {family} | {with_u:.3f} | {without:.3f} "
                    f"| {chosen.verdict.label}{given} |",
                    flush=True,
                )
        families = FAMILIES["linear"], FAMILIES["factor"]
        print(f"number of factors chosen: {choose_n_components(x, u, rng(), families=families)}")


# A large table


def large(families: list[str], n_rows: int = 10**6, n_columns: int = 50, k: int = 10) -> None:
    """Time and peak memory of the command line on a large CSV."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw = rng(0)
        loadings = draw.standard_normal((k, n_columns))
        with (folder / "large.csv").open("w") as file:
            file.write(",".join(f"x{i}" for i in range(n_columns)) + "\n")
            for begin in range(0, n_rows, 10_000):
                scale = draw.uniform(0.3, 3, k)
                z = scale * draw.standard_normal((min(10_000, n_rows - begin), k))
                x = z @ loadings + 0.5 * draw.standard_normal((len(z), n_columns))
                file.writelines(",".join(map(repr, row)) + "\n" for row in x.tolist())
        print(f"{(folder / 'large.csv').stat().st_size / 1e6:.0f} MB")
        for mixing in families:
            command = [sys.executable, "-c", "from sourcesep.cli import main; main()", "separate"]
            command += ["large.csv", "-o", mixing, "-k", str(k), "--mixing", mixing]
            begin = time.perf_counter()
            process = subprocess.Popen(command, cwd=folder, env=os.environ)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            clock, cpu = time.perf_counter() - begin, usage.ru_utime + usage.ru_stime
            print(
                f"--mixing {mixing}: exit {process.returncode}, {cpu:.1f} CPU s, "
                f"{clock:.0f} s by the clock, {usage.ru_maxrss / 1e6:.2f} GB",
                flush=True,
            )


def seeds_of(text: str) -> range:
    """Read FIRST-LAST."""
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["recovery", "number", "verdict", "real", "large"])
    parser.add_argument("--seeds", type=seeds_of, default=range(2000, 2020))
    parser.add_argument("--mixing", nargs="+", default=["linear", "auto"], help="of large")
    arguments = parser.parse_args()
    with threadpool_limits(limits=1):
        if arguments.what == "real":
            real()
        elif arguments.what == "large":
            large(arguments.mixing)
        else:
            {"recovery": recovery, "number": number, "verdict": verdict}[arguments.what](
                arguments.seeds
            )
    print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_utime:.0f} CPU s in all")


if __name__ == "__main__":
    main()
