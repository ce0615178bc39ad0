"""The ResNet branches and decoder of Signal is Harder in PyTorch, written from the description of the paper's code."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from oracles.torch_resnet import BasicBlock
from oracles.torch_sih import Sih


class Encoder(nn.Module):
    """A 4x4 convolution of stride 2, eight blocks without a max-pool, two 2x2 convolutions as heads."""

    def __init__(self, latent, width, mean, std):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, width, 4, 2, 1, bias=False), nn.BatchNorm2d(width)
        blocks, inputs = [], width
        for stage in range(4):
            for stride in (2 if stage else 1, 1):
                blocks.append(BasicBlock(inputs, width * 2**stage, stride))
                inputs = width * 2**stage
        self.blocks = nn.Sequential(*blocks)
        self.mean, self.log_variance = nn.Conv2d(inputs, latent, 2), nn.Conv2d(inputs, latent, 2)
        self.shift, self.scale = torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]

    def forward(self, x):
        h = self.blocks(F.relu(self.bn(self.conv((x - self.shift) / self.scale))))
        return self.mean(h)[:, :, 0, 0], self.log_variance(h)[:, :, 0, 0].clamp(max=5)


class ResizeConv(nn.Conv2d):
    def forward(self, x):
        return super().forward(F.interpolate(x, scale_factor=2, mode="nearest"))


class UpBlock(nn.Module):
    def __init__(self, channels, up):
        super().__init__()
        out = channels // 2 if up else channels
        self.conv1, self.bn1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        self.conv2 = (ResizeConv if up else nn.Conv2d)(channels, out, 3, padding=1, bias=up)
        self.bn2 = nn.BatchNorm2d(out)
        self.shortcut = nn.Sequential(ResizeConv(channels, out, 3, padding=1), nn.BatchNorm2d(out)) if up else None

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class Decoder(nn.Module):
    def __init__(self, channels):
        super().__init__()
        sizes = [channels // 2**i for i in range(5)]
        self.blocks = nn.Sequential(*(UpBlock(size, up) for size in sizes[:4] for up in (False, True)))
        self.last = ResizeConv(sizes[4], 3, 3, padding=1)

    def forward(self, z):
        return self.last(self.blocks(z[:, :, None, None])).flatten(1)


class ResNetSih(Sih):
    """`load` takes the variables of `jaxdebias.models.resnet_vae`."""

    def __init__(self, latent, width, classes, mean, std):
        nn.Module.__init__(self)
        self.enc_s, self.enc_b = Encoder(latent, width, mean, std), Encoder(latent, width, mean, std)
        self.clf_s, self.clf_b = nn.Linear(latent, classes), nn.Linear(latent, classes)
        self.dec = Decoder(2 * latent)

    def layers(self):
        """(module, path in `resnet_vae`'s params)."""
        for name, encoder in (("signal", self.enc_s), ("bias", self.enc_b)):
            yield encoder.conv, (name, "Conv_0")
            yield encoder.bn, (name, "BatchNorm_0")
            yield encoder.mean, (name, "Conv_1")
            yield encoder.log_variance, (name, "Conv_2")
            for i, block in enumerate(encoder.blocks):
                for part in ("conv1", "bn1", "conv2", "bn2"):
                    yield getattr(block, part), (name, f"_Block_{i}", part)
                if block.downsample is not None:
                    yield block.downsample[0], (name, f"_Block_{i}", "downsample_conv")
                    yield block.downsample[1], (name, f"_Block_{i}", "downsample_bn")
        yield self.clf_s, ("signal_head",)
        yield self.clf_b, ("bias_head",)
        for place, block in enumerate(self.dec.blocks):
            i = place ^ 1  # the library names the second of a pair first
            layers = [block.conv1, block.conv2, *([] if block.shortcut is None else [block.shortcut[0]])]
            norms = [block.bn1, block.bn2]
            if block.shortcut is not None:
                norms[1:] = [block.shortcut[1], block.bn2]  # the shortcut is normalised before the sum
            for kind, of in (("Conv", layers), ("BatchNorm", norms)):
                for number, layer in enumerate(of):
                    yield layer, ("decoder", f"_UpBlock_{i}", f"{kind}_{number}")
        yield self.dec.last, ("decoder", "Conv_0")

    def values(self, params):
        """(torch parameter, the value of `params` in PyTorch's layout, its name)."""
        for layer, path in self.layers():
            node = params
            for name in path:
                node = node[name]
            weight = np.asarray(node.get("kernel", node.get("scale")))
            if weight.ndim == 4:
                weight = weight.transpose(3, 2, 0, 1)
            elif weight.ndim == 2:
                weight = weight.T
            yield layer.weight, torch.tensor(weight.copy()), "/".join((*path, "weight"))
            if layer.bias is not None:
                yield layer.bias, torch.tensor(np.asarray(node["bias"])), "/".join((*path, "bias"))

    def load(self, params):
        with torch.no_grad():
            for mine, theirs, _ in self.values(params):
                mine.copy_(theirs)

    def differences(self, params):
        return {name: float((mine - theirs).abs().max().detach()) for mine, theirs, name in self.values(params)}
