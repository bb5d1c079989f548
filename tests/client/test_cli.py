import json
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from client import method_tables
from dream_core.catalog import METHODS
from tests.fixtures.broker import free_port

JOB_ID = re.compile(r"job_[0-9a-f]{32}")


def widest(text):
    return max(map(len, text.splitlines()), default=0)


def test_submit_says_how_to_go_on(dream):
    result = dream("submit", "--dataset", "digits", "--method", "dream", "--ipc", 2)

    assert result.code == 0
    assert f"dream watch {JOB_ID.search(result.out)[0]}" in result.out


def test_submit_sends_settings_to_where_they_belong(dream):
    result = dream(
        "submit", "-d", "digits", "--ipc", 1, "--seed", 3, "--name", "a name", "--json",
        "--set", "factor=1", "--set", "metric=cosine", "--set", "evaluation.epochs=7", "--set", "lr_img=1e-3",
    )  # fmt: skip

    spec = result.json["spec"]
    assert spec["params"] == {"factor": 1, "metric": "cosine", "lr_img": 0.001}
    assert spec["evaluation"] == {"epochs": 7}
    assert (spec["seed"], result.json["name"]) == (3, "a name")


def test_submit_for_a_class_of_gpu(dream):
    job = dream("submit", "-d", "digits", "--gpu-class", "a100", "--json").json
    assert (job["spec"]["resources"]["gpu_class"], job["status_reason"]) == ("a100", "no_worker")
    assert dream("cancel", job["id"]).code == 0  # the queue is gone with it


@pytest.mark.parametrize("setting", ["factor", "=1", " =1"])
def test_a_setting_that_is_none_is_wrong_usage(dream, setting):
    result = dream("submit", "-d", "digits", "--set", setting)

    assert result.code == 2
    assert "KEY=VALUE" in result.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-d", "imagenet"], ["dataset: there is no dataset 'imagenet'", "digits"]),
        (["-d", "mnist"], ["dataset: MNIST is not complete", "MNIST/raw"]),
        (["-d", "folder:../secrets"], ["dataset: ", "without '..'"]),
        (["-d", "folder:mine"], ["dataset: there is no", "expected a folder"]),
        (["-d", "digits", "-m", "magic"], ["method: there is no method 'magic'", "dream"]),
        (["-d", "digits", "--ipc", "5000"], ["ipc: 5000 images per class", "smallest class"]),
        (["-d", "digits", "--ipc", "0"], ["ipc: "]),
        (["-d", "digits", "--set", "factor=8"], ["params.factor: "]),
        (["-d", "digits", "--set", "factr=2"], ["params.factr: "]),
        (["-d", "digits", "--set", "evaluation.epochs=-1"], ["evaluation.epochs: "]),
        (["-d", "digits", "--set", "lr_img=NaN"], ["params.lr_img: "]),
    ],
)
def test_a_refused_job_names_the_field_and_what_is_wrong_with_it(dream, arguments, words):
    result = dream("submit", *arguments)

    assert (result.code, result.out) == (1, "")
    for word in words:
        assert word in result.err


def test_with_json_an_error_is_json_too(dream):
    result = dream("submit", "-d", "digits", "--set", "factor=8", "--json")

    assert (result.code, result.out) == (1, "")
    error = json.loads(result.err)["error"]
    assert (error["code"], error["status"]) == ("VALIDATION_FAILED", 422)
    assert error["errors"][0]["pointer"] == "#/spec/params/factor"


@pytest.mark.parametrize("command", [["ls"], ["methods"], ["datasets"], ["submit", "-d", "digits"], ["show", "abc"]])
def test_where_no_service_answers_the_error_says_what_to_do(dream, command):
    result = dream(*command, "--url", f"http://127.0.0.1:{free_port()}")

    assert (result.code, result.out) == (3, "")
    assert "no dream service answers" in result.err
    assert "dream serve" in result.err


def test_jobs_are_listed_in_80_columns(dream, client, service, job):
    service.finish(job.id, service.claim(job.id))

    result = dream("ls", "-n", 3)

    assert job.id[-12:] in result.out
    assert "81.2 ± 0.5" in result.out
    assert widest(result.out) <= 80
    assert [row["id"] for row in dream("ls", "-n", 1, "--json").json] == [job.id]


def test_jobs_are_listed_by_status(dream, client, service, job):
    service.fail(job.id, service.claim(job.id))

    assert {row["status"] for row in dream("ls", "--status", "failed", "--json").json} == {"failed"}
    wrong = dream("ls", "--status", "sleeping")
    assert (wrong.code, wrong.out) == (1, "")
    assert "the request cannot be accepted" in wrong.err
    assert "status" in wrong.err


def test_a_job_is_found_by_the_end_of_its_id(dream, job):
    assert dream("show", job.id[-12:], "--json").json["id"] == job.id
    assert "none of the latest 100 jobs" in dream("show", "zzz").err
    assert dream("show", f"job_{'0' * 32}").code == 1


def test_show_tells_what_went_wrong(dream, service, job):
    service.fail(job.id, service.claim(job.id))

    result = dream("show", job.id)

    assert "lower batch_syn_max" in result.out
    assert widest(result.out) <= 80


def test_watching_a_pipe_prints_a_line_per_event_and_the_result(dream, service, job):
    attempt = service.claim(job.id)
    service.report(job.id, attempt, "phase", phase="distilling")
    service.report(job.id, attempt, "metric", step=5, total=10, loss=0.5, eta_s=65)
    service.report(job.id, attempt, "evaluation", subject="random", run=1, runs=3, last=54.2, best=55.0, epochs=9)
    service.report(job.id, attempt, "warning", code="X", message="a warning")
    service.finish(job.id, attempt)

    result = dream("watch", job.id)

    assert result.code == 0
    for line in (
        "phase distilling",
        "step 5/10 loss 0.5 eta 1 min 05 s",
        "random real images: network 1/3 54.2 %, best 55.0",
        "warning a warning",
        "status succeeded",
        f"Fetch it with: dream download {job.id}",
    ):
        assert line in result.out.splitlines()
    assert "81.2 ± 0.5" in result.out


def test_watching_with_json_gives_events_and_then_the_job(dream, service, job):
    service.finish(job.id, service.claim(job.id))

    *events, last = dream("watch", job.id, "--json").lines

    assert [event["type"] for event in events] == ["state"] * 3
    assert (last["id"], last["status"]) == (job.id, "succeeded")


def test_watch_exits_as_the_job_ended(dream, client, service, job):
    other = client.jobs.create("digits", "dream", 1)
    client.jobs.cancel(job.id)
    service.fail(other.id, service.claim(other.id))

    assert dream("watch", job.id).code == 2
    assert dream("watch", other.id).code == 1


def test_ctrl_c_leaves_the_job_running(service, client, job):
    command = [sys.executable, "-m", "client.cli", "watch", job.id, "--url", service.url]
    watching = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert job.id in watching.stdout.readline()

    watching.send_signal(signal.SIGINT)
    _, said = watching.communicate(timeout=10)

    assert watching.returncode == 130
    assert f"dream cancel {job.id}" in said
    assert client.jobs.get(job.id).status == "queued"


def test_submit_and_watch_in_one(dream, service):
    def work():
        for _ in range(100):
            with service.sessions() as session:
                from jobs.tables import Job

                found = session.query(Job).where(Job.name == "watched").first()
            if found:
                service.finish(found.id, service.claim(found.id))
                return
            time.sleep(0.05)

    threading.Thread(target=work).start()

    assert dream("submit", "-d", "digits", "--name", "watched", "--watch").code == 0


def test_cancel_and_cancel_too_late(dream, client, service, job):
    assert dream("cancel", job.id).out == f"{job.id} is cancelled\n"

    other = client.jobs.create("digits", "dream", 1)
    service.finish(other.id, service.claim(other.id))
    late = dream("cancel", other.id)
    assert late.code == 1
    assert "succeeded" in late.err


def test_download_verifies_and_says_where(dream, service, job, elsewhere):
    service.finish(job.id, service.claim(job.id))

    result = dream("download", job.id)

    assert result.code == 0
    assert re.fullmatch(rf"2 files, \d+ B, verified, in dream-{job.id[-12:]}\n", result.out)
    assert (elsewhere / f"dream-{job.id[-12:]}" / "synthetic.safetensors").read_bytes() == b"pixels"
    facts = dream("download", job.id, "-o", "there", "--json").json
    assert facts["files"] == ["synthetic.safetensors", "manifest.json"]
    assert facts["directory"] == str(elsewhere / "there")


def test_download_of_a_job_that_is_not_finished(dream, job, elsewhere):
    result = dream("download", job.id)

    assert (result.code, result.out) == (1, "")
    assert "queued" in result.err
    assert not list(elsewhere.iterdir())


@pytest.mark.parametrize("what", ["methods", "datasets"])
def test_what_there_is_comes_from_the_service_or_else_from_here(dream, service, monkeypatch, tmp_path, what):
    answered = dream(what, "--json")
    assert f"From the service at {service.url}" in answered.err

    monkeypatch.delenv("DREAM_URL")
    monkeypatch.setenv("DREAM_HOME", str(tmp_path))
    monkeypatch.setattr("client.transport.DEFAULT_URL", f"http://127.0.0.1:{free_port()}")
    here = dream(what, "--json")
    assert "From this machine" in here.err
    assert [set(row) for row in here.json] == [set(row) for row in answered.json]
    assert [row["name"] for row in here.json] == [row["name"] for row in answered.json]

    assert (what == "datasets") or here.json == answered.json


def test_methods_are_listed_by_family(dream):
    lines = [line.rstrip() for line in dream("methods").out.splitlines()]

    assert lines[0].split() == ["method", "what", "it", "does", "paper", "images"]
    headings = [index for index, line in enumerate(lines) if index and not lines[index - 1] and line.startswith("   ")]
    assert [lines[index].strip().split()[0] for index in headings] == [
        "Matching", "Learning", "Matching", "Recovering", "Choosing",
    ]  # fmt: skip
    first = {line.split()[0]: line for line in lines[1:] if line and not line.startswith(" ")}
    assert list(first)[:14] == [
        "dc", "dsa", "dm", "idc", "dream", "dream+", "dd", "mtt", "sre2l", "random", "herding", "k-center", "kmeans",
        "images:",
    ]  # fmt: skip
    assert first["mtt"].endswith("CVPR 2022      120 M")
    assert first["dd"].endswith("2018            26 M")
    assert first["random"].endswith("none")
    assert "`dream methods NAME`" in lines[-1]


def test_a_method_is_shown_with_all_that_can_be_set(dream):
    result = dream("methods", "mtt")

    assert result.code == 0
    lines = [line.rstrip() for line in result.out.splitlines()]
    assert lines[0] == "method         mtt"
    assert "paper          Cazenavette et al., Dataset Distillation by Matching Training" in lines
    assert "defaults from  MTT (Cazenavette et al. 2022); values as its authors gave them to" in lines
    for line in (
        "depth                1, 3 or 4     Blocks of the ConvNet: 3 for 28 and 32",
        "width                128           Filters in every block of the ConvNet. (≥ 1)",
        "student_steps        varies        Gradient steps that the student takes on the",
        "momentum_expert      0             Momentum of the experts' training. (0 to 1)",
        "optimizer            sgd           SGD with momentum, or AdamW. (sgd, adamw)",
        "evaluation  --set evaluation.NAME=VALUE",
        "                           student_  max_start_",
        "dataset        ipc  steps     steps       epoch  lr_img  images  published",
        "digits           1  5,300        50           2     100   2.9 M  no",
        "cifar100        50  9,100        80          40    1000   260 M  yes",
    ):
        assert line in lines
    assert dream("methods", "mtt", "--json").json["name"] == "mtt"


@pytest.mark.parametrize("name", METHODS)
def test_every_methods_page_fits_80_columns_and_cuts_nothing(dream, name):
    result = dream("methods", name)

    assert result.code == 0
    assert widest(result.out) <= 80
    assert "…" not in result.out


def test_an_unknown_method_is_refused_with_the_names(dream, monkeypatch):
    result = dream("methods", "magic")

    assert (result.code, result.out) == (1, "")
    assert "there is no method 'magic'" in result.err
    assert "dream+, dd, mtt" in result.err

    monkeypatch.delenv("DREAM_URL")
    monkeypatch.setattr("client.transport.DEFAULT_URL", f"http://127.0.0.1:{free_port()}")
    here = json.loads(dream("methods", "magic", "--json").err.splitlines()[-1])
    assert "dream+, dd, mtt" in here["error"]["advice"]


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ({"type": "integer", "minimum": 1, "exclusiveMaximum": 2**31}, "≥ 1"),
        ({"type": "integer", "minimum": 1, "maximum": 8}, "1 to 8"),
        ({"type": "number", "exclusiveMinimum": 0}, "> 0"),
        ({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]}, "≥ 1, or null"),
        ({"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"const": "learned"}]}, "> 0, or learned"),
        ({"enum": ["a", "b:c", "b:d", "e"]}, "a, e, b:{c, d}"),
        ({"enum": ["only"]}, "only only"),
        ({"type": "boolean"}, ""),
        ({"type": "string"}, ""),
    ],
)
def test_allowed_values_in_words(field, text):
    assert method_tables.allowed_text(field) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "none"), (50_000, "50,000"), (123_456, "0.1 M"), (9_960_000, "10 M"), (736e6, "740 M"), (999.9e6, "1.0 G"),
     (12.3e9, "12 G"), (1.2e13, "12,000 G")],
)  # fmt: skip
def test_counts_of_two_digits(count, text):
    assert method_tables.count_text(count) == text


@pytest.mark.parametrize("command", [["methods"], ["datasets"], ["doctor"], ["--help"], ["submit", "--help"]])
def test_tables_fit_80_columns(dream, command):
    result = dream(*command)

    assert result.code == 0
    assert widest(result.out) <= 80


def test_doctor_reports_the_service_and_fails_where_a_named_one_is_away(dream, service):
    findings = {finding["what"]: finding for finding in dream("doctor", "--json").json}
    assert findings["service"] == {"what": "service", "state": "ok", "detail": f"ready at {service.url}", "advice": ""}
    assert findings["device"]["state"] == "ok"

    away = dream("doctor", "--json", "--url", f"http://127.0.0.1:{free_port()}")
    assert away.code == 1


def test_the_client_alone_runs_and_says_what_other_commands_need(tmp_path):
    """With nothing importable but the base requirements, as after `pip install dream-distillation`."""
    code = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in {'celery', 'sqlalchemy', 'torch', 'pydantic_settings', 'redis'}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "from client.cli import main\n"
        "main()\n"
    )

    def run(*arguments):
        command = [sys.executable, "-c", code, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert "submit" in run("--help").stdout
    served = run("serve", "--home", str(tmp_path))
    assert served.returncode == 1
    assert "pip install 'dream-distillation[serve]'" in served.stderr
    methods = run("methods", "--url", f"http://127.0.0.1:{free_port()}")
    assert methods.returncode == 3
