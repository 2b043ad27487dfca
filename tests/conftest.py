"""For all tests: one thread a process, and no deadline for drawn examples.

Threads of small products wait for each other where other work runs beside: some tests took fifty
times as long. How long a drawn example takes says nothing: machines differ, and are busy.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # before anything imports numpy or torch

from hypothesis import settings  # noqa: E402

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
