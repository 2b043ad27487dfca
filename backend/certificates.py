"""What the labels of a complete audit prove."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from backend.audits import CERTIFIED, DRAWN, REFUSED, parts_of, regions_of, verdicts
from backend.edges.database import Database
from backend.edges.labels.config import parse_config
from backend.records import Audit, AuditItem, Project
from backend.region_audits import are_wrong, look_at, share_missed
from model.acceptance.certificate import Certificate, certify
from model.acceptance.plan import ACCEPTED as OF_ACCEPTED
from model.acceptance.plan import EXPECTED, AuditPlan

# Classes named in a sentence; the others are counted.
NAMED = 5


def conclude(database: Database, project: Project, audit: Audit) -> tuple[str, str] | None:
    """Certify or refuse an audit, and keep what was proved; None while labels are missing.

    Returns:
        The audit's new state, and the reason in words.
    """
    items = database.audit_items(audit.id, state=DRAWN)
    judged = verdicts(database, project, items)
    if len(judged) < len(items):
        return None
    if regions_of(audit) is not None:
        size, facts = _of_regions(database, project, audit, items)
    else:
        size, facts = _of_tasks(audit, judged)
    database.update_audit(audit.id, only_if=(audit.status,), certificate=facts)
    return (CERTIFIED if size else REFUSED), facts["sentence"]


def _of_tasks(audit: Audit, judged: Mapping[int, bool]) -> tuple[int, dict[str, Any]]:
    found = {part.name: _certify(audit, part.plan, part.start, judged) for part in parts_of(audit)}
    if None in found:
        return found[None].size, found[None].facts()
    size = sum(one.size for one in found.values())
    parts = [{"name": name, **one.facts()} for name, one in found.items()]
    return size, {"size": size, "sentence": _sentence_by_class(audit, found), "parts": parts}


def _of_regions(
    database: Database, project: Project, audit: Audit, items: list[AuditItem]
) -> tuple[int, dict[str, Any]]:
    spec, regions, (part,) = (
        parse_config(project.label_config).spec,
        regions_of(audit),
        parts_of(audit),
    )
    assert spec is not None  # otherwise `verdicts` has judged none
    assert regions is not None
    looked = look_at(spec, items, database.answers(project.key, [i.task_id for i in items]))
    found = _certify(audit, part.plan, 0, are_wrong(regions["drawn"], looked))
    images = dict(zip(part.plan.sizes, regions["images"], strict=True)).get(found.size, 0)
    inside = {image: one for image, one in looked.items() if image < images}
    missed = share_missed(regions["drawn"], inside)
    sentence = found.sentence
    if images:
        sentence += f" They are all of what is shown on {images} of {regions['of_images']} images"
        sentence += (
            "." if missed is None else f"; some {missed:.0%} of the objects there are missed."
        )
    return found.size, {
        **found.facts(),
        "sentence": sentence,
        "images": images,
        "missed": missed,
        # People have drawn these images, whether a region was drawn for the audit or not.
        "seen": sum(len(one.right) for one in inside.values()),
        "seen_wrong": sum(int((~one.right).sum()) for one in inside.values()),
    }


def _certify(audit: Audit, plan: AuditPlan, start: int, judged: Mapping[int, bool]) -> Certificate:
    ranks = np.array(
        sorted(rank for rank in judged if start <= rank < start + plan.reach), np.int64
    )
    wrong = np.array([judged[int(rank)] for rank in ranks], bool)
    return certify(plan, ranks - start, wrong, stated=audit.confidence)


def _sentence_by_class(audit: Audit, found: Mapping[str | None, Certificate]) -> str:
    proved = {name: one for name, one in found.items() if one.size}
    refused = [str(name) for name in found if name not in proved]
    if not proved:
        return (
            f"Nothing may be accepted of any of the {len(found)} classes that were audited. More "
            "labels teach the model more than another audit would."
        )
    most = sorted(proved.items(), key=lambda item: -item[1].size)
    named = [f"{one.size} of {one.plan.pool} {name}" for name, one in most[:NAMED]]
    if len(most) > NAMED:
        rest = sum(one.size for _, one in most[NAMED:])
        named.append(f"{rest} of {len(most) - NAMED} other classes")
    sure = "on average" if audit.of == EXPECTED else f"with {100 * audit.confidence:g} % confidence"
    of = "" if audit.of == OF_ACCEPTED else " of all"
    said = (
        f"{sum(one.size for one in proved.values())} of {audit.plan['pool']} may be accepted, of "
        f"each class at most {100 * audit.max_error:g} %{of} wrong, {sure} for all of them "
        f"together: {', '.join(named)}."
    )
    if refused:
        more = f" and {len(refused) - NAMED} more" if len(refused) > NAMED else ""
        said += f" Nothing of {', '.join(refused[:NAMED])}{more}."
    return said
