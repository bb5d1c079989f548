"""Zips as they come: what is read of honest ones, and that no other gets further."""

import io
import os
import re
import subprocess
import sys
import unicodedata
import zipfile

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.fixtures.hostile import NOISE, archive, many_entries
from worker.unpacking import Archive, Limits, Refused

ANY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def opened(tmp_path):
    """A zip of these bytes, with limits of its own."""
    archives = []

    def opened(data, **limits):
        (tmp_path / "it.zip").write_bytes(data)
        archives.append(Archive(tmp_path / "it.zip", Limits(**limits)))
        return archives[-1]

    yield opened
    for archive_ in archives:
        archive_.__exit__(None, None, None)


def refused(function, *args, **kwargs):
    with pytest.raises(Refused) as caught:
        function(*args, **kwargs)
    return caught.value


def test_files_and_folders_are_told_apart_and_litter_is_left_out(opened):
    names = ["b/2", "b/1", "a/", "__MACOSX/b/._1", "b/.DS_Store", "Thumbs.db", "c/d/3"]
    found = opened(archive({name: b"x" * (not name.endswith("/")) for name in names}))
    assert found.files == ["b/1", "b/2", "c/d/3"]
    assert found.folders == {"a", "b", "c", "c/d"}
    assert found.litter == ["Thumbs.db", "__MACOSX/b/._1", "b/.DS_Store"]
    assert found.read("b/2") == b"x"


def test_a_zip_that_was_written_as_a_stream(opened):
    class Pipe(io.BytesIO):
        def seekable(self):
            return False

        def seek(self, *_):
            raise io.UnsupportedOperation

        tell = seek

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("a/1", NOISE)
        with target.open("a/2", "w", force_zip64=True) as file:
            file.write(NOISE)
    found = opened(pipe.getvalue())
    assert found.read("a/1") == found.read("a/2") == NOISE


def test_a_comment_is_no_harm(opened):
    assert opened(archive({"a/1": NOISE}, comment=b"made by a usual program")).read("a/1") == NOISE


def test_accents_are_composed_and_understood_without_a_flag(opened):
    """As macOS writes them: decomposed, and in UTF-8 without saying so."""
    plain = unicodedata.normalize("NFD", "caf\xe9/\u732b")
    data = archive({"q" * len(plain.encode()): NOISE}).replace(b"q" * len(plain.encode()), plain.encode())
    found = opened(data)
    assert found.files == ["caf\xe9/\u732b"]
    assert found.read("caf\xe9/\u732b") == NOISE


def test_old_names_of_dos(opened):
    data = archive({"qqq": NOISE}).replace(b"qqq", b"\x81\x84\x94")
    assert opened(data).files == ["\xfc\xe4\xf6"]


def test_exactly_what_is_allowed_is_read(opened):
    found = opened(archive({"a": bytes(1000), "b": bytes(500)}), file_bytes=1000, total_bytes=1500, entries=2)
    assert (found.read("a"), found.read("b")) == (bytes(1000), bytes(500))


def test_more_than_is_allowed_is_not(opened):
    data = archive({"a": bytes(1000), "b": bytes(500)})
    assert refused(opened, data, file_bytes=999).code == "TOO_LARGE"
    assert refused(opened, data, total_bytes=1499).code == "TOO_LARGE"
    assert refused(opened, data, entries=1).code == "TOO_MANY_FILES"
    assert refused(opened, data, directory_bytes=90).code == "TOO_MANY_FILES"


def test_bytes_are_counted_while_they_are_read(opened):
    """Whatever was allowed when the zip was opened: each file here is fine in itself, all of them are not."""
    found = opened(archive({f"{n}": bytes(1 << 20) for n in range(9)}), ratio=2000)
    found._limits = Limits(total_bytes=5 << 20, ratio=2000)
    for n in range(5):
        found.read(f"{n}")
    assert refused(found.read, "5").code == "TOO_LARGE"


def test_200000_entries_are_read_in_bounded_memory(tmp_path):
    (tmp_path / "it.zip").write_bytes(many_entries(200_000))
    program = (
        "import sys; from pathlib import Path; from worker.unpacking import Archive, Limits\n"
        "print(len(Archive(Path(sys.argv[1]), Limits()).files), Path('/proc/self/status').read_text())"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "it.zip"], capture_output=True, text=True, check=True
    )
    assert run.stdout.startswith("200000 ")
    kilobytes = int(re.search(r"VmHWM:\s+(\d+)", run.stdout)[1])
    assert kilobytes < 400 << 10


HONEST = archive({"train/cat/0.png": NOISE, "train/dog/1.png": b"x" * 300, "test/": b""}, comment=b"hello")


@ANY
@given(st.lists(st.tuples(st.integers(0, len(HONEST) - 1), st.integers(0, 255)), min_size=1, max_size=4))
@example([(HONEST.rindex(b"PK\1\2") + 42, 255)])
def test_a_damaged_zip_is_read_right_or_refused(opened, changes):
    data = bytearray(HONEST)
    for place, value in changes:
        data[place] = value
    try:
        found = opened(bytes(data))
        contents = [found.read(name) for name in found.files]
    except Refused:
        return
    assert all(len(content) <= len(NOISE) for content in contents)


@ANY
@given(st.integers(0, len(HONEST)), st.integers(0, len(HONEST)), st.binary(max_size=40))
def test_a_zip_that_is_cut_and_pasted_is_read_right_or_refused(opened, start, end, between):
    data = HONEST[:start] + between + HONEST[end:]
    try:
        found = opened(data)
        contents = {name: found.read(name) for name in found.files}
    except Refused:
        return
    assert set(contents.values()) <= {NOISE, b"x" * 300}


@ANY
@given(st.text(min_size=1, max_size=30).filter(lambda name: max(name) < "\ud800" and name[0] != "\0"))
@example("a/../../b")
@example("~/.ssh")
@example("\xadb")
def test_names_lead_into_the_zip_or_are_refused(opened, name):
    try:
        files = opened(archive({name: NOISE})).files
    except Refused:
        return
    for file in files:
        joined = os.path.normpath(os.path.join("/root/of/all", file))
        assert joined.startswith("/root/of/all/")
        assert file.isprintable()
