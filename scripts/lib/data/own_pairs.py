"""Pairs that one has already, in any form that is known: which of them can be trained on, each with
its picture.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path

from lib.contents import digest_files
from lib.data.image_files import check_pixels, read_image
from lib.data.pair_forms.archives import archive_files
from lib.data.pair_forms.base import PreferencePair, Where
from lib.data.pair_forms.settings import OwnPairs
from lib.data.pair_forms.sources import PairSource, is_address, open_source
from lib.errors import UserError
from lib.files import digest, expand

#: So many records that are no pairs are named in one message.
NAMED = 5
#: Archives whose members cannot be read one by one.
PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".7z", ".rar")


@dataclass(frozen=True)
class OwnPair:
    """A pair that can be trained on.

    picture     what the data call the picture; nothing where it stands in them without a name
    image       the content of its file
    """

    id: str
    question: str
    chosen: str
    rejected: str
    picture: str
    image: bytes


def open_own_pairs(pairs: OwnPairs, contents: bool = True) -> PairSource:
    """The pairs. `contents`: whether pictures in files and archives are read. Errors: UserError."""
    return open_source(
        pairs.source,
        form=pairs.form,
        images=Path(pairs.images) if pairs.images else None,
        revision=pairs.revision,
        contents=contents,
        files=pairs.files,
    )


def why_unusable(pair: PreferencePair) -> str | None:
    """Why a pair cannot be trained on, though nothing is wrong with its record."""
    if pair.history:
        return "other turns stand before the question"
    if len(pair.images) != 1:
        return "several pictures" if pair.images else "no picture"
    if not pair.chosen.strip() or not pair.rejected.strip():
        return "an empty answer"
    return "chosen and rejected are the same" if pair.chosen == pair.rejected else None


def usable_pairs(source: PairSource, left_out: Counter[str]) -> Iterator[PreferencePair]:
    """The pairs that can be trained on; the others are counted by their reasons.

    Errors: UserError that names the first records that are no pairs, or lack their picture.
    """
    bad = BadRecords()
    known: set[str] = set()
    for pair in source.pairs(bad.add):
        if why := why_unusable(pair):
            left_out[why] += 1
        elif problem := problem_with_picture(pair, source.contents):
            bad.add(pair.where, problem)
        elif (same := _digest_of(pair)) in known and source.contents:
            left_out["the same pair twice"] += 1
        else:
            known.add(same)
            yield pair
    bad.refuse()


def _digest_of(pair: PreferencePair) -> str:
    """What a pair is known by where its picture is read: pictures of several files may be called
    the same.
    """
    name, source = pair.images[0]
    picture = sha256(source).hexdigest() if isinstance(source, bytes) else str(source or name)
    return digest([picture, pair.question, pair.chosen, pair.rejected])


class BadRecords:
    """Records that are no pairs, of which the first are named."""

    def __init__(self) -> None:
        self._told: list[str] = []
        self._count = 0

    def add(self, where: Where, problem: str) -> None:
        """Takes another one."""
        self._count += 1
        if len(self._told) < NAMED:
            self._told.append(f"{where}: {problem}.")

    def refuse(self) -> None:
        """A UserError where there are any."""
        more = self._count - len(self._told)
        if self._told:
            told = [*self._told, *([f"... and {more} more records."] if more else [])]
            raise UserError("\n".join([*told, "Mend them, or take them out."]))


def problem_with_picture(pair: PreferencePair, contents: bool) -> str | None:
    """What is wrong with a pair's picture before it is decoded."""
    picture = pair.images[0]
    if is_address(picture.name):
        return f"its picture is an address on the web ({picture.name}). Download it"
    if isinstance(picture.source, Path) and not picture.source.is_file():
        return f"its picture is not there ({picture.source}){_packed_beside(pair.where.file)}"
    if contents and picture.source is None:
        return f"its picture {picture.name} has no content"
    return None


def _packed_beside(file: Path) -> str:
    """Which archives beside a file may hold its pictures and have to be unpacked first."""
    packed = sorted(path.name for path in file.parent.iterdir() if path.name.endswith(PACKED))
    return f"; if it is in {', '.join(packed)}, unpack that" if packed else ""


def read_picture(pair: PreferencePair, megapixels: float) -> bytes:
    """The content of a pair's picture, which can be decoded to its last pixel. Errors: UserError
    with file and record.
    """
    picture = pair.images[0]
    try:
        source = picture.source
        content = source.read_bytes() if isinstance(source, Path) else source or b""
        check_pixels(BytesIO(content), f"{pair.where}", megapixels)
        read_image(BytesIO(content))
    except UserError:
        raise
    except Exception as error:  # PIL's readers of formats raise what they come upon
        raise UserError(
            f"{pair.where}: its picture {picture.name} cannot be read"
            f" ({type(error).__name__}: {error}). Mend it, or take the record out."
        ) from error
    return content


def read_own_pairs(
    pairs: OwnPairs, megapixels: float, left_out: Counter[str], names: set[str] | None = None
) -> Iterator[OwnPair]:
    """The pairs that can be trained on, one in memory at a time. `names`: the ids of those that are
    left out since a benchmark has them. Errors: UserError.
    """
    for pair in usable_pairs(open_own_pairs(pairs), left_out):
        if pair.id in (names or ()):
            left_out["in a benchmark"] += 1
            continue
        yield OwnPair(
            id=pair.id,
            question=pair.question,
            chosen=pair.chosen,
            rejected=pair.rejected,
            picture=pair.images[0].name,
            image=read_picture(pair, megapixels),
        )


def count_own_pairs(pairs: OwnPairs) -> int:
    """How many pairs can be trained on; no picture is decoded. Errors: UserError where a file holds
    what is no pair, or one without its picture, or nothing to train on.
    """
    left_out = Counter[str]()
    count = sum(1 for _ in usable_pairs(open_own_pairs(pairs, contents=False), left_out))
    if not count:
        raise nothing_to_train_on(pairs, left_out)
    return count


def nothing_to_train_on(pairs: OwnPairs, left_out: Counter[str]) -> UserError:
    """The error where no pair is left."""
    told = ", ".join(f"{reason} {count}" for reason, count in left_out.most_common() if count)
    return UserError(f"{pairs.origin}: no pair can be trained on: {told or 'there is none'}.")


def contents_of(pairs: OwnPairs) -> dict[str, str]:
    """What the files of pairs on this machine and their pictures contain, as digests by path;
    nothing of a data set on the hub, whose revision says it. Errors: UserError.
    """
    if pairs.is_on_hub:
        return {}
    source = open_own_pairs(pairs, contents=False)
    pictures = {
        picture.source
        for pair in source.pairs(lambda _, __: None)
        for picture in pair.images
        if isinstance(picture.source, Path) and picture.source.is_file()
    }
    folders = [file.parent for file in source.files] + ([source.images] if source.images else [])
    archives = [archive for folder in folders for archive in archive_files(folder)]
    files = list(dict.fromkeys([*source.files, *archives]))
    place = Path(expand(pairs.source)).absolute()
    digests = dict(zip(map(str, files), digest_files(files, place), strict=True))
    in_order = sorted(pictures)
    of_pictures = dict(zip(map(str, in_order), digest_files(in_order, place), strict=True))
    return digests | ({"pictures": digest(of_pictures)} if of_pictures else {})
