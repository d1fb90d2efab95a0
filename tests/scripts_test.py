"""The scripts of examples/ run, at a small size, and show what they promise."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

SCRIPTS = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


def run(script, folder):
    command = [sys.executable, "-W", "error", script, "--size=64", "--steps=10", "--output=out.png"]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_makes_its_picture(script, tmp_path):
    said = run(script, tmp_path)
    with Image.open(tmp_path / "out.png") as picture:
        if script.stem != "sweep_style_weights":  # of which it is a plot
            assert picture.size == (64, 43)
    losses = [float(number) for number in re.findall(r"(?:step \d+: |style )loss (\S+)", said)]
    assert len(losses) > 2
    assert losses[-1] < losses[0]  # of the last step; of the largest style weight


def test_there_are_three():
    assert [script.stem for script in SCRIPTS] == ["one_picture", "own_style_loss", "sweep_style_weights"]
