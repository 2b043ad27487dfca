"""A real Label Studio and a real stack, for acceptance tests and benchmarks; all on 127.0.0.1."""

from __future__ import annotations

import base64
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import requests

from backend.edges.database import Database
from backend.edges.label_studio_server import ensure_label_studio_env, start_label_studio
from backend.edges.labelstudio_api import LabelStudio
from backend.edges.processes import free_port
from backend.queue_order import QueueItem, served_order
from model.datasets import read_dataset

TOKEN = "acceptance-token-0123456789"
USER, PASSWORD = "admin@example.com", "admin-pass-1"


def until(condition, seconds: float = 120.0, what: str = "", every: float = 0.25):
    """Wait until `condition()` is true and return it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(every)
    raise AssertionError(f"not within {seconds:.0f} s: {what}")


class Server:
    """Label Studio that can be stopped and started again on its data."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.venv = ensure_label_studio_env(lambda text: print(text, file=sys.stderr))
        self.port = free_port()
        self.user, self.password, self.token = USER, PASSWORD, TOKEN
        self.start()
        self.url = self.running.url

    def start(self) -> None:
        self.running = start_label_studio(
            self.venv, self.folder, self.port, token=TOKEN, user=USER, password=PASSWORD
        )

    def stop(self) -> None:
        self.running.stop()


class Stack:
    """`doubtless up` as a user starts it."""

    def __init__(self, home: Path, **settings: object) -> None:
        self.home = home
        self.port = free_port()
        self.environment = os.environ | {
            "DOUBTLESS_HOME": str(home),
            "DOUBTLESS_PORT": str(self.port),
            "DOUBTLESS_WORKERS": "1",
            **{f"DOUBTLESS_{k.upper()}": str(v) for k, v in settings.items()},
        }
        self.log = (home.parent / f"{home.name}.log").open("ab")
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "backend.cli", "up"],
            env=self.environment,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        until(self.is_up, 180, f"the stack is up; see {self.log.name}")

    def is_up(self) -> bool:
        try:
            return requests.get(f"http://127.0.0.1:{self.port}/health", timeout=2).ok
        except requests.RequestException:
            return False

    def state(self) -> dict:
        return json.loads((self.home / "stack.json").read_text())

    def command(self, *arguments: str, ok: bool | None = True) -> dict | list:
        """Run a subcommand with --json, as a script would; with ``ok=None`` it may be refused."""
        done = subprocess.run(
            [sys.executable, "-m", "backend.cli", *arguments, "--json"],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert ok is None or (done.returncode == 0) == ok, done.stdout + done.stderr
        return json.loads(done.stdout)

    @property
    def database(self) -> Database:
        return Database(f"sqlite:///{self.home / 'doubtless.db'}")

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
        self.log.close()


class Project:
    """A project of digits in a real Label Studio; people submit through its HTTP API."""

    def __init__(self, label_studio: Server, *, classes=tuple("0123456789"), title="digits"):
        self.server = label_studio
        self.api = LabelStudio(label_studio.url, label_studio.token)
        choices = "".join(f'<Choice value="{c}"/>' for c in classes)
        self.config = (
            '<View><Image name="image" value="$image" maxWidth="480px"/>'
            f'<Choices name="choice" toName="image" showInline="true">{choices}</Choices></View>'
        )
        self.id = int(self.api.create_project(title, self.config)["id"])
        self.truth: dict[int, str] = {}

    def upload(self, n: int, *, start: int = 0) -> None:
        """Upload digits as people do; the file name tells the true label."""
        items = digits()[start : start + n]
        self.api.upload_files(
            self.id, [(f"{i:05d}_{label}.png", data) for i, (data, label) in enumerate(items)]
        )
        self.read_truth()

    def import_inline(self, n: int, distinct: int) -> None:
        """Import tasks whose images stand in the task itself, so that none is fetched."""
        items = digits()[:distinct]
        urls = [f"data:image/png;base64,{base64.b64encode(d).decode()}" for d, _ in items]
        tasks = [{"image": urls[i % distinct], "true": items[i % distinct][1]} for i in range(n)]
        for begin in range(0, n, 1000):
            self.api.import_tasks(self.id, tasks[begin : begin + 1000])
        self.read_truth()

    def read_truth(self) -> None:
        for task in self.api.tasks(self.id):
            named = re.search(r"_(\d)\.png$", str(task.data.get("image", "")))
            self.truth[task.id] = task.data.get("true") or (named.group(1) if named else "0")

    def result(self, task_id: int) -> list[dict]:
        return [
            {
                "from_name": "choice", "to_name": "image", "type": "choices",
                "value": {"choices": [self.truth[task_id]]},
            }
        ]  # fmt: skip

    def label(self, n: int, api: LabelStudio | None = None) -> list[int]:
        """Take the next task and submit its true label, n times."""
        api = api or self.api
        done = []
        for _ in range(n):
            task = api.next_task(self.id)
            assert task is not None
            api.submit(task.id, self.result(task.id))
            done.append(task.id)
        return done

    def connect(self, stack: Stack, token: str | None = None) -> str:
        made = stack.command(
            "connect", "--url", self.server.url, "--token", token or self.server.token,
            "--project", str(self.id),
        )  # fmt: skip
        return made["key"]

    def live(self) -> str:
        return str(self.api.project(self.id)["model_version"])

    def wait_for_version(self, than: str = "", *, prefix: str = "", seconds: float = 180) -> str:
        """The next version that is live in Label Studio."""
        return until(
            lambda: (v := self.live()) != than and v.startswith(prefix) and v,
            seconds,
            f"a version after {than or 'none'} (now {self.live()})",
        )

    def our_order(self, stack: Stack, key: str, n: int) -> list[int]:
        """The order we published, as one user will be served it."""
        database = stack.database
        project = database.project(key)
        rows = database.scores(key, project.live_version)
        # Asked of Label Studio: we ourselves read labels at the next training or pause.
        touched = {t.id for t in self.api.tasks(self.id, only_annotated=True)}
        stored = self.api.predictions_of_many(self.id, sorted(touched))
        solved = Counter(
            max((p["cluster"] for p in found if p["cluster"] is not None), default=None)
            for found in (stored.get(i, []) for i in touched)
        )
        items = [
            QueueItem(r.task_id, r.score, r.cluster)
            for r in rows.values()
            if r.task_id not in touched
        ]
        database.close()
        return served_order(items, solved, n)


_digits: list[tuple[bytes, str]] = []


def digits() -> list[tuple[bytes, str]]:
    """Handwritten digits in a fixed random order: PNG bytes and label."""
    if not _digits:
        found = [(i.data, str(i.label)) for i in read_dataset("digits")]
        random.Random(0).shuffle(found)
        _digits.extend(found)
    return _digits


def second_user(label_studio) -> SimpleNamespace:
    """Somebody who joins by the invitation link, with a token of their own."""
    admin = requests.Session()
    admin.headers["Authorization"] = f"Token {label_studio.token}"
    link = admin.get(f"{label_studio.url}/api/invite", timeout=30).json()["invite_url"]
    session = requests.Session()
    url = label_studio.url + link if link.startswith("/") else link
    session.get(url, timeout=30)
    email = f"person{time.time_ns()}@example.com"
    answer = session.post(
        url,
        data={
            "email": email, "password": "person-pass-1", "allow_newsletters": "false",
            "how_find_us": "", "csrfmiddlewaretoken": session.cookies["csrftoken"],
        },
        headers={"Referer": url},
        timeout=30,
    )  # fmt: skip
    assert answer.ok
    token = session.get(f"{label_studio.url}/api/current-user/token", timeout=30).json()["token"]
    return SimpleNamespace(email=email, token=token, session=session)
