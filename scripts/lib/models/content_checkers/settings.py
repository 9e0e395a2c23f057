"""What the settings of all content checkers have."""

from pydantic import Field

from lib.blocks import Block, Fraction


class ContentCheckerSettings(Block):
    """What the settings of all content checkers have."""

    kind: str = Field(description="Who looks, and at what.")
    min_score: Fraction = Field(0.5, description="What is found with a lower score does not count.")
