"""The text-to-image prompts that come with the workflow: `prompts/<topic>.txt`, and the random
run's selection from them.

Near-duplicates are looked for over all pairs of all topics, by two measures on the case-folded
words (punctuation left out):

- Jaccard similarity of the sets of word 3-shingles: finds copied phrases. Highest pair when the
  lists were written: 0.088; allowed below 0.15.
- Cosine of TF-IDF weighted character 5-grams, blanks included: finds the same scene said in a
  slightly different order or inflection. Highest pair when the lists were written: 0.207; allowed
  below 0.30.

A prompt with two of its words exchanged scores far above both limits, which the last tests show
with planted copies.
"""

import math
import re
import unicodedata
from collections import Counter, defaultdict
from pathlib import Path

import pytest
import yaml

from lib.data.prompts import tell_unread_files

ROOT = Path(__file__).resolve().parents[1]
PROMPTS = ROOT / "prompts"
RANDOM_PROMPTS = ROOT / "demo" / "random_prompts"

TOPICS = [
    "art",
    "culinary",
    "daily_activities",
    "holidays",
    "industrial_scenes",
    "nature",
    "school",
    "transportation",
    "urban_environments",
    "weather",
]
RANDOM_TOPICS = ["art", "nature", "school"]

JACCARD_LIMIT = 0.15
COSINE_LIMIT = 0.30

# Words with a second sense ("one", "half", "rose", "lime") are left out.
COUNTS = {
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
    "thirty",
    "forty",
    "fifty",
    "sixty",
    "seventy",
    "eighty",
    "ninety",
    "hundred",
    "hundreds",
    "thousand",
    "thousands",
    "dozen",
    "dozens",
    "pair",
    "twins",
    "single",
    "third",
    "fourth",
    "fifth",
    "sixth",
    "seventh",
    "eighth",
    "ninth",
    "tenth",
}
COLOURS = {
    "red",
    "orange",
    "yellow",
    "green",
    "blue",
    "purple",
    "violet",
    "pink",
    "brown",
    "black",
    "white",
    "grey",
    "gold",
    "golden",
    "silver",
    "copper",
    "crimson",
    "scarlet",
    "maroon",
    "turquoise",
    "teal",
    "indigo",
    "cobalt",
    "lilac",
    "magenta",
    "emerald",
    "ochre",
}


def prompts_of(path):
    return path.read_text(encoding="utf-8").split("\n")[:-1]


def all_prompts():
    return [(topic, text) for topic in TOPICS for text in prompts_of(PROMPTS / f"{topic}.txt")]


def words(text):
    return re.findall(r"[^\W_]+", text.casefold())


def normalised(text):
    return " ".join(text.casefold().split())


def names_count_or_colour(text):
    return any(word in COUNTS or word in COLOURS or word.isdigit() for word in words(text))


def faults_of_form(text):
    """What is wrong with a prompt as a line of text; nothing for a good one."""
    faults = []
    if unicodedata.normalize("NFC", text) != text:
        faults.append("not NFC")
    if any(unicodedata.category(character)[0] == "C" for character in text):
        faults.append("control or format character")
    if text != text.strip() or not text:
        faults.append("blank at an end, or empty")
    if text != " ".join(text.split()):
        faults.append("white space other than single blanks")
    return faults


def shingles(text):
    found = words(text)
    return {tuple(found[i : i + 3]) for i in range(len(found) - 2)}


def pairs_by_jaccard(texts):
    """(similarity, i, j) of every pair that shares a word 3-shingle."""
    sets = [shingles(text) for text in texts]
    holders: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
    shared: Counter[tuple[int, int]] = Counter()
    for j, members in enumerate(sets):
        for shingle in members:
            shared.update((i, j) for i in holders[shingle])
            holders[shingle].append(j)
    return [(n / (len(sets[i]) + len(sets[j]) - n), i, j) for (i, j), n in shared.items()]


def pairs_by_cosine(texts):
    """(similarity, i, j) of every pair that shares a character 5-gram; TF-IDF with smoothed inverse
    document frequency.
    """
    padded = [f" {' '.join(words(text))} " for text in texts]
    counts = [Counter(text[k : k + 5] for k in range(len(text) - 4)) for text in padded]
    documents = Counter(gram for count in counts for gram in count)
    holders: defaultdict[str, list[tuple[int, float]]] = defaultdict(list)
    dots: defaultdict[tuple[int, int], float] = defaultdict(float)
    for j, count in enumerate(counts):
        weights = {
            gram: n * (math.log((1 + len(texts)) / (1 + documents[gram])) + 1)
            for gram, n in count.items()
        }
        length = math.sqrt(sum(weight * weight for weight in weights.values()))
        for gram, weight in weights.items():
            weight /= length
            for i, other in holders[gram]:
                dots[i, j] += weight * other
            holders[gram].append((j, weight))
    return [(similarity, i, j) for (i, j), similarity in dots.items()]


def near_duplicates(texts):
    """Lines that tell of each pair at or above a limit, the most alike first."""
    found = [("Jaccard", *pair) for pair in pairs_by_jaccard(texts) if pair[0] >= JACCARD_LIMIT]
    found += [("cosine", *pair) for pair in pairs_by_cosine(texts) if pair[0] >= COSINE_LIMIT]
    found.sort(key=lambda pair: -pair[1])
    return [f"{measure} {value:.3f}: {texts[i]!r} / {texts[j]!r}" for measure, value, i, j in found]


def test_the_ten_topics_of_the_paper_and_no_others_have_prompts():
    assert sorted(path.name for path in PROMPTS.iterdir()) == [f"{topic}.txt" for topic in TOPICS]


@pytest.mark.parametrize("topic", TOPICS)
def test_a_topic_has_at_least_60_prompts(topic):
    assert len(prompts_of(PROMPTS / f"{topic}.txt")) >= 60


@pytest.mark.parametrize(
    "name",
    [f"prompts/{topic}.txt" for topic in TOPICS]
    + [f"demo/random_prompts/{topic}.txt" for topic in RANDOM_TOPICS],
)
def test_a_file_is_utf8_with_one_prompt_a_line_and_a_newline_at_its_end(name):
    text = (ROOT / name).read_bytes().decode("utf-8")
    assert not text.startswith("\ufeff")
    assert "\r" not in text
    assert text.endswith("\n")
    assert all(text[:-1].split("\n")), "a blank line"


def test_every_prompt_has_15_to_40_words():
    assert [
        (topic, text) for topic, text in all_prompts() if not 15 <= len(text.split()) <= 40
    ] == []


def test_every_prompt_is_nfc_without_control_characters_or_stray_blanks():
    assert [
        (topic, text, faults_of_form(text)) for topic, text in all_prompts() if faults_of_form(text)
    ] == []


def test_no_prompt_occurs_twice_over_all_topics():
    times = Counter(normalised(text) for _, text in all_prompts())
    assert [text for text, n in times.items() if n > 1] == []


def test_no_two_prompts_are_nearly_the_same():
    assert near_duplicates([text for _, text in all_prompts()]) == []


@pytest.mark.parametrize("topic", TOPICS)
def test_at_least_80_percent_of_a_topics_prompts_name_a_count_or_a_colour(topic):
    texts = prompts_of(PROMPTS / f"{topic}.txt")
    assert sum(map(names_count_or_colour, texts)) >= 0.8 * len(texts)


def test_the_random_run_has_four_prompts_for_each_of_its_topics():
    assert {path.stem: len(prompts_of(path)) for path in RANDOM_PROMPTS.iterdir()} == dict.fromkeys(
        RANDOM_TOPICS, 4
    )


@pytest.mark.parametrize("topic", RANDOM_TOPICS)
def test_the_random_runs_prompts_stand_word_for_word_in_the_full_list(topic):
    chosen = prompts_of(RANDOM_PROMPTS / f"{topic}.txt")
    assert len(set(chosen)) == len(chosen)
    assert set(chosen) <= set(prompts_of(PROMPTS / f"{topic}.txt"))


# The checks above can fail: each is shown a fault.


@pytest.mark.parametrize(
    "text",
    ["cafe\u0301 at noon", "a\u200bcat", "a\tcat", "a cat ", " a cat", "a  cat", "a\u00a0cat", ""],
    ids=["NFD", "zero-width", "tab", "trailing", "leading", "double", "no-break", "empty"],
)
def test_a_malformed_prompt_is_caught(text):
    assert faults_of_form(text)


def test_a_prompt_without_count_or_colour_is_told_from_one_with():
    assert not names_count_or_colour("A man who reddened hired someone older than the one he knew.")
    assert names_count_or_colour("A dog with a Red-and-tan collar.")
    assert names_count_or_colour("A clock at 12.")


def test_a_lightly_edited_copy_of_a_prompt_is_caught():
    originals = [text for _, text in all_prompts()]
    for original in originals[::31]:
        parts = original.split()
        parts[4], parts[-3] = "strange", "other"
        assert near_duplicates([*originals[1:11], original]) == []
        assert len(near_duplicates([*originals[1:11], original, " ".join(parts)])) == 2, original


def test_a_copy_with_its_clauses_exchanged_is_caught():
    here = (
        "Seven flamingos stand in a shallow lake at dawn, and the eighth lands among them with pink"
        " wings open."
    )
    there = (
        "At dawn the eighth flamingo lands with open pink wings among the seven standing in a"
        " shallow lake."
    )
    assert any(
        line.startswith("cosine")
        for line in near_duplicates([*[text for _, text in all_prompts()][:60], here, there])
    )


def test_files_of_prompts_that_no_topic_names_are_told_and_nothing_else_in_the_folder(tmp_path):
    for name in ("art.txt", "x.txt", "Y.TXT", ".hidden.txt", "notes.md", "e\x1b[31m.txt"):
        (tmp_path / name).touch()
    (tmp_path / "folder.txt").mkdir()
    [told] = tell_unread_files(tmp_path, ["art"])
    assert "3 files are of no topic that `topics` names" in told
    assert r"'Y.TXT', 'e\x1b[31m.txt', 'x.txt'." in told
    assert "'x.txt'" not in tell_unread_files(tmp_path, ["art", "x"])[0]


def test_without_a_file_that_no_topic_names_nothing_is_told():
    for configfile in ("config.yaml", "demo/config.yaml", "demo/random.yaml"):
        values = yaml.safe_load((ROOT / configfile).read_text(encoding="utf-8"))
        assert tell_unread_files(ROOT / values["prompts"], values["topics"]) == []
