"""Text: classification with a recurrent encoder, and language models."""

from domains.text.data import TextData
from domains.text.language_data import LanguageData
from domains.text.language_model import LanguageModule
from domains.text.model import TextModule
from suite.domain import Domain, Task
from suite.sampling import SamplingConfig

DOMAIN = Domain(
    name="text",
    tasks={
        "classification": Task(module=TextModule, data=TextData),
        "language_model": Task(module=LanguageModule, data=LanguageData, decoding=SamplingConfig),
    },
    default="classification",
    benchmark="domains.text.benchmark",
)
