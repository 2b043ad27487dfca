"""The whole loop on in-memory twins: connect, cold start, labels, versions, new order."""

from __future__ import annotations

from backend.errors import MediaError, PlatformError
from backend.jobs import perform
from backend.ordering import LOWEST, UNREADABLE


def test_people_never_start_with_random_images(world):
    world.work()
    assert world.versions() == ["cold-1 live"]
    live = world.platform.live()
    assert len(live) == 60
    assert all(p["result"] == [] and 0 < p["score"] < LOWEST for p in live.values())
    assert world.platform.settings["sampling"] == "Uncertainty sampling"


def test_ten_labels_make_a_version_that_knows_every_task(world):
    world.work()
    world.label(10)
    world.work()
    assert world.versions() == ["cold-1 superseded", "v2 live"]
    live = world.platform.live()
    assert len(live) == 60
    for task, prediction in live.items():
        score = world.database.scores(world.key, 2)[task]
        assert prediction["result"][0]["value"]["choices"] == [score.label]
        assert 0 < prediction["score"] < 1


def test_the_order_served_is_the_order_published(world):
    world.work()
    world.label(10)
    world.work()
    rows = world.database.scores(world.key, 2)
    touched = world.database.touched_tasks(world.key)
    front = sorted(
        (r for i, r in rows.items() if r.cluster is not None and i not in touched),
        key=lambda r: r.score,
    )
    assert world.label(len(front), tell=False) == [r.task_id for r in front]


def test_a_version_says_how_good_it_is_on_the_whole_pool(make_world):
    world = make_world(200)
    for _ in range(5):
        world.work()
        world.label(10)
    world.work()
    found = world.database.versions(world.key)[-1].metrics["pool_accuracy"]
    assert 0 <= found["low"] <= found["value"] <= found["high"] <= 1
    assert "On the whole pool" in found["sentence"]


def test_what_was_chosen_is_logged_with_its_probability(make_world):
    world = make_world(80, acquisition="power-margin")
    world.work()
    world.label(10)
    world.work()
    tagged = {i for i, r in world.database.scores(world.key, 2).items() if r.cluster is not None}
    log = world.database.acquired(world.key, 2)
    assert log
    assert {task for task, _, _ in log} <= tagged
    assert {rule for _, rule, _ in log} == {"power-margin"}
    assert all(0 < chance <= 1 for _, _, chance in log)


def test_a_fifth_of_the_labels_is_drawn_by_chance(make_world):
    world = make_world(200)
    for _ in range(6):
        world.work()
        world.label(10)
    drawn = world.database.draws(world.key).keys() & world.database.labels(world.key).keys()
    assert 10 <= len(drawn) <= 14


def test_labels_whose_webhooks_were_lost_are_in_the_next_version(world):
    world.work()
    world.label(10)
    world.label(5, tell=False)
    world.work()
    assert world.database.versions(world.key)[-1].labels == 15


def test_an_annotation_deleted_unseen_is_forgotten(world):
    world.work()
    world.label(12)
    world.work()
    gone = next(iter(world.platform.annotations))
    del world.platform.annotations[gone]
    world.database.update_project(world.key, sync_requested_at=1.0)
    world.work()
    assert world.database.versions(world.key)[-1].labels == 11


def test_superseded_predictions_are_deleted_and_the_live_ones_stay(world):
    world.work()
    world.label(10)
    said = world.work()
    assert any("cold-1 are gone" in line for line in said)
    versions = {p["model_version"] for p in world.platform.predictions.values()}
    assert versions == {"v2"}


def test_an_emptied_queue_loses_nothing(world):
    world.work()
    world.label(10)
    world.scheduler.tick()
    world.queue.forget()
    world.scheduler._checked = 0.0
    world.work()
    assert world.versions()[-1] == "v2 live"


def test_a_crash_before_the_switch_leaves_the_old_version_in_force(world):
    world.work()
    world.label(10)
    world.platform.fail["update_project"] = PlatformError("gone for a minute", 503)
    world.work()
    assert world.platform.settings["model_version"] == "cold-1"
    assert world.project.live_version == 1
    world.platform.fail.clear()
    world.later(1000)
    world.work()
    assert world.versions()[:2] == ["cold-1 superseded", "v2 abandoned"]
    assert world.versions()[-1] == "v3 live"
    counts = [p["task"] for p in world.platform.predictions.values()]
    assert len(counts) == len(set(counts)) == 60


def test_a_worker_that_lost_its_run_publishes_nothing(world):
    world.work()
    world.label(10)
    import_predictions = world.platform.import_predictions

    def lose(project_id, items):
        created = import_predictions(project_id, items)
        run = next(r for r in world.database.runs() if r.kind == "train")
        world.database.update_run(run.id, owner="another")
        return created

    world.platform.import_predictions = lose
    world.scheduler.tick()
    run_id = world.queue.take()
    assert "given to another worker" in perform(world.app, run_id)
    assert world.platform.settings["model_version"] == "cold-1"


def test_an_unreadable_image_harms_no_other_and_stands_last(world):
    bad = world.platform.add_task({"image": "/data/torn.png"})
    world.media.files["/data/torn.png"] = b"\x89PNG\r\n\x1a\nnot really"
    absent = world.platform.add_task({"picture": "elsewhere"})
    world.work()
    states = {t.task_id: t for t in world.database.tasks(world.key)}
    assert states[bad].state == "broken"
    assert "no image under 'image'" in states[absent].error
    live = world.platform.live()
    assert live[bad]["score"] == live[absent]["score"] == UNREADABLE
    assert len(live) == 62


def test_a_source_that_does_not_answer_is_tried_again(world):
    late = world.platform.add_task({"image": "/data/late.png"})
    world.media.files["/data/late.png"] = MediaError("timed out", transient=True)
    world.scheduler.tick()
    for _ in range(2):
        run_id = world.queue.take()
        perform(world.app, run_id)
        world.scheduler.tick()
    assert world.database.task_counts(world.key)["new"] == 1
    world.media.files["/data/late.png"] = world.media.files["/data/1.png"]
    world.later(1000)
    world.work()
    assert late in world.platform.live()


def test_new_tasks_get_predictions_of_the_live_version(world):
    world.work()
    world.label(10)
    world.work()
    fresh = [world.import_image(i % 3, 1000 + i) for i in range(5)]
    world.database.update_project(world.key, sync_requested_at=1.0)
    world.work()
    live = world.platform.live()
    assert all(live[i]["model_version"] == "v2" and live[i]["result"] for i in fresh)


def test_deleted_tasks_do_not_break_publishing(world):
    world.work()
    world.label(10)
    victim = max(world.platform.data)
    world.platform.delete_task(victim)
    world.work()
    world.later(1000)
    world.work()
    assert world.versions()[-1].endswith("live")
    assert victim not in world.platform.live()


def test_a_changed_class_list_trains_anew_without_the_old_class(world):
    world.work()
    world.label(15)
    world.work()
    world.platform.label_config = world.platform.label_config.replace("blue", "violet")
    world.database.update_project(world.key, sync_requested_at=1.0)
    world.work()
    last = world.database.versions(world.key)[-1]
    assert last.status == "live"
    labels = {p["result"][0]["value"]["choices"][0] for p in world.platform.live().values()}
    assert "blue" not in labels
    assert last.labels < 15


def test_a_version_significantly_worse_is_kept_back(make_world):
    """Somebody mislabels many tasks: the random share, labelled before, shows the harm."""
    world = make_world(240)
    for _ in range(4):
        world.work()
        world.label(10)
    world.work()
    good = world.project.live_version
    drawn = world.database.draws(world.key)
    others = [
        i for i in world.truth if i not in world.database.touched_tasks(world.key) | drawn.keys()
    ]
    for task in others[:150]:
        world.truth[task] = {"red": "green", "green": "blue", "blue": "red"}[world.truth[task]]
        world.submit(task)
    world.work()
    kept = world.database.versions(world.key)[-1]
    assert kept.status == "kept"
    assert "worse than the live version" in kept.reason
    assert world.project.live_version == good
    assert world.work() == []


def test_nothing_is_trained_without_news(world):
    world.work()
    world.label(10)
    world.work()
    assert world.work() == []


def test_another_backbone_reads_all_images_again_and_trains_on_them(world):
    world.work()
    world.label(10)
    world.work()
    old = world.database.versions(world.key)[-1]
    world.change_backbone()
    said = world.work()
    assert any("60 images have no features of efficientnet-lite0" in line for line in said)
    world.later(1000)
    world.work()
    new = world.database.versions(world.key)[-1]
    assert new.status == "live"
    assert new.labels == old.labels
    assert new.metrics["backbone"] == "efficientnet-lite0"
    assert all(p["model_version"] == new.name for p in world.platform.live().values())


def test_a_model_on_another_backbone_is_not_rolled_back_to(world):
    world.work()
    world.label(10)
    world.work()
    old = world.database.versions(world.key)[-1]
    world.change_backbone()
    world.database.add_run(world.key, "republish", reason="", payload={"version": old.number})
    said = world.work()
    assert any("set DOUBTLESS_BACKBONE=efficientnet-lite2+lite0" in line for line in said)


def test_deleted_features_are_computed_again(world):
    world.work()
    world.label(10)
    world.work()
    for path in (world.settings.home_path / "features").rglob("s-*"):
        path.unlink()
    world.label(10)
    world.work()
    world.later(1000)
    world.work()
    assert world.database.versions(world.key)[-1].labels == 20
