"""One thread, no screen, and Ctrl-C: set before anything that reads them is imported."""

import os
import signal

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("MPLBACKEND", "Agg")
# jobs in the background of a shell ignore it, and what they start does so too
signal.signal(signal.SIGINT, signal.default_int_handler)
