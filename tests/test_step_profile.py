"""Times of a step's parts: each second counted once, by a clock that the test moves itself."""

import pytest

from suite.step_profile import PARTS, StepProfile, part_of


class Clock:
    """Seconds that pass when told so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def play(script: str, *, ignore: str = "Probe") -> StepProfile:
    """``(name`` begins an action, ``)`` ends the last, a number lets seconds pass."""
    clock = Clock()
    profile = StepProfile(ignore=ignore, clock=clock)
    names: list[str] = []
    for word in script.split():
        if word.startswith("("):
            names.append(word[1:])
            profile.start(word[1:])
        elif word == ")":
            profile.stop(names.pop())
        else:
            clock.now += float(word)
    return profile


STEP = """
    ([_TrainingEpochLoop].train_dataloader_next 3 ) 1
    ([Strategy]S.batch_to_device 2 )
    ([Callback]StepSeed.on_train_batch_start 4 )
    (run_training_batch 5
        ([LightningModule]M.optimizer_step 6
            ([Strategy]S.training_step 70 )
            ([LightningModule]M.optimizer_zero_grad 8 )
            ([Strategy]S.backward 90 )
            ([Callback]Probe.on_before_optimizer_step 1000 )
            ([LightningModule]M.configure_gradient_clipping 10 )
        11 )
    12 )
    ([Callback]RunCheckpoints.on_train_batch_end 13 (save_checkpoint 14 ([Callback]X.on_save_checkpoint 15 ) ) )
    16
"""


def test_every_second_is_counted_once() -> None:
    profile = play(f"(run_training_epoch {STEP} ([Callback]X.on_train_epoch_end 500 ) )")
    (step,) = profile.steps
    assert step.parts == {
        "data": 3 + 2,
        "forward": 70,
        "backward": 90,
        "optimiser": 6 + 8 + 10 + 11,
        "tracking": 4 + 13 + 14 + 15,
        "rest": 1 + 5 + 12 + 16,
    }
    assert step.total == sum(step.parts.values()) == 280


def test_a_step_ends_where_the_next_batch_is_asked_for() -> None:
    profile = play(f"(run_training_epoch {STEP} {STEP} {STEP} ([Callback]X.on_train_end 7 ) )")
    assert [step.total for step in profile.steps] == [280] * 3


def test_validation_belongs_to_no_step() -> None:
    profile = play(f"{STEP} ([Callback]X.on_validation_start 50 ) 1000 {STEP} ([Callback]X.on_train_end 7 )")
    assert [step.total for step in profile.steps] == [280] * 2


def test_a_batch_asked_for_in_vain_is_no_step() -> None:
    profile = play("([_TrainingEpochLoop].train_dataloader_next 3 ) ([Callback]X.on_train_epoch_end 1 )")
    assert profile.steps == []


def test_what_comes_before_the_first_batch_is_left_out() -> None:
    assert play(f"([Callback]X.on_fit_start 5 ) 6 {STEP} ([Callback]X.on_train_end )").steps[0].total == 280


def test_actions_that_do_not_close_in_order_are_a_fault_of_ours() -> None:
    profile = StepProfile()
    profile.start("a")
    profile.start("b")
    with pytest.raises(AssertionError):
        profile.stop("a")


@pytest.mark.parametrize(
    ("action", "part"),
    [
        ("[Callback]EarlyStopping{'monitor': 'a.backward', 'mode': 'min'}.on_train_batch_end", "tracking"),
        ("[Strategy]SingleDeviceStrategy.backward", "backward"),
        ("[LightningModule]Backward.on_before_zero_grad", "rest"),
        ("run_training_batch", "rest"),
    ],
)
def test_an_action_belongs_to_one_part(action: str, part: str) -> None:
    assert part_of(action) == part
    assert part in PARTS
