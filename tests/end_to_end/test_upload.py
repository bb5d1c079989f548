"""A dataset of one's own, from a folder on the user's disk to a job that distils it."""

import numpy as np
from sklearn.datasets import load_digits

from client import Client
from tests.dream_core.dataset_files import encode, write_tree
from tests.fixtures.serving import JUDGED, SHORT, serving


def test_an_upload_is_examined_and_distilled(tmp_path):
    digits = load_digits(n_class=3)
    files = {
        f"{'test' if n % 4 == 0 else 'train'}/{label}/{n}.png": encode((pixels * 15).astype(np.uint8))
        for n, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True))
    }
    folder = write_tree(tmp_path / "three digits", files)
    with serving(tmp_path / "home") as service, Client(service.url) as client:
        begun = client.datasets.upload(folder, "three")
        dataset = client.datasets.wait(begun["id"], timeout=60)
        assert dataset["status"] == "ready", dataset["report"]
        assert sum(of_class["train"] + of_class["test"] for of_class in dataset["report"]["classes"]) == len(files)

        wanted = {"image_size": 8, "norm": "instance"} | SHORT
        job = client.jobs.create("upload:three", "dream", 1, params=wanted, evaluation=JUDGED)
        done = client.jobs.wait(job.id, timeout=60)
        assert done.status == "succeeded", done.error
        manifest = client.jobs.manifest(job.id)
        assert manifest["dataset"]["name"] == "upload:three"
        assert [of_class["name"] for of_class in manifest["classes"]] == ["0", "1", "2"]
