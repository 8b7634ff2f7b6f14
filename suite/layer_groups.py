"""Layer groups in fine-tuning: what is trained when, and at which rate, as a pure function of step and epoch.

Parameter groups of the optimiser are the same from the first step to the last. While a group is frozen its gradients
are absent, so its optimiser makes no update of it at all: no weight decay, no momentum, no state.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from suite.effects import Declared, one_of
from suite.errors import UsageError


@dataclass(frozen=True)
class FinetuneConfig:
    """How training goes on from another model's weights.

    Args:
        assets: Vocabularies and labels: made from the new data, or the source's as they are (same task alone).
        unfreeze: Train all layer groups at once, or one more, from the top, every so many epochs or steps (gradual
            unfreezing, Howard and Ruder 2018).
        unfreeze_every: How many epochs or steps.
        start_groups: Layer groups trained from the start, counted from the top, with unfreeze epochs or steps.
        groups: Layer groups trained at all, counted from the top; those below stay as they are. All if not given.
        lr_factor: A group's highest learning rate as a share of that of the group above (discriminative learning
            rates; Howard and Ruder 2018 take 1/2.6).
        batch_norm: Running statistics of batch normalisation are fixed while their group is frozen (group), or all
            along in every group but the topmost (fixed).
        allow_missing: Weights that the source need not have, by name, with * for any part; they begin anew.
        allow_unexpected: Weights of the source that the model need not have; they are left out.
        allow_resized: Weights that may have another shape in the source; they begin anew.
    """

    only_with: ClassVar[Declared] = dict.fromkeys(
        ("unfreeze_every", "start_groups"), one_of("unfreeze", "epochs", "steps")
    )

    assets: Literal["data", "source"] = "data"
    unfreeze: Literal["at_once", "epochs", "steps"] = "at_once"
    unfreeze_every: int = 1
    start_groups: int = 1
    groups: int | None = None
    lr_factor: float = 1.0
    batch_norm: Literal["group", "fixed"] = "group"
    allow_missing: list[str] | str = field(default_factory=list)
    allow_unexpected: list[str] | str = field(default_factory=list)
    allow_resized: list[str] | str = field(default_factory=list)

    def check(self) -> None:
        """Refuse values that mean nothing, and those that the chosen policy would ignore.

        Raises:
            UsageError: naming the setting.
        """
        for key in ("unfreeze_every", "start_groups", "groups"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise UsageError(f"finetune.{key} is {value}, allowed is 1 or more")
            if self.unfreeze == "at_once" and key != "groups" and value != 1:
                raise UsageError(f"finetune.{key} is {value}: it is for finetune.unfreeze epochs or steps, not at_once")
        if not 0 < self.lr_factor <= 1:
            raise UsageError(f"finetune.lr_factor is {self.lr_factor}, allowed is more than 0, and 1 at most")
        if self.groups is not None and self.start_groups > self.groups:
            raise UsageError(f"finetune.start_groups is {self.start_groups}, but finetune.groups only {self.groups}")


class LayerGroup(NamedTuple):
    """Parameters and modules that are frozen and trained together."""

    name: str
    parameters: list[nn.Parameter]
    modules: list[nn.Module]


def resolve_groups(module: nn.Module, named: Sequence[tuple[str, Sequence[nn.Module]]]) -> list[LayerGroup]:
    """Give each parameter and each module of ``module`` to one of the ``named`` groups, from the input upwards.

    A part belongs with the nearest module around it that a group names, and with the topmost group if there is none.
    What is shared belongs to the topmost of its groups. Groups without parameters are left out.
    """
    top = len(named) - 1
    assert top >= 0, "layer_groups names no group"
    assert len({name for name, _ in named}) == len(named), "layer_groups names a group twice"
    owners = {id(part): index for index, (_, parts) in enumerate(named) for part in parts}
    known = {id(part) for part in module.modules()}
    assert owners.keys() <= known, "layer_groups names a module that is not part of the model"
    parameters: dict[int, tuple[int, nn.Parameter]] = {}
    modules: dict[int, tuple[int, nn.Module]] = {}

    def walk(part: nn.Module, around: int) -> None:
        index = owners.get(id(part), around)
        modules[id(part)] = (max(index, modules.get(id(part), (0, part))[0]), part)
        for parameter in part.parameters(recurse=False):
            kept = parameters.get(id(parameter), (0, parameter))[0]
            parameters[id(parameter)] = (max(index, kept), parameter)
        for child in part.children():
            walk(child, index)

    walk(module, top)
    found = [
        LayerGroup(
            name,
            [parameter for owner, parameter in parameters.values() if owner == index],
            [part for owner, part in modules.values() if owner == index],
        )
        for index, (name, _) in enumerate(named)
    ]
    return [group for group in found if group.parameters]


class Tuning:
    """The layer groups of a model under a policy.

    Args:
        module: the model.
        named: its groups from the input upwards (``SuiteModule.layer_groups``).
        config: the policy.

    Raises:
        UsageError: the policy speaks of more groups than there are.
    """

    def __init__(
        self, module: nn.Module, named: Sequence[tuple[str, Sequence[nn.Module]]], *, config: FinetuneConfig
    ) -> None:
        config.check()
        self.config = config
        self.groups = resolve_groups(module, named)
        names = ", ".join(group.name for group in self.groups)
        for key in ("groups", "start_groups"):
            if (getattr(config, key) or 1) > len(self.groups):
                raise UsageError(
                    f"finetune.{key} is {getattr(config, key)}: the model has {len(self.groups)} layer group(s), "
                    f"from the input upwards: {names}"
                )
        self.limit = config.groups or len(self.groups)
        self.count = self.trained(step=0, epoch=0)
        self._still: list[nn.Module] = []
        # What the model's own settings keep as it is (a frozen CNN, its statistics) is no business of a policy.
        self._fixed_names = {name for name, each in module.named_parameters() if not each.requires_grad}
        self._fixed = _named(module, self._fixed_names)
        self._resting = {id(part) for part in module.modules() if module.training and not part.training}

    def follow(self, module: nn.Module, named: Sequence[tuple[str, Sequence[nn.Module]]]) -> None:
        """Take up the parameters of ``module`` that took the place of others: sharing weights out replaces them all."""
        self.groups = resolve_groups(module, named)
        self._fixed = _named(module, self._fixed_names)

    def trained(self, *, step: int, epoch: int) -> int:
        """How many groups, counted from the top, are trained at an optimiser step (from 0) of an epoch (from 0)."""
        if self.config.unfreeze == "at_once":
            return self.limit
        position = epoch if self.config.unfreeze == "epochs" else step
        return min(self.limit, self.config.start_groups + position // self.config.unfreeze_every)

    @property
    def frozen(self) -> list[LayerGroup]:
        """The groups that are not trained now."""
        return self.groups[: len(self.groups) - self.count]

    def layers(self) -> list[tuple[list[nn.Parameter], float]]:
        """Parameters and the share of the learning rate of each group that is ever trained, the topmost first."""
        chosen = self.groups[::-1][: self.limit]
        return [(group.parameters, self.config.lr_factor**depth) for depth, group in enumerate(chosen)]

    def freeze_for_good(self) -> None:
        """Take gradients from groups that are never trained: no strategy then waits for them."""
        for group in self.groups[: len(self.groups) - self.limit]:
            for parameter in group.parameters:
                parameter.requires_grad = False

    def train(self, count: int, *, skip_gradients: bool) -> None:
        """Train the topmost ``count`` groups from now on.

        With ``skip_gradients`` no gradients of the others are computed; without, ``drop_gradients`` takes them away.
        (A model that was wrapped for several processes waits for the gradient of each parameter that had one then.)
        """
        self.count = count
        if skip_gradients:
            for number, group in enumerate(reversed(self.groups)):
                for parameter in group.parameters:
                    parameter.requires_grad = number < count and id(parameter) not in self._fixed
        for group in self.groups[len(self.groups) - count :]:
            for part in group.modules:
                part.training = id(part) not in self._resting
        self._still = [part for group in self.frozen for part in group.modules if not _runs_recurrent_kernel(part)]
        if self.config.batch_norm == "fixed":
            self._still += [part for group in self.groups[:-1] for part in group.modules if isinstance(part, _NormBase)]

    def keep_modes(self) -> None:
        """Keep frozen groups as in evaluation: no dropout, and running statistics that stay as they are."""
        for part in self._still:
            if part.training:
                part.training = False

    def drop_gradients(self) -> None:
        """Take away the gradients of frozen groups, so that no optimiser touches their parameters."""
        for group in self.frozen:
            for parameter in group.parameters:
                parameter.grad = None


def _named(module: nn.Module, names: set[str]) -> set[int]:
    return {id(parameter) for name, parameter in module.named_parameters() if name in names}


def _runs_recurrent_kernel(part: nn.Module) -> bool:
    """Whether a module calls a fused recurrent kernel, which in evaluation mode refuses a backward pass through it.

    The mode makes no other difference to these: dropout stands outside.
    """
    return isinstance(part, nn.RNNBase) or any(isinstance(child, nn.RNNBase) for child in part.children())
