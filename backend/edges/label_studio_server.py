"""A real Label Studio of our own, for the demo and the acceptance tests.

It lives in an environment of its own (its pins of rq and redis exclude ours) and is shared by
everything on the machine: ``~/.cache/doubtless/label-studio-venv``, or where
``DOUBTLESS_LABEL_STUDIO_VENV`` says.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from backend.edges import environments, processes
from backend.errors import LaunchError

VERSION = "1.23.2"
VENV_VARIABLE = "DOUBTLESS_LABEL_STUDIO_VENV"
USER = "admin@example.com"
PASSWORD = "admin-pass-1"
TOKEN = "doubtless-demo-token"
# Migrations take one to two minutes, and over five on a machine that is busy with other things.
FIRST_START_S = 900.0
_SIZE_MB = 1500

Say = Callable[[str], None]


@dataclass
class RunningLabelStudio:
    """A Label Studio that answers.

    Attributes:
        url: its address.
        token: legacy token of its administrator.
        pid: of its one process.
        log: file with all it printed.
    """

    url: str
    token: str
    pid: int
    log: Path
    _process: subprocess.Popen[bytes] = field(repr=False)

    def is_alive(self) -> bool:
        """Whether its process still runs."""
        return self._process.poll() is None

    def stop(self, timeout_s: float = 10.0) -> None:
        """End it; its data stays."""
        processes.stop(self._process, timeout_s)


def label_studio_venv() -> Path:
    """Where Label Studio's environment is, or will be."""
    chosen = os.environ.get(VENV_VARIABLE)
    return Path(chosen or "~/.cache/doubtless/label-studio-venv").expanduser()


def ensure_label_studio_env(progress: Say) -> Path:
    """Install Label Studio in its environment unless it is there; returns the environment.

    Raises:
        LaunchError: it cannot be installed; one sentence says why.
    """
    venv = label_studio_venv()
    if _has_label_studio(venv):
        return venv
    try:
        with environments.one_at_a_time(venv, progress):
            if not _has_label_studio(venv):
                progress(f"Installing Label Studio {VERSION} (once; about 4 minutes, 1 GB).")
                environments.make_venv(venv, need_mb=_SIZE_MB, say=progress)
                what = f"Label Studio {VERSION}"
                environments.pip_install(
                    venv, [f"label-studio=={VERSION}"], what=what, say=progress
                )
                environments.stamp(venv, "label-studio", VERSION)
    except environments.InstallError as exc:
        raise LaunchError(str(exc)) from exc
    except OSError as exc:
        raise LaunchError(f"{venv} cannot be made: {exc.strerror or exc}") from exc
    return venv


def _has_label_studio(venv: Path) -> bool:
    if not (venv / "bin" / "label-studio").exists():
        return False
    if environments.stamped(venv).get("label-studio") == VERSION:
        return True
    return environments.installed_version(venv, "label-studio") == VERSION


def command(venv: Path, data_dir: Path, port: int) -> list[str]:
    """How it is started: on loopback only, where its default is every address."""
    program = [str(venv / "bin" / "label-studio"), "start", "--no-browser"]
    where = ["--internal-host", "127.0.0.1", "--port", str(port), "--data-dir", str(data_dir)]
    return [*program, *where, "--enable-legacy-api-token"]


def environment(
    data_dir: Path,
    port: int,
    *,
    token: str = TOKEN,
    user: str = USER,
    password: str = PASSWORD,
    webhook_timeout_s: float = 1.0,
) -> dict[str, str]:
    """Its environment: user and token are made at the first start, nothing is sent elsewhere."""
    foreign = ("LABEL_STUDIO_", "HEARTEX_", "DOUBTLESS_", "PYTHON", "DJANGO_")
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(foreign) and name not in ("HOST", "PORT", "DEBUG", "VIRTUAL_ENV")
    }
    return {
        **kept,
        "LABEL_STUDIO_USERNAME": user,
        "LABEL_STUDIO_PASSWORD": password,
        "LABEL_STUDIO_USER_TOKEN": token,
        # Off by default since 1.23: "Token ..." would be refused.
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "LABEL_STUDIO_BASE_DATA_DIR": str(data_dir),
        "LABEL_STUDIO_HOST": f"http://127.0.0.1:{port}",
        "DJANGO_DB": "sqlite",
        # Both are needed, or POST /api/ml refuses a backend on 127.0.0.1, then its webhook.
        "LABEL_STUDIO_ML_BLOCK_LOCAL_IP": "false",
        "LABEL_STUDIO_SSRF_PROTECTION_ENABLED": "false",
        "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
        "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(data_dir / "files"),
        "LABEL_STUDIO_WEBHOOK_TIMEOUT": str(webhook_timeout_s),
        "COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "false",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
        "FEATURE_FLAGS_OFFLINE": "true",
        "CONVERTER_DOWNLOAD_RESOURCES": "false",
        "DEBUG": "false",
        "LOG_LEVEL": "INFO",
        "PYTHONUNBUFFERED": "1",
    }


def require_port(port: int, option: str) -> None:
    """Refuse a taken port: Label Studio would silently move to the next one.

    Raises:
        LaunchError: something listens there.
    """
    if processes.port_is_taken("127.0.0.1", port):
        raise LaunchError(
            f"port {port} on 127.0.0.1 is taken; stop what listens there, or choose another for "
            f"Label Studio with {option}"
        )


def start_label_studio(
    venv: Path,
    data_dir: Path,
    port: int,
    *,
    token: str = TOKEN,
    user: str = USER,
    password: str = PASSWORD,
    webhook_timeout_s: float = 1.0,
    progress: Say = lambda text: None,
    timeout_s: float = FIRST_START_S,
) -> RunningLabelStudio:
    """Start it and wait until it takes the token: a minute on new data, seconds on old.

    Args:
        venv: see `ensure_label_studio_env`.
        data_dir: its SQLite database and files; made where there is none.
        port: on 127.0.0.1.
        token: legacy token of the administrator, 6 to 40 characters; like `user` and `password`,
            what counts is what the first start on this data was given.
        user: the administrator's email address.
        password: the administrator's password.
        webhook_timeout_s: seconds it waits for a webhook's receiver; its own default is 1.
        progress: told now and then how long it has been.
        timeout_s: seconds to wait.

    Raises:
        LaunchError: the port is taken, it ended, or it did not answer in time.
    """
    require_port(port, "another port")
    (data_dir / "files").mkdir(parents=True, exist_ok=True)
    data_dir = data_dir.resolve()
    env = environment(
        data_dir, port, token=token, user=user, password=password,
        webhook_timeout_s=webhook_timeout_s,
    )  # fmt: skip
    log = data_dir / "label-studio.log"
    with log.open("ab") as output:
        process = processes.spawn(command(venv, data_dir, port), env=env, output=output)
    running = RunningLabelStudio(f"http://127.0.0.1:{port}", token, process.pid, log, process)
    started = told = time.monotonic()
    try:
        while not takes_token(running.url, token):
            now = time.monotonic()
            if not running.is_alive() or now - started > timeout_s:
                raise LaunchError(
                    f"Label Studio does not come up on {data_dir}: {_last_line(log)}; all it said "
                    f"is in {log}"
                )
            if now - told > 10:
                progress(f"Label Studio is starting ({now - started:.0f} s)")
                told = now
            time.sleep(0.25)
    except BaseException:
        running.stop()
        raise
    return running


def takes_token(url: str, token: str, *, timeout_s: float = 5.0) -> bool:
    """Whether Label Studio answers there and knows the token."""
    request = urllib.request.Request(
        f"{url}/api/current-user/whoami", headers={"Authorization": f"Token {token}"}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=timeout_s) as response:
            return isinstance(json.load(response), dict)
    except (OSError, ValueError, urllib.error.URLError):
        return False


def _last_line(log: Path) -> str:
    with suppress(OSError):
        lines = log.read_text(errors="replace").strip().splitlines()
        if lines:
            return lines[-1].strip()[-300:]
    return "it printed nothing"


if __name__ == "__main__":  # what `./run acceptance` calls before the tests
    try:
        ensure_label_studio_env(lambda text: print(text, file=sys.stderr, flush=True))
    except LaunchError as exc:
        sys.exit(f"run acceptance: {exc}")
