"""In a subinterpreter the import is refused at once, instead of waiting for a lock that the main interpreter has."""

from __future__ import annotations

import sys

import pytest

CREATE = """
try:
    import _xxsubinterpreters as interpreters
except ImportError:
    import _interpreters as interpreters
import importlib.util
import sys
import quadgate
path = quadgate._core.__file__
source = f'''
import importlib.util
spec = importlib.util.spec_from_file_location("quadgate._core", {path!r})
try:
    importlib.util.module_from_spec(spec)
except ImportError as error:
    assert "interpreter" in str(error), error
else:
    raise SystemExit("it was imported")
'''
def create(shared):  # with the GIL and the memory of the main interpreter, as Py_NewInterpreter does it
    if not shared:
        return interpreters.create()
    return interpreters.create(isolated=False) if sys.version_info < (3, 13) else interpreters.create("legacy")

interpreter = create({shared})
error = interpreters.run_string(interpreter, source)
assert error is None, error
interpreters.destroy(interpreter)
import numpy as np
quadgate.LSTM(3, 4, rng=0)(np.zeros((2, 1, 3), np.float32))
"""


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="the private module that makes subinterpreters is gone")
@pytest.mark.parametrize("shared", [False, True])
def test_import_in_a_subinterpreter(shared, run_script):
    """The main interpreter works on afterwards."""
    run_script(CREATE.replace("{shared}", str(shared)))
