"""Small pictures of tasks, read through the project's own media source."""

from __future__ import annotations

import io
import warnings

from PIL import Image, ImageOps

from backend.app import App
from backend.errors import MediaError, UnknownTaskError
from backend.records import Project

LONGEST_PX = 320
QUALITY = 82


def thumbnail(app: App, project: Project, task_id: int) -> bytes:
    """A JPEG of a task's image, upright, its longest side at most `LONGEST_PX`.

    Raises:
        UnknownTaskError: the project has no such task.
        MediaError: the image cannot be fetched or read; the message says why.
    """
    task = app.database.task(project.key, task_id)
    if task is None:
        raise UnknownTaskError(
            f"project {project.key} has no task {task_id}, or it was not read yet"
        )
    found = dict(app.media_for(project).fetch_many([(task_id, task.reference)]))[task_id]
    if isinstance(found, MediaError):
        raise found
    return shrunk(found, app.settings.max_image_megapixels)


def shrunk(data: bytes, max_megapixels: int) -> bytes:
    """The JPEG of an image file.

    Raises:
        MediaError: it is no image, or over the limit.
    """
    try:
        with warnings.catch_warnings():
            # Pillow warns of large images; the limit that counts is ours.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image: Image.Image = Image.open(io.BytesIO(data))
        if image.width * image.height > max_megapixels * 1_000_000:
            raise MediaError(
                f"the image has {image.width * image.height / 1e6:.0f} megapixels; the limit is "
                f"{max_megapixels} (DOUBTLESS_MAX_IMAGE_MEGAPIXELS)"
            )
        image.draft("RGB", (LONGEST_PX * 2, LONGEST_PX * 2))
        image = ImageOps.exif_transpose(image)
        image.thumbnail((LONGEST_PX, LONGEST_PX))
        if image.mode in ("RGBA", "LA", "PA", "P"):
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        out = io.BytesIO()
        image.convert("RGB").save(out, "JPEG", quality=QUALITY)
    except MediaError:
        raise
    except Exception as exc:  # whatever a decoder meets in a broken file
        raise MediaError(f"the image cannot be read: {type(exc).__name__}: {exc}") from exc
    return out.getvalue()
