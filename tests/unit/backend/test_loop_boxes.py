"""Boxes through sync, cold start, `/predict` and `doubtless score`, as far as no model is asked."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.console import Console
from support.world import World

from backend import commands
from backend.cli.view import answer, show_project
from backend.edges.labels import answers, boxes
from backend.edges.labels.boxes import Region
from backend.edges.labels.config import parse_config
from backend.errors import UnsupportedConfigError
from backend.jobs.base import Job
from backend.kinds.boxes import Boxes
from backend.kinds.choices import Choices
from backend.predictor import Predictor
from backend.settings import Settings
from backend.status import project_status


class WorldOfBoxes(World):
    config = (
        '<View><Image name="image" value="$image"/><RectangleLabels name="box" toName="image">'
        '<Label value="RBC"/><Label value="WBC"/></RectangleLabels></View>'
    )

    @property
    def spec(self):
        return parse_config(self.config).require_spec()


def drawn(label: str, x: float) -> dict:
    return {
        "id": f"{label}{x}", "from_name": "box", "to_name": "image", "type": "rectanglelabels",
        "original_width": 16, "original_height": 16, "origin": "manual",
        "value": {"x": x, "y": 10, "width": 20, "height": 20, "rectanglelabels": [label]},
    }  # fmt: skip


@pytest.fixture
def world(tmp_path) -> WorldOfBoxes:
    world = WorldOfBoxes(tmp_path, 12)
    world.work()
    world.database.update_project(world.key, paused=True)  # nothing is trained here
    world.platform.annotate(1, [drawn("RBC", 10), drawn("WBC", 60)], user=1)
    world.platform.annotate(1, [drawn("RBC", 12)], user=2)
    world.platform.annotate(2, [], user=1)
    world.platform.annotate(3, [drawn("RBC", 10)], user=1, cancelled=True)
    world.database.update_project(world.key, sync_requested_at=1.0)
    world.work()
    return world


def test_what_several_people_drew_is_one_answer_a_task(world) -> None:
    assert world.versions() == ["cold-1 live"]
    labels = world.app.labels(world.key, world.spec)
    assert labels == {
        1: '{"boxes":[["RBC",0.11,0.1,0.31,0.3,"drawn"]],"ignored":[[0.6,0.1,0.8,0.3]]}',
        2: '{"boxes":[],"ignored":[]}',
    }
    assert answers.counts(world.spec, labels.values(), ("RBC", "WBC")).tolist() == [1, 0]
    assert world.database.annotation_counts(world.key) == (3, 1)


def test_a_class_that_is_taken_out_of_the_config_becomes_an_ignored_area(world) -> None:
    world.platform.label_config = world.config.replace('<Label value="RBC"/>', "")
    world.database.update_project(world.key, sync_requested_at=1.0)
    world.work()
    spec = world.app.spec(world.project)
    assert spec.classes == ("WBC",)
    labels = world.app.labels(world.key, spec)
    assert labels[1] == '{"boxes":[],"ignored":[[0.11,0.1,0.31,0.3],[0.6,0.1,0.8,0.3]]}'


def test_stored_regions_are_what_predict_answers_and_score_shows(world, monkeypatch) -> None:
    region = Region("WBC", (0.5, 0.5, 0.75, 0.75), 0.8, (1.0, 1.0, 2.0, 1.0), 0.3)
    text = boxes.encode_prediction([region], (16, 16))
    stored = world.database.scores(world.key, 1)
    rows = [
        replace(stored[1], label=text, p_right=0.7),
        replace(stored[2], label=boxes.encode_prediction([], (16, 16)), p_right=0.9),
        replace(stored[3], label=text.replace("WBC", "gone")),
    ]
    world.database.put_scores(world.key, 1, rows)
    said = Predictor(world.app).predict(world.project, [{"id": n, "data": {}} for n in (1, 2, 3)])
    assert said[0]["result"] == boxes.box_result(world.spec, text)
    assert [r["value"]["rectanglelabels"] for r in said[0]["result"]] == [["WBC"]]
    assert [len(item["result"]) for item in said] == [1, 0, 0]

    monkeypatch.setattr(commands, "Database", lambda address: world.database)
    shown = {row["task"]: row for row in commands.scores(world.settings, world.project)}
    assert [shown[n]["prediction"] for n in (1, 2)] == [{"WBC": 1}, {}]
    assert [shown[n]["label"] for n in (1, 2, 3)] == [{"RBC": 1}, {}, None]


SMALL = {
    "small_objects": 0.23, "made_smaller": 1.4, "n_labels": 60,
    "backbone": "efficientnet-lite0-pyramid",
}  # fmt: skip


def test_many_small_objects_in_large_images_ask_for_a_larger_pyramid(world, capsys) -> None:
    version = replace(
        world.database.versions(world.key)[0],
        number=2, name="v2", kind="trained", status="superseded", metrics=SMALL,
    )  # fmt: skip
    world.database.add_version(version)
    status = project_status(world.settings, world.database, world.project)
    assert status["advice"] == [
        "23% of the drawn objects are hardly ever found: they are below 16 pixels once images are "
        "made 1.4 times smaller; DOUBTLESS_PYRAMID=efficientnet-lite0-pyramid-large looks at twice "
        "the pixels: all images are read again, and everything takes twice the time and disk"
    ]
    show_project(Console(width=400), status)
    assert status["advice"][0] in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "pyramid"),
    [
        ({"small_objects": 0.05}, "efficientnet-lite0-pyramid"),
        ({"made_smaller": 1.2}, "efficientnet-lite0-pyramid"),  # hardly more pixels to look at
        ({"n_labels": 49}, "efficientnet-lite0-pyramid"),
        ({}, "efficientnet-lite0-pyramid-large"),  # followed, and not trained yet
        ({"backbone": "efficientnet-lite0-pyramid-large"}, "efficientnet-lite0-pyramid-large"),
        ({}, "efficientnet-lite2-pyramid"),
        ({"backbone": "efficientnet-lite2-pyramid"}, "efficientnet-lite2-pyramid"),
    ],
)
def test_otherwise_no_other_pyramid_is_advised(change: dict, pyramid: str, tmp_path) -> None:
    settings = Settings.load(home=str(tmp_path), pyramid=pyramid)
    assert Boxes().advice(settings, {**SMALL, **change}) == []
    assert Boxes().advice(settings, {}) == []  # of a version made before
    assert Choices().advice(settings, SMALL) == []


def test_a_table_shows_how_many_objects_of_each_class() -> None:
    assert answer({"RBC": 12, "WBC": 1}, "-") == "12 RBC, 1 WBC"
    assert answer({}, "-") == "(none)"
    assert answer(None, "-") == "-"


def test_a_config_that_asks_nothing_is_refused_with_what_could_be_predicted(world) -> None:
    world.database.update_project(world.key, label_config="<View/>", problems=[])
    job = Job(world.app, world.database.runs(world.key, status=("done",))[0], "me")
    with pytest.raises(UnsupportedConfigError, match=r"<RectangleLabels>.*<Choices>.*is empty"):
        job.require_spec(world.project)
