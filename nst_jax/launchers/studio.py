"""Open the studio: a page, on this machine, on which people make pictures.

It prints its address, which has a token in it, and keeps pictures and jobs in a folder. Jobs go on without
the page; after an interruption or a kill the same command goes on with them.

Example: nst-studio --folder=~/nst-studio --open
"""

import importlib.util

from nst_jax.errors import InputError
from nst_jax.launchers.console import fail, tell
from nst_jax.launchers.flags import ParsedFlags, Program, launch
from nst_jax.launchers.signals import interrupts
from nst_jax.studio.options import StudioOptions
from nst_programs import ENDINGS


def main(given: ParsedFlags) -> int:
    """Run `nst-studio` with the options given. Raises InputError before anything is written."""
    options = StudioOptions(**given)
    for name in ("starlette", "uvicorn"):
        if importlib.util.find_spec(name) is None:
            raise InputError(
                "nst-studio", f"needs {name}: pip install 'nst-jax[studio]'", "it is not installed"
            )
    from nst_jax.studio.server import serve

    with interrupts() as interrupted:
        waiting = serve(options, tell, interrupted)
        stopped = interrupted()
    left = f"{waiting} jobs wait; the same command goes on with them" if waiting else "no job waits"
    return fail(stopped, f"{ENDINGS[stopped - 128]}: {left}")


PROGRAM = Program("nst-studio", __doc__, (StudioOptions,), main)


def console() -> None:
    """Run the program `nst-studio` on the command line."""
    launch(PROGRAM)
