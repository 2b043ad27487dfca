"""What the demonstration remembers between starts: its user, and the points measured so far."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backend.errors import LaunchError, SettingError


@dataclass
class Memory:
    """What the demonstration remembers between starts, in ``demo.json``.

    Attributes:
        password: of the user in Label Studio.
        token: their legacy token.
        projects: by data set: the project's id, and the points measured so far.
    """

    path: Path
    password: str = field(default_factory=lambda: secrets.token_urlsafe(9))
    token: str = field(default_factory=lambda: secrets.token_hex(20))
    projects: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Memory:
        """Read the file; made anew where there is none."""
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            return cls(path, stored["password"], stored["token"], stored["projects"])
        except FileNotFoundError:
            made = cls(path)
            made.save()
            return made
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise SettingError(
                f"{path} cannot be read ({exc}); delete the folder {path.parent} to begin anew, or "
                "choose another with --home"
            ) from exc

    def save(self) -> None:
        """Write the file, for us alone: it holds the password."""
        body = {"password": self.password, "token": self.token, "projects": self.projects}
        temporary = self.path.with_suffix(".tmp")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            temporary.unlink(missing_ok=True)
            temporary.touch(mode=0o600)
            temporary.write_text(json.dumps(body, indent=1), encoding="utf-8")
            temporary.replace(self.path)
        except OSError as exc:
            raise LaunchError(
                f"{self.path.parent} cannot be written ({exc.strerror or exc}); choose another "
                "folder with --home"
            ) from exc
