"""Plays the annotator: the true labels, in the order in which Label Studio serves the tasks."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from rich.console import Console

from backend import commands
from backend.demo.curve import Point, RandomCurve, labels_saved_ratio, mean_gain
from backend.demo.data import DemoImage, original_name, true_result
from backend.demo.options import Options
from backend.demo.standing import Standing, check_stopping, pause, wait
from backend.demo.view import LiveView, summary, write_result
from backend.edges.labels.config import TaskSpec, parse_config
from backend.edges.labelstudio_api import LabelStudio
from backend.errors import PlatformError
from backend.retraining import round_size
from model.errors import UnreadableImageError

FIRST_ORDER_LIMIT_S = 1800.0
PATIENCE = 10


class Annotator:
    """Labels as many images as wanted, measures every version, and tells what was gained.

    Args:
        standing: of the demonstration.
        platform: where labels are submitted.
        options: as they were given.
        until: labels to give.
        log: file that may say why something does not happen.
        console: where the result is printed.
    """

    def __init__(
        self,
        standing: Standing,
        platform: LabelStudio,
        options: Options,
        *,
        until: int,
        log: Path,
        console: Console,
    ) -> None:
        self._standing, self._platform, self._options = standing, platform, options
        self._until, self._log, self._console = until, log, console
        self._state, self._judge = standing.state, standing.judge

    def play(self) -> int:
        """Label, train, measure, compare with random order; returns the exit code."""
        began = time.monotonic()
        self._state.points = self._standing.remembered_points()
        held_out = 0
        with LiveView(self._console, self._state) as view:
            if self._standing.data.held_out:
                held_out = self._judge.prepare(self._standing.shown_in(view))
            self._await_first_order(view)
            self._label_until_enough(view)
            points = self._state.points
            random = self._random_order(points, view) if points else None
            self._state.doing = ""
        if not points:
            self._say("There are no held-out images with labels, so there is no curve to show.")
            return 0
        judge = self._judge
        self._console.print(
            summary(
                points, random,
                held_out=held_out, until=self._until, metric=judge.metric, unit=judge.unit,
            )
        )  # fmt: skip
        if random is not None and judge.compared(random):
            self._say(judge.compared(random))
        if self._options.result is not None:
            seconds = round(time.monotonic() - began, 1)
            write_result(
                self._options.result, self._result(points, random, held_out) | {"seconds": seconds}
            )
            self._say(f"Written to {self._options.result}")
        return 0

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False)

    def _result(
        self, points: list[Point], random: RandomCurve | None, held_out: int
    ) -> dict[str, Any]:
        judge, data = self._judge, self._standing.data
        return {
            "task": judge.task, "metric": judge.metric, "data": self._options.data,
            "backbone": judge.backbone, "classes": list(data.classes),
            "pool": len(data.pool), "held_out": held_out, "until": self._until,
            "points": self._standing.points_as_json(),
            "random": None if random is None else random.to_json(),
            "mean_gain": random and mean_gain(points, random),
            # Of one order it would be chance; see `view.summary`.
            "labels_saved_ratio": (
                labels_saved_ratio(points, random) if random and random.seeds > 1 else None
            ),
        }  # fmt: skip

    def _random_order(self, points: list[Point], view: LiveView) -> RandomCurve | None:
        seeds = self._judge.seeds if self._options.seeds is None else self._options.seeds
        if seeds == 0:
            return None
        self._say("Computing what random order would have given …")
        labels = sorted({point.labels for point in points})
        return self._judge.random(
            labels, until=self._until, seeds=seeds, progress=self._standing.shown_in(view)
        )

    def _await_first_order(self, view: LiveView) -> None:
        """Features are computed and the first order is published before anybody labels."""
        standing = self._standing

        def show() -> None:
            ready = standing.database.task_counts(standing.project.key)["ready"]
            self._state.doing = f"looking at the images: {ready} of {len(standing.data.pool)}"
            standing.refresh(keep_doing=True)
            view.update()

        wait(
            standing.stack,
            lambda: standing.live_version() is not None,
            limit_s=FIRST_ORDER_LIMIT_S,
            why=f"no order was published within {FIRST_ORDER_LIMIT_S / 60:.0f} minutes; "
            f"the log {self._log} may say why",
            meanwhile=show,
        )

    def _label_until_enough(self, view: LiveView) -> None:
        standing = self._standing
        spec = parse_config(standing.project.label_config).spec
        assert spec is not None, "our own labeling config"
        truth = standing.data.truth
        submitted = standing.database.label_count(standing.project.key)
        stumbles = 0
        self._train_when_due(submitted, view)  # it was stopped while it waited for this
        while submitted < self._until:
            check_stopping(standing.stack)
            try:
                task = self._platform.next_task(standing.project.platform_id)
                if task is None:
                    break
                image = truth.get(original_name(str(task.data.get("image"))))
                result = None if image is None else _result_of(spec, image)
                if result is None:
                    self._platform.skip(task.id)
                    continue
                self._platform.submit(task.id, result)
            except PlatformError as exc:
                # With SQLite, Label Studio answers 500 ("database is locked") when two writes
                # meet, whoever they are from. A person tries again, and so do we.
                stumbles += 1
                # On a machine busy with training it may not answer in time either.
                if (exc.code is not None and exc.code < 500) or stumbles > PATIENCE:
                    raise
                pause(standing.stack, 0.5)
                continue
            stumbles = 0
            submitted += 1
            self._state.labels, self._state.doing = submitted, standing.idle
            view.update()
            self._train_when_due(submitted, view)
        if submitted > standing.trained_labels():
            last = "the last labels of the demonstration"
            commands.train(standing.settings, standing.project, last)
            self._await_training(submitted, view)
        elif not self._state.points:
            standing.measure(submitted, view)

    def _train_when_due(self, submitted: int, view: LiveView) -> None:
        """Wait for a version where the labels so far are enough for a training."""
        rules = self._standing.settings
        due = round_size(
            submitted, retrain_after=rules.retrain_after, retrain_growth=rules.retrain_growth
        )
        if submitted - self._standing.trained_labels() >= due:
            self._await_training(submitted, view)

    def _await_training(self, submitted: int, view: LiveView) -> None:
        """Wait like somebody who labels slowly: until all labels so far are in a version."""
        standing = self._standing

        def show() -> None:
            standing.refresh()
            view.update()

        limit_s = self._judge.training_limit_s
        wait(
            standing.stack,
            lambda: standing.trained_labels() >= submitted,
            limit_s=limit_s,
            why=f"{submitted} labels were not trained on within {limit_s:.0f} s; "
            f"the log {self._log} may say why",
            meanwhile=show,
            every_s=0.2,
        )
        standing.refresh()
        standing.measure(submitted, view)
        view.update()


def _result_of(spec: TaskSpec, image: DemoImage) -> list[dict[str, Any]] | None:
    """What is submitted; None where an image has boxes and its size cannot be read."""
    try:
        return true_result(spec, image)
    except UnreadableImageError:
        return None
