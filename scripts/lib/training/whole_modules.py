"""Training modules themselves, all of their weights, in place of an adapter or beside it: the
language model (`tuning: full`), and the projector between vision tower and language model, at a
learning rate of its own. PEFT keeps them as they were, which is the reference.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from peft.utils.other import ModulesToSaveWrapper

from lib.errors import UserError
from lib.training.once import ReferenceOnceTrainer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: What transformers' models call the projector: the LLaVAs and InternVL, Idefics3, Qwen (Qwen3's
#: has several).
PROJECTORS = ("multi_modal_projector", "connector", "merger", "deepstack_merger_list")


def projectors_of(model: "PreTrainedModel") -> list[str]:
    """The names of the modules that are the projector, as PEFT takes them. Errors: UserError."""
    found = {
        each
        for name, module in model.named_modules()
        if (last := name.rpartition(".")[2]) in PROJECTORS
        for each in _parts(last, module)
    }
    if not found:
        raise UserError(
            "`training.settings.projector_learning_rate`: the base model has no projector that is"
            f" known here ({', '.join(PROJECTORS)}). Take it away."
        )
    return sorted(found)


def language_model_of(model: "PreTrainedModel") -> list[str]:
    """The names of the modules that the language model consists of, as PEFT takes them. Embedding
    and output layer are among them but where they share their weights.
    """
    decoder = model.get_decoder()
    [path] = [name for name, module in model.named_modules() if module is decoder]
    name = path.rpartition(".")[2]
    parts = [
        f"{name}.{each}"
        for child, module in decoder.named_children()
        if any(True for _ in module.parameters())
        for each in _parts(child, module)
    ]
    begin, end = model.get_input_embeddings(), model.get_output_embeddings()
    if begin.weight is end.weight:
        shared = {f"{name}.{child}" for child, part in decoder.named_children() if part is begin}
        return [each for each in parts if each not in shared]
    [output] = [place for place, module in model.named_modules() if module is end]
    return [*parts, output]


def _parts(name: str, module: Any) -> list[str]:
    """A module's name, or those of a list's modules, which PEFT takes one by one."""
    if isinstance(module, torch.nn.ModuleList):
        return [f"{name}.{number}" for number in range(len(module))]
    return [name]


class WholeModulesTrainer(ReferenceOnceTrainer):
    """The trainer of modules that are no adapter's; `projector_learning_rate`: None where the
    projector stays frozen.
    """

    def __init__(self, projector_learning_rate: float | None, **options: Any) -> None:
        super().__init__(**options)
        self.projector_learning_rate = projector_learning_rate
        if not self.is_deepspeed_enabled:  # it has weights of 32 bits of its own
            for module in self.model.modules():
                if isinstance(module, ModulesToSaveWrapper):
                    # An update of 2e-5 is lost in 16 bits. And the reference's copy, so that both
                    # compute alike.
                    module.float()

    def whole(self) -> Mapping[str, torch.nn.Parameter]:
        """The parameters that are trained and no adapter's, by name."""
        return {
            name: parameter
            for name, parameter in self.model.named_parameters()
            if parameter.requires_grad and "lora_" not in name
        }

    def create_optimizer(self, model: Any = None) -> Any:
        """The optimizer, with groups for the projector behind the others."""
        optimizer = super().create_optimizer(model)
        rate = self.projector_learning_rate
        own = {
            id(parameter)
            for name, parameter in self.whole().items()
            if rate and {*PROJECTORS} & {*name.split(".")}
        }
        for group in list(optimizer.param_groups):
            apart = [each for each in group["params"] if id(each) in own]
            if apart:
                group["params"] = [each for each in group["params"] if id(each) not in own]
                optimizer.add_param_group({**group, "params": apart, "lr": rate})
        return optimizer
