"""What target `publish` puts where, and what has to be made before."""

from lib.config.publish import Publication, PublishJob
from lib.errors import UserError
from lib.head import targets
from lib.head.frozen import folders_of_before
from lib.head.plan import Plan


def publications(plan: Plan) -> list[Publication]:
    """The folders and their repositories, data sets first. Errors: UserError where one is not made
    by this run, or none is named.
    """
    publish = plan.config.publish
    found = [
        *(_data_set(plan, str(size), repository) for size, repository in publish.data_sets.items()),
        *([_all_sizes(publish.all_sizes)] if publish.all_sizes else []),
        *(_model(plan, "adapter", name, to) for name, to in publish.adapters.items()),
        *(_model(plan, "merged", name, to) for name, to in publish.models.items()),
    ]
    _refuse_two_of_one_repository(found)
    _refuse_form_of_before(found, plan)
    return found


def _data_set(plan: Plan, size: str, repository: str) -> Publication:
    if size not in map(str, plan.sizes()):
        why = plan.left_out.get(size, "it is not in `pairs.sizes`")
        raise UserError(f"publish.data_sets: there is no data set of size {size}: {why}.")
    return Publication(folder=f"dataset/{size}", repository=repository, kind="dataset")


def _all_sizes(repository: str) -> Publication:
    return Publication(folder="dataset", repository=repository, kind="dataset")


def _model(plan: Plan, part: str, experiment: str, repository: str) -> Publication:
    key = "adapters" if part == "adapter" else "models"
    if experiment not in plan.experiments():
        known = ", ".join(plan.experiments()) or "none"
        raise UserError(
            f"publish.{key}: this run has no experiment '{experiment}' (it has: {known})."
            " Correct it."
        )
    return Publication(
        folder=f"models/{experiment}/{part}",
        card=f"models/{experiment}/cards/{part}/README.md",
        repository=repository,
        kind="model",
    )


def _refuse_two_of_one_repository(found: list[Publication]) -> None:
    """Data sets and models of one name are two repositories."""
    places = [(each.kind, each.repository) for each in found]
    for place in places:
        if places.count(place) > 1:
            raise UserError(
                f"publish: two things go to the repository {place[1]}, where one would take the"
                " other's files away. Name another one."
            )


def _refuse_form_of_before(found: list[Publication], plan: Plan) -> None:
    """A data set without a card, of which trainers would read the wrong text, is not published."""
    for folder in folders_of_before(plan):
        if {f"dataset/{folder.name}", "dataset"} & {each.folder for each in found}:
            raise UserError(
                f"publish: {folder} is frozen (`pairs.freeze`) in the form of before, without a"
                " card and with the text-to-image prompt as `prompt`. Set `pairs.freeze: false` and"
                " run again, which makes today's forms of it."
            )


def publish_job(plan: Plan) -> PublishJob:
    """What the job of publish is told."""
    publish = plan.config.publish
    return PublishJob(
        confirm=publish.confirm, private=publish.private, publications=publications(plan)
    )


def files_to_publish(plan: Plan) -> list[str]:
    """The files that have to be there. Errors: UserError where nothing is to be published."""
    found = publications(plan)
    if not found:
        raise UserError(
            "publish: no repository is named. Add one for a data set (`publish.data_sets: {9000:"
            " owner/name}`), an adapter or a model; docs/publishing.md has an example."
        )
    folders = tuple(f"{plan.root}/{each.folder}" for each in found)
    cards = {f"{plan.root}/{each.card}" for each in found}
    return [
        file
        for file in targets.targets(plan)
        if file in cards or any(f"{file}/".startswith(f"{folder}/") for folder in folders)
    ]
