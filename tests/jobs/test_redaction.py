import logging
import sys
import sysconfig
import tempfile
from pathlib import Path

import pytest
import structlog

import jobs
from jobs.redaction import redact_secrets, scrub, scrub_all
from jobs.settings import Settings

SETTINGS = Settings(home=Path("/srv/dream home"), data_dir=Path("/mnt/images"))
PACKAGE = Path(jobs.__file__).parents[1]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/srv/dream home/scratch/job_1", "<home>/scratch/job_1"),
        ("sqlite:////srv/dream home/db.sqlite3", "sqlite:///<home>/db.sqlite3"),
        ("put them into '/mnt/images', please", "put them into '<data>', please"),
        ("in /mnt/images.", "in <data>."),
        ('{"path":"/mnt/images/a.png"}', '{"path":"<data>/a.png"}'),
        ("Traceback\\n/mnt/images/a.png", "Traceback\\n<data>/a.png"),
        (f'File "{PACKAGE}/worker/runner.py", line 3', 'File "<dream>/worker/runner.py", line 3'),
        (f"{sysconfig.get_path('stdlib')}/json/decoder.py", "<python>/json/decoder.py"),
        (f"{sys.prefix}/bin/python", "<python>/bin/python"),
        (f"{tempfile.gettempdir()}/dream-cache-x", "<tmp>/dream-cache-x"),
        (f"{Path.home()}/.netrc", "<user>/.netrc"),
        ("/mnt/images2/a.png and /mnt/images-old", "/mnt/images2/a.png and /mnt/images-old"),  # other directories
        ("train/mnt/images/1.png", "train/mnt/images/1.png"),
        ("nothing to hide: 3 / 4", "nothing to hide: 3 / 4"),
    ],
)
def test_the_servers_directories_go_by_name(text, shown):
    assert scrub(text, SETTINGS) == shown


def test_a_link_to_a_directory_and_what_it_leads_to_go_by_one_name(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    settings = Settings(home=tmp_path / "link")

    assert scrub(f"{tmp_path}/link/a and {tmp_path}/disk/a", settings) == "<home>/a and <home>/a"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("key drk_0aB9zZ is wrong", "key drk_… is wrong"),
        ("signed with whsec_c2VjcmV0/+=", "signed with whsec_…"),
        ("redis://:hunter2@broker:6379/0", "redis://:…@broker:6379/0"),
        ("postgresql+psycopg://dream:hunter2@db/dream", "postgresql+psycopg://dream:…@db/dream"),
        ("postgresql://dream:hunter@2@db/dream", "postgresql://dream:…@db/dream"),
        ("Authorization: Bearer hunter2.x", "Authorization: Bearer …"),
        ("{'authorization': 'Basic aHVudGVyMg=='}", "{'authorization': 'Basic …'}"),
        ("sent 'Bearer hunter2hunter2'", "sent 'Bearer …'"),
        ("DREAM_SECRET=hunter2 and password=hunter2&x=1", "DREAM_SECRET=… and password=…&x=1"),
        ("http://127.0.0.1:8000/v1/jobs and a@b.example", "http://127.0.0.1:8000/v1/jobs and a@b.example"),
        ("the bearer of news; drk and whsec", "the bearer of news; drk and whsec"),
    ],
)
def test_secrets_are_left_out(text, shown):
    assert scrub(text, SETTINGS) == shown


def test_every_text_in_a_value_is_scrubbed():
    value = {"a": ["/mnt/images/x", 3, None], "b": {"c": "drk_abc", "d": 0.5}}

    assert scrub_all(value, SETTINGS) == {"a": ["<data>/x", 3, None], "b": {"c": "drk_…", "d": 0.5}}


def test_the_log_shows_paths_but_no_secrets():
    """Of our own events, of those of libraries, and in tracebacks."""
    event = {"event": "job.failed", "path": "/mnt/images", "error": "redis://:hunter2@b", "at": [{"key": "drk_abc"}]}

    shown = redact_secrets(None, "info", event)

    assert shown == {
        "event": "job.failed", "path": "/mnt/images", "error": "redis://:…@b", "at": [{"key": "drk_…"}]
    }  # fmt: skip


def test_what_is_logged_goes_through_it(capsys):
    from jobs.logs import configure_logging

    root, before, level = logging.getLogger(), logging.getLogger().handlers, logging.getLogger().level
    try:
        configure_logging()
        structlog.get_logger().info("key.made", key="drk_abc")
        try:
            raise ValueError("redis://:hunter2@broker is away")
        except ValueError:
            logging.getLogger("a library").exception("Authorization: Bearer hunter2hunter2")
    finally:
        root.handlers = before
        root.setLevel(level)
        structlog.reset_defaults()

    shown = capsys.readouterr().out
    assert "drk_abc" not in shown
    assert "hunter2" not in shown
    assert "broker is away" in shown
