"""What is told of a run while it lasts, on a terminal and elsewhere."""

import io
import logging
import re
import time

import numpy as np
import pytest
from absl import logging as absl_logging
from rich.console import Console

from nst_jax.config import Config
from nst_jax.launchers import progress_bar
from nst_jax.launchers.progress_bar import Display, Seldom, shares
from nst_jax.runs.transfer import Progress

WEIGHTS = {"content": 1.0, "style": 1e8, "tv": 1e-3, "matting": 1e2}
LOSSES = {"total": 6.1e7, "content": 2e7, "style": 0.39, "tv": 1.7e9, "matting": 3e3, "weights": WEIGHTS}
CONFIG = Config(size=512, scales="auto", iterations=(1400,))


@pytest.fixture(autouse=True)
def loud():
    before = absl_logging.get_verbosity()
    absl_logging.set_verbosity(absl_logging.INFO)
    yield
    absl_logging.set_verbosity(before)


def progress(step):
    picture = np.zeros((341, 512, 3), np.float32)
    return Progress(step, 3 * step, picture, LOSSES, True, scale=5, scales=5)


def test_terms_are_shares_of_the_total_as_they_are_weighted():
    assert shares(LOSSES) == "total 6.1e+07: content 33%, style 64%, tv 3%, matting 0%"
    assert shares(LOSSES | {"total": 0.0}).startswith("total 0: content -, style -")
    assert shares(LOSSES | {"total": float("nan")}).startswith("total nan: content -, style -")


@pytest.mark.parametrize("width", [80, 60])
def test_nothing_is_cut_off_on_a_terminal(monkeypatch, width):
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=width, height=30)
    monkeypatch.setattr(progress_bar, "Console", lambda stderr: console)
    with Display(CONFIG.pyramid()) as shown:
        for step in (0, 1300):
            shown.show(progress(step))
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.getvalue())
    last = plain[plain.rindex("1300/") :].split()
    said = "evaluations/s s left scale 5/5 512 px total 6.1e+07: content 33%, style 64%, tv 3%, matting 0%"
    assert [word for word in last if word in said.split()] == said.split()
    assert written.getvalue().rindex("\x1b[?25h") > written.getvalue().rindex("\x1b[?25l")  # the cursor


def test_lines_come_seldom_and_the_first_and_the_last_do(caplog, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress_bar.time, "monotonic", lambda: now[0])
    with caplog.at_level(logging.INFO), Display(CONFIG.pyramid()) as shown:
        for step in range(0, 1401, 100):
            shown.show(progress(step))
            now[0] += 1
    told = [re.search(r"step (\d+)/", record.getMessage())[1] for record in caplog.records]
    assert told == ["0", "500", "1000", "1400"]


def test_a_line_is_due_again_after_a_while(monkeypatch):
    due = Seldom()
    assert [due(last=False), due(last=False), due(last=True)] == [True, False, True]
    monkeypatch.setattr(progress_bar, "LINE_SECONDS", 0.01)
    time.sleep(0.02)
    assert due(last=False)
