import pytest

from worker import joblog
from worker.joblog import JobLog


@pytest.fixture
def source(tmp_path):
    return tmp_path / "runner.log"


@pytest.fixture
def job_log(source, settings):
    return JobLog(source, "job_0", settings)


@pytest.fixture
def kept(settings):
    return lambda: (settings.job_logs / "job_0.log").read_bytes().decode()


def test_lines_are_taken_as_they_are_ended_and_the_rest_at_last(job_log, source, kept):
    job_log.pump()
    source.write_bytes(b"one\ntwo")
    job_log.pump()
    job_log.pump()
    assert kept() == "one\n"

    with source.open("ab") as file:
        file.write(b" and a half\r\n\xff\nthree")
    job_log.pump()
    assert kept() == "one\ntwo and a half\n�\n"

    job_log.pump(whole=True)
    job_log.pump(whole=True)
    assert kept() == "one\ntwo and a half\n�\nthree"


def test_a_bar_that_is_drawn_over_itself_becomes_lines(job_log, source, kept):
    source.write_bytes(b"10 %\r20 %\r30 %\n")
    job_log.pump()

    assert kept() == "10 %\n20 %\n30 %\n"


def test_what_never_ends_a_line_is_taken_all_the_same(job_log, source, kept):
    source.write_bytes(b"x" * (joblog.BATCH_BYTES + 10))
    job_log.pump()

    assert len(kept()) == joblog.BATCH_BYTES


def test_it_does_not_grow_beyond_its_limit_and_says_so_once(job_log, source, kept, settings):
    settings.job_logs.mkdir(parents=True)
    (settings.job_logs / "job_0.log").write_bytes(b"." * (joblog.LIMIT - 4))
    source.write_bytes(b"one\ntwo\n")
    job_log.pump()
    source.write_bytes(b"one\ntwo\nthree\n" * 1000)
    job_log.pump()
    JobLog(source, "job_0", settings).begin(2, "a worker")

    assert kept()[joblog.LIMIT - 4 :] == "one\n\n" + joblog.DROPPED.decode()
