"""Every knob: its name, default and help. Read once, then passed down, never looked up."""

from __future__ import annotations

import difflib
import math
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from backend.errors import SettingError

PREFIX = "DOUBTLESS_"
# Read elsewhere: by installations, commands, tests and benchmarks.
OTHER_VARIABLES = {
    "ALLOW_CUDA_TORCH", "BENCH_CACHE", "CHROMIUM", "COMMAND", "LABEL_STUDIO_VENV",
}  # fmt: skip


def knob(default: Any, help: str) -> Any:
    """Declare a setting with its default and one line of help."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of one installation; `Settings.load` reads them from the environment and a file."""

    home: str = knob(
        "~/.local/share/doubtless",
        "Folder for the database, versions, features and the embedded Valkey.",
    )
    cache: str = knob(
        "~/.cache/doubtless",
        "Folder of exported backbones, and of the features and maps of `simulate`; safe to delete.",
    )
    database_url: str = knob(
        "", "SQLAlchemy URL, such as postgresql+psycopg://…; empty: SQLite in `home`."
    )
    redis_url: str = knob("", "Redis or Valkey to use; empty: an embedded Valkey.")
    host: str = knob("127.0.0.1", "Address the web process listens on.")
    port: int = knob(9090, "Port the web process listens on.")
    public_url: str = knob(
        "", "Address at which Label Studio reaches the web process; empty: http://host:port."
    )
    workers: int = knob(2, "Worker processes that `up` starts.")
    threads: int = knob(0, "Threads of each process for arithmetic; 0: cores / processes.")
    label_studio_url: str = knob("", "Label Studio that `connect` and `doctor` use by default.")
    label_studio_token: str = knob(
        "", "Its token, personal or legacy, that `connect` and `doctor` use by default."
    )
    backbone: str = knob(
        "efficientnet-lite2+lite0", "Pretrained network that turns images to features."
    )
    pyramid: str = knob(
        "efficientnet-lite0-pyramid", "Pretrained network that reads images of projects with boxes."
    )
    box_estimator: str = knob("softmax", "Uncertainty estimator of new versions with boxes.")
    box_quiet_s: float = knob(
        120.0,
        "The same as `quiet_s` where boxes are drawn: drawing and training take longer.",
    )
    box_acquisition: str = knob("auto", "Rule that picks what to draw boxes on next.")
    estimator: str = knob("evidential", "Uncertainty estimator of new versions.")
    acquisition: str = knob("auto", "Rule that picks what to label next.")
    retrain_after: int = knob(10, "New labels that start a training.")
    retrain_growth: float = knob(
        0.05,
        "A training waits for this share of the labels when that is more than `retrain_after`.",
    )
    quiet_s: float = knob(
        20.0, "Seconds without a new label after which even one starts a training."
    )
    target_accuracy: float = knob(
        0.95, "Accuracy on the whole pool for which `status` forecasts the labels still needed."
    )
    random_share: float = knob(0.2, "Share of each round drawn uniformly from the pool.")
    front: int = knob(20, "Tasks at the front of the queue that get a diversity cluster.")
    keep_versions: int = knob(5, "Superseded versions kept on disk to roll back to.")
    reconcile_s: float = knob(60.0, "Seconds between comparisons with Label Studio.")
    job_timeout_s: int = knob(3600, "Seconds a job may take.")
    require_auth: bool = knob(
        False,
        "Refuse /setup and /predict without the project's password (webhooks always need it).",
    )
    max_body_mb: int = knob(64, "Largest request body, in MB.")
    max_image_mb: int = knob(50, "Largest image file, in MB.")
    max_image_megapixels: int = knob(100, "Largest image, in megapixels.")
    fetch_timeout_s: float = knob(20.0, "Seconds an image download may take.")
    fetch_parallel: int = knob(8, "Images downloaded at once.")
    fetch_allow_hosts: str = knob(
        "", "Hosts on private addresses that images may come from, separated by commas."
    )
    local_files_root: str = knob(
        "",
        "Folder that /data/local-files/ refers to, if it is mounted here; empty: ask Label Studio.",
    )
    log_format: str = knob("text", "`text` or `json`.")

    @classmethod
    def load(
        cls, environ: Mapping[str, str] | None = None, file: Path | None = None, **overrides: Any
    ) -> Settings:
        """Read `doubtless.toml`, then ``DOUBTLESS_*`` variables, then `overrides`; the last wins.

        Args:
            environ: the environment; the process's own by default.
            file: the TOML file; `doubtless.toml` in the current folder by default, if there.
            overrides: values given on a command line; ``None`` means not given.

        Raises:
            SettingError: an unknown name, or a value of the wrong type.
        """
        environ = os.environ if environ is None else environ
        known = {f.name: f for f in fields(cls)}
        values: dict[str, Any] = {}
        path = file if file is not None else Path("doubtless.toml")
        if file is not None or path.is_file():
            try:
                table = tomllib.loads(path.read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
                raise SettingError(f"{path} cannot be read: {exc}") from exc
            for name, value in table.items():
                if name not in known:
                    raise SettingError(
                        f"{path}: unknown setting '{name}'. Known: {', '.join(sorted(known))}."
                    )
                values[name] = _convert(f"{path}: {name}", value, known[name].default)
        for variable, text in environ.items():
            name = variable.removeprefix(PREFIX).lower()
            if variable.startswith(PREFIX) and name in known and text != "":
                values[name] = _convert(variable, text, known[name].default)
        values.update({name: value for name, value in overrides.items() if value is not None})
        return cls(**values)._checked()

    def _checked(self) -> Settings:
        for name, low, high in (
            ("port", 1, 65535),
            ("workers", 0, 512),
            ("threads", 0, 512),
            ("retrain_after", 1, math.inf),
            ("retrain_growth", 0, 1),
            ("random_share", 0, 1),
            ("front", 1, math.inf),
            ("quiet_s", 0, math.inf),
            ("box_quiet_s", 0, math.inf),
            ("target_accuracy", 0.01, 0.9999),
            ("keep_versions", 0, math.inf),
            ("reconcile_s", 1, math.inf),
            ("job_timeout_s", 1, math.inf),
            ("max_body_mb", 1, math.inf),
            ("max_image_mb", 1, math.inf),
            ("max_image_megapixels", 1, math.inf),
            ("fetch_timeout_s", 0.1, 3600),
            ("fetch_parallel", 1, 64),
        ):
            value = getattr(self, name)
            if not low <= value <= high:  # not a number is in no range
                upper = "" if high == math.inf else f" and at most {high}"
                raise SettingError(
                    f"{PREFIX}{name.upper()}={value} is out of range: at least {low}{upper}."
                )
        if self.log_format not in ("text", "json"):
            raise SettingError(
                f"{PREFIX}LOG_FORMAT='{self.log_format}' is unknown; use text or json."
            )
        if self.redis_url and not _is_address(self.redis_url, "redis", "rediss", "unix"):
            raise SettingError(
                f"{PREFIX}REDIS_URL='{without_password(self.redis_url)}' is no address of a Redis; "
                "write one such as redis://localhost:6379/0, or unset it to use an embedded Valkey."
            )
        if self.public_url and not _is_address(self.public_url, "http", "https"):
            raise SettingError(
                f"{PREFIX}PUBLIC_URL='{without_password(self.public_url)}' is no address of a web "
                "server; write one such as http://192.168.1.5:9090, or unset it to use "
                "http://host:port."
            )
        return self

    @property
    def home_path(self) -> Path:
        """`home` with ``~`` expanded, absolute."""
        return Path(self.home).expanduser().resolve()

    @property
    def cache_path(self) -> Path:
        """`cache` with ``~`` expanded, absolute."""
        return Path(self.cache).expanduser().resolve()

    @property
    def database(self) -> str:
        """The SQLAlchemy URL in force."""
        return self.database_url or f"sqlite:///{self.home_path / 'doubtless.db'}"

    @property
    def artifacts(self) -> Path:
        """Folder of versions and feature shards."""
        return self.home_path / "artifacts"

    @property
    def reachable_url(self) -> str:
        """Where Label Studio finds the web process."""
        return (self.public_url or f"http://{self.host}:{self.port}").rstrip("/")

    def thread_count(self) -> int:
        """Threads each process may use: two on busy cores were 3-8x slower than one."""
        return self.threads or max(1, (os.cpu_count() or 1) // (self.workers + 1))


def unknown_variables(environ: Mapping[str, str] | None = None) -> list[str]:
    """A sentence for each ``DOUBTLESS_*`` variable that nothing reads; most are misspelt.

    Args:
        environ: the environment; the process's own by default.
    """
    known = [f.name.upper() for f in fields(Settings)]
    said = []
    for variable in sorted(os.environ if environ is None else environ):
        name = variable.removeprefix(PREFIX).upper()
        if not variable.startswith(PREFIX) or name in known or name in OTHER_VARIABLES:
            continue
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {PREFIX}{close[0]}?" if close else "README lists the settings."
        said.append(f"{variable} is no setting and changes nothing; {hint}")
    return said


def without_password(address: str) -> str:
    """An address as it may be shown, also one that is not well-formed.

    Example:
        >>> without_password("redis://:secret@host:6379/0")
        'redis://***@host:6379/0'
    """
    return re.sub(r"^(\w[\w+.-]*://)?.*@", r"\1***@", address)


def _is_address(text: str, *schemes: str) -> bool:
    if not text.startswith(tuple(f"{scheme}://" for scheme in schemes)):
        return False
    try:
        parts = urlsplit(text)
        return parts.port != 0 and bool(parts.netloc or parts.path)  # raises for what is no port
    except ValueError:
        return False


def _convert(where: str, value: Any, default: Any) -> Any:
    kind = type(default)
    if isinstance(value, str) and kind is not str:
        text = value.strip().lower()
        try:
            if kind is bool:
                if text in ("1", "true", "yes", "on"):
                    return True
                if text in ("0", "false", "no", "off"):
                    return False
                raise ValueError(text)
            return kind(text)
        except ValueError:
            words = {int: "a whole number", float: "a number", bool: "true or false"}[kind]
            raise SettingError(
                f"{where}='{value}' is not {words}; unset it to use {default}."
            ) from None
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise SettingError(f"{where}={value!r} must be of the kind of its default, {default!r}.")
    return value
