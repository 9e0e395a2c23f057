"""Training the projector beside the adapter: the layers between vision tower and language model,
all of their weights, at a learning rate of their own. The reference has them as they were.
"""

from typing import TYPE_CHECKING, Any

from trl import DPOTrainer

from lib.errors import UserError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

#: What transformers' models call it: the LLaVAs and InternVL, Idefics3, Qwen (Qwen3's has several).
NAMES = ("multi_modal_projector", "connector", "merger", "deepstack_merger_list")


def projectors_of(model: "PreTrainedModel") -> list[str]:
    """The names of the modules that are the projector, as PEFT takes them. Errors: UserError."""
    found = {
        each
        for name, module in model.named_modules()
        if (last := name.rpartition(".")[2]) in NAMES
        for each in _parts(last, module)
    }
    if not found:
        raise UserError(
            "`training.settings.projector_learning_rate`: the base model has no projector that is"
            f" known here ({', '.join(NAMES)}). Take it away."
        )
    return sorted(found)


def _parts(name: str, module: Any) -> list[str]:
    """A module's name, or those of a list's modules, which PEFT takes one by one."""
    import torch

    if isinstance(module, torch.nn.ModuleList):
        return [f"{name}.{number}" for number in range(len(module))]
    return [name]


class ProjectorTrainer(DPOTrainer):  # type: ignore[misc]  # TRL publishes no types
    """TRL's trainer with a learning rate for what is trained and no adapter's."""

    def __init__(self, projector_learning_rate: float, **options: Any) -> None:
        super().__init__(**options)
        self.projector_learning_rate = projector_learning_rate
        for parameter in self.projector().values():
            # As the adapter's: an update of 2e-5 is lost in 16 bits.
            parameter.data = parameter.data.float()

    def projector(self) -> "dict[str, torch.nn.Parameter]":
        """The projector's parameters by name."""
        return {
            name: parameter
            for name, parameter in self.model.named_parameters()
            if parameter.requires_grad and "lora_" not in name
        }

    def create_optimizer(self, model: Any = None) -> Any:
        """The optimizer, with groups for the projector behind those of the adapter."""
        optimizer = super().create_optimizer(model)
        own = set(map(id, self.projector().values()))
        for group in list(optimizer.param_groups):
            apart = [each for each in group["params"] if id(each) in own]
            if apart:
                group["params"] = [each for each in group["params"] if id(each) not in own]
                rate = self.projector_learning_rate
                optimizer.add_param_group({**group, "params": apart, "lr": rate})
        return optimizer
