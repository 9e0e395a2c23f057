"""TEMPORARY: what scripts that are not typed yet use. Goes with the last of them."""

from typing import Any

from lib.jobs.batches import Batches, Item, Outcome
from lib.jobs.job import Job, NoSettings
from lib.jobs.script import run_script

__all__ = ["Item", "Outcome", "ShardJob", "run_script"]


class ShardJob(Job[NoSettings]):
    """A job with a dict of settings."""

    def __init__(self, snakemake: Any, version: int) -> None:
        params = snakemake.params
        settings = params.get("settings", {})
        hidden = type(
            "P",
            (),
            {
                "get": lambda s, n, d=None: {} if n == "settings" else params.get(n, d),
                "common": params.common,
            },
        )()
        super().__init__(
            type(
                "S",
                (),
                {"rule": snakemake.rule, "wildcards": snakemake.wildcards, "params": hidden},
            )(),
            NoSettings,
            version,
        )
        self.settings: Any = settings

    def run(
        self,
        items: Any,
        load: Any,
        compute: Any,
        batch_size: int = 1,
        still_valid: Any = lambda i, r: True,
        check: Any = lambda i: None,
    ) -> Any:
        return Batches(self, load, compute, batch_size, still_valid, check).run(items)

    def publish(self, path: Any, rows: Any) -> None:
        super().publish(path, rows)
        self.write_record()
