"""Build the native part into this Python's environment: oneDNN's convolutions for CPUs.

    python native/build.py

Needs Linux on x86-64, a C++17 compiler ($CXX, or c++) and the extra `cpu`. Where one of them is missing there
is nothing to build, which is told in a line, and XLA's convolutions run: the exit status is 0 all the same.
"""

import os
import platform
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).with_name("convolution.cc")
NAME = "libnst_jax_onednn.so"  # nst_jax/networks/convolutions.py looks for it beside oneDNN's library


def main() -> int:
    """Build it where that can be; return 1 where the compiler refuses the source."""
    if why := missing():
        print(f"native part: not built, XLA's convolutions run instead: {why}")
        return 0
    import jax.ffi

    compiler, prefix = _compiler(), Path(sys.prefix)

    whole, unfinished = prefix / "lib" / NAME, prefix / "lib" / f".{NAME}.{os.getpid()}"
    command = [
        *compiler,
        *("-O3", "-std=c++17", "-shared", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra"),
        *("-isystem", jax.ffi.include_dir(), "-isystem", str(prefix / "include")),
        *(str(SOURCE), "-o", str(unfinished)),
        *(f"-L{prefix / 'lib'}", "-ldnnl", "-Wl,-rpath,$ORIGIN"),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        unfinished.unlink(missing_ok=True)
        print(f"native part: not built: {shlex.join(command)}\n{done.stderr}", file=sys.stderr)
        return 1
    unfinished.replace(whole)  # what a program has loaded stays as it is
    return 0


def missing() -> str:
    """Return what stands in the way of building it here, or nothing."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return "it is for Linux on x86-64"
    if shutil.which(_compiler()[0]) is None:
        return f"there is no C++ compiler ({_compiler()[0]})"
    if not Path(sys.prefix, "include", "dnnl.hpp").exists():
        return "oneDNN is not installed (pip install 'nst-jax[cpu]')"
    return ""


def _compiler() -> list[str]:
    return shlex.split(os.environ.get("CXX", "c++"))


if __name__ == "__main__":
    sys.exit(main())
