"""The whole loop with boxes: people draw, a version learns, its regions come back."""

from __future__ import annotations

import numpy as np
import pytest
from support.boxes import NOTHING, picture_of, random_drawing, rectangle
from support.world import World

from backend import commands
from backend.again import ask_again
from backend.doubtful import most_doubtful
from backend.edges.labels import boxes
from backend.edges.labels.boxes import Drawing, Drawn, Region
from backend.edges.labels.config import parse_config
from backend.edges.labels.results import check_prediction
from backend.errors import BackendError
from backend.jobs.base import Job
from backend.kinds import kind_of
from backend.predictor import Predictor
from backend.settings import Settings
from backend.triage import doubted_labels
from model.detection.acquisition import Pool, select_images
from model.detection.maps import means_inside
from model.detection.schedule import Schedule
from model.detection.types import BoxLabels
from model.detection.views import StoredViews, missing_views

pytest.importorskip("torch", reason="needs doubtless[train]")

NAMES = ("cup", "key")


class WorldOfObjects(World):
    """Pictures with coloured rectangles, each image drawn as it is by whoever labels it."""

    config = (
        '<View><Image name="image" value="$image"/><RectangleLabels name="box" toName="image">'
        '<Label value="cup"/><Label value="key"/></RectangleLabels></View>'
    )

    def import_image(self, colour: int, seed: int) -> int:
        rng = np.random.default_rng(seed)
        drawn = NOTHING if seed % 6 == 5 else random_drawing(rng)
        name = f"/data/{seed}.png"
        self.media.files[name] = picture_of(drawn, seed=seed)
        task = self.platform.add_task({"image": name})
        self.truth[task] = drawn
        return task

    @property
    def spec(self):
        return parse_config(self.config).require_spec()

    def submit(self, task: int, *, tell: bool = True, user: int = 1) -> None:
        drawn: BoxLabels = self.truth[task]
        result = [
            rectangle(NAMES[label], box)
            for label, box in zip(drawn.labels, drawn.boxes, strict=True)
        ]
        record = self.platform.annotate(task, result, user=user)
        if tell:
            row = {
                "annotation_id": record.id, "task_id": task,
                "label": boxes.read_result(self.spec, result), "cancelled": False,
                "completed_by": user, "updated_at": record.updated_at,
            }  # fmt: skip
            self.database.put_annotations(self.key, [row])


@pytest.fixture
def world(tmp_path, monkeypatch) -> WorldOfObjects:
    monkeypatch.setattr(Schedule, "steps_for", lambda self, images: 6)
    world = WorldOfObjects(tmp_path, 24)
    world.work()
    return world


def test_people_who_draw_the_same_images_are_judged(world) -> None:
    tasks = world.label(10)
    whole = {task: world.truth[task] for task in tasks}
    counted = 0
    for n, task in enumerate(sorted(tasks)[:8]):  # the second leaves a box out of every other image
        drawn = whole[task]
        left = slice(1 if n % 2 else 0, None)
        counted += len(drawn.labels[left])
        world.truth[task] = BoxLabels.of(drawn.boxes[left], drawn.labels[left])
        world.submit(task, user=2)
    world.work()
    assert world.versions()[-1] == "v2 live"
    first, second = sorted(world.database.annotators(world.key), key=lambda one: one.id)
    assert [(one.id, one.labels, one.shared) for one in (first, second)] == [(1, 10, 8), (2, 8, 8)]
    drawn = sum(len(whole[task]) for task in sorted(tasks)[:8])
    agreement = 2 * counted / (counted + drawn)
    assert first.agreement == second.agreement == pytest.approx(agreement)
    assert first.kappa is None
    for one in (first, second):
        assert 0 < one.low < one.quality < one.high < 1
        assert 0 < one.recall <= 1
        assert 0 < one.precision <= 1
    assert first.recall > second.recall
    kept = world.database.consensus(world.key)
    assert {row.task_id for row in kept} == set(tasks)
    assert all(boxes.is_drawing(world.spec, row.label) for row in kept)
    asked = ask_again(world.database, world.project, 20)
    assert [row["p_right"] for row in asked] == [row.p_right for row in kept if row.p_right < 0.95]
    for row in asked:
        assert all(set(given) <= set(NAMES) for given in (row["label"], *row["labels"]))


def test_drawings_make_a_version_whose_regions_come_back(world) -> None:
    assert world.versions() == ["cold-1 live"]
    world.label(10)
    said = world.work()
    assert world.versions() == ["cold-1 superseded", "v2 live"], said
    live = world.platform.live()
    assert len(live) == 24
    stored = world.database.scores(world.key, 2)
    for task, prediction in live.items():
        assert check_prediction(world.spec, prediction) == []
        text = stored[task].label
        assert prediction["result"] == boxes.box_result(world.spec, text)
        assert 0 < prediction["score"] < 1
        assert 0 < stored[task].p_right < 1
        for region in prediction["result"]:
            assert 0.3 <= region["score"] <= 1
    metrics = world.database.versions(world.key)[-1].metrics
    assert metrics["n_labels"] == 10
    assert set(metrics["class_counts"]) == set(NAMES)
    assert metrics["pool_accuracy"]["low"] <= metrics["pool_accuracy"]["high"]

    # What is made of each drawing by heads that have not seen it.
    contradicted = world.database.label_errors(world.key, below=1.1, limit=100)
    assert {row.task_id for row in contradicted} == world.database.labels(world.key).keys()
    assert all(0 <= row.p_right <= 1 for row in contradicted)
    assert any("overlooked" in row.why or "unsupported" in row.why for row in contradicted)

    doubted = doubted_labels(world.database, world.project, 100)
    assert doubted
    for row in doubted:
        assert len(row["regions"]) == len(world.truth[row["task"]].labels)

    # The most doubtful images, beside those that are drawn on.
    told = most_doubtful(world.database, world.project, 2, world.spec, 14)
    assert len(told) == 14
    for row in told:
        assert 0 <= row["novelty"] < 1
        assert len(row["nearest"]) == 3
        for item in row["nearest"]:
            drawn = world.truth[item["task"]]
            names = [region["label"] for region in item["regions"]]
            assert sorted(names) == sorted(NAMES[label] for label in drawn.labels)
            for region in item["regions"]:
                assert np.abs(drawn.boxes - region["box"]).max(axis=1).min() < 1e-5

    # A task nobody has asked about yet.
    drawn = random_drawing(np.random.default_rng(99))
    world.media.files["/data/new.png"] = picture_of(drawn, seed=99)
    asked = [{"id": 9999, "data": {"image": "/data/new.png"}}, {"id": 1, "data": {}}]
    new, old = Predictor(world.app).predict(world.project, asked)
    assert new["model_version"] == old["model_version"] == "v2"
    assert 0 < new["score"] < 1
    assert check_prediction(world.spec, {"task": 9999, **new}) == []
    assert old["result"] == boxes.box_result(world.spec, stored[1].label)

    # Maps that were lost, and some that were damaged, are read again; another version follows.
    hashes = {t.image_hash for t in world.database.tasks(world.key)}
    stored_maps = sorted((world.settings.home_path / "maps").rglob("*.safetensors"))
    lost, damaged, *_ = [path for path in stored_maps if path.stem in hashes]
    lost.unlink()
    damaged.write_bytes(b"torn")
    world.label(10)
    world.work()
    for _ in range(3):  # the training finds the damaged one, then waits for its image
        world.later(1000)
        world.work()
    assert lost.stat().st_size == damaged.stat().st_size > 100
    last = world.database.versions(world.key)[-1]
    assert (last.name, last.status, last.labels) == ("v3", "live", 20)
    judged = world.database.judgements(world.key, 3)
    drawn_by_chance = world.database.draws(world.key).keys()
    assert set(judged) == drawn_by_chance & world.database.labels(world.key).keys()
    assert judged

    # Back to the version before.
    world.database.add_run(world.key, "republish", reason="", payload={"version": 2})
    world.work()
    assert world.versions()[-1] == "v4 live"
    again = world.database.scores(world.key, 4)
    assert {i: s.label for i, s in again.items()} == {i: s.label for i, s in stored.items()}
    assert world.database.judgements(world.key, 4) == world.database.judgements(world.key, 2)


def test_what_is_next_is_chosen_by_each_images_own_maps(world, monkeypatch) -> None:
    asked: list[tuple[Pool, Pool]] = []
    stages: list[str | None] = []

    def watched(name: str, pool: Pool, n: int, *, known: Pool, seed: int):
        asked.append((pool, known))
        return select_images(name, pool, n, known=known, seed=seed)

    def confirm(job: Job, **said) -> None:
        stages.append(said.get("stage"))
        told(job, **said)

    told = Job.confirm
    monkeypatch.setattr("backend.kinds.boxes.select_images", watched)
    monkeypatch.setattr(Job, "confirm", confirm)
    code = kind_of(world.spec).code(world.app)
    keys = {t.task_id: t.image_hash for t in world.database.tasks(world.key)}
    labelled = list(world.truth)[3:13]
    for task in labelled:
        world.submit(task)
    said = world.work()
    assert world.versions()[-1] == "v2 live", said
    assert "choosing what to label next" in stages
    ((pool, known),) = asked
    drawn = world.database.draws(world.key).keys()
    bundle = kind_of(world.spec).load(
        world.app.versions_folder(world.key) / world.database.versions(world.key)[-1].bundle
    )
    for given, tasks in (
        (known, labelled),
        (pool, [t for t in keys if t not in drawn and t not in labelled]),
    ):
        assert len(given) == len(tasks)
        for row, task in enumerate(tasks):  # ids ascend, as rows do
            maps = world.app.maps.load(code, keys[task])
            boxes_there = given.regions[row].boxes
            np.testing.assert_array_equal(
                given.seen(row, boxes_there), means_inside(maps.levels[-1], boxes_there)
            )
            said_of_it = bundle.look(maps)[0].boxes
            assert {tuple(box) for box in boxes_there} <= {
                *map(tuple, said_of_it), (0.0, 0.0, 1.0, 1.0),
            }  # fmt: skip


def test_a_version_of_another_pyramid_is_not_asked(world, monkeypatch) -> None:
    """Maps of twice the pixels have the same channels, so that nothing else would notice."""
    monkeypatch.setattr(commands, "Database", lambda address: world.database)
    monkeypatch.setattr(world.database, "close", lambda: None)  # it is in memory
    world.label(10)
    world.work()
    version = world.database.versions(world.key)[-1]
    assert version.metrics["backbone"] == "efficientnet-lite0-pyramid"
    settings = Settings.load(home=str(world.settings.home_path))
    assert commands.live_model(settings, world.project) is not None
    larger = Settings.load(
        home=str(world.settings.home_path), pyramid="efficientnet-lite0-pyramid-large"
    )
    assert commands.live_model(larger, world.project) is None
    world.app.settings = larger
    world.database.add_run(world.key, "republish", reason="", payload={"version": version.number})
    job = Job(world.app, world.database.runs(world.key)[-1], "me")
    with pytest.raises(BackendError, match="set DOUBTLESS_PYRAMID=efficientnet-lite0-pyramid to"):
        job.load_bundle(version)


def test_labelled_images_are_learnt_from_in_other_views(world, caplog) -> None:
    caplog.set_level("INFO")
    code = kind_of(world.spec).code(world.app)
    keys = {t.task_id: t.image_hash for t in world.database.tasks(world.key)}
    labelled = list(world.truth)[:10]
    gone, changed = labelled[:2]
    del world.media.files[f"/data/{gone - min(keys)}.png"]
    world.media.files[f"/data/{changed - min(keys)}.png"] = picture_of(NOTHING, seed=77)
    for task in labelled:
        world.submit(task)
    said = world.work()
    assert world.versions()[-1] == "v2 live", said
    # An image that cannot be fetched any more, or is another one now, is learnt from as it is.
    lost = missing_views(world.app.maps, code, list(keys.values()))
    assert set(lost) == set(keys.values()) - {keys[task] for task in labelled[2:]}
    assert f"task {gone} is trained on without other views" in caplog.text
    views = StoredViews(world.app.maps, code, [keys[labelled[2]]])[0]
    size, canvas = world.app.maps.sides(code, keys[labelled[2]])
    assert [(view.maps.size, view.maps.canvas) for view in views] == [(size, canvas)] * 6


def test_drawings_without_an_object_wait_for_one(world) -> None:
    empty = [task for task, drawn in world.truth.items() if not len(drawn)]
    for task in empty[:2]:
        world.submit(task)
    said = world.work()
    assert any("none of the 2 labelled images has an object" in line for line in said)
    assert world.versions() == ["cold-1 live"]
    for task in [t for t, drawn in world.truth.items() if len(drawn)][:4]:
        world.submit(task)
    world.work()
    world.later(1000)
    world.work()
    assert world.versions()[-1] == "v2 live"


def region(label: str, box: tuple[float, ...], p: float = 0.9) -> Region:
    return Region(label, box, p, (1.0, 1.0, 1.0, 1.0), 0.1)


LEFT, RIGHT = (0.1, 0.1, 0.4, 0.5), (0.6, 0.1, 0.9, 0.5)
NEAR = (0.1, 0.1, 0.4, 0.45)  # IoU 0.875 with LEFT


@pytest.mark.parametrize(
    ("said", "drawn", "ignored", "right"),
    [
        ([], [], [], True),
        ([("cup", NEAR)], [("cup", LEFT)], [], True),
        ([("key", NEAR)], [("cup", LEFT)], [], False),
        ([("cup", RIGHT)], [("cup", LEFT)], [], False),
        ([("cup", NEAR), ("cup", LEFT)], [("cup", LEFT)], [], False),
        ([("cup", NEAR)], [("cup", LEFT), ("key", RIGHT)], [], False),
        ([("cup", NEAR), ("key", RIGHT)], [("cup", LEFT)], [RIGHT], True),
        ([("cup", NEAR)], [], [], False),
        ([], [("cup", LEFT)], [], False),
        ([("gone", NEAR)], [("cup", LEFT)], [], False),
    ],
)
def test_a_version_is_judged_by_what_was_drawn_later(said, drawn, ignored, right) -> None:
    """The texts of a prediction and of a drawing never are equal; what they say may be."""
    spec = parse_config(WorldOfObjects.config).require_spec()
    text = boxes.encode_prediction([region(*r) for r in said], (96, 96))
    answer = boxes.encode(Drawing(tuple(Drawn(*d) for d in drawn), tuple(ignored)))
    assert kind_of(spec).is_right(spec, text, answer) is right
    assert not kind_of(spec).is_right(spec, "no prediction", answer)
