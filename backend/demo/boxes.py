"""Boxes in the demonstration: maps of its images, average precision, training in random order."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection

import numpy as np

from backend.demo.curve import RandomCurve
from backend.demo.data import DemoData, DemoImage
from backend.errors import LaunchError
from backend.settings import Settings
from model.backbones.pyramid import PYRAMIDS, load_pyramid
from model.detection.bundle import BoxBundle, as_found
from model.detection.engine import BoxConfig, fit
from model.detection.evaluate import average_precision
from model.detection.extract import extract_maps
from model.detection.maps import ImageMaps, MapStore
from model.detection.outcomes import LabelledImages
from model.detection.types import BoxLabels
from model.detection.views import cache_views, images_to_view, missing_views
from model.errors import ModelError

Progress = Callable[[str], None]
_POLL_S = 0.3


def read_maps(
    images: Sequence[DemoImage],
    settings: Settings,
    progress: Progress,
    what: str = "looking at the held-out images",
) -> list[str]:
    """Maps of images, computed where the cache that the workers share has none.

    Returns:
        Keys of the readable images, in their order, each once.
    """
    store, code = MapStore(settings.artifacts / "maps"), PYRAMIDS[settings.pyramid].hash
    by_key = {image.key: image.data for image in images}
    missing = store.missing(code, list(by_key))
    broken: set[str] = set()
    if missing:
        pyramid = load_pyramid(
            settings.pyramid, settings.cache_path, threads=settings.thread_count()
        )
        todo = ((key, by_key[key]) for key in missing)
        for done, (key, found) in enumerate(extract_maps(pyramid, todo), 1):
            if isinstance(found, ImageMaps):
                store.add(code, key, found)
            else:
                broken.add(key)
            progress(f"{what}: {done} of {len(missing)}")
    return [key for key in by_key if key not in broken]


def boxes_of(data: DemoData, images: Iterable[DemoImage]) -> dict[str, BoxLabels]:
    """True boxes by the image's key, of those that have any or are known to have none."""
    number = {name: n for n, name in enumerate(data.classes)}
    return {
        image.key: BoxLabels.of(
            [box[1:] for box in image.boxes], [number[box.label] for box in image.boxes]
        )
        for image in images
        if image.boxes is not None
    }


def average_precision_of(
    model: BoxBundle,
    settings: Settings,
    keys: Sequence[str],
    truth: Mapping[str, BoxLabels],
    progress: Progress,
) -> float | None:
    """AP50 of a version on images whose maps are cached; None when none of them has an object."""
    code = PYRAMIDS[settings.pyramid].hash
    found = []
    for n, maps in enumerate(MapStore(settings.artifacts / "maps").load_many(code, keys), 1):
        found.append(model.look(maps)[0])
        progress(f"measuring on the held-out images: {n} of {len(keys)}")
    return average_precision(
        [as_found(one) for one in found],
        [truth[key] for key in keys],
        [one.size for one in found],
        len(model.classes),
    )["ap50"]


@dataclass(frozen=True)
class _Order:
    """What the process that trains in random order is given."""

    settings: Settings
    classes: tuple[str, ...]
    truth: Mapping[str, BoxLabels]
    pool: Sequence[str]
    held_out: Sequence[str]
    labels: Sequence[int]
    seeds: int


def random_order_of_boxes(
    data: DemoData,
    settings: Settings,
    *,
    pool: Sequence[str],
    held_out: Sequence[str],
    labels: Sequence[int],
    seeds: int,
    progress: Progress,
) -> RandomCurve:
    """Train on images in random order, as versions are trained, and measure each; in a process.

    Args:
        data: for the true boxes.
        settings: of the versions this is compared with.
        pool: keys of the imported images.
        held_out: keys of the images to measure on.
        labels: ascending numbers of images to train on.
        seeds: how many random orders; each costs one training for every number.
        progress: called with what is being done; what it raises stops the process.

    Raises:
        LaunchError: the process died, or could not train.
    """
    truth = boxes_of(data, [*data.pool, *data.held_out])
    _read_views(data, settings, _learnt_with_views(pool, labels, seeds), progress)
    order = _Order(settings, data.classes, truth, pool, held_out, labels, seeds)
    context = get_context("spawn")  # a forked one would have this process's threads and locks
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_train_in_random_order, args=(order, theirs), daemon=True)
    process.start()
    theirs.close()
    said = "random order: starting"
    try:
        while True:
            progress(said)
            if not ours.poll(_POLL_S):
                continue
            try:
                message = ours.recv()
            except EOFError:
                raise LaunchError(
                    "the process that trains in random order died; with --seeds 0 it is left out"
                ) from None
            if isinstance(message, Exception):
                raise LaunchError(f"training in random order failed: {message}") from message
            if isinstance(message, str):
                said = message
                continue
            values = np.array(message, np.float64)
            means, spreads = values.mean(axis=0).tolist(), values.std(axis=0).tolist()
            return RandomCurve(list(labels), means, spreads, seeds)
    finally:
        process.terminate()
        process.join()
        ours.close()


def _in_random_order(pool: Sequence[str], seed: int) -> list[str]:
    return [pool[n] for n in np.random.default_rng(seed).permutation(len(pool))]


def _learnt_with_views(pool: Sequence[str], labels: Sequence[int], seeds: int) -> list[str]:
    """Images that heads in random order see in other views, as versions do."""
    found: list[str] = []
    for seed in range(seeds):
        for count in labels:
            found += images_to_view(_in_random_order(pool, seed)[:count])
    return found


def _read_views(
    data: DemoData, settings: Settings, keys: Sequence[str], progress: Progress
) -> None:
    store, code = MapStore(settings.artifacts / "maps"), PYRAMIDS[settings.pyramid].hash
    missing = missing_views(store, code, keys)
    if not missing:
        return
    by_key = {image.key: image.data for image in data.pool}
    pyramid = load_pyramid(settings.pyramid, settings.cache_path, threads=settings.thread_count())
    todo = ((key, by_key[key]) for key in missing)
    for done, _ in enumerate(cache_views(pyramid, todo, code=code, maps=store), 1):
        progress(f"random order: other views of images, {done} of {len(missing)}")


def _train_in_random_order(order: _Order, out: Connection) -> None:
    """Send what is being done as texts, then the values; or the error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started it ends it
    try:
        out.send(list(_values_of(order, out.send)))
    except ModelError as exc:
        out.send(ModelError(str(exc)))


def _values_of(order: _Order, say: Progress) -> Iterable[list[float]]:
    store = MapStore(order.settings.artifacts / "maps")
    code = PYRAMIDS[order.settings.pyramid].hash
    total = order.seeds * len(order.labels)
    for seed in range(order.seeds):
        chances = _in_random_order(order.pool, seed)
        values = []
        for column, count in enumerate(order.labels):
            keys = chances[:count]
            which = f"random order, {seed * len(order.labels) + column + 1} of {total}"
            model = fit(
                LabelledImages.stored(store, code, keys, [order.truth[key] for key in keys]),
                order.classes,
                config=BoxConfig(estimator=order.settings.box_estimator, seed=seed),
                progress=_reporting(say, which),
            )
            value = average_precision_of(
                model, order.settings, order.held_out, order.truth, lambda what: None
            )
            values.append(float("nan") if value is None else value)
        yield values


def _reporting(say: Progress, which: str) -> Callable[[float, str], None]:
    return lambda share, what: say(f"{which}: {what} ({share:.0%})")
