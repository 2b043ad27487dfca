"""Several labels an image, or none, on a real Label Studio."""

from __future__ import annotations

import base64
import json
import subprocess

import pytest
from support.real import Project, Server, until
from support.several import SEVERAL, lights
from support.world import COLOURS

from backend.edges.labels.answers import encode
from backend.edges.labels.choices import to_result
from backend.edges.labels.config import parse_config
from backend.edges.labelstudio_api import LabelStudio

pytestmark = pytest.mark.acceptance

VALIDATE = """
import json, sys
from label_studio_sdk.label_interface import LabelInterface
config, predictions = json.load(sys.stdin)
interface = LabelInterface(config)
found = [interface.validate_prediction(p, return_errors=True) for p in predictions]
print(json.dumps([list(errors) for errors in found if errors]))
"""


class ProjectOfSeveral(Project):
    """Coloured lights: every set of three colours, the empty one too."""

    def __init__(self, label_studio: Server, count: int) -> None:
        self.server = label_studio
        self.api = LabelStudio(label_studio.url, label_studio.token)
        self.config = SEVERAL
        self.spec = parse_config(SEVERAL).require_spec()
        self.id = int(self.api.create_project("Lights", self.config)["id"])
        tasks = []
        for seed in range(count):
            chosen = {n for n in range(3) if seed % 8 >> n & 1}
            data = base64.b64encode(lights(chosen, seed)).decode()
            true = encode(COLOURS[n] for n in chosen)
            tasks.append({"image": f"data:image/png;base64,{data}", "true": true})
        self.api.import_tasks(self.id, tasks)
        self.truth = {task.id: str(task.data["true"]) for task in self.api.tasks(self.id)}

    def result(self, task_id: int) -> list[dict]:
        return to_result(self.spec, self.truth[task_id], None)


def test_sets_are_learnt_from_submits_published_and_shown(
    start_stack, label_studio, page, artifacts
):
    stack = start_stack(retrain_after=20, quiet_s=600, backbone="efficientnet-lite0")
    project = ProjectOfSeveral(label_studio, 96)
    key = project.connect(stack)
    version = project.wait_for_version(prefix="cold")
    for _ in range(2):
        project.label(20)
        version = project.wait_for_version(version, prefix="v")
    until(lambda: not [r for r in stack.database.runs(key) if r.kind == "train"], 60, "published")
    given = [a.result for t in project.api.tasks(project.id) for a in t.annotations]
    assert [] in given  # submitted without a choice, and read as an answer
    assert stack.command("status")["projects"][0]["labels"] == 40

    stored = project.api.predictions_of_many(project.id, sorted(project.truth))
    live = {
        task: p for task, found in stored.items() for p in found if p["model_version"] == version
    }
    assert len(live) == 96
    said = {
        task: encode(c for region in p["result"] for c in region["value"]["choices"])
        for task, p in live.items()
    }
    assert any(len(json.loads(text)) > 1 for text in said.values())
    right = sum(said[task] == project.truth[task] for task in said)
    assert right > 0.6 * len(said)
    ours = project.our_order(stack, key, 10)
    assert project.label(10) == ours

    predictions = [
        {k: p[k] for k in ("task", "result", "score", "model_version")} for p in live.values()
    ]
    done = subprocess.run(
        [str(label_studio.venv / "bin" / "python"), "-c", VALIDATE],
        input=json.dumps([project.config, predictions]),
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == []
    doctor = stack.command("doctor", ok=True)
    assert doctor["ok"], [f for f in doctor["findings"] if not f["ok"]]
    show(page, project, said, artifacts)


def show(page, project, said: dict[int, str], artifacts) -> None:
    """A task nobody has labelled opens with the choices of its prediction ticked."""
    open_tasks = {t.id for t in project.api.tasks(project.id) if not t.annotations}
    task = next(i for i in sorted(open_tasks) if len(json.loads(said[i])) > 1)
    page.goto(f"{project.server.url}/projects/{project.id}/data?task={task}")
    page.wait_for_selector("input[type=checkbox]:checked", timeout=60_000)
    page.screenshot(path=artifacts / "several-labels.png")
    ticked = page.eval_on_selector_all(
        "input[type=checkbox]:checked", "boxes => boxes.map(box => box.name)"
    )
    assert encode(ticked) == said[task]
