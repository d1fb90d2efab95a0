"""What the presets come to: the same bytes from every run, and the numbers that are kept, across versions."""

import json

import numpy as np
import pytest
from golden import generate

pytestmark = pytest.mark.usefixtures("optax_promotion")

# Relative. 1, 2 and 4 threads and two devices in place of one differed by 4e-7 at the most: sums in another
# order, over five steps. A learning rate 3e-4 larger comes to 2e-3.
TOLERANCE = 2e-5


def test_two_runs_give_equal_bytes_and_the_numbers_are_what_they_were(params):
    runs = {name: generate.run(params, name) for name in generate.RUNS}
    for name, steps in runs.items():
        again = generate.run(params, name)[-1]
        np.testing.assert_array_equal(again.image, steps[-1].image, name)
        assert again.losses == steps[-1].losses
    kept, found = json.loads(generate.FILE.read_text()), generate.measure(params, runs)
    assert found.keys() == kept.keys()
    for group, numbers in kept.items():
        assert found[group] == pytest.approx(numbers, rel=TOLERANCE), group
