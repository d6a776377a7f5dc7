"""The Visual Encoder in PyTorch, written from the description of the release."""

import torch
import torch.nn.functional as F


def conv(in_channels, out_channels, kernel=3):
    return torch.nn.Conv1d(in_channels, out_channels, kernel, padding=kernel // 2)


def norm(channels, config):
    return torch.nn.GroupNorm(config.norm_num_groups, channels, eps=1e-6)


class Resize(torch.nn.Module):
    def __init__(self, channels, size):
        super().__init__()
        self.size, self.conv = size, conv(channels, channels)

    def forward(self, x):
        return self.conv(F.interpolate(x, size=self.size, mode="nearest"))


class Res(torch.nn.Module):
    def __init__(self, in_channels, out_channels, config):
        super().__init__()
        self.norm1, self.conv1 = norm(in_channels, config), conv(in_channels, out_channels)
        self.norm2, self.conv2 = norm(out_channels, config), conv(out_channels, out_channels)
        if in_channels != out_channels:
            self.conv_out = conv(in_channels, out_channels, 1)

    def forward(self, x):
        hidden = self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))
        return hidden + (self.conv_out(x) if hasattr(self, "conv_out") else x)


class Attn(torch.nn.Module):
    def __init__(self, channels, config):
        super().__init__()
        self.norm = norm(channels, config)
        self.q, self.k, self.v, self.proj_out = (conv(channels, channels, 1) for _ in range(4))

    def forward(self, x):
        hidden = self.norm(x)
        scores = torch.bmm(self.q(hidden).mT, self.k(hidden)) * x.shape[1] ** -0.5
        return x + self.proj_out(torch.bmm(self.v(hidden), scores.softmax(-1).mT))


class Twin(torch.nn.Module):
    """Spelled out for three levels with attention on the widest, as the release has it."""

    def __init__(self, config):
        super().__init__()
        narrow, middle, wide = config.block_out_channels
        one, two, three = config.features // 3, config.features // 3 * 2, config.features
        blocks = [conv(config.tokens, wide), Resize(wide, one)]
        blocks += [Res(wide, wide, config), Attn(wide, config), Res(wide, wide, config)]
        blocks += [Res(wide, wide, config), Attn(wide, config), Res(wide, wide, config), Attn(wide, config)]
        blocks += [Resize(wide, two), Res(wide, middle, config), Res(middle, middle, config)]
        blocks += [Resize(middle, three), Res(middle, narrow, config), Res(narrow, narrow, config)]
        blocks += [norm(narrow, config), conv(narrow, config.context_tokens)]
        self.blocks = torch.nn.ModuleList(blocks)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x
