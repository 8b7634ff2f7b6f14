"""A domain in one folder and one YAML: the next value of a noisy sine. Proves the seam, and is quick to train."""

from suite.domain import Domain, Task
from tests.toy.data import SineData
from tests.toy.model import SineModule

DOMAIN = Domain(name="toy", tasks={"next_value": Task(module=SineModule, data=SineData)}, default="next_value")


def available() -> list[str]:
    """As ``domains.available``."""
    return ["toy"]


def load(name: str) -> Domain:
    """As ``domains.load``."""
    assert name == "toy"
    return DOMAIN
