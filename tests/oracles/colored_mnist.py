"""Colored MNIST's attribute rule and colouring as loops over images."""

import numpy as np

# Published counts on MNIST's 60,000 training digits: conflicting share -> conflicting digits of class 0..9.
CONFLICTING = {
    0.005: (30, 34, 30, 30, 29, 27, 30, 31, 29, 30),
    0.01: (59, 67, 59, 61, 58, 54, 59, 63, 59, 59),
    0.02: (118, 135, 119, 123, 117, 108, 118, 125, 117, 119),
    0.05: (296, 337, 298, 306, 292, 271, 296, 314, 293, 297),
    0.1: (592, 674, 595, 613, 585, 542, 592, 626, 585, 595),
    0.2: (1185, 1349, 1192, 1226, 1168, 1084, 1184, 1253, 1170, 1190),
}
CLASS_SIZES = (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949)


def attribute_by_walking(label, aligned, attributes):
    """Goes through the images in order and moves to the next attribute when the class's milestone is reached."""
    label = [int(y) for y in label]
    milestones, seen, out = {}, {}, []
    for y in set(label):
        total, milestones[y] = 0.0, []
        for b in range(attributes):
            total += aligned if b == y else (1.0 - aligned) / (attributes - 1)
            milestones[y].append(round(total * label.count(y)))  # Python rounds half to even
        milestones[y][-1] = label.count(y)
    for y in label:
        i = seen.get(y, 0)
        seen[y] = i + 1
        out.append(next(b for b in range(attributes) if milestones[y][b] > i))
    return np.array(out)


def paint(gray, colour):
    """One grey image `[h w]` times one colour `[3]`, truncated."""
    out = np.zeros((*gray.shape, 3), np.uint8)
    for i in range(gray.shape[0]):
        for j in range(gray.shape[1]):
            for c in range(3):
                out[i, j, c] = int(np.float32(gray[i, j]) * np.float32(colour[c]))
    return out
