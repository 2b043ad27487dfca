"""The commands, run as a terminal runs them."""

from __future__ import annotations

import json
import socket
from threading import Event

import pytest
from click.testing import CliRunner
from support.world import CONFIG

import backend.worker
from backend.cli import main
from backend.edges.database import Database
from backend.edges.labels.config import parse_config
from backend.records import Score, Version
from backend.settings import Settings
from model.uncertainty import DEFAULT_ESTIMATOR, ESTIMATORS
from model.uncertainty.softmax import AveragedHeads


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("DOUBTLESS_HOME", str(tmp_path))
    monkeypatch.delenv("DOUBTLESS_REDIS_URL", raising=False)
    return tmp_path


def run(*arguments: str, code: int = 0):
    done = CliRunner().invoke(main, list(arguments), catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done


@pytest.fixture
def project(home):
    database = Database(f"sqlite:///{home / 'doubtless.db'}")
    made = database.connect_project(
        host="http://127.0.0.1:1", platform_id=7, uid="7.1", title="Cats", token="secret-token",
        label_config=CONFIG, config_hash=parse_config(CONFIG).spec.config_hash, problems=[],
    )  # fmt: skip
    database.put_tasks(made.key, {1: "a", 2: "b"})
    database.mark_images(made.key, {1: "h"}, {2: "torn file"})
    database.add_version(
        Version(
            project=made.key, number=1, name="v1", kind="trained", status="building",
            reason="first", created_at=1.0, published_at=None, changes=0, labels=12,
            config_hash="", bundle=None, metrics={"random_accuracy": 0.5}, on_platform=True,
        )
    )  # fmt: skip
    database.go_live(made.key, 1, expected=None)
    database.put_scores(made.key, 1, [Score(task_id=1, label="red", score=0.4, p_right=0.4)])
    return made


def test_status_without_projects_says_what_to_do(home):
    assert "doubtless connect" in run("status").output
    assert json.loads(run("status", "--json").output)["projects"] == []


def test_status_shows_labels_version_accuracy_and_what_is_unreadable(project):
    said = run("status").output
    for part in ("Cats", "v1", "0.500", "torn file", "1 unreadable"):
        assert part in said
    state = json.loads(run("status", "--json").output)["projects"][0]
    assert state["tasks"] == {"new": 0, "ready": 1, "broken": 1}


def test_no_command_shows_a_token_or_secret(project):
    for command in ("status", "versions", "score"):
        for flag in ([], ["--json"]):
            said = run(command, *flag).output
            assert "secret-token" not in said
            assert project.secret not in said


def test_versions_and_scores_are_listed(project, tmp_path):
    assert "v1" in run("versions").output
    assert json.loads(run("score", "--json").output)[0]["prediction"] == "red"
    out = tmp_path / "scores.csv"
    run("score", "--out", str(out))
    assert out.read_text().splitlines()[1].startswith("1,red,0.4")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train"], "has no labels yet"),
        (["rollback", "v1"], "no model to publish"),
        (["rollback", "v9"], "no version 'v9'; it has: v1"),
        (["status", "--project", "nope"], "'nope' is not connected"),
        (["connect", "--project", "1"], "--url is missing"),
        (["connect", "--project", "1", "--url", "http://127.0.0.1:1"], "--token is missing"),
    ],
)
def test_what_is_refused_is_one_sentence(project, arguments, said):
    done = run(*arguments, "--json", code=1)
    assert said in json.loads(done.output)["error"]


def test_connect_without_a_server_says_to_start_it(project, monkeypatch):
    monkeypatch.setenv("DOUBTLESS_PORT", "1")
    done = run(
        "connect", "--project", "1", "--url", "http://127.0.0.1:1", "--token", "t" * 10, "--json",
        code=1,
    )  # fmt: skip
    assert "doubtless up" in json.loads(done.output)["error"]


def test_hints_name_the_command_as_it_was_started(home, monkeypatch):
    assert "`doubtless connect --url" in run("status").output
    monkeypatch.setenv("DOUBTLESS_COMMAND", "./run doubtless")
    assert "`./run doubtless connect --url" in run("status").output
    said = json.loads(run("train", "--json", code=1).output)["error"]
    assert "run `./run doubtless connect --url" in said


def test_the_list_of_commands_cuts_nothing_off():
    said = run("--help").output
    assert "Start with `up`, then `connect`" in said
    assert "..." not in said.split("Commands:")[1]


def test_every_command_has_help():
    for name in main.commands:
        assert "--json" in run(name, "--help").output


def test_status_gives_one_reason_once(home, project):
    database = Database(f"sqlite:///{home / 'doubtless.db'}")
    note = {
        "annotation_id": 1, "task_id": 1, "label": "red", "cancelled": False,
        "completed_by": 1, "updated_at": "2026-01-01",
    }  # fmt: skip
    database.put_annotations(project.key, [note])
    assert run("status").output.count("No version has been judged on the whole pool yet.") == 1


def test_a_misspelt_variable_is_told_and_stops_nothing(home, monkeypatch):
    monkeypatch.setenv("DOUBTLESS_WORKRES", "3")
    done = run("status", "--json")
    assert "did you mean DOUBTLESS_WORKERS?" in done.stderr
    assert json.loads(done.stdout)["projects"] == []


def test_a_wrong_setting_is_named(home, monkeypatch):
    monkeypatch.setenv("DOUBTLESS_PORT", "many")
    done = CliRunner().invoke(main, ["status", "--json"])
    assert "DOUBTLESS_PORT='many' is not a whole number" in done.output


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("BACKBONE", "resnot", "unknown backbone 'resnot'"),
        ("ESTIMATOR", "sofmax", "Did you mean 'softmax'"),
        ("ACQUISITION", "margn", "Did you mean 'margin'"),
        ("ACQUISITION", "bald", "'bald' compares passes and the estimator makes 1"),
    ],
)
@pytest.mark.parametrize(
    "command", [["up"], ["worker"], ["connect", "--url", "http://127.0.0.1:1", "--token", "t",
                                     "--project", "1"]],
)  # fmt: skip
def test_names_that_cannot_work_are_refused_before_anything_starts(
    home, monkeypatch, command, variable, value, reason
):
    class OnePass(AveragedHeads):
        passes = 1

    monkeypatch.setitem(ESTIMATORS, DEFAULT_ESTIMATOR, OnePass())
    monkeypatch.setenv(f"DOUBTLESS_{variable}", value)
    said = json.loads(run(*command, "--json", code=1).stdout)["error"]
    assert said.startswith(f"DOUBTLESS_{variable}: ")
    assert reason in said


def test_a_rule_that_needs_joint_passes_names_estimators_that_have_them(home, monkeypatch):
    monkeypatch.setenv("DOUBTLESS_ACQUISITION", "batchbald")
    said = json.loads(run("worker", "--json", code=1).stdout)["error"]
    assert said.startswith("DOUBTLESS_ACQUISITION: acquisition 'batchbald' compares what a pass")
    assert "'mc-dropout'" in said


def test_the_default_estimator_is_that_of_the_model():
    assert Settings.load({}).estimator == DEFAULT_ESTIMATOR


def test_the_worker_of_a_container_refuses_them_too(monkeypatch, capsys):
    settings = Settings.load({"DOUBTLESS_ACQUISITION": "margn", "DOUBTLESS_REDIS_URL": "redis://x"})
    assert backend.worker.run(settings) == 2
    assert "Did you mean 'margin'" in capsys.readouterr().err


def test_a_worker_without_its_redis_says_so_in_one_sentence(home, monkeypatch):
    monkeypatch.setenv("DOUBTLESS_REDIS_URL", "redis://127.0.0.1:1/0")
    said = run("worker", code=2).stderr
    assert said.startswith("doubtless worker: no Redis answers at redis://127.0.0.1:1/0 (")
    assert said.count("\n") == 1


@pytest.mark.parametrize("out", ["nowhere/scores.csv", "."])
def test_a_file_that_cannot_be_written_is_named(project, tmp_path, out):
    said = json.loads(run("score", "--json", "--out", str(tmp_path / out), code=1).output)["error"]
    assert said.startswith(f"{tmp_path / out} cannot be written")


@pytest.mark.parametrize(
    "option",
    [("errors", "--limit"), ("score", "--limit"), ("simulate", "--jobs")],
)
@pytest.mark.parametrize("count", ["0", "-1"])
def test_counts_below_one_are_refused(project, option, count):
    assert f"{count} is not in the range x>=1" in run(*option, count, code=2).output


def test_errors_tells_no_doubts_from_no_training(home, project):
    assert "No label is more probably wrong" in run("errors").output
    database = Database(f"sqlite:///{home / 'doubtless.db'}")
    with database.transaction() as c:
        c.exec_driver_sql("UPDATE versions SET kind = 'cold'")
    assert "Nothing is trained yet" in run("errors").output


def test_brackets_of_people_are_not_markup(home, project):
    database = Database(f"sqlite:///{home / 'doubtless.db'}")
    database.put_scores(
        project.key, 1, [Score(task_id=1, label="[red]x[/b]", score=0.4, p_right=0.4)]
    )
    assert "[red]x[/b]" in run("score").output


def test_the_dashboards_address_is_printed_with_its_token(home):
    first = json.loads(run("dashboard", "--json").output)
    assert first["address"].startswith("http://127.0.0.1:9090/dashboard#token=")
    assert first["read_only"] is False
    shared = json.loads(run("dashboard", "--share", "--json").output)
    assert shared["read_only"] is True
    assert shared["address"] != first["address"]
    assert first["address"] in run("dashboard").output


def test_an_address_that_means_every_address_is_one_a_browser_can_open(home, monkeypatch):
    monkeypatch.setenv("DOUBTLESS_HOST", "0.0.0.0")
    assert "//127.0.0.1:9090/" in json.loads(run("dashboard", "--json").output)["address"]


class ReadyAndStopped:
    """A stack that becomes ready and is asked to stop."""

    exit_code = 0
    stopping = Event()
    stopping.set()

    @classmethod
    def run(cls, settings, *, on_ready, say, **more):
        say("doubtless", "ready")
        return on_ready(cls)


def test_up_prints_the_dashboards_address(home, monkeypatch):
    monkeypatch.setattr("backend.supervisor.run_stack", ReadyAndStopped.run)
    page = json.loads(run("dashboard", "--json").output)["address"]
    assert page in run("up").output
    assert json.loads(run("up", "--json").stdout)["dashboard"] == page


def test_up_prints_no_address_before_it_is_ready(home):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        done = run("up", "--port", str(other.getsockname()[1]), code=1)
    assert "is taken" in done.stderr
    assert done.stdout == ""


def test_up_without_workers_says_that_nothing_will_be_trained(home, monkeypatch):
    monkeypatch.setattr("backend.supervisor.run_stack", ReadyAndStopped.run)
    assert "nothing is read or trained" in run("up", "--workers", "0").stderr
    assert "nothing" not in run("up", "--workers", "1").stderr


def test_status_says_how_long_what_runs_may_still_take(project, home):
    database = Database(f"sqlite:///{home / 'doubtless.db'}")
    before = database.add_run(project.key, "train")
    database.update_run(before, status="done", started_at=10.0, finished_at=50.0)
    assert "s left" not in run("status").output
    database.claim_run(database.add_run(project.key, "train", reason="pressed"), "w")
    assert "about 40 s left" in run("status").output
