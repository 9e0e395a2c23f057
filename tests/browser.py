"""A headless Chromium that looks at a report's page, and notes what a page must never do."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page, Request, sync_playwright

#: Debian's, unless CHROMIUM names another.
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
needs_browser = pytest.mark.skipif(
    not CHROMIUM,
    reason="no chromium is installed here (apt-get install chromium; or CHROMIUM names one)",
)
#: Where pictures of pages are kept; CI names a folder of its output.
SCREENSHOTS = os.environ.get("SCREENSHOTS")


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser. As root it has no sandbox; what it opens here are our own files."""
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


class Watched:
    """A page, and all that it did that it should not have.

    problems  dialogs, errors, what the console says, and requests that leave the report's folder
    """

    def __init__(self, browser: Browser, index: Path, **options: Any) -> None:
        """`options`: of the browser's context."""
        self.index = index.resolve().as_uri()
        self.folder = f"{index.resolve().parent.parent.as_uri()}/"
        self.problems: list[str] = []
        self.context = browser.new_context(accept_downloads=True, **options)
        self.page: Page = self.context.new_page()
        self.page.on("dialog", self._note_dialog)
        self.page.on("console", self._note_console)
        self.page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        self.context.on("request", self._note_request)

    def _note_dialog(self, dialog: Dialog) -> None:
        self.problems.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _note_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(f"console: {message.text}")

    def _note_request(self, request: Request) -> None:
        if not request.url.startswith((self.folder, "blob:")):
            self.problems.append(f"request: {request.url}")

    def open(self, place: str = "") -> Page:
        """Goes to a place of the page, and waits until it is drawn."""
        self.page.goto(f"{self.index}{place}")
        self.page.wait_for_selector("html[data-ready]")
        return self.page

    def go(self, place: str, until: str) -> Page:
        """Follows an address within the page until something is there."""
        self.page.evaluate("place => { location.hash = place }", place)
        self.page.wait_for_selector(until)
        return self.page

    def text(self, selector: str) -> str:
        """The text of the first such element."""
        return self.page.locator(selector).first.text_content() or ""

    def shoot(self, name: str) -> None:
        """Keeps a picture of what is seen, where that is asked for."""
        if SCREENSHOTS:
            self.page.screenshot(path=str(Path(SCREENSHOTS) / f"{name}.png"))

    def close(self) -> None:
        """Ends the page."""
        self.context.close()
