"""Lets PyPI's torchvision, which is built for CUDA, be imported beside a CPU build of torch.

`make install` copies this file into `.venv`, where Python runs it at every start, so that it
reaches the subprocesses of torchrun, vLLM and lmms-eval too. Only the declarations of two operators
are missing there, and nothing in this workflow calls them. Under a CUDA build of torch, where
torchvision brings the operators itself, nothing is declared.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType


class DeclareOperators(MetaPathFinder):
    """Declares torchvision's compiled operators just before torchvision is first imported."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> None:
        """Called at every import; finds nothing itself."""
        if fullname == "torchvision":
            sys.meta_path.remove(self)
            import torch

            if torch.version.cuda is None:
                self.library = torch.library.Library("torchvision", "FRAGMENT")
                self.library.define(
                    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                )
                self.library.define(
                    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                )
                torch.torchvision_operator_declarations = self.library
        return


sys.meta_path.insert(0, DeclareOperators())
