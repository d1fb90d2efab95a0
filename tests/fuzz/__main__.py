"""Start the program: `python tests/fuzz`."""

import importlib
import sys
from pathlib import Path

if __name__ == "__main__":
    tests = Path(__file__).parents[1]
    sys.path[:1] = [str(tests), str(tests.parent)]  # in place of this folder: its modules are fuzz.NAME
    sys.exit(importlib.import_module("fuzz.program").main())
