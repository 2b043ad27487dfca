"""Auto-accept on in-memory twins: audit, proof, acceptance, check, withdrawal and undo."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from backend import acceptance, acts, audits, triage
from backend.errors import BackendError, PlatformError
from backend.jobs import perform
from model.acceptance.plan import ALL, EXPECTED, Promise, plan_audit
from model.errors import ModelError

PROMISE = Promise(0.05, 0.9)


@pytest.fixture
def trained(make_world):
    """A project with a good version live: 400 pictures, 30 labels."""
    world = make_world(400, retrain_after=30)
    world.work()
    world.label(30)
    world.work()
    return world


def propose(world, promise=PROMISE, **options):
    audit = acceptance.propose(world.database, world.project, promise, **options)
    world.work()
    return audit


def answer_audit(world, *, wrong=0):
    """People label all that the audit asks for; the first few of them otherwise than predicted."""
    audit = audits.current(world.database, world.project)
    items = world.database.audit_items(audit.id, state=audits.DRAWN)
    for n, item in enumerate(items):
        if n < wrong:
            world.truth[item.task_id] = other(item.said)
        else:
            world.truth[item.task_id] = item.said
        world.submit(item.task_id)
    world.database.update_project(world.key, sync_requested_at=1.0)
    world.work()
    return items


def other(colour):
    return "red" if colour != "red" else "green"


def run(world, kind, audit):
    world.database.add_run(world.key, kind, payload={"audit": audit.id})
    return world.work()


def accepted(world):
    audit = propose(world)
    answer_audit(world)
    run(world, "accept", audit)
    return audit


def status(world):
    return audits.describe(world.database, world.project)


def test_an_audit_comes_first_in_the_queue(trained):
    audit = propose(trained)
    drawn = {i.task_id for i in trained.database.audit_items(audit.id, state=audits.DRAWN)}
    assert len(drawn) == audit.plan["audit"] > 20
    served = [trained.platform.next_task()]
    trained.submit(served[0])
    while len(served) < len(drawn):
        served.append(trained.platform.next_task())
        trained.submit(served[-1])
    assert set(served) == drawn
    rows = trained.database.scores(trained.key, audit.version)
    live = trained.platform.live()
    assert all(live[task]["score"] == rows[task].score for task in drawn)
    assert all(0 < rows[task].score < 1e-7 < rows[task].p_right for task in drawn)


def test_nothing_is_trained_while_an_audit_is_under_way(trained):
    propose(trained)
    trained.label(15)
    assert not any("train" in line for line in trained.work())
    decision = trained.scheduler.decision(trained.project, trained.database.versions(trained.key))
    assert not decision.due
    assert "an audit is under way (15 of" in decision.reason


def test_an_audit_without_an_error_proves_and_is_accepted_and_taken_back(trained):
    before = {a.id: a for a in trained.platform.annotations.values()}
    audit = propose(trained)
    answer_audit(trained)
    found = status(trained)
    assert found["status"] == "certified"
    assert found["may_be_accepted"] == audit.plan["sizes"][-1]
    assert "0 of" in found["sentence"]
    assert "with 90 % confidence" in found["sentence"], "the promise's, not that of one attempt"
    by_people = trained.database.label_count(trained.key)

    said = run(trained, "accept", audit)
    found = status(trained)
    assert found["status"] == "accepted", said
    assert found["accepted"] > 100
    unseen = trained.database.audit_items(audit.id, state="accepted")
    watched = trained.database.audit_items(audit.id, state=audits.WATCHED)
    assert len(unseen) + len(watched) + audit.plan["audit"] == found["may_be_accepted"]
    for item in unseen:
        (made,) = [a for a in trained.platform.annotations.values() if a.task_id == item.task_id]
        assert made.id == item.annotation_id
        assert made.result[0]["value"]["choices"] == [item.said]
    assert trained.database.label_count(trained.key) == by_people
    assert not {i.task_id for i in unseen} & trained.database.labels(trained.key).keys()
    assert "nothing was missed" in trained.work() or trained.work() == []

    run(trained, "undo", audit)
    assert audits.current(trained.database, trained.project) is None
    left = set(trained.platform.annotations)
    people = {a.task_id for a in trained.platform.annotations.values()}
    assert before.keys() <= left
    assert len(left) == by_people == len(people)
    assert trained.database.annotation_counts(trained.key) == (by_people, 0)


def test_what_is_accepted_is_out_of_the_piles_whatever_label_studio_lists(trained, monkeypatch):
    """What changed lately is read by pages, and pages that shift leave some of it out."""
    audit = propose(trained)
    answer_audit(trained)
    before = triage.piles(trained.database, trained.project)
    monkeypatch.setattr("backend.jobs.accept.synchronise", lambda *_, **__: "nothing was read")
    trained.database.add_run(trained.key, "accept", payload={"audit": audit.id})
    trained.scheduler.tick()
    perform(trained.app, trained.queue.take())
    found, after = status(trained), triage.piles(trained.database, trained.project)
    opened = sum(before[name] - after[name] for name in ("accept", "review", "label"))
    assert opened == found["accepted"] > 100


def test_what_was_accepted_is_never_trained_on(trained):
    accepted(trained)
    unseen = status(trained)["accepted"]
    labels = trained.database.label_count(trained.key)
    trained.label(12)
    trained.work()
    newest = trained.database.versions(trained.key)[-1]
    assert newest.labels == labels + 12
    assert unseen > 100


def test_too_many_errors_prove_nothing(trained):
    propose(trained)
    answer_audit(trained, wrong=12)
    found = status(trained)
    assert found["status"] == "refused"
    assert found["sentence"].startswith("Nothing may be accepted")
    assert found["may_be_accepted"] == 0


def test_a_skipped_or_deleted_audit_task_counts_as_wrong(trained):
    audit = propose(trained)
    items = trained.database.audit_items(audit.id, state=audits.DRAWN)
    trained.platform.annotate(items[0].task_id, [], cancelled=True)
    trained.platform.delete_task(items[1].task_id)
    trained.database.update_project(trained.key, full_sync_at=0.0, sync_requested_at=1.0)
    trained.work()
    judged = audits.verdicts(trained.database, trained.project, items)
    assert judged == {items[0].rank: True, items[1].rank: True}


def test_a_second_audit_of_the_same_model_is_tested_harder(trained):
    first = propose(trained)
    trained.database.update_project(trained.key, paused=True)  # no new version after it
    answer_audit(trained, wrong=12)
    second = propose(trained)
    assert (first.attempt, second.attempt) == (0, 1)
    assert second.plan["confidence"] > first.plan["confidence"] > PROMISE.confidence


def test_two_audits_at_once_are_refused(trained):
    propose(trained)
    with pytest.raises(BackendError, match="an audit is open already"):
        propose(trained)


def test_after_accepting_the_same_version_is_not_audited_again(trained):
    trained.database.update_project(trained.key, paused=True)
    accepted(trained)
    with pytest.raises(BackendError, match="accepted already"):
        propose(trained)


def test_an_audit_that_cannot_pay_is_refused_with_the_reason(trained):
    scores = trained.database.scores(trained.key, trained.project.live_version)
    doubtful = [replace(row, p_right=0.6) for row in scores.values()]
    trained.database.put_scores(trained.key, trained.project.live_version, doubtful)
    with pytest.raises(BackendError, match=r"itself expects 40\.0%"):
        propose(trained)
    assert propose(trained, audit=50).plan["audit"] == 50


def test_nothing_can_be_accepted_before_a_version_is_trained(world):
    world.work()
    with pytest.raises(BackendError, match="nothing is trained yet"):
        propose(world)


def test_another_version_ends_an_audit(trained):
    propose(trained)
    trained.database.update_project(trained.key, requested_at=1.0, request_reason="pressed")
    trained.work()
    trained.database.update_project(trained.key, sync_requested_at=1.0)
    trained.work()
    (audit,) = trained.database.audits(trained.key)
    assert audit.status == "cancelled"
    assert "another version is live" in audit.reason


def test_accepted_labels_that_turn_out_wrong_withdraw_it(trained):
    audit = accepted(trained)
    watched = trained.database.audit_items(audit.id, state=audits.WATCHED)
    assert len(watched) >= 20
    for n, item in enumerate(watched):
        trained.truth[item.task_id] = other(item.said) if n < 6 else item.said
        trained.submit(item.task_id)
    trained.database.update_project(trained.key, sync_requested_at=1.0)
    trained.work()
    found = status(trained)
    assert found["status"] == "withdrawn"
    assert "6 of" in found["sentence"]
    assert "--undo" in found["sentence"]


def test_accepted_labels_that_stay_true_stand(trained):
    audit = accepted(trained)
    for item in trained.database.audit_items(audit.id, state=audits.WATCHED):
        trained.truth[item.task_id] = item.said
        trained.submit(item.task_id)
    trained.database.update_project(trained.key, sync_requested_at=1.0)
    trained.work()
    found = status(trained)
    assert found["status"] == "accepted"
    assert found["checked"]["checked"] == found["checked"]["asked"] >= 20
    assert found["checked"]["wrong"] == 0
    assert found["checked"]["evidence"] < 1


def test_what_a_person_changed_is_theirs(trained):
    audit = accepted(trained)
    item = trained.database.audit_items(audit.id, state="accepted")[0]
    record = trained.platform.annotations[item.annotation_id]
    trained.platform._touch(item.task_id)
    changed = replace(
        record, result=trained.choice(other(item.said)),
        updated_at=trained.platform.updated[item.task_id],
    )  # fmt: skip
    trained.platform.annotations[record.id] = changed
    before = trained.database.label_count(trained.key)
    trained.database.update_project(trained.key, sync_requested_at=1.0)
    trained.work()
    assert trained.database.labels(trained.key)[item.task_id] == other(item.said)
    assert trained.database.label_count(trained.key) == before + 1
    said = run(trained, "undo", audit)
    assert any("1 that people changed or deleted since are left" in line for line in said)
    assert record.id in trained.platform.annotations


def test_accepting_that_broke_off_goes_on_without_a_second_annotation(trained):
    audit = propose(trained)
    answer_audit(trained)
    mark = trained.database.mark_accepted
    trained.database.mark_accepted = lambda *_: (_ for _ in ()).throw(PlatformError("killed", 500))
    run(trained, "accept", audit)
    made = len(trained.platform.annotations)
    pending = trained.database.audit_states(audit.id)["pending"]
    assert pending > 100
    # Whoever reads labels now does not take them for a person's.
    assert trained.database.label_count(trained.key) < made
    trained.database.mark_accepted = mark
    run(trained, "accept", audit)
    found = status(trained)
    assert found["status"] == "accepted"
    assert found["accepted"] == pending
    tasks = [a.task_id for a in trained.platform.annotations.values()]
    assert len(tasks) == len(set(tasks))


def test_a_label_that_came_meanwhile_is_not_overwritten(trained):
    audit = propose(trained)
    answer_audit(trained)
    items = trained.database.audit_items(audit.id, state="")
    task = items[0].task_id
    answer = trained.platform.tasks_of_many

    def and_somebody_submits(project_id, ids):
        trained.platform.tasks_of_many = answer
        trained.submit(task, tell=False)
        return answer(project_id, ids)

    trained.platform.tasks_of_many = and_somebody_submits
    run(trained, "accept", audit)
    assert status(trained)["status"] == "accepted"
    notes = [a for a in trained.platform.annotations.values() if a.task_id == task]
    assert len(notes) == 1
    assert not notes[0].made_in_bulk


def test_a_crowded_out_run_leaves_the_state_to_its_successor(trained):
    audit = propose(trained)
    answer_audit(trained)
    trained.platform.fail["accept_predictions"] = PlatformError("down", 502)
    said = run(trained, "accept", audit)
    assert any("failed: down" in line for line in said)
    assert status(trained)["status"] == "accepting"
    trained.platform.fail.clear()
    run(trained, "accept", audit)
    assert status(trained)["status"] == "accepted"


def test_the_promise_of_the_whole_pool_is_watched_among_what_was_accepted(trained):
    audit = propose(trained, Promise(0.05, 0.9, ALL))
    answer_audit(trained)
    run(trained, "accept", audit)
    found = status(trained)
    size, pool = found["may_be_accepted"], found["pool"]
    ranks = [i.rank for i in trained.database.audit_items(audit.id, state="drawn")]
    unseen = size - sum(rank < size for rank in ranks)
    assert found["checked"]["max_error"] == pytest.approx(int(0.05 * pool) / unseen)


def test_a_run_without_an_audit_says_so(trained):
    run_id = trained.database.add_run(trained.key, "accept", payload={"audit": 99})
    assert perform(trained.app, run_id) == "failed: there is no audit 99"


def save_again(world, item, label):
    """Somebody opens an accepted annotation and presses Update."""
    record = world.platform.annotations[item.annotation_id]
    world.platform._touch(item.task_id)
    saved = replace(
        record, result=world.choice(label), made_in_bulk=False, lead_time=9.0,
        updated_at=world.platform.updated[item.task_id],
    )  # fmt: skip
    world.platform.annotations[record.id] = saved
    look_again(world)


def look_again(world):
    world.database.update_project(world.key, sync_requested_at=1.0)
    world.work()


def test_what_a_person_confirmed_is_theirs(trained):
    audit = accepted(trained)
    item = trained.database.audit_items(audit.id, state="accepted")[0]
    before = trained.database.label_count(trained.key)
    save_again(trained, item, item.said)
    assert trained.database.label_count(trained.key) == before + 1
    run(trained, "undo", audit)
    assert item.annotation_id in trained.platform.annotations


def test_another_labeling_config_makes_no_label_of_what_was_accepted(trained):
    audit = accepted(trained)
    unseen = status(trained)["accepted"]
    trained.platform.label_config = trained.platform.label_config.replace(
        'toName="image"', 'toName="image" choice="multiple"'
    )
    look_again(trained)
    assert (
        trained.database.label_count(trained.key) < len(trained.platform.annotations) - unseen + 1
    )
    said = run(trained, "undo", audit)
    assert any(f"{unseen} accepted labels taken back" in line for line in said)


def test_another_labeling_config_ends_an_audit(trained):
    propose(trained)
    trained.platform.label_config = trained.platform.label_config.replace(
        '<Choice value="blue"/>', '<Choice value="blue"/><Choice value="pink"/>'
    )
    look_again(trained)
    (audit,) = trained.database.audits(trained.key)
    assert (audit.status, audit.reason) == (
        "cancelled", "the labeling config asks for something else now",
    )  # fmt: skip


def test_what_is_checked_after_one_acceptance_is_left_out_of_the_next(trained):
    first = accepted(trained)
    watched = {i.task_id for i in trained.database.audit_items(first.id, state="watched")}
    trained.label(12)
    trained.work()
    for _ in range(40):
        trained.import_image(1, 900 + _)
    trained.database.update_project(trained.key, full_sync_at=0.0, sync_requested_at=1.0)
    trained.work()
    second = propose(trained, Promise(0.2, 0.8, ALL), audit=15)
    assert not watched & {i.task_id for i in trained.database.audit_items(second.id)}
    answer_audit(trained)
    run(trained, "accept", second)
    look_again(trained)
    states = {a.id: a.status for a in trained.database.audits(trained.key)}
    assert states == {first.id: "accepted", second.id: "accepted"}
    (earlier,) = status(trained)["earlier"]
    assert (earlier["audit"], earlier["status"]) == (first.id, "accepted")
    assert earlier["accepted"] > 100


def test_giving_up_comes_too_late_once_accepting_began(trained):
    audit = propose(trained)
    answer_audit(trained)
    trained.database.update_audit(audit.id, status="accepting")
    with pytest.raises(BackendError, match="no audit is under way"):
        acts.cancel_audit(trained.database, trained.project, "too late")
    run(trained, "accept", audit)
    assert status(trained)["status"] == "accepted"


def test_an_acceptance_that_broke_off_can_be_taken_back(trained):
    audit = propose(trained)
    answer_audit(trained)
    mark = trained.database.mark_accepted
    trained.database.mark_accepted = lambda *_: (_ for _ in ()).throw(PlatformError("killed", 500))
    run(trained, "accept", audit)
    trained.database.mark_accepted = mark
    people = trained.database.label_count(trained.key)
    assert len(trained.platform.annotations) > people
    acts.undo_acceptance(trained.database, trained.project, "asked for")
    trained.work()
    assert len(trained.platform.annotations) == people
    assert audits.current(trained.database, trained.project) is None
    task = next(iter(trained.platform.live().keys() - trained.database.touched_tasks(trained.key)))
    trained.submit(task)
    assert trained.database.label_count(trained.key) == people + 1


def test_predictions_that_are_gone_leave_their_tasks_open(trained):
    audit = propose(trained)
    answer_audit(trained)
    items = trained.database.audit_items(audit.id, state="")
    lost = items[0].task_id
    trained.platform.predictions = {
        n: p for n, p in trained.platform.predictions.items() if p["task"] != lost
    }
    run(trained, "accept", audit)
    found = status(trained)
    assert found["status"] == "accepted"
    assert lost not in {a.task_id for a in trained.platform.annotations.values()}


def test_annotations_made_in_bulk_prove_nothing(trained):
    """Somebody uses Label Studio's own action on the tasks of an audit."""
    audit = propose(trained)
    drawn = [i.task_id for i in trained.database.audit_items(audit.id, state="drawn")]
    trained.platform.accept_predictions(1, f"v{audit.version}", drawn)
    look_again(trained)
    found = status(trained)
    assert (found["status"], found["audit_labels_done"]) == ("open", 0)


def test_tasks_that_are_deleted_or_skipped_afterwards_withdraw_nothing(trained):
    audit = accepted(trained)
    watched = trained.database.audit_items(audit.id, state="watched")
    for item in watched[:8]:
        trained.platform.delete_task(item.task_id)
    for item in watched[8:16]:
        trained.platform.annotate(item.task_id, [], cancelled=True)
    trained.database.update_project(trained.key, full_sync_at=0.0)
    look_again(trained)
    found = status(trained)
    assert (found["status"], found["checked"]["checked"]) == ("accepted", 0)


def test_what_is_checked_is_asked_for_in_chance_order(trained):
    trained.database.update_project(trained.key, paused=True)  # no new version after it
    audit = accepted(trained)
    items = trained.database.audit_items(audit.id, state="watched")
    order = [item.rank for item in audits.in_chance_order(audit, items)]
    assert sorted(order) == [item.rank for item in items]
    assert order != sorted(order)
    scores = trained.database.scores(trained.key, audit.version)
    rank = {item.task_id: item.rank for item in items}
    served = sorted(rank, key=lambda task: scores[task].score)
    assert [rank[task] for task in served] == order


def test_an_audit_that_could_not_be_put_in_front_is_put_there_later(trained):
    trained.platform.fail["update_prediction"] = PlatformError("down", 502)
    audit = propose(trained)
    trained.platform.fail.clear()
    drawn = {i.task_id for i in trained.database.audit_items(audit.id, state="drawn")}
    trained.later(1000)
    trained.work()
    assert trained.platform.next_task() in drawn


def test_two_audits_at_the_same_moment_are_one(trained):
    audit = propose(trained)
    again = {k: getattr(audit, k) for k in ("project", "version", "attempt", "max_error",
             "confidence", "of", "plan", "status")}  # fmt: skip
    assert trained.database.add_audit(again, []) is None
    assert len(trained.database.audits(trained.key)) == 1


def test_the_promise_holds_for_each_class(trained):
    """The audit is wrong about one class: the others are accepted, and nothing of that one."""
    audit = propose(trained, by="classes")
    parts = {part.name: part for part in audits.parts_of(audit)}
    assert parts.keys() == {"red", "green", "blue"}
    asked = status(trained)
    assert {row["may_be_accepted"] for row in asked["classes"]} == {None}
    assert "each of 3 classes" in asked["sentence"]
    drawn = trained.database.audit_items(audit.id, state=audits.DRAWN)
    assert len(drawn) == audit.plan["audit"] == sum(p.plan.audit for p in parts.values())
    for part in parts.values():
        inside = [i for i in drawn if part.start <= i.rank < part.stop]
        assert {i.said for i in inside} == {part.name}
        assert len(inside) == part.plan.audit
    for item in drawn:
        trained.truth[item.task_id] = other("red") if item.said == "red" else item.said
        trained.submit(item.task_id)
    trained.database.update_project(trained.key, sync_requested_at=1.0)
    trained.work()
    found = status(trained)
    assert found["status"] == "certified"
    sizes = {row["name"]: row["may_be_accepted"] for row in found["classes"]}
    assert sizes["red"] == 0 < min(sizes["green"], sizes["blue"])
    assert found["may_be_accepted"] == sum(sizes.values())
    assert "Nothing of red." in found["sentence"]
    assert "90 % confidence for all of them together" in found["sentence"]
    accept, *_, accept_from = triage.may_be_accepted(trained.database, trained.project)
    assert 0 < accept < found["may_be_accepted"]
    assert accept_from is None

    run(trained, "accept", audit)
    unseen = trained.database.audit_items(audit.id, state="accepted")
    assert {i.said for i in unseen} == {"green", "blue"}
    watch = status(trained)["checked"]
    assert watch["asked"] >= 20

    for item in trained.database.audit_items(audit.id, state=audits.WATCHED):
        trained.truth[item.task_id] = "green" if item.said == "blue" else item.said
        trained.submit(item.task_id)
    trained.database.update_project(trained.key, sync_requested_at=1.0)
    trained.work()
    assert status(trained)["status"] == "withdrawn", "one class of two broke its promise"


def test_classes_that_all_fail_prove_nothing(trained):
    audit = propose(trained, by="classes")
    answer_audit(trained, wrong=audit.plan["audit"])
    found = status(trained)
    assert found["status"] == "refused"
    assert "any of the 3 classes" in found["sentence"]


def test_an_expected_share_is_held_with_few_labels_and_once(trained):
    audit = propose(trained, Promise(0.05, 0.9, EXPECTED))
    rows = trained.database.scores(trained.key, audit.version)
    items = trained.database.audit_items(audit.id)
    p_right = np.array([rows[item.task_id].p_right for item in items])
    proof = plan_audit(p_right, Promise(0.05, 0.9))
    assert proof is not None
    assert audit.plan["audit"] < proof.audit
    assert "on average" in status(trained)["sentence"]
    acts.pause(trained.database, trained.project)  # nothing new is trained of the audit's labels
    answer_audit(trained, wrong=audit.plan["audit"])
    assert status(trained)["status"] == "refused"
    with pytest.raises(BackendError, match="audited for an expected share already"):
        propose(trained, Promise(0.05, 0.9, EXPECTED))
    assert propose(trained, Promise(0.05, 0.9, ALL), audit=40)


def test_an_expected_share_is_accepted_and_watched(trained):
    audit = propose(trained, Promise(0.05, 0.9, EXPECTED))
    answer_audit(trained)
    found = status(trained)
    assert found["status"] == "certified"
    assert "confidence" not in found["sentence"]
    run(trained, "accept", audit)
    found = status(trained)
    assert found["accepted"] > 100
    assert found["checked"]["max_error"] == pytest.approx(
        0.05 * found["pool"] / (found["may_be_accepted"] - audit.plan["audit"]), rel=0.1
    )


def test_where_no_class_pays_it_says_how_many_tasks_each_has(trained):
    with pytest.raises(BackendError, match=r"the 3 classes that v2 predicts have \d+ to \d+ open"):
        propose(trained, Promise(0.001, 0.999), by="classes")


def test_classes_need_one_choice_an_image(trained):
    several = trained.project.label_config.replace("<Choices ", '<Choices choice="multiple" ')
    trained.database.update_project(trained.key, label_config=several)
    with pytest.raises(BackendError, match="one choice an image"):
        propose(trained, by="classes")
    with pytest.raises(BackendError, match="needs a project with boxes; this one has: tasks"):
        propose(trained, by="regions")
    with pytest.raises(ModelError, match=r"clases.*classes"):
        propose(trained, by="clases")


def queue(world):
    """What Label Studio has of the live version, by task: score, whether tagged, the choice."""
    return {
        task: (round(item["score"], 6), item.get("cluster") is not None, chosen_of(item["result"]))
        for task, item in world.platform.live().items()
    }


def chosen_of(result):
    return result[0]["value"]["choices"] if result else None


def test_an_audit_that_is_given_up_leaves_the_queue_as_it_was(trained):
    before = queue(trained)
    audit = propose(trained)
    drawn = {i.task_id for i in trained.database.audit_items(audit.id, state=audits.DRAWN)}
    assert queue(trained) != before
    acts.cancel_audit(trained.database, trained.project, "given up")
    said = trained.work()
    assert any(f"{len(drawn)} are back in their places" in line for line in said), said
    assert queue(trained) == before
    rows = trained.database.scores(trained.key, audit.version)
    live = trained.platform.live()
    assert all(live[task].get("cluster") == rows[task].cluster for task in drawn)
    trained.database.add_run(trained.key, "audit", reason="once more")
    assert not any("back in their places" in line for line in trained.work())


def test_what_was_chosen_for_training_is_chosen_again_after_an_audit(trained):
    """With a cluster nobody has used, or Label Studio would leave it for the end."""
    chosen = {t for t, *_ in trained.database.acquired(trained.key, trained.project.live_version)}
    audit = propose(trained, audit=300)  # of nearly all
    drawn = {i.task_id for i in trained.database.audit_items(audit.id, state=audits.DRAWN)}
    assert chosen & drawn
    highest = max(i["cluster"] for i in trained.platform.live().values() if i.get("cluster"))
    acts.cancel_audit(trained.database, trained.project, "given up")
    trained.work()
    live = trained.platform.live()
    assert all(live[task]["cluster"] > highest for task in chosen & drawn)
    assert all(live[task]["cluster"] is None for task in drawn - chosen)


def test_the_next_audit_asks_for_its_own_tasks_alone(trained):
    propose(trained)
    acts.cancel_audit(trained.database, trained.project, "given up")
    trained.work()
    audit = propose(trained)
    drawn = {i.task_id for i in trained.database.audit_items(audit.id, state=audits.DRAWN)}
    assert set(trained.label(len(drawn))) == drawn


def test_a_version_that_ends_an_audit_hides_nothing_and_asks_for_nothing_of_it(trained):
    audit = propose(trained)
    drawn = {i.task_id for i in trained.database.audit_items(audit.id, state=audits.DRAWN)}
    trained.database.update_project(trained.key, requested_at=1.0, request_reason="pressed")
    trained.work()
    live = trained.platform.live()
    assert trained.project.live_version > audit.version
    assert all(item["result"] for item in live.values())
    assert not [task for task in drawn if live[task]["score"] < 1e-3]


@pytest.mark.parametrize("end", ["withdrawn", "undone"])
def test_what_is_no_longer_accepted_is_no_longer_checked(trained, end):
    audit = accepted(trained)
    watched = trained.database.audit_items(audit.id, state=audits.WATCHED)
    if end == "undone":
        run(trained, "undo", audit)
        seen = []
    else:
        seen = watched[:8]
        for item in seen:
            trained.truth[item.task_id] = other(item.said)
            trained.submit(item.task_id)
        trained.database.update_project(trained.key, sync_requested_at=1.0)
        trained.work()
        assert status(trained)["status"] == "withdrawn"
    trained.work()
    left = {item.task_id for item in watched} - {item.task_id for item in seen}
    left -= trained.database.draws(trained.key).keys()  # of the version that came
    live = trained.platform.live()
    assert left
    assert all(live[task]["result"] for task in left)
    assert not [task for task in left if live[task]["score"] < 1e-3]


def test_who_checks_does_not_see_what_is_predicted(trained):
    """Neither in the audit nor, once something is accepted, among what is checked."""
    audit = propose(trained)
    drawn = {i.task_id for i in trained.database.audit_items(audit.id, state=audits.DRAWN)}
    live = trained.platform.live()
    assert status(trained)["blind"]
    assert {task for task, item in live.items() if item["result"] == []} == drawn
    rows = trained.database.scores(trained.key, audit.version)
    assert all(rows[task].label is not None for task in drawn), "the version's word is kept"
    doubtful = trained.database.most_doubtful(trained.key, audit.version, 1000)
    assert {row.task_id for row in doubtful} == {
        task for task in live if task not in drawn | trained.database.touched_tasks(trained.key)
    }
    answer_audit(trained)
    run(trained, "accept", audit)
    watched = {i.task_id for i in trained.database.audit_items(audit.id, state=audits.WATCHED)}
    hidden = {task for task, item in trained.platform.live().items() if item["result"] == []}
    assert trained.project.live_version > audit.version
    assert hidden == watched, "the version that the audit's labels made does not show them either"
    assert len(watched) >= 20


def test_an_audit_may_show_what_is_predicted(trained):
    propose(trained, blind=False)
    assert not status(trained)["blind"]
    assert all(item["result"] for item in trained.platform.live().values())


def taken_back(world, audit):
    """Undo; how many requests deleted something, and what was said."""
    before = len(world.platform.calls)
    said = run(world, "undo", audit)
    calls = world.platform.calls[before:]
    return calls.count("delete_annotations_of"), calls.count("delete_annotation"), said


def test_what_was_made_is_taken_back_in_few_requests(trained):
    audit = accepted(trained)
    people = {i for i, a in trained.platform.annotations.items() if not a.made_in_bulk}
    made = status(trained)["accepted"]
    at_once, single, said = taken_back(trained, audit)
    assert (at_once, single) == (-(-made // 60), 0)
    assert f"{made} accepted labels taken back" in " ".join(said)
    assert trained.platform.annotations.keys() == people


def test_taking_back_that_broke_off_tells_what_went_before(trained):
    audit = accepted(trained)
    made = status(trained)["accepted"]
    update = trained.database.update_items
    parts = []

    def dies_in_the_second(*arguments, **fields):
        update(*arguments, **fields)
        parts.append(arguments)
        if len(parts) == 2:
            raise PlatformError("killed", 500)

    trained.database.update_items = dies_in_the_second
    run(trained, "undo", audit)
    trained.database.update_items = update
    assert status(trained)["status"] == "undoing"
    said = run(trained, "undo", audit)
    assert f"{made - 120} accepted labels taken back, after 120 of" in " ".join(said)


def test_nothing_else_of_the_author_goes_with_it(trained):
    """A second annotation, a draft, and what is saved between reading and deleting."""
    audit = accepted(trained)
    unseen = [i.task_id for i in trained.database.audit_items(audit.id, state="accepted")]
    second = trained.platform.annotate(unseen[0], trained.choice("red"))
    trained.platform.drafts.add(unseen[1])
    delete = trained.platform.delete_annotations_of
    saved = []

    def while_somebody_saves(project_id, tasks, **given):
        if not saved:
            saved.append(trained.platform.annotate(unseen[2], trained.choice("red")))
        delete(project_id, tasks, **given)

    trained.platform.delete_annotations_of = while_somebody_saves
    _, single, _ = taken_back(trained, audit)
    assert single == 3
    left = trained.platform.annotations
    assert {second.id, saved[0].id} <= left.keys()
    assert unseen[1] in trained.platform.drafts
    assert not any(a.made_in_bulk for a in left.values())
