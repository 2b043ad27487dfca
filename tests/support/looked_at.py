"""Facts as weeks of labelling leave them, written straight into a database."""

from __future__ import annotations

import io
import time

import numpy as np
from PIL import Image, ImageDraw

from backend.edges.labels.boxes import Drawing, Drawn, Region, encode, encode_prediction
from backend.edges.labels.config import parse_config
from backend.records import AuditItem, Compared, Consensus, Contradicted, Draw, Score, Version
from model.annotators.base import Annotator

BOXES = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="box" toName="image">'
    '<Label value="cell"/><Label value="platelet"/></RectangleLabels></View>'
)
LONG_TITLE = "Blood cells under the microscope, second series of the autumn, with boxes"
SIZE = (400, 300)
DISCS = ((0.12, 0.2, 0.42, 0.62), (0.55, 0.4, 0.85, 0.85))


def photograph(seed: int) -> bytes:
    """Discs at `DISCS` on a bright ground."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", SIZE, tuple(int(v) for v in rng.integers(190, 240, 3)))
    draw = ImageDraw.Draw(image)
    for box in DISCS:
        colour = tuple(int(v) for v in rng.integers(60, 170, 3))
        draw.ellipse([b * side for b, side in zip(box, SIZE * 2, strict=True)], fill=colour)
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


def versions(key: str, config_hash: str, n: int, **more) -> list[Version]:
    made = [
        Version(
            project=key, number=1, name="cold-1", kind="cold", status="superseded",
            reason="nothing is published yet", created_at=time.time() - 90_000,
            published_at=time.time() - 90_000, changes=0, labels=0, config_hash=config_hash,
            bundle=None, metrics={}, on_platform=False,
        )
    ]  # fmt: skip
    for number in range(2, n + 2):
        labels = 12 * (number - 1)
        accuracy = 0.95 - 0.5 * np.exp(-labels / 45)
        status = "live" if number == n + 1 else "kept" if number == 5 else "superseded"
        accuracy -= 0.09 if status == "kept" else 0.0
        half = 0.9 / np.sqrt(labels)
        interval = [max(0.0, accuracy - half), min(1.0, accuracy + half)]
        pool = {"value": accuracy, "low": interval[0], "high": interval[1], "sentence":
                f"Accuracy on all images: {100 * accuracy:.1f} %."}  # fmt: skip
        bins = [
            {"count": labels // 8, "stated": p, "observed": p * 0.94, "low": max(0.0, p - 0.2),
             "high": min(1.0, p + 0.12)}
            for p in (0.34, 0.5, 0.62, 0.71, 0.8, 0.88, 0.94, 0.98)
        ]  # fmt: skip
        made.append(
            Version(
                project=key, number=number, name=f"v{number}", kind="trained", status=status,
                reason="no better than v4 on labels drawn by chance" if status == "kept" else
                "better on labels drawn by chance",
                created_at=time.time() - 90_000 + 9_000 * number,
                published_at=None if status == "kept" else time.time() - 89_900 + 9_000 * number,
                changes=labels, labels=labels, config_hash=config_hash, bundle=f"v{number}",
                metrics={
                    "metric": "accuracy", "random_accuracy": float(accuracy),
                    "random_accuracy_interval": interval, "ece": 0.041, "reliability": bins,
                    **({} if status == "kept" else {"pool_accuracy": pool}), **more,
                },
                on_platform=False,
            )
        )  # fmt: skip
    return made


def fill(
    database, key: str, tasks: list[int], texts: list[str], spec, *, drawn: str = "", **more
) -> None:
    """Versions, labels of the first third of the tasks, and what the live version says of all.

    Where boxes are `drawn`, all labels are that text.
    """
    rng = np.random.default_rng(5)
    made = versions(key, spec.config_hash, 8, **more)
    for version in made:
        database.add_version(version)
    live = made[-1].number
    now = time.time()
    database.update_project(
        key, live_version=live, next_version=live + 1, synced_at=now, full_sync_at=now,
        sync_requested_at=None, changes=len(tasks) // 3, changed_at=now,
    )  # fmt: skip
    labelled = tasks[: len(tasks) // 3]
    database.put_annotations(
        key,
        [
            {"annotation_id": 10_000 + i, "task_id": i, "label": drawn or texts[n % len(texts)],
             "cancelled": False, "completed_by": 1, "updated_at": "2026-02-01T00:00:00Z"}
            for n, i in enumerate(labelled)
        ],
    )  # fmt: skip
    database.add_draws(
        key, [Draw(task_id=i, kind="random", version=1, probability=0.2) for i in tasks[::5]]
    )
    rows, compared = [], []
    for n, i in enumerate(tasks):
        some = rng.choice(len(labelled), min(3, len(labelled)), replace=False)
        near = [(labelled[int(row)], 0.9 - 0.2 * k) for k, row in enumerate(some)]
        compared.append(Compared(task_id=i, novelty=float(rng.random()), nearest=near))
        p = float(rng.beta(5, 1.4))
        total = 1.1 * (1 - p)
        epistemic = total * float(rng.random())
        rows.append(
            Score(task_id=i, label=texts[n % len(texts)], score=p, p_right=p, total=total,
                  aleatoric=total - epistemic, epistemic=epistemic)
        )  # fmt: skip
    database.put_scores(key, live, rows)
    database.put_compared(key, compared)
    database.put_label_errors(
        key, live,
        [
            Contradicted(task_id=i, p_right=0.02 + 0.1 * n, label=drawn or texts[n % len(texts)],
                         why="1 cell overlooked" if drawn else "probably blue")
            for n, i in enumerate(labelled[:3])
        ],
    )  # fmt: skip


def fill_audit(
    database, key: str, *, status: str = "certified", size: int = 8, per_class: bool = False
) -> int:
    """An audit of the live version, open or with what it proved of its surest tasks; its id."""
    live = database.project(key).live_version
    touched = database.touched_tasks(key)
    sure = sorted(
        (s for i, s in database.scores(key, live).items() if i not in touched),
        key=lambda s: -s.p_right,
    )
    items = [
        AuditItem(task_id=s.task_id, rank=n, state="drawn" if n % 4 == 0 else "", said=s.label)
        for n, s in enumerate(sure[: size + 4])
    ]
    plan = {"pool": len(sure), "sizes": [size, size + 4], "audit": 3, "confidence": 0.95}
    proof = {"size": size}
    if per_class:  # as if these were the surest of two classes
        halves = [{"pool": 20, "sizes": [n], "audit": 2, "confidence": 0.975} for n in (size, 4)]
        names = ("green", "blue")
        plan["parts"] = [{"name": name, **half} for name, half in zip(names, halves, strict=True)]
        proof["parts"] = [{"name": "green", "size": size}, {"name": "blue", "size": 0}]
    audit = database.add_audit(
        {
            "project": key, "version": live, "attempt": len(database.audits(key)),
            "status": "open", "max_error": 0.05, "confidence": 0.95, "of": "accepted",
            "plan": plan,
        },
        items,
    )  # fmt: skip
    if status != "open":
        said = f"{size} of {len(sure)} predictions may be accepted: at most 5.0% of them are wrong"
        database.update_audit(audit, status=status, certificate=proof, reason=said)
    return audit


def fill_installation(installation) -> str:
    """Give an `Installation` a history, and a second project with boxes; returns its key."""
    database, platform = installation.database, installation.platform
    tasks = sorted(platform.data)
    database.put_tasks(installation.key, {i: platform.data[i]["image"] for i in tasks})
    for n, i in enumerate(tasks):
        installation.double.files[platform.data[i]["image"]] = photograph(n)
    database.mark_images(
        installation.key, {i: f"h{i}" for i in tasks[:-2]},
        {i: "the file is torn after 1,200 bytes" for i in tasks[-2:]},
    )  # fmt: skip
    spec = parse_config(database.project(installation.key).label_config).spec
    assert spec is not None
    counts = {"red": 21, "green": 40, "blue": 35}
    fill(database, installation.key, tasks, ["red", "green", "blue"], spec, class_counts=counts,
         confusions=[{"label": "red", "said": "blue", "count": 4},
                     {"label": "green", "said": "blue", "count": 1}])  # fmt: skip
    fill_audit(database, installation.key)
    database.put_annotators(
        installation.key,
        [
            Annotator(id=7, labels=31, shared=24, agreement=0.71, kappa=0.56, quality=0.74,
                      low=0.58, high=0.87),
            Annotator(id=3, labels=40, shared=33, agreement=0.88, kappa=0.81, quality=0.95,
                      low=0.84, high=0.99),
            Annotator(id=12, labels=5, shared=0, agreement=None, kappa=None, quality=None,
                      low=None, high=None),
        ],
    )  # fmt: skip
    database.put_consensus(
        installation.key,
        [Consensus(task_id=tasks[0], label="blue", p_right=0.41, votes=[(1, "red")]),
         Consensus(task_id=tasks[1], label="green", p_right=0.83, votes=[(1, "green")]),
         Consensus(task_id=tasks[2], label="blue", p_right=0.99, votes=[(1, "blue")])],
    )  # fmt: skip
    return fill_boxes(database, platform, installation.double.url)


def fill_boxes(database, platform, host: str) -> str:
    """A project of boxes over the tasks of a platform; returns its key."""
    tasks = sorted(platform.data)
    drawn = parse_config(BOXES).spec
    assert drawn is not None
    boxes = database.connect_project(
        host=host, platform_id=2, uid="2.1767225600", title=LONG_TITLE,
        token="token1", label_config=BOXES, config_hash=drawn.config_hash,
        problems=["<Text name=\"note\"> is not predicted"],
    )  # fmt: skip
    database.put_tasks(boxes.key, {i: platform.data[i]["image"] for i in tasks})
    database.mark_images(boxes.key, {i: f"h{i}" for i in tasks}, {})
    regions = [
        Region(label=label, box=box, p=p, spread=(2.0, 2.0, 2.0, 2.0), entropy=0.4)
        for label, box, p in zip(("cell", "platelet"), DISCS, (0.9, 0.45), strict=True)
    ]
    fill(
        database, boxes.key, tasks, [encode_prediction(regions, SIZE)], drawn,
        drawn=encode(Drawing((Drawn("cell", DISCS[0]), Drawn("platelet", DISCS[1])))),
        class_counts={"cell": 300, "platelet": 41}, ap50_per_class={"cell": 0.93, "platelet": 0.71},
    )  # fmt: skip
    return boxes.key
