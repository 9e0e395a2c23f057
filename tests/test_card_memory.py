"""What images take of a card's memory, computed with the real sizes of Stable Diffusion 3 medium
and without weights (benchmarks/gpu/computed.py): a card of 24 GB suffices.
"""

import pytest

from conftest import REPOSITORY
from lib.models.image_generators.pipelines import WORKING_BYTES

GB = 1e9


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))


def test_a_card_of_24_gb_has_room_for_all_networks_and_for_computing_with_them() -> None:
    from gpu.computed import FREE, peaks_of_drawing, tell

    peaks = peaks_of_drawing(FREE["24 GB"])
    print("\n".join(tell("a card of 24 GB", peaks)))
    weights = sum(peaks.weights.values())
    assert weights == pytest.approx(17.4 * GB, rel=0.01)
    assert min(peaks.during.values()) > weights  # none is ever away
    assert peaks.whole < FREE["24 GB"] < 24 * GB
    # Twice as much decides whether all are there: workspaces do not count here, and an H200 had
    # 2.8 GiB beside the weights.
    assert peaks.whole - weights < WORKING_BYTES / 2


def test_where_memory_is_short_each_network_is_on_the_card_while_it_computes() -> None:
    """Encoding takes most: T5 stays until the second encoder has read the negative prompt, too."""
    from gpu.computed import FREE, peaks_of_drawing, tell

    peaks = peaks_of_drawing(FREE["16 GB"])
    print("\n".join(tell("a card of 16 GB", peaks)))
    of = peaks.weights
    assert peaks.whole < FREE["16 GB"]
    assert peaks.whole == pytest.approx(of["text_encoder_3"] + of["text_encoder_2"], rel=0.02)
    for name in ("transformer", "vae"):
        assert peaks.during[name] - of[name] < WORKING_BYTES / 2
