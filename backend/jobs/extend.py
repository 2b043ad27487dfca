"""Tasks that came after the live version was published get its predictions too."""

from __future__ import annotations

import numpy as np

from backend.drift import look
from backend.jobs.base import Job
from backend.jobs.compare import compare_doubtful
from backend.jobs.publish import import_bulk, prediction
from backend.jobs.rounds import read_pool
from backend.kinds import kind_of
from backend.ordering import LOWEST, UNREADABLE, published_score
from backend.records import Score

# Below this, single requests cost Label Studio less than the recount of one import.
SINGLES = 20


def run(job: Job) -> str:
    """Score and import what the live version has not seen."""
    app, key = job.app, job.run.project
    project = job.project
    if project.live_version is None:
        return "no version is live yet"
    version = app.database.version(key, project.live_version)
    spec = job.require_spec(project)
    done = app.database.scores(key, version.number).keys()
    pool = read_pool(job)
    fresh = np.flatnonzero(~np.isin(pool.task_ids, list(done)))
    rows: list[Score] = []
    if version.bundle is not None and len(fresh):
        bundle = job.load_bundle(version)
        said = kind_of(spec).say(
            app,
            bundle,
            spec,
            keys=[pool.keys[row] for row in fresh],
            features=pool.features[fresh],
            progress=job.say,
        )
        for n, row in enumerate(fresh):
            rows.append(
                Score(
                    task_id=int(pool.task_ids[row]),
                    label=said.label[n],
                    score=published_score(float(said.p_right[n])),
                    p_right=float(said.p_right[n]),
                    total=float(said.total[n]),
                    aleatoric=float(said.aleatoric[n]),
                    epistemic=float(said.epistemic[n]),
                    probs=said.probs[n],
                )
            )
    else:
        # Cold start: behind the typical images that lead the queue, in chance order.
        ranks = np.random.default_rng(job.run.id).permutation(len(fresh))
        rows = [
            Score(
                task_id=int(pool.task_ids[row]),
                label=None,
                score=LOWEST * (1 + (rank + 1) / (len(fresh) + 1)),
                p_right=None,
            )
            for row, rank in zip(fresh, ranks, strict=True)
        ]
    rows += [
        Score(task_id=t.task_id, label=None, score=UNREADABLE, p_right=None)
        for t in app.database.tasks(key, state="broken")
        if t.task_id not in done
    ]
    if not rows:
        return "nothing new"
    if len(rows) <= SINGLES:
        for new in rows:
            job.wait_for_pause()
            job.platform.create_prediction(prediction(spec, version.name, new))
            # At once: if the next one fails, this one must not be made twice.
            app.database.put_scores(key, version.number, [new])
    else:
        import_bulk(job, version.name, spec, rows, label="publishing new tasks")
        app.database.put_scores(key, version.number, rows)
    if version.bundle is not None:
        compare_doubtful(job, pool, app.labels(key, spec), only_if_new=True)
    done_now = f"{len(rows)} new tasks have predictions of {version.name}"
    unlike = look(app.database, job.project, pool.task_ids, pool.features, known=done)
    if unlike:
        app.database.add_run(key, "audit", reason="new tasks are unlike the others")
    return "; ".join([done_now, *unlike])
