"""Files that are written whole: to a temporary name beside, which then takes the place of the file.

No reader sees a half of one, and a write that fails leaves the file as it was. A file without a change is not written.
"""

from __future__ import annotations

import contextlib
import os
import stat
import uuid
from pathlib import Path


def write_whole(path: str | os.PathLike[str], content: str | bytes) -> bool:
    """Write a file, and its folders; text is UTF-8. Of a link the file is written that it leads to.

    Returns:
        Whether anything was written: a file with the same bytes is left alone.

    Raises:
        OSError: It cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    file = Path(os.path.realpath(path))
    if has(file, data):
        return False
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".egress-{uuid.uuid4().hex}")
    try:
        beside.write_bytes(data)
        with contextlib.suppress(FileNotFoundError):  # a new one has what the umask leaves
            beside.chmod(stat.S_IMODE(file.stat().st_mode))
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)
    return True


def has(file: Path, data: bytes) -> bool:
    """Whether a file has just these bytes."""
    try:
        return file.stat().st_size == len(data) and file.read_bytes() == data
    except FileNotFoundError:
        return False
