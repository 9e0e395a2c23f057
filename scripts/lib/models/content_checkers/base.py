"""What a content checker is: it looks at a pair's picture, or at its texts, for what is not to be
passed on.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from lib.data.rows import ContentFinding
from lib.models.content_checkers.settings import ContentCheckerSettings

if TYPE_CHECKING:
    from PIL.Image import Image

#: The picture's place in findings.
IMAGE = "image"


@dataclass(frozen=True)
class Content:
    """What a pair would publish: the picture (RGB), and the texts by their places ("prompt",
    "instruction", "responses/<policy>").
    """

    image: "Image"
    texts: Mapping[str, str]


class ContentChecker(Protocol):
    """A loaded checker. VERSION is raised where the same contents would give other findings."""

    VERSION: ClassVar[int]
    Settings: ClassVar[type[ContentCheckerSettings]]

    @classmethod
    def load(cls, settings: ContentCheckerSettings, device: str) -> "ContentChecker":
        """Loads it onto a torch device. Errors: UserError, or a ValueError that says what about the
        files is not usable.
        """
        ...

    def find(self, content: Content) -> list[ContentFinding]:
        """What it finds, with scores of at least its settings' `min_score`."""
        ...
