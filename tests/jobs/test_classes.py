"""Jobs that want a class of GPU or several devices, on SQLite and on PostgreSQL."""

import pytest
from pydantic import ValidationError

from jobs import classes, operations, repository
from jobs.dispatcher import ring_all, tick
from jobs.lifecycle import PRIORITIES, Status
from jobs.operations import pause_queue
from jobs.queue import QUEUE, Bell, make_worker_app, queue_of, queues_of, wanted_of
from jobs.spec import Resources
from tests.jobs.test_repository import call, events_of, read, submit

A100, H100 = queue_of("a100"), queue_of("h100")


def wanting(sessions, gpu_class):
    return submit(sessions, resources={"gpu_class": gpu_class})


def next_of(sessions, *queues):
    job = call(sessions, repository.claim_next, "worker-1", 60, queues)
    return job and job.id


def here(sessions, queue, worker="worker-1", **facts):
    call(sessions, operations.report_worker, worker, queue, facts)


def told(sessions, job):
    return [data for _, kind, data in events_of(sessions, job) if kind == "warning"]


@pytest.mark.parametrize("name", ["", "A100", "a 100", "-a", "a-", "a" * 41, "a/b", "a'"])
def test_a_class_has_a_plain_name(name):
    with pytest.raises(ValidationError, match="gpu_class"):
        Resources(gpu_class=name)


def test_only_workers_of_its_class_take_a_job(sessions):
    job = wanting(sessions, "a100")
    assert job.queue == A100
    assert next_of(sessions, QUEUE) is None
    assert next_of(sessions, QUEUE, H100) is None
    assert next_of(sessions, QUEUE, A100) == job.id


def test_a_worker_of_a_class_takes_the_best_of_both_queues(sessions):
    wanted, common, other = wanting(sessions, "a100"), submit(sessions), wanting(sessions, "h100")
    urgent = submit(sessions)
    call(sessions, repository.amend, urgent.id, {"priority": PRIORITIES["high"]})
    taken = [next_of(sessions, QUEUE, A100) for _ in range(4)]
    assert taken == [urgent.id, wanted.id, common.id, None]
    assert next_of(sessions, QUEUE, H100) == other.id


def test_a_queue_that_is_held_holds_its_class_alone(sessions):
    wanted, common = wanting(sessions, "a100"), submit(sessions)
    call(sessions, pause_queue, A100)
    assert [next_of(sessions, QUEUE, A100) for _ in range(2)] == [common.id, None]
    call(sessions, operations.resume_queue, A100)
    call(sessions, pause_queue, QUEUE)
    assert next_of(sessions, QUEUE, A100) == wanted.id


def test_a_job_is_told_once_that_no_worker_has_its_class_and_no_longer_when_one_has(sessions):
    here(sessions, H100)
    waiting, running = wanting(sessions, "a100"), wanting(sessions, "h100")
    for _ in range(2):
        call(sessions, classes.tell_waiting)
    job = read(sessions, waiting)
    assert (job.status, job.status_reason, job.version) == (Status.QUEUED, classes.NO_WORKER, 2)
    (said,) = told(sessions, waiting)
    assert said["code"] == "NO_WORKER"
    assert "GPU class a100" in said["message"]
    assert "workers of h100" in said["message"]
    assert (read(sessions, running).status_reason, told(sessions, running)) == (None, [])
    here(sessions, A100, "worker-2")
    call(sessions, classes.tell_waiting)
    assert (read(sessions, waiting).status_reason, read(sessions, waiting).version) == (None, 3)
    call(sessions, operations.drain, "worker-2", draining=True)
    call(sessions, classes.tell_waiting)
    assert read(sessions, waiting).status_reason == classes.NO_WORKER
    assert next_of(sessions, QUEUE, A100) == waiting.id
    assert read(sessions, waiting).status_reason is None


def test_a_job_without_a_class_is_told_nothing(sessions):
    job = submit(sessions)
    call(sessions, classes.tell_waiting)
    assert (read(sessions, job).version, told(sessions, job)) == (1, [])


def test_the_bell_of_a_class_rings_where_somebody_hears_it(sessions, redis_url):
    job, bell = wanting(sessions, "a100"), Bell(redis_url)
    assert ring_all(sessions, bell, [job.id], A100) == [job.id]
    assert (bell.waiting(), bell.waiting(A100)) == (0, 1)
    call(sessions, repository.nothing_rung)
    assert tick(sessions, bell).rung == []
    here(sessions, A100)
    assert tick(sessions, bell).rung == [job.id]
    assert tick(sessions, bell, ring_again_s=-1).rung == []  # its messages still wait for a worker
    assert (bell.waiting(), bell.waiting(A100)) == (0, 2)


def test_a_worker_hears_the_bells_of_its_queues(redis_url):
    app = make_worker_app(redis_url, (QUEUE, A100))
    assert list(app.amqp.queues.consume_from) == [QUEUE, A100]
    assert Bell(redis_url).ring("job_1", A100)
    with app.connection_for_read() as connection:
        queue = app.amqp.queues[A100](connection.default_channel)
        assert queue.get().headers["task"] == "dream.run_job"


def test_operators_see_who_takes_from_where(sessions):
    here(sessions, QUEUE)
    here(sessions, A100, "worker-2")
    wanting(sessions, "h100")
    found = {queue.name: (queue.queued, queue.workers) for queue in call(sessions, operations.list_queues, 60)}
    assert found == {QUEUE: (0, 2), A100: (0, 1), H100: (1, 0)}


@pytest.mark.parametrize("gpu_class", [None, "a100", "x4", "gpu.x2"])
@pytest.mark.parametrize("gpus", [1, 2, 16])
def test_a_queue_says_what_its_jobs_want(gpu_class, gpus):
    assert wanted_of(queue_of(gpu_class, gpus)) == (gpu_class, gpus)


def test_only_workers_with_as_many_devices_take_a_job(sessions):
    job, common = submit(sessions, method="dream", resources={"gpus": 2}), submit(sessions)
    assert job.queue == "default:x2"
    assert [next_of(sessions, *queues_of(QUEUE, 1)) for _ in range(2)] == [common.id, None]
    assert next_of(sessions, *queues_of(A100, 4)) == job.id


def test_of_a_class_with_as_many_devices(sessions):
    job = submit(sessions, method="dream", resources={"gpus": 4, "gpu_class": "a100"})
    assert job.queue == "gpu.a100:x4"
    for queue, devices in [(QUEUE, 4), (H100, 8), (A100, 3)]:
        assert next_of(sessions, *queues_of(queue, devices)) is None
    assert next_of(sessions, *queues_of(A100, 4)) == job.id


def test_a_job_is_told_that_no_worker_has_as_many_devices_and_rung_for_when_one_has(sessions, redis_url):
    job, bell = submit(sessions, method="dream", resources={"gpus": 4}), Bell(redis_url)
    here(sessions, A100)  # of an earlier version: one device
    here(sessions, A100, "worker-2", devices=2)
    call(sessions, repository.nothing_rung)
    assert tick(sessions, bell).rung == []
    assert read(sessions, job).status_reason == classes.NO_WORKER
    (said,) = told(sessions, job)
    assert said["message"].startswith("no worker with 4 devices is here")
    here(sessions, H100, "worker-3", devices=4)
    assert tick(sessions, bell).rung == [job.id]
    assert read(sessions, job).status_reason is None
    assert bell.waiting("default:x4") == 1


def test_operators_see_who_takes_jobs_for_several_devices_where_there_are_any(sessions):
    here(sessions, A100, devices=4)
    here(sessions, QUEUE, "worker-2", devices=2)
    submit(sessions, method="dream", resources={"gpus": 3})
    found = {queue.name: (queue.queued, queue.workers) for queue in call(sessions, operations.list_queues, 60)}
    assert found == {QUEUE: (0, 2), A100: (0, 1), "default:x3": (1, 1)}
