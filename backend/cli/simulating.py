"""``doubtless simulate``: its options, and what it prints."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from backend.settings import Settings
from model.acquisition import ACQUISITIONS
from model.backbones import BACKBONES
from model.backbones.pyramid import PYRAMIDS
from model.detection.acquisition import BOX_ACQUISITIONS
from model.detection.passes import BOX_ESTIMATORS
from model.uncertainty import ESTIMATORS

console = Console()
problems = Console(stderr=True)


@click.option(
    "--data",
    required=True,
    metavar="DIR|EXPORT.json",
    help="One folder for each class, a packed set, a Label Studio JSON export, or 'digits'; with "
    "labels or with boxes.",
)
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Folder for the results."
)
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    help="Folder of an export's images; without, the export's own.",
)
@click.option(
    "--control",
    help="Choices tag of an export, or the tag that labels its boxes; without, all boxes, or the "
    "Choices tag answered most.",
)
@click.option(
    "--task",
    type=click.Choice(["auto", "classification", "multilabel", "detection"]),
    default="auto",
    show_default=True,
    help="What the set has to be for; with auto, what it is. Segmentation cannot be replayed yet.",
)
@click.option(
    "--acquisition",
    help="Rules to compare, with commas (DOUBTLESS_ACQUISITION, of boxes "
    "DOUBTLESS_BOX_ACQUISITION); random is always there. One or more of: "
    f"{', '.join(sorted(ACQUISITIONS))}. Of boxes: {', '.join(sorted(BOX_ACQUISITIONS))}.",
)
@click.option(
    "--uncertainty",
    help=f"Estimator (DOUBTLESS_ESTIMATOR), one of: {', '.join(sorted(ESTIMATORS))}. Of boxes "
    f"(DOUBTLESS_BOX_ESTIMATOR): {', '.join(sorted(BOX_ESTIMATORS))}.",
)
@click.option(
    "--backbone",
    help=f"Pretrained network (DOUBTLESS_BACKBONE), one of: {', '.join(sorted(BACKBONES))}. Of "
    f"boxes (DOUBTLESS_PYRAMID): {', '.join(sorted(PYRAMIDS))}.",
)
@click.option(
    "--initial",
    type=int,
    default=0,
    show_default=True,
    help="Random labels (of boxes: images) to start from, the same for all rules; with 0 each rule "
    "chooses its first batch itself, as in a new project.",
)
@click.option(
    "--batch", type=int, help="Labels, or images, a round; without, 2 % of the images, 5 to 40."
)
@click.option("--rounds", type=int, help="Rounds; without, 13, or half the images.")
@click.option("--seeds", type=int, default=3, show_default=True, help="Repetitions.")
@click.option(
    "--random-share",
    type=float,
    help="Part of each round drawn at random (DOUBTLESS_RANDOM_SHARE).",
)
@click.option("--full", is_flag=True, help="Also measure with all training labels.")
@click.option(
    "--jobs", type=click.IntRange(min=1), help="Processes at once; without, one for each core."
)
@click.option("--fresh", is_flag=True, help="Throw away finished runs in --out.")
def simulate(as_json: bool, **given: Any) -> None:
    """Replay active learning on labelled data: what would choosing have saved?

    Writes result.json, plot.svg and report.html into --out. Finished runs are kept there: the same
    command goes on where it was stopped, and more --seeds or rules add to what is there.
    """
    from backend.simulate.run import Options, summary_lines
    from backend.simulate.run import simulate as run
    from backend.simulate.view import Watching

    rules, share = given.pop("acquisition"), given.pop("random_share")
    settings = Settings.load()
    options = Options(
        acquisitions=tuple(rules.split(",")) if rules else (),
        random_share=settings.random_share if share is None else share,
        jobs=given.pop("jobs") or os.cpu_count() or 1,
        **given,
    )
    with Watching(problems, quiet=as_json) as watcher:
        try:
            result = run(options, settings, watcher)
        except KeyboardInterrupt:
            watcher.note(f"Stopped. Finished runs are in {options.out}; the same command goes on.")
            raise
    if as_json:
        click.echo(json.dumps(result))
        return
    for line in summary_lines(result, options.out):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
