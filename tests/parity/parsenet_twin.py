"""ParseNet in PyTorch, with the keys and the arithmetic of the published `parsing_parsenet.pth`."""

import torch.nn.functional as F
from torch import nn

from interlcm_jax.faces.parsenet import ParseNetConfig


class Norm(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x):
        return self.norm(x)


class ConvLayer(nn.Module):
    def __init__(self, cin: int, cout: int, scale: str = "none", norm: bool = False, leaky: bool = False):
        super().__init__()
        self.scale, self.leaky = scale, leaky
        self.conv2d = nn.Conv2d(cin, cout, 3, 2 if scale == "down" else 1, bias=not norm)
        self.norm = Norm(cout) if norm else nn.Identity()

    def forward(self, x):
        if self.scale == "up":
            x = F.interpolate(x, scale_factor=2, mode="nearest")
        x = self.norm(self.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect")))
        return F.leaky_relu(x, 0.2) if self.leaky else x


class Residual(nn.Module):
    def __init__(self, cin: int, cout: int, scale: str = "none"):
        super().__init__()
        first, second = {"down": ("none", "down"), "up": ("up", "none"), "none": ("none", "none")}[scale]
        self.shortcut_func = nn.Identity() if scale == "none" and cin == cout else ConvLayer(cin, cout, scale)
        self.conv1 = ConvLayer(cin, cout, first, norm=True, leaky=True)
        self.conv2 = ConvLayer(cout, cout, second, norm=True)

    def forward(self, x):
        return self.shortcut_func(x) + self.conv2(self.conv1(x))


class TorchParseNet(nn.Module):
    def __init__(self, config: ParseNetConfig):
        super().__init__()
        base, largest = config.base_channels, config.max_channels
        encoder, width, size = [ConvLayer(3, base)], base, config.image_size
        while size > config.feature_size:
            encoder.append(Residual(min(width, largest), min(2 * width, largest), "down"))
            width, size = 2 * width, size // 2
        body = [Residual(min(width, largest), min(width, largest)) for _ in range(config.body_blocks)]
        decoder = []
        while size < config.image_size:
            decoder.append(Residual(min(width, largest), min(width // 2, largest), "up"))
            width, size = width // 2, size * 2
        self.encoder, self.body, self.decoder = (nn.Sequential(*layers) for layers in (encoder, body, decoder))
        self.out_img_conv = ConvLayer(base, 3)
        self.out_mask_conv = ConvLayer(base, config.num_classes)

    def forward(self, x):
        features = self.encoder(x)
        x = self.decoder(features + self.body(features))
        return self.out_mask_conv(x), self.out_img_conv(x)
