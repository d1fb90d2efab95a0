"""What a process may still take of the host's memory: of what is free, of its control groups, of its own."""

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

PROC = Path("/proc")
USED = {"cgroup2": "memory.current", "cgroup": "memory.usage_in_bytes"}
LIMIT = {"cgroup2": "memory.max", "cgroup": "memory.limit_in_bytes"}
IDLE = {"cgroup2": "inactive_file", "cgroup": "total_inactive_file"}  # cached files: given up when asked for


def host_memory(proc: Path = PROC) -> int | None:
    """Return the bytes this process may still take, the least that anything allows; None: not known here."""
    found = [*_available(proc), *_of_groups(proc), *_of_address_space(proc)]
    return max(0, min(found)) if found else None


def _available(proc: Path) -> Iterator[int]:
    for line in _lines(proc / "meminfo"):
        if line.startswith("MemAvailable"):
            yield int(line.split()[1]) * 1024


def _of_groups(proc: Path) -> Iterator[int]:
    """Yield what each control group allows that this process is in, up to the root: those of a container."""
    for kind, folder in _groups(proc):
        with contextlib.suppress(OSError, ValueError):  # no limit is "max", or there is no such file
            limit = int((folder / LIMIT[kind]).read_text())
            used = int((folder / USED[kind]).read_text())
            stat = dict(line.split(maxsplit=1) for line in _lines(folder / "memory.stat"))
            yield limit - used + int(stat.get(IDLE[kind], 0))


def _groups(proc: Path) -> Iterator[tuple[str, Path]]:
    """Yield the folders of the memory's control groups, of versions 1 and 2, from the own one to the root."""
    own: dict[str, str] = {}  # the group's path, by controllers: of version 2 the empty name
    for line in _lines(proc / "self/cgroup"):
        _, controllers, path = line.split(":", 2)
        own |= dict.fromkeys(controllers.split(","), path)
    for line in _lines(proc / "self/mountinfo"):
        before, _, after = line.partition(" - ")
        fields = [*before.split(" ")[3:5], *after.split(" ")]  # what is mounted may have an empty name
        controller = {"cgroup2": "", "cgroup": "memory"}.get(fields[2]) if len(fields) > 4 else None
        if controller not in own or (controller and controller not in fields[4].split(",")):
            continue
        root, mount, kind = fields[:3]
        with contextlib.suppress(ValueError):
            below = PurePosixPath(own[controller]).relative_to(root)
            yield from ((kind, Path(mount, *below.parts[:depth])) for depth in range(len(below.parts), 0, -1))
        yield kind, Path(mount)  # alone where a container does not see where it lies


def _of_address_space(proc: Path) -> Iterator[int]:
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    for line in _lines(proc / "self/status"):
        if line.startswith("VmSize") and limit != resource.RLIM_INFINITY:
            yield limit - int(line.split()[1]) * 1024


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
