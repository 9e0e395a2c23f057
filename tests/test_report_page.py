"""The report's page in a real browser: what people do there, and what texts must not do."""

import csv
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar
from urllib.parse import quote

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser

from browser import Watched, chromium, needs_browser
from lib.config.report import ReportJob
from lib.data.reviews import ReviewFiles
from lib.files import write_json
from lib.report.page_files import DataFolder
from report_run import JOB, ReportRun, data_of

pytestmark = [pytest.mark.slow, needs_browser]

#: What would do something if it were taken for anything but text.
HOSTILE = [
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)>",
    "<iframe src='https://example.org'></iframe>",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    '" onmouseover="alert(1)',
    "' onfocus='alert(1)' autofocus='",
    '"><script>alert(1)</script>',
    "javascript:alert(1)",
    "[click](javascript:alert(1))",
    "![picture](https://example.org/pixel.png)",
    "<a href='https://example.org'>link</a>",
    "<link rel=stylesheet href=https://example.org/a.css>",
    "<meta http-equiv=refresh content='0;url=https://example.org'>",
    "<base href='https://example.org/'>",
    "<style>@import url(https://example.org/a.css);</style>",
    "<form action=https://example.org><input name=a><button>send</button></form>",
    "<object data='https://example.org/a.swf'></object>",
    "<template><script>alert(1)</script></template>",
    "<math><mtext><img src=x onerror=alert(1)></mtext></math>",
    "<!-- a comment --> <![CDATA[ data ]]> <?php echo 1 ?>",
    "&lt;b&gt; &amp; &#60;script&#62; &nbsp;",
    "{{constructor.constructor('alert(1)')()}} ${alert(1)} `${alert(1)}`",
    "**bold** _italic_ `code` # heading\n- item\n| a | b |",
    "'); alert(1); ('",
    '\\"); alert(1); //',
    "__proto__",
    "constructor",
    "null\u0000byte and \u0007bell and \u001b[31mred",
    "\u202eright to left\u202c and \u2066isolate\u2069 and \u200bzero width",
    "line\u2028separator and\u2029paragraph and \u0085next line",
    "\ufeffbyte order mark, soft\u00adhyphen, \u061cArabic mark",
    "Z\u0351\u036b\u0343\u036a\u0302a\u0350l\u0348g\u0349o\u035b",
    "العربية עברית 中文 👩‍👩‍👧 🇩🇪",
    '=HYPERLINK("https://example.org")',
    "%3Cscript%3Ealert(1)%3C/script%3E #prompt/x?y=z",
    "a" * 100_000,
    "<b>" * 33_000,
]
#: The prompt that is shown, in the page.
JUDGED = "document.querySelector('#judged').textContent"
#: Opens all that is folded.
OPEN = "() => document.querySelectorAll('details').forEach((one) => one.open = true)"
TITLE = "document.querySelector('h1').textContent"
#: What the page shows by its code point.
SHOWN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ud800-\udfff]"
)


def hostile_check(text: str) -> dict[str, Any]:
    """What a check found that says a text wherever it can."""
    finding = {"id": text, "topic": text, "where": text, "detail": text}
    return {text: {"what": text, "found": 1, "findings": [finding]}}


def as_shown(text: str) -> str:
    return SHOWN.sub(lambda found: f"U+{ord(found[0]):04X}", text)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of 30 prompts in two topics, five without a pair."""
    run = ReportRun(tmp_path_factory.mktemp("report") / "run")
    for number in range(25):
        topic = ("art", "nature")[number % 2]
        answers = [f"A red circle, number {number}.", "A blue circle.", "A green square."]
        run.add(f"a picture of {number} circles", topic, answers=answers)
        if number < 5:
            run.disagree(number / 10, spread=number / 2)
    for number in range(5):
        run.add(f"a tie of {number} circles", pair=None, no_pair="tie")
    run.add_table("A table", "A row")
    run.add_models({"Yes": 3, "No": 12}, "a cat")
    return run.report()


@pytest.fixture
def watched(browser: Browser, index: Path) -> Iterator[Watched]:
    page = Watched(browser, index)
    yield page
    page.close()
    assert page.problems == []


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A page with a hostile text in every field of each prompt, and the ids."""
    run = ReportRun(tmp_path_factory.mktemp("hostile") / "run")
    names = []
    for number, text in enumerate(HOSTILE):
        other = HOSTILE[number - 1]
        names.append(run.add(text, instruction=text, answers=[text, other, f"{other} {text}"]))
        for response in run.rows["response_ranking"][-1]["responses"].values():
            response |= {
                "attributes": {text: 1.0},
                "claims": [{"text": text, "yes": 0.5}],
                "detail": text,
                "finish_reason": text,
            }
        if number % 4 == 3:
            run.rows["pairs"][-1]["no_pair"] = text
            del run.rows["pairs"][-1]["pair"]
        if number % 4 == 2:
            told = {key: run.rows["pairs"][-1][key] for key in ("id", "topic", "prompt")}
            run.rows["pairs"][-1] = {**told, "missing": {"rule": "rank_responses", "reason": text}}
    run.add_table(HOSTILE[0], HOSTILE[2])
    run.add_models(dict.fromkeys(HOSTILE, 1), HOSTILE[0])
    write_json(run.root / "quality/pairs.json", {"checks": hostile_check(HOSTILE[2])})
    values = JOB.model_dump() | {"configuration": dict(enumerate(HOSTILE[:-2]))}
    values["configuration"] = {str(key): value for key, value in values["configuration"].items()}
    model = values["models"][0] | {"does": HOSTILE[2], "host": HOSTILE[0]}
    model["origin"] = {"model": HOSTILE[3], "revision": HOSTILE[2], "identity": None}
    model["terms"] = model["terms"] | {"name": HOSTILE[2]}
    return run.report(ReportJob.model_validate(values | {"models": [model]})), names


def test_hostile_texts_in_every_field_are_text_and_do_nothing(
    browser: Browser, hostile: tuple[Path, list[str]]
) -> None:
    index, names = hostile
    assert len(HOSTILE) >= 30
    watched = Watched(browser, index)
    page = watched.open("#overview")
    assert HOSTILE[0] in watched.text("main")
    for kind in ("pictures", "answers"):
        watched.go(f"blind/{kind}", "#question")
        while page.locator("#question .side").count():
            before = watched.text("#judged")
            page.keyboard.press("1")
            page.wait_for_function(f"before => {JUDGED} !== before", arg=before)
    watched.go("quality", "h1:text('Quality')")
    assert HOSTILE[2] in watched.text("main")
    watched.go("models", "h1:text('Training')")
    page.click("summary")
    page.wait_for_selector(".change")
    for text in HOSTILE[:-2]:
        assert as_shown(text) in watched.text("main")
    for number in (1, 2):
        watched.go(f"gallery?page={number}", f"text=Page {number} of 2")
    for text, name in zip(HOSTILE, names, strict=True):
        watched.go(f"prompt/{name}", f"main a:text-is('{name}')")
        shown = as_shown(text)
        assert watched.text("h1") == shown
        assert watched.text(".asked .answer") == shown
        answer = watched.text(".response .answer")
        assert answer.startswith(shown[:3500])
        if len(text) > 4000:
            page.locator(".response .more").first.click()
            assert watched.text(".response .answer") == shown
    watched.close()
    assert watched.problems == []


#: Of what the page is told, what it takes for no text: names by which it finds things, and files.
NAMES = ("id", "run", "file", "picture", "pair", "pictures", "shown", "names", "outcome", "address")


def poisoned(told: Any, text: str) -> Any:
    """What the page is told with this text in place of each that it has, names of groups too."""
    if isinstance(told, str):
        return text
    if isinstance(told, list):
        return [poisoned(each, text) for each in told]
    if not isinstance(told, dict):
        return told
    if groups := told.get("groups"):
        told = {**told, "groups": {f"{text}{name}": counts for name, counts in groups.items()}}
    kept = {name: value for name, value in told.items() if name in (*NAMES, "groups", "turned")}
    return {**{name: poisoned(value, text) for name, value in told.items()}, **kept}


@pytest.mark.parametrize("step", [1, -1])
def test_no_field_of_what_the_page_is_told_can_be_anything_but_text(
    browser: Browser, tmp_path: Path, step: int
) -> None:
    run = ReportRun(tmp_path / "run")
    for number in range(4):
        run.add(f"a picture of {number} circles")
    run.disagree(0.25, spread=1)
    run.add("a tie", pair=None, no_pair="tie")
    review = {"verdict": "accept", "by": {"Ada": "accept", "Bo": "swap"}, "sample": 2}
    run.rows["pairs"][0]["review"] = review
    run.add_table("A table", "A row")
    run.add_own_pairs("theirs-1234", 2)
    run.add_models({"Yes": 1, "No": 3}, "a cat")
    write_json(run.root / "quality/pairs.json", {"checks": hostile_check("found")})
    index = run.report(JOB.model_copy(update={"own_pairs": {"theirs-1234": ["dpo"]}}))
    text = "\n".join([*HOSTILE[:-2], "half \ud83d of a face"][::step])
    data = DataFolder(index.parent)
    for path in data.folder.glob("*.js"):
        data.write(path.stem, poisoned(data_of(index, path.stem), text))
    watched = Watched(browser, index)
    page = watched.open("#overview")
    entries = data_of(index, "prompts-000")
    places = ["overview", "gallery", "quality", "models", "blind/pictures", "blind/answers"]
    for place in (*places, *(f"prompt/{quote(each['id'], safe='')}" for each in entries)):
        watched.go(place, "h1")
        page.evaluate(OPEN)
        if place == "models":
            page.wait_for_selector(".change")
        assert as_shown(text) in watched.text("main"), place
    assert watched.problems == []
    watched.close()


class Server(SimpleHTTPRequestHandler):
    """A web server that says nothing on its own. `asked`: what it was asked for."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        """Answers a request."""
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, *_: Any) -> None:
        """Tells nobody of a request."""


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """A web server of a folder; gives its address."""
    handler = partial(Server, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        Server.asked.clear()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_markup_that_gets_into_the_page_all_the_same_runs_nothing_and_asks_for_nothing(
    browser: Browser, index: Path, tmp_path: Path
) -> None:
    shutil.copytree(index.parent, tmp_path / "run/report")
    copy = tmp_path / "run/report/index.html"
    with serving(tmp_path) as address:
        injected = (
            f"<script>alert(1)</script><script src='{address}/a.js'></script>"
            "<script src='data:text/javascript,alert(1)'></script>"
            f"<img id='there' src='{address}/a.png'><img src='x' onerror='alert(1)'>"
            f"<svg onload='alert(1)'></svg><iframe src='{address}/b'></iframe>"
            f"<style>@import url('{address}/a.css');</style>"
            f"<link rel='stylesheet' href='{address}/c.css'><base href='{address}/'>"
            "<a id='link' href='javascript:alert(1)'>link</a><input autofocus onfocus='alert(1)'>"
        )
        copy.write_text(copy.read_text().replace("<body>", f"<body>{injected}"))
        watched = Watched(browser, copy)
        page = watched.open()
        page.wait_for_selector("#there", state="attached")
        page.click("#link")
        watched.go("gallery", ".card")  # the page itself goes on
        watched.close()
        assert Server.asked == []
        # Without the policy it would be asked.
        policy = re.compile('<meta http-equiv="Content-Security-Policy"[^>]*>')
        copy.write_text(policy.sub("", copy.read_text()))
        unsafe = Watched(browser, copy)
        unsafe.page.goto(unsafe.index)
        unsafe.page.wait_for_selector("#there", state="attached")
        unsafe.close()
        assert "/a.png" in Server.asked
    assert not any("dialog" in each for each in watched.problems)
    assert any("dialog" in each for each in unsafe.problems)
    refused = [each for each in watched.problems if "Content Security Policy" in each]
    assert len(refused) >= 8


def test_the_page_opens_from_an_unpacked_zip_and_from_a_web_server(
    browser: Browser, index: Path, tmp_path: Path
) -> None:
    shutil.make_archive(str(tmp_path / "report"), "zip", index.parent.parent, "report")
    copy = tmp_path / "a folder #1/elsewhere/report/index.html"
    shutil.unpack_archive(tmp_path / "report.zip", copy.parent.parent)
    with serving(copy.parent.parent) as address:
        for place in (copy.as_uri(), f"{address}/report/index.html"):
            watched = Watched(browser, copy)
            watched.index, watched.folder = place, place.removesuffix("report/index.html")
            page = watched.open("#gallery")
            page.wait_for_function(
                "() => [...document.querySelectorAll('.card img')].slice(0, 6)"
                ".every((one) => one.naturalWidth > 0)"
            )
            page.click(".card a >> nth=0")
            page.wait_for_selector("#review")
            watched.close()
            assert watched.problems == []


def test_a_lone_surrogate_is_shown_by_its_code_point(browser: Browser, tmp_path: Path) -> None:
    run = ReportRun(tmp_path / "run")
    name = run.add("a picture")
    index = run.report()
    entries = data_of(index, "prompts-000")
    entries[0]["prompt"] = "half \ud83d of a face \udc00"
    DataFolder(index.parent).write("prompts-000", entries)
    watched = Watched(browser, index)
    watched.open(f"#prompt/{name}")
    assert watched.text("h1") == "half U+D83D of a face U+DC00"
    watched.close()
    assert watched.problems == []


def test_a_long_answer_is_cut_between_characters_until_one_asks_for_the_rest(
    browser: Browser, tmp_path: Path
) -> None:
    run = ReportRun(tmp_path / "run")
    long = "a" + "🟥" * 3000  # a character is two code units, and stands across the cut
    name = run.add("a picture", answers=[long, "b", "c"])
    watched = Watched(browser, run.report())
    page = watched.open(f"#prompt/{name}")
    assert "U+D83D" not in watched.text("main")
    page.locator(".side.chosen .more").click()
    assert watched.text(".side.chosen .answer") == long
    watched.close()


@pytest.mark.parametrize(
    "attempt",
    [
        "document.body.innerHTML = '<img src=x onerror=alert(1)>'",
        "document.body.insertAdjacentHTML('beforeend', '<b>bold</b>')",
        "Object.assign(document.createElement('script'), {src: 'https://example.org/a.js'})",
        "Object.assign(document.createElement('script'), {text: 'alert(1)'})",
        "document.write('<b>bold</b>')",
    ],
)
def test_the_page_s_policy_refuses_what_would_make_markup_or_code_of_text(
    browser: Browser, index: Path, attempt: str
) -> None:
    watched = Watched(browser, index)
    page = watched.open()
    said = page.evaluate(f"() => {{ try {{ {attempt} }} catch (error) {{ return error.name }} }}")
    assert said == "TypeError"
    watched.close()


#: A function that adds an element to the page.
ADD = (
    "const add = (tag, has) =>"
    " document.body.append(Object.assign(document.createElement(tag), has))"
)


@pytest.mark.parametrize(
    "attempt",
    [
        "add('img', {src: 'https://example.org/a.png'})",
        "fetch('https://example.org/a').catch(() => {})",
        "navigator.sendBeacon('https://example.org/a', 'b')",
        "add('iframe', {src: 'https://example.org'})",
        "add('link', {rel: 'stylesheet', href: 'https://example.org/a.css'})",
    ],
)
def test_the_page_s_policy_lets_nothing_out(browser: Browser, index: Path, attempt: str) -> None:
    watched = Watched(browser, index)
    page = watched.open()
    page.evaluate(
        "() => { window.refused = [];"
        " document.addEventListener('securitypolicyviolation', (event) =>"
        " window.refused.push(event.blockedURI)) }"
    )
    page.evaluate(f"() => {{ {ADD}; {attempt} }}")
    page.wait_for_function("() => window.refused.length > 0")
    watched.close()


def test_the_first_page_tells_the_flow_tables_and_models(watched: Watched) -> None:
    watched.open()
    told = watched.text("main")
    for words in (
        "Prompts with candidates (images)",
        "tie: 5",
        "A table",
        "someone/model",
        "seed: 7",
    ):
        assert words in told
    watched.shoot("overview-light")


def test_filters_sorting_and_words_leave_the_prompts_they_name(watched: Watched) -> None:
    page = watched.open("#gallery")
    assert watched.text(".count") == "30 of 30 prompts"
    page.select_option("[name=topic]", "nature")
    page.wait_for_selector("text=12 of 30 prompts")
    page.select_option("[name=outcome]", "tie")
    page.wait_for_selector("text=0 of 30 prompts")
    page.click("text=Clear")
    page.wait_for_selector("text=30 of 30 prompts")
    page.fill("[name=margin-from]", "1.99")
    page.press("[name=margin-from]", "Tab")
    page.wait_for_selector("text=11 of 30 prompts")
    page.select_option("[name=sort]", "margin")
    page.check("[name=down]")
    page.wait_for_selector(".cards li:first-child :text-is('a picture of 0 circles')")
    page.uncheck("[name=down]")
    page.wait_for_selector(".cards li:first-child :text-is('a picture of 10 circles')")
    watched.go("gallery", "text=30 of 30 prompts")
    page.fill("#search", "number 7.")  # in an answer alone
    page.wait_for_selector("text=1 of 30 prompts")
    assert page.evaluate("() => document.activeElement.id") == "search"
    page.fill("#search", "")
    page.wait_for_selector("text=30 of 30 prompts")
    page.fill("[name=sample]", "10")
    page.press("[name=sample]", "Tab")
    page.wait_for_selector("text=10 of 30 prompts")
    watched.go("gallery", "text=30 of 30 prompts")
    page.check("[name=rewards]")
    page.wait_for_selector("text=4 of 30 prompts")
    page.fill("[name=spread-from]", "1.5")
    page.press("[name=spread-from]", "Tab")
    page.wait_for_selector("text=2 of 30 prompts")
    page.select_option("[name=sort]", "against")
    page.click(".card >> nth=1")
    page.wait_for_selector(
        "text=Of the rewards, by weight, 40 % would have it the other way round."
    )
    assert "2 between the rewards" in watched.text("main")


def test_a_link_shows_a_colleague_the_same_and_one_of_another_run_is_explained(
    browser: Browser, index: Path, watched: Watched
) -> None:
    page = watched.open("#gallery?topic=nature&sort=margin&down=1")
    page.click(".card >> nth=2")
    page.wait_for_selector("#review")
    colleague = Watched(browser, index)
    colleague.page.goto(page.url)
    colleague.page.wait_for_selector("#review")
    assert colleague.text("h1") == watched.text("h1")
    assert "3 of 12" in colleague.text(".pager")
    colleague.close()
    watched.go("prompt/art-0000000000", "text=This report has no prompt")


def test_pairs_that_an_experiment_brings_are_shown_as_text_and_not_reviewed(
    browser: Browser, tmp_path: Path
) -> None:
    run = ReportRun(tmp_path / "run")
    run.add("a picture")
    run.add_own_pairs("theirs-1234", 2, text=HOSTILE[0])
    index = run.report(JOB.model_copy(update={"own_pairs": {"theirs-1234": ["dpo"]}}))
    watched = Watched(browser, index)
    page = watched.open("#gallery")
    page.select_option("[name=outcome]", "own pair")
    page.wait_for_selector("text=2 of 3 prompts")
    page.click(".card >> nth=1")
    page.wait_for_selector(".sides mark")
    assert page.locator(".side.rejected mark").all_text_contents() == ["green"]
    told = watched.text("main")
    assert f"What is {HOSTILE[0]} number 1?" in told
    assert "From theirs.json, of which dpo learns." in told
    assert page.locator("#review").count() == 0
    assert "Candidates" not in told
    page.click("button.picture")
    page.wait_for_selector("dialog >> text=The picture itself is in its data set")
    assert watched.problems == []
    assert Axe().run(page).violations_count == 0
    watched.close()


def test_ten_pairs_are_marked_by_keys_alone_and_downloaded(
    watched: Watched, tmp_path: Path
) -> None:
    page = watched.open("#gallery?outcome=pair&sample=25")
    page.locator(".card a").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#review")
    seen = []
    for number in range(10):
        seen.append(watched.text("h1"))
        page.keyboard.press("arsa"[number % 4])
        page.wait_for_selector("#review button[aria-pressed=true]")
        page.keyboard.press("j")
        page.wait_for_function(
            "before => document.querySelector('h1').textContent !== before", arg=seen[-1]
        )
    assert len(set(seen)) == 10
    page.keyboard.press("k")
    page.wait_for_function(
        "title => document.querySelector('h1').textContent === title", arg=seen[-1]
    )
    page.keyboard.press("o")
    page.keyboard.type('=no, "not" a circle')
    page.keyboard.press("Escape")
    page.reload()  # marks outlive the page
    watched.go("overview", "#download")
    page.get_by_label("Reviewer").fill("Ada")
    page.get_by_label("Reviewer").press("Tab")
    with page.expect_download() as download:
        page.click("#download")
    path = tmp_path / "reviews.csv"
    download.value.save_as(path)
    rows = list(csv.DictReader(path.open(encoding="utf-8", newline="")))
    assert len(rows) == 10
    assert Counter(row["verdict"] for row in rows) == {"accept": 5, "reject": 3, "swap": 2}
    assert {row["reviewer"] for row in rows} == {"Ada"}
    assert {row["sample"] for row in rows} == {"25"}
    assert [row["note"] for row in rows if row["note"]] == ['\'=no, "not" a circle']


def test_the_words_that_differ_are_marked_side_by_side(watched: Watched) -> None:
    page = watched.open("#gallery?outcome=pair")
    page.click(".card >> nth=0")
    page.wait_for_selector(".sides mark")
    assert page.locator(".side.rejected mark").all_text_contents() == ["green square."]


def test_quality_and_models_tell_of_scores_trainings_and_what_changed(watched: Watched) -> None:
    page = watched.open("#quality")
    page.wait_for_selector(".chart")
    told = watched.text("main")
    assert "Margins of pairs, by topic" in told
    assert "the correlation of reward and log length" in told
    watched.go("models", "h1:text('Training')")
    told = watched.text("main")
    assert "Of 15 questions, 12 got better and 0 worse" in told
    assert "p = 0.0004883 (McNemar's exact test)" in told  # 2 / 2 ** 12
    page.click("summary")
    page.wait_for_selector(".change")
    assert page.locator(".change").count() == 12


def test_two_answers_are_compared_without_names_in_an_order_that_was_drawn(
    watched: Watched, index: Path, tmp_path: Path
) -> None:
    page = watched.open("#blind/answers")
    page.wait_for_selector("#question .side")
    first_sides = set()
    for number in range(25):
        told = watched.text("main")
        assert not any(name in told for name in (*JOB.policies, "chosen", "rejected"))
        left = watched.text("#question .answer:not(.asked-text)")
        first_sides.add("green" in left)
        page.keyboard.press("0" if number == 0 else "2" if "green" in left else "1")
        page.wait_for_selector(f"text={number + 1} of 25 judged")
    assert first_sides == {True, False}
    page.wait_for_selector("text=All of them are judged")
    with page.expect_download() as download:
        page.click("#download-verdicts")
    path = tmp_path / "reviews/verdicts.csv"
    download.value.save_as(path)
    names = {each["id"] for each in data_of(index, "prompts-000")}
    verdicts = ReviewFiles(path.parent, "test", names).verdicts
    assert Counter(each["verdict"] for each in verdicts) == {"chosen": 24, "tie": 1}


def test_what_was_said_of_other_pictures_is_asked_again_and_is_in_no_file(
    browser: Browser, tmp_path: Path
) -> None:
    run = ReportRun(tmp_path / "run")
    for number in range(6):
        run.add(f"a picture of {number} circles")
    index = run.report()
    watched = Watched(browser, index)
    page = watched.open("#blind/pictures")
    for number in range(1, 4):
        page.keyboard.press("1")
        page.wait_for_selector(f"text={number} of 3 judged")
    entries = data_of(index, "prompts-000")
    next(each for each in entries if each["pictures"])["pictures"] = "others"
    DataFolder(index.parent).write("prompts-000", entries)
    page.reload()
    page.wait_for_selector("text=2 of 3 judged")
    with page.expect_download() as download:
        page.click("#download-verdicts")
    lines = download.value.path().read_text().splitlines()
    assert len(lines) == 3  # the header among them
    watched.close()


def test_a_marked_pair_that_leaves_the_filter_is_followed_by_the_one_behind_it(
    watched: Watched,
) -> None:
    page = watched.open("#gallery?outcome=pair&review=none")
    titles = page.locator(".card-prompt").all_text_contents()
    page.click(".card a >> nth=3")  # three harder ones are left for later
    page.wait_for_selector("#review")
    page.keyboard.press("a")
    page.wait_for_selector("#review button[aria-pressed=true]")
    page.keyboard.press("j")
    page.wait_for_selector(f"h1:text-is('{titles[4]}')")


LOOKS: dict[str, dict[str, Any]] = {
    "light": {},
    "dark": {"color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 800}, "has_touch": True},
}


@pytest.mark.parametrize("look", LOOKS)
def test_the_page_passes_axe_and_fits_its_width(browser: Browser, index: Path, look: str) -> None:
    watched = Watched(browser, index, **LOOKS[look])
    page = watched.open()
    first = data_of(index, "prompts-000")[0]["id"]
    places = {
        "overview": "#download",
        "gallery": ".card",
        f"prompt/{first}": "#review",
        "quality": ".chart",
        "models": ".change",
        "blind/answers": "#question",
    }
    for place, until in places.items():
        watched.go(place, "h1")
        page.evaluate(OPEN)
        page.wait_for_selector(until)
        watched.shoot(f"{place.partition('/')[0]}-{look}")
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        wide = page.evaluate("() => document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, f"{place} is {wide} pixels too wide"
    # No word of what the console says: axe asks for style sheets, which the page's policy refuses.
    watched.close()
