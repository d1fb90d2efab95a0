import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nst_jax import files
from nst_jax.errors import InputError, NotWritten


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_new_file_gets_the_permissions_of_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        files.write_whole(tmp_path / "new", b"data")
    finally:
        os.umask(before)
    assert (tmp_path / "new").read_bytes() == b"data"
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o640
    assert _names(tmp_path) == ["new"]


def test_a_replaced_file_keeps_its_permissions(tmp_path: Path) -> None:
    path = tmp_path / "old"
    path.write_bytes(b"old")
    path.chmod(0o604)
    files.write_whole(path, b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o604


def test_a_symbolic_link_is_followed(tmp_path: Path) -> None:
    link, target = tmp_path / "link", tmp_path / "target"
    link.symlink_to(target)
    files.check_writable(link)
    files.write_whole(link, b"data")
    assert link.is_symlink()
    assert target.read_bytes() == b"data"


@pytest.mark.parametrize("fault", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: BaseException
) -> None:
    def fsync(descriptor: int) -> None:
        raise fault

    path = tmp_path / "old"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", fsync)
    raised = InputError if isinstance(fault, OSError) else KeyboardInterrupt
    with pytest.raises(raised, match=r"old: .*; No space left on device" if raised is InputError else None):
        files.write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert _names(tmp_path) == ["old"]


@pytest.mark.parametrize("fault", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_stream_that_breaks_off_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, fault: BaseException
) -> None:
    def write() -> None:
        with files.atomic_write(path) as file:
            file.write(b"new" * 10**6)
            assert len(_names(tmp_path)) == 2  # beside it, not in memory
            raise fault

    path = tmp_path / "old"
    path.write_bytes(b"old")
    with pytest.raises(InputError if isinstance(fault, OSError) else KeyboardInterrupt):
        write()
    assert path.read_bytes() == b"old"
    assert _names(tmp_path) == ["old"]


def test_a_stream_replaces_the_file_when_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "old"
    path.write_bytes(b"old")
    with files.atomic_write(path) as file:
        file.write(b"n_w")
        file.seek(1)
        file.write(b"e")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert _names(tmp_path) == ["old"]


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EPERM])
@pytest.mark.parametrize("old", [b"old", b"a longer old one"])
def test_what_cannot_be_replaced_is_written_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, old: bytes
) -> None:
    def replace(self: Path, target: Path) -> None:
        raise OSError(number, os.strerror(number))

    path = tmp_path / "old"
    path.write_bytes(old)
    node = path.stat().st_ino
    monkeypatch.setattr(Path, "replace", replace)
    files.check_writable(path)
    files.write_whole(path, b"new one")
    assert (path.read_bytes(), path.stat().st_ino) == (b"new one", node)
    assert _names(tmp_path) == ["old"]
    with pytest.raises(NotWritten, match=os.strerror(number)):
        files.write_whole(tmp_path / "new", b"new")


MOUNTED = """
import sys; from pathlib import Path
from nst_jax import files
path = Path(sys.argv[1])
files.check_writable(path)
files.write_whole(path, b"new")
assert path.read_bytes() == b"new"
"""


def test_a_file_that_is_a_mount_is_written_in_place(tmp_path: Path, mounting: list[str]) -> None:
    path, host = tmp_path / "mounted", tmp_path / "host"
    path.touch()
    host.write_bytes(b"older")
    command = [*mounting, "sh", "-c", 'mount --bind "$2" "$1" && exec "$3" -c "$4" "$1"', "sh"]
    done = subprocess.run([*command, path, host, sys.executable, MOUNTED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert host.read_bytes() == b"new"
    assert _names(tmp_path) == ["host", "mounted"]


def test_check_writable_leaves_no_trace(tmp_path: Path) -> None:
    files.check_writable(tmp_path / "new")
    assert _names(tmp_path) == []


def test_check_writable_refuses_what_write_whole_could_not_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="it is a folder or a device"):
        files.check_writable(tmp_path)
    with pytest.raises(InputError, match="there is no folder .*absent"):
        files.check_writable(tmp_path / "absent" / "new")
    with pytest.raises(InputError, match="there is no folder .*file"):
        files.check_writable(tmp_path / "file" / "new")
    with pytest.raises(InputError, match="File name too long"):
        files.check_writable(tmp_path / ("x" * 300))


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a folder that even root cannot write to")
def test_check_writable_really_tries() -> None:
    with pytest.raises(InputError, match="must be a file that can be written"):
        files.check_writable(Path("/proc/new"))
    with pytest.raises(InputError, match="must be a file that can be written"):
        files.write_whole(Path("/proc/new"), b"")


def test_check_writable_refuses_a_read_only_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "old").write_bytes(b"")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may always write
    with pytest.raises(InputError, match="it is read-only"):
        files.check_writable(tmp_path / "old")
