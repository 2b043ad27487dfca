"""Rows of the database as values: what the middle of the backend reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Project:
    """One connected project of one Label Studio."""

    key: str
    host: str
    platform_id: int
    uid: str
    title: str
    token: str = field(repr=False)
    secret: str = field(repr=False)
    label_config: str
    config_hash: str
    paused: bool
    connected_at: float
    live_version: int | None
    next_version: int
    next_cluster: int
    changes: int
    changed_at: float | None
    pings: int
    requested_at: float | None
    request_reason: str | None
    sync_requested_at: float | None
    full_sync_at: float | None
    synced_at: float | None
    sync_cursor: str | None
    problems: list[str]
    drift: dict[str, Any] | None = None
    methods: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Version:
    """One immutable version of a project's predictions."""

    project: str
    number: int
    name: str
    kind: str
    status: str
    reason: str
    created_at: float
    published_at: float | None
    changes: int
    labels: int
    config_hash: str
    bundle: str | None
    metrics: dict[str, Any]
    on_platform: bool

    def is_of(self, config_hash: str, backbone: str) -> bool:
        """Whether it knows the project's present classes and the features there are now."""
        return (
            self.config_hash == config_hash and self.metrics.get("backbone", backbone) == backbone
        )


@dataclass(frozen=True, kw_only=True)
class Run:
    """One piece of background work and how far it is."""

    id: int
    project: str
    kind: str
    status: str
    reason: str
    payload: dict[str, Any]
    attempt: int
    owner: str | None
    created_at: float
    enqueued_at: float | None
    started_at: float | None
    heartbeat_at: float | None
    finished_at: float | None
    progress: float
    stage: str
    error: str | None


@dataclass(frozen=True, kw_only=True)
class PoolTask:
    """A task as the jobs see it."""

    task_id: int
    reference: str
    image_hash: str | None
    state: str
    error: str | None


@dataclass(frozen=True, kw_only=True)
class Score:
    """What one version says of one task; `label` is a text as `edges.labels.answers` has it.

    `hidden`: Label Studio does not have the label, because somebody is to check the task blind.
    """

    task_id: int
    label: str | None
    score: float
    p_right: float | None
    total: float | None = None
    aleatoric: float | None = None
    epistemic: float | None = None
    cluster: int | None = None
    position: int | None = None
    probs: dict[str, float] | None = None
    hidden: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Draw:
    """A task chosen by chance, not by its score."""

    task_id: int
    kind: str
    version: int
    probability: float


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What somebody wants to accept unseen; see the table for its states."""

    id: int
    project: str
    version: int
    attempt: int
    status: str
    reason: str
    max_error: float
    confidence: float
    of: str
    plan: dict[str, Any]
    certificate: dict[str, Any] | None
    created_at: float
    changed_at: float


@dataclass(frozen=True, kw_only=True)
class AuditItem:
    """A task in the part that an audit is about; see the table for its states."""

    task_id: int
    rank: int
    state: str
    said: str | None
    annotation_id: int | None = None
    made_at: str | None = None


@dataclass(frozen=True, kw_only=True)
class Compared:
    """An open task beside the labelled ones, as they were at the last training.

    Attributes:
        task_id: which.
        novelty: see `model.novelty.Novelty.share`.
        nearest: labelled tasks most like it, with the cosine similarity of each, nearest first.
    """

    task_id: int
    novelty: float
    nearest: list[tuple[int, float]]


@dataclass(frozen=True, kw_only=True)
class Contradicted:
    """A label of people's, and how the model that was not fitted on it sees it."""

    task_id: int
    p_right: float
    label: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Consensus:
    """What people and the model together say of a labelled task.

    Attributes:
        task_id: which.
        label: the most probable.
        p_right: probability in [0, 1] that it is right.
        votes: who had given which label, each person's newest, by id.
        probs: each label that somebody gave -> probability in [0, 1] that it is right; empty where
            a task asks for several things.
    """

    task_id: int
    label: str
    p_right: float
    votes: Sequence[tuple[int, str]]
    probs: Mapping[str, float] = field(default_factory=dict)
