from __future__ import annotations

import sqlite3
import stat
from contextlib import closing
from dataclasses import replace

import pytest
import sqlalchemy as sa
from support.postgresql import PostgreSQL, programs

from backend.edges.database import Database
from backend.errors import BackendError, UnknownProjectError, UnknownVersionError
from backend.records import Compared, Consensus, Draw, Score, Version
from model.annotators.base import Annotator


@pytest.fixture(scope="module")
def postgresql(tmp_path_factory):
    binaries = programs()
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    if binaries is None:
        pytest.skip("PostgreSQL is not installed; its part of the contract is not run")
    made = PostgreSQL(tmp_path_factory.mktemp("postgresql"), binaries)
    yield made
    made.stop()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request):
    """One contract, run over both databases."""
    url = "sqlite://"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql").url
    made = Database(url)
    yield made
    for project in made.projects():
        made.forget_project(project.key)
    made.close()


def connected(database, host="http://a", uid="1.5"):
    return database.connect_project(
        host=host, platform_id=1, uid=uid, title="t", token="x", label_config="<View/>",
        config_hash="h", problems=[],
    )  # fmt: skip


def note(i, task, label="cat", at="2026-01-01", cancelled=False, by=1):
    return {
        "annotation_id": i, "task_id": task, "label": label, "cancelled": cancelled,
        "completed_by": by, "updated_at": at,
    }  # fmt: skip


def a_version(key, number, status="building", kind="trained"):
    return Version(
        project=key, number=number, name=f"v{number}", kind=kind, status=status, reason="",
        created_at=1.0, published_at=None, changes=0, labels=0, config_hash="h", bundle=None,
        metrics={}, on_platform=False,
    )  # fmt: skip


def test_connecting_again_keeps_key_and_secret(database):
    first, second = connected(database), connected(database)
    assert (first.key, first.secret) == (second.key, second.secret)
    assert len(database.projects()) == 1


def test_two_hosts_with_the_same_project_id_stay_apart(database):
    a, b = connected(database, "http://a"), connected(database, "http://b")
    database.put_annotations(a.key, [note(1, 1, "cat")])
    database.put_annotations(b.key, [note(1, 1, "dog")])
    assert database.labels(a.key) == {1: "cat"}
    assert database.labels(b.key) == {1: "dog"}


def test_secrets_do_not_show_in_a_repr(database):
    project = connected(database)
    assert project.secret not in repr(project)


def test_a_label_counts_as_a_change_once(database):
    key = connected(database).key
    assert database.put_annotations(key, [note(1, 1)]) == 1
    assert database.put_annotations(key, [note(1, 1)]) == 0
    assert database.put_annotations(key, [note(1, 1, at="2026-01-02")]) == 0
    assert database.put_annotations(key, [note(1, 1, "dog", at="2026-01-03")]) == 1
    assert database.project(key).changes == 2


def test_an_older_message_does_not_undo_a_newer_one(database):
    key = connected(database).key
    database.put_annotations(key, [note(1, 1, "dog", at="2026-01-03")])
    database.put_annotations(key, [note(1, 1, "cat", at="2026-01-02")])
    assert database.labels(key) == {1: "dog"}


def test_the_majority_of_annotators_wins_and_the_newest_among_equals(database):
    key = connected(database).key
    database.put_annotations(key, [note(1, 1, "a"), note(2, 1, "b"), note(3, 1, "a")])
    database.put_annotations(key, [note(4, 2, "a", "2026-01-01"), note(5, 2, "b", "2026-01-02")])
    assert database.labels(key) == {1: "a", 2: "b"}


def test_skips_are_no_labels_but_leave_the_pool(database):
    key = connected(database).key
    database.put_annotations(key, [note(1, 1, None, cancelled=True)])
    assert database.labels(key) == {}
    assert database.touched_tasks(key) == {1}
    assert database.annotation_counts(key) == (0, 1)


def test_deleted_tasks_take_their_labels_along(database):
    key = connected(database).key
    database.put_tasks(key, {1: "a", 2: "b"})
    database.put_annotations(key, [note(1, 1), note(2, 2)])
    before = database.project(key).changes
    database.drop_tasks(key, [1])
    assert database.labels(key) == {2: "cat"}
    assert database.project(key).changes > before


def test_what_tasks_are_compared_with_is_replaced_and_deleted_with_them(database):
    key = connected(database).key
    database.put_tasks(key, {1: "a", 2: "b", 3: "c"})
    first = Compared(task_id=1, novelty=0.5, nearest=[(3, 0.25)])
    second = Compared(task_id=2, novelty=0.0, nearest=[(3, 1.0), (1, -0.5)])
    database.put_compared(key, [Compared(task_id=3, novelty=0.9, nearest=[])])
    database.put_compared(key, [first, second])
    assert database.compared(key, [1, 2, 3]) == {1: first, 2: second}
    assert database.compared(key, [2]) == {2: second}
    database.drop_tasks(key, [1])
    assert database.compared(key, [1, 2]) == {2: second}
    database.put_compared(key, [])
    assert database.compared(key, [1, 2]) == {}


def test_a_changed_reference_is_read_again(database):
    key = connected(database).key
    assert database.put_tasks(key, {1: "a"}) == 1
    database.mark_images(key, {1: "hash"}, {})
    assert database.put_tasks(key, {1: "a"}) == 0
    assert database.task_counts(key)["ready"] == 1
    assert database.put_tasks(key, {1: "b"}) == 1
    assert database.task_counts(key)["new"] == 1


def test_numbers_are_given_out_once(database):
    key = connected(database).key
    assert database.take_numbers(key, versions=1, clusters=20) == (1, 1)
    assert database.take_numbers(key, versions=1, clusters=5) == (2, 21)
    assert database.take_numbers(key, clusters=1) == (3, 26)


def test_going_live_is_compare_and_swap(database):
    key = connected(database).key
    for number in (1, 2, 3):
        database.add_version(a_version(key, number))
    assert database.go_live(key, 1, expected=None)
    assert not database.go_live(key, 2, expected=None)
    assert database.go_live(key, 3, expected=1)
    assert [v.status for v in database.versions(key)] == ["superseded", "building", "live"]


def test_a_draw_is_remembered_as_first_made(database):
    key = connected(database).key
    database.add_draws(key, [Draw(task_id=1, kind="random", version=1, probability=0.1)])
    database.add_draws(key, [Draw(task_id=1, kind="random", version=9, probability=0.9)])
    assert database.draws(key)[1].version == 1


def test_scores_are_replaced_not_doubled(database):
    key = connected(database).key
    database.put_tasks(key, {i: str(i) for i in range(3)})
    rows = [Score(task_id=i, label="a", score=0.5, p_right=0.5) for i in range(3)]
    database.put_scores(key, 1, rows)
    database.put_scores(key, 1, [Score(task_id=1, label="b", score=0.2, p_right=0.2)])
    assert {i: s.label for i, s in database.scores(key, 1).items()} == {0: "a", 1: "b", 2: "a"}
    assert database.scores(key, 1, [1])[1].score == 0.2


def test_unscored_tasks_are_counted_once_their_image_is_settled(database):
    key = connected(database).key
    database.put_tasks(key, {1: "a", 2: "b", 3: "c"})
    assert database.unscored(key, 1) == 0
    database.mark_images(key, {1: "h"}, {2: "torn"})
    assert database.unscored(key, 1) == 2


def test_a_run_is_claimed_once_and_taken_away_unless_it_is_alive(database):
    key = connected(database).key
    run = database.add_run(key, "train", payload={"a": 1})
    assert database.claim_run(run, "me").payload == {"a": 1}
    assert database.claim_run(run, "you") is None
    seen = database.run(run)
    assert database.beat(run, "me")
    again = {"status": "queued", "attempt": 2}
    assert not database.take_away(seen, **again)
    assert database.take_away(database.run(run), **again)
    assert not database.take_away(database.run(run), **again)
    assert not database.beat(run, "me")
    assert database.claim_run(run, "you").attempt == 2


def test_an_event_is_recorded_once(database):
    key = connected(database).key
    assert database.record_event(key, "k", "ANNOTATION_CREATED")
    assert not database.record_event(key, "k", "ANNOTATION_CREATED")
    assert len(database.submit_times("http://a")) == 1


def test_unknown_names_are_said(database):
    with pytest.raises(UnknownProjectError, match="'nope'"):
        database.project("nope")
    with pytest.raises(UnknownVersionError, match="no version 9"):
        database.version(connected(database).key, 9)


def test_the_file_with_the_tokens_is_private(tmp_path):
    path = tmp_path / "sub" / "doubtless.db"
    Database(f"sqlite:///{path}").close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("tables", [("task", "user"), ("meta", "cookies")])
def test_the_database_of_another_program_is_refused_and_left_as_it_is(tmp_path, tables):
    path = tmp_path / "ls.db"
    with closing(sqlite3.connect(path)) as c:
        for name in tables:
            c.execute(f"CREATE TABLE {name} (key, value)")
    before = path.read_bytes()
    with pytest.raises(BackendError, match="is not Doubtless's database"):
        Database(f"sqlite:///{path}")
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "address", ["rubbish", "x:secret@host/name", "postgresql://u:secret@h:many/n"]
)
def test_what_is_no_address_is_refused_without_its_password(address):
    with pytest.raises(BackendError, match="is no address of a database; write one") as refused:
        Database(address)
    assert "secret" not in str(refused.value)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "home").write_text("a file")
    with pytest.raises(BackendError, match="another folder with DOUBTLESS_HOME") as refused:
        Database(f"sqlite:///{tmp_path / 'home' / 'doubtless.db'}")
    assert str(tmp_path / "home") in str(refused.value)


def test_a_newer_schema_is_refused(tmp_path):
    url = f"sqlite:///{tmp_path / 'd.db'}"
    made = Database(url)
    with made.transaction() as c:
        c.exec_driver_sql("UPDATE meta SET value = '99'")
    made.close()
    with pytest.raises(BackendError, match="newer release"):
        Database(url)


def test_a_database_without_probabilities_of_labels_gets_them(database):
    """As a release that knew no sets of labels left it."""
    with database.engine.begin() as c:
        c.execute(sa.text("ALTER TABLE scores DROP COLUMN probs"))
    database._migrate()
    key = connected(database).key
    row = Score(task_id=1, label='["a"]', score=0.5, p_right=0.5, probs={"a": 0.9, "b": 0.1})
    plain = Score(task_id=2, label="a", score=0.5, p_right=0.5)
    database.put_scores(key, 1, [row, plain])
    assert database.scores(key, 1) == {1: row, 2: plain}


def test_a_database_whose_projects_chose_no_methods_is_read(tmp_path):
    """As a release that knew one estimator for all projects left it."""
    address = f"sqlite:///{tmp_path / 'old.sqlite'}"
    old = Database(address)
    key = connected(old).key
    with old.engine.begin() as c:
        c.exec_driver_sql("ALTER TABLE projects DROP COLUMN methods")
    old.close()
    database = Database(address)
    assert database.project(key).methods == {}
    database.update_project(key, methods={"estimator": "laplace"})
    assert database.project(key).methods == {"estimator": "laplace"}
    database.close()


def test_a_database_whose_people_had_no_recall_is_read(tmp_path):
    """As a release that judged people of one choice alone left it."""
    address = f"sqlite:///{tmp_path / 'old.sqlite'}"
    old = Database(address)
    key = connected(old).key
    before = Annotator(
        id=3, labels=9, shared=8, agreement=0.9, kappa=0.8, quality=0.9, low=0.7, high=0.99
    )
    old.put_annotators(key, [before])
    with old.engine.begin() as c:
        for name in ("recall", "precision"):
            c.exec_driver_sql(f"ALTER TABLE annotators DROP COLUMN {name}")
        c.exec_driver_sql("ALTER TABLE consensus DROP COLUMN probs")
        c.exec_driver_sql(
            "INSERT INTO consensus (project, task_id, label, p_right, votes) VALUES (?, 1, 'a', "
            "0.5, '[[3, \"a\"]]')",
            (key,),
        )
    old.close()
    database = Database(address)
    assert database.consensus(key) == [
        Consensus(task_id=1, label="a", p_right=0.5, votes=[(3, "a")])
    ]
    assert database.annotators(key) == [before]
    of_boxes = replace(before, kappa=None, recall=0.8, precision=0.95)
    database.put_annotators(key, [of_boxes])
    assert database.annotators(key) == [of_boxes]
    database.close()


def test_a_database_that_compared_nothing_yet_does(tmp_path):
    """As a release that knew no novelty left it."""
    address = f"sqlite:///{tmp_path / 'old.sqlite'}"
    old = Database(address)
    key = connected(old).key
    with old.engine.begin() as c:
        c.exec_driver_sql("DROP TABLE compared")
    old.close()
    database = Database(address)
    assert database.compared(key, [1]) == {}
    database.put_compared(key, [Compared(task_id=1, novelty=0.5, nearest=[])])
    assert database.compared(key, [1]).keys() == {1}
    database.close()


def test_what_people_look_at_is_counted_over_the_open_pool(database):
    """The other version, the touched tasks and those without P(right) do not count."""
    key = connected(database).key
    database.put_tasks(key, {i: f"r{i}" for i in range(1, 9)})
    said = [(1, "cat", 0.0), (2, "cat", 0.25), (3, "dog", 0.2499), (4, "dog", 0.999),
            (5, "dog", 1.0), (6, "dog", 0.6), (7, None, None)]  # fmt: skip
    database.put_scores(
        key, 2, [Score(task_id=i, label=text, score=p or 1.0, p_right=p) for i, text, p in said]
    )
    database.put_scores(key, 1, [Score(task_id=8, label="cow", score=0.1, p_right=0.1)])
    database.put_annotations(key, [note(1, 6), note(2, 5, cancelled=True)])
    database.add_draws(key, [Draw(task_id=3, kind="random", version=1, probability=0.2)])
    database.add_draws(key, [Draw(task_id=2, kind="audit", version=1, probability=0.2)])
    assert database.histogram(key, 2, 4) == [2, 1, 0, 1]
    assert [s.task_id for s in database.most_doubtful(key, 2, 3)] == [1, 3, 2]
    assert sorted((t, n) for t, n, _ in database.predicted(key, 2)) == [("cat", 2), ("dog", 2)]
    means = {text: mean for text, _, mean in database.predicted(key, 2)}
    assert means["dog"] == pytest.approx((0.2499 + 0.999) / 2)
    assert database.drawn_among(key, [1, 2, 3]) == {3}
    assert database.touched_count(key) == len(database.touched_tasks(key)) == 2
    assert database.random_label_count(key) == 0
    database.put_annotations(key, [note(3, 3), note(4, 3, by=2)])
    assert database.random_label_count(key) == 1
    assert database.task(key, 3).reference == "r3"
    assert database.task(key, 99) is None


def test_events_and_runs_come_newest_first(database):
    key = connected(database).key
    for name in ("a", "b", "c"):
        database.record_event(key, name, name.upper())
    assert [e.action for e in database.events(key, 2)] == ["C", "B"]
    ended = [("train", "done", 4.0), ("sync", "done", 1.0), ("train", "done", 6.0),
             ("train", "failed", 9.0), ("sync", "failed", 1.0), ("prune", "done", 2.0)]  # fmt: skip
    for kind, status, took in ended:
        run = database.add_run(key, kind)
        database.update_run(run, status=status, started_at=10.0, finished_at=10.0 + took)
    assert [(r.kind, r.status) for r in database.noteworthy_runs(key, 3)] == [
        ("sync", "failed"), ("train", "failed"), ("train", "done"),
    ]  # fmt: skip
    assert database.durations(key, "train", 5) == [6.0, 4.0]
