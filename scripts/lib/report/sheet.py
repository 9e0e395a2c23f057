"""A figure to write on as on a sheet of paper: places are in inches from its upper left corner."""

from typing import TYPE_CHECKING, Any, Literal

from lib.report.figures import FAINT, PIXELS_AN_INCH

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

MARGIN = 0.15  # inches, left and right


class Sheet:
    """A figure and its size in inches."""

    def __init__(self, figure: "Figure") -> None:
        self.figure = figure
        self.width, self.height = figure.get_figwidth(), figure.get_figheight()

    def text(self, x: float, y: float, words: str, **style: Any) -> None:
        """Words whose upper left corner (or what `va` and `ha` say) is there."""
        self.figure.text(
            x / self.width, 1 - y / self.height, words, va=style.pop("va", "top"), **style
        )

    def line(self, x: float, y: float, length: float, **style: Any) -> None:
        """A level line."""
        from matplotlib.lines import Line2D

        ends = [x / self.width, (x + length) / self.width], [1 - y / self.height] * 2
        self.figure.add_artist(Line2D(*ends, transform=self.figure.transFigure, **style))

    def picture(
        self,
        image: "Image",
        box: tuple[float, float, float, float],
        *,
        aspect: Literal["equal", "auto"] = "equal",
        frame: str = FAINT,
        frame_width: float = 0.8,
    ) -> None:
        """A picture in a box of (x, y, width, height); `auto` fills it. Small ones keep their hard
        pixels.
        """
        x, y, width, height = box
        axes = self.figure.add_axes(
            (
                x / self.width,
                1 - (y + height) / self.height,
                width / self.width,
                height / self.height,
            )
        )
        is_small = max(image.size) < round(max(width, height) * PIXELS_AN_INCH)
        axes.imshow(image, interpolation="nearest" if is_small else "antialiased", aspect=aspect)
        axes.set(xticks=[], yticks=[])
        axes.grid(visible=False)
        for spine in axes.spines.values():
            spine.set(visible=True, color=frame, linewidth=frame_width)
