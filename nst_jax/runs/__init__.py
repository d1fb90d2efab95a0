"""Jobs: a request is prepared, run as a stream of events, and becomes files; no flags, no terminal."""

from nst_jax.config import Config as Config
from nst_jax.runs.checkpointing import CheckpointOptions as CheckpointOptions
from nst_jax.runs.events import Advanced as Advanced
from nst_jax.runs.events import Event as Event
from nst_jax.runs.events import Finished as Finished
from nst_jax.runs.events import Optimized as Optimized
from nst_jax.runs.events import Planned as Planned
from nst_jax.runs.events import Previewed as Previewed
from nst_jax.runs.events import Result as Result
from nst_jax.runs.events import Resumed as Resumed
from nst_jax.runs.events import Saved as Saved
from nst_jax.runs.events import Started as Started
from nst_jax.runs.events import Written as Written
from nst_jax.runs.input_files import InputOptions as InputOptions
from nst_jax.runs.job import Job as Job
from nst_jax.runs.job import prepare as prepare
from nst_jax.runs.request import OutputOptions as OutputOptions
from nst_jax.runs.request import Request as Request
from nst_jax.system.distributed import DeviceOptions as DeviceOptions
