"""Real-ESRGAN's networks in PyTorch, with the keys and the arithmetic of the published files."""

import torch
import torch.nn.functional as F
from torch import nn

from interlcm_jax.models.upsampler import RRDBNetConfig, SRVGGConfig


def conv(cin: int, cout: int) -> nn.Conv2d:
    return nn.Conv2d(cin, cout, 3, 1, 1)


class DenseBlock(nn.Module):
    def __init__(self, width: int, growth: int):
        super().__init__()
        for i in range(1, 6):
            setattr(self, f"conv{i}", conv(width + (i - 1) * growth, growth if i < 5 else width))

    def forward(self, x):
        seen = [x]
        for i in range(1, 5):
            seen.append(F.leaky_relu(getattr(self, f"conv{i}")(torch.cat(seen, 1)), 0.2))
        return self.conv5(torch.cat(seen, 1)) * 0.2 + x


class ResidualBlock(nn.Module):
    def __init__(self, width: int, growth: int):
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = (DenseBlock(width, growth) for _ in range(3))

    def forward(self, x):
        return self.rdb3(self.rdb2(self.rdb1(x))) * 0.2 + x


class TorchRRDBNet(nn.Module):
    def __init__(self, config: RRDBNetConfig):
        super().__init__()
        self.fold = 4 // config.scale
        width = config.channels
        self.conv_first = conv(3 * self.fold**2, width)
        self.body = nn.Sequential(*(ResidualBlock(width, config.growth_channels) for _ in range(config.num_blocks)))
        self.conv_body, self.conv_up1, self.conv_up2, self.conv_hr = (conv(width, width) for _ in range(4))
        self.conv_last = conv(width, 3)

    def forward(self, x):
        x = self.conv_first(F.pixel_unshuffle(x, self.fold))
        x = x + self.conv_body(self.body(x))
        for layer in (self.conv_up1, self.conv_up2):
            x = F.leaky_relu(layer(F.interpolate(x, scale_factor=2, mode="nearest")), 0.2)
        return self.conv_last(F.leaky_relu(self.conv_hr(x), 0.2))


class TorchSRVGG(nn.Module):
    def __init__(self, config: SRVGGConfig):
        super().__init__()
        self.scale, width = config.scale, config.channels
        layers = [conv(3, width), nn.PReLU(width)]
        for _ in range(config.num_layers):
            layers += [conv(width, width), nn.PReLU(width)]
        self.body = nn.ModuleList([*layers, conv(width, 3 * config.scale**2)])

    def forward(self, x):
        out = x
        for layer in self.body:
            out = layer(out)
        return F.pixel_shuffle(out, self.scale) + F.interpolate(x, scale_factor=self.scale, mode="nearest")
