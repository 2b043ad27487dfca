"""Boxes on a real Label Studio, on images of every EXIF orientation."""

from __future__ import annotations

import pytest
from support.real import Project, Server, until
from support.scenes import CLASSES, SIZE, jpeg, scene

from backend.demo.data import box_config, original_name
from backend.edges.labels import boxes as drawings
from backend.edges.labels.boxes.geometry import ious
from backend.edges.labels.config import parse_config
from backend.edges.labelstudio_api import LabelStudio
from model.datasets import Box

pytestmark = pytest.mark.acceptance

SCENES = 24
TURNED = 3  # the scene that is shown in every orientation; not one of the others
LABELS = 10
# In the Regions panel: a region, and the number beside it.
REGION = ".lsf-outliner-item"
NUMBER = ".lsf-outliner-item__control_type_score"


class ProjectOfBoxes(Project):
    """Rectangles and discs on noise."""

    def __init__(self, label_studio: Server) -> None:
        self.server = label_studio
        self.api = LabelStudio(label_studio.url, label_studio.token)
        self.config = box_config(CLASSES)
        self.spec = parse_config(self.config).require_spec()
        self.id = int(self.api.create_project("Boxes", self.config)["id"])
        self.objects: dict[int, tuple[Box, ...]] = {}

    def upload_scenes(self, files: dict[str, tuple[bytes, tuple[Box, ...]]]) -> dict[str, int]:
        """Import images; returns their tasks by name."""
        self.api.upload_files(self.id, [(name, data) for name, (data, _) in files.items()])
        tasks = {original_name(t.data["image"]): t.id for t in self.api.tasks(self.id)}
        self.objects |= {tasks[name]: found for name, (_, found) in files.items()}
        return {name: tasks[name] for name in files}

    def result(self, task_id: int) -> list[dict]:
        drawn = [drawings.Drawn(box.label, box[1:]) for box in self.objects[task_id]]
        return drawings.drawn_result(self.spec, drawn, SIZE)

    def predictions(self, version: str, tasks: list[int]) -> dict[int, dict]:
        """What is stored of that version, by task."""
        found = self.api.predictions_of_many(self.id, tasks)
        return {t: p for t, some in found.items() for p in some if p["model_version"] == version}


def predicted(result: list[dict]) -> list[tuple[str, drawings.Box]]:
    """Label and corners of each region, in shares."""
    found = []
    for region in result:
        value = region["value"]
        x, y, width, height = (value[key] / 100 for key in ("x", "y", "width", "height"))
        found.append((value["rectanglelabels"][0], (x, y, x + width, y + height)))
    return found


def covers(result: list[dict], truth: Box) -> bool:
    """Whether a region of its class lies on an object."""
    places = [box for label, box in predicted(result) if label == truth.label]
    return bool(places) and ious(places, [truth[1:]]).max() >= 0.5


def test_boxes_are_learnt_published_shown_and_the_same_in_every_orientation(
    start_stack, label_studio, page, artifacts
):
    stack = start_stack(retrain_after=LABELS, box_quiet_s=600)
    project = ProjectOfBoxes(label_studio)
    files = {f"scene-{n}.jpg": scene(100 + n) for n in range(SCENES)}
    project.upload_scenes({name: (jpeg(image), truth) for name, (image, truth) in files.items()})
    key = project.connect(stack)
    cold = project.wait_for_version(prefix="cold", seconds=240)
    until(lambda: not stack.database.runs(key), 120, "published", every=0.5)
    ours = project.our_order(stack, key, LABELS)
    assert project.label(LABELS) == ours
    version = project.wait_for_version(cold, prefix="v", seconds=1200)
    until(lambda: not stack.database.runs(key), 120, "published", every=0.5)

    tasks = sorted(project.objects)
    stored = project.predictions(version, tasks)
    assert sorted(stored) == tasks
    assert_regions_say_how_sure_they_are(list(stored.values()))
    ours = project.our_order(stack, key, 4)
    assert project.label(4) == ours

    image, truth = scene(TURNED)
    turned = project.upload_scenes(
        {f"turned-{o}.jpg": (jpeg(image, o), truth) for o in range(1, 9)}
    )
    said = until(
        lambda: len(p := project.predictions(version, list(turned.values()))) == 8 and p,
        180,
        "the new images have predictions",
        every=1,
    )
    for name, task in turned.items():
        result = said[task]["result"]
        sizes = {(r["original_width"], r["original_height"]) for r in result}
        assert sizes == {SIZE}, name
        for box in truth:
            assert covers(result, box), (name, box, predicted(result))
    show_region_scores(page, project, said[turned["turned-6.jpg"]], artifacts / "boxes.png")

    # What was predicted is submitted as it is, and read back as the same boxes.
    stack.database.update_project(key, paused=True)  # not to be trained on
    for task in turned.values():
        project.api.submit(task, said[task]["result"])
    answers = until(
        lambda: (found := stack.database.answers(key)).keys() >= set(turned.values()) and found,
        60,
        "the submissions are read",
    )
    for name, task in turned.items():
        drawing = drawings.decode(answers[task][-1])
        read = sorted((d.label, d.box) for d in drawing.boxes)
        sent = sorted(predicted(said[task]["result"]))
        assert [label for label, _ in read] == [label for label, _ in sent], name
        for (_, one), (_, other) in zip(read, sent, strict=True):
            assert one == pytest.approx(other, abs=0.001), name
    doctor = stack.command("doctor", ok=True)
    assert doctor["ok"], [f for f in doctor["findings"] if not f["ok"]]


def assert_regions_say_how_sure_they_are(predictions: list[dict]) -> None:
    regions = [region for p in predictions for region in p["result"]]
    assert len(regions) >= len(predictions) / 2, "most scenes have an object that is found"
    for region in regions:
        assert region["type"] == "rectanglelabels"
        assert 0 <= region["score"] <= 1
        notes = " ".join(region["meta"]["text"])
        assert f"P(right) {region['score']:.2f}" in notes
        assert "px" in notes
    assert all(0 <= p["score"] <= 1 for p in predictions)


def show_region_scores(page, project, prediction: dict, path) -> None:
    """The Regions panel has a number beside each region of the pre-annotation."""
    page.goto(f"{project.server.url}/projects/{project.id}/data?task={prediction['task']}")
    scores = [f"{region['score']:.2f}" for region in prediction["result"]]
    page.wait_for_function(
        "([selector, count]) => [...document.querySelectorAll(selector)]"
        ".filter(found => /[01][.][0-9]{2}/.test(found.innerText)).length >= count",
        arg=[NUMBER, len(scores)],
        timeout=60_000,
    )
    page.wait_for_timeout(2000)  # the image
    page.screenshot(path=path)
    shown = page.eval_on_selector_all(NUMBER, "found => found.map(one => one.innerText.trim())")
    assert sorted(filter(None, shown)) == sorted(scores)
    panel = " ".join(page.eval_on_selector_all(REGION, "found => found.map(one => one.innerText)"))
    for region in prediction["result"]:
        assert region["value"]["rectanglelabels"][0] in panel
