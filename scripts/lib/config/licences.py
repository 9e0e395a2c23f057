"""Under what terms models, data sets and endpoints are offered: profiles/slurm/licences.yaml."""

from functools import cache
from pathlib import Path

from pydantic import ValidationError

from lib.blocks import Block
from lib.config.yaml_files import explain, read_yaml
from lib.files import PROJECT
from lib.report.licence import Terms

LICENCES = PROJECT / "profiles/slurm/licences.yaml"


class Licences(Block):
    """profiles/slurm/licences.yaml."""

    terms: list[Terms]

    def terms_of(self, what: str) -> Terms | None:
        """The terms of a hub repository (data sets as `datasets/owner/name`) or of an endpoint's
        host, where they are known.
        """
        return next((each for each in self.terms if what in (*each.hub, *each.endpoints)), None)

    def of(self, what: str) -> str:
        """The name of the terms; empty if none are known."""
        terms = self.terms_of(what)
        return terms.name if terms else ""


@cache
def read_licences(path: Path = LICENCES) -> Licences:
    """Reads the file of licences. Errors: UserError with file and line."""
    values = read_yaml(path)
    try:
        return Licences.model_validate(values)
    except ValidationError as error:
        raise explain(error, Licences, values, [path], "docs/licences.md") from error
