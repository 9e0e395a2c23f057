"""Snakemake's modules (9.27): our workflow as a part of another one, by `module` and `use rule`."""

from collections.abc import Callable
from typing import Any


def module_name(workflow: Any) -> str:
    """The name of the module as which a Snakefile is being read, those of the modules around it
    before it; empty where it is read as a workflow of its own.
    """
    return ".".join(each.namespace for each in workflow.modifier_stack if each.namespace)


def take_prefix(workflow: Any, folder: str) -> str:
    """A folder under the `prefix:` of the module that is being read (or as `replace_prefix:` has
    it). The module's rules take the paths that they are given as they are from here on: by itself
    Snakemake would put the prefix before what a rule reads and writes, and not before what its job
    is told; and before paths of the configuration, which are the user's.
    """
    from snakemake.path_modifier import PathModifier

    modifier = workflow.modifier
    # A folder, so that `replace_prefix: {"results/": ...}` finds it.
    placed = str(modifier.path_modifier.replace_prefix(f"{folder.rstrip('/')}/"))
    modifier.path_modifier = PathModifier(None, None, workflow)
    return placed.rstrip("/")


def own_rules(workflow: Any) -> list[Any]:
    """The rules of the Snakefile that is being read, in order, without those of a workflow around
    it.
    """
    own = workflow.modifier.rules
    return [rule for rule in workflow.rules if rule in own]


def add_handlers(workflow: Any, root: str, **handlers: Callable[[], object]) -> None:
    """Has the handlers `onstart`, `onsuccess` and `onerror` of a module called, before those of the
    workflow that uses it. By itself Snakemake calls those of the outermost Snakefile alone.

    `root`: the folder of the module's run, which is begun once, however many `use rule` there are.
    """
    begun = vars(workflow).setdefault("_roots_of_modules", set())
    if root in begun:
        return
    begun.add(root)
    for name, own in handlers.items():
        register = getattr(workflow, name)

        def register_both(
            func: Callable[[Any], object],
            register: Callable[[Any], object] = register,
            own: Callable[[], object] = own,
        ) -> object:
            return register(_both(own, func))

        # Whichever is read later: `onstart:` of the other workflow, or this module.
        setattr(workflow, f"_{name}", _both(own, getattr(workflow, f"_{name}")))
        setattr(workflow, name, register_both)


def _both(own: Callable[[], object], other: Callable[[Any], object]) -> Callable[[Any], None]:
    def handler(log: Any) -> None:
        own()
        other(log)

    return handler
