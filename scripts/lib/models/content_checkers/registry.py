"""The content checkers that there are."""

from typing import Annotated

from pydantic import SerializeAsAny

from lib.models.content_checkers.base import ContentChecker
from lib.models.content_checkers.settings import ContentCheckerSettings
from lib.registry import Registry, chosen_from

CONTENT_CHECKERS: Registry[ContentChecker] = Registry(
    "content checker",
    {
        "image-classifier": "lib.models.content_checkers.image_classifier:ImageClassifier",
        "presidio": "lib.models.content_checkers.presidio:Presidio",
    },
)
AnyContentChecker = Annotated[SerializeAsAny[ContentCheckerSettings], chosen_from(CONTENT_CHECKERS)]
