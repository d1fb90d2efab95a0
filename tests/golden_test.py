"""What the presets come to: the same bytes from every run, and the numbers that are kept, across versions."""

import json

import numpy as np
import pytest
from golden import generate

from nst_jax.networks import convolutions

pytestmark = pytest.mark.usefixtures("optax_promotion")

# Relative, at the start and at the end. Float32: 1, 2 and 4 threads and two devices in place of one differed by
# 4e-7 at the most: sums in another order, over five steps. A learning rate 3e-4 larger comes to 2e-3. Bfloat16:
# AMX and AVX512_BF16 differed by 3.2e-4 at the start, which the steps enlarge to 2.7e-2.
TOLERANCES = {"float32": (2e-5, 2e-5), "bfloat16": (1e-3, 5e-2)}
# The steps of tutorial enlarge rounding: after five, processors with AVX-512 and without differ by 6.7e-4, in all
# other groups by 7e-7. So each has its own numbers.


@pytest.mark.parametrize("precision", generate.PRECISIONS)
def test_two_runs_give_equal_bytes_and_the_numbers_are_what_they_were(params, precision, request):
    if precision == "bfloat16" and not request.getfixturevalue("native_part").has_bfloat16():
        pytest.skip("this processor multiplies no bfloat16, of which the numbers are")
    with convolutions.using("auto"):
        runs = {name: generate.run(params, name, precision) for name in generate.RUNS}
        for name, steps in runs.items():
            again = generate.run(params, name, precision)[-1]
            np.testing.assert_array_equal(again.image, steps[-1].image, name)
            assert again.losses == steps[-1].losses
        found = generate.measure(params, runs, precision)
    kept = json.loads(generate.FILE.read_text())[generate.key(precision)]
    assert found.keys() == kept.keys()
    for group, numbers in kept.items():
        tolerance = TOLERANCES[precision][group.endswith(", end")]
        assert found[group] == pytest.approx(numbers, rel=tolerance), group
