"""What `doubtless simulate` does, without a terminal."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from backend.edges.export import CLASSIFICATION, DETECTION, LeftOut
from backend.settings import Settings
from backend.simulate.source import Source, open_source
from backend.simulate.tasks import BoxTask, LabelTask, Names, Task
from model.backbones import load_backbone
from model.backbones.pyramid import load_pyramid
from model.detection.maps import MapStore
from model.errors import DataError, ModelError
from model.features import FeatureStore
from model.simulation.data import (
    Listing,
    list_images,
)
from model.simulation.parallel import Job, play_all
from model.simulation.provenance import commit, machine, program_digest
from model.simulation.replay import RANDOM, Plan, Playable, Run
from model.simulation.report import Shown, first_rows, plot_file, render, thumbnail
from model.simulation.store import RunStore, write_atomically, writing
from model.simulation.summary import headline, outlook, remarks, summarise

FORMAT = 1
AUTO, MULTILABEL = "auto", "multilabel"
TASKS = (AUTO, CLASSIFICATION, MULTILABEL, DETECTION)
RESULT_FILE, PLOT_FILE, REPORT_FILE = "result.json", "plot.svg", "report.html"
_SET_PREFIX = ".set-"
MOST_BATCH, LEAST_BATCH, ROUNDS = 40, 5, 13


@dataclass(frozen=True, kw_only=True)
class Options:
    """What was asked for on the command line.

    None leaves the choice to the size of the set, or, of a name, to the settings for its kind. The
    steps a detector is trained for cannot be asked for there: the engine knows them best.
    """

    data: str
    out: Path
    images: Path | None = None
    control: str | None = None
    task: str = AUTO
    acquisitions: tuple[str, ...] = ()
    uncertainty: str | None = None
    backbone: str | None = None
    initial: int = 0
    batch: int | None = None
    rounds: int | None = None
    seeds: int = 3
    random_share: float = 0.2
    full: bool = False
    jobs: int = 1
    fresh: bool = False
    training_steps: int | None = None


class Watcher(Protocol):
    """Who is told how far it is."""

    def note(self, text: str) -> None:
        """Something worth reading."""

    def step(self, what: str, done: int, total: int) -> None:
        """So many of `total` parts of `what` are done; first called with what was done before."""

    def finished(self, run: Run) -> None:
        """A run has ended."""


def simulate(options: Options, settings: Settings, watcher: Watcher) -> dict[str, Any]:
    """Replay active learning on labelled data; writes `out` and returns ``result.json``.

    Finished runs are kept as they end: the same call goes on where it was stopped.

    Raises:
        BackendError: the export cannot be used.
        ModelError: the set, a name or a number cannot be used, or `out` holds another replay.
    """
    source = _opened(options, settings)
    task = _task(source, options, settings)
    for note in source.notes:
        watcher.note(note)
    store = RunStore(options.out)
    with store.alone():
        watcher.note(f"reading {source.name}")
        listing = list_images(source.read)
        unlabelled = source.unlabelled + listing.unlabelled
        if unlabelled and listing.keys:
            watcher.note(f"{unlabelled} images without a label are not used")
        # Before minutes of features: whether the set is of any use.
        outline = task.outline(source.name, listing)
        _check_task(options, outline.task)
        _plan(options, task.names, outline)
        data, left_out = _with_features(task, source, listing, options, settings, watcher)
        plan = _plan(options, task.names, data)
        store.begin(_identity(task.names, plan, data), fresh=options.fresh)
        rules = task.names.rules
        wanted = [Job(rule, seed) for seed in range(options.seeds) for rule in rules]
        _play(wanted, plan, data, options, store, watcher)
        runs = {rule: [_finished(store, rule, s) for s in range(options.seeds)] for rule in rules}
        result = _result(options, task.names, plan, data, runs, store, left_out)
        _write(options.out, result, runs, _first_images(source, data, runs))
    return result


def _opened(options: Options, settings: Settings) -> Source:
    source = open_source(
        options.data,
        settings,
        images=options.images,
        control=options.control,
        task=options.task,
    )
    if DETECTION in (source.task, options.task):
        _check_task(options, source.task)
    return source


def _check_task(options: Options, found: str) -> None:
    if options.task in (AUTO, found):
        return
    has = {
        CLASSIFICATION: "its images have one label each",
        MULTILABEL: "its images may have several labels, or none",
        DETECTION: "its images have boxes",
    }[found]
    raise DataError(
        f"{options.data} is a set for {found}, not {options.task}: {has}; leave --task out, or "
        f"say --task {found}"
    )


def _task(source: Source, options: Options, settings: Settings) -> Task:
    """The kind of set it is, with the names checked."""
    if options.seeds < 1:
        raise ModelError(f"seeds is {options.seeds}; it must be at least 1")
    features = FeatureStore(settings.cache_path / "features")
    if source.task == DETECTION:
        return BoxTask(
            _rules(options, settings.box_acquisition),
            options.uncertainty or settings.box_estimator,
            options.backbone or settings.pyramid,
            maps=MapStore(settings.cache_path / "maps"),
            features=features,
            load=lambda name: load_pyramid(name, settings.cache_path, threads=options.jobs),
        )
    return LabelTask(
        _rules(options, settings.acquisition),
        options.uncertainty or settings.estimator,
        options.backbone or settings.backbone,
        features=features,
        load=lambda name: load_backbone(name, settings.cache_path, threads=options.jobs),
    )


def _rules(options: Options, default: str) -> list[str]:
    """The rules to compare, `random` first, each once."""
    named = options.acquisitions or default.split(",")
    return list(dict.fromkeys([RANDOM, *filter(None, map(str.strip, named))]))


def _plan(options: Options, names: Names, data: Playable) -> Plan:
    """Fill in what was not said: a batch of 2 % of the pool, and half the pool at most."""
    pool = len(data.pool)
    batch = options.batch
    if batch is None:
        batch = min(MOST_BATCH, max(LEAST_BATCH, pool // 50))
    rounds = options.rounds
    if rounds is None:
        rounds = min(ROUNDS, max(1, (pool // 2 - options.initial) // max(1, batch)))
    plan = Plan(
        initial=options.initial,
        batch=batch,
        rounds=rounds,
        random_share=options.random_share,
        uncertainty=names.uncertainty,
        training_steps=options.training_steps,
    )
    plan.check(data)
    return plan


def _with_features(
    task: Task,
    source: Source,
    listing: Listing,
    options: Options,
    settings: Settings,
    watcher: Watcher,
) -> tuple[Playable, list[LeftOut]]:
    """The set as networks see its readable images, and what is left out."""
    with (
        _seconds_kept(options.out),
        writing(settings.cache_path, "set DOUBTLESS_CACHE to another one"),
    ):
        broken = task.compute(source, listing.keys, watcher.step)
    left_out = [
        LeftOut(name, broken[key])
        for name, key in zip(listing.names, listing.keys, strict=True)
        if key in broken
    ]
    for item in [*source.left_out, *left_out][:5]:
        watcher.note(f"left out: {item.image}: {item.reason}")
    if len(source.left_out) + len(left_out) > 5:
        watcher.note(f"{len(source.left_out) + len(left_out)} images are left out in all")
    listing = listing.without(set(broken))
    if not listing.keys:
        raise DataError(f"none of the labelled images of {source.name} can be read")
    return task.assemble(source.name, listing), [*source.left_out, *left_out]


@contextmanager
def _seconds_kept(out: Path) -> Iterator[None]:
    """Keep what features took over all starts, stopped ones too: the cache has what those did."""
    begin = time.perf_counter()
    try:
        yield
    finally:
        path = out / "runs" / ".features"
        with writing(out):
            before = float(path.read_text()) if path.is_file() else 0.0
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, repr(before + time.perf_counter() - begin))


def _identity(names: Names, plan: Plan, data: Playable) -> dict[str, Any]:
    """All that two runs must share to be compared; seeds and rules may be added later."""
    return {
        "format": FORMAT,
        "data": data.digest,
        "backbone": f"{names.backbone} ({names.code})",
        **asdict(plan),
        "program": program_digest(),
    }


def _play(
    wanted: Sequence[Job],
    plan: Plan,
    data: Playable,
    options: Options,
    store: RunStore,
    watcher: Watcher,
) -> None:
    """Play what is not there yet."""
    missing = [
        job for job in wanted if job.acquisition and store.load(job.acquisition, job.seed) is None
    ]
    if options.full and store.load_full() is None:
        missing.append(Job(None, 0))
    steps = len(plan.steps(len(data.pool)))
    total = steps * len(wanted)
    done = total - steps * sum(job.acquisition is not None for job in missing)
    watcher.step("replay", done, total)
    if not missing:
        return

    def point() -> None:
        nonlocal done
        done = min(done + 1, total)
        watcher.step("replay", done, total)

    def finished(job: Job) -> None:
        run = store.load(job.acquisition, job.seed) if job.acquisition else None
        if run is not None:
            watcher.finished(run)

    # Beside the results: the folder for temporary files may be memory, and features are large.
    for left in options.out.glob(f"{_SET_PREFIX}*"):
        shutil.rmtree(left, ignore_errors=True)  # of a start that was killed; we are alone here
    with writing(options.out):
        kept = tempfile.TemporaryDirectory(prefix=_SET_PREFIX, dir=options.out)
    with kept as folder:
        with writing(options.out):
            data.save(Path(folder))
        play_all(
            missing,
            plan,
            data=Path(folder),
            out=options.out,
            processes=options.jobs,
            on_point=point,
            on_done=finished,
        )


def _finished(store: RunStore, rule: str, seed: int) -> Run:
    run = store.load(rule, seed)
    if run is None:
        raise ModelError(f"{store.path(rule, seed)} vanished while it was needed; start again")
    return run


def _result(
    options: Options,
    names: Names,
    plan: Plan,
    data: Playable,
    runs: Mapping[str, Sequence[Run]],
    store: RunStore,
    left_out: Sequence[LeftOut],
) -> dict[str, Any]:
    """The content of ``result.json``."""
    found = summarise(runs)
    features_s = float((options.out / "runs" / ".features").read_text())
    seconds = {"features": round(features_s, 1), **found.pop("seconds")}
    result: dict[str, Any] = {
        "task": data.task,
        "metric": data.metric,
        "data": data.name,
        "backbone": names.backbone,
        "seeds": options.seeds,
        "uncertainty": plan.uncertainty,
        "initial": plan.initial,
        "batch": plan.batch,
        "rounds": plan.rounds,
        "random_share": plan.random_share,
        "images": {
            "pool": len(data.pool),
            "test": int(data.test.sum()),
            "classes": len(data.classes),
            "split": data.split,
        },
        **found,
    }
    if options.full:
        result["full"] = store.load_full()
    return result | {
        "seconds": seconds,
        "left_out": [asdict(item) for item in left_out],
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "commit": commit(),
    }


def _first_images(
    source: Source, data: Playable, runs: Mapping[str, Sequence[Run]]
) -> dict[str, list[Shown]]:
    """Thumbnails of what each rule asked for first, in one pass over the set."""
    rows = {rule: first_rows(found[0]) for rule, found in runs.items()}
    wanted = {data.names[row] for chosen in rows.values() for row in chosen}
    pictures: dict[str, str] = {}
    for item in source.read():
        if item.name in wanted:
            pictures[item.name] = thumbnail(item.data)
            if len(pictures) == len(wanted):
                break
    return {
        rule: [
            Shown(
                data.caption(row),
                data.names[row],
                pictures.get(data.names[row], ""),
                data.kinds(row),
            )
            for row in chosen
        ]
        for rule, chosen in rows.items()
    }


def _write(
    out: Path,
    result: Mapping[str, Any],
    runs: Mapping[str, Sequence[Run]],
    first: Mapping[str, Sequence[Shown]],
) -> None:
    with writing(out):
        write_atomically(out / RESULT_FILE, json.dumps(result, indent=1, allow_nan=False) + "\n")
        write_atomically(out / PLOT_FILE, plot_file(result))
        write_atomically(out / REPORT_FILE, render(result, runs, first))


def summary_lines(result: Mapping[str, Any], out: Path) -> list[str]:
    """What to tell a person at the end."""
    return [
        *filter(None, [headline(result), remarks(result), outlook(result)]),
        f"Report: {out / REPORT_FILE}",
    ]
