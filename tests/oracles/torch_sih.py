"""Signal is Harder on Colored MNIST in PyTorch, written from the description of the method and nothing else.

Images are `[n c h w]` floats in [0, 1]. `load` takes the variables of `jaxdebias.models.mlp_vae`, NHWC.
"""

import functools

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


class Encoder(nn.Module):
    def __init__(self, inputs, hidden, latent):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(inputs, hidden), nn.Linear(hidden, hidden)
        self.mean, self.log_variance = nn.Linear(hidden, latent), nn.Linear(hidden, latent)

    def forward(self, x):
        h = F.relu(self.fc2(F.relu(self.fc1(x.flatten(1)))))
        return self.mean(h), self.log_variance(h)


class Sih(nn.Module):
    def __init__(self, image=(3, 28, 28), hidden=100, latent=100, decoder=(512, 1024), classes=10):
        super().__init__()
        inputs = int(np.prod(image))
        self.image = image
        self.enc_s, self.enc_b = Encoder(inputs, hidden, latent), Encoder(inputs, hidden, latent)
        self.clf_s, self.clf_b = nn.Linear(latent, classes), nn.Linear(latent, classes)
        self.dec = nn.Sequential(
            nn.Linear(2 * latent, decoder[0]), nn.ReLU(), nn.Linear(*decoder), nn.ReLU(), nn.Linear(decoder[1], inputs)
        )

    def terms(self, x, y, noise_s, noise_b, q=0.7, gamma=0.7, kind="bernoulli"):
        """Per row: weighted CE of S and of B, reconstruction and KL per pixel (not yet times their weights)."""
        (m_s, v_s), (m_b, v_b) = self.enc_s(x), self.enc_b(x)
        z_s = m_s + (torch.exp(v_s / 2) + 1e-8) * noise_s
        z_b = m_b + (torch.exp(v_b / 2) + 1e-8) * noise_b
        logits_s, logits_b = self.clf_s(F.relu(z_s)), self.clf_b(F.relu(z_b))
        p_b = torch.softmax(logits_b, 1).gather(1, y[:, None])[:, 0].detach()
        pixels = self.dec(torch.cat([z_s, z_b], 1))
        flat = x.flatten(1)
        if kind == "bernoulli":
            rec = F.binary_cross_entropy_with_logits(pixels, flat, reduction="none").mean(1)
        else:
            rec = ((torch.sigmoid(pixels) - flat) ** 2).mean(1)
        m, v = torch.cat([m_s, m_b], 1), torch.cat([v_s, v_b], 1)
        kl = -0.5 * (1 + v - m**2 - torch.exp(v)).sum(1) / flat.shape[1]
        signal = (1 - p_b) ** gamma * F.cross_entropy(logits_s, y, reduction="none")
        bias = p_b**q * F.cross_entropy(logits_b, y, reduction="none")
        return signal, bias, rec, kl

    def loss(self, *args, reconstruction_weight=100.0, kl_weight=1.0, **settings):
        signal, bias, rec, kl = self.terms(*args, **settings)
        return (signal + bias + reconstruction_weight * rec + kl_weight * kl).mean()

    def layers(self):
        """(module, path in `mlp_vae`'s params, which side of its kernel is an image: "in", "out" or "")."""
        for name, encoder in (("signal", self.enc_s), ("bias", self.enc_b)):
            yield encoder.fc1, (name, "Affine_0"), "in"
            yield encoder.fc2, (name, "Affine_1"), ""
            yield encoder.mean, (name, "mean"), ""
            yield encoder.log_variance, (name, "log_variance"), ""
        yield self.clf_s, ("signal_head",), ""
        yield self.clf_b, ("bias_head",), ""
        for i in range(3):
            yield self.dec[2 * i], ("decoder", f"Affine_{i}"), "out" if i == 2 else ""

    def channels_first(self):
        """Which NHWC pixel the i-th NCHW pixel is."""
        c, h, w = self.image
        return np.arange(h * w * c).reshape(h, w, c).transpose(2, 0, 1).ravel()

    def load(self, params):
        order = self.channels_first()
        for layer, path, image in self.layers():
            node = functools.reduce(lambda tree, name: tree[name], path, params)
            kernel, bias = np.asarray(node["kernel"]), np.asarray(node["bias"])
            kernel = kernel[order] if image == "in" else kernel[:, order] if image == "out" else kernel
            bias = bias[order] if image == "out" else bias
            with torch.no_grad():
                layer.weight.copy_(torch.tensor(kernel.T.copy()))
                layer.bias.copy_(torch.tensor(bias))

    def differences(self, params):
        """The largest absolute difference of each layer's weights from those of `params`."""
        other = type(self)(
            self.image,
            self.enc_s.fc1.out_features,
            self.clf_s.in_features,
            (self.dec[0].out_features, self.dec[2].out_features),
            self.clf_s.out_features,
        )
        other.load(params)
        pairs = zip(self.named_parameters(), other.parameters(), strict=True)
        return {name: float((mine - theirs).abs().max().detach()) for (name, mine), theirs in pairs}
