"""TRL's trainer, which asks the reference model about a batch once. TRL computes it in every epoch
of every training, and refuses to do so ahead where there are pictures.
"""

import time
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any

import torch
from trl import DPOTrainer

from lib.training.reference import LogProbabilities, Reference

KEY = "reference_key"
Batch = dict[str, Any]


def digest_of_tensors(batch: Mapping[str, Any]) -> bytes:
    """The sha256 of all that a model is shown: of each tensor's name, format, shape and bytes."""
    state = sha256()
    for name in sorted(batch):
        tensor = batch[name]
        state.update(f"{name} {tensor.dtype} {[*tensor.shape]}\n".encode())
        state.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return state.digest()


class WithKey:
    """A collator whose batches have their digest, as 1 x 32 bytes. The processes that read the data
    make it, so that no GPU waits for it.
    """

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self._collate = collate

    def __call__(self, rows: list[Any]) -> Any:
        """The batch of some rows."""
        batch = self._collate(rows)
        batch[KEY] = torch.frombuffer(bytearray(digest_of_tensors(batch)), dtype=torch.uint8)[None]
        return batch


class ReferenceOnceTrainer(DPOTrainer):  # type: ignore[misc]  # TRL publishes no types
    """TRL's trainer; once `keep_reference` is called, it computes with stored log-probabilities of
    the reference what TRL would with those of a forward pass: the same numbers, since a batch's key
    is of all that the reference sees of it, its padding and its order too. With one pair a batch,
    that is the pair.
    """

    reference: Reference | None = None
    data_collator: Callable[[list[Any]], Any]
    _agrees = False

    def keep_reference(self, reference: Reference, agrees: bool) -> None:
        """Uses what `reference` holds. `agrees`: all processes compute where one has to (ZeRO-3,
        whose weights they share out among them).
        """
        self.reference = reference
        self.data_collator = WithKey(self.data_collator)
        self.precompute_ref_logps = True
        self._agrees = agrees

    def _compute_loss(self, model: Any, inputs: Any, return_outputs: bool) -> Any:
        if self.reference:
            inputs = {**inputs}
            key = bytes(inputs.pop(KEY).flatten().tolist()).hex()
            chosen, rejected = self._reference_of(self.reference, key, inputs)
            inputs |= {"ref_chosen_logps": chosen, "ref_rejected_logps": rejected}
        return super()._compute_loss(model, inputs, return_outputs)

    def _reference_of(self, reference: Reference, key: str, inputs: Batch) -> list[torch.Tensor]:
        """The reference's log-probabilities of a batch, [chosen, rejected], each of as many numbers
        as the batch has pairs.
        """
        known = reference.find(key)
        if self._is_to_be_computed(known is None):
            started = time.perf_counter()
            sides = self.compute_ref_log_probs(self.model, inputs)
            chosen, rejected = (each.tolist() for each in sides)
            known = LogProbabilities(chosen, rejected, str(sides[0].dtype))
            reference.add(key, known, time.perf_counter() - started)
            reference.computed += 1
        else:
            reference.found += 1
        assert known
        dtype, device = getattr(torch, known.dtype.removeprefix("torch.")), self.accelerator.device
        return [torch.tensor(each, dtype=dtype, device=device) for each in known[:2]]

    def _is_to_be_computed(self, is_missing: bool) -> bool:
        if not self._agrees:
            return is_missing
        missing = torch.tensor(int(is_missing), device=self.accelerator.device)
        torch.distributed.all_reduce(missing, torch.distributed.ReduceOp.MAX)
        return bool(missing.item())
