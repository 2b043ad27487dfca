"""A throw-away PostgreSQL server on a socket, where its programs are installed."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import tempfile
from pathlib import Path


def programs() -> Path | None:
    """Folder with initdb and postgres; ``None`` when there is none."""
    found = shutil.which("initdb")
    if found:
        return Path(found).parent
    folders = sorted(glob.glob("/usr/lib/postgresql/*/bin"))
    return Path(folders[-1]) if folders else None


class PostgreSQL:
    """Runs until `stop`; as another user when we are root, which PostgreSQL refuses."""

    def __init__(self, folder: Path, binaries: Path) -> None:
        self.folder = folder / "data"
        self.binaries = binaries
        self.user = {"user": "nobody"} if os.geteuid() == 0 else {}
        self.folder.mkdir()
        if self.user:
            shutil.chown(self.folder, "nobody")
            temporary = Path(tempfile.gettempdir()).resolve()
            for parent in [folder.resolve(), *folder.resolve().parents]:
                if temporary in parent.parents:  # pytest makes them for us alone
                    parent.chmod(parent.stat().st_mode | 0o055)
        self._run("initdb", "-D", str(self.folder), "-U", "test", "--auth=trust", "--no-sync")
        self._run(
            "pg_ctl", "-D", str(self.folder), "-w", "-o",
            f"-c listen_addresses='' -c unix_socket_directories={self.folder} -c fsync=off",
            "-l", str(self.folder / "log"), "start",
        )  # fmt: skip
        self.url = f"postgresql+psycopg://test@/postgres?host={self.folder}"

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self.binaries / program), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # the server keeps it open
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
            timeout=60,
            check=False,
            **self.user,
        )
        if done.returncode:
            raise RuntimeError(f"{program} {' '.join(arguments)} ended with {done.returncode}")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", str(self.folder), "-m", "immediate", "stop")
