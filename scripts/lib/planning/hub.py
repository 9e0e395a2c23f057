"""What a run needs in the hub cache and what its models and endpoints may be used for, by the rates
and by profiles/slurm/licences.yaml.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, ValidationError

from lib.blocks import Block
from lib.config.yaml_files import explain, read_yaml
from lib.files import PROJECT
from lib.head.downloads import Download
from lib.planning.rates import Rates

LICENCES = PROJECT / "profiles/slurm/licences.yaml"


class Terms(Block):
    """Terms of use, and what they apply to."""

    name: str = Field(min_length=1, description="What they are called.")
    address: str = Field(pattern=r"^https://", description="Where they stand.")
    in_short: str = Field(min_length=1, description="What matters most for a run's data.")
    hub: list[str] = Field(default_factory=list, description="Hub repositories.")
    endpoints: list[str] = Field(default_factory=list, description="Host names.")


class Licences(Block):
    """profiles/slurm/licences.yaml."""

    terms: list[Terms]

    def of(self, what: str) -> str:
        """The name of the terms of a hub repository (data sets as `datasets/owner/name`) or of an
        endpoint's host; empty if none are known.
        """
        return next((each.name for each in self.terms if what in (*each.hub, *each.endpoints)), "")


def read_licences(path: Path = LICENCES) -> Licences:
    """Reads the file of licences. Errors: UserError with file and line."""
    values = read_yaml(path)
    try:
        return Licences.model_validate(values)
    except ValidationError as error:
        raise explain(error, Licences, values, [path], "docs/licences.md") from error


def name_of(download: Download) -> str:
    """A repository's name as the rates and the licences have it."""
    return ("datasets/" if download.kind == "dataset" else "") + download.repository


def say_hub(wanted: Sequence[Download], rates: Rates, file: object) -> list[str]:
    """How much is needed in the hub cache, and how much of it is to be downloaded."""
    if not wanted:
        return []
    names = {name_of(download): download.is_there for download in wanted}
    sizes = {name: rates.hub[name].gigabytes for name in names if name in rates.hub}
    kinds = sorted({rates.hub[name].kind for name in sizes})
    missing = sum(size for name, size in sizes.items() if not names[name])
    line = (
        f"Hub cache: {len(names)} repositories, {sum(sizes.values()):,.1f} GB"
        f" ({', '.join(kinds) or 'no size known'}), {missing:,.1f} GB of it to be downloaded: `make"
        " fetch`."
    )
    unknown = [name for name in names if name not in sizes]
    if unknown:
        line += f" Not counted, for want of a size under `hub` in {file}: {', '.join(unknown)}."
    return [line]


def say_licences(
    wanted: Iterable[Download], base_urls: Iterable[str], licences: Licences
) -> list[str]:
    """The terms of all that a run uses, and what they are about."""
    names = [name_of(download) for download in wanted]
    hosts = [urlsplit(url).hostname or url for url in base_urls]
    used: dict[str, list[str]] = defaultdict(list)
    for name in dict.fromkeys([*names, *hosts]):
        used[licences.of(name)].append(name)
    if not used:
        return []
    lines = [
        "Terms of use (docs/licences.md; no legal advice):",
        *(
            f"  {terms.name}: {', '.join(used[terms.name])}. {terms.in_short}"
            for terms in licences.terms
            if terms.name in used
        ),
    ]
    if unknown := used.get(""):
        lines.append(f"  not looked up: {', '.join(unknown)}.")
    return lines
