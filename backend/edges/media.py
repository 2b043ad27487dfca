"""From the reference in a task's data to the bytes of its image."""

from __future__ import annotations

import base64
import binascii
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, unquote_to_bytes, urlsplit

from backend.edges.labelstudio_api import LabelStudio
from backend.edges.safe_addresses import AllowList, Origin, unavailable
from backend.edges.safe_http import URL_SAFE, Answer, SafeHttp, is_transient
from backend.errors import MediaError, PlatformError
from backend.settings import Settings

CLOUD_SCHEMES = frozenset({"s3", "s3s", "gs", "azure-blob", "azure-spi"})
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
# The token goes to these routes of Label Studio alone, whatever a task's data points at.
_MEDIA_ROUTES = re.compile(
    r"/(data/|storage-data/|(tasks|projects|api/tasks|api/projects)/\d+/(resolve|presign)/)"
)
_LOCAL_FILES = "/data/local-files/"


class Fetcher:
    """Fetches images for one project's Label Studio. Safe to share between threads.

    Every kind of reference works: Label Studio's uploads and local files, cloud storage through
    Label Studio (which signs or proxies), ``http(s)``, ``data:`` and addresses relative to Label
    Studio. See `safe_http` for what is refused.

    Args:
        platform: Label Studio, or ``None`` when only ``http(s)`` and ``data:`` are needed.
        settings: limits, allowed hosts and the folder of local files.
    """

    def __init__(self, platform: LabelStudio | None, settings: Settings) -> None:
        self._platform = platform
        self._max_bytes = settings.max_image_mb * 1_000_000
        self._parallel = settings.fetch_parallel
        root = settings.local_files_root
        self._root = Path(root).expanduser().resolve() if root else None
        self._origin = Origin.of(platform.url) if platform is not None else None
        self._http = SafeHttp(
            AllowList.parse(
                settings.fetch_allow_hosts, [] if self._origin is None else [self._origin]
            ),
            max_bytes=self._max_bytes,
            timeout_s=settings.fetch_timeout_s,
        )

    def fetch(self, reference: str, task_id: int | None = None) -> bytes:
        """The bytes behind a reference.

        Args:
            reference: as it stands in the task's data.
            task_id: the task; cloud storage is resolved through it.

        Raises:
            MediaError: nobody answered, or not in time (``transient``), or anything else. The
                message names the reference and the reason.
        """
        try:
            return self._fetch(reference.strip(), task_id)
        except MediaError as exc:
            where = "" if task_id is None else f" of task {task_id}"
            raise MediaError(
                f"the image {_short(reference)}{where} cannot be fetched: {exc}.",
                transient=exc.transient,
            ) from exc.__cause__

    def fetch_many(
        self, items: Iterable[tuple[int, str]]
    ) -> Iterator[tuple[int, bytes | MediaError]]:
        """Fetch in parallel; yields as they complete.

        At most ``fetch_parallel`` images are in flight or waiting to be taken, so a slow consumer
        holds little memory; `items` is read as it goes.

        Args:
            items: (task id, reference).
        """
        waiting = iter(items)
        with ThreadPoolExecutor(self._parallel, thread_name_prefix="fetch") as pool:
            running: dict[Future[bytes], int] = {}
            try:
                while True:
                    for task_id, reference in islice(waiting, self._parallel - len(running)):
                        running[pool.submit(self.fetch, reference, task_id)] = task_id
                    if not running:
                        return
                    done, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        task_id = running.pop(future)
                        try:
                            yield task_id, future.result()
                        except MediaError as exc:
                            yield task_id, exc
            finally:
                for future in running:
                    future.cancel()

    def _fetch(self, reference: str, task_id: int | None) -> bytes:
        match = _SCHEME.match(reference)
        scheme = match.group(1).lower() if match else ""
        if not reference:
            raise MediaError("it is empty")
        if scheme == "data":
            return self._inline(reference)
        if scheme in CLOUD_SCHEMES:
            return self._cloud(reference, task_id)
        if scheme in ("http", "https"):
            if self._platform is not None and reference.startswith(f"{self._platform.url}/"):
                return self._relative(reference.removeprefix(self._platform.url))
            return self._get(_quoted(reference))
        if scheme:
            raise MediaError(
                f"references of the kind '{scheme}:' are not supported; use an upload, a storage "
                "or an http address"
            )
        return self._relative(reference)

    def _inline(self, reference: str) -> bytes:
        head, comma, payload = reference.partition(",")
        if not comma:
            raise MediaError("it is a data: address without a comma")
        if not head.lower().rstrip().endswith(";base64"):
            data = unquote_to_bytes(payload)
        else:
            if len(payload) > self._max_bytes * 3:  # percent-encoded base64 is at most 3 to 1
                raise self._over_limit(len(payload) * 3 // 4)
            text = "".join(unquote(payload).split()).rstrip("=")
            text = text.translate(str.maketrans("-_", "+/"))
            try:
                data = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
            except (binascii.Error, ValueError) as exc:
                raise MediaError(f"its base64 is broken ({exc})") from exc
        if len(data) > self._max_bytes:
            raise self._over_limit(len(data))
        if not data:
            raise MediaError("it is a data: address without data")
        return data

    def _cloud(self, reference: str, task_id: int | None) -> bytes:
        platform = self._need_platform()
        if task_id is None:
            raise MediaError("cloud storage is resolved through a task, and none was given")
        key = base64.urlsafe_b64encode(reference.encode()).decode()
        answer = self._http.get(
            f"{platform.url}/tasks/{task_id}/resolve/?fileuri={key}", self._headers
        )
        if answer.status == 404:
            raise MediaError(
                "no storage of the project covers it, or it is not there; look under Settings > "
                "Cloud Storage in Label Studio"
            )
        return self._usable(answer)

    def _relative(self, reference: str) -> bytes:
        if reference.startswith("//"):
            scheme = self._origin.scheme if self._origin else "https"
            return self._get(_quoted(f"{scheme}:{reference}"))
        if self._root is not None and _LOCAL_FILES in reference.partition("?")[0]:
            data = self._local_file(self._root, reference)
            if data is not None:
                return data
        base = self._need_platform().url
        path = reference if reference.startswith("/") else f"/{reference}"
        prefix = urlsplit(base).path.rstrip("/")
        if prefix and path.startswith(f"{prefix}/"):
            path = path[len(prefix) :]
        path = _quoted(path)
        answer = self._http.get(base + path, self._headers)
        if path.startswith("/data/upload/") and answer.status in (404, 500):
            # Behind nginx with cloud storage, uploads are served by the second route alone; a
            # missing upload is a 500 on the first and a 403 on the second.
            name = quote(unquote(path.removeprefix("/data/").partition("?")[0]), safe="/")
            second = self._http.get(f"{base}/storage-data/uploaded/?filepath={name}", self._headers)
            if second.status == 200:
                return self._usable(second)
            if second.status == 403:
                raise MediaError("Label Studio has no such upload")
        return self._usable(answer)

    def _local_file(self, root: Path, reference: str) -> bytes | None:
        """A file below the root, or ``None`` when it is not there (Label Studio is asked then)."""
        names = parse_qs(urlsplit(reference).query).get("d", [])
        if not names:
            raise MediaError("it names no file (?d=…)")
        try:
            path = (root / names[0].lstrip("/")).resolve()
            if not path.is_relative_to(root):
                raise MediaError(f"it leads out of the folder {root}")
            with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    raise MediaError(f"{path} is no regular file")
                if status.st_size > self._max_bytes:
                    raise self._over_limit(status.st_size)
                return file.read(self._max_bytes + 1)
        except FileNotFoundError as exc:
            if self._platform is None:
                raise MediaError(f"there is no file {names[0]} below {root}") from exc
            return None
        except (OSError, ValueError) as exc:
            raise MediaError(f"the file below {root} cannot be read ({exc})") from exc

    def _get(self, url: str) -> bytes:
        return self._usable(self._http.get(url, self._headers))

    def _headers(self, url: str) -> Mapping[str, str]:
        """The token, for Label Studio's own media routes alone."""
        if self._platform is None or Origin.of(url) != self._origin:
            return {}
        path = urlsplit(url).path.removeprefix(urlsplit(self._platform.url).path.rstrip("/"))
        if not _MEDIA_ROUTES.match(path) or "/." in unquote(path):
            return {}
        try:
            return {"Authorization": self._platform.authorization()}
        except PlatformError as exc:
            raise unavailable(str(exc).rstrip(".")) from exc

    def _usable(self, answer: Answer) -> bytes:
        if answer.status in (401, 403):
            raise unavailable(
                f"access is refused ({answer.status}); check the token or the rights of the storage"
            )
        if answer.status != 200:
            raise MediaError(
                f"the answer was {answer.status}{_HINTS.get(answer.status, '')}",
                transient=is_transient(answer.status),
            )
        if not answer.body:
            raise MediaError("the file is empty")
        if answer.content_type.startswith("text/html"):
            raise MediaError("a web page came instead of an image")
        return answer.body

    def _need_platform(self) -> LabelStudio:
        if self._platform is None:
            raise MediaError("only Label Studio can resolve it, and none is connected")
        return self._platform

    def _over_limit(self, size: int) -> MediaError:
        return MediaError(
            f"it has {size / 1e6:.1f} MB, over the limit of {self._max_bytes / 1e6:g} MB; raise "
            "DOUBTLESS_MAX_IMAGE_MB if it is meant to be so large"
        )


_HINTS = {
    404: " (not found); local files also need a storage in Label Studio that covers their folder",
    410: " (gone)",
}


def _quoted(url: str) -> str:
    """The address with spaces, unicode and stray percent signs encoded, and nothing twice."""
    url = _BAD_PERCENT.sub("%25", url.partition("#")[0])
    parts = urlsplit(url) if "//" in url[:10] else None
    if parts is None:
        return quote(url, safe=URL_SAFE)
    rest = url[url.index("//") + 2 + len(parts.netloc) :]
    return f"{parts.scheme}://{parts.netloc}{quote(rest, safe=URL_SAFE)}"


def _short(reference: str) -> str:
    """A reference for a message: without a signature, and not megabytes of base64."""
    if reference[:5].lower() == "data:":
        return f"{reference[:30]}… ({len(reference)} characters)"
    head, mark, query = reference.partition("?")
    if re.search(r"(?i)(signature|token|secret|password|x-amz-|sig=|key=)", query):
        query = "…"
    head = re.sub(r"//[^/@]*@", "//…@", head)
    text = head + mark + query
    return f"'{text if len(text) <= 160 else text[:159] + '…'}'"
