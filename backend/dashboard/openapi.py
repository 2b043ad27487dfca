"""The description of the API (OpenAPI 3.1); tests hold it to the routes and to their answers."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from backend.audits import BY
from model.acceptance.plan import OF

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
YES: Schema = {"type": "boolean"}
SHARE: Schema = {"type": "number", "minimum": 0, "maximum": 1}
NOVELTY: Schema = SHARE | {
    "description": "share of labelled images that are nearer to another labelled one than the "
    "image is to any; null where it was not compared yet"
}
TIME: Schema = {"type": "number", "description": "seconds since 1970"}


def document() -> Schema:
    """The whole description."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Doubtless dashboard",
            "version": _release(),
            "description": "Every number on the dashboard. `doubtless dashboard` prints the token; "
            "a token of a share link reads, and is refused where something changes.",
        },
        "paths": _paths(),
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "cookie": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": "doubtless_HOST",
                    "description": "Set by POST /api/session; HOST is the page's host and port.",
                },
            },
        },
        "security": [{"token": []}, {"cookie": []}],
    }


def _release() -> str:
    try:
        return version("doubtless")
    except PackageNotFoundError:  # run from a folder that was not installed
        return "0"


def _paths() -> Schema:
    key = _parameter("key", "path", "key of the project, as in the status", TEXT)
    task = _parameter("id", "path", "Label Studio's id of the task", WHOLE)
    doubtful = _parameter("doubtful", "query", "how many doubtful tasks to name, 1 to 100", WHOLE)
    limit = _parameter("limit", "query", "how many, 1 to 500", WHOLE)
    project = "/api/projects/{key}"
    said = _ref("Said")
    return {
        "/api/openapi.json": {"get": _free(_operation("This description.", {"type": "object"}))},
        "/api/session": {
            "get": _operation("What this login may do.", _ref("Session")),
            "post": _free(
                _operation("Log in: keep a token in a cookie.", _ref("Session"), body="token")
            ),
            "delete": _free(_operation("Log out.", said)),
        },
        "/api/status": {
            "get": _operation("What `doubtless status --json` prints.", _ref("Status"))
        },
        "/api/stream": {
            "get": _operation(
                "The status as server-sent events named `status`, whenever it changed.",
                TEXT, media="text/event-stream",
            )
        },
        project: {
            "get": _operation(
                "Versions, classes, calibration, the open pool, doubtful tasks, annotators.",
                _ref("Project"), [key, doubtful],
            )
        },
        f"{project}/events": {
            "get": _operation("What happened, newest first.", _ref("Events"), [key, limit])
        },
        f"{project}/doctor": {
            "get": _operation(
                "What is wrong in Label Studio, and the fix; takes seconds.", _ref("Doctor"), [key]
            )
        },
        f"{project}/tasks/{{id}}/image": {
            "get": _operation(
                "A small picture of a task, its longest side at most 320 pixels.",
                {"type": "string", "format": "binary"}, [key, task], media="image/jpeg",
            )
        },
        f"{project}/train": {"post": _operation("Train now.", said, [key], status="202")},
        f"{project}/pause": {
            "post": _operation("Start no training by itself.", said, [key], status="202")
        },
        f"{project}/resume": {"post": _operation("End a pause.", said, [key], status="202")},
        f"{project}/rollback": {
            "post": _operation(
                "Publish an earlier version again.", said, [key], status="202", body="version"
            )
        },
        f"{project}/methods": {
            "post": _operation(
                "Choose another estimator or acquisition rule; 'default' is the installation's.",
                said, [key], status="202",
                body=_object(estimator=TEXT, acquisition=TEXT, now=YES) | {"required": []},
            )
        },
        f"{project}/audit": {
            "post": _operation(
                "Ask for the labels that prove how much may be accepted unseen.", said, [key],
                status="202",
                body=_object(
                    max_error=SHARE, confidence=SHARE, of={"enum": list(OF)}, by={"enum": list(BY)}
                )
                | {"required": ["max_error", "confidence"]},
            )
        },
        f"{project}/audit/cancel": {
            "post": _operation("Give up an audit.", said, [key], status="202")
        },
        f"{project}/accept": {
            "post": _operation("Accept what an audit has proved.", said, [key], status="202")
        },
        f"{project}/accept/undo": {
            "post": _operation("Take accepted labels back.", said, [key], status="202")
        },
    }  # fmt: skip


def _schemas() -> dict[str, Schema]:
    pair = _list(_or_null(SHARE))
    estimate = _object(
        value=_or_null(NUMBER), low=_or_null(NUMBER), high=_or_null(NUMBER), sentence=TEXT
    )
    run = _object(
        id=WHOLE, kind=TEXT, status=TEXT, reason=TEXT, progress=SHARE, stage=TEXT, attempt=WHOLE,
        seconds=NUMBER, seconds_left=_or_null(NUMBER), error=_or_null(TEXT),
    )  # fmt: skip
    method = _object(chosen=TEXT, default=TEXT, live=_or_null(TEXT))
    named = _list(_object(name=TEXT, what=TEXT))
    project_status = _object(
        key=TEXT, title=TEXT, label_studio=TEXT, project=WHOLE, paused=YES, tasks=_counts(),
        methods=_object(estimator=method, acquisition=method),
        labels=WHOLE, announced=WHOLE, random_labels=WHOLE, live_version=_or_null(TEXT),
        metric=TEXT, accuracy=_or_null(SHARE), accuracy_interval=_or_null(pair),
        accuracy_out_of_fold=_or_null(SHARE), ece=_or_null(SHARE),
        stopping=_object(
            target=SHARE, accuracy=_ref("Estimate"), gain=_ref("Estimate"),
            labels_needed=_ref("Estimate"),
        ),
        running=_list(_ref("Run")),
        next_training=_object(due=YES, reason=TEXT, wait_s=_or_null(NUMBER)),
        acceptance=_or_null(_ref("Acceptance")), accept_by=_list(TEXT),
        piles=_or_null(_ref("Piles")),
        drift=_or_null(_ref("Drift")),
        problems=_list(TEXT), advice=_list(TEXT),
        unreadable=_list(_object(task=WHOLE, why=_or_null(TEXT))),
        last_error=_or_null(_ref("Run")),
    )  # fmt: skip
    acceptance = _object(
        audit=WHOLE, status=TEXT, version=TEXT, max_error=SHARE, confidence=SHARE, of=TEXT,
        by=TEXT, blind=YES, pool=WHOLE, reach=WHOLE, audit_labels=WHOLE, audit_labels_done=WHOLE,
        may_be_accepted=WHOLE, accepted=WHOLE, sentence=TEXT,
        checked=_or_null(
            _object(asked=WHOLE, checked=WHOLE, wrong=WHOLE, max_error=SHARE, evidence=NUMBER)
        ),
        classes=_or_null(
            _list(
                _object(
                    name=TEXT, pool=WHOLE, audit_labels=WHOLE, may_be_accepted=_or_null(WHOLE)
                )
            )
        ),
        regions=_or_null(
            _object(
                pool=WHOLE, audited=WHOLE, may_be_accepted=_or_null(WHOLE), missed=_or_null(SHARE)
            )
        ),
        earlier=_list(
            _object(audit=WHOLE, status=TEXT, version=TEXT, accepted=WHOLE, sentence=TEXT)
        ),
    )  # fmt: skip
    piles = _object(
        accept=WHOLE,
        review=WHOLE,
        label=WHOLE,
        accept_from=_or_null(SHARE),
        minutes=_object(review=_or_null(NUMBER), label=_or_null(NUMBER)),
    )
    drift = _object(
        at=TIME, p_value=SHARE, tasks=WHOLE, novelty_before=NUMBER, novelty_now=NUMBER,
        draws=_list(WHOLE), sentence=TEXT,
    )  # fmt: skip
    version = _object(
        name=TEXT, number=WHOLE, kind=TEXT, status=TEXT, reason=TEXT, created_at=TIME,
        labels=WHOLE, accuracy=_or_null(SHARE), accuracy_interval=_or_null(pair),
        pool_accuracy=_or_null(SHARE), pool_accuracy_interval=_or_null(pair), ece=_or_null(SHARE),
        can_be_published=YES,
    )  # fmt: skip
    class_row = _object(
        name=TEXT, labels=WHOLE, predicted=_or_null(WHOLE), mean_p_right=_or_null(SHARE),
        ap50=_or_null(SHARE),
    )  # fmt: skip
    annotator = _object(
        id=WHOLE, labels=WHOLE, shared=WHOLE, agreement=_or_null(SHARE), kappa=_or_null(NUMBER),
        quality=_or_null(SHARE), low=_or_null(SHARE), high=_or_null(SHARE),
        recall=_or_null(SHARE), precision=_or_null(SHARE),
    )  # fmt: skip
    reliability = _object(count=WHOLE, stated=SHARE, observed=SHARE, low=SHARE, high=SHARE)
    prediction: Schema = {
        "oneOf": [TEXT, _list(TEXT), _counts(), {"type": "null"}],
        "description": "a class; with several answers a list; with boxes objects of each class",
    }
    drawn = _list(_object(label=TEXT, box=_list(SHARE)))
    nearest = _object(
        task=WHOLE, label=prediction, similarity={"type": "number", "minimum": -1, "maximum": 1},
        regions=drawn, label_studio_url=TEXT, image_url=TEXT,
    )  # fmt: skip
    doubtful = _object(
        task=WHOLE, prediction=prediction, p_right=SHARE, score=SHARE,
        total=_or_null(NUMBER), aleatoric=_or_null(NUMBER), epistemic=_or_null(NUMBER),
        novelty=_or_null(NOVELTY), nearest=_list(nearest), drawn_by_chance=YES, why=TEXT,
        regions=_list(_object(label=TEXT, box=_list(SHARE), p_right=SHARE)),
        label_studio_url=TEXT, image_url=TEXT,
    )  # fmt: skip
    return {
        "Error": _object(error=TEXT),
        "Said": _object(said=TEXT),
        "Session": _object(may_act=YES),
        "Estimate": estimate,
        "Run": run,
        "Acceptance": acceptance,
        "Piles": piles,
        "Drift": drift,
        "Status": _object(
            server=TEXT, home=TEXT, queue=_object(state=TEXT, workers=WHOLE, waiting=_counts()),
            projects=_list(_ref("ProjectStatus")),
        ),
        "ProjectStatus": project_status,
        "Project": _object(
            key=TEXT, title=TEXT, label_studio_url=TEXT, live_version=_or_null(TEXT),
            methods=_object(estimator=named, acquisition=named),
            versions=_list(version),
            classes=_object(
                version=_or_null(TEXT), rows=_list(class_row), why=_or_null(TEXT),
                confusions=_list(_object(label=TEXT, said=TEXT, count=WHOLE)),
            ),
            calibration=_object(
                version=_or_null(TEXT), ece=_or_null(SHARE), bins=_list(reliability),
                why=_or_null(TEXT),
            ),
            histogram=_object(
                version=_or_null(TEXT), open_tasks=WHOLE, why=_or_null(TEXT),
                bins=_list(_object(low=SHARE, high=SHARE, count=WHOLE)),
            ),
            annotators=_list(annotator),
            annotators_meaning=TEXT,
            ask_again=_list(
                _object(
                    task=WHOLE, label=prediction, p_right=SHARE, labels=_list(prediction),
                    ask=_or_null(WHOLE), regions=drawn, label_studio_url=TEXT, image_url=TEXT,
                )
            ),
            doubted_labels=_list(
                _object(
                    task=WHOLE, label=prediction, p_right=SHARE, why=TEXT, regions=drawn,
                    label_studio_url=TEXT, image_url=TEXT,
                )
            ),
            doubtful=_object(
                version=_or_null(TEXT), tasks=_list(doubtful), why=_or_null(TEXT)
            ),
        ),
        "Events": _object(
            events=_list(
                _object(
                    at=TIME, kind=TEXT, what=TEXT, status=TEXT, detail=TEXT, times=WHOLE, since=TIME
                )
            )
        ),
        "Doctor": _object(
            ok=YES,
            findings=_list(_object(code=TEXT, ok=YES, severity=TEXT, message=TEXT, fix=TEXT)),
        ),
    }  # fmt: skip


def _operation(
    summary: str,
    answer: Schema,
    parameters: list[Schema] | None = None,
    *,
    media: str = "application/json",
    status: str = "200",
    body: str | Schema = "",
) -> Schema:
    made: Schema = {
        "summary": summary,
        "responses": {
            status: {"description": "done", "content": {media: {"schema": answer}}},
            "default": {
                "description": "refused: what was wrong, and what to do",
                "content": {"application/json": {"schema": _ref("Error")}},
            },
        },
    }
    if parameters:
        made["parameters"] = parameters
    if body:
        schema = _object(**{body: TEXT}) if isinstance(body, str) else body
        made["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema}},
        }
    return made


def _free(operation: Schema) -> Schema:
    """An operation that needs no token."""
    return operation | {"security": []}


def _parameter(name: str, place: str, description: str, schema: Schema) -> Schema:
    required = place == "path"
    return {
        "name": name, "in": place, "required": required, "description": description,
        "schema": schema,
    }  # fmt: skip


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(**properties: Schema) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _list(items: Mapping[str, Any]) -> Schema:
    return {"type": "array", "items": dict(items)}


def _counts() -> Schema:
    return {"type": "object", "additionalProperties": WHOLE}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}
