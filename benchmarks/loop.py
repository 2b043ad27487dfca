"""Labels saved through a real Label Studio's queue, beside what a simulation promises.

    ./run bench loop --data SET [--budget 520 --batch 40 --random-share 0] --simulated result.json

Imports the training images of a set into a real Label Studio, connects a real stack, and submits
the true label of whatever the queue serves, a batch at a time, each time until the version trained
on it is live. Every version is measured on the test images. The ratio is that of `simulate`: the
budget, over the labels at which this curve reaches what random order has at the end of its.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "benchmarks")]

from common import features_of, header, write  # noqa: E402
from support.real import Project, Server, Stack, until  # noqa: E402

from model.bundle import Bundle  # noqa: E402
from model.datasets import read_dataset  # noqa: E402
from model.simulation.summary import ratio  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", required=True)
    parser.add_argument("--budget", type=int, default=520)
    parser.add_argument("--batch", type=int, default=40)
    parser.add_argument("--random-share", type=float, default=0.0)
    parser.add_argument("--backbone", default="efficientnet-lite2+lite0")
    parser.add_argument("--acquisition", default="auto")
    parser.add_argument("--simulated", type=Path, required=True, help="a result.json of simulate")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    promised = json.loads(options.simulated.read_text())
    data = features_of(options.data, options.backbone)
    test = data.split == "test"
    with tempfile.TemporaryDirectory(prefix="doubtless-loop-") as folder:
        server = Server(Path(folder) / "label-studio")
        stack = Stack(
            Path(folder) / "home", retrain_after=options.batch, retrain_growth=0.0,
            quiet_s=100_000, reconcile_s=3600, random_share=options.random_share,
            backbone=options.backbone, acquisition=options.acquisition,
        )  # fmt: skip
        try:
            curve = label_all(server, stack, options, data, test)
        finally:
            stack.stop()
            server.stop()
    write(report(curve, promised, options, data.name), options.out)


def label_all(
    server: Server, stack: Stack, options: argparse.Namespace, data: Any, test: Any
) -> list[dict[str, Any]]:
    """Label through the queue; labels and test accuracy of every version."""
    project = Project(server, classes=data.classes, title="loop")
    import_images(project, options.data)
    key = project.connect(stack)
    version = project.wait_for_version(prefix="cold", seconds=1800)
    say(f"{len(project.truth)} images, {version} is live")
    curve: list[dict[str, Any]] = []
    while (done := curve[-1]["labels"] if curve else 0) < options.budget:
        until(lambda: not stack.database.runs(key, status=("running",)), 600, "the tags are there")
        project.label(min(options.batch, options.budget - done))
        version = project.wait_for_version(version, prefix="v", seconds=600)
        found = next(v for v in stack.database.versions(key) if v.name == version)
        bundle = Bundle.load(stack.home / "artifacts" / "versions" / key / str(found.bundle))
        order = np.array([bundle.classes.index(c) for c in data.classes])
        said = bundle.predict(data.features[test]).label
        accuracy = float((said == order[data.labels[test]]).mean())
        curve.append({"labels": found.labels, "accuracy": round(accuracy, 4), "version": version})
        say(f"{version}: {found.labels} labels, accuracy {accuracy:.3f}")
    return curve


def import_images(project: Project, source: str) -> None:
    """Upload the training images; a number in each file's name leads to its true label."""
    items = [item for item in read_dataset(source) if item.split != "test" and item.label]
    suffix = Path(items[0].name).suffix
    files = [(f"item{n:06d}{suffix}", item.data) for n, item in enumerate(items)]
    project.api.upload_files(project.id, files)
    for task in project.api.tasks(project.id):
        named = re.search(r"item(\d+)\.", str(task.data.get("image", "")))
        assert named, task.data
        project.truth[task.id] = str(items[int(named.group(1))].label)


def report(
    curve: list[dict[str, Any]], promised: dict[str, Any], options: argparse.Namespace, name: str
) -> dict[str, Any]:
    """The curve beside the promise."""
    random = promised["curves"]["random"]
    at = [i for i, n in enumerate(random["labels"]) if n <= options.budget][-1]
    got = ratio(
        np.array([p["labels"] for p in curve]),
        np.array([p["accuracy"] for p in curve]),
        float(random["mean"][at]),
        options.budget,
    )
    expected = promised["labels_saved_ratio"][options.acquisition]
    return header(
        benchmark="loop", data=name, backbone=options.backbone, acquisition=options.acquisition,
        batch=options.batch, budget=options.budget, random_share=options.random_share,
        curve=curve, random_at_budget=random["mean"][at], labels_saved_ratio=got,
        simulated_ratio=expected,
        share_of_promise=None if got is None else round(got / expected, 3),
    )  # fmt: skip


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
