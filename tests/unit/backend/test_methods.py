"""A project's own estimator and acquisition rule: chosen, in force, and refused."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from support.world import World

from backend import acceptance, acts, methods
from backend.cli import main
from backend.edges.database import Database
from backend.errors import BadRequestError
from backend.status import project_status
from model.acceptance.plan import Promise

BOXES = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="box" toName="image">'
    '<Label value="cup"/><Label value="key"/></RectangleLabels></View>'
)


@pytest.fixture
def trained(make_world) -> World:
    world = make_world(60)
    world.work()
    world.label(10)
    world.work()
    return world


def change(world: World, *, now: bool = True, **wanted: str) -> str:
    return acts.change_methods(
        world.settings, world.database, world.project, wanted, now=now, reason="tried"
    )


def newest(world: World):
    return world.database.versions(world.key)[-1]


def state(world: World) -> dict[str, dict[str, str | None]]:
    return project_status(world.settings, world.database, world.project)["methods"]


def test_another_estimator_is_what_the_next_version_is_fitted_with(trained):
    assert state(trained)["estimator"] == {
        "chosen": "evidential", "default": "evidential", "live": "evidential",
    }  # fmt: skip
    assert "a new version is trained" in change(trained, estimator="laplace")
    assert state(trained)["estimator"] == {
        "chosen": "laplace", "default": "evidential", "live": "evidential",
    }  # fmt: skip
    trained.work()
    version = newest(trained)
    assert version.metrics["estimator"] == state(trained)["estimator"]["chosen"] == "laplace"
    bundle = trained.app.versions_folder(trained.key) / version.bundle / "bundle.json"
    assert json.loads(bundle.read_text())["estimator"] == "laplace", "not only said so"


def test_another_rule_orders_the_queue_without_a_training(trained):
    before = newest(trained)
    said = change(trained, acquisition="random")
    assert "v2 chooses again" in said
    trained.work()
    after = newest(trained)
    assert (after.kind, after.bundle, after.name) == ("rollback", before.bundle, "v3")
    assert state(trained)["acquisition"]["live"] == "random"
    chosen_by = {rule for _, rule, _ in trained.database.acquired(trained.key, after.number)}
    assert chosen_by == {"random"}


def test_an_earlier_version_that_cannot_feed_the_rule_is_ordered_by_auto(trained):
    """Its passes are made for each image anew, so `epig` has nothing to compare."""
    change(trained, estimator="laplace", acquisition="epig")
    trained.work()
    assert newest(trained).metrics["estimator"] == "laplace"
    rules = {rule for _, rule, _ in trained.database.acquired(trained.key, 3)}
    assert rules == {"epig"} == {state(trained)["acquisition"]["live"]}
    old = trained.database.version(trained.key, 2)
    acts.republish(trained.settings, trained.database, trained.project, old, "rolled back")
    trained.work()
    assert trained.versions()[-1] == "v4 live"
    assert state(trained)["acquisition"] == {"chosen": "epig", "default": "auto", "live": "auto"}


def test_other_projects_keep_what_the_installation_uses(trained):
    spec = trained.app.spec(trained.project)
    other = trained.database.connect_project(
        host=trained.platform.url, platform_id=2, uid="2", title="other", token="t",
        label_config=trained.config, config_hash=spec.config_hash, problems=[],
    )  # fmt: skip
    change(trained, estimator="laplace", acquisition="margin")
    own = methods.settings_of(trained.settings, trained.project)
    assert (own.estimator, own.acquisition) == ("laplace", "margin")
    assert methods.settings_of(trained.settings, other) is trained.settings


def test_default_goes_back(trained):
    change(trained, now=False, estimator="laplace", acquisition="margin")
    assert "from the next version on" in change(trained, now=False, estimator="default")
    assert trained.project.methods == {"acquisition": "margin"}
    assert change(trained, acquisition="margin") == "acquisition margin: as before"


def test_what_the_project_cannot_use_is_refused(trained, make_world):
    with pytest.raises(BadRequestError, match=r"'laplce'. Did you mean 'laplace'"):
        change(trained, estimator="laplce")
    with pytest.raises(BadRequestError, match="compares what a pass says of several images"):
        change(trained, acquisition="batchbald")  # passes of `evidential` are made for each image
    assert trained.project.methods == {}
    assert change(trained, estimator="laplace", acquisition="batchbald")
    with pytest.raises(BadRequestError, match="compares what a pass says"):
        change(trained, estimator="default")
    trained.database.update_project(trained.key, label_config=BOXES)
    with pytest.raises(BadRequestError, match=r"'laplace'. Known: mc-dropout, softmax"):
        change(trained, estimator="laplace")
    own = methods.settings_of(trained.settings, trained.project)
    assert own is trained.settings, "what was chosen for choices says nothing of boxes"
    change(trained, now=False, estimator="mc-dropout")
    assert methods.settings_of(trained.settings, trained.project).box_estimator == "mc-dropout"
    assert trained.settings.box_estimator == "softmax"


def test_an_audit_is_not_ended_by_it(make_world):
    world = make_world(400, retrain_after=30)
    world.work()
    world.label(30)
    world.work()
    acceptance.propose(world.database, world.project, Promise(0.05, 0.9))
    world.work()
    said = change(world, estimator="laplace")
    assert "from the next version on; an audit is under way" in said
    assert not any("train" in line for line in world.work())


def test_before_there_is_a_label_it_waits_for_the_first_version(make_world):
    world = make_world(20)
    world.work()
    assert "from the next version on; project" in change(world, estimator="softmax")


def test_every_option_says_what_it_is(trained):
    found = methods.options(trained.project)
    assert {"evidential", "laplace"} <= {one["name"] for one in found["estimator"]}
    for one in [*found["estimator"], *found["acquisition"]]:
        assert 5 < len(one["what"]) < 120
        assert one["what"].endswith(".")


def test_the_command_shows_and_changes(tmp_path, monkeypatch, make_world):
    monkeypatch.setenv("DOUBTLESS_HOME", str(tmp_path))
    world = make_world(3)
    source = world.project
    database = Database(f"sqlite:///{tmp_path / 'doubtless.db'}")
    key = database.connect_project(
        host=source.host, platform_id=1, uid="1", title="t", token="t",
        label_config=source.label_config, config_hash=source.config_hash, problems=[],
    ).key  # fmt: skip
    run = CliRunner().invoke(main, ["methods"])
    assert run.exit_code == 0, run.output
    assert "→" in run.output
    assert "herding" in run.output
    run = CliRunner().invoke(main, ["methods", "--estimator", "laplace", "--json"])
    found = json.loads(run.output)
    assert found["said"].startswith("estimator laplace: from the next version on")
    assert found["in_force"]["estimator"]["chosen"] == "laplace"
    assert database.project(key).methods == {"estimator": "laplace"}
    run = CliRunner().invoke(main, ["methods", "--acquisition", "marginn"])
    assert run.exit_code != 0
    assert "Did you mean 'margin'" in run.output
