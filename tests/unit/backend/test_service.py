"""The model class under both lines of label-studio-ml."""

from __future__ import annotations

import pytest
from label_studio_ml.model import LabelStudioMLBase

from backend.errors import BadRequestError, UnknownProjectError
from backend.predictor import Predictor
from backend.service import DoubtlessModel, find_project

UID = "1.1767225600"


@pytest.fixture
def model(world):
    world.work()
    world.label(10)
    world.work()
    return DoubtlessModel(UID, predictor=Predictor(world.app))


def test_it_is_a_label_studio_ml_model(model):
    assert isinstance(model, LabelStudioMLBase)
    assert model.model_version == "v2"


def test_both_signatures_of_predict_give_one_answer_a_task(world, model):
    tasks = [{"id": i, "data": d} for i, d in world.platform.data.items()]
    old = model.predict(tasks, login=None, password=None)
    new = model.predict(tasks, {"result": []})
    assert len(old) == len(new) == len(tasks)
    assert old == new


def test_both_signatures_of_fit_only_ask_for_a_training(world, model):
    runs = len(world.database.runs())
    assert model.fit((), workdir=None, event="ANNOTATION_CREATED", data={})["status"] == "queued"
    assert "ANNOTATION_CREATED" in world.project.request_reason
    assert model.fit("START_TRAINING", {})["status"] == "queued"
    assert "START_TRAINING" in world.project.request_reason
    assert len(world.database.runs()) == runs


def test_an_unknown_project_says_how_to_connect_it(world):
    with pytest.raises(UnknownProjectError, match="--project 7"):
        find_project(world.app, "7.123")


def test_an_ambiguous_project_names_both_hosts(world):
    world.database.connect_project(
        host="http://other", platform_id=1, uid=UID, title="o", token="t", label_config="",
        config_hash="", problems=[],
    )  # fmt: skip
    with pytest.raises(BadRequestError, match=r"http://other"):
        find_project(world.app, UID)


def test_the_bare_id_of_the_2x_server_finds_the_project(world):
    assert find_project(world.app, "1").key == world.key
