"""Frame indices against plain definitions, for any number of frames and any clock."""

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domains.video.sampling import SamplingConfig, clip_length, duration_of, test_clips, train_clip
from suite.errors import UsageError

test_clips.__test__ = False  # type: ignore[attr-defined]
even_clips = test_clips

CLOCKS = st.lists(st.floats(0.001, 0.5), min_size=1, max_size=80).map(
    lambda steps: numpy.concatenate([[0.0], numpy.cumsum(steps)])
)
CONFIGS = st.builds(
    SamplingConfig,
    kind=st.sampled_from(["uniform", "dense", "all"]),
    unit=st.sampled_from(["frame", "time"]),
    num_frames=st.integers(1, 20),
    stride=st.integers(1, 5),
    fps=st.floats(0.5, 60),
    test_clips=st.just(1),
)


@settings(max_examples=150, deadline=None)
@given(times=CLOCKS, config=CONFIGS, seed=st.integers(0, 1000))
def test_indices_are_frames_in_order_and_as_many_as_said(
    times: numpy.ndarray, config: SamplingConfig, seed: int
) -> None:
    length = clip_length(len(times), duration_of(times), config)
    for chosen in (train_clip(times, config, seed=seed), *even_clips(times, config)):
        assert len(chosen) == length >= 1
        assert chosen.min() >= 0
        assert chosen.max() < len(times)
        assert (numpy.diff(chosen) >= 0).all()
        if config.unit == "frame":
            assert (numpy.diff(chosen) > 0).all(), "no frame stands twice in a clip that counts frames"
    numpy.testing.assert_array_equal(train_clip(times, config, seed=seed), train_clip(times, config, seed=seed))


def clock(count: int, rate: float) -> numpy.ndarray:
    return numpy.arange(count) / rate


def test_uniform_takes_the_middle_of_each_part() -> None:
    [chosen] = even_clips(clock(40, 25), SamplingConfig(kind="uniform", num_frames=4))
    assert chosen.tolist() == [5, 15, 25, 35]
    seen = [train_clip(clock(40, 25), SamplingConfig(num_frames=4), seed=seed) for seed in range(300)]
    parts = numpy.stack(seen) // 10
    assert (parts == [0, 1, 2, 3]).all()
    assert len({int(each[0]) for each in seen}) == 10, "every place in a part is drawn"


def test_dense_takes_neighbours_from_anywhere() -> None:
    config = SamplingConfig(kind="dense", num_frames=4, stride=3)
    starts = {int(train_clip(clock(20, 25), config, seed=seed)[0]) for seed in range(300)}
    assert starts == set(range(11))
    [chosen] = even_clips(clock(20, 25), config)
    assert chosen.tolist() == [5, 8, 11, 14]
    [short] = even_clips(clock(5, 25), config)
    assert short.tolist() == [1, 4], "a short video gives a shorter clip"


def test_several_clips_are_spread_evenly() -> None:
    config = SamplingConfig(kind="dense", num_frames=4, test_clips=3)
    assert [each.tolist()[0] for each in even_clips(clock(34, 25), config)] == [5, 15, 25]
    uniform = SamplingConfig(kind="uniform", num_frames=2, test_clips=2)
    assert [each.tolist() for each in even_clips(clock(8, 25), uniform)] == [[1, 5], [3, 7]]


@pytest.mark.parametrize("kind", ["uniform", "dense", "all"])
def test_by_time_any_rate_shows_the_same_moments(kind: str) -> None:
    config = SamplingConfig(kind=kind, unit="time", num_frames=6, fps=5)  # type: ignore[arg-type]
    moments = []
    for rate in (10, 24, 29.97, 60):
        times = clock(round(4 * rate), rate)
        moments.append(times[even_clips(times, config)[0]])
    for each in moments[1:]:
        assert len(each) == len(moments[0])
        assert abs(each - moments[0]).max() <= 0.1 + 1e-6, "no further apart than the longest frame stands"


def test_by_time_takes_what_is_on_the_screen() -> None:
    times = numpy.array([0.0, 0.1, 0.2, 1.0, 1.1])
    [chosen] = even_clips(times, SamplingConfig(kind="all", unit="time", fps=5))
    assert chosen.tolist() == [0, 2, 2, 2, 2, 3]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (SamplingConfig(num_frames=0), "num_frames is 0"),
        (SamplingConfig(fps=0), "fps is 0"),
        (SamplingConfig(kind="all", test_clips=2), "test_clips needs"),
    ],
)
def test_settings_that_mean_nothing_are_refused(config: SamplingConfig, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        config.check()


@pytest.mark.parametrize(("rate", "fps"), [(24, 24), (30, 15), (60, 30), (25, 25), (50, 10)])
def test_a_clock_of_milliseconds_moves_alike(rate: int, fps: int) -> None:
    """Matroska and WebM round the time of each frame to a millisecond."""
    [chosen] = even_clips(clock(120, rate).round(3), SamplingConfig(kind="all", unit="time", fps=fps))
    assert chosen.tolist() == list(range(0, 120, rate // fps))
    near = numpy.array([0.0, 1e-4, 2e-4, 3e-4])  # frames nearer to each other than a tick
    [chosen] = even_clips(near, SamplingConfig(kind="all", unit="time", fps=1e4))
    assert chosen.tolist() == [0, 1, 2, 3]
