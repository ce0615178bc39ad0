"""How each method of the papers' tables is trained, by the published protocol.

The runs of a method are one `train.sweep`. Test rows are only ever reported: see `Method.selection` for what chose the
weights.
"""

from jaxdebias.contracts import check_choice, expect
from jaxdebias.reproduce._colored_mnist import COLORED_MNIST
from jaxdebias.reproduce._corrupted_cifar10 import CORRUPTED_CIFAR10
from jaxdebias.reproduce._fitting import Method, Swept
from jaxdebias.train._schedule import (
    HELD_OUT_ACCURACY,
    Monitor,
    worst_class_accuracy,
    worst_group_accuracy,
)

METHODS: dict[str, dict[str, Method]] = {"colored-mnist": COLORED_MNIST, "corrupted-cifar10": CORRUPTED_CIFAR10}

SELECTIONS: dict[str, tuple[str, str, Monitor]] = {
    "plain": ("none", "best accuracy on a biased tenth of the training rows", HELD_OUT_ACCURACY),
    "worst-class": ("none", "best worst class on a biased tenth of the training rows", worst_class_accuracy(10)),
    "worst-group": (
        "a tenth of the training samples",
        "best worst group on a biased tenth of the training rows",
        worst_group_accuracy(10, 10),
    ),
}
"""What may choose the epoch in place of the protocol: (labels of the bias, in words, monitor)."""


def method_of(data: str, name: str) -> Method:
    """A method of a table: a name in `METHODS`, or with another choice of the epoch, `lff@worst-class`.

    Raises:
      ContractError: unknown names, or a method that is not trained by epochs alone.
    """
    name, _, selection = name.partition("@")
    check_choice("methods", name, METHODS[data])
    method = METHODS[data][name]
    if not selection:
        return method
    check_choice("methods", selection, SELECTIONS)
    expect(isinstance(method.fit, Swept), "methods", f"a method whose epoch can be chosen, before @{selection}", name)
    labels, words, monitor = SELECTIONS[selection]
    needs = labels if method.labels == "none" else method.labels
    return Method(needs, words, method.fit.selected(monitor))
