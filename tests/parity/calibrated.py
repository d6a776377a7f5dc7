"""Random PyTorch networks whose activations keep unit scale through any number of layers."""

import torch
from torch import nn

from tests.parity.bridge import randomize

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


@torch.no_grad()
def calibrated(module: nn.Module, *inputs: torch.Tensor) -> nn.Module:
    """Random weights, and for statistics those of the activations that the inputs give, with a fifth more variance.

    With random statistics a deep rectified network forgets its input layer by layer, and any two would agree. With
    exactly these it is chaotic: at Inception-v3's depth PyTorch in float32 is 1.5e-4 from itself in float64.
    """
    randomize(module)
    norms = [part for part in module.modules() if isinstance(part, _NORMS)]
    for norm in norms:
        norm.momentum = 1.0
    module.train()(*inputs)
    for norm in norms:
        norm.running_var *= 1.2
    return module.eval()


def thin(module: nn.Module) -> dict[str, torch.Tensor]:
    """A state dict of the module's keys and shapes that takes no space in a file: each tensor is one number."""
    return {
        key: torch.full((1,), 0.5).expand(value.shape) if value.is_floating_point() else torch.tensor(1)
        for key, value in module.state_dict().items()
    }
