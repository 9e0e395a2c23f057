"""How quick the report is with the paper's 9,000 prompts and 36,000 pictures.

    PYTHONPATH=scripts:demo:tests python benchmarks/report_page.py [--prompts N]

It makes up a run, makes its report twice (all thumbnails, none), and looks at it in headless
Chromium: the first view, filters and words.
"""

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from browser import CHROMIUM, Watched, chromium
from report_run import ReportRun

TOPICS = ("art", "culinary", "daily", "holidays", "industry", "nature", "school", "transport")
WORDS = ("a", "the", "of", "red", "blue", "house", "people", "bright", "old", "tree", "many")
SCALES = (5.0, 7.0, 9.0, 11.0)
#: The limits that the page is to hold, in seconds.
FIRST_VIEW, FILTER = 2.0, 0.2
#: Sets an address and waits until another number of prompts is told and drawn.
FOLLOW = """async (place) => {
  const told = () => document.querySelector(".count")?.textContent;
  const before = told();
  const frame = () => new Promise(requestAnimationFrame);
  const started = performance.now();
  location.hash = place;
  while (told() === before) await frame();
  await frame();
  return (performance.now() - started) / 1000;
}"""
FILTERS = {
    "topic": "gallery?topic=nature",
    "outcome": "gallery?outcome=tie",
    "margin, sorted": "gallery?margin-from=1&sort=margin&down=1",
    "words of prompts and answers": "gallery?text=bright old tree",
    "disagreement, sorted by reward": "gallery?disagree=1&sort=score",
}


def text(draw: random.Random, words: int) -> str:
    """Made-up words."""
    return " ".join(draw.choices(WORDS, k=words))


def made_up_run(root: Path, prompts: int) -> ReportRun:
    """A run of so many prompts; one of eight has no pair."""
    draw = random.Random(0)  # noqa: S311 - no secret
    run = ReportRun(root, SCALES)
    for number in range(prompts):
        topic = TOPICS[number % len(TOPICS)]
        answers = [text(draw, 120) for _ in range(3)]
        rest: dict[str, Any] = {"pair": None, "no_pair": "tie"} if number % 8 == 7 else {}
        run.add(f"{text(draw, 12)} {number}", topic, text(draw, 10), answers, **rest)
    return run


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Prints how long something took."""
    started, cpu = time.monotonic(), time.process_time()
    yield
    wall, used = time.monotonic() - started, time.process_time() - cpu
    print(f"{what:48} {wall:8.2f} s  ({used:.2f} s of CPU)", flush=True)


def median(measure: Callable[[], float], times: int = 5) -> float:
    """The median of several measurements."""
    return statistics.median(measure() for _ in range(times))


def first_view(watched: Watched) -> float:
    """Seconds from opening the page to its first cards, with their pictures."""
    started = time.monotonic()
    watched.page.goto("about:blank")
    watched.open("#gallery")
    watched.page.wait_for_function(
        "() => [...document.querySelectorAll('.card img')].slice(0, 6).every((one) => one.complete)"
    )
    return time.monotonic() - started


def follow(watched: Watched, place: str) -> float:
    """Seconds from asking for other filters to seeing what they leave."""
    watched.go("gallery", ".count")
    watched.page.wait_for_timeout(50)
    return float(watched.page.evaluate(FOLLOW, place))


def say(what: str, seconds: float, limit: float) -> bool:
    """Prints a measurement beside its limit; whether it holds."""
    print(f"{what:48} {seconds:8.3f} s  (limit {limit:g} s)", flush=True)
    return seconds <= limit


def look(index: Path) -> bool:
    """Measures the page in the browser; whether all limits hold."""
    with chromium() as browser:
        watched = Watched(browser, index)
        held = [say("first view of the gallery", median(lambda: first_view(watched)), FIRST_VIEW)]
        watched.page.click("#search")
        with timed("reading the words of all answers"):
            watched.page.wait_for_function("() => page.data.answersOf(page.data.prompts[0].id)")
        for name, place in FILTERS.items():
            seconds = median(partial(follow, watched, place))
            held.append(say(f"filter: {name}", seconds, FILTER))
        watched.close()
    return all(held)


def main() -> int:
    """Measures all of it."""
    command = argparse.ArgumentParser(description=__doc__)
    command.add_argument("--prompts", type=int, default=9000, metavar="N")
    command.add_argument("--folder", type=Path, help="where the made-up run is kept")
    chosen = command.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        run = made_up_run((chosen.folder or Path(temporary)) / "run", chosen.prompts)
        with timed("making the report, all thumbnails"):
            index = run.report()
        with timed("making it again, none"):
            run.report()
        sizes = [path.stat().st_size for path in index.parent.rglob("*") if path.is_file()]
        print(f"{len(sizes)} files, {sum(sizes) / 1e6:.0f} MB, largest {max(sizes) / 1e6:.2f} MB")
        print(f"{os.cpu_count()} cores; pictures of 16 pixels, thumbnails are encoded all the same")
        if not CHROMIUM:
            print("No chromium is installed here, so nothing is looked at.")
            return 0
        return 0 if look(index) else 1


if __name__ == "__main__":
    sys.exit(main())
