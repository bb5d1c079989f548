import io
import json
from itertools import pairwise

import pytest
import torch
from PIL import Image

from dream_core.images import Normalize
from dream_core.synthetic import SyntheticSet
from worker.previews import Previews, thin
from worker.reporting import Reporter


def a_set(classes=3, ipc=2):
    return SyntheticSet(torch.rand(classes * ipc, 3, 8, 8), classes, ipc, space=Normalize((0.5,) * 3, (0.25,) * 3))


@pytest.fixture
def previews(tmp_path):
    def previews(directory=tmp_path / "previews" / "job"):
        return Previews(directory, Reporter(tmp_path / "events.jsonl"))

    return previews


@pytest.fixture
def told(tmp_path):
    def told(kind):
        path = tmp_path / "events.jsonl"
        events = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [event["data"] for event in events if event["type"] == kind]

    return told


def test_a_frame_is_a_webp_that_is_told_of(previews, told, tmp_path):
    previews().offer(42, a_set())

    (event,) = told("preview")
    content = (tmp_path / "previews" / "job" / event["name"]).read_bytes()
    assert (event["step"], event["name"], event["bytes"]) == (42, "step-00000042.webp", len(content))
    with Image.open(io.BytesIO(content), formats=("WEBP",)) as frame:
        frame.load()
        assert frame.size == (event["width"], event["height"])


def test_frames_are_drawn_at_first_then_rarely_and_at_the_end_once(previews, told):
    drawing, images = previews(), a_set()

    for step in range(1, 10):
        drawing.offer(step, images)
    drawing.finish(9, images)
    drawing.finish(9, images)

    assert [event["step"] for event in told("preview")] == [1, 9]


def test_drawing_changes_nothing_of_the_set(previews):
    images = a_set()
    before, state = images.images.clone(), torch.get_rng_state()

    previews().finish(1, images)

    assert torch.equal(images.images, before)
    assert torch.equal(torch.get_rng_state(), state)


def test_without_a_place_for_them_none_are_drawn(previews, told):
    drawing = previews(None)

    drawing.offer(1, a_set())
    drawing.finish(2, a_set())

    assert told("preview") == []


def test_a_full_disk_costs_the_pictures_alone_and_is_said_once(previews, told, small_disk):
    disk = small_disk(4096)
    (disk / "filling").write_bytes(bytes(4096))
    drawing = previews(disk)

    drawing.offer(1, a_set())
    drawing.finish(2, a_set())

    (warning,) = told("warning")
    assert (warning["code"], "No space left" in warning["message"]) == ("PREVIEW_FAILED", True)
    assert [path.name for path in disk.iterdir()] == ["filling"]


@pytest.mark.parametrize(("drawn", "keep"), [(0, 3), (3, 3), (4, 3), (1000, 200)])
def test_frames_are_thinned_evenly_with_the_first_and_the_last(tmp_path, drawn, keep):
    steps = [7 * number for number in range(drawn)]
    for step in steps:
        (tmp_path / f"step-{step:08d}.webp").touch()

    thin(tmp_path, keep)

    left = sorted(int(path.stem.removeprefix("step-")) for path in tmp_path.iterdir())
    assert len(left) == min(drawn, keep)
    assert left[:1] + left[-1:] == steps[:1] + steps[-1:]
    gaps = {b - a for a, b in pairwise(left)}
    assert not gaps or max(gaps) <= 2 * min(gaps)
