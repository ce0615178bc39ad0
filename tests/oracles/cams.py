"""Class activation maps, their resizing and attention rollout, slowly and in float64, from the written definitions."""

import numpy as np


def cam(method, a, g):
    """The signed map `[h w]` of one image: layer's output a `[h w c]`, gradient of one target by it g `[h w c]`."""
    h, w, c = a.shape
    a, g = np.asarray(a, np.float64), np.asarray(g, np.float64)
    out = np.zeros((h, w))
    if method in ("eigencam", "eigengradcam"):
        return principal(a if method == "eigencam" else g * a)
    for channel in range(c):
        ac, gc = a[:, :, channel], g[:, :, channel]
        if method == "hirescam":
            out += gc * ac
        elif method == "layercam":
            out += np.maximum(gc, 0) * ac
        elif method == "elementwise":
            out += np.maximum(gc * ac, 0)
        elif method == "gradcam":
            out += gc.mean() * ac
        elif method == "xgradcam":
            out += (gc * ac).sum() / (ac.sum() + 1e-7) * ac
        elif method == "gradcam++":
            weight = 0.0
            for v in gc.ravel():
                alpha = v**2 / (2 * v**2 + ac.sum() * v**3 + 1e-6) if v != 0 else 0.0
                weight += max(v, 0.0) * alpha
            out += weight * ac
    return out


def principal(m):
    """First principal component over pixels by a full SVD, correlated non-negatively with the sum over channels."""
    h, w, c = m.shape
    rows = m.reshape(h * w, c)
    rows = rows - rows.mean(axis=0)
    projection = rows @ np.linalg.svd(rows)[2][0]
    if np.corrcoef(projection, m.sum(axis=-1).ravel())[0, 1] < 0:
        projection = -projection
    return projection.reshape(h, w)


def triangle(size, new):
    """`[new size]`: linear interpolation with half-pixel centres, its triangle as wide as an output pixel."""
    scale = size / new
    weights = np.zeros((new, size))
    for i in range(new):
        for j in range(size):
            weights[i, j] = max(0.0, 1 - abs((j + 0.5) - (i + 0.5) * scale) / max(scale, 1.0))
    return weights / weights.sum(axis=1, keepdims=True)


def resized(image, h, w):
    return triangle(image.shape[0], h) @ np.asarray(image, np.float64) @ triangle(image.shape[1], w).T


def published(image, h=None, w=None):
    """Attention-IoU's chain on one map: the package's ReLU and scaling around the resizing, then the code's own."""

    def scaled(one):
        one = one - one.min()
        return one / (1e-7 + one.max())

    image = scaled(np.maximum(np.asarray(image, np.float64), 0))
    image = image if h is None else resized(image, h, w)
    return np.clip(scaled(scaled(np.maximum(image, 0))), 0, 1)


def rollout(attention, fuse):
    """`[n t-1]` from weights `[layers n heads t t]`; fuse: heads `[heads t t]` -> `[t t]`."""
    layers, n, _, t, _ = attention.shape
    rows = []
    for i in range(n):
        product = np.eye(t)
        for layer in range(layers):
            a = 0.5 * (fuse(attention[layer, i], axis=0) + np.eye(t))
            product = (a / a.sum(axis=1, keepdims=True)) @ product
        rows.append(product[0, 1:])
    return np.stack(rows)
