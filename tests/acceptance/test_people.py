"""Two people label the same images on a real Label Studio: who is right, and what to ask again."""

from __future__ import annotations

import pytest
from support.real import second_user

from backend.annotators import one_label_each
from backend.edges.labels.config import parse_config
from backend.edges.labelstudio_api import LabelStudio

pytestmark = pytest.mark.acceptance

SHARED, WRONG = 24, 8


def test_the_careless_one_is_told_and_labels_are_taken_from_the_other(
    start_stack, label_studio, make_project
):
    stack = start_stack(retrain_after=1000, quiet_s=600, backbone="efficientnet-lite0")
    project = make_project(title="two people")
    project.upload(160)
    key = project.connect(stack)
    cold = project.wait_for_version(prefix="cold")
    done = project.label(80)
    stack.command("train")
    first = project.wait_for_version(cold, prefix="v")
    careless = second_user(label_studio)
    api = LabelStudio(label_studio.url, careless.token)
    wrong = done[:WRONG]
    for task in done[:SHARED]:
        result = project.result(task)
        if task in wrong:
            result[0]["value"]["choices"] = [str((int(project.truth[task]) + 5) % 10)]
        api.submit(task, result)
    stack.command("train")
    project.wait_for_version(first, prefix="v")

    told = {row["id"]: row for row in stack.command("annotators")}
    assert len(told) == 2
    ids = sorted(told, key=lambda person: told[person]["labels"])
    bad, good = (told[person] for person in ids)
    assert (bad["labels"], bad["shared"]) == (SHARED, SHARED)
    assert (good["labels"], good["shared"]) == (80, SHARED)
    assert bad["agreement"] == pytest.approx(1 - WRONG / SHARED)
    assert bad["quality"] < 0.8 < good["quality"]
    assert bad["high"] < good["high"]

    # What people and model make of the images on which the two differ, by the truth.
    consensus = {row.task_id: row for row in stack.database.consensus(key)}
    assert consensus.keys() == set(done)
    right = sum(consensus[task].label == project.truth[task] for task in wrong)
    assert right >= WRONG - 1
    again = stack.command("annotators", "--again", "20")
    asked = {row["task"] for row in again}
    assert asked <= set(done)
    assert all(row["p_right"] < 0.95 for row in again)

    # Of two who differ the next training takes the label of the better one.
    taken = one_label_each(stack.database, key, parse_config(project.config).require_spec())
    assert [taken[task] for task in done] == [project.truth[task] for task in done]
