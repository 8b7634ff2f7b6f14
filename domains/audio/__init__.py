"""Audio: WaveNet on waveforms."""

from domains.audio.data import AudioData
from domains.audio.model import WaveformModule
from suite.domain import Domain, Task

DOMAIN = Domain(
    name="audio",
    tasks={"waveform": Task(module=WaveformModule, data=AudioData)},
    default="waveform",
    benchmark="domains.audio.benchmark",
)
