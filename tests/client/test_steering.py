import pytest

from client import IllegalTransition, JobNotOver, NoCheckpoint, PreconditionFailed
from client.errors import Gone


def test_a_waiting_job_is_paused_and_resumed(client, job):
    assert client.jobs.pause(job.id).status == "paused"
    assert client.jobs.resume(job.id).status == "queued"


def test_a_running_job_is_asked_to_pause(client, service, job):
    service.claim(job.id)

    assert client.jobs.pause(job.id).status == "pausing"
    with pytest.raises(IllegalTransition) as refused:
        client.jobs.resume(job.id)
    assert refused.value.facts["from"] == "pausing"


def test_a_running_job_is_cancelled_at_once_or_when_its_worker_has_stopped(client, service, job):
    other = client.jobs.create("digits", "dream", 1)
    service.claim(job.id)
    service.claim(other.id)

    assert client.jobs.cancel(job.id).status == "cancelling"
    assert client.jobs.cancel(other.id, mode="now").status == "cancelled"


def test_a_job_that_is_over_is_done_again(client, job):
    with pytest.raises(JobNotOver):
        client.jobs.retry(job.id)
    client.jobs.cancel(job.id)

    again = client.jobs.retry(job.id, name="again", priority="high")

    assert (again.parent_job_id, again.name, again.priority) == (job.id, "again", "high")
    assert again.spec == job.spec
    with pytest.raises(NoCheckpoint):
        client.jobs.retry(job.id, from_checkpoint="latest")


def test_only_what_is_given_is_changed(client):
    job = client.jobs.create("digits", "dream", 1, name="old", metadata={"a": "b"}, priority="low")

    assert client.jobs.update(job.id, priority="high").name == "old"
    changed = client.jobs.update(job.id, name="new", metadata={"c": "d"})

    assert (changed.name, changed.metadata, changed.priority) == ("new", {"c": "d"}, "high")
    assert client.jobs.update(job.id, name="").name is None
    with pytest.raises(PreconditionFailed):
        client.jobs.update(job.id, name="late", version=job.version)


def test_a_deleted_job_is_gone(client, job):
    with pytest.raises(JobNotOver):
        client.jobs.delete(job.id)
    client.jobs.cancel(job.id)

    client.jobs.delete(job.id)

    with pytest.raises(Gone):
        client.jobs.get(job.id)


def test_a_job_that_has_not_changed_is_not_sent_again(client, job):
    found = client.jobs.get(job.id)

    assert client.jobs.get(job.id, known=found) is found
    client.jobs.update(job.id, name="changed")
    assert client.jobs.get(job.id, known=found).name == "changed"


def test_jobs_are_found_by_their_metadata(client):
    made = client.jobs.create("digits", "dream", 1, metadata={"thesis": "ch 3", "run": "7"})

    assert [job.id for job in client.jobs.list(metadata={"thesis": "ch 3", "run": "7"})] == [made.id]
    assert list(client.jobs.list(metadata={"thesis": "ch 4"})) == []
    assert [job.id for job in client.jobs.list(metadata={"run": "7"}, status=["queued", "running"])] == [made.id]


def test_pause_and_resume_say_what_is_next(dream, service, client, job):
    paused = dream("pause", job.id)
    assert paused.out == f"{job.id} is paused\nLet it go on with: dream resume {job.id}\n"
    assert "dream watch" in dream("resume", job.id[-12:]).out

    service.claim(job.id)
    assert "is pausing\nIt writes a checkpoint" in dream("pause", job.id).out
    assert dream("pause", job.id, "--json").json["status"] == "pausing"
    late = dream("resume", job.id)
    assert (late.code, late.out) == (1, "")


def test_cancel_now(dream, service, job):
    service.claim(job.id)

    assert "keeps what it has made" in dream("cancel", job.id).out
    assert dream("cancel", job.id, "--now").out == f"{job.id} is cancelled\n"


def test_retry_goes_on_from_a_checkpoint_and_beyond(dream, service, client, job):
    service.fail(job.id, service.claim(job.id))
    for step in (100, 200):
        service.leave_checkpoint(job.id, step)

    listed = dream("checkpoints", job.id)
    assert f"dream retry {job.id} --from 200" in listed.out
    assert [point["step"] for point in dream("checkpoints", job.id, "--json").json] == [100, 200]
    new = dream("retry", job.id, "--from", 100, "--more", 50, "--name", "longer", "--json").json
    assert (new["parent_job_id"], new["parent_step"], new["name"]) == (job.id, 100, "longer")
    assert f"retry of  {job.id}, going on from" in " ".join(dream("show", new["id"]).out.splitlines())


def test_retry_without_a_checkpoint_says_what_to_do(dream, client, job):
    client.jobs.cancel(job.id)

    refused = dream("retry", job.id, "--from", "latest")
    assert refused.code == 1
    assert "dream checkpoints" in refused.err
    assert "from the beginning" in dream("checkpoints", job.id).out
    wrong = dream("retry", job.id, "--from", "soon")
    assert wrong.code == 2
    assert "latest" in wrong.err


def test_edit_changes_pairs_and_keeps_the_others(dream, client):
    job = client.jobs.create("digits", "dream", 1, metadata={"a": "1", "b": "2", "c": "3"})

    dream("edit", job.id, "--meta", "b=", "--meta", "c=33", "--meta", "d=4", "--name", "a name")
    changed = dream("edit", job.id, "--priority", "high", "--json").json

    assert changed["metadata"] == {"a": "1", "c": "33", "d": "4"}
    assert (changed["name"], changed["priority"]) == ("a name", "high")
    assert dream("edit", job.id).code == 2


def test_rm_deletes_several(dream, client, job):
    other = client.jobs.create("digits", "dream", 1)
    running = dream("rm", job.id)
    assert running.code == 1
    assert "dream cancel" in running.err
    for each in (job, other):
        client.jobs.cancel(each.id)

    assert dream("rm", job.id, other.id[-12:]).out == f"{job.id} is deleted\n{other.id} is deleted\n"
    assert "deleted" in dream("show", job.id).err


def test_submit_with_priority_and_metadata_and_ls_by_it(dream):
    made = dream("submit", "-d", "digits", "--priority", "low", "--meta", "paper=x=y", "--json").json

    assert (made["priority"], made["metadata"]) == ("low", {"paper": "x=y"})
    found = dream("ls", "--meta", "paper=x=y", "--status", "queued", "--status", "paused", "--json").json
    assert [job["id"] for job in found] == [made["id"]]
    assert "queued low" in dream("ls", "--meta", "paper=x=y").out
    assert "No such jobs" in dream("ls", "--meta", "paper=none").out
    assert dream("ls", "--meta", "paper").code == 2


def test_show_tells_of_a_paused_job_with_a_priority(dream, client):
    job = client.jobs.create("digits", "dream", 1, metadata={"a": "b"}, priority="high")
    client.jobs.pause(job.id)

    lines = [" ".join(line.split()) for line in dream("show", job.id).out.splitlines()]

    assert "priority high" in lines
    assert "metadata a=b" in lines
    assert any(line.startswith("paused 20") for line in lines)


def test_a_partial_result_is_downloaded_and_said_to_be_partial(dream, client, service, job, elsewhere):
    attempt = service.claim(job.id)
    client.jobs.cancel(job.id)
    service.stop_with_a_partial_result(job.id, attempt, step=40, steps=200)

    result = dream("download", job.id)

    assert result.code == 0
    assert "partial result" in result.out
    assert f"dream retry {job.id} --from latest" in result.out
    assert dream("download", job.id, "-o", "there", "--json").json["partial"] is True
    shown = " ".join(dream("show", job.id).out.split())
    assert "partial, what was made until the stop: step 40 of 200" in shown
    assert "kept until 20" in shown
    assert "partial" in dream("ls", "-n", 1).out
