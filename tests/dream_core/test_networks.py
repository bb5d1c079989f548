"""Every network: sizes, initialisation, what is refused; and ConvNet's forward pass against the reference."""

import math

import pytest
import torch
from torch import nn

from dream_core.catalog import NETWORKS
from dream_core.errors import InvalidRecipe
from dream_core.networks import FACTORIES, ConvNet, build_network, evaluation_network, initialize, matched_network
from dream_core.networks.base import normalisation
from dream_core.recipes import EvaluationRecipe, convnet_depth, make_recipe
from tests.dream_core import reference

PUBLISHED = [
    ({"channels": 3, "classes": 10, "size": 32}, 320_010),
    ({"channels": 1, "classes": 10, "size": 28}, 317_706),
    ({"channels": 3, "classes": 100, "size": 32}, 504_420),
    ({"channels": 3, "classes": 200, "size": 64, "depth": 4}, 857_160),
    ({"channels": 3, "classes": 200, "size": 64, "depth": 3}, 1_938_120),
    ({"channels": 3, "classes": 10, "size": 128, "depth": 5}, 615_690),
    ({"channels": 3, "classes": 10, "size": 32, "depth": 1}, 331_530),
    ({"channels": 3, "classes": 10, "size": 32, "depth": 2}, 233_610),
    ({"channels": 3, "classes": 10, "size": 32, "depth": 4}, 452_490),
    ({"channels": 3, "classes": 10, "size": 32, "width": 32}, 24_714),
    ({"channels": 3, "classes": 10, "size": 32, "width": 64}, 86_282),
    ({"channels": 3, "classes": 10, "size": 32, "width": 256}, 1_229_834),
    ({"channels": 3, "classes": 10, "size": 32, "norm": "none"}, 319_242),
    ({"channels": 3, "classes": 10, "size": 32, "norm": "layer"}, 663_306),
    ({"channels": 3, "classes": 10, "size": 32, "pooling": "none"}, 1_610_250),
]


@pytest.mark.parametrize(("arguments", "count"), PUBLISHED)
def test_parameter_counts_are_the_published_ones(arguments, count):
    with torch.device("meta"):
        network = ConvNet(**arguments)
    assert sum(p.numel() for p in network.parameters()) == count


@pytest.mark.parametrize(("channels", "size", "depth"), [(1, 28, 3), (3, 32, 3), (3, 64, 4), (3, 128, 5)])
def test_embedding_has_2048_features(channels, size, depth):
    network = ConvNet(channels, 10, size, depth)
    assert network.embed(torch.zeros(2, channels, size, size)).shape == (2, 2048)


def test_mnist_is_padded_to_32_by_the_first_convolution():
    convolutions = [m for m in ConvNet(1, 10, 28).modules() if isinstance(m, nn.Conv2d)]
    assert [c.padding for c in convolutions] == [(3, 3), (1, 1), (1, 1)]


@pytest.mark.parametrize(("channels", "size", "depth"), [(1, 8, 1), (3, 8, 2), (1, 28, 3), (3, 12, 2), (3, 9, 1)])
def test_forward_equals_the_reference(channels, size, depth):
    torch.manual_seed(0)
    network = ConvNet(channels, 4, size, depth, width=5).double()
    for module in network.modules():  # scales and shifts that are not 1 and 0
        if isinstance(module, nn.GroupNorm):
            nn.init.uniform_(module.weight)
            nn.init.uniform_(module.bias)
    x = torch.randn(3, channels, size, size, dtype=torch.float64)
    weights = list(network.parameters())
    torch.testing.assert_close(network.embed(x), reference.features(weights, x), rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(network(x), reference.logits(weights, x), rtol=1e-9, atol=1e-11)


def test_instance_norm_is_learned_and_has_no_running_statistics():
    norms = [m for m in ConvNet(3, 10, 32).modules() if isinstance(m, nn.GroupNorm)]
    assert [(n.num_groups, n.num_channels, n.affine, n.eps) for n in norms] == [(128, 128, True, 1e-5)] * 3
    network = ConvNet(3, 10, 32, width=8)
    x = torch.randn(4, 3, 32, 32)
    assert torch.equal(network.train()(x), network.eval()(x))


@pytest.mark.parametrize("norm", ["instance", "group"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_group_norm_around_the_slow_kernel_is_group_norm(norm, layout):
    (ours,) = normalisation(norm, 8)
    theirs = nn.GroupNorm(ours.num_groups, 8)
    x = torch.randn(4, 8, 6, 6, dtype=torch.bfloat16).contiguous(memory_format=layout).requires_grad_()
    y = torch.randn(4, 8, 6, 6, dtype=torch.bfloat16)
    for module in (ours, theirs):
        nn.init.constant_(module.weight, 1.5)
        nn.init.constant_(module.bias, 0.5)
    found, expected = ours(x), theirs(x)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad((out * y).sum(), x)[0] for out in (found, expected)))


@pytest.mark.parametrize("norm", ["instance", "batch", "layer", "group", "none"])
@pytest.mark.parametrize("pooling", ["average", "max", "none"])
def test_variants_run(norm, pooling):
    network = ConvNet(3, 4, 16, depth=2, width=8, norm=norm, pooling=pooling, activation="leaky_relu")
    assert network(torch.randn(2, 3, 16, 16)).shape == (2, 4)


def test_initialisation_is_that_of_pytorch():
    """Uniform within ±1/√fan_in, weights and biases; normalisation at 1 and 0."""
    network = ConvNet(3, 10, 32)
    initialize(network, torch.Generator().manual_seed(0))
    pytorch = ConvNet(3, 10, 32)
    for ours, theirs in zip(network.modules(), pytorch.modules(), strict=True):
        if isinstance(ours, nn.Conv2d | nn.Linear):
            bound = 1 / math.sqrt(ours.weight[0].numel())
            for a, b in ((ours.weight.detach(), theirs.weight.detach()), (ours.bias.detach(), theirs.bias.detach())):
                assert float(a.abs().max()) <= bound
                assert float(b.abs().max()) <= bound
            assert ours.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
            assert theirs.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
        elif isinstance(ours, nn.GroupNorm):
            assert ours.weight.min().item() == ours.weight.max().item() == 1
            assert ours.bias.abs().max().item() == 0


def test_initialisation_is_decided_by_its_generator_alone():
    recipe = make_recipe("dream", "digits", 1)
    made = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        made.append(matched_network(recipe, 1, 10, torch.Generator().manual_seed(7), torch.device("cpu")))
    assert all(torch.equal(a, b) for a, b in zip(made[0].parameters(), made[1].parameters(), strict=True))
    other = matched_network(recipe, 1, 10, torch.Generator().manual_seed(8), torch.device("cpu"))
    assert not torch.equal(next(other.parameters()), next(made[0].parameters()))


@pytest.mark.parametrize(("dataset", "depth"), [("cifar10", 3), ("mnist", 3), ("tinyimagenet", 4)])
def test_depth_leaves_four_by_four(dataset, depth):
    recipe = make_recipe("idc", dataset, 1)
    assert recipe.depth == depth
    channels = 1 if dataset == "mnist" else 3
    network = matched_network(recipe, channels, 10, torch.Generator(), torch.device("cpu"))
    assert network.classifier.in_features == 2048


# ------------------------------------------------------------ all networks

CPU = torch.device("cpu")

# (name, channels, classes, size, norm): parameters
LAYOUTS = [
    (("mlp", 3, 10, 32, None), 411_146),
    (("mlp", 1, 10, 28, None), 118_282),
    (("lenet", 3, 10, 32, None), 62_006),
    (("lenet", 1, 10, 28, None), 61_706),
    (("alexnet", 3, 10, 32, "none"), 1_872_202),
    (("alexnet", 1, 10, 28, "none"), 1_865_802),
    (("alexnet", 3, 10, 32, "batch"), 1_872_202 + 1_920),
    (("alexnet", 1, 10, 28, "instance"), 1_865_802 + 1_920),
    (("vgg11", 3, 10, 32, "instance"), 9_231_114),
    (("vgg11", 3, 10, 32, "batch"), 9_231_114),
    (("vgg11", 1, 10, 28, "instance"), 9_229_962),
    (("resnet18", 3, 10, 32, "instance"), 11_173_962),
    (("resnet18", 3, 10, 32, "batch"), 11_173_962),
    (("resnet18", 1, 10, 28, "instance"), 11_172_810),
    (("resnet18_ap", 3, 10, 32, None), 11_250_762),
    (("resnet18_ap", 1, 10, 28, None), 11_213_770),
    (("resnet10_narrow", 3, 10, 32, "instance"), 1_228_970),
    (("resnet10_narrow", 3, 100, 32, "batch"), 1_252_100),
    (("resnet18_narrow", 3, 10, 32, "batch"), 2_797_610),
    (("resnet18_narrow", 3, 100, 32, "instance"), 2_820_740),
    (("resnet10", 3, 10, 32, None), 4_903_242),
    (("resnet10", 3, 200, 64, None), 5_000_712),
    (("resnetap10", 3, 10, 224, None), 4_910_922),
    (("resnetap10", 3, 100, 224, None), 4_957_092),
    (("densenet", 3, 10, 32, None), 1_000_618),
    (("densenet", 3, 100, 32, None), 1_035_268),
    (("alexcifarnet", 3, 10, 32, None), 1_756_426),
    (("torchvision:resnet18", 3, 1000, 224, None), 11_689_512),
    (("torchvision:resnet18", 3, 100, 32, None), 11_220_132),
    (("torchvision:resnet50", 3, 1000, 224, None), 25_557_032),
    (("torchvision:resnet101", 3, 1000, 224, None), 44_549_160),
    (("torchvision:vgg11_bn", 3, 1000, 224, None), 132_868_840),
    (("torchvision:densenet121", 1, 1000, 224, None), 7_978_856 - 2 * 64 * 49),
]

FEATURES = [
    ("mlp", 3, 32, 128),
    ("lenet", 3, 32, 84),
    ("alexnet", 3, 32, 3072),
    ("alexnet", 1, 28, 3072),
    ("vgg11", 1, 28, 512),
    ("vgg11", 3, 64, 512),
    ("resnet18", 3, 64, 512),
    ("resnet18_ap", 3, 32, 8192),
    ("resnet18_ap", 1, 28, 512 * 3 * 3),
    ("resnet10_narrow", 3, 32, 256),
    ("densenet", 3, 32, 384),
    ("alexcifarnet", 3, 32, 192),
    ("torchvision:resnet101", 3, 64, 2048),
    ("torchvision:vgg16_bn", 1, 32, 4096),
    ("torchvision:mobilenet_v2", 1, 64, 1280),
]

OWN = [name for name in NETWORKS if not name.startswith("torchvision:")]
# the others are of the same classes and too large to give them memory here
BUILT = [*OWN, *(f"torchvision:{name}" for name in ("resnet18", "densenet121", "mobilenet_v2", "efficientnet_b0"))]


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def build(name, channels=3, classes=4, size=None, seed=0, **options):
    return build_network(name, channels, classes, size or NETWORKS[name].smallest, seeded(seed), CPU, **options)


def weightless(name, channels, classes, size, norm=None):
    """The network on the meta device: shapes, no numbers."""
    norms = NETWORKS[name].norms
    options = {"norm": norm or norms[0]} if len(norms) > 1 else {}
    if name == "convnet":
        options["depth"] = convnet_depth(size)
    with torch.device("meta"):
        return FACTORIES[name](channels, classes, size, **options), torch.zeros(2, channels, size, size)


def usual(name):
    return 64 if name.startswith("torchvision:") else 32


def test_the_catalog_and_what_can_be_made_agree():
    assert list(FACTORIES) == list(NETWORKS)
    assert all(name == facts.name and facts.title and facts.source for name, facts in NETWORKS.items())


@pytest.mark.parametrize(("arguments", "count"), LAYOUTS)
def test_layouts_have_as_many_parameters_as_published(arguments, count):
    network, _ = weightless(*arguments)
    assert sum(p.numel() for p in network.parameters()) == count


@pytest.mark.parametrize(("name", "channels", "size", "width"), FEATURES)
def test_features_are_what_the_classifier_reads(name, channels, size, width):
    network, x = weightless(name, channels, 10, size)
    assert network.embed(x).shape == (2, width)
    assert network.classifier.in_features == width


@pytest.mark.parametrize(
    ("name", "size", "side"),
    [
        ("resnet10", 64, 8), ("resnet10", 65, 5), ("resnet10", 128, 8), ("resnet10", 224, 7),
        ("resnetap10", 64, 8), ("resnetap10", 128, 8), ("resnetap10", 224, 7),
        ("resnet10_narrow", 64, 8), ("resnet18", 28, 4), ("densenet", 28, 3), ("densenet", 64, 8),
    ],
)  # fmt: skip
def test_stems_and_stages_leave_the_published_side(name, size, side):
    network, x = weightless(name, 3, 10, size)
    assert network.features[:-1](x).shape[2:] == (side, side)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_normalisation_has_more_than_one_pixel(name):
    """Of a single value, instance norm leaves nothing, and PyTorch refuses it for a batch of one image."""
    facts = NETWORKS[name]
    for norm in facts.norms:
        for size in {facts.smallest, facts.smallest + 1, max(31, facts.smallest)}:
            network, x = weightless(name, 1, 4, size, norm)
            seen = []
            for module in network.modules():
                if isinstance(module, nn.GroupNorm | nn.BatchNorm2d | nn.LayerNorm):
                    module.register_forward_hook(lambda _, inputs, __, seen=seen: seen.append(inputs[0].shape[2:]))
            assert network.train()(x).shape == (2, 4)
            assert all(pixels.numel() > 1 for pixels in seen), (norm, size)
            assert bool(seen) == (norm != "none")


@pytest.mark.parametrize("name", BUILT)
@pytest.mark.parametrize("small", [True, False], ids=["smallest", "usual"])
def test_networks_train(name, small):
    """Logits are the classifier's of the features; every parameter gets a gradient; nothing draws from torch's RNG."""
    size = NETWORKS[name].smallest if small else usual(name)
    network = build(name, size=size).train()
    x = torch.randn(2, 3, size, size, generator=seeded(1))
    before = torch.get_rng_state()
    logits = network(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(logits, network.classifier(network.embed(x)), rtol=1e-4, atol=1e-4)
    assert torch.equal(torch.get_rng_state(), before)
    nn.functional.cross_entropy(logits, torch.tensor([0, 1])).backward()
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name


@pytest.mark.parametrize(("name", "norm"), [(name, norm) for name in OWN for norm in NETWORKS[name].norms])
def test_a_gradient_of_the_gradient_reaches_the_pixels(name, norm):
    """As matching takes it, from networks and images in channels-last layout."""
    side = max(8, NETWORKS[name].smallest)
    network = build(name, size=side, norm=norm).train()
    x = torch.randn(2, 3, side, side, generator=seeded(1)).to(memory_format=torch.channels_last).requires_grad_()
    loss = nn.functional.cross_entropy(network(x), torch.tensor([0, 1]))
    gradients = torch.autograd.grad(loss, list(network.parameters()), create_graph=True)
    (pixels,) = torch.autograd.grad(sum(g.square().sum() for g in gradients), x)
    assert pixels.isfinite().all()
    assert pixels.abs().max() > 0


@pytest.mark.parametrize("name", BUILT)
def test_weights_are_decided_by_the_generator_alone(name):
    """Not by the global one, nor by what was in the memory."""
    torch.manual_seed(1)
    before = torch.get_rng_state()
    network = build(name)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again = build(name)
    assert_same_state(network, again)
    again.to(memory_format=torch.contiguous_format)  # the layout that they are drawn in
    for value in [*again.parameters(), *again.buffers()]:
        value.detach().fill_(float("nan") if value.is_floating_point() else -7)
    initialize(again, seeded(0))
    assert_same_state(network, again)
    initialize(again, seeded(1))
    for one, other in zip(network.modules(), again.modules(), strict=True):
        if isinstance(one, nn.Conv2d | nn.Linear):
            assert not torch.equal(one.weight, other.weight)


@pytest.mark.parametrize("name", BUILT)
def test_state_survives_saving_and_loading(name):
    network, other = build(name, seed=1), build(name, seed=2)
    size = NETWORKS[name].smallest
    x = torch.randn(2, 3, size, size, generator=seeded(1))
    network.train()(x)  # running statistics move
    other.load_state_dict(network.state_dict())
    assert_same_state(network, other)
    assert torch.equal(network.eval()(x), other.eval()(x))


def assert_same_state(one, other):
    a, b = one.state_dict(), other.state_dict()
    assert list(a) == list(b)
    assert [key for key in a if not torch.equal(a[key], b[key])] == []


def test_the_convnet_draws_what_it_always_drew():
    """Weights, then biases, layer by layer: artifacts of earlier versions can be made again."""
    network = evaluation_network(EvaluationRecipe(), 3, 10, 32, seeded(7), CPU)
    generator = seeded(7)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            bound = 1 / math.sqrt(module.weight[0].numel())
            for drawn in (module.weight, module.bias):
                expected = torch.empty(drawn.shape).uniform_(-bound, bound, generator=generator)
                assert torch.equal(drawn.contiguous(), expected)
    recipe = make_recipe("idc", "cifar10", 1)
    assert_same_state(network, matched_network(recipe, 3, 10, seeded(7), CPU))
    assert_same_state(network, build("convnet", classes=10, size=32, seed=7))


@pytest.mark.parametrize("name", ["resnet10", "resnet10_narrow", "resnet18_narrow", "resnetap10"])
def test_the_resnets_of_idc_start_normal_by_what_leaves(name):
    for module in build(name).modules():
        if isinstance(module, nn.Conv2d):
            std = math.sqrt(2 / (module.kernel_size[0] ** 2 * module.out_channels))
            assert module.weight.std().item() == pytest.approx(std, rel=0.1)
            assert module.weight.abs().max() > 2.5 * std  # no uniform distribution


@pytest.mark.parametrize("name", ["vgg11", "resnet18", "densenet"])
def test_other_networks_start_as_pytorch_does(name):
    for module in build(name).modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            bound = 1 / math.sqrt(module.weight[0].numel())
            assert 0.9 * bound < module.weight.abs().max().item() <= bound


@pytest.mark.parametrize(("name", "how"), [("convnet", "xavier"), ("resnet10", "xavier"), ("alexcifarnet", "default")])
def test_the_initialisation_of_dd(name, how):
    for module in build(name, size=32, initialization=how).modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fans = module.weight[0].numel() + module.weight[:, 0].numel()
            assert module.weight.std().item() == pytest.approx(math.sqrt(2 / fans), rel=0.1)
            assert module.bias is None or module.bias.abs().max() == 0


@pytest.mark.parametrize("model", ["resnet18", "densenet121", "mobilenet_v2", "efficientnet_b0"])
def test_layouts_and_initialisations_of_torchvision(model):
    from torchvision.models import get_model

    ours = build(f"torchvision:{model}", classes=10, size=224)
    theirs = get_model(model, weights=None, num_classes=10)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert a.shape == b.shape
        if a.numel() > 2000:
            assert a.std().item() == pytest.approx(b.std().item(), rel=0.1)
            assert a.abs().max().item() == pytest.approx(b.abs().max().item(), rel=0.5)
    assert ours.classifier.bias.count_nonzero() == list(theirs.parameters())[-1].count_nonzero()


def test_what_no_rule_initialises_is_refused():
    unknown = nn.Sequential(nn.Linear(2, 2), nn.PReLU())
    with pytest.raises(RuntimeError, match="1, a PReLU"):
        initialize(unknown, seeded(0))
    with_buffer = nn.Module()
    with_buffer.register_buffer("mean", torch.zeros(2))
    with pytest.raises(RuntimeError, match="the network, a Module"):
        initialize(with_buffer, seeded(0))


@pytest.mark.parametrize(
    ("name", "options", "field", "told"),
    [
        ("resnet", {}, "network", "no network 'resnet'; known: convnet, mlp, .*torchvision:resnet18"),
        ("torchvision:alexnet", {}, "network", "known: convnet"),
        ("vgg11", {"norm": "layer"}, "network", "no norm 'layer'; use instance or batch"),
        ("lenet", {"norm": "batch"}, "network", "use none"),
        ("lenet", {"size": 8}, "network", "16 pixels or more, not 8; use convnet, mlp, alexnet"),
        ("convnet", {"size": 1}, "network", "2 pixels or more, not 1; use mlp"),
        ("convnet", {"size": 8, "depth": 4}, "depth", "4 poolings leave nothing of 8 pixels; use at most 3"),
        ("convnet", {"size": 8, "activation": "tanh"}, "activation", "use relu or sigmoid"),
        ("convnet", {"size": 8, "pooling": "sum"}, "pooling", "use average or max or none"),
        ("mlp", {"initialization": "zero"}, "initialization", "use default or xavier"),
    ],
)
def test_what_does_not_fit_is_refused(name, options, field, told):
    with pytest.raises(InvalidRecipe, match=told) as error:
        build_network(name, 3, 10, options.pop("size", 32), seeded(0), CPU, **options)
    assert [where for where, _ in error.value.problems] == [f"params.{field}"]


def test_options_of_the_convnet_reach_it():
    network = build("convnet", size=16, depth=2, width=8, norm="none", activation="swish", pooling="max")
    kinds = [type(module) for module in network.features]
    assert kinds == [nn.Conv2d, nn.SiLU, nn.MaxPool2d] * 2
    assert network.classifier.in_features == 8 * 4 * 4
    assert isinstance(build("convnet", size=8, depth=7, pooling="none", width=4), ConvNet)
