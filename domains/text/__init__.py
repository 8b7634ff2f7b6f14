"""Text: classification with a recurrent encoder, and language models."""

from domains.text.data import TextData
from domains.text.model import TextModule
from suite.domain import Domain, Task

DOMAIN = Domain(name="text", tasks={"classification": Task(module=TextModule, data=TextData)}, default="classification")
