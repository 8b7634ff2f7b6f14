"""Where the cache is: what can be decoded, rendered or downloaded again, and so may be deleted at any time."""

import os
from pathlib import Path

from suite.errors import SuiteError


def cache_folder(given: str | None = None) -> Path:
    """``given``, or ``$SUITE_CACHE_DIR``, or the user's own cache folder; it need not be there yet.

    Raises:
        SuiteError: it counts from a home folder that this user does not have.
    """
    given = given or os.environ.get("SUITE_CACHE_DIR")
    try:
        if given:
            return Path(given).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sequence-suite"
    except RuntimeError:
        raise SuiteError(f"{given or 'the cache'}: there is no such home folder; set SUITE_CACHE_DIR") from None


def file_state(path: Path) -> list[int]:
    """Numbers that differ if the file at ``path`` was changed or exchanged: size, both change times, and inode.

    The time of modification alone can be set back, and two files of equal size and time can swap their names; the
    system itself keeps the inode change time.

    Raises:
        OSError: the file does not exist or cannot be examined.
    """
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
