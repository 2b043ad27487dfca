"""What `doubtless simulate` reads, by the look of its ``--data``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from backend.edges.export import CLASSIFICATION, DETECTION, LabelStudioExport, LeftOut
from backend.errors import BackendError
from backend.settings import Settings
from model.datasets import DIGITS, Item, annotated_with, read_dataset
from model.errors import DataError


@dataclass(frozen=True)
class Source:
    """A labelled set, wherever it comes from.

    Attributes:
        name: for people.
        read: its images, the same each time.
        left_out: images that are not among them, and why.
        unlabelled: how many more have no label.
        notes: sentences on what was assumed.
        task: what it is for, ``classification`` or ``detection``.
    """

    name: str
    read: Callable[[], Iterator[Item]]
    left_out: Sequence[LeftOut] = ()
    unlabelled: int = 0
    notes: Sequence[str] = ()
    task: str = CLASSIFICATION


def open_source(
    data: str,
    settings: Settings,
    *,
    images: Path | None = None,
    control: str | None = None,
    task: str = "",
) -> Source:
    """Find out what `data` is.

    Args:
        data: folder, packed set, Label Studio export, or ``digits``.
        settings: limits of images inside an export.
        images: folder of an export's images.
        control: Choices tag of an export, or the tag that labels its boxes.
        task: what an export is taken for that has both, where no tag is named; boxes without.

    Raises:
        BackendError: the export cannot be used, or options of one were given with something else.
        DataError: there is no such set, or it is for another task.
    """
    path = Path(data).expanduser()
    if path.is_file():
        export = LabelStudioExport(path, settings, images=images, control=control, task=task)
        return Source(
            export.name,
            export.read,
            export.left_out,
            export.unlabelled,
            export.notes,
            export.task,
        )
    if images is not None or control is not None:
        raise BackendError(
            f"--images and --control belong to a Label Studio export, and {data!r} is none"
        )
    if not path.is_dir() and data != DIGITS:
        raise DataError(
            f"there is no {data!r}; --data takes a folder with one folder for each class, "
            "a packed set (manifest.csv), the JSON export of a Label Studio project, or 'digits'"
        )
    kind = annotated_with(str(path))
    if kind == "mask":
        raise DataError(
            f"{data} is annotated with mask, a set for segmentation; simulate replays "
            "classification and detection"
        )
    name = path.resolve().name if path.is_dir() else data
    return Source(
        name,
        lambda: read_dataset(str(path) if path.is_dir() else data),
        task=DETECTION if kind == "boxes" else CLASSIFICATION,
    )
