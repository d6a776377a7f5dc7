"""RetinaFace in PyTorch, with the keys and the arithmetic of the published weights.

Those are `detection_Resnet50_Final.pth` and `mobilenet0.25_Final.pth`.
"""

import itertools

import torch
import torch.nn.functional as F
from torch import nn

from interlcm_jax.faces.retinaface import RetinaFaceConfig


def conv_bn(cin: int, cout: int, kernel: int, *after: nn.Module, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(cin, cout, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(cout), *after)


class Block(nn.Module):
    """Bottleneck of torchvision's ResNet-50."""

    def __init__(self, cin: int, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(cin, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        if stride != 1 or cin != 4 * width:
            self.downsample = conv_bn(cin, 4 * width, 1, stride=stride)

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + (self.downsample(x) if hasattr(self, "downsample") else x))


class Backbone(nn.Module):
    def __init__(self, width: int, layers: tuple[int, ...]):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        cin = width
        for i, count in enumerate(layers):
            blocks = []
            for j in range(count):
                blocks.append(Block(cin, width * 2**i, 2 if i > 0 and j == 0 else 1))
                cin = 4 * width * 2**i
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        x = self.layer1(x)
        fine = self.layer2(x)
        middle = self.layer3(fine)
        return fine, middle, self.layer4(middle)


def separable(cin: int, cout: int, stride: int) -> nn.Sequential:
    """MobileNet's block: two convolutions with their norms and rectifiers in one row of five and six."""
    leaky = nn.LeakyReLU(0.1)
    depthwise = nn.Conv2d(cin, cin, 3, stride, 1, groups=cin, bias=False)
    pointwise = nn.Conv2d(cin, cout, 1, bias=False)
    return nn.Sequential(depthwise, nn.BatchNorm2d(cin), leaky, pointwise, nn.BatchNorm2d(cout), leaky)


class MobileBackbone(nn.Module):
    def __init__(self, width: int, layers: tuple[int, ...]):
        super().__init__()
        blocks, cin = [[conv_bn(3, width, 3, nn.LeakyReLU(0.1), stride=2)], [], []], width
        for i, count in enumerate(layers):
            for j in range(count):
                block = separable(cin, 2 * width * 2**i, 2 if i > 0 and j == 0 else 1)
                blocks[max(i - 2, 0)].append(block)
                cin = 2 * width * 2**i
        self.stage1, self.stage2, self.stage3 = (nn.Sequential(*stage) for stage in blocks)

    def forward(self, x):
        fine = self.stage1(x)
        middle = self.stage2(fine)
        return fine, middle, self.stage3(middle)


class FPN(nn.Module):
    def __init__(self, widths: list[int], out: int):
        super().__init__()
        leaky = nn.LeakyReLU(0.1 if out <= 64 else 0)
        for i, width in enumerate(widths, 1):
            self.add_module(f"output{i}", conv_bn(width, out, 1, leaky))
        self.merge1 = conv_bn(out, out, 3, leaky)
        self.merge2 = conv_bn(out, out, 3, leaky)

    def forward(self, features):
        fine, middle, coarse = (output(x) for output, x in zip(self.outputs(), features, strict=True))
        middle = self.merge2(middle + F.interpolate(coarse, size=middle.shape[2:], mode="nearest"))
        fine = self.merge1(fine + F.interpolate(middle, size=fine.shape[2:], mode="nearest"))
        return fine, middle, coarse

    def outputs(self):
        return self.output1, self.output2, self.output3


class SSH(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        leaky = nn.LeakyReLU(0.1 if width <= 64 else 0)
        self.conv3X3 = conv_bn(width, width // 2, 3)
        self.conv5X5_1 = conv_bn(width, width // 4, 3, leaky)
        self.conv5X5_2 = conv_bn(width // 4, width // 4, 3)
        self.conv7X7_2 = conv_bn(width // 4, width // 4, 3, leaky)
        self.conv7x7_3 = conv_bn(width // 4, width // 4, 3)

    def forward(self, x):
        shared = self.conv5X5_1(x)
        return F.relu(
            torch.cat([self.conv3X3(x), self.conv5X5_2(shared), self.conv7x7_3(self.conv7X7_2(shared))], dim=1)
        )


class Head(nn.Module):
    def __init__(self, width: int, out: int):
        super().__init__()
        self.conv1x1 = nn.Conv2d(width, out, 1)


class TorchRetinaFace(nn.Module):
    def __init__(self, config: RetinaFaceConfig):
        super().__init__()
        out, per_position = config.out_channels, config.anchors_per_position
        body = Backbone if config.backbone == "resnet" else MobileBackbone
        self.body = body(config.base_channels, config.layers)
        self.fpn = FPN([config.base_channels * factor for factor in (8, 16, 32)], out)
        self.ssh1, self.ssh2, self.ssh3 = (SSH(out) for _ in range(3))
        for name, values in (("ClassHead", 2), ("BboxHead", 4), ("LandmarkHead", 10)):
            self.add_module(name, nn.ModuleList(Head(out, per_position * values) for _ in range(3)))

    def forward(self, x):
        """Face probability, box and landmarks of each anchor."""
        levels = [ssh(y) for ssh, y in zip((self.ssh1, self.ssh2, self.ssh3), self.fpn(self.body(x)), strict=True)]

        def by_anchor(heads, values):
            maps = [head.conv1x1(y).permute(0, 2, 3, 1) for head, y in zip(heads, levels, strict=True)]
            return torch.cat([m.reshape(len(m), -1, values) for m in maps], dim=1)

        classes = by_anchor(self.ClassHead, 2).softmax(-1)
        return classes[..., 1], by_anchor(self.BboxHead, 4), by_anchor(self.LandmarkHead, 10)


def decoded(loc: list[float], landmarks: list[float], height: int, width: int, index: int):
    """One anchor's box and landmarks in pixels, as published: in fractions of the photo, then scaled."""
    sizes, steps, variances = [[16, 32], [64, 128], [256, 512]], [8, 16, 32], (0.1, 0.2)
    priors = [
        ((j + 0.5) * step / width, (i + 0.5) * step / height, size / width, size / height)
        for step, pair in zip(steps, sizes, strict=True)
        for i, j in itertools.product(range(-(-height // step)), range(-(-width // step)))
        for size in pair
    ]
    prior = torch.tensor(priors[index], dtype=torch.float64)
    loc, landmarks = torch.tensor(loc, dtype=torch.float64), torch.tensor(landmarks, dtype=torch.float64)
    scale = torch.tensor([width, height], dtype=torch.float64)
    center = prior[:2] + loc[:2] * variances[0] * prior[2:]
    size = prior[2:] * torch.exp(loc[2:] * variances[1])
    corner = center - size / 2
    points = prior[:2] + landmarks.reshape(5, 2) * variances[0] * prior[2:]
    return len(priors), torch.cat([corner * scale, (corner + size) * scale]), points * scale
