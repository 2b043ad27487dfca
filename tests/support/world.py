"""A connected project in memory, with people, pictures, queue and workers."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
from PIL import Image

from backend.app import App
from backend.edges.database import Database
from backend.edges.labels.config import parse_config
from backend.jobs import perform
from backend.scheduler import Scheduler
from backend.settings import Settings
from backend.testing import FakeLabelStudio, FakeMedia, InMemoryQueue
from model.detection.maps import MapStore
from model.features import FeatureStore
from support.boxes import ColourPyramid

CONFIG = """<View>
  <Image name="image" value="$image"/>
  <Choices name="choice" toName="image">
    <Choice value="red"/><Choice value="green"/><Choice value="blue"/>
  </Choices>
</View>"""
COLOURS = ("red", "green", "blue")


class MeanColour:
    """A backbone whose features are the picture's own mean colours: fast and separable."""

    name, dim, size_px, hash = "mean-colour", 12, 8, "0123456789ab"

    def prepare(self, image):
        side = image.convert("RGB").resize((self.size_px, self.size_px))
        return np.asarray(side, np.float32).transpose(2, 0, 1) / 255.0

    def forward(self, inputs):
        halves = inputs.reshape(len(inputs), 3, 2, 4, 2, 4).mean(axis=(3, 5))
        return halves.reshape(len(inputs), 12).astype(np.float32)

    def features(self, images):
        return self.forward(np.stack([self.prepare(i) for i in images]))


def picture(colour: int, seed: int) -> bytes:
    noise = np.random.default_rng(seed)
    pixels = noise.integers(0, 120, (16, 16, 3))
    pixels[:, :, colour] += 90 + int(noise.integers(0, 40))
    data = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(data, "PNG")
    return data.getvalue()


class World:
    """A connected project in memory: people, Label Studio, queue and workers."""

    config = CONFIG

    def __init__(self, tmp_path, n: int = 60, **settings) -> None:
        self.platform = FakeLabelStudio(self.config)
        self.media = FakeMedia({})
        self.truth: dict[int, str] = {}
        self.queue = InMemoryQueue()
        self.settings = Settings.load(
            {}, home=str(tmp_path), **{"quiet_s": 0.0, "box_quiet_s": 0.0} | settings
        )
        self.backbone = MeanColour()
        self.pyramid = ColourPyramid()
        self.app = App(
            settings=self.settings,
            database=Database("sqlite://"),
            queue=self.queue,
            features=FeatureStore(tmp_path / "features"),
            platform_for=lambda project: self.platform,
            media_for=lambda project: self.media,
            backbone_for=lambda name: self.backbone,
            backbone_hash=lambda name: self.backbone.hash,
            maps=MapStore(tmp_path / "maps"),
            pyramid_for=lambda name: self.pyramid,
        )
        for i in range(n):
            self.import_image(i % 3, i)
        spec = parse_config(self.config).spec
        self.key = self.app.database.connect_project(
            host=self.platform.url, platform_id=1, uid="1.1767225600", title="fake", token="t",
            label_config=self.config, config_hash=spec.config_hash, problems=[],
        ).key  # fmt: skip
        self.scheduler = Scheduler(self.app)

    def import_image(self, colour: int, seed: int) -> int:
        name = f"/data/{seed}.png"
        self.media.files[name] = picture(colour, seed)
        task = self.platform.add_task({"image": name})
        self.truth[task] = COLOURS[colour]
        return task

    @property
    def database(self):
        return self.app.database

    @property
    def project(self):
        return self.database.project(self.key)

    def versions(self) -> list[str]:
        return [f"{v.name} {v.status}" for v in self.database.versions(self.key)]

    def work(self, limit: int = 200) -> list[str]:
        """Let scheduler and workers go on until nothing is left to do."""
        said = []
        for _ in range(limit):
            self.scheduler.tick()
            run_id = self.queue.take()
            if run_id is None:
                return said
            said.append(f"{self.database.run(run_id).kind}: {perform(self.app, run_id)}")
        raise AssertionError(f"still working after {limit} jobs: {said[-5:]}")

    def choice(self, label: str) -> list[dict]:
        return [
            {
                "from_name": "choice", "to_name": "image", "type": "choices",
                "value": {"choices": [label]},
            }
        ]  # fmt: skip

    def later(self, seconds: float) -> None:
        """Let that much time pass for everything that failed."""
        for run in self.database.runs(status=("failed",)):
            self.database.update_run(run.id, finished_at=run.finished_at - seconds)

    def change_backbone(self) -> None:
        """Restart with another backbone, whose features differ in number."""

        class Halves(MeanColour):
            name, dim, hash = "halves", 6, "abcdef012345"

            def forward(self, inputs):
                return super().forward(inputs)[:, ::2]

        self.backbone = Halves()
        self.app._backbones.clear()
        self.app.settings = replace(self.settings, backbone="efficientnet-lite0")

    def submit(self, task: int, *, tell: bool = True, user: int = 1) -> None:
        """A person gives a task its true label; with `tell`, the webhook arrives."""
        record = self.platform.annotate(task, self.choice(self.truth[task]), user=user)
        if tell:
            row = {
                "annotation_id": record.id, "task_id": task, "label": self.truth[task],
                "cancelled": False, "completed_by": user, "updated_at": record.updated_at,
            }  # fmt: skip
            self.database.put_annotations(self.key, [row])

    def label(self, n: int, *, tell: bool = True, user: int = 1) -> list[int]:
        """A person labels what the queue serves."""
        done = []
        for _ in range(n):
            task = self.platform.next_task(user)
            self.submit(task, tell=tell, user=user)
            done.append(task)
        return done
