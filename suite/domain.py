"""What a domain is to the suite: its tasks by name, each a module, a data module and how it decodes."""

from dataclasses import dataclass

from suite.data import SuiteDataModule
from suite.errors import UsageError
from suite.module import SuiteModule


@dataclass(frozen=True)
class Task:
    """One thing that a domain can train.

    Args:
        module: the SuiteModule class; its keyword-only arguments are the flags ``--model.*``.
        data: the SuiteDataModule class; its keyword-only arguments are the flags ``--data.*``.
        decoding: a dataclass of settings that prediction may change, flags of evaluate and predict; ``None`` without.
    """

    module: type[SuiteModule]
    data: type[SuiteDataModule]
    decoding: type | None = None


@dataclass(frozen=True)
class Domain:
    """A folder under ``domains/``: its name, its tasks, and the task that it starts with.

    ``benchmark`` names a module whose ``measure`` gives the domain's own rows of ``scripts/benchmark.py``.
    """

    name: str
    tasks: dict[str, Task]
    default: str
    benchmark: str | None = None

    def task(self, name: str | None) -> Task:
        """The task of that name, the default one for ``None``.

        Raises:
            UsageError: no such task, naming those there are.
        """
        chosen = self.default if name is None else name
        if chosen not in self.tasks:
            raise UsageError(f"--task {chosen}: domain {self.name} has {', '.join(sorted(self.tasks))}")
        return self.tasks[chosen]
