"""``python -m quadgate inspect FILE ...``: the networks of files, for a person to read."""

from __future__ import annotations

import sys

from . import networks


def main(files: list[str]) -> int:
    """Print the networks of each file; return the exit status, 1 if a file cannot be read."""
    status = 0
    for file in files:
        try:
            found = networks(file, unknown="skip")
        except (ValueError, OSError, ImportError) as error:
            text = (error.strerror if isinstance(error, OSError) else None) or str(error)
            print(text if file in text else f"{file}: {text}", file=sys.stderr)
            status = 1
            continue
        print(f"{file}: {len(found)} recurrent network{'s' * (len(found) != 1)}")
        for network in found:
            print("  " + str(network).replace("\n", "\n  "))
    return status
