"""Look at one project from outside and say what is wrong, each with its exact fix."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

import requests

from backend.connect import (
    KEY_HEADER,
    SAMPLING,
    SECRET_HEADER,
    SSRF_FIX,
    is_our_webhook,
    same_address,
)
from backend.edges.labels.config import NEEDED, parse_config
from backend.edges.labelstudio_api import LabelStudio
from backend.edges.webhooks import WANTED_ACTIONS
from backend.errors import PlatformError
from backend.tabs import SCORE_COLUMN, TAB_TITLE

Severity = Literal["error", "warning", "info"]
Probe = Callable[[str], str | None]
CONNECT_FIX = "Run `doubtless connect --project {project}`."
_MANY_VERSIONS = 25


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        code: stable name, for scripts.
        ok: nothing needs doing.
        severity: ``error`` breaks the loop, ``warning`` weakens it; ``info`` is good to know and
            always ok. Of another finding that is ok: how bad it would be.
        message: what was found.
        fix: what to do about it; empty when all is as it should be.
    """

    code: str
    ok: bool
    severity: Severity
    message: str
    fix: str = ""


@dataclass
class _Case:
    """Everything that was read, once."""

    platform: LabelStudio
    project_id: int
    url: str
    key: str
    live_version: str | None
    project: dict[str, Any] = field(default_factory=dict)
    backends: list[dict[str, Any]] = field(default_factory=list)
    webhooks: list[dict[str, Any]] = field(default_factory=list)
    views: list[dict[str, Any]] = field(default_factory=list)
    versions: dict[str, int] = field(default_factory=dict)
    unscored: int = 0

    @property
    def connect(self) -> str:
        return CONNECT_FIX.format(project=self.project_id)

    @property
    def ours(self) -> dict[str, Any] | None:
        return next((b for b in self.backends if same_address(str(b["url"]), self.url)), None)


def answers(url: str) -> str | None:
    """Why nothing answers at an address, or ``None`` when something does."""
    try:
        requests.get(url, timeout=3, allow_redirects=False).close()
    except requests.RequestException as exc:
        return type(exc).__name__
    return None


def examine(
    platform: LabelStudio,
    project_id: int,
    *,
    public_url: str,
    key: str,
    live_version: str | None,
    probe: Probe = answers,
) -> list[Finding]:
    """Check everything that is known to break the loop and can be seen through the API.

    Not visible there, so not checked: environment variables of Label Studio (they show only when
    it refuses an address), rows of ``ProjectMember`` on databases that came from Enterprise (two
    of them make the order random), and what a proxy in front does.

    Args:
        platform: Label Studio with the project's token.
        project_id: the project.
        public_url: where Label Studio should reach us.
        key: of the project here.
        live_version: the version that should be served; ``None`` before the first.
        probe: says why nothing answers at an address.
    """
    case = _Case(platform, project_id, public_url.rstrip("/"), key, live_version)
    try:
        user = platform.whoami()
    except PlatformError as exc:
        return [Finding("token", False, "error", "Label Studio cannot be used.", str(exc))]
    findings = [
        Finding("token", True, "error", f"The token of {user.get('email') or 'a user'} works."),
        _token_kind(platform),
    ]
    try:
        case.project = platform.project(project_id)
        case.backends = platform.ml_backends(project_id)
        case.webhooks = platform.webhooks(project_id)
        case.views = platform.views(project_id)
        case.versions = platform.model_versions(project_id)
        case.unscored = platform.unscored_open_tasks(project_id)
    except PlatformError as exc:
        return [
            *findings,
            Finding("project", False, "error", f"Project {project_id} cannot be read.", str(exc)),
        ]
    for check in (_config, _backend, _webhook, _queue, _habits, _tab):
        findings.extend(check(case))
    findings.extend(_addresses(case, probe))
    return findings


def _token_kind(platform: LabelStudio) -> Finding:
    lasting = platform.token_kind != "access"
    return Finding(
        "token-kind",
        lasting,
        "error",
        "The token lasts." if lasting else "The token is an access token, which dies in minutes.",
        "" if lasting else "Use the personal access token it was made from, or a legacy token.",
    )


def _check(code: str, wrong: bool, severity: Severity, good: str, bad: str, fix: str) -> Finding:
    ok = not wrong or severity == "info"
    return Finding(code, ok, severity, bad if wrong else good, fix if wrong else "")


def _config(case: _Case) -> Iterator[Finding]:
    parsed = parse_config(str(case.project.get("label_config") or ""))
    yield _check(
        "labeling-config",
        parsed.spec is None,
        "error",
        "The labeling config asks a question that can be predicted.",
        "Nothing in the labeling config can be predicted. " + " ".join(parsed.problems),
        f"Under Settings > Labeling Interface add {NEEDED}.",
    )
    if parsed.spec is not None:
        for problem in parsed.problems:
            yield Finding("unsupported-tag", True, "info", problem)


def _backend(case: _Case) -> Iterator[Finding]:
    ours = case.ours
    moved = [b for b in case.backends if b.get("basic_auth_user") == case.key and b is not ours]
    yield _check(
        "backend",
        ours is None,
        "error",
        f"The ML backend {case.url} is in the project.",
        f"The project has no ML backend {case.url}"
        + (f" (it has {moved[0]['url']}, an earlier address)." if moved else "."),
        case.connect,
    )
    if ours is None:
        return
    state = str(ours.get("state", ""))
    yield _check(
        "backend-state",
        state in ("DI", "ER"),
        "error",
        "Label Studio reaches the ML backend.",
        f"Label Studio says the ML backend is {str(ours.get('readable_state', state)).lower()}: "
        f"{str(ours.get('error_message') or 'no reason given')[:300]}",
        "Check that `doubtless up` runs and that DOUBTLESS_PUBLIC_URL is the address as seen from "
        f"Label Studio (from inside Docker, localhost is the container). {SSRF_FIX}",
    )
    secured = ours.get("auth_method") == "BASIC_AUTH" and ours.get("basic_auth_user") == case.key
    yield _check(
        "backend-password",
        not secured or ours.get("basic_auth_pass_is_set") is False,
        "error",
        "The ML backend row has this project's password.",
        "The ML backend row lacks this project's password, so Start Training is refused.",
        case.connect,
    )
    first = min(case.backends, key=lambda b: int(b["id"]))
    yield _check(
        "several-backends",
        len(case.backends) > 1,
        "warning" if first is ours else "error",
        "There is one ML backend.",
        f"The project has {len(case.backends)} ML backends; Label Studio asks only the first "
        f"({first['url']}) for predictions.",
        "Remove the others under Settings > Model.",
    )
    clash = [str(b["title"]) for b in case.backends if b.get("title") in case.versions]
    yield _check(
        "title-is-version",
        bool(clash),
        "warning",
        "No ML backend is named like a stored version.",
        f"An ML backend is named '{', '.join(clash)}' like a stored version: deleting any version "
        "would then clear the project's version, and the order with it.",
        case.connect,
    )


def _webhook(case: _Case) -> Iterator[Finding]:
    url = f"{case.url}/webhook"
    ours = [w for w in case.webhooks if is_our_webhook(w, url, case.key)]
    half = case.ours is not None
    yield _check(
        "webhook",
        not ours,
        "error",
        "Our webhook is there.",
        "The ML backend is connected without its webhook, so no label is ever heard of."
        if half
        else "The project has no webhook to us.",
        f"{case.connect} If Label Studio refuses it: {SSRF_FIX}" if half else case.connect,
    )
    if ours:
        row, headers = ours[0], ours[0].get("headers") or {}
        missing = set(WANTED_ACTIONS) - set(row.get("actions") or [])
        wrong = [
            text
            for text, bad in (
                ("is switched off", not row.get("is_active", True)),
                ("points to an earlier address", not same_address(str(row["url"]), url)),
                (
                    "lacks the secret",
                    headers.get(KEY_HEADER) != case.key or not headers.get(SECRET_HEADER),
                ),
                ("sends payloads that annotators wait for", row.get("send_payload", True)),
                (
                    f"lacks {', '.join(sorted(missing))}",
                    bool(missing) and not row.get("send_for_all_actions"),
                ),
                ("is there twice", len(ours) > 1),
            )
            if bad
        ]
        yield _check(
            "webhook-settings",
            bool(wrong),
            "error",
            "Our webhook has the secret and the events.",
            f"Our webhook {' and '.join(wrong)}.",
            case.connect,
        )


def _addresses(case: _Case, probe: Probe) -> Iterator[Finding]:
    """What can only be seen by asking the addresses themselves."""
    reason = probe(f"{case.url}/health")
    yield _check(
        "public-url",
        reason is not None,
        "warning",
        f"{case.url} answers from here.",
        f"{case.url} does not answer from here ({reason}).",
        "Start `doubtless up`, or set DOUBTLESS_PUBLIC_URL to where Label Studio reaches it. From "
        "another machine or container the answer may differ.",
    )
    host = (urlsplit(case.url).hostname or "").lower()
    there = (urlsplit(case.platform.url).hostname or "").lower()
    yield _check(
        "public-url-local",
        _is_loopback(host) and not _is_loopback(there),
        "error",
        "The address given to Label Studio is one it can mean.",
        f"Label Studio runs on {there}, where {host} is Label Studio's own machine, not ours.",
        "Set DOUBTLESS_HOST=0.0.0.0 and DOUBTLESS_PUBLIC_URL=http://<this machine>:9090, then "
        f"{case.connect}",
    )
    known = [str(b["url"]) for b in case.backends]
    stray = [
        w
        for w in case.webhooks
        if str(w.get("url", "")).rstrip("/").endswith("/webhook")
        and not is_our_webhook(w, f"{case.url}/webhook", case.key)
        and not any(same_address(str(w["url"]), f"{u.rstrip('/')}/webhook") for u in known)
        and w.get("is_active", True)
    ]
    dead = [w for w in stray if probe(str(w["url"])) is not None]
    yield _check(
        "dead-webhooks",
        bool(dead),
        "warning",
        "No webhook of a removed ML backend slows the annotators down.",
        "Webhooks of ML backends that are gone cost every submit up to a second: "
        + ", ".join(f"{w['url']} (id {w['id']})" for w in dead)
        + ".",
        "Delete them under Settings > Webhooks; removing an ML backend leaves them behind.",
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _queue(case: _Case) -> Iterator[Finding]:
    project = case.project
    yield _check(
        "sampling",
        project.get("sampling") != SAMPLING,
        "error",
        "The project samples by uncertainty.",
        f"The project's sampling is '{project.get('sampling')}', so scores do not order the queue.",
        f"{case.connect} (The radio button in the UI is for Enterprise; the API accepts it.)",
    )
    current = project.get("model_version") or ""
    republish = "Run `doubtless score --publish` to publish the live version again."
    if case.live_version is None:
        yield _check(
            "model-version",
            current in [str(b.get("title")) for b in case.backends],
            "warning",
            "No version is published yet.",
            f"The project's version is '{current}', the name of an ML backend: the queue is random "
            "and every task waits for a prediction.",
            case.connect,
        )
        return
    yield _check(
        "model-version",
        current != case.live_version,
        "error",
        f"The project serves version {case.live_version}.",
        f"The project's version is '{current}', but '{case.live_version}' is live: Label Studio "
        "then serves at random and shows no score.",
        f"{republish} Under Settings > Model, 'Live predictions' must not name a backend.",
    )
    stored = case.versions.get(case.live_version, 0)
    yield _check(
        "predictions",
        stored == 0,
        "error",
        f"{stored} predictions of {case.live_version} are stored.",
        f"Label Studio has no prediction of {case.live_version}.",
        republish,
    )
    if stored and current == case.live_version:
        yield _check(
            "unscored-tasks",
            case.unscored > 0,
            "warning",
            "Every open task has a score.",
            f"{case.unscored} open tasks have no score of {case.live_version}; they are served "
            "last, at random.",
            f"New tasks get theirs within a minute; if not: {republish}",
        )


def _habits(case: _Case) -> Iterator[Finding]:
    """Settings that work against the loop without breaking it."""
    project = case.project
    yield _check(
        "show-predictions",
        not project.get("show_collab_predictions", True),
        "info",
        "People see the pre-annotations.",
        "Pre-annotations are hidden from people, so labelling is not biased by them.",
        f"If that is not wanted: {case.connect}",
    )
    yield _check(
        "evaluate-automatically",
        bool(project.get("evaluate_predictions_automatically")),
        "warning",
        "The Data Manager does not wait for predictions.",
        "Label Studio asks for predictions whenever the Data Manager is opened, which people wait "
        "for.",
        case.connect,
    )
    yield _check(
        "train-on-submit",
        int(project.get("min_annotations_to_start_training") or 0) > 0,
        "info",
        "Submitting does not press Start Training.",
        "Label Studio presses Start Training inside the submit request. It does no harm here, and "
        "no good: new labels are heard of anyway.",
        "Switch it off under Settings > Model.",
    )
    several = int(project.get("maximum_annotations") or 1)
    yield _check(
        "several-annotations",
        several > 1,
        "info",
        "Each task is labelled once.",
        f"Each task is labelled {several} times: tasks already begun come first, at random, and "
        "scores order only the others.",
        "Settings > Quality > annotations per task: 1, unless agreement is wanted.",
    )
    yield _check(
        "many-versions",
        len(case.versions) >= _MANY_VERSIONS,
        "warning",
        f"{len(case.versions)} versions have stored predictions.",
        f"{len(case.versions)} versions have stored predictions "
        f"({sum(case.versions.values())} in all), which slows Label Studio down.",
        "Old versions of ours are removed little by little; delete those of others under Settings "
        "> Predictions.",
    )


def _tab(case: _Case) -> Iterator[Finding]:
    data = next(
        (v["data"] for v in case.views if v.get("data", {}).get("title") == TAB_TITLE), None
    )
    good = data is not None and data.get("ordering") == [SCORE_COLUMN]
    yield _check(
        "tab",
        not good and bool(case.project.get("task_number")),
        "warning",
        f"The tab '{TAB_TITLE}' is there."
        if good
        else f"The tab '{TAB_TITLE}' is added once the project has tasks.",
        f"The tab '{TAB_TITLE}' is not there, or in another order.",
        case.connect,
    )
