"""Which open tasks people are to look at first, and whether the queue is as that asks."""

from __future__ import annotations

from dataclasses import dataclass

from backend.audits import to_check
from backend.drift import DRIFT
from backend.edges.database import Database
from backend.ordering import LOWEST
from backend.records import Project


@dataclass(frozen=True)
class Misplaced:
    """Open tasks that the live version has otherwise than what is asked for.

    Attributes:
        asked: to be checked, but not in front, or shown although blind, or hidden although not.
        released: in front, or hidden, for nothing (any more).
        shown: drawn by chance, so they stay in front, but hidden for nothing.
    """

    asked: list[int]
    released: list[int]
    shown: list[int]

    def __bool__(self) -> bool:
        return bool(self.asked or self.released or self.shown)


def checks(database: Database, project: Project, version: int) -> dict[int, bool]:
    """Tasks to look at that nobody has labelled yet, in the order they are asked for.

    Those of audits (`audits.to_check`, with the same arguments and result), and some of new tasks
    that are unlike the others.
    """
    unlike = list(database.draws(project.key, kind=DRIFT))
    touched = database.touched_tasks(project.key, unlike)
    found = to_check(database, project, version)
    return found | {task: False for task in unlike if task not in touched and task not in found}


def misplaced(database: Database, project: Project, version: int) -> Misplaced:
    """What of the queue is to be put right, as far as it is known here what Label Studio has.

    A version before the first trained one has no places to go back to. What a version says under
    another labeling config cannot be shown, so what is hidden then stays so.
    """
    places = database.out_of_place(project.key, version, below=LOWEST)
    asked = checks(database, project, version)
    shows = database.version(project.key, version).config_hash == project.config_hash
    rows = database.scores(project.key, version, list(asked))
    wrong = [
        task
        for task, blind in asked.items()
        if task in rows and rows[task].p_right is not None
        and not _is_as_asked(*places.get(task, (False, False)), blind=blind, shows=shows)
    ]  # fmt: skip
    drawn = database.draws(project.key)
    free = {task: place for task, place in places.items() if task not in asked}
    return Misplaced(
        asked=wrong,
        released=[
            task
            for task, (front, hidden) in free.items()
            if task not in drawn and (front or (hidden and shows))
        ],
        shown=[task for task, (_, hidden) in free.items() if task in drawn and hidden and shows],
    )


def _is_as_asked(front: bool, hidden: bool, *, blind: bool, shows: bool) -> bool:
    return front and (hidden == blind or (not blind and not shows))
