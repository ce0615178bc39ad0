"""Networks by the name that a user types on the command line. Code imports the builders."""

import functools
import inspect
from typing import Any

from jaxdebias.contracts import check_choice
from jaxdebias.core import Classifier
from jaxdebias.models._cnn import cnn, pooled_cnn
from jaxdebias.models._mlp import mlp
from jaxdebias.models._resnet import resnet
from jaxdebias.models._resnet_cifar import resnet20
from jaxdebias.models._vit import vit

BUILDERS = {
    "mlp": mlp,
    "cnn": cnn,
    "pooled-cnn": pooled_cnn,
    "resnet20": resnet20,
    "resnet18": functools.partial(resnet, depth=18),
    "resnet50": functools.partial(resnet, depth=50),
    "vit": vit,
}


def build(name: str, **options: Any) -> Classifier:
    """The classifier called `name`, with the builder's own keyword options.

    >>> build("mlp", classes=2) is mlp(classes=2)
    True
    >>> build("resnet-18")
    Traceback (most recent call last):
    jaxdebias.contracts.ContractError: `model`: expected one of ..., got 'resnet-18' (did you mean 'resnet18'?)
    """
    check_choice("model", name, BUILDERS)
    for option in options:
        check_choice(f"option of {name}", option, inspect.signature(BUILDERS[name]).parameters)
    return BUILDERS[name](**options)
