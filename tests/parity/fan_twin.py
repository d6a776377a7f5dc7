"""AdaptiveWingLoss' landmark network in PyTorch, with its keys and arithmetic, and its script's way to the points."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from interlcm_jax.metrics.fan import FANConfig


class Coordinates(nn.Module):
    """The release counts rows as x and columns as y."""

    def __init__(self, cin: int, outlined: bool, *conv):
        super().__init__()
        self.outlined = outlined
        self.conv = nn.Conv2d(cin + 3 + 2 * outlined, *conv)

    def forward(self, x, heatmap=None):
        batch, _, height, width = x.shape
        rows = (torch.arange(height).float() / (height - 1) * 2 - 1)[None, None, :, None].repeat(batch, 1, 1, width)
        columns = (torch.arange(width).float() / (width - 1) * 2 - 1)[None, None, None].repeat(batch, 1, height, 1)
        radius = torch.sqrt(rows**2 + columns**2)
        parts = [x, rows, columns, radius / radius.max()]
        if self.outlined:
            outline = heatmap[:, -1:].clamp(0, 1) > 0.05
            parts += [torch.where(outline, c, torch.zeros_like(c)) for c in (rows, columns)]
        return self.conv(torch.cat(parts, 1))


class Block(nn.Module):
    def __init__(self, cin: int, cout: int):
        super().__init__()
        widths = [cin, cout // 2, cout // 4, cout // 4]
        for i in (1, 2, 3):
            setattr(self, f"bn{i}", nn.BatchNorm2d(widths[i - 1]))
            setattr(self, f"conv{i}", nn.Conv2d(widths[i - 1], widths[i], 3, 1, 1, bias=False))
        self.downsample = None
        if cin != cout:
            self.downsample = nn.Sequential(nn.BatchNorm2d(cin), nn.ReLU(), nn.Conv2d(cin, cout, 1, bias=False))

    def forward(self, x):
        outputs, y = [], x
        for i in (1, 2, 3):
            y = getattr(self, f"conv{i}")(F.relu(getattr(self, f"bn{i}")(y)))
            outputs.append(y)
        return torch.cat(outputs, 1) + (x if self.downsample is None else self.downsample(x))


class Hourglass(nn.Module):
    def __init__(self, width: int, depth: int, first: bool):
        super().__init__()
        self.depth = depth
        self.coordconv = Coordinates(width, not first, width, 1)
        for level in range(depth, 0, -1):
            names = [f"b1_{level}", f"b2_{level}", f"b3_{level}"] + (["b2_plus_1"] if level == 1 else [])
            for name in names:
                setattr(self, name, Block(width, width))

    def level(self, n, x):
        block = lambda name: getattr(self, name)  # noqa: E731
        low = block(f"b2_{n}")(F.avg_pool2d(x, 2, 2))
        low = self.level(n - 1, low) if n > 1 else self.b2_plus_1(low)
        return block(f"b1_{n}")(x) + F.interpolate(block(f"b3_{n}")(low), scale_factor=2, mode="nearest")

    def forward(self, x, heatmap):
        return self.level(self.depth, self.coordconv(x, heatmap))


class TorchFAN(nn.Module):
    def __init__(self, config: FANConfig):
        super().__init__()
        base, width, maps = config.base_channels, config.channels, config.num_landmarks + 1
        self.stacks = config.num_stacks
        self.conv1 = Coordinates(3, False, base, 7, 2, 3)
        self.bn1 = nn.BatchNorm2d(base)
        self.conv2, self.conv3, self.conv4 = Block(base, 2 * base), Block(2 * base, 2 * base), Block(2 * base, width)
        for i in range(self.stacks):
            setattr(self, f"m{i}", Hourglass(width, config.depth, i == 0))
            setattr(self, f"top_m_{i}", Block(width, width))
            setattr(self, f"conv_last{i}", nn.Conv2d(width, width, 1))
            setattr(self, f"bn_end{i}", nn.BatchNorm2d(width))
            setattr(self, f"l{i}", nn.Conv2d(width, maps, 1))
            if i < self.stacks - 1:
                setattr(self, f"bl{i}", nn.Conv2d(width, width, 1))
                setattr(self, f"al{i}", nn.Conv2d(maps, width, 1))

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.conv4(self.conv3(F.avg_pool2d(self.conv2(x), 2, 2)))
        heatmap = None
        for i in range(self.stacks):
            part = lambda name, i=i: getattr(self, f"{name}{i}")  # noqa: E731
            y = part("conv_last")(part("top_m_")(part("m")(x, heatmap)))
            y = F.relu(part("bn_end")(y))
            heatmap = part("l")(y)
            if i < self.stacks - 1:
                x = x + part("bl")(y) + part("al")(heatmap)
        return heatmap


def script_points(heatmaps: np.ndarray) -> np.ndarray:
    """Points of one image's (N, h, w) heat maps, as the script finds them, peak by peak."""
    height, width = heatmaps.shape[1:]
    last = height * width - 1
    rows = [list(heatmap.ravel()) for heatmap in heatmaps]
    peaks = [row.index(max(row)) for row in rows]
    bottom, top = any(p + width >= last + 1 for p in peaks), any(p - width <= 0 for p in peaks)
    points = []
    for row, p in zip(rows, peaks, strict=True):
        dx = np.sign(row[p + 1] - row[p - 1])
        dy = np.sign(row[last if bottom else p + width] - row[0 if top else p - width])
        points.append([p % width + 0.25 * dx + 0.5, p // width + 0.25 * dy + 0.5])
    return np.array(points)
