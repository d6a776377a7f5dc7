"""MUSIQ in PyTorch, with the keys and the arithmetic of pyiqa's published `musiq_koniq_ckpt-e95806b9.pth`."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from interlcm_jax.metrics.musiq_network import MUSIQConfig


class StdConv(nn.Conv2d):
    def __init__(self, cin: int, cout: int, size: int, stride: int = 1, padding: tuple[int, ...] = (0, 0, 0, 0)):
        super().__init__(cin, cout, size, stride, bias=False)
        self.border = padding

    def forward(self, x):
        deviation, mean = torch.std_mean(self.weight, (1, 2, 3), keepdim=True)
        return F.conv2d(F.pad(x, self.border), (self.weight - mean) / (deviation + 1e-5), stride=self.stride)


class Bottleneck(nn.Module):
    def __init__(self, width: int, groups: int):
        super().__init__()
        self.conv1, self.gn1 = StdConv(width, width, 1), nn.GroupNorm(groups, width, 1e-4)
        self.conv2, self.gn2 = StdConv(width, width, 3, padding=(1, 1, 1, 1)), nn.GroupNorm(groups, width, 1e-4)
        self.conv3, self.gn3 = StdConv(width, 4 * width, 1), nn.GroupNorm(groups, 4 * width, 1e-4)
        self.conv_proj, self.gn_proj = StdConv(width, 4 * width, 1), nn.GroupNorm(groups, 4 * width, 1e-4)

    def forward(self, x):
        y = self.gn1(self.conv1(x)).relu()
        y = self.gn3(self.conv3(self.gn2(self.conv2(y)).relu()))
        return (y + self.gn_proj(self.conv_proj(x))).relu()


class Attention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x, mask):
        query, key, value = (
            f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.query, self.key, self.value)
        )
        scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
        scores = scores.masked_fill(~(mask[:, None, :, None] & mask[:, None, None, :]), -1e3)
        return self.out((scores.softmax(-1) @ value).transpose(1, 2).flatten(2))


class MLP(nn.Module):
    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class Layer(nn.Module):
    def __init__(self, config: MUSIQConfig):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(config.hidden_size, 1e-6), nn.LayerNorm(config.hidden_size, 1e-6)
        self.attention = Attention(config.hidden_size, config.num_attention_heads)
        self.mlp = MLP(config.hidden_size, config.intermediate_size)

    def forward(self, x, mask):
        x = x + self.attention(self.norm1(x), mask)
        return x + self.mlp(self.norm2(x))


class Table(nn.Module):
    """An embedding under the name that the file gives it."""

    def __init__(self, name: str, *shape: int):
        super().__init__()
        self.register_parameter(name, nn.Parameter(torch.zeros(shape)))

    def forward(self, index):
        [table] = self.parameters()
        return table.reshape(-1, table.shape[-1])[index]


class Encoder(nn.Module):
    def __init__(self, config: MUSIQConfig):
        super().__init__()
        width = config.hidden_size
        self.posembed_input = Table("position_emb", 1, config.grid_size**2, width)
        self.scaleembed_input = Table("scale_emb", len(config.longer_sides) + 1, width)
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.transformer = nn.ModuleDict({f"encoderblock_{i}": Layer(config) for i in range(config.num_hidden_layers)})
        self.encoder_norm = nn.LayerNorm(width, 1e-6)

    def forward(self, x, positions, scales, mask):
        x = x + self.posembed_input(positions) + self.scaleembed_input(scales)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1)
        mask = F.pad(mask, (1, 0), value=True)
        for layer in self.transformer.values():
            x = layer(x, mask)
        return self.encoder_norm(x)


class TorchMUSIQ(nn.Module):
    def __init__(self, config: MUSIQConfig):
        super().__init__()
        self.config = config
        root = config.root_channels
        self.conv_root = StdConv(3, root, 7, 2, padding=(2, 3, 2, 3))
        self.gn_root = nn.GroupNorm(config.norm_num_groups, root, 1e-6)
        self.block1 = Bottleneck(root, config.norm_num_groups)
        self.embedding = nn.Linear(4 * root * (config.patch_size // 4) ** 2, config.hidden_size)
        self.transformer_encoder = Encoder(config)
        self.head = nn.Linear(config.hidden_size, 1)

    def root(self, x):
        x = self.gn_root(self.conv_root(x)).relu()
        return self.block1(F.max_pool2d(F.pad(x, (0, 1, 0, 1)), 3, 2))

    def score(self, pixels, positions, scales, mask):
        """`pixels` are (B, L, 3, P, P)."""
        tokens = self.root(pixels.flatten(0, 1)).permute(0, 2, 3, 1).flatten(1)
        x = self.embedding(tokens.unflatten(0, pixels.shape[:2]))
        return self.head(self.transformer_encoder(x, positions, scales, mask)[:, 0])[:, 0]

    def forward(self, images):
        """Scores of (B, 3, H, W) images in [0, 1]; each resized scale is filled up to a square of patches, as there."""
        size, found = self.config.patch_size, []
        longest = max(images.shape[-2:])
        for scale, longer in enumerate((*self.config.longer_sides, None)):
            x = (images - 0.5) * 2
            if longer is not None:
                shape = tuple(round(side * (longer / longest)) for side in images.shape[-2:])
                x = F.interpolate(x, shape, mode="bicubic", align_corners=False)
            rows, columns = (math.ceil(side / size) for side in x.shape[-2:])
            rest = [n * size - side for n, side in zip((columns, rows), (x.shape[3], x.shape[2]), strict=True)]
            x = F.pad(x, (rest[0] // 2, rest[0] - rest[0] // 2, rest[1] // 2, rest[1] - rest[1] // 2))
            patches = F.unfold(x, size, stride=size).transpose(1, 2).unflatten(-1, (3, size, size))
            grid = torch.arange(self.config.grid_size).float()[None, None]
            down, right = (F.interpolate(grid, n, mode="nearest")[0, 0].long() for n in (rows, columns))
            positions = (down[:, None] * self.config.grid_size + right).flatten().expand(len(x), -1)
            there = torch.ones(positions.shape, dtype=torch.bool)
            empty = 0 if longer is None else math.ceil(longer / size) ** 2 - rows * columns
            tokens = (positions, torch.full_like(positions, scale), there)
            found.append((F.pad(patches, (0, 0) * 3 + (0, empty)), *(F.pad(t, (0, empty)) for t in tokens)))
        return self.score(*(torch.cat(parts, 1) for parts in zip(*found, strict=True)))
