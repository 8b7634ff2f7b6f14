"""Video: classes of clips by a CNN on frames and a recurrent encoder over time; classes of pictures."""

from domains.video.data import ClipData
from domains.video.images import ImageData
from domains.video.model import ClipModule, ImageModule
from suite.domain import Domain, Task

DOMAIN = Domain(
    name="video",
    tasks={
        "classification": Task(module=ClipModule, data=ClipData),
        "image_classification": Task(module=ImageModule, data=ImageData),
    },
    default="classification",
    benchmark="domains.video.benchmark",
)
