"""What the studio is started with."""

import dataclasses

from nst_jax import images
from nst_jax.options import check_options, option

MB = 10**6


@dataclasses.dataclass(frozen=True)
class StudioOptions:
    """Where the studio listens, where it keeps its jobs, and its limits."""

    folder: str = option("~/nst-studio", "folder for pictures and jobs; only one studio can use it at a time")
    host: str = option(
        "127.0.0.1", "address to listen at; any other lets other machines in, by token and unencrypted"
    )
    port: int = option(8300, "port to listen at; 0: any that is free", low=0, high=65535)
    open: bool = option(False, "open the page in a browser")
    max_upload: int = option(64, "largest file that can be uploaded, in MB", low=1, high=10_000)
    max_pixels: int = option(images.MAX_PIXELS, "largest picture that is read, in pixels", low=1, high=2**40)
    max_jobs: int = option(200, "most jobs that wait or run", low=1, high=100_000)
    keep_free: int = option(1000, "MB of the disk that uploads and new jobs leave free", low=0, high=10**9)
    checkpoint_every: float = option(20.0, "seconds between checkpoints of a job", low=0, high=10**6)

    def __post_init__(self) -> None:
        check_options(self)
