"""Which training samples taught the model its bias: influence on any bias, for the last layer or any block."""

from jaxdebias.explain.influence._block import BlockHead, find_block
from jaxdebias.explain.influence._class_blocks import ClassBlocks
from jaxdebias.explain.influence._conjugate_gradient import ConjugateGradient, Jacobi, Nystroem
from jaxdebias.explain.influence._cut import Where, last_layers, layers_in_order, paths
from jaxdebias.explain.influence._dense import BinaryFactor, Dense, Factor, FactorInfo
from jaxdebias.explain.influence._ekfac import Ekfac
from jaxdebias.explain.influence._find_head import find_head
from jaxdebias.explain.influence._functionals import (
    HeadRows,
    demographic_parity,
    equal_opportunity,
    equalised_odds,
    subset_loss,
)
from jaxdebias.explain.influence._inverse import InverseHessian, Solution, Solver, residual
from jaxdebias.explain.influence._lanczos import Lanczos
from jaxdebias.explain.influence._lissa import Lissa
from jaxdebias.explain.influence._objective import (
    AffineHead,
    HeadPairs,
    HeadProblem,
    bias_gradient,
    each_pair_gradient,
    head_gradient,
    head_logits,
    head_loss,
    head_problem,
    hessian,
    hessian_product,
    pair_bias,
    pair_gap,
    pair_gradient,
    to_head,
    to_vector,
)
from jaxdebias.explain.influence._program import Mix
from jaxdebias.explain.influence._refit import RefitInfo, refit
from jaxdebias.explain.influence._scores import change_if_removed, change_if_replaced, top_harmful, top_helpful
from jaxdebias.explain.influence._solvers import factor, load, save

__all__ = [
    "AffineHead",
    "BinaryFactor",
    "BlockHead",
    "ClassBlocks",
    "ConjugateGradient",
    "Dense",
    "Ekfac",
    "Factor",
    "FactorInfo",
    "HeadPairs",
    "HeadProblem",
    "HeadRows",
    "InverseHessian",
    "Jacobi",
    "Lanczos",
    "Lissa",
    "Mix",
    "Nystroem",
    "RefitInfo",
    "Solution",
    "Solver",
    "Where",
    "bias_gradient",
    "change_if_removed",
    "change_if_replaced",
    "demographic_parity",
    "each_pair_gradient",
    "equal_opportunity",
    "equalised_odds",
    "factor",
    "find_block",
    "find_head",
    "head_gradient",
    "head_logits",
    "head_loss",
    "head_problem",
    "hessian",
    "hessian_product",
    "last_layers",
    "layers_in_order",
    "load",
    "pair_bias",
    "pair_gap",
    "pair_gradient",
    "paths",
    "refit",
    "residual",
    "save",
    "subset_loss",
    "to_head",
    "to_vector",
    "top_harmful",
    "top_helpful",
]
