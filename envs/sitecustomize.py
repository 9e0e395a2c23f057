"""What every Python process of `.venv` needs: `make install` copies this file there, and Python runs it at every start.

It reaches the subprocesses of accelerate, vLLM and lmms-eval too, which is why it is not left to the callers.

- PyPI's torchvision is built for CUDA. To be imported beside a CPU build of torch it lacks the declarations of two operators, which
  nothing in this workflow calls. Under a CUDA build of torch, where torchvision brings the operators itself, nothing is declared.
- DeepSpeed's compiled operators are kept in `.venv`, where `make install` built them.
"""

import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType


class DeclareOperators(MetaPathFinder):
    """Declares torchvision's compiled operators just before torchvision itself is first imported."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        """Called at every import; finds nothing itself."""
        if fullname == "torchvision":
            sys.meta_path.remove(self)
            import torch

            if torch.version.cuda is None:
                self.library = torch.library.Library("torchvision", "FRAGMENT")
                self.library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
                self.library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
                torch.torchvision_operator_declarations = self.library
        return


os.environ.setdefault("TORCH_EXTENSIONS_DIR", f"{sys.prefix}/torch_extensions")
sys.meta_path.insert(0, DeclareOperators())
