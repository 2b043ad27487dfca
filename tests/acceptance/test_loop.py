"""The closed loop on a real Label Studio."""

from __future__ import annotations

import base64

import pytest
import requests
from support.real import digits, second_user, until

from backend.edges.labelstudio_api import LabelStudio

pytestmark = pytest.mark.acceptance

TAB = "Most doubtful first"


def scores_in_tab(project) -> list[float | None]:
    """The score column as the Data Manager's API gives it for our tab."""
    view = next(v for v in project.api.views(project.id) if v["data"]["title"] == TAB)
    answer = requests.get(
        f"{project.server.url}/api/tasks",
        params={"view": view["id"], "project": project.id, "page_size": 1000},
        headers={"Authorization": f"Token {project.server.token}"},
        timeout=120,
    ).json()
    return [task["predictions_score"] for task in answer["tasks"]]


def test_two_versions_from_submissions_alone_and_the_order_served_is_ours(
    start_stack, make_project, page, artifacts
):
    stack = start_stack(retrain_after=15, quiet_s=600)
    project = make_project(title="Handwritten digits")
    project.upload(200)
    key = project.connect(stack)
    version = project.wait_for_version(prefix="cold")
    for _ in range(2):
        project.label(15)
        version = project.wait_for_version(version, prefix="v")
        until(
            lambda: not [r for r in stack.database.runs(key) if r.kind == "train"], 60, "published"
        )
        counts = project.api.model_versions(project.id)
        assert counts[version] == 200, "every task has the version's prediction"
        ours = project.our_order(stack, key, 14)
        assert len(set(ours)) == 14
        assert project.label(14) == ours  # one short of the next training
        # The rest of the thirty, with training held back.
        stack.database.update_project(key, paused=True)
        rest = project.our_order(stack, key, 16)
        assert project.label(16) == rest
        stack.database.update_project(key, paused=False)
        version = project.wait_for_version(version, prefix="v")
    column = scores_in_tab(project)
    assert column == sorted(column)
    assert None not in column
    assert len(column) == 200 - 2 * 45
    show_data_manager(page, project, artifacts / "data-manager.png")
    table = page.inner_text("body")
    assert TAB in table
    assert "Prediction score" in table


def show_data_manager(page, project, path) -> None:
    view = next(v for v in project.api.views(project.id) if v["data"]["title"] == TAB)
    page.goto(f"{project.server.url}/projects/{project.id}/data?tab={view['id']}")
    page.wait_for_selector("text=Prediction score", timeout=60_000)
    page.wait_for_timeout(3000)  # thumbnails
    page.screenshot(path=path)


def test_a_second_annotator_gets_different_tasks(start_stack, make_project, label_studio):
    stack = start_stack(retrain_after=10, quiet_s=600)
    project = make_project(title="Two annotators")
    project.upload(100)
    project.connect(stack)
    version = project.wait_for_version(prefix="cold")
    project.label(10)
    project.wait_for_version(version, prefix="v")
    other = LabelStudio(label_studio.url, second_user(label_studio).token)
    mine, theirs = [], []
    for _ in range(5):
        a, b = project.api.next_task(project.id), other.next_task(project.id)
        assert a.id != b.id
        mine.append(a.id)
        theirs.append(b.id)
        for api, task in ((project.api, a), (other, b)):
            api.submit(task.id, project.result(task.id))
    assert not set(mine) & set(theirs)


def personal_token(label_studio) -> str:
    """A personal access token, made as the page Account & Settings makes it."""
    session = requests.Session()
    login = f"{label_studio.url}/user/login/"
    session.get(login, timeout=30)
    form = {
        "email": label_studio.user, "password": label_studio.password,
        "csrfmiddlewaretoken": session.cookies["csrftoken"],
    }  # fmt: skip
    session.post(login, data=form, headers={"Referer": login}, timeout=30)
    headers = {"X-CSRFToken": session.cookies["csrftoken"], "Referer": login}
    settings = {
        "legacy_api_tokens_enabled": True, "api_tokens_enabled": True, "api_token_ttl_days": 30,
    }  # fmt: skip
    session.post(f"{label_studio.url}/api/jwt/settings", json=settings, headers=headers, timeout=30)
    answer = session.post(f"{label_studio.url}/api/token/", headers=headers, timeout=30)
    return answer.json()["token"]


def test_personal_token_commands_and_the_page_for_the_annotator(
    start_stack, make_project, label_studio, page, artifacts
):
    stack = start_stack(retrain_after=1000, quiet_s=600)
    project = make_project(title="Commands")
    project.upload(60)
    key = project.connect(stack, personal_token(label_studio))
    cold = project.wait_for_version(prefix="cold")
    project.label(12)
    assert stack.command("train")["status"] == "done"
    first = project.wait_for_version(cold, prefix="v")
    project.label(3)
    assert stack.command("train")["status"] == "done"
    second = project.wait_for_version(first, prefix="v")

    status = stack.command("status")
    mine = status["projects"][0]
    assert (mine["labels"], mine["live_version"]) == (15, second)
    assert status["queue"] == {**status["queue"], "state": "ok", "workers": 1}

    doctor = stack.command("doctor", ok=True)
    assert doctor["ok"], [f for f in doctor["findings"] if not f["ok"]]

    assert stack.command("rollback", first)["status"] == "done"
    third = project.wait_for_version(second, prefix="v")
    names = {v["name"]: v for v in stack.command("versions")}
    assert names[third]["kind"] == "rollback"
    assert names[third]["status"] == "live"
    rows = stack.command("score")
    assert len(rows) == 60
    assert stack.database.project(key).live_version == names[third]["number"]

    # Send Test Request and opening a task reach /predict with the same version.
    task = project.api.next_task(project.id)
    page.goto(f"{label_studio.url}/projects/{project.id}/data?task={task.id}")
    page.wait_for_timeout(3000)
    page.screenshot(path=artifacts / "pre-annotation.png")

    # What somebody breaks in Label Studio, doctor names.
    project.api.update_project(project.id, sampling="Sequential sampling")
    broken = stack.command("doctor", ok=False)
    assert any("sampling" in f["message"].lower() for f in broken["findings"] if not f["ok"])
    project.connect(stack)
    assert stack.command("doctor", ok=True)["ok"]


def test_classes_change_and_bad_images_harm_nothing_else(start_stack, make_project):
    stack = start_stack(retrain_after=10, quiet_s=600)
    project = make_project(title="Rubbish")
    project.upload(60)
    torn = digits()[70][0][:200]
    inline = "data:image/png;base64," + base64.b64encode(torn).decode()
    bad = [
        {"image": inline}, {"image": "/data/upload/999/absent.png"}, {"image": "no scheme.png"},
        {"image": "http://169.254.169.254/latest/meta-data"}, {"image": "ftp://a/b.png"},
        {"image": ""}, {"image": "data:text/plain,hello"},
    ]  # fmt: skip
    project.api.import_tasks(project.id, bad)
    project.read_truth()
    key = project.connect(stack)
    cold = project.wait_for_version(prefix="cold")
    counts = project.api.model_versions(project.id)
    assert counts[cold] == 67
    assert stack.database.task_counts(key) == {"new": 0, "ready": 60, "broken": 7}
    project.label(10)
    version = project.wait_for_version(cold, prefix="v")
    renamed = project.config.replace('<Choice value="7"/>', '<Choice value="seven"/>')
    project.api.update_project(project.id, label_config=renamed)
    sevens = sum(label == "7" for label in stack.database.labels(key).values())
    after = project.wait_for_version(version, prefix="v")
    version_row = stack.database.versions(key)[-1]
    assert version_row.name == after
    assert version_row.labels == 10 - sevens
    said = {s.label for s in stack.database.scores(key, version_row.number).values()}
    assert "7" not in said
