"""Weights from a source: rows by name, what fits, what was declared, and one clear error for all that was not."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from suite.errors import CheckpointError, UsageError
from suite.layer_groups import FinetuneConfig
from suite.module import SuiteModule
from suite.transfer import RowMap, Transfer, grouped, transfer
from tests import cases
from tests.cases import Case
from tests.toy.model import SineModule


class Tied(SuiteModule):
    """An embedding that is the output layer too."""

    def __init__(self, *, size: int = 5, tie: bool = True) -> None:
        super().__init__({"names": list("abcde")[:size]})
        self.embedding = nn.Embedding(size, 3)
        self.output = nn.Linear(3, size, bias=False)
        if tie:
            self.output.weight = self.embedding.weight


class Headed(SineModule):
    """Declares its own output as one that may begin anew."""

    fresh_keys = ("output.*",)


def state_of(module: SuiteModule) -> dict[str, Tensor]:
    return {key: weight.clone() for key, weight in module.state_dict().items()}


def move(module: SuiteModule, state: dict[str, Tensor], *, hint: str = "", **config: Any) -> Transfer:
    return transfer(module, state, {}, config=FinetuneConfig(**config), hint=hint)


@pytest.mark.parametrize("case", cases.tasks(), ids=str)
def test_the_same_model_is_taken_over_whole(case: Case) -> None:
    source, module = cases.module_of(case, seed=0), cases.module_of(case, seed=1)
    found = transfer(module, state_of(source), source.assets, config=FinetuneConfig())
    assert sorted(found.loaded) == sorted(module.state_dict())
    assert not any([found.missing, found.unexpected, found.resized, found.left_out, found.adapted])
    cases.assert_same(dict(module.state_dict()), dict(source.state_dict()))


def test_rows_go_by_name_and_new_ones_are_the_mean(capsys: pytest.CaptureFixture[str]) -> None:
    rows = RowMap(["<pad>", "a", "b", "c"], ["<pad>", "c", "x", "a", "y"], what="words", specials=1)
    assert capsys.readouterr().err == (
        "words: 3 of 5 taken over by name, 2 new (the mean of the source's); 4 in the source\n"
    )
    weight = torch.tensor([[0.0, 0.0], [1.0, 2.0], [3.0, 4.0], [8.0, 9.0]])
    expected = torch.tensor([[0.0, 0.0], [8.0, 9.0], [4.0, 5.0], [1.0, 2.0], [4.0, 5.0]])
    assert torch.equal(rows(weight), expected)
    assert torch.equal(rows(weight[:, 0]), expected[:, 0])
    assert torch.equal(weight[1], torch.tensor([1.0, 2.0])), "the source is left as it was"


def test_the_same_names_change_nothing_and_say_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    weight = torch.randn(2, 3)
    assert RowMap(["a", "b"], ("a", "b"), what="words")(weight) is weight
    assert not capsys.readouterr().err
    with pytest.raises(CheckpointError, match="words: 3 rows in the source for 2 names"):
        RowMap(["a", "b"], ["b"], what="words")(torch.randn(3, 3))


def test_a_weight_under_two_names_is_one() -> None:
    module = Tied()
    state = state_of(Tied())
    assert not move(module, {"embedding.weight": state["embedding.weight"]}).missing
    assert torch.equal(module.output.weight, state["embedding.weight"])
    assert len(move(module, state).loaded) == 2
    with pytest.raises(UsageError, match=r"embedding.weight and output.weight are one weight here and two in the"):
        move(module, state_of(Tied(tie=False)))


def test_everything_that_does_not_fit_is_in_one_line() -> None:
    state = state_of(SineModule({}, hidden_size=8))
    state["extra.weight"] = state.pop("output.bias")
    state["output.weight"] = torch.zeros(2, 8)
    before = state_of(module := SineModule({}, hidden_size=8))
    with pytest.raises(UsageError) as caught:
        move(module, state, hint="a likely reason")
    assert str(caught.value) == (
        "1 missing (output.bias): declare with --finetune.allow_missing 'PATTERN'; "
        "1 unexpected (extra.weight): declare with --finetune.allow_unexpected 'PATTERN'; "
        "1 resized (output.weight: [2, 8] in the source, [1, 8] here): declare with --finetune.allow_resized "
        "'PATTERN'; a likely reason"
    )
    cases.assert_same(dict(module.state_dict()), before)
    found = move(module, state, allow_missing="output.*", allow_unexpected=["extra.*"], allow_resized="output.weight")
    assert (found.missing, found.unexpected) == (["output.bias"], ["extra.weight"])
    assert found.resized == {"output.weight": [[2, 8], [1, 8]]}
    assert len(found.loaded) == 4
    after = module.state_dict()
    assert torch.equal(after["output.weight"], before["output.weight"]), "what was resized begins anew"
    assert torch.equal(after["encoder.layers.0.rnn.weight_hh_l0"], state["encoder.layers.0.rnn.weight_hh_l0"])


def test_a_module_may_declare_its_own_head() -> None:
    state = state_of(SineModule({}))
    del state["output.bias"]
    state["output.weight"] = torch.zeros(2, 8)
    found = move(Headed({}), state)
    assert (found.missing, list(found.resized)) == (["output.bias"], ["output.weight"])
    state["output.more"] = torch.zeros(1)
    with pytest.raises(UsageError, match="1 unexpected"):
        move(Headed({}), state)


def test_a_declaration_that_was_not_needed_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    move(SineModule({}), state_of(SineModule({})), allow_missing=["haed.*"])
    assert capsys.readouterr().err == "finetune.allow_missing haed.*: no such weight is missing\n"


def test_nothing_in_common_is_an_error_even_if_declared() -> None:
    with pytest.raises(UsageError, match="no weight fits by name and shape"):
        move(SineModule({}), {"other": torch.zeros(1)}, allow_missing="*", allow_unexpected="*")


def test_what_a_module_leaves_out_is_reported() -> None:

    class Leaves(SineModule):
        def adapt_source(self, state_dict: dict[str, Tensor], source_assets: dict[str, Any]) -> dict[str, Tensor]:
            assert source_assets == {"labels": ["a"]}
            state_dict["output.bias"] = state_dict["output.bias"] + 1
            return {key: weight for key, weight in state_dict.items() if key != "head.weight"}

    state = {**state_of(SineModule({})), "head.weight": torch.zeros(1)}
    found = transfer(Leaves({}), state, {"labels": ["a"]}, config=FinetuneConfig())
    assert (found.left_out, found.adapted, found.unexpected) == (["head.weight"], ["output.bias"], [])
    assert found.lines() == [
        "  loaded         6  encoder.layers (4), output.weight, output.bias",
        "  adapted        1  output.bias",
        "  missing        0",
        "  unexpected     0",
        "  left_out       1  head.weight",
        "  resized        0",
    ]


def test_weights_that_are_not_finite_are_refused() -> None:
    state = state_of(SineModule({}))
    state["output.bias"][0] = float("nan")
    with pytest.raises(CheckpointError, match=r"not finite in output.bias"):
        move(SineModule({}), state)


def test_names_are_grouped_with_counts() -> None:
    keys = ["a.b.c", "a.b.d", "a.e", "f", *(f"g{number}.h.i" for number in range(9))]
    assert grouped(keys) == "a.b (2), a.e, f, g0.h, g1.h and 7 more"
