"""What uncertainty costs, in turns within one run, so that a busy machine slows all alike."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from common import CACHE, ROOT
from numpy.typing import NDArray
from peering.process import PeerError, PeerProcess

from model.acquisition import select
from model.backbones import load_backbone
from model.engine import EngineConfig, fit
from model.types import Labelled
from model.uncertainty import DEFAULT_ESTIMATOR, ESTIMATORS

F32 = NDArray[np.float32]
Ints = NDArray[np.int64]

PAIR, SINGLE = "efficientnet-lite2+lite0", "efficientnet-lite2"
BATCHES = (1, 8)  # images of one request
DROPOUT_PASSES = 20
DROPOUT_TURNS = 3
CLASSES, DIM = 43, 2560
LABELS, POOL, QUEUE, ASKED = 1_000, 5_000, 100_000, 40
REPEATS = 3  # of what takes seconds


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def measure_costs(turns: int) -> dict[str, Any]:
    """All costs; seconds are medians, ratios medians of what was measured in the same turn."""
    features, labels = made_up(LABELS + POOL)
    data = Labelled(features[:LABELS], labels[:LABELS], np.arange(LABELS) % 5 == 0)
    classes = [f"class {number}" for number in range(CLASSES)]
    bundles, fit_s = {}, {}
    for name in ESTIMATORS:
        seconds = []
        for _ in range(REPEATS):
            begin = time.perf_counter()
            config = EngineConfig(estimator=name)
            bundles[name] = fit(data, classes, pool=features, config=config)
            seconds.append(time.perf_counter() - begin)
        fit_s[name] = round(float(np.median(seconds)), 3)
        say(f"{name}: retraining {fit_s[name]} s")
    requests = {str(size): _requests(bundles, size, turns) for size in BATCHES}
    return {
        "requests": requests,
        "retraining": {
            "labels": LABELS,
            "features": DIM,
            "classes": CLASSES,
            "pool": LABELS + POOL,
            "seconds": fit_s,
        },
        "queue": _queue(bundles, requests[str(max(BATCHES))]["bare_forward_s_an_image"]),
    }


def made_up(count: int, *, seed: int = 0) -> tuple[F32, Ints]:
    """Clustered features as a backbone gives them: not negative, classes uneven, some overlap.

    Returns:
        ``(count, 2560)`` and the ``(count,)`` classes, of 43.
    """
    rng = np.random.default_rng(seed)
    share = 1.0 / np.arange(1, CLASSES + 1) ** 0.7
    labels = rng.choice(CLASSES, size=count, p=share / share.sum())
    labels[:CLASSES] = np.arange(CLASSES)
    centres = rng.standard_normal((CLASSES, DIM)).astype(np.float32)
    features = np.empty((count, DIM), np.float32)
    for start in range(0, count, 4096):
        block = labels[start : start + 4096]
        noise = rng.standard_normal((len(block), DIM), dtype=np.float32)
        features[start : start + 4096] = np.maximum(0.35 * centres[block] + noise, 0.0)
    return features, labels.astype(np.int64)


def _requests(bundles: dict[str, Any], size: int, turns: int) -> dict[str, Any]:
    """Each estimator after a forward pass of its own, and dropout through the whole network.

    A forward pass leaves nothing else in the processor's caches, so none may come second: that
    took a fifth to two fifths off the time of all estimators but the first.
    """
    pair, single = load_backbone(PAIR, CACHE), load_backbone(SINGLE, CACHE)
    rng = np.random.default_rng(0)
    pixels = rng.uniform(-1, 1, (size, 3, pair.size_px, pair.size_px)).astype(np.float32)
    seconds: dict[str, list[float]] = {}
    with _eager() as eager:
        for turn in range(turns + 1):
            now: dict[str, float] = {}
            _timed(now, "bare lite2", lambda: single.forward(pixels))
            for name, bundle in bundles.items():
                features = _timed(now, f"before {name}", lambda: pair.forward(pixels))
                _timed(now, name, partial(bundle.predict, features))
            for name in ("eager", "full dropout") if turn <= DROPOUT_TURNS else ():
                try:
                    _, now[name] = eager.call(name, {"pixels": pixels}, limit_s=300.0)
                except PeerError as exc:
                    raise SystemExit(f"the eager network failed: {exc}") from exc
            if turn:  # the first turn warms up
                for name, value in now.items():
                    seconds.setdefault(name, []).append(value)
    table = {name: np.array(values) for name, values in seconds.items()}
    before = {name: table[f"before {name}"] for name in bundles}
    bare = np.concatenate(list(before.values()))
    full, bare_single = table["full dropout"], table["bare lite2"]
    say(f"{size} images: bare {np.median(bare):.4f} s, full dropout {np.median(full):.3f} s")
    return {
        "images": size,
        "bare_forward_s_an_image": _median(bare / size, 6),
        "predict_s_an_image": {name: _median(table[name] / size, 7) for name in bundles},
        "ratio_to_bare": {name: _median(1.0 + table[name] / before[name], 4) for name in bundles},
        "full_network_dropout": {
            "network": SINGLE,
            "passes": DROPOUT_PASSES,
            "s_an_image": _median(full / size, 4),
            "ratio_to_its_own_single_pass": _median(full / table["eager"], 2),
            "ratio_to_bare_of_the_same_network": _median(full / bare_single[: len(full)], 2),
        },
    }


def _timed(seconds: dict[str, float], name: str, work: Callable[[], Any]) -> Any:
    begin = time.perf_counter()
    result = work()
    seconds[name] = time.perf_counter() - begin
    return result


def _eager() -> PeerProcess:
    """Torch in a process of its own: its threads and 229 MB stay out of this one."""
    return PeerProcess(
        [sys.executable, "-m", "peering.full_dropout"],
        environment={"PYTHONPATH": f"{ROOT}:{ROOT / 'benchmarks'}", "OMP_NUM_THREADS": "1"},
    )


def _queue(bundles: dict[str, Any], forward_s: float) -> dict[str, Any]:
    """Scoring a long queue from cached features, and choosing from it."""
    features, labels = made_up(QUEUE, seed=1)
    scoring, predictions = {}, None
    for name, bundle in bundles.items():
        begin = time.perf_counter()
        found = bundle.predict(features)
        scoring[name] = round(time.perf_counter() - begin, 3)
        predictions = found if name == DEFAULT_ESTIMATOR else predictions
        say(f"{name}: scoring {QUEUE} items {scoring[name]} s")
    seconds = []
    for seed in range(REPEATS):
        begin = time.perf_counter()
        chosen = select(
            "auto",
            pool=features,
            n=ASKED,
            labelled=features[:LABELS],
            label_counts=np.bincount(labels[:LABELS], minlength=CLASSES),
            predictions=predictions,
            seed=seed,
        ).rows
        seconds.append(time.perf_counter() - begin)
        assert len(np.unique(chosen)) == ASKED
    return {
        "items": QUEUE,
        "scoring_s": scoring,
        "scoring_ratio_to_bare_forward": {
            name: round(1.0 + value / (QUEUE * forward_s), 5) for name, value in scoring.items()
        },
        "choosing_s": round(float(np.median(seconds)), 3),
        "chosen": ASKED,
    }


def _median(values: NDArray[np.float64], digits: int) -> float:
    return round(float(np.median(values)), digits)
