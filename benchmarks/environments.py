"""Virtual environments of the peers, created when they are first needed."""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys
from pathlib import Path

from .peers import PINNED

HOME = Path(__file__).parent / ".environments"


@functools.cache
def python_of(peer: str) -> Path | None:
    """
    Return the interpreter of a peer's environment, and create the environment if necessary.

    Returns:
        None if it cannot be created; the reason is printed to stderr.
    """
    release = f"{sys.version_info.major}.{sys.version_info.minor}"
    words = " ".join(PINNED[peer])
    # The name contains all that the environment depends on: a changed pin makes a new one.
    home = HOME / f"{words.replace('==', '-').replace(' ', '_')}_python-{release}"
    python = home / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    complete = home / "complete"
    if complete.exists() and python.exists():
        return python
    print(f"{peer}: installing {words}", file=sys.stderr, flush=True)
    shutil.rmtree(home, ignore_errors=True)
    try:
        for command in (
            [sys.executable, "-m", "venv", str(home)],
            [str(python), "-m", "pip", "--quiet", "--no-input", "install", *PINNED[peer]],
        ):
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
    except (subprocess.SubprocessError, OSError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        print(f"{peer}: left out, {said[-1] if said else error}", file=sys.stderr, flush=True)
        return None
    complete.touch()
    return python
