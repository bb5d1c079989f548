import threading
import time
import zipfile

import pytest

from client import ArtifactNotReady, Client, ValidationFailed
from client.result_tables import sparkline
from jobs import repository
from jobs.lifecycle import Status


def widest(text):
    return max(map(len, text.splitlines()), default=0)


def judge(service, job_id, accuracy, protocol="a" * 64):
    """Let a job succeed with a score."""
    attempt = service.claim(job_id)
    service.report(job_id, attempt, "phase", phase="distilling")
    for step in range(1, 31):
        service.report(job_id, attempt, "metric", step=step, total=30, loss=1 / step)
    summary = {
        "accuracy": {"mean": accuracy, "std": 0.5, "n": 3, "best_mean": accuracy + 1},
        "baselines": {"random": {"mean": 40.0, "std": 1.0, "n": 3}, "full": {"mean": 97.5, "std": 0.0, "n": 1}},
        "protocol_hash": protocol,
    }
    with service.sessions.begin() as session:
        assert repository.settle(session, job_id, attempt, Status.SUCCEEDED, result_summary=summary)


@pytest.fixture
def logged(service, job):
    """A job with a log: (job, the file)."""
    path = service.settings.job_logs / f"{job.id}.log"
    path.parent.mkdir(exist_ok=True)
    path.write_text("step 1: 3 × 3\n", encoding="utf-8")
    return job, path


def test_a_log_is_read_as_it_is(client, dream, logged, job):
    assert client.jobs.log(job.id) == "step 1: 3 × 3\n"
    assert dream("logs", job.id).out == "step 1: 3 × 3\n"
    assert dream("logs", job.id, "--json").json == {"job": job.id, "text": "step 1: 3 × 3\n"}
    assert client.jobs.log(client.jobs.create("digits", "dream", 1).id) == ""


def test_a_log_is_followed_to_the_jobs_end_also_through_halves_of_letters(client, service, logged):
    job, path = logged
    attempt = service.claim(job.id)
    half = "step 2: 4 ×".encode()

    def work():
        for part in (half[:-1], half[-1:] + b" 4\n"):
            time.sleep(1.5)
            with path.open("ab") as file:
                file.write(part)
        service.fail(job.id, attempt)

    working = threading.Thread(target=work)
    working.start()
    said = list(client.jobs.follow_log(job.id))
    working.join()

    assert "".join(said) == "step 1: 3 × 3\nstep 2: 4 × 4\n"
    assert len(said) > 1


def test_following_a_log_ends_with_the_job(dream, service, logged):
    job, _ = logged
    service.fail(job.id, service.claim(job.id))

    assert dream("logs", "-f", job.id).out == "step 1: 3 × 3\n"


def test_an_archive_is_one_file_under_a_name_of_its_own(client, dream, service, job, elsewhere):
    service.finish(job.id, service.claim(job.id), {"synthetic.safetensors": b"pixels", "a/b.txt": b"text"})

    said = dream("archive", job.id)

    path = elsewhere / f"{job.id}-safetensors.zip"
    assert said.out.endswith(f"in {path.name}\n")
    with zipfile.ZipFile(path) as archive:
        assert archive.read("a/b.txt") == b"text"
    facts = dream("archive", job.id, "-o", "mine.zip", "--json").json
    assert facts == {"file": str(elsewhere / "mine.zip"), "bytes": path.stat().st_size, "format": "safetensors"}
    assert client.jobs.archive(job.id, elsewhere / "other.zip").read_bytes() == path.read_bytes()


def test_an_archive_that_breaks_off_leaves_nothing(service, cutting_proxy, job, elsewhere):
    service.finish(job.id, service.claim(job.id), {"synthetic.safetensors": bytes(3_000_000)})

    with Client(cutting_proxy(1_000_000, 9)) as cut, pytest.raises(Exception, match="broke off"):
        cut.jobs.archive(job.id, elsewhere)

    assert list(elsewhere.iterdir()) == []


def test_an_archive_that_cannot_be_had_says_why(client, dream, service, job, elsewhere):
    with pytest.raises(ArtifactNotReady):
        client.jobs.archive(job.id, elsewhere)
    service.finish(job.id, service.claim(job.id))
    with pytest.raises(ValidationFailed, match="no images"):
        client.jobs.archive(job.id, elsewhere, "npz")

    refused = dream("archive", job.id, "--format", "hf")

    assert (refused.code, list(elsewhere.iterdir())) == (1, [])
    assert "format: there are no images in it" in refused.err


def test_metrics_come_as_series(client, service, job):
    judge(service, job.id, 60.0)

    [series] = client.jobs.metrics(job.id, keys=["loss"], max_points=10)

    assert (series["key"], series["phase"], series["total"], len(series["points"])) == ("loss", "distilling", 30, 10)
    with pytest.raises(ValidationFailed, match="known: "):
        client.jobs.metrics(job.id, keys=["luck"])


def test_previews_are_listed_and_fetched(client, service, job):
    directory = service.settings.previews / job.id
    directory.mkdir(parents=True)
    (directory / "step-00000042.webp").write_bytes(b"RIFF a picture")

    assert [preview["step"] for preview in client.jobs.previews(job.id)] == [42]
    assert client.jobs.preview(job.id, 42) == b"RIFF a picture"


def test_jobs_are_compared_side_by_side(dream, client, service):
    jobs = [client.jobs.create("digits", method, 1, seed=seed) for method, seed in (("dream", 0), ("dm", 7))]
    for job, accuracy in zip(jobs, (61.25, 58.0), strict=True):
        judge(service, job.id, accuracy)

    said = dream("compare", *(job.id for job in jobs))

    lines = [line.rstrip() for line in said.out.splitlines()]
    assert lines[0].split() == ["job", "what", "accuracy", "%", "random", "full", "loss"]
    assert lines[1] == f"A  {jobs[0].id[-12:]}  dream · digits · 1   61.2 ± 0.5    40.0  97.5  █▃▂▂▁▁▁▁▁▁"
    assert ["seed", "0", "7"] in [line.split() for line in lines]
    assert widest(said.out) <= 80
    assert dream("compare", *(job.id for job in jobs), "--json").json["note"] is None


def test_eight_jobs_fit_80_columns(dream, client):
    methods = ("dream", "dm", "dc", "dsa", "idc", "dream+", "mtt", "sre2l")
    jobs = [client.jobs.create("digits", method, 1) for method in methods]

    said = dream("compare", *(job.id for job in jobs))

    assert widest(said.out) <= 80
    assert said.out.count("queued") == 8


def test_jobs_judged_otherwise_are_not_comparable_and_say_so(dream, client, service):
    jobs = [client.jobs.create("digits", "dream", 1) for _ in range(2)]
    for job, protocol in zip(jobs, "ab", strict=True):
        judge(service, job.id, 50.0, protocol * 64)

    said = dream("compare", *(job.id for job in jobs)).out

    assert "cannot be compared" in " ".join(said.split())
    assert "The recipes are the same." in said
    one = dream("compare", jobs[0].id)
    assert (one.code, one.out) == (1, "")


def test_the_leaderboard_has_the_best_of_each_kind(dream, client, service):
    made = [client.jobs.create("digits", "dream", 3, seed=seed, name=f"seed {seed}") for seed in range(3)]
    for job, accuracy in zip(made, (70.0, 80.0, 75.0), strict=True):
        judge(service, job.id, accuracy, "c" * 64)

    said = dream("leaderboard", "--ipc", 3)

    lines = [" ".join(line.split()) for line in said.out.splitlines()]
    assert lines[0] == "digits, 3 images per class · protocol cccccccc · 97.5 with all real images"
    assert [line.split()[:2] for line in lines[2:]] == [["1.", "80.0"], ["2.", "75.0"], ["3.", "70.0"]]
    assert widest(said.out) <= 80
    [group] = dream("leaderboard", "--dataset", "digits", "--ipc", 3, "--json").json
    assert [row["job_id"] for row in group["rows"]] == [made[1].id, made[2].id, made[0].id]
    assert "No job has a score" in dream("leaderboard", "--dataset", "mnist").out


@pytest.mark.parametrize(
    ("values", "letters"),
    [([], ""), ([3.0], "▁"), ([1, 1, 1], "▁▁▁"), ([0, 7], "▁█"), (range(80), "▁▂▃▃▄▅▆▆▇█")],
)
def test_a_curve_in_letters(values, letters):
    assert sparkline(values) == letters
