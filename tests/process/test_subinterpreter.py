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
interpreter = interpreters.create()
error = interpreters.run_string(interpreter, source)
assert error is None, error
"""


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="the private module that makes subinterpreters is gone")
def test_import_in_a_subinterpreter(run_script):
    run_script(CREATE)
