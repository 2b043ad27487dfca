"""Accepting images whose regions are mostly right: what is drawn, judged, accepted and watched."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.boxes import rectangle
from support.world import World

from backend import acceptance, audits
from backend.audit_plans import OpenTask, of_regions
from backend.edges.labels import boxes
from backend.edges.labels.boxes import Drawing, Drawn, Region, encode_prediction
from backend.edges.labels.config import parse_config
from backend.errors import NotNowError
from backend.records import AuditItem, Score
from backend.region_audits import are_wrong, draw_regions, look, share_missed
from model.acceptance.plan import ALL, Promise

CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="box" toName="image">'
    '<Label value="cup"/><Label value="key"/></RectangleLabels></View>'
)
PROMISE = Promise(0.05, 0.9)
SPEC = parse_config(CONFIG).require_spec()
PLACES = 12


def place(n: int) -> tuple[float, float, float, float]:
    """One of twelve places apart from each other."""
    x, y = 0.2 * (n % 4) + 0.1, 0.25 * (n // 4) + 0.1
    return (x, y, x + 0.15, y + 0.2)


def region(n: int, p: float = 0.97, label: str = "cup") -> Region:
    return Region(label, place(n), p, (1.0, 1.0, 1.0, 1.0), 0.1)


def said(*regions: Region) -> str:
    return encode_prediction(regions, (100, 100))


def drew(*objects: tuple[str, int]) -> str:
    return boxes.encode(Drawing(tuple(Drawn(label, place(n)) for label, n in objects)))


def test_regions_of_an_image_are_judged_by_what_people_drew() -> None:
    text = said(region(0, 0.9), region(1, 0.8), region(2, 0.7))
    seen = look(SPEC, text, [drew(("cup", 0), ("key", 1), ("cup", 5))])
    assert seen.right.tolist() == [True, False, False]  # the second is of another class
    assert (seen.objects, seen.missed) == (3, 2)
    skipped = look(SPEC, text, [])
    assert skipped.right.tolist() == [False] * 3  # what nobody judged does not count as right
    gone = look(SPEC, said(region(0, label="spoon")), [drew(("cup", 0))])
    assert gone.right.tolist() == [False]


def test_what_was_missed_is_estimated_whatever_is_drawn_most() -> None:
    """Images with many regions are drawn more often; the estimate is of all images alike."""
    crowded = look(SPEC, said(*map(region, range(8))), [drew(*(("cup", n) for n in range(8)))])
    lonely = look(SPEC, said(region(0)), [drew(("cup", 0), ("cup", 1))])
    drawn = [[n, 0, n] for n in range(8)] + [[8, 1, 0]]  # every region of both
    assert share_missed(drawn, {0: crowded, 1: lonely}) == pytest.approx(1 / 10)
    assert share_missed([], {}) is None
    assert are_wrong(drawn, {1: lonely}) == {8: False}


def pool(n: int = 1000, *, seed: int = 0) -> list[OpenTask]:
    rng = np.random.default_rng(seed)
    found = []
    for task in range(n):
        p = np.clip(1.0 - 0.1 * task / n + rng.normal(0, 0.01, int(rng.integers(0, 9))), 0.3, 0.99)
        found.append(
            OpenTask(float(p.prod()), task, said(*(region(k, v) for k, v in enumerate(p))))
        )
    return found


def test_drawn_regions_are_those_of_the_images_that_are_asked_for() -> None:
    tasks = pool()
    planned = of_regions(tasks, PROMISE, audit=None, reach=None, seed=3)
    assert planned is not None
    facts, items = planned.facts, planned.items
    found = {task.task_id: boxes.decode_prediction(task.said).regions for task in tasks}
    assert facts["pool"] == sum(map(len, found.values()))
    assert facts["regions"]["of_images"] == sum(1 for regions in found.values() if regions)
    every = [(i.rank, k) for i in items for k in range(len(found[i.task_id]))]
    assert len(every) == facts["sizes"][-1]
    drawn = facts["regions"]["drawn"]
    assert len(drawn) == facts["audit"] == len({rank for rank, *_ in drawn})
    assert all(every[rank] == (image, number) for rank, image, number in drawn)
    assert {i.rank for i in items if i.state == "drawn"} == {image for _, image, _ in drawn}
    for size, images in zip(facts["sizes"], facts["regions"]["images"], strict=True):
        assert sum(len(found[i.task_id]) for i in items[:images]) == size
    means = [np.mean([r.p for r in found[i.task_id]]) for i in items]
    assert means == sorted(means, reverse=True)
    assert of_regions([OpenTask(0.9, 1, said())], PROMISE, audit=None, reach=None, seed=0) is None


def test_each_region_is_drawn_equally_often() -> None:
    items = [
        AuditItem(task_id=n, rank=n, state="", said=said(*map(region, range(1 + 3 * (n % 2)))))
        for n in range(4)
    ]
    counts = np.zeros((4, 4))
    for seed in range(2000):
        for _, image, number in draw_regions(items, lambda n: n // 2, np.random.default_rng(seed)):
            counts[image, number] += 1
    possible = counts[counts > 0]
    assert len(possible) == 1 + 4 + 1 + 4
    assert np.allclose(possible / 2000, 0.5, atol=0.05)


class Shelves(World):
    """Pictures that nobody looks at: what is on them is said by the test."""

    config = CONFIG

    def submit(self, task: int, *, tell: bool = True, user: int = 1) -> None:
        result = [rectangle(label, np.array(place(n))) for label, n in self.truth[task]]
        record = self.platform.annotate(task, result, user=user)
        if tell:
            row = {
                "annotation_id": record.id, "task_id": task,
                "label": boxes.read_result(SPEC, result), "cancelled": False,
                "completed_by": user, "updated_at": record.updated_at,
            }  # fmt: skip
            self.database.put_annotations(self.key, [row])


@pytest.fixture
def shelves(tmp_path) -> Shelves:
    """A version that is right about five cups on each of 150 images, as far as anybody knows."""
    world = Shelves(tmp_path, 150, retrain_after=10, random_share=0.05)
    world.work()
    database, key = world.database, world.key
    cold = database.version(key, database.project(key).live_version)
    version = replace(
        cold, number=cold.number + 1, name="v2", kind="trained", bundle="b", status="live"
    )
    database.add_version(version)
    rng = np.random.default_rng(0)
    for task in world.truth:
        text = said(*(region(n, float(p)) for n, p in enumerate(rng.uniform(0.97, 0.99, 5))))
        row = Score(task_id=task, label=text, score=0.9, p_right=0.86)
        database.put_scores(key, version.number, [row])
        world.platform.create_prediction(
            {"task": task, "score": 0.9, "model_version": version.name,
             "result": boxes.box_result(SPEC, text)}
        )  # fmt: skip
        world.truth[task] = [("cup", n) for n in range(5)]
    database.update_project(
        key, live_version=version.number, next_version=version.number + 1, paused=True
    )
    world.platform.settings["model_version"] = version.name
    return world


def audited(world: Shelves, *, wrong: int = 0, promise: Promise = PROMISE) -> audits.Audit:
    """An audit whose images are drawn: on the first so many, each drawn region is a key."""
    audit = acceptance.propose(world.database, world.project, promise, by="regions")
    world.work()
    drawn = audits.regions_of(audit)["drawn"]
    items = world.database.audit_items(audit.id, state=audits.DRAWN)
    for n, item in enumerate(items):
        if n < wrong:
            keys = {number for _, image, number in drawn if image == item.rank}
            order = boxes.decode_prediction(item.said).regions
            world.truth[item.task_id] = [
                ("key" if k in keys else "cup", spot(one)) for k, one in enumerate(order)
            ]
        world.submit(item.task_id)
    world.database.update_project(world.key, sync_requested_at=1.0)
    world.work()
    return audit


def spot(one: Region) -> int:
    return min(range(PLACES), key=lambda n: abs(np.subtract(place(n), one.box)).sum())


def status(world: Shelves):
    return audits.describe(world.database, world.project)


def test_images_are_accepted_whole_watched_and_withdrawn(shelves) -> None:
    audit = audited(shelves)
    found = status(shelves)
    assert found["status"] == "certified", found["sentence"]
    assert found["by"] == "regions"
    assert found["pool"] == 150
    assert found["regions"]["pool"] == 750
    assert found["regions"]["missed"] == 0.0
    assert found["may_be_accepted"] == found["regions"]["may_be_accepted"] / 5
    assert "regions may be accepted: at most 5 % of them are wrong" in found["sentence"]
    assert f"on {found['may_be_accepted']} of 150 images" in found["sentence"]

    shelves.database.add_run(shelves.key, "accept", payload={"audit": audit.id})
    shelves.work()
    found = status(shelves)
    assert found["status"] == "accepted"
    unseen = shelves.database.audit_items(audit.id, state="accepted")
    assert len(unseen) == found["accepted"] > 50
    for item in unseen:
        (made,) = [a for a in shelves.platform.annotations.values() if a.task_id == item.task_id]
        assert len(made.result) == 5
    watched = shelves.database.audit_items(audit.id, state=audits.WATCHED)
    assert 20 <= found["checked"]["asked"] <= 40
    assert len(watched) < found["checked"]["asked"] * 1.01
    # People found no wrong one on the images of the audit, so all that the promise allows may be
    # among what nobody saw.
    seen = 5 * len(shelves.database.audit_items(audit.id, state=audits.DRAWN))
    size = found["regions"]["may_be_accepted"]
    assert found["checked"]["max_error"] == pytest.approx(int(0.05 * size) / (size - seen))

    for item in watched:
        shelves.truth[item.task_id] = [("key", n) for n in range(5)]
        shelves.submit(item.task_id)
    shelves.database.update_project(shelves.key, sync_requested_at=1.0)
    shelves.work()
    assert status(shelves)["status"] == "withdrawn"
    assert status(shelves)["checked"]["wrong"] == status(shelves)["checked"]["checked"] >= 20

    shelves.database.add_run(shelves.key, "undo", payload={"audit": audit.id})
    shelves.work()
    assert status(shelves) is None
    assert not any(a.made_in_bulk for a in shelves.platform.annotations.values())


def test_wrong_regions_prove_nothing_though_most_of_an_image_is_right(shelves) -> None:
    audited(shelves, wrong=15)
    found = status(shelves)
    assert found["status"] == "refused"
    assert found["may_be_accepted"] == 0
    assert "audited among the surest" in found["sentence"]
    assert "regions were wrong" in found["sentence"]


def test_where_no_audit_of_regions_pays_it_says_so(shelves) -> None:
    with pytest.raises(NotNowError, match=r"of its 750 regions to be wrong"):
        acceptance.propose(shelves.database, shelves.project, Promise(0.001, 0.99), by="regions")
    every = acceptance.propose(
        shelves.database, shelves.project, Promise(0.05, 0.9, ALL), by="regions", audit=100
    )
    assert every.plan["audit"] == 100
