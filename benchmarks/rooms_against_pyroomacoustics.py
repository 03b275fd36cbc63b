"""Compare the simulated rooms with pyroomacoustics': echoes, energy decay, RT60.

    python benchmarks/rooms_against_pyroomacoustics.py

needs ``pip install pyroomacoustics``. Prints a table, and exits 1 if a reverberation time
differs by more than 10 % from pyroomacoustics' or by more than 20 % from the one asked for,
if a decay curve is more than 1 dB away over its first 40 dB, or if the samples differ by more
than -40 dB.
"""

from __future__ import annotations

import sys
import time

import numpy as np
import pyroomacoustics as pra
from numpy.typing import NDArray

from sourcesep.simulate import absorption, impulse_responses, reverberation_time

SFREQ = 16000
SIZES = ((6.0, 5.0, 3.0), (5.0, 4.0, 2.7), (8.0, 6.0, 3.2))
TIMES = (0.15, 0.3, 0.5)
PLACES_A_ROOM = 3


def theirs(
    size: tuple[float, ...],
    source: NDArray[np.float64],
    microphone: NDArray[np.float64],
    alpha: float,
    n_taps: int,
) -> NDArray[np.float64]:
    """Return pyroomacoustics' response, without its constant delay of half a sinc."""
    pra.constants.set("c", 343.0)
    pra.constants.set("rir_hpf_enable", False)
    order = int(343.0 * n_taps / SFREQ / min(size)) + 2
    room = pra.ShoeBox(size, fs=SFREQ, materials=pra.Material(alpha), max_order=order)
    room.add_source(source)
    room.add_microphone(microphone)
    room.compute_rir()
    shift = pra.constants.get("frac_delay_length") // 2
    response = np.zeros(n_taps)
    # Its amplitudes are 1 / r, ours 1 / (4 pi r).
    rir = 1 / (4 * np.pi) * room.rir[0][0][shift : shift + n_taps]
    response[: rir.size] = rir
    return response


def decay(response: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Schroeder's decay curve in dB, energy below 125 Hz left out."""
    from scipy.signal import butter, sosfilt

    high = sosfilt(butter(2, 125, "high", fs=SFREQ, output="sos"), response)
    left = np.cumsum(high[::-1] ** 2)[::-1]
    return 10 * np.log10(left / left[0] + 1e-30)


def main() -> int:
    """Print the comparison and return the exit status."""
    rng = np.random.default_rng(0)
    worst = {"RT60 to theirs": 0.0, "RT60 to asked": 0.0, "decay, dB": 0.0}
    worst["samples, dB"] = -np.inf
    print("all in seconds; decay: largest gap of the curves in dB; error: of the samples, in dB")
    print("room           asked  ours   theirs decay  error  seconds ours/theirs")
    for size in SIZES:
        for rt60 in TIMES:
            alpha = absorption(size, rt60)
            n_taps = int(1.2 * rt60 * SFREQ) + 400
            for _ in range(PLACES_A_ROOM):
                source, microphone = rng.uniform(0.5, np.array(size) - 0.5, (2, 3))
                start = time.perf_counter()
                ours = impulse_responses(
                    size, [source], [microphone], wall_absorption=alpha, n_taps=n_taps
                )[0, 0]
                middle = time.perf_counter()
                other = theirs(size, source, microphone, alpha, n_taps)
                end = time.perf_counter()
                times = reverberation_time(ours, SFREQ), reverberation_time(other, SFREQ)
                ours_db, other_db = decay(ours), decay(other)
                early = other_db > -40
                gap = float(np.abs(ours_db - other_db)[early].max())
                error = float(10 * np.log10(((ours - other) ** 2).sum() / (other**2).sum()))
                worst["RT60 to theirs"] = max(
                    worst["RT60 to theirs"], abs(times[0] / times[1] - 1)
                )
                worst["RT60 to asked"] = max(worst["RT60 to asked"], abs(times[0] / rt60 - 1))
                worst["decay, dB"] = max(worst["decay, dB"], gap)
                worst["samples, dB"] = max(worst["samples, dB"], error)
                name = "x".join(f"{side:g}" for side in size)
                print(
                    f"{name:14s} {rt60:5.2f}  {times[0]:.3f}  {times[1]:.3f}  {gap:5.2f}  "
                    f"{error:6.1f}  {middle - start:.2f}/{end - middle:.2f}"
                )
    for name, value in worst.items():
        print(f"worst {name}: {value:.3f}")
    good = worst["RT60 to theirs"] < 0.1 and worst["RT60 to asked"] < 0.2
    return 0 if good and worst["decay, dB"] < 1 and worst["samples, dB"] < -40 else 1


if __name__ == "__main__":
    sys.exit(main())
