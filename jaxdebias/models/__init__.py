"""Networks behind `Classifier`. Builders return the same object for equal arguments."""

from jaxdebias.models.cnn import cnn
from jaxdebias.models.conv import conv_general_dilated, max_pool
from jaxdebias.models.mlp import mlp
from jaxdebias.models.registry import build
from jaxdebias.models.resnet import resnet
from jaxdebias.models.torchvision_weights import load_resnet

__all__ = ["build", "cnn", "conv_general_dilated", "load_resnet", "max_pool", "mlp", "resnet"]
