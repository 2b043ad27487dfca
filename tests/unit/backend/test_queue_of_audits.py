"""Whatever happens around audits, the queue ends up as they ask: checked on random sequences."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from backend import acceptance, acts, audits
from backend.drift import DRIFT
from backend.errors import BackendError, PlatformError
from backend.jobs import accept, perform
from backend.jobs.base import Job
from backend.predictor import Predictor
from backend.records import Draw
from model.acceptance.plan import ALL, Promise

PROMISE = Promise(0.2, 0.8, ALL)
STEPS = 55
REQUESTS = (
    "update_prediction", "import_predictions", "accept_predictions", "create_prediction",
    "delete_annotations_of", "update_project",
)  # fmt: skip


class Shaken:
    """A project to which things happen by chance, also in the middle of what workers do."""

    def __init__(self, world, seed: int) -> None:
        self.world, self.rng = world, random.Random(seed)
        self.done: Counter[str] = Counter()
        self.story: list[str] = []
        self.images = 1000
        # Requests that go well before the next of a kind fails, or before something happens.
        self.fails: dict[str, int] = {}
        self.happens: tuple[int, str] | None = None
        for name in REQUESTS:
            self._wrap(name)

    def _wrap(self, name: str) -> None:
        real = getattr(self.world.platform, name)

        def called(*args, **given):
            # Clusters of a version that is live already are lost if their request fails.
            if name == "update_prediction" and "score" not in given:
                return real(*args, **given)
            left = self.fails.get(name)
            if left is not None:
                self.fails[name] = left - 1
                if left == 0:
                    del self.fails[name]
                    self.done["failed requests"] += 1
                    raise PlatformError("Label Studio does not answer", 503)
            if name == "update_prediction" and self.happens is not None:
                left, what = self.happens
                self.happens = (left - 1, what) if left else None
                if left == 0:
                    self.tell(f"(in the middle) {what}")
                    self.done["in the middle"] += 1
                    getattr(self, what)()
            return real(*args, **given)

        setattr(self.world.platform, name, called)

    def tell(self, what: str) -> None:
        self.story.append(what)

    # --- what may happen ---

    def propose(self) -> None:
        given = {
            "blind": self.rng.choice((True, False, None)),
            "by": self.rng.choice((audits.TASKS, audits.TASKS, audits.CLASSES)),
            "audit": self.rng.choice((4, 12, 30)),
        }
        if given["by"] == audits.TASKS:
            given["reach"] = self.rng.choice((0.3, 0.6))
        acceptance.propose(self.world.database, self.world.project, PROMISE, **given)
        self.tell(str(given))

    def label(self) -> None:
        for _ in range(self.rng.choice((1, 3, 10))):
            self.answer(self.world.platform.next_task())

    def answer(self, task: int | None, *, wrong: float = 0.03) -> None:
        if task is None:
            return
        if self.rng.random() < wrong:
            self.world.truth[task] = self.rng.choice(("red", "green", "blue"))
        self.world.submit(task)

    def finish_audit(self, wrong: float | None = None) -> None:
        audit = audits.current(self.world.database, self.world.project)
        if audit is None:
            raise BackendError("no audit")
        state = audits.DRAWN if audit.status == audits.OPEN else audits.WATCHED
        if wrong is None:
            wrong = self.rng.choice((0.0, 0.0, 0.0, 0.5))
        for item in self.world.database.audit_items(audit.id, state=state):
            if item.task_id in self.open():
                self.answer(item.task_id, wrong=wrong)
        self.sync()

    def skip(self) -> None:
        task = self.world.platform.next_task()
        if task is not None:
            self.world.platform.annotate(task, [], cancelled=True)
        self.sync()

    def delete_label(self) -> None:
        notes = self.world.platform.annotations
        notes.pop(self.rng.choice(sorted(notes)))
        self.sync()

    def delete_task(self) -> None:
        self.world.platform.delete_task(
            self.rng.choice((self.world.platform.next_task(), self.rng.choice(sorted(self.open()))))
        )
        self.sync()

    def new_tasks(self) -> None:
        for _ in range(self.rng.choice((1, 25))):
            self.images += 1
            self.world.import_image(0, self.images)
        self.sync()

    def train(self) -> None:
        acts.train(self.world.database, self.world.project, "asked for")

    def roll_back(self) -> None:
        database, project = self.world.database, self.world.project
        able = [v for v in database.versions(project.key) if v.bundle and v.status != "abandoned"]
        version = self.rng.choice(able)
        acts.republish(self.world.settings, database, project, version, "rolled back")

    def accept(self) -> None:
        acts.accept(self.world.database, self.world.project, "asked for")

    def cancel(self) -> None:
        acts.cancel_audit(self.world.database, self.world.project, "given up")

    def undo(self) -> None:
        acts.undo_acceptance(self.world.database, self.world.project, "taken back")

    def review(self) -> None:
        acceptance.review(self.world.database, self.world.project)

    def other_config(self) -> None:
        """The order of classes; what was said may be said no more, until it is as before."""
        config = self.world.platform.label_config
        without = '<Choice value="blue"/>'
        self.world.platform.label_config = (
            config.replace(without, "") if without in config else type(self.world).config
        )
        self.sync()

    def fail(self) -> None:
        name = self.rng.choices(REQUESTS, (6, 2, 2, 1, 2, 1))[0]
        self.fails[name] = self.rng.choice((0, 1, 5, 22))
        self.tell(f"{name} will fail after {self.fails[name]}")

    def meanwhile(self) -> None:
        what = self.rng.choice(("cancel", "label", "review", "second_worker", "delete_label"))
        self.happens = (self.rng.choice((0, 3, 21)), what)
        self.tell(str(self.happens))

    def second_worker(self) -> None:
        """Gives up the audit, and another worker takes what that asks for at once."""
        try:
            self.cancel()
        finally:
            self.world.scheduler.tick()
            number = self.world.queue.take()
            if number is not None:
                perform(self.world.app, number)

    def sync(self) -> None:
        self.world.database.update_project(self.world.key, sync_requested_at=1.0)

    # --- and how it has to be afterwards ---

    def step(self) -> None:
        what = self.rng.choices(*zip(*WEIGHTS.items(), strict=True))[0]
        self.tell(what)
        try:
            getattr(self, what)()
            self.done[what] += 1
        except BackendError as exc:
            self.tell(f"refused: {exc}")
        if what not in ("fail", "meanwhile") and self.rng.random() < 0.7:
            self.settle()
            self.check()

    def settle(self) -> None:
        for _ in range(10):
            self.story += self.world.work()
            if not self.world.database.runs(status=("failed",)):
                break
            self.world.later(1e6)
            if not self.world.work():
                break
        self.fails, self.happens = {}, None
        self.sync()
        self.world.work()

    def open(self) -> set[int]:
        answered = {a.task_id for a in self.world.platform.annotations.values()}
        return self.world.platform.data.keys() - answered

    def asked(self) -> dict[int, bool]:
        """Task -> whether blind, by what audits mean and not by how the code finds it."""
        database, key = self.world.database, self.world.key
        found = dict.fromkeys(database.draws(key, kind=DRIFT), False)
        of_now = self.world.project.live_version
        for audit in reversed(database.audits(key)):
            is_live = audit.version == of_now and audit.status in ("open", "certified")
            wanted = "drawn" if is_live else "watched" if audit.status == "accepted" else None
            for item in database.audit_items(audit.id):
                if wanted is not None and item.state == wanted:
                    found[item.task_id] = audit.plan["blind"]
        return {task: blind for task, blind in found.items() if task in self.open()}

    def check(self) -> None:
        world, live = self.world, self.world.platform.live()
        version = world.database.version(world.key, world.project.live_version)
        rows = world.database.scores(world.key, version.number)
        asked, drawn = self.asked(), world.database.draws(world.key).keys()
        told = "\n".join([*self.story[-60:], f"live: {version.name}"])
        wrong = []
        for task in sorted(self.open() & live.keys()):
            item, row = live[task], rows[task]
            if row.p_right is None:
                continue
            front, hidden = item["score"] < 1e-3, not item["result"]
            if (item["score"], item.get("cluster")) != (row.score, row.cluster):
                wrong.append(f"{task} is known to be elsewhere")
            if hidden != bool(row.hidden):
                wrong.append(f"{task} is hidden: {hidden}, known as {row.hidden}")
            if front and task not in asked and task not in drawn:
                wrong.append(f"{task} is in front for nothing")
            if not front and task in asked:
                wrong.append(f"{task} is asked for and not in front")
            if asked.get(task, False) and not hidden:
                wrong.append(f"{task} shows what it is not to show")
            of_config = version.config_hash == world.project.config_hash
            if hidden and not asked.get(task, False) and of_config:
                wrong.append(f"{task} hides what it says for nothing")
        assert not wrong, "\n".join([told, *wrong[:8]])
        missing = self.open() - live.keys()
        assert not missing, told


WEIGHTS = {
    "propose": 12, "label": 2, "finish_audit": 6, "skip": 1, "delete_label": 1, "delete_task": 1,
    "new_tasks": 1, "train": 1.5, "roll_back": 0.7, "accept": 5, "cancel": 3, "undo": 2,
    "review": 1, "other_config": 0.5, "fail": 6, "meanwhile": 5,
}  # fmt: skip


@pytest.fixture
def trained(make_world):
    """150 pictures, 12 labels, a version live; nothing is trained but when it is asked for."""
    world = make_world(150, retrain_after=25, retrain_growth=0.1, quiet_s=1e9, front=15)
    world.work()
    world.label(12)
    acts.train(world.database, world.project, "the first")
    world.work()
    return world


@pytest.mark.parametrize("seed", range(3))
def test_the_queue_is_as_audits_ask_whatever_happens(trained, seed):
    shaken = Shaken(trained, seed)
    for _ in range(STEPS):
        shaken.step()
    shaken.settle()
    shaken.check()
    assert shaken.done["propose"] > 2
    assert shaken.done["failed requests"] + shaken.done["in the middle"] > 0


def propose(world, **options):
    audit = acceptance.propose(
        world.database, world.project, PROMISE, audit=30, reach=0.6, **options
    )
    world.work()
    return audit


def synchronise(world):
    world.database.update_project(world.key, sync_requested_at=1.0)
    return world.work()


def take(world, kind):
    """The next run of a kind, as another worker has begun it."""
    world.scheduler.tick()
    while (number := world.queue.take()) is not None:
        if world.database.run(number).kind == kind:
            return number
    raise AssertionError(f"no run of {kind}")


def test_what_is_checked_blind_is_not_told_when_label_studio_asks(trained):
    """As by “Retrieve Predictions” in the Data Manager, which would show it."""
    audit = propose(trained)
    drawn = [i.task_id for i in trained.database.audit_items(audit.id, state=audits.DRAWN)]
    other = next(iter(Shaken(trained, 0).open() - set(drawn)))
    asked = [{"id": task, "data": trained.platform.data[task]} for task in [*drawn, other]]
    predictor = Predictor(trained.app)
    *blind, shown = predictor.predict(trained.project, asked)
    assert [one["result"] for one in blind] == [[]] * len(drawn)
    assert shown["result"]
    live = trained.platform.live()
    assert [one["score"] for one in blind] == [live[task]["score"] for task in drawn]
    acts.cancel_audit(trained.database, trained.project, "given up")
    trained.work()
    assert all(one["result"] for one in predictor.predict(trained.project, asked))


def test_an_audit_that_is_given_up_while_its_job_has_failed_leaves_nothing_hidden(trained):
    shaken = Shaken(trained, 0)
    shaken.fails["update_prediction"] = 7
    acceptance.propose(trained.database, trained.project, PROMISE, audit=30, reach=0.6)
    said = trained.work()
    assert any("audit: failed" in line for line in said)
    assert [item for item in trained.platform.live().values() if not item["result"]]
    acts.cancel_audit(trained.database, trained.project, "given up")
    trained.work()
    shaken.check()
    assert all(item["result"] for item in trained.platform.live().values())


def test_a_task_that_was_labelled_for_an_ended_audit_and_is_open_again_goes_back(trained):
    propose(trained)
    (task,) = trained.label(1)
    synchronise(trained)
    acts.cancel_audit(trained.database, trained.project, "given up")
    trained.work()
    notes = trained.platform.annotations
    notes.pop(next(i for i, note in notes.items() if note.task_id == task))
    synchronise(trained)
    assert trained.platform.live()[task]["result"]
    Shaken(trained, 0).check()


def test_what_is_asked_for_twice_is_drawn_by_chance_and_by_an_audit(trained):
    """New tasks of an audit are asked for by drift as well: shown, and still in front, later."""
    audit = propose(trained)
    drawn = [i.task_id for i in trained.database.audit_items(audit.id, state=audits.DRAWN)]
    trained.database.add_draws(
        trained.key,
        [Draw(task_id=drawn[0], kind=DRIFT, version=1, probability=0.1),
         Draw(task_id=drawn[1], kind="random", version=9, probability=0.1)],
    )  # fmt: skip
    acts.cancel_audit(trained.database, trained.project, "given up")
    trained.work()
    live = trained.platform.live()
    assert [task for task in drawn if live[task]["score"] < 1e-3] == drawn[:2]
    assert all(live[task]["result"] for task in drawn)
    Shaken(trained, 0).check()


def test_an_image_on_which_nothing_is_predicted_is_not_taken_for_hidden(trained, monkeypatch):
    """As boxes may say: what is shown of it is nothing, and there is nothing to put right."""
    monkeypatch.setattr("backend.jobs.audit._shown", lambda *_: [])
    audit = propose(trained, blind=False)
    drawn = [i.task_id for i in trained.database.audit_items(audit.id, state=audits.DRAWN)]
    rows = trained.database.scores(trained.key, audit.version, drawn)
    assert not any(row.hidden for row in rows.values())
    assert not any("audit" in line for line in synchronise(trained))


def test_what_was_never_put_in_front_is_noticed(trained):
    """The process that asked for the audit ended before it had a run recorded."""
    acceptance.propose(trained.database, trained.project, PROMISE, audit=30, reach=0.6)
    for run in trained.database.runs(trained.key):
        trained.database.update_run(run.id, status="done")
    synchronise(trained)
    Shaken(trained, 0).check()
    assert min(item["score"] for item in trained.platform.live().values()) < 1e-7


def test_one_worker_at_a_time_puts_the_queue_in_order(trained):
    for _ in range(2):
        trained.database.add_run(trained.key, "audit", reason="asked for twice")
    first, second = take(trained, "audit"), take(trained, "audit")
    trained.database.claim_run(first, "another worker")
    assert "another run puts the queue in order" in perform(trained.app, second)


def test_a_version_shows_nothing_of_what_is_kept_back_while_labels_are_accepted(trained):
    audit = propose(trained)
    Shaken(trained, 0).finish_audit(wrong=0.0)
    trained.work()
    items = trained.database.audit_items(audit.id, state="")[:5]
    trained.database.update_items(audit.id, [i.task_id for i in items], state=audits.WATCHED)
    trained.database.update_audit(audit.id, status=audits.ACCEPTING)
    for version in (audit.version, audit.version + 1):
        asked = audits.to_check(trained.database, trained.project, version)
        assert {item.task_id for item in items} <= asked.keys()


def test_two_workers_make_one_annotation_of_a_prediction(trained):
    """Accepting that was asked for twice waits for the one that began first."""
    audit = propose(trained)
    Shaken(trained, 0).finish_audit(wrong=0.0)
    trained.work()
    for _ in range(2):
        trained.database.add_run(trained.key, "accept", payload={"audit": audit.id})
    first, second = take(trained, "accept"), take(trained, "accept")
    trained.database.claim_run(first, "another worker")
    waited = []

    def until_the_other_has_ended(seconds):
        waited.append(seconds)
        assert not any(note.made_in_bulk for note in trained.platform.annotations.values())
        trained.database.update_run(first, status="done")

    job = Job(trained.app, trained.database.claim_run(second, "me"), "me")
    job.sleep = until_the_other_has_ended
    assert "labels accepted" in accept.run(job)
    assert waited


def test_what_is_taken_back_waits_for_what_is_being_made(trained):
    audit = propose(trained)
    Shaken(trained, 0).finish_audit(wrong=0.0)
    trained.work()
    for kind in ("accept", "undo"):
        trained.database.add_run(trained.key, kind, payload={"audit": audit.id})
    first, second = take(trained, "accept"), take(trained, "undo")
    accepting = Job(trained.app, trained.database.claim_run(first, "another"), "another")
    undoing = Job(trained.app, trained.database.claim_run(second, "me"), "me")
    make, waited = trained.platform.accept_predictions, []

    def on_its_way(*args):
        def ends(seconds):
            waited.append(seconds)
            make(*args)
            trained.database.update_run(first, status="done")

        undoing.sleep = ends
        raise PlatformError("the request is on its way", 503)

    trained.platform.accept_predictions = on_its_way
    with pytest.raises(PlatformError):
        accept.run(accepting)
    assert "taken back" in accept.undo(undoing)
    assert waited
    assert not any(note.made_in_bulk for note in trained.platform.annotations.values())


def test_what_an_audit_moves_while_a_version_is_being_tagged_stays_there(trained):
    """The clusters of a new version come after it is live, and another worker may be at it."""
    real, moved = trained.platform.predictions_of_many, {}

    def another_worker(project_id, tasks):
        found = real(project_id, tasks)
        version = trained.project.live_version
        if not moved and version > 2:
            moved[tasks[-1]] = 9999
            trained.database.place_scores(trained.key, version, {tasks[-1]: (1e-8, 9999, False)})
            trained.platform.live()[tasks[-1]].update(score=1e-8, cluster=9999)
        return found

    trained.platform.predictions_of_many = another_worker
    trained.label(3)
    acts.train(trained.database, trained.project, "asked for")
    trained.scheduler.tick()
    perform(trained.app, trained.queue.take())
    assert moved
    assert all(trained.platform.live()[task]["cluster"] == 9999 for task in moved)


def test_nothing_is_made_of_a_prediction_that_is_still_hidden(trained):
    """It was asked for by an audit before, and Label Studio has not been told to show it yet."""
    audit = propose(trained)
    Shaken(trained, 0).finish_audit(wrong=0.0)
    trained.work()
    rows = trained.database.scores(trained.key, audit.version)
    item = trained.database.audit_items(audit.id, state="")[0]
    row = rows[item.task_id]
    trained.database.place_scores(
        trained.key, audit.version, {item.task_id: (row.score, row.cluster, True)}
    )
    trained.platform.live()[item.task_id]["result"] = []
    trained.database.add_run(trained.key, "accept", payload={"audit": audit.id})
    number = take(trained, "accept")
    assert "labels accepted" in perform(trained.app, number)
    made = [note for note in trained.platform.annotations.values() if note.made_in_bulk]
    assert made
    assert all(note.result for note in made)


def test_tasks_that_are_new_get_one_prediction_each_though_a_request_fails(trained):
    shaken = Shaken(trained, 0)
    shaken.fails["create_prediction"] = 2
    for n in range(5):
        trained.import_image(n % 3, 2000 + n)
    assert any("extend: failed" in line for line in synchronise(trained))
    trained.later(1e6)
    trained.work()
    name = trained.platform.settings["model_version"]
    made = Counter(
        item["task"]
        for item in trained.platform.predictions.values()
        if item["model_version"] == name
    )
    assert set(made.values()) == {1}
    assert made.keys() == trained.platform.data.keys()


def test_nobody_looks_again_and_again_for_what_an_audit_still_needs(trained):
    """The predictions of a version before the live one stay until accepting has ended."""
    audit = propose(trained)
    Shaken(trained, 0).finish_audit(wrong=0.0)
    trained.work()
    assert trained.database.update_audit(
        audit.id, only_if=(audits.CERTIFIED,), status=audits.ACCEPTING
    )
    acts.train(trained.database, trained.project, "asked for")
    said = trained.work()
    assert not any("prune" in line for line in said), said
