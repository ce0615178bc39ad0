"""Networks behind `Classifier`. Builders return the same object for equal arguments."""

from jaxdebias.models._cnn import cnn, pooled_cnn
from jaxdebias.models._conv import conv_general_dilated, max_pool
from jaxdebias.models._mlp import mlp
from jaxdebias.models._patch_net import PatchNet, patch_net
from jaxdebias.models._registry import build
from jaxdebias.models._resnet import resnet
from jaxdebias.models._resnet_cifar import resnet20
from jaxdebias.models._torchvision_weights import load_resnet
from jaxdebias.models._two_encoders import TwoEncoders, mlp_two_encoders, resnet_two_encoders
from jaxdebias.models._vae import Branches, mlp_vae, resnet_vae
from jaxdebias.models._vae_classifier import Encoding, VaeClassifier, vae_classifier
from jaxdebias.models._vit import attention_weights, vit

__all__ = [
    "Branches",
    "Encoding",
    "PatchNet",
    "TwoEncoders",
    "VaeClassifier",
    "attention_weights",
    "build",
    "cnn",
    "conv_general_dilated",
    "load_resnet",
    "max_pool",
    "mlp",
    "mlp_two_encoders",
    "mlp_vae",
    "patch_net",
    "pooled_cnn",
    "resnet",
    "resnet20",
    "resnet_two_encoders",
    "resnet_vae",
    "vae_classifier",
    "vit",
]
