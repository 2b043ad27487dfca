"""The tables. Facts live here; Redis holds nothing that cannot be made again from them."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

SCHEMA_VERSION = 1

metadata = MetaData()

meta = Table("meta", metadata, Column("name", Text, primary_key=True), Column("value", Text))

projects = Table(
    "projects",
    metadata,
    # Our own key: the basic-auth user of the ML backend row, so that two Label Studios whose
    # projects have the same id are never mixed up.
    Column("key", Text, primary_key=True),
    Column("host", Text, nullable=False),
    Column("platform_id", Integer, nullable=False),
    Column("uid", Text, nullable=False),
    Column("title", Text, nullable=False, default=""),
    Column("token", Text, nullable=False),
    Column("secret", Text, nullable=False),
    Column("label_config", Text, nullable=False, default=""),
    Column("config_hash", Text, nullable=False, default=""),
    Column("paused", Boolean, nullable=False, default=False),
    Column("connected_at", Float, nullable=False),
    Column("live_version", Integer),
    Column("next_version", Integer, nullable=False, default=1),
    Column("next_cluster", Integer, nullable=False, default=1),
    # Counts every change of a label; a version remembers the count it was trained at.
    Column("changes", Integer, nullable=False, default=0),
    Column("changed_at", Float),
    # Webhooks since the last sync: each says that something was labelled, not what.
    Column("pings", Integer, nullable=False, default=0),
    Column("requested_at", Float),  # somebody pressed "Start Training"
    Column("request_reason", Text),
    Column("sync_requested_at", Float),  # tasks came or went, or an event had no payload
    Column("full_sync_at", Float),
    Column("synced_at", Float),
    Column("sync_cursor", Text),
    Column("problems", JSON, nullable=False, default=list),
    Column("drift", JSON(none_as_null=True)),  # see `backend.drift`
    Column("methods", JSON(none_as_null=True)),  # chosen for it, see `backend.methods`
    UniqueConstraint("host", "uid"),
)

tasks = Table(
    "tasks",
    metadata,
    Column("project", ForeignKey("projects.key", ondelete="CASCADE"), primary_key=True),
    Column("task_id", Integer, primary_key=True, autoincrement=False),
    Column("reference", Text, nullable=False, default=""),
    Column("image_hash", Text),
    Column("state", Text, nullable=False, default="new"),  # new, ready, broken
    Column("error", Text),
    Index("tasks_by_state", "project", "state"),
)

answers = Table(
    "annotations",
    metadata,
    Column("project", ForeignKey("projects.key", ondelete="CASCADE"), primary_key=True),
    Column("annotation_id", Integer, primary_key=True, autoincrement=False),
    Column("task_id", Integer, nullable=False),
    Column("label", Text),  # None: skipped, empty, or a class the config no longer has
    Column("cancelled", Boolean, nullable=False, default=False),
    Column("completed_by", Integer),
    Column("lead_time", Float),  # seconds somebody had it open
    # From a prediction, by nobody who had the task open; null where it is not known.
    Column("made_in_bulk", Boolean),
    Column("updated_at", Text, nullable=False, default=""),
    Index("annotations_by_task", "project", "task_id"),
)

draws = Table(
    "draws",
    metadata,
    Column("project", ForeignKey("projects.key", ondelete="CASCADE"), primary_key=True),
    Column("task_id", Integer, primary_key=True, autoincrement=False),
    Column("kind", Text, nullable=False),  # random, audit
    Column("version", Integer, nullable=False),
    Column("probability", Float, nullable=False),
    Column("drawn_at", Float, nullable=False),
)

# What acquisition chose for each version's front, in its order: the log that LURE needs.
acquired = Table(
    "acquired",
    metadata,
    Column("project", ForeignKey("projects.key", ondelete="CASCADE"), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("task_id", Integer, nullable=False),
    Column("rule", Text, nullable=False),
    Column("probability", Float),  # given the picks before it; none where nothing was drawn
)

versions = Table(
    "versions",
    metadata,
    Column("project", ForeignKey("projects.key", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),  # cold, trained, rollback
    # building -> publishing -> live -> superseded; or kept (not promoted), abandoned (crashed)
    Column("status", Text, nullable=False),
    Column("reason", Text, nullable=False, default=""),
    Column("created_at", Float, nullable=False),
    Column("published_at", Float),
    Column("changes", Integer, nullable=False, default=0),
    Column("labels", Integer, nullable=False, default=0),
    Column("config_hash", Text, nullable=False, default=""),
    Column("bundle", Text),  # folder of the trained bundle, relative to the project's versions
    Column("metrics", JSON, nullable=False, default=dict),
    Column(
        "on_platform", Boolean, nullable=False, default=False
    ),  # its predictions may exist there
)

scores = Table(
    "scores",
    metadata,
    Column("project", ForeignKey("projects.key", ondelete="CASCADE"), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("task_id", Integer, primary_key=True, autoincrement=False),
    Column("label", Text),
    Column("score", Float, nullable=False),  # what Label Studio sorts by
    Column("p_right", Float),  # calibrated; differs from `score` only for draws
    Column("total", Float),
    Column("aleatoric", Float),
    Column("epistemic", Float),
    Column("cluster", Integer),
    # Calibrated probability of each class, where an image may have several.
    Column("probs", JSON(none_as_null=True)),
    Column("position", Integer),  # place in our order, from 0
    # Label Studio has the prediction without its result: somebody is to check the task blind.
    Column("hidden", Boolean),
)

# Out-of-fold correctness on random-share labels: what the promotion gate compares.
judgements = Table(
    "judgements",
    metadata,
    Column("project", ForeignKey("projects.key", ondelete="CASCADE"), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("task_id", Integer, primary_key=True, autoincrement=False),
    Column("right", Boolean, nullable=False),
)

# What somebody wants to accept unseen: the plan, fixed before its labels are seen, and what came of
# it.
audits = Table(
    "audits",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("project", ForeignKey("projects.key", ondelete="CASCADE"), nullable=False),
    Column("version", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),  # from 0, of this version
    # planned -> open -> certified or refused; certified -> accepting -> accepted -> withdrawn;
    # accepting, accepted or withdrawn -> undoing -> undone; open or certified -> cancelled
    Column("status", Text, nullable=False),
    Column("reason", Text, nullable=False, default=""),
    Column("max_error", Float, nullable=False),
    Column("confidence", Float, nullable=False),
    Column("of", Text, nullable=False),
    Column("plan", JSON, nullable=False),  # pool, sizes, audit, confidence of this attempt
    Column("certificate", JSON(none_as_null=True)),
    Column("created_at", Float, nullable=False),
    Column("changed_at", Float, nullable=False),
    Index("audits_by_project", "project", "status"),
    UniqueConstraint("project", "version", "attempt"),
)

# The part of the pool that an audit is about, in the order of P(right).
audit_items = Table(
    "audit_items",
    metadata,
    Column("audit", ForeignKey("audits.id", ondelete="CASCADE"), primary_key=True),
    Column("task_id", Integer, primary_key=True, autoincrement=False),
    Column("project", ForeignKey("projects.key", ondelete="CASCADE"), nullable=False),
    Column("rank", Integer, nullable=False),
    # drawn: asked for; watched: asked for after accepting; pending: about to be accepted;
    # accepted; undone; empty: none of these
    Column("state", Text, nullable=False, default=""),
    Column("said", Text),  # what the version said, as `scores.label` has it
    Column("annotation_id", Integer),  # that stands for it in Label Studio
    Column("made_at", Text),  # its `annotations.updated_at`, until somebody saves it again
    Index("audit_items_by_task", "project", "task_id"),
    Index("audit_items_by_state", "audit", "state"),
)

# Labels that the newest version, not fitted on them, contradicts.
label_errors = Table(
    "label_errors",
    metadata,
    Column("project", ForeignKey("projects.key", ondelete="CASCADE"), primary_key=True),
    Column("task_id", Integer, primary_key=True, autoincrement=False),
    Column("version", Integer, nullable=False),
    Column("p_right", Float, nullable=False),  # probability that the label is right
    Column("label", Text, nullable=False),  # as it was then
    Column("why", Text, nullable=False),
)

# What people and the newest version together say of labelled tasks; empty where no two people share
# one.
consensus = Table(
    "consensus",
    metadata,
    Column("project", ForeignKey("projects.key", ondelete="CASCADE"), primary_key=True),
    Column("task_id", Integer, primary_key=True, autoincrement=False),
    Column("label", Text, nullable=False),  # the most probable
    Column("p_right", Float, nullable=False),
    Column("votes", JSON, nullable=False),  # [[user, label], ...] as they were then
    Column("probs", JSON),  # that each of these labels is right; null: not told
)

# The most doubtful open tasks beside the labelled ones; see `backend.records.Compared`.
compared = Table(
    "compared",
    metadata,
    Column("project", ForeignKey("projects.key", ondelete="CASCADE"), primary_key=True),
    Column("task_id", Integer, primary_key=True, autoincrement=False),
    Column("novelty", Float, nullable=False),
    Column("nearest", JSON, nullable=False),  # [[task, similarity], ...]
)

# How good people's labels are by the newest version; empty where no two share tasks.
annotators = Table(
    "annotators",
    metadata,
    Column("project", ForeignKey("projects.key", ondelete="CASCADE"), primary_key=True),
    Column("id", Integer, primary_key=True, autoincrement=False),  # Label Studio's of the user
    Column("labels", Integer, nullable=False),
    Column("shared", Integer, nullable=False),  # of tasks that others labelled too
    Column("agreement", Float),
    Column("kappa", Float),
    Column("quality", Float),  # probability that a label is right; F1 of boxes
    Column("low", Float),
    Column("high", Float),
    Column("recall", Float),  # of what is there, where a task asks for several things
    Column("precision", Float),
)

runs = Table(
    "runs",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("project", ForeignKey("projects.key", ondelete="CASCADE"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("status", Text, nullable=False, default="queued"),  # queued, running, done, failed
    Column("reason", Text, nullable=False, default=""),
    Column("payload", JSON, nullable=False, default=dict),
    Column("attempt", Integer, nullable=False, default=1),
    Column("owner", Text),
    Column("created_at", Float, nullable=False),
    Column("enqueued_at", Float),
    Column("started_at", Float),
    Column("heartbeat_at", Float),
    Column("finished_at", Float),
    Column("progress", Float, nullable=False, default=0.0),
    Column("stage", Text, nullable=False, default=""),
    Column("error", Text),
    Index("runs_by_status", "status"),
    Index("runs_by_project", "project", "kind", "status"),
)

events = Table(
    "events",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("project", ForeignKey("projects.key", ondelete="CASCADE"), nullable=False),
    Column("key", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("received_at", Float, nullable=False),
    UniqueConstraint("project", "key"),
    Index("events_by_time", "project", "received_at"),
)
