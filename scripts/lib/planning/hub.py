"""What a run needs in the hub cache and what its models and endpoints may be used for, by the rates
and by profiles/slurm/licences.yaml.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

from lib.config.licences import Licences
from lib.head.downloads import Download
from lib.planning.rates import Rates


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
