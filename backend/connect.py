"""Connect a project of Label Studio to Doubtless, or repair what is there; safe to run again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from backend.edges.labelstudio_api import LabelStudio
from backend.edges.webhooks import WANTED_ACTIONS
from backend.errors import PlatformError
from backend.tabs import ensure_tab

SAMPLING = "Uncertainty sampling"
KEY_HEADER = "X-Doubtless-Key"
SECRET_HEADER = "X-Doubtless-Secret"
SSRF_FIX = (
    "Label Studio refuses ML backends and webhooks on private addresses (its default since 1.23). "
    "Start it with LABEL_STUDIO_ML_BLOCK_LOCAL_IP=false and "
    "LABEL_STUDIO_SSRF_PROTECTION_ENABLED=false in its environment (both are needed), or with the "
    "one switch LABEL_STUDIO_USE_DEFAULT_BANNED_SUBNETS=false; restart it and run "
    "`doubtless connect` again."
)


@dataclass(frozen=True)
class ConnectReport:
    """What `connect` found and did.

    Attributes:
        steps: one sentence each, in order.
        backend_id: our row under Settings > Model.
        webhook_id: our row under Settings > Webhooks.
        view_id: our tab in the Data Manager; ``None`` while the project has no task.
        changed: whether anything in Label Studio was changed.
    """

    steps: tuple[str, ...]
    backend_id: int
    webhook_id: int
    view_id: int | None
    changed: bool


@dataclass
class _Work:
    platform: LabelStudio
    project_id: int
    url: str
    key: str
    secret: str
    title: str
    steps: list[str] = field(default_factory=list)
    changed: bool = False

    def did(self, step: str) -> None:
        self.steps.append(step)
        self.changed = True


def connect(
    platform: LabelStudio,
    project_id: int,
    *,
    public_url: str,
    key: str,
    secret: str,
    title: str = "Doubtless",
) -> ConnectReport:
    """Make a project send its tasks and events here, and serve the most doubtful tasks first.

    Finds our ML backend row by its address or by our key, and creates or repairs it with the
    password; keeps exactly one webhook of ours, with the secret in a header (Label Studio's own
    webhook has none) and only the events we need; switches uncertainty sampling and
    pre-annotations on; adds the tab "Most doubtful first". Rows of others are not touched.

    Args:
        platform: Label Studio with the token of someone who may edit the project.
        project_id: the project.
        public_url: where Label Studio reaches us.
        key: user name of the backend row, and first header of the webhook.
        secret: password of the backend row, and second header of the webhook.
        title: of the backend row; another one is taken when a stored version has this name.

    Raises:
        TokenError: the token is refused.
        PlatformError: Label Studio refuses or cannot reach us; nothing half-made is left behind.
    """
    work = _Work(platform, project_id, public_url.rstrip("/"), key, secret, title)
    user = platform.whoami()
    project = platform.project(project_id)
    work.steps.append(
        f"Label Studio accepts the token of {user.get('email') or user.get('id')} for project "
        f"{project_id}, '{project.get('title', '')}'."
    )
    if title in platform.model_versions(project_id):
        # Deleting a version clears project.model_version when a backend's title equals it.
        work.title = f"{title} backend"
    backend_id = _backend(work)
    webhook_id = _webhook(work)
    _settings(work)
    view_id, step, made = ensure_tab(platform, project_id)
    work.steps.append(step)
    work.changed |= made
    return ConnectReport(tuple(work.steps), backend_id, webhook_id, view_id, work.changed)


def same_address(a: str, b: str) -> bool:
    """Whether two addresses are the same but for a slash at the end and letter case."""
    return a.rstrip("/").lower() == b.rstrip("/").lower()


def _backend(work: _Work) -> int:
    platform = work.platform
    rows = platform.ml_backends(work.project_id)
    ours = [row for row in rows if same_address(str(row["url"]), work.url)]
    ours += [row for row in rows if row.get("basic_auth_user") == work.key and row not in ours]
    fields: dict[str, Any] = {
        "title": work.title,
        "auth_method": "BASIC_AUTH",
        "basic_auth_user": work.key,
        "basic_auth_pass": work.secret,
        "is_interactive": False,
    }
    for extra in ours[1:]:
        platform.delete_ml_backend(int(extra["id"]))
        work.did(f"Removed a second backend row ({extra['url']}).")
    if ours:
        row = ours[0]
        wrong = [name for name in fields if name in row and row[name] != fields[name]]
        if not same_address(str(row["url"]), work.url):
            wrong.append("url")
        try:  # always, since the password cannot be read back
            platform.update_ml_backend(
                int(row["id"]), url=work.url, project=work.project_id, **fields
            )
        except PlatformError as exc:
            raise _explained(exc, work.url) from exc
        if wrong:
            work.did(f"Repaired the ML backend {work.url} ({', '.join(wrong)}).")
        else:
            work.steps.append(f"The ML backend {work.url} is there; its password was set again.")
        return int(row["id"])
    try:
        made = platform.create_ml_backend(url=work.url, project=work.project_id, **fields)
    except PlatformError as exc:
        _remove_half_made(work)
        raise _explained(exc, work.url) from exc
    work.did(f"Added the ML backend {work.url}.")
    return int(made["id"])


def _remove_half_made(work: _Work) -> None:
    """Label Studio keeps the row when only the webhook is refused, connected yet without events."""
    for row in work.platform.ml_backends(work.project_id):
        if same_address(str(row["url"]), work.url):
            work.platform.delete_ml_backend(int(row["id"]))


def _explained(exc: PlatformError, url: str) -> PlatformError:
    text = str(exc)
    if exc.code == 403 and ("reserved network" in text or "banned" in text or "block:" in text):
        return PlatformError(f"Label Studio refuses {url}. {SSRF_FIX}", exc.code)
    if exc.code == 400 and "connect to ML backend" in text:
        return PlatformError(
            f"Label Studio cannot reach {url} from where it runs. Check that `doubtless up` runs "
            "and that the address is right as seen from Label Studio: inside Docker, localhost is "
            "the container itself, so set DOUBTLESS_HOST=0.0.0.0 and, for example, "
            "DOUBTLESS_PUBLIC_URL=http://host.docker.internal:9090 (or the service's name).",
            exc.code,
        )
    return exc


def _webhook(work: _Work) -> int:
    platform, url = work.platform, f"{work.url}/webhook"
    wanted: dict[str, Any] = {
        "url": url,
        "headers": {KEY_HEADER: work.key, SECRET_HEADER: work.secret},
        "actions": sorted(WANTED_ACTIONS),
        "send_for_all_actions": False,
        # The events say that something changed, and the worker reads what: a payload would be put
        # together while the annotator waits.
        "send_payload": False,
        "is_active": True,
    }
    ours = [row for row in platform.webhooks(work.project_id) if is_our_webhook(row, url, work.key)]
    for extra in ours[1:]:
        platform.delete_webhook(int(extra["id"]))
        work.did(f"Removed a second webhook ({extra['url']}).")
    try:
        if not ours:
            made = platform.create_webhook(project=work.project_id, **wanted)
            work.did("Added the webhook that tells us of labels and tasks.")
            return int(made["id"])
        row = {**ours[0], "actions": sorted(ours[0].get("actions") or [])}
        wrong = [name for name, value in wanted.items() if row.get(name) != value]
        if wrong:
            platform.update_webhook(int(row["id"]), **wanted)
            work.did("Gave the webhook its secret and only the events that are needed.")
        else:
            work.steps.append("The webhook is as it should be.")
        return int(row["id"])
    except PlatformError as exc:
        if "reserved" in str(exc) or "block" in str(exc):
            raise PlatformError(f"Label Studio refuses {url}. {SSRF_FIX}", exc.code) from exc
        raise


def is_our_webhook(row: dict[str, Any], url: str, key: str) -> bool:
    """Whether a webhook is this project's, at this address or at an earlier one."""
    headers = row.get("headers") or {}
    return same_address(str(row.get("url", "")), url) or headers.get(KEY_HEADER) == key


def _settings(work: _Work) -> None:
    project = work.platform.project(work.project_id)
    wanted: dict[str, Any] = {
        "sampling": SAMPLING,
        "show_collab_predictions": True,
        "evaluate_predictions_automatically": False,  # else opening the Data Manager waits for us
    }
    if project.get("model_version") == work.title:
        # Connecting puts the title there; no stored score has that version, so the queue would be
        # random, and every task served would wait for /predict. Publishing puts the version there.
        wanted["model_version"] = ""
    wrong = {name: value for name, value in wanted.items() if project.get(name) != value}
    if wrong:
        work.platform.update_project(work.project_id, **wrong)
        names = ", ".join(sorted(wrong))
        work.did(f"Set the project to serve the lowest score first ({names}).")
    else:
        work.steps.append("The project serves the lowest score first.")
