"""Waves as a person looks at them: over time, and by frequency."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from torch import Tensor

from suite.fonts import cover


def waves_figure(names: Sequence[str], waves: Sequence[Tensor], *, rate: int) -> Figure:
    """Each wave ``(T,)`` and its spectrogram side by side, a row each."""
    figure = Figure(figsize=(9.0, 1.1 * len(waves) + 0.6), layout="constrained")
    axes = figure.subplots(len(waves), 2, squeeze=False)
    for row, (name, wave) in enumerate(zip(names, waves, strict=True)):
        values = wave.float().cpu().numpy()
        seconds = len(values) / rate
        left, right = axes[row]
        left.plot([place / rate for place in range(len(values))], values, linewidth=0.4)
        left.set(ylim=(-1, 1), xlim=(0, seconds), ylabel=name)
        left.yaxis.label.set(rotation=0, ha="right", fontsize=7)
        if len(values) >= 256:
            right.specgram(values + 1e-6, NFFT=256, noverlap=192, Fs=rate, cmap="Greys")
        right.set(xlim=(0, seconds), ylim=(0, rate / 2))
        for axis in (left, right):
            axis.tick_params(labelsize=6)
    return cover(figure)
