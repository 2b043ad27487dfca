"""What the commands do, without a terminal: each function returns plain values."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import requests

from backend import acts
from backend.annotators import one_label_each
from backend.connect import ConnectReport, connect
from backend.doctor import Finding, examine
from backend.doubtful import score_values
from backend.edges.database import Database
from backend.edges.labels.answers import readable
from backend.edges.labels.config import parse_config
from backend.edges.labelstudio_api import LabelStudio
from backend.edges.rq_queue import RqQueue
from backend.edges.webhooks import project_uid
from backend.errors import BackendError, SettingError, UnknownProjectError
from backend.kinds import kind_of_project
from backend.kinds.base import Model
from backend.model_names import check_model_names
from backend.predictor import NO_VERSION
from backend.records import Project, Run, Version
from backend.settings import Settings
from backend.stack_home import STATED, read_state
from backend.status import overview


@dataclass(frozen=True)
class Connected:
    """A connected project, what was done in Label Studio, and what cannot be predicted."""

    project: Project
    report: ConnectReport


def with_running_stack(settings: Settings) -> Settings:
    """Settings with what the `doubtless up` that runs on the same home works by, if there is one.

    Its Redis, its address, the networks that read images, and when it trains.
    """
    state = read_state(settings.home_path)
    if state is None or settings.redis_url:
        return settings
    stated = state.get("settings", {})
    return replace(
        settings,
        redis_url=state["redis_url"],
        host=state["host"],
        port=int(state["port"]),
        **{name: stated[name] for name in STATED if name in stated},
    )


def connect_project(
    settings: Settings, url: str, token: str, project_id: int, *, check_server: bool = True
) -> Connected:
    """Connect a project of a Label Studio, or repair its connection.

    Raises:
        SettingError: the Doubtless server does not answer, so Label Studio could not reach it; or
            a name of the model side cannot be used.
        PlatformError: Label Studio refused; the message has the fix.
    """
    check_model_names(settings)
    settings = with_running_stack(settings)
    public = settings.reachable_url
    if check_server:
        _require_server(settings)
    platform = LabelStudio(url, token)
    facts = platform.project(project_id)
    parsed = parse_config(str(facts.get("label_config") or ""))
    database = Database(settings.database)
    project = database.connect_project(
        host=platform.url,
        platform_id=project_id,
        uid=project_uid(facts),
        title=str(facts.get("title") or ""),
        token=token,
        label_config=str(facts.get("label_config") or ""),
        config_hash=parsed.spec.config_hash if parsed.spec else "",
        problems=list(parsed.problems),
    )
    report = connect(
        platform, project_id, public_url=public, key=project.key, secret=project.secret
    )
    return Connected(project, report)


def _require_server(settings: Settings) -> None:
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
    address = f"http://{host}:{settings.port}/health"
    for candidate in (address, f"{settings.reachable_url}/health"):
        try:
            if requests.get(candidate, timeout=3).ok:
                return
        except requests.RequestException:
            continue
    raise SettingError(
        f"no Doubtless server answers at {address}; start `doubtless up` first, or say where it "
        "is with DOUBTLESS_PUBLIC_URL (or DOUBTLESS_PORT)"
    )


def find_project(database: Database, reference: str | None) -> Project:
    """The project a person means: its key, its Label Studio id, or the only one there is.

    Raises:
        UnknownProjectError: none, or more than one, fits.
    """
    projects = database.projects()
    listing = ", ".join(f"{p.key} ({p.platform_id} on {p.host})" for p in projects)
    if not projects:
        raise UnknownProjectError(
            "no project is connected; run `doubtless connect --url URL --token TOKEN --project ID`"
        )
    if reference is None:
        if len(projects) == 1:
            return projects[0]
        raise UnknownProjectError(f"say which project with --project: {listing}")
    found = [p for p in projects if reference in (p.key, p.uid, str(p.platform_id))]
    if len(found) != 1:
        problem = "fits more than one" if found else "is not connected"
        raise UnknownProjectError(f"project '{reference}' {problem}; there are: {listing}")
    return found[0]


def live_model(settings: Settings, project: Project) -> Model | None:
    """The trained model behind the live version.

    ``None`` before the first one, and while images are read by another network than its own.
    """
    database = Database(settings.database)
    try:
        number = database.project(project.key).live_version
        version = None if number is None else database.version(project.key, number)
    finally:
        database.close()
    if version is None or version.bundle is None:
        return None
    kind = kind_of_project(project)
    if not version.is_of(version.config_hash, kind.backbone(settings)):
        return None
    return kind.load(settings.artifacts / "versions" / project.key / version.bundle)


def diagnose(
    settings: Settings, project: Project, database: Database | None = None
) -> list[Finding]:
    """What is wrong with a project's Label Studio, and how to mend it."""
    database = database or Database(settings.database)
    live = (
        NO_VERSION
        if project.live_version is None
        else database.version(project.key, project.live_version).name
    )
    return examine(
        LabelStudio(project.host, project.token),
        project.platform_id,
        public_url=settings.reachable_url,
        key=project.key,
        live_version=None if live == NO_VERSION else live,
    )


def status(settings: Settings, reference: str | None = None) -> dict[str, Any]:
    """Queue, workers and every project: labels, live version, what runs, what comes next."""
    settings = with_running_stack(settings)
    database = Database(settings.database)
    projects = None if reference is None else [find_project(database, reference)]
    queue = RqQueue(settings.redis_url) if settings.redis_url else None
    return overview(settings, database, queue, projects)


def train(settings: Settings, project: Project, reason: str) -> float:
    """Ask for a training; returns the time of the request, to wait for its end."""
    return acts.train(Database(settings.database), project, reason)


def wait_for(
    settings: Settings,
    project: Project,
    kinds: tuple[str, ...],
    since: float,
    *,
    show: Callable[[float, str], None],
    timeout_s: float,
) -> Run:
    """Wait until a run of one of the kinds, made since then, has ended.

    Raises:
        BackendError: it failed, or nothing ended in time.
    """
    database = Database(settings.database)
    deadline = time.time() + timeout_s
    while time.time() < deadline:
        runs = [
            r
            for r in database.runs(
                project.key, status=("queued", "running", "done", "failed"), limit=50
            )
            if r.kind in kinds and r.created_at >= since - 0.001
        ]
        if runs:
            run = runs[-1]
            show(run.progress, run.stage or run.status)
            if run.status == "done":
                return run
            if run.status == "failed":
                raise BackendError(f"the {run.kind} run failed: {run.error}")
        else:
            show(0.0, "waiting for a worker")
        time.sleep(0.2)
    raise BackendError(
        f"nothing ended within {timeout_s:.0f} s; is `doubtless up` running? See `doubtless status`"
    )


def republish(settings: Settings, project: Project, version: Version, reason: str) -> float:
    """Ask that a version's model be published again; returns the time of the request."""
    return acts.republish(settings, Database(settings.database), project, version, reason)


def scores(settings: Settings, project: Project) -> list[dict[str, Any]]:
    """What the live version says of every task: open ones first, most doubtful first."""
    database = Database(settings.database)
    if project.live_version is None:
        raise BackendError(f"project {project.key} has no live version yet; see `doubtless status`")
    rows = database.scores(project.key, project.live_version).values()
    spec = parse_config(project.label_config).spec
    several = spec is not None and spec.multiple
    labels = one_label_each(database, project.key, spec) if spec else database.labels(project.key)
    return [
        {
            **score_values(spec, row),
            "cluster": row.cluster,
            "label": readable(spec, labels.get(row.task_id)),
            **({"probabilities": row.probs} if several else {}),
        }
        for row in sorted(rows, key=lambda row: (row.task_id in labels, row.score, row.task_id))
    ]
