import psutil
import pytest

from jobs.files import Room, atomic_write, room_at, sync


@pytest.mark.parametrize("content", ["a näme", b"\x00\xff", ""])
def test_a_file_is_written_over_the_old_one_and_nothing_is_left_beside_it(tmp_path, content):
    path = tmp_path / "a file"
    path.write_text("old")

    atomic_write(path, content)

    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "a file"
    path.mkdir()

    with pytest.raises(OSError, match="directory"):
        atomic_write(path, "new")

    assert list(tmp_path.iterdir()) == [path]


def test_files_and_directories_can_be_synced(tmp_path):
    (tmp_path / "a file").write_text("content")

    sync(tmp_path / "a file")
    sync(tmp_path)

    with pytest.raises(FileNotFoundError):
        sync(tmp_path / "absent")


def test_a_disk_is_as_full_as_df_says(tmp_path):
    assert room_at(tmp_path).full == pytest.approx(psutil.disk_usage(str(tmp_path)).percent / 100, abs=0.01)
    assert Room(free=0, total=0).full == 0
