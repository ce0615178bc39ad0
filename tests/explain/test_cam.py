"""Maps of every class: against the written definitions, PyTorch's hooks and autograd, closed forms and each other."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import cams
from precision import enable_x64

from jaxdebias.contracts import ContractError
from jaxdebias.core import Split
from jaxdebias.explain import _cam as cam
from jaxdebias.explain import class_maps
from jaxdebias.explain._cam import METHODS
from jaxdebias.explain.maps import as_published

RNG = np.random.default_rng(0)
N, K = 3, 5
X = RNG.normal(size=(N, 8, 8, 3)).astype(np.float32)
LABEL = np.array([4, 0, 2], np.int32)


def draw(*shape):
    return (1.5 * RNG.normal(size=shape) / np.sqrt(np.prod(shape[:-1]))).astype(np.float32)


PARAMS = {
    "conv1": draw(3, 3, 3, 4),
    "bias1": draw(4),
    "conv2": draw(3, 3, 4, 20),
    "mix": draw(20, 6),
    "kernel": draw(6, K),
    "bias": draw(K),
}


def convolved(z, kernel, stride):
    return jax.lax.conv_general_dilated(
        z, kernel, (stride, stride), [(1, 1), (1, 1)], dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def lower(params, x):  # [n 8 8 4], more pixels than channels, no negative values
    return jax.nn.relu(convolved(x, params["conv1"], 1) + params["bias1"][None, None, None])


def middle(params, z):  # [n 4 4 20], fewer pixels than channels, some values negative
    return jax.nn.silu(convolved(z, params["conv2"], 2))


def top(params, z):
    return jnp.tanh(z.mean((1, 2)) @ params["mix"]) @ params["kernel"] + params["bias"][None]


EARLY = Split(lower, lambda params, z: top(params, middle(params, z)))
LATE = Split(lambda params, x: middle(params, lower(params, x)), top)


@functools.cache
def layer_of(split):
    """Logits, the layer's output and the whole Jacobian `[n k h w c]` by it, as NumPy arrays."""

    def values(params, x):
        z = split.features(params, x)
        jacobian = jax.vmap(jax.jacrev(lambda one: split.head(params, one[None])[0]))(z)
        return split.head(params, z), z, jacobian

    return jax.tree.map(np.asarray, jax.jit(values)(PARAMS, X))


def wanted(split, method):
    """Signed maps of the logits `[n k h w]`."""
    _, z, jacobian = layer_of(split)
    return np.stack([[cams.cam(method, z[i], jacobian[i, k]) for k in range(K)] for i in range(N)])


@functools.cache
def signed(split, target, methods=tuple(METHODS)):
    """Several methods in one program."""
    run = jax.jit(
        lambda params, x: {
            method: class_maps(split, params, x, method=method, target=target, relu=False) for method in methods
        }
    )
    return jax.tree.map(np.asarray, run(PARAMS, X))


def close(got, want, atol=2e-5):
    """To the scale of the maps."""
    assert got.shape == want.shape
    size = np.abs(want).max()
    assert size > 0
    np.testing.assert_allclose(got / size, want / size, atol=atol, rtol=0)


@pytest.mark.parametrize("split", [EARLY, LATE], ids=["early", "late"])
@pytest.mark.parametrize("method", METHODS)
def test_maps_are_their_definitions(split, method):
    logits, maps = signed(split, "logit")[method]
    np.testing.assert_allclose(logits, layer_of(split)[0], rtol=1e-5, atol=1e-6)
    close(maps, wanted(split, method))


def test_the_absolute_logit_turns_the_maps_of_negative_ones():
    logits, z, jacobian = layer_of(EARLY)
    assert (logits < 0).any()
    assert (logits > 0).any()
    turned = np.sign(logits)[:, :, None, None, None] * jacobian
    for method, (_, maps) in signed(EARLY, "abs", ("gradcam", "elementwise")).items():
        close(maps, np.stack([[cams.cam(method, z[i], turned[i, k]) for k in range(K)] for i in range(N)]))


def test_the_default_is_the_papers_without_negative_values():
    logits, maps = class_maps(LATE, PARAMS, X)
    assert maps.dtype == jnp.float32
    want = np.maximum(np.sign(layer_of(LATE)[0])[:, :, None, None] * wanted(LATE, "gradcam"), 0)
    close(np.asarray(maps), want)
    np.testing.assert_allclose(logits, layer_of(LATE)[0], rtol=1e-5, atol=1e-6)


def test_one_map_per_image():
    logits = layer_of(LATE)[0]
    every = signed(LATE, "logit")["gradcam"].maps
    got = jax.jit(
        lambda params, x, label: (
            class_maps(LATE, params, x, target="predicted", relu=False).maps,
            class_maps(LATE, params, x, target="label", label=label, relu=False).maps,
            class_maps(LATE, params, x, target="logit", classes=(3, 0), relu=False).maps,
            class_maps(LATE, params, x, target=lambda z: z[:, :1] - z[:, 1:2], relu=False).maps,
        )
    )(PARAMS, X, LABEL)
    rows = np.arange(N)
    close(np.asarray(got[0]), every[rows, logits.argmax(1)][:, None])
    close(np.asarray(got[1]), every[rows, LABEL][:, None])
    close(np.asarray(got[2]), every[:, [3, 0]])
    close(np.asarray(got[3]), every[:, :1] - every[:, 1:2])


def test_average_pooling_and_an_affine_head_have_a_closed_form():
    z = np.abs(RNG.normal(size=(2, 3, 4, 6))).astype(np.float32)
    kernel = draw(6, 4)
    split = Split(lambda params, x: x, lambda params, z: z.mean((1, 2)) @ params)
    want = np.einsum("nhwc,ck->nkhw", z.astype(np.float64), kernel) / 12
    for method in ("gradcam", "hirescam"):
        close(np.asarray(class_maps(split, kernel, z, method=method, target="logit", relu=False).maps), want)
    loop = [
        class_maps(split, kernel, z, target=lambda logits, k=k: logits[:, k : k + 1], relu=False).maps for k in range(4)
    ]
    close(np.concatenate(loop, axis=1), want)


def arrays_of(jaxpr):
    """Sizes and names of everything that the program and its inner programs compute."""
    for eqn in jaxpr.eqns:
        for var in eqn.outvars:
            yield eqn.primitive.name, getattr(var.aval, "size", 0)
        for value in jax.tree.leaves(eqn.params, is_leaf=lambda leaf: hasattr(leaf, "eqns") or hasattr(leaf, "jaxpr")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from arrays_of(inner)


LARGEST = N * 4 * 4 * 20  # values of a target's gradients: those of the layer above the early one, which has 4/5 of it


def test_chunks_change_memory_and_no_map():
    chunk = 2  # of five targets: the last chunk is a smaller one
    run = functools.partial(class_maps, EARLY, method="gradcam++", target="logit", relu=False, chunk=chunk)
    close(np.asarray(run(PARAMS, X).maps), signed(EARLY, "logit")["gradcam++"].maps, atol=1e-6)
    assert max(size for _, size in arrays_of(jax.make_jaxpr(run)(PARAMS, X).jaxpr)) == chunk * LARGEST
    assert chunk * LARGEST < K * N * 8 * 8 * 4  # no gradient of all classes
    whole = jax.make_jaxpr(functools.partial(run, chunk=None))(PARAMS, X).jaxpr
    assert max(size for _, size in arrays_of(whole)) == K * LARGEST


def test_without_a_chunk_memory_is_bounded_all_the_same(monkeypatch):
    monkeypatch.setattr(cam, "CHUNK_VALUES", 3 * N * 8 * 8 * 4)
    run = functools.partial(class_maps, EARLY, method="xgradcam", target="logit")
    assert max(size for _, size in arrays_of(jax.make_jaxpr(run)(PARAMS, X).jaxpr)) == 3 * LARGEST


def test_the_forward_pass_runs_once():
    names = [name for name, _ in arrays_of(jax.make_jaxpr(functools.partial(class_maps, EARLY))(PARAMS, X).jaxpr)]
    # Two of the forward pass, and for all classes together one that pulls back through the second.
    assert names.count("conv_general_dilated") == 3


def test_the_same_layer_and_options_compile_once():
    split = Split(lambda params, x: x, lambda params, z: z.mean((1, 2)) @ params)
    before = cam._class_maps._cache_size()
    for seed in range(3):
        rng = np.random.default_rng(seed)
        class_maps(split, draw(3, 2), rng.normal(size=(2, 2, 2, 3)).astype(np.float32), method="layercam")
    assert cam._class_maps._cache_size() == before + 1


@pytest.mark.slow
def test_models_can_be_mapped_over():
    two = jax.tree.map(lambda leaf: jnp.stack([leaf, 0.5 * leaf]), PARAMS)
    run = functools.partial(class_maps, LATE, target="logit", relu=False)
    maps, want = jax.jit(
        lambda two: (
            jax.vmap(lambda params: run(params, X).maps)(two),
            jnp.stack([run(jax.tree.map(lambda leaf, i=i: leaf[i], two), X).maps for i in range(2)]),
        )
    )(two)
    close(np.asarray(maps[0]), np.asarray(want[0]))
    close(np.asarray(maps[1]), np.asarray(want[1]))


def test_half_precision_layers_give_float32_maps():
    split = Split(lambda params, x: x.astype(jnp.bfloat16), lambda params, z: z.astype(jnp.float32).mean((1, 2)))
    assert jax.eval_shape(functools.partial(class_maps, split), None, X).maps.dtype == jnp.float32


@pytest.mark.slow
@pytest.mark.parametrize("split", [EARLY, LATE], ids=["early", "late"])
def test_maps_have_derivatives(split):
    direction = jax.tree.map(lambda leaf: RNG.normal(size=leaf.shape), PARAMS)
    methods = ("gradcam", "gradcam++", "eigengradcam")
    weight = RNG.normal(size=(len(methods), N, K, 1, 1))
    with enable_x64(True):
        params = jax.tree.map(lambda leaf: leaf.astype(np.float64), PARAMS)

        @jax.jit
        def penalty(params):
            maps = [class_maps(split, params, X.astype(np.float64), method=method, chunk=2).maps for method in methods]
            return sum((w * m**2).sum() for w, m in zip(weight, maps, strict=True))

        def at(t):
            return float(penalty(jax.tree.map(lambda leaf, d: leaf + t * d, params, direction)))

        pulled = jax.grad(penalty)(params)
        slope = sum(jax.tree.leaves(jax.tree.map(lambda p, d: float((p * d).sum()), pulled, direction)))
        assert abs(slope) > 1e-3
        np.testing.assert_allclose(slope, (at(1e-6) - at(-1e-6)) / 2e-6, rtol=1e-5)


def test_an_empty_picture_has_finite_maps_and_derivatives():
    split = Split(lambda params, x: x * params["s"], lambda params, z: z.mean((1, 2)) @ params["w"])
    params = {"s": jnp.ones((1, 1, 1, 3)), "w": draw(3, 2)}

    def total(params):
        zeros = jnp.zeros((1, 2, 2, 3))
        return sum(
            class_maps(split, params, zeros, method=method, target="logit").maps.sum()
            for method in ("gradcam++", "eigengradcam")
        )

    value, slope = jax.jit(jax.value_and_grad(total))(params)
    assert value == 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slope))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "grad-cam"}, "did you mean 'gradcam'"),
        ({"target": "labels", "label": LABEL}, "did you mean 'label'"),
        ({"target": "label"}, "`label`: expected labels with target='label'"),
        ({"label": LABEL}, "`label`: expected None with target='abs'"),
        ({"target": "label", "label": LABEL[:2]}, r"`label`: expected int \[n=3\]"),
        ({"target": "label", "label": LABEL + 1}, r"`label`: expected values in 0..4, got 1..5"),
        ({"classes": (0, 5)}, "`classes`: expected values in 0..4, got 5"),
        ({"classes": ()}, "`classes`: expected at least one"),
        ({"classes": (0,), "target": "predicted"}, "`classes`: expected None with target='predicted'"),
        ({"target": lambda logits: logits[:, 0]}, "`target`: expected scores"),
        ({"chunk": 0}, "`chunk`: expected at least 1"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(ContractError, match=message):
        class_maps(LATE, PARAMS, X, **options)


def test_layers_without_maps_are_named():
    vector = Split(lambda params, x: x.mean((1, 2)), lambda params, z: z)
    with pytest.raises(ContractError, match=r"`layer`: expected features \[n h w c\], got float32 \[3, 3\]"):
        class_maps(vector, PARAMS, X)


# PyTorch: the same weights, hooks and autograd as everyone writes them.


def torch_network(torch):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.conv2 = torch.nn.Conv2d(3, 4, 3, 1, 1), torch.nn.Conv2d(4, 20, 3, 2, 1, bias=False)
            self.relu, self.silu = torch.nn.ReLU(), torch.nn.SiLU()
            self.mix, self.head = torch.nn.Linear(20, 6, bias=False), torch.nn.Linear(6, K)

        def forward(self, x):
            z = self.silu(self.conv2(self.relu(self.conv1(x))))
            return self.head(torch.tanh(self.mix(z.mean((2, 3)))))

    net = Net().eval()
    with torch.no_grad():
        for name in ("conv1", "conv2"):
            getattr(net, name).weight.copy_(torch.tensor(PARAMS[name].transpose(3, 2, 0, 1)))
        net.conv1.bias.copy_(torch.tensor(PARAMS["bias1"]))
        net.mix.weight.copy_(torch.tensor(PARAMS["mix"].T))
        net.head.weight.copy_(torch.tensor(PARAMS["kernel"].T))
        net.head.bias.copy_(torch.tensor(PARAMS["bias"]))
    return net, torch.tensor(X.transpose(0, 3, 1, 2))


def hooked(torch, net, layer, x, score):
    """Logits, output and gradient `[n h w c]` of one layer by a forward hook, for a sum of scores."""
    kept = []
    handle = layer.register_forward_hook(lambda module, inputs, out: kept.append(out) or out.retain_grad())
    logits = net(x)
    score(logits).sum().backward()
    handle.remove()
    return logits.detach().numpy(), *(t.detach().numpy().transpose(0, 2, 3, 1) for t in (kept[0], kept[0].grad))


@pytest.mark.slow
@pytest.mark.parametrize("target", ["logit", "abs"])
@pytest.mark.parametrize(("split", "name"), [(EARLY, "relu"), (LATE, "silu")])
def test_maps_are_those_of_hooks_in_pytorch(torch, split, name, target):
    net, x = torch_network(torch)
    for k in range(K):
        logits, a, g = hooked(
            torch, net, getattr(net, name), x, lambda z, k=k: z[:, k] if target == "logit" else z[:, k].abs()
        )
        for method in METHODS:
            ours = signed(split, target)[method]
            np.testing.assert_allclose(ours.logits, logits, atol=2e-5)
            close(ours.maps[:, k], np.stack([cams.cam(method, a[i], g[i]) for i in range(N)]))


@pytest.mark.slow
@pytest.mark.parametrize("target", ["logit", "abs"])
@pytest.mark.parametrize(("split", "name"), [(EARLY, "relu"), (LATE, "silu")])
def test_maps_are_those_of_the_package(torch, split, name, target):
    package = pytest.importorskip("pytorch_grad_cam")
    net, x = torch_network(torch)
    theirs = {
        "gradcam": package.GradCAM,
        "gradcam++": package.GradCAMPlusPlus,
        "xgradcam": package.XGradCAM,
        "hirescam": package.HiResCAM,
        "layercam": package.LayerCAM,
        "elementwise": package.GradCAMElementWise,
        "eigencam": package.EigenCAM,
        "eigengradcam": package.EigenGradCAM,
    }
    for method, build in theirs.items():
        with build(net, [getattr(net, name)]) as explain:
            for k in range(K):
                want = explain(x, [lambda z, k=k: z[k] if target == "logit" else z[k].abs()] * N)
                raw = signed(split, target)[method].maps[:, k]
                got = np.asarray(as_published(raw, 8))
                if "eigen" in method:  # theirs may be the other sign, for each image
                    other = np.asarray(as_published(-raw, 8))
                    flip = np.abs(other - want).max((1, 2)) < np.abs(got - want).max((1, 2))
                    got = np.where(flip[:, None, None], other, got)
                np.testing.assert_allclose(got, want, atol=2e-5, err_msg=f"{method}, class {k}")


@pytest.mark.slow
def test_a_ported_resnet_has_the_same_maps(torch):
    from oracles.torch_resnet import random_resnet

    from jaxdebias.models import load_resnet, resnet

    images = np.random.default_rng(1).uniform(size=(2, 96, 96, 3)).astype(np.float32)
    net, ours = random_resnet(18, 6), resnet(depth=18, classes=6)
    shapes = jax.eval_shape(ours.init, jax.random.key(0), images)
    params = load_resnet(
        {name: value.numpy() for name, value in net.state_dict().items()},
        jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes),
    )
    normalised = (images - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    x = torch.tensor(normalised.transpose(0, 3, 1, 2).astype(np.float32))
    methods = [method for method in METHODS if "eigen" not in method]
    got = jax.jit(
        lambda params, x: {
            method: as_published(class_maps(ours.spatial, params, x, method=method).maps) for method in methods
        }
    )(params, images)
    for k in range(6):
        _, a, g = hooked(torch, net, net.layer4, x, lambda z, k=k: z[:, k].abs())
        for method in methods:
            want = np.stack([cams.published(cams.cam(method, a[i], g[i])) for i in range(2)])
            np.testing.assert_allclose(got[method][:, k], want, atol=1e-5, err_msg=f"{method}, class {k}")
