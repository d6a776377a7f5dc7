"""The Visual Encoder in PyTorch, with the released weights' names: a VQGAN's decoder in one dimension."""

import itertools

import torch
import torch.nn.functional as F

from interlcm_jax.models.visual_encoder import VisualEncoderConfig


class VisualEncoder(torch.nn.Module):
    """Turns CLIP's tokens, (B, tokens, features), into the UNet's context; tokens are its channels."""

    def __init__(self, config: VisualEncoderConfig):
        super().__init__()
        third = config.features // 3
        sizes = itertools.cycle((third, 2 * third, config.features))
        self.blocks = torch.nn.ModuleList()
        for kind, in_channels, out_channels in config.blocks():
            match kind:
                case "conv":
                    block = _conv(in_channels, out_channels)
                case "resize":
                    block = Resize(out_channels, next(sizes))
                case "res":
                    block = Res(in_channels, out_channels, config)
                case "attn":
                    block = Attn(out_channels, config)
                case "norm":
                    block = _norm(out_channels, config)
            self.blocks.append(block)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """No activation stands between the last norm and the last convolution."""
        for block in self.blocks:
            x = block(x)
        return x


class Resize(torch.nn.Module):
    """Nearest resize of the length, then a convolution."""

    def __init__(self, channels: int, size: int):
        super().__init__()
        self.size, self.conv = size, _conv(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, L) to (B, C, size)."""
        return self.conv(F.interpolate(x, size=self.size, mode="nearest"))


class Res(torch.nn.Module):
    """Two convolutions, each after norm and SiLU, added to the input."""

    def __init__(self, in_channels: int, out_channels: int, config: VisualEncoderConfig):
        super().__init__()
        self.norm1, self.conv1 = _norm(in_channels, config), _conv(in_channels, out_channels)
        self.norm2, self.conv2 = _norm(out_channels, config), _conv(out_channels, out_channels)
        if in_channels != out_channels:
            self.conv_out = _conv(in_channels, out_channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Keeps the length."""
        hidden = self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))
        return hidden + (self.conv_out(x) if hasattr(self, "conv_out") else x)


class Attn(torch.nn.Module):
    """Single-head attention along the length, added to the input."""

    def __init__(self, channels: int, config: VisualEncoderConfig):
        super().__init__()
        self.norm = _norm(channels, config)
        self.q, self.k, self.v, self.proj_out = (_conv(channels, channels, 1) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Keeps the shape."""
        hidden = self.norm(x)
        scores = torch.bmm(self.q(hidden).mT, self.k(hidden)) * x.shape[1] ** -0.5
        return x + self.proj_out(torch.bmm(self.v(hidden), scores.softmax(-1).mT))


def _conv(in_channels: int, out_channels: int, kernel: int = 3) -> torch.nn.Conv1d:
    return torch.nn.Conv1d(in_channels, out_channels, kernel, padding=kernel // 2)


def _norm(channels: int, config: VisualEncoderConfig) -> torch.nn.GroupNorm:
    return torch.nn.GroupNorm(config.norm_num_groups, channels, eps=config.norm_eps)
