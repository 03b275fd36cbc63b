"""Whether an accelerator gives what the CPU gives: training in float64 from one seed on both.

    python benchmarks/gpu_parity.py [--steps 200]

The coupling flow, and networks of the amortised family, on the data of the iVAE's paper, smaller
(3 sources, 20 x 200 samples, seed 0). Training is the same sums in another order, so that
differences grow with the steps; after few the latents must agree to 1e-6, and after `--steps` they
must correlate by .999. Where there is no accelerator nothing is run, and that is said.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

import numpy as np

from sourcesep import windows
from sourcesep.auxiliary import Auxiliary, Scale
from sourcesep.ivae.amortised import AmortisedModel
from sourcesep.ivae.coupling import CouplingModel
from sourcesep.ivae.model import Model
from sourcesep.metrics import mcc
from sourcesep.simulate.protocols import ivae

FEW, CLOSE, ALIKE = 5, 1e-6, 0.999


def accelerator() -> str | None:
    """Return the device to compare with, if there is one."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else None


def flow(device: str, n_steps: int) -> Model:
    """A coupling flow, trained in double precision where the device can (MPS cannot)."""
    dtype = "float32" if device == "mps" else "float64"
    return CouplingModel(n_restarts=2, n_steps=n_steps, device=device, dtype=dtype)


def networks(device: str, n_steps: int) -> Model:
    """Networks of one sample; they train in single precision on every device."""
    return AmortisedModel(
        kernel_size=1, candidates=("networks",), n_restarts=1, n_steps=n_steps, device=device
    )


CASES: dict[str, tuple[Callable[[str, int], Model], bool]] = {
    "nonlinear": (flow, True),
    "amortised": (networks, False),
}
"""Each family, and whether it is trained in double precision."""


def main() -> None:
    """Fit on both, and print how far apart they are."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()
    device = accelerator()
    if device is None:
        print("not run: no accelerator")
        return
    x = ivae(3, 20, 200, random_state=0).observations.T
    labels = windows.segments(x.shape[1], 200)
    scale = Scale(labels, tuple(map(str, range(labels.max() + 1))))
    u = Auxiliary((scale,), None, is_time=True, spec="segments")
    good = True
    for name, (build, is_double) in CASES.items():
        for n_steps in (FEW, options.steps):
            cpu, other = (
                build(where, n_steps).fit(x, u, np.random.default_rng(0)).posterior(x, u).mean
                for where in ("cpu", device)
            )
            apart, alike = float(np.abs(cpu - other).max()), mcc(cpu.T, other.T)
            close = CLOSE if is_double and device == "cuda" else 1e-2
            good &= alike >= ALIKE and (apart <= close or n_steps > FEW)
            print(f"{name}, {n_steps} steps, cpu and {device}: {apart:.2e} apart, MCC {alike:.6f}")
    sys.exit(not good)


if __name__ == "__main__":
    main()
