"""A connected project whose images have several labels, or none."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from backend.edges.labels.answers import encode
from backend.edges.labels.choices import to_result
from backend.edges.labels.config import parse_config
from support.world import COLOURS, CONFIG, World

SEVERAL = CONFIG.replace('toName="image"', 'toName="image" choice="multiple"')
AT_LEAST_ONE = CONFIG.replace('toName="image"', 'toName="image" choice="multiple" required="true"')


def lights(colours: set[int], seed: int) -> bytes:
    """A picture in which each of the colours is bright by itself."""
    noise = np.random.default_rng(seed)
    pixels = noise.integers(0, 120, (16, 16, 3))
    for colour in colours:
        pixels[:, :, colour] += 90 + int(noise.integers(0, 40))
    data = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(data, "PNG")
    return data.getvalue()


class WorldOfSeveral(World):
    """Every set of colours in turn, the empty one too where the config allows it."""

    config = SEVERAL

    def import_image(self, colour: int, seed: int) -> int:
        del colour
        fewest = int(self.spec.required)
        code = fewest + seed % (8 - fewest)
        chosen = {n for n in range(3) if code >> n & 1}
        name = f"/data/{seed}.png"
        self.media.files[name] = lights(chosen, seed)
        task = self.platform.add_task({"image": name})
        self.truth[task] = encode(COLOURS[n] for n in chosen)
        return task

    @property
    def spec(self):
        return parse_config(self.config).require_spec()

    def choice(self, label: str) -> list[dict]:
        return to_result(self.spec, label, None)


class WorldOfAtLeastOne(WorldOfSeveral):
    config = AT_LEAST_ONE
