"""arcface-pytorch's face recognizer in PyTorch, with its keys and arithmetic; GFPGAN's is the same."""

import torch
import torch.nn.functional as F
from torch import nn

from interlcm_jax.metrics.arcface import ArcFaceConfig


class Excitation(nn.Module):
    def __init__(self, channels: int, reduction: int):
        super().__init__()
        inner = channels // reduction
        self.fc = nn.Sequential(nn.Linear(channels, inner), nn.PReLU(), nn.Linear(inner, channels), nn.Sigmoid())

    def forward(self, x):
        return x * self.fc(x.mean((2, 3)))[:, :, None, None]


class Block(nn.Module):
    def __init__(self, cin: int, cout: int, stride: int, config: ArcFaceConfig):
        super().__init__()
        self.bn0 = nn.BatchNorm2d(cin)
        self.conv1 = nn.Conv2d(cin, cin, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(cin)
        self.prelu = nn.PReLU()
        self.conv2 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(cout)
        if config.squeeze_excitation:
            self.se = Excitation(cout, config.reduction)
        if stride > 1 or cin != cout:
            self.downsample = nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout))

    def forward(self, x):
        out = self.bn2(self.conv2(self.prelu(self.bn1(self.conv1(self.bn0(x))))))
        out = self.se(out) if hasattr(self, "se") else out
        return self.prelu(out + (self.downsample(x) if hasattr(self, "downsample") else x))


class TorchArcFace(nn.Module):
    def __init__(self, config: ArcFaceConfig):
        super().__init__()
        width = config.base_channels
        self.conv1 = nn.Conv2d(1, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.prelu = nn.PReLU()
        cin = width
        for i, blocks in enumerate(config.layers):
            cout, stride = width * 2**i, 1 if i == 0 else 2
            widths = [cin] + [cout] * (blocks - 1)
            stage = [Block(w, cout, stride if j == 0 else 1, config) for j, w in enumerate(widths)]
            setattr(self, f"layer{i + 1}", nn.Sequential(*stage))
            cin = cout
        self.bn4 = nn.BatchNorm2d(cin)
        self.fc5 = nn.Linear(cin * (config.image_size // 16) ** 2, config.embedding_size)
        self.bn5 = nn.BatchNorm1d(config.embedding_size)

    def forward(self, x):
        x = F.max_pool2d(self.prelu(self.bn1(self.conv1(x))), 2)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.bn5(self.fc5(torch.flatten(self.bn4(x), 1)))
