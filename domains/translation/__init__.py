"""Translation: recurrent sequence to sequence with attention."""

from domains.translation.data import TranslationData
from domains.translation.model import DecodingConfig, TranslationModule
from suite.domain import Domain, Task

DOMAIN = Domain(
    name="translation",
    tasks={"translation": Task(module=TranslationModule, data=TranslationData, decoding=DecodingConfig)},
    default="translation",
    benchmark="domains.translation.benchmark",
)
