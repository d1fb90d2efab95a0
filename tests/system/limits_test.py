"""What a process may still take of the host's memory, by files of the kernel's as they are written."""

import subprocess
import sys

import pytest

from nst_jax.system.limits import host_memory

MIB = 2**20
OTHERS = (
    "40 23 0:40 / /m rw,relatime - tmpfs  rw\n41 23 0:41 / /n rw - proc proc rw\n\n"  # one without a name
)
V2 = OTHERS + "30 23 0:26 {root} {mount} rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "37 25 0:33 {root} {mount} rw,nosuid shared:15 - cgroup cgroup rw,memory\n"
NO_LIMIT = str(2**63 - 4096)


@pytest.fixture
def kernel(tmp_path):
    """Return what writes a /proc: of 8 GiB available, a group and its mount; and the mount."""
    (tmp_path / "self").mkdir()
    (tmp_path / "meminfo").write_text("MemTotal:       16777216 kB\nMemAvailable:    8388608 kB\n")
    mount = tmp_path / "fs"
    mount.mkdir()

    def write(group, mounts):
        (tmp_path / "self/cgroup").write_text(group)
        (tmp_path / "self/mountinfo").write_text(mounts)

    return tmp_path, mount, write


def limit(folder, files, limit, used, idle=0):
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in zip(files, (limit, used), strict=True):
        (folder / name).write_text(f"{value}\n")
    (folder / "memory.stat").write_text(f"anon 1\ninactive_file {idle}\ntotal_inactive_file {idle}\n")


TWO = ("memory.max", "memory.current")
ONE = ("memory.limit_in_bytes", "memory.usage_in_bytes")


def test_without_groups_it_is_what_the_host_has(kernel):
    assert host_memory(kernel[0]) == 8 * 1024 * MIB


@pytest.mark.parametrize(
    ("name", "line", "files", "none"), [("", V2, TWO, "max"), ("cpu,memory", V1, ONE, NO_LIMIT)]
)
def test_the_least_of_all_groups_up_to_the_root_counts(kernel, name, line, files, none):
    proc, mount, write = kernel
    write(f"3:pids:/elsewhere\n4:{name}:/slice/job\n", line.format(root="/", mount=mount))
    limit(mount / "slice/job", files, none, 10 * MIB)
    assert host_memory(proc) == 8 * 1024 * MIB
    limit(mount / "slice", files, 1400 * MIB, 600 * MIB, idle=150 * MIB)
    assert host_memory(proc) == 950 * MIB  # cached files can be given up
    limit(mount / "slice/job", files, 700 * MIB, 300 * MIB)
    assert host_memory(proc) == 400 * MIB
    limit(mount, files, 350 * MIB, 300 * MIB)
    assert host_memory(proc) == 50 * MIB
    limit(mount, files, 350 * MIB, 360 * MIB)
    assert host_memory(proc) == 0


@pytest.mark.parametrize(
    ("root", "own"), [("/docker/abc", "/docker/abc"), ("/docker/abc", "/"), ("/", "/gone")]
)
def test_in_a_container_the_mount_is_its_own_group(kernel, root, own):
    proc, mount, write = kernel
    write(f"0::{own}\n", V2.format(root=root, mount=mount))
    limit(mount, TWO, 1400 * MIB, 400 * MIB)
    assert host_memory(proc) == 1000 * MIB


def test_a_system_without_these_files_does_not_say(tmp_path):
    assert host_memory(tmp_path) is None


def test_the_address_space_counts():
    """In a process of its own, which has a limit above what it takes."""
    code = "from nst_jax.system.limits import host_memory; print(host_memory())"
    command = ["sh", "-c", f"ulimit -v {4 * 2**20}; exec {sys.executable} -c '{code}'"]
    done = subprocess.run(command, capture_output=True, check=True)
    assert 0 < int(done.stdout) < 4 * 2**30
