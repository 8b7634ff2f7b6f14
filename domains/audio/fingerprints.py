"""What the recordings of a split hold: the contents of their files, and their conditions."""

import os
from collections.abc import Sequence

from domains.audio.files import FileClip
from domains.audio.recordings import Recording
from suite.file_digests import file_digests
from suite.fingerprints import Fingerprint, digest_texts


def fingerprint_recordings(recordings: Sequence[Recording]) -> Fingerprint:
    """A digest of each recording, whatever its file is called and wherever it lies.

    A note of the embedded sample is told by its name, of which it is a function: the last bits of its samples depend on
    the machine.
    """
    clips = [recording.clip for recording in recordings]
    digests = iter(file_digests([clip.path for clip in clips if isinstance(clip, FileClip)]))
    contents = [next(digests).hex() if isinstance(clip, FileClip) else f"{clip.name} {clip.frames}" for clip in clips]
    rows = digest_texts(
        (content, repr(sorted(recording.conditions.items())))
        for content, recording in zip(contents, recordings, strict=True)
    )
    return Fingerprint(rows, "files", [os.path.basename(clip.name) for clip in clips])
