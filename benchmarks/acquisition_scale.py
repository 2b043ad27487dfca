"""Seconds and memory of every acquisition rule, choosing from a pool of 100,000 images.

    python benchmarks/acquisition_scale.py --out benchmarks/results/acquisition_scale.json

Each rule runs in a process of its own, with one thread: made-up features (clustered, classes
uneven), a version of 20 passes fitted on 1,000 labels, its predictions for the whole pool, and 40
images to choose. Memory is what the process needed above the pool itself and the predictions.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from _costs import CLASSES, made_up
from common import ROOT, header, write
from numpy.typing import NDArray

from model.acquisition import ACQUISITIONS, select
from model.bundle import Bundle
from model.engine import EngineConfig, fit
from model.types import Labelled, Predictions

ESTIMATOR = "mc-dropout"
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def main() -> None:
    arguments = parse()
    if arguments.rule:
        print(json.dumps(measure(arguments.rule, arguments)))
        return
    names = arguments.only or sorted(ACQUISITIONS)
    with tempfile.TemporaryDirectory(prefix="doubtless-") as name:
        folder = Path(name)
        passes = prepare(folder, arguments)
        rules: dict[str, Any] = {}
        for rule in names:
            rules[rule] = _in_its_own_process(rule, folder, arguments)
            print(f"{rule:18} {rules[rule]['seconds']:7.2f} s {rules[rule]['peak_mb']:6d} MB")
    facts = header(
        benchmark="acquisition-scale",
        pool=arguments.pool,
        features=arguments.features,
        labels=arguments.labels,
        classes=CLASSES,
        chosen=arguments.chosen,
        threads=1,
        estimator=ESTIMATOR,
        passes=passes,
        pool_mb=round(arguments.pool * arguments.features * 4 / 1e6),
    )
    write({**facts, "rules": rules}, arguments.out)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pool", type=int, default=100_000, help="images without a label")
    parser.add_argument("--features", type=int, default=1_280, help="of an image")
    parser.add_argument("--labels", type=int, default=1_000)
    parser.add_argument("--chosen", type=int, default=40)
    parser.add_argument("--only", action="append", help="a rule; may be repeated; all without")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rule", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def prepare(folder: Path, arguments: argparse.Namespace) -> int:
    """Write the pool, the labels, a version and its predictions; gives the version's passes."""
    everything, labels = made_up(arguments.labels + arguments.pool)
    features = np.ascontiguousarray(everything[:, : arguments.features])
    del everything
    known, pool = features[: arguments.labels], features[arguments.labels :]
    data = Labelled(known, labels[: arguments.labels], np.arange(arguments.labels) % 5 == 0)
    classes = [f"class {number}" for number in range(CLASSES)]
    bundle = fit(data, classes, pool=pool[:5_000], config=EngineConfig(estimator=ESTIMATOR))
    np.save(folder / "pool.npy", pool)
    np.save(folder / "known.npy", known)
    np.save(folder / "counts.npy", np.bincount(data.labels, minlength=CLASSES))
    np.savez(folder / "predictions.npz", **vars(bundle.predict(pool)))
    bundle.save(folder / "version")
    return bundle.estimator.passes


def measure(rule: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One call of one rule, in this process."""
    folder: Path = arguments.folder
    pool, known = (np.load(folder / f"{name}.npy") for name in ("pool", "known"))
    counts: NDArray[np.int64] = np.load(folder / "counts.npy")
    with np.load(folder / "predictions.npz") as stored:
        predictions = Predictions(**{name: stored[name] for name in stored.files})
    bundle = Bundle.load(folder / "version")
    before = _restart_peak()
    begin = time.perf_counter()
    chosen = select(
        rule,
        pool=pool,
        n=arguments.chosen,
        labelled=known,
        label_counts=counts,
        predictions=predictions,
        sample=bundle.estimator.sample,
    ).rows
    seconds = time.perf_counter() - begin
    assert len(np.unique(chosen)) == arguments.chosen
    return {"seconds": round(seconds, 2), "peak_mb": _kilobytes("VmHWM") // 1024 - before // 1024}


def _in_its_own_process(rule: str, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--rule", rule, "--folder", str(folder)]
    command += ["--chosen", str(arguments.chosen)]
    done = subprocess.run(
        command,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **ONE_THREAD, "PYTHONPATH": f"{ROOT}:{ROOT / 'benchmarks'}"},
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _restart_peak() -> int:
    """Forget the peak so far (Linux); gives what is resident now, in kilobytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return _kilobytes("VmRSS")


def _kilobytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    raise SystemExit(f"/proc/self/status has no {field}; memory is measured on Linux")


if __name__ == "__main__":
    main()
