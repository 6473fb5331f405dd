"""One contract for every network, found by listing conf/model, and the golden parameter counts."""

import io

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from segnet.cli import CONF_DIR
from segnet.configuration import instantiate
from segnet.networks.pooling import max_pool
from segnet.networks.segnet import SegNet, SegNetBasic, SegNetCompact, Stage, count_parameters, enable_mc_dropout

NETWORKS = sorted(path.stem for path in (CONF_DIR / "model").glob("*.yaml"))
VGG16 = (64, 128, 256, 512, 512)


def build(name, num_classes=1):
    """The network of conf/model/<name>.yaml, as Hydra composes it."""
    config = OmegaConf.load(CONF_DIR / "model" / f"{name}.yaml")
    for parent in config.pop("defaults", []):
        config = OmegaConf.merge(OmegaConf.load(CONF_DIR / "model" / f"{parent}.yaml"), config)
    config.data = {"num_classes": num_classes}
    torch.manual_seed(0)
    return instantiate(config.net, "net")


STOCK = ("deeplabv3plus", "segformer_b0", "unet")  # theirs want multiples of 32
SLOW = ("segnet_vgg16", "ddrnet23_slim", *STOCK)


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in NETWORKS])
def test_contract(name):
    net = build(name, num_classes=3).to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, *((64, 96) if name in STOCK else (45, 67)))
    out = net(x)
    assert out.shape == (2, 3, *x.shape[-2:])
    out.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())

    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    twin = build(name, num_classes=3)
    twin.load_state_dict(torch.load(file, weights_only=True))
    net.eval(), twin.eval()
    with torch.no_grad():
        torch.testing.assert_close(twin(x), net(x), rtol=1e-4, atol=1e-4)
        with torch.autocast("cpu", torch.bfloat16):
            assert net(x).isfinite().all()


@pytest.mark.parametrize("name", NETWORKS)
def test_no_network_waits_for_a_gpu(name):
    """The meta device has no values: whatever reads one, for which a GPU would be waited for, fails there."""
    net = build(name, num_classes=3).to("meta")
    net(torch.empty(2, 3, 64, 96, device="meta")).sum().backward()
    assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize(
    ("net", "count"),
    [
        (lambda: SegNet(1), 3_087_185),
        (lambda: SegNetCompact(1), 3_087_297),
        (lambda: SegNet(2, VGG16, bias=True), 29_444_162),
        (lambda: SegNet(11, VGG16, bias=True), 29_449_355),
        (lambda: SegNet(19, VGG16, bias=True), 29_453_971),
        (lambda: SegNetBasic(11), 1_416_587),
        (lambda: SegNet(1, dropout=0.5), 3_087_185),
    ],
)
def test_golden_parameter_counts(net, count):
    assert count_parameters(net()) == count


def test_default_has_26_convolutions_in_vgg16s_stages():
    net = build("segnet")
    stages = [sum(isinstance(m, nn.Conv2d) for m in stage) for stage in net.encoder]
    assert stages == [2, 2, 3, 3, 3]
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 26
    assert {m.kernel_size for m in convolutions} == {(3, 3)}
    assert convolutions[-1].out_channels == 1


def layers(stage):
    """The layers of a stage in short: 3x3 is a convolution, N a batch norm, R a ReLU, D a dropout."""
    names = {nn.BatchNorm2d: "N", nn.ReLU: "R", nn.Dropout: "D"}
    flat = [m for m in stage.modules() if not list(m.children()) and not isinstance(m, nn.Identity)]
    return " ".join(names.get(type(m)) or "{}x{}".format(*m.kernel_size) for m in flat if type(m) is not Stage)


BLOCK = "3x3 N R"


@pytest.mark.parametrize(
    ("net", "encoder", "middle", "decoder", "classifier", "pooled"),
    [
        (SegNet, [" ".join([BLOCK] * n) for n in (2, 2, 3, 3, 3)], "",
         [f"{BLOCK} {BLOCK} {BLOCK} D"] * 3 + [f"{BLOCK} {BLOCK}", BLOCK], "3x3", [2, 3, 4]),
        # The paper, section 3: no ReLU in the decoder of Basic; Bayesian SegNet, section 3: dropout at the centre.
        (SegNetBasic, ["7x7 N R"] * 4, "", ["7x7 N D"] * 2 + ["7x7 N"] * 2, "1x1", [2, 3]),
        (SegNetCompact, [f"{BLOCK} {BLOCK}"] * 4, f"{BLOCK} 1x1",
         [f"{BLOCK} 3x3 N D"] * 2 + [f"{BLOCK} 3x3 N"] * 2, "1x1", [2, 3]),
    ],
)  # fmt: skip
def test_layers_are_the_papers(net, encoder, middle, decoder, classifier, pooled):
    made = net(2, dropout=0.5)
    assert [layers(stage) for stage in made.encoder] == encoder
    assert layers(made.middle) == middle
    assert [layers(stage) for stage in made.decoder] == decoder
    assert layers(made.classifier) == classifier
    assert [i for i, m in enumerate(made.pooled_dropout) if isinstance(m, nn.Dropout)] == pooled
    assert {m.p for m in made.modules() if isinstance(m, nn.Dropout)} == {0.5}
    assert not any(isinstance(m, nn.Dropout) for m in net(2).modules())
    for conv in [m for m in made.modules() if isinstance(m, nn.Conv2d)]:
        assert conv.padding == (conv.kernel_size[0] // 2,) * 2
        assert (conv.bias is None) == (net is SegNet and conv is not made.classifier)
        assert conv.bias is None or not conv.bias.any()


def test_widths_are_the_stages_channels():
    assert [stage[0].out_channels for stage in SegNet(1).encoder] == [16, 32, 80, 152, 184]
    assert [stage[0].out_channels for stage in SegNetCompact(1).encoder] == [32, 64, 128, 256]
    assert {stage[0].out_channels for stage in SegNetBasic(1, width=5).encoder} == {5}


@pytest.mark.parametrize("name", ["segnet", "segnet_basic", "segnet_compact", "ddrnet23_slim", "lmffnet"])
@pytest.mark.parametrize("size", [(32, 32), (33, 63), (100, 47)])
def test_any_size_comes_back(name, size):
    net = build(name).eval()
    with torch.no_grad():
        assert net(torch.randn(1, 3, *size)).shape == (1, 1, *size)


@pytest.mark.parametrize("size", [(31, 64), (64, 16)])
def test_too_small_is_a_clear_error(size):
    with pytest.raises(ValueError, match=rf"image is {size[0]}×{size[1]}: height and width must be at least 32"):
        build("segnet")(torch.randn(1, 3, *size))


def test_he_initialisation_keeps_the_signal():
    torch.manual_seed(0)
    net = SegNet(1)
    for module in net.modules():
        if isinstance(module, nn.Conv2d) and module is not net.classifier:
            expected = (2 / module.weight[0].numel()) ** 0.5
            assert module.weight.std().item() == pytest.approx(expected, rel=0.15)


def test_a_binary_network_starts_from_rare_defects():
    torch.manual_seed(0)
    with torch.no_grad():
        probability = SegNet(1)(torch.randn(2, 3, 64, 64)).sigmoid()
        logits = SegNet(3)(torch.randn(2, 3, 64, 64))
    assert probability.mean().item() == pytest.approx(0.05, abs=0.01)
    assert logits.mean().item() == pytest.approx(0, abs=0.1)
    for classes in (1, 3):
        net = SegNet(classes)
        assert net.classifier.weight.std().item() == pytest.approx(0.01, rel=0.2)
        assert net.classifier.bias.tolist() == pytest.approx([np.log(0.05 / 0.95)] if classes == 1 else [0] * 3)


def test_unpooling_uses_the_matching_stage():
    """Zeros outside the positions of the encoder's maxima, by hand for the outermost stage."""
    net = build("segnet").eval()
    seen = {}
    net.encoder[0].register_forward_hook(lambda m, i, o: seen.update(encoded=o))
    net.decoder[-1].register_forward_pre_hook(lambda m, i: seen.update(unpooled=i[0]))
    with torch.no_grad():
        net(torch.randn(1, 3, 33, 40))
    _, code = max_pool(seen["encoded"])
    unpooled, code = seen["unpooled"][0].numpy(), code[0].numpy()
    for c, i, j in np.ndindex(code.shape):
        window = unpooled[c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].ravel().copy()
        window[code[c, i, j]] = 0
        assert not window.any()
    assert not unpooled[:, 32:].any()


@pytest.mark.slow
def test_pretrained_fills_the_encoder_layer_by_layer(monkeypatch):
    import torchvision

    torch.manual_seed(3)
    source = torchvision.models.vgg16_bn()  # random weights instead of the download
    for module in source.features.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
    monkeypatch.setattr(torchvision.models, "vgg16_bn", lambda weights: source)
    net = SegNet(2, VGG16, bias=True, pretrained=True).eval()
    source.eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = source.features(x)
        for stage in net.encoder:
            x, _ = max_pool(stage(x))
    torch.testing.assert_close(x, expected)


def test_pretrained_refuses_other_widths():
    with pytest.raises(ValueError, match="use model=segnet_vgg16"):
        SegNet(1, pretrained=True)


def test_dropout_sits_around_the_central_stages_and_wakes_for_samples():
    net = build("bayesian_segnet").eval()
    assert [isinstance(m, nn.Dropout) for m in net.pooled_dropout] == [False, False, True, True, True]
    assert [len(stage) == 2 and isinstance(stage[1], nn.Dropout) for stage in net.decoder] == [True] * 3 + [False] * 2
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(net(x), net(x))
        assert enable_mc_dropout(net) == 6
        assert not torch.equal(net(x), net(x))


@pytest.mark.parametrize("widths", [(3, 4, 5, 6, 7), (3, 3, 3, 3, 3), (8, 3, 4, 4, 4), (1, 1, 1, 1, 1)])
def test_stages_mirror_each_other_whatever_their_widths(widths):
    """Three channels are the image's in the first stage only."""
    net = SegNet(2, widths)
    shapes = [[(m.in_channels, m.out_channels) for m in s if isinstance(m, nn.Conv2d)] for s in net.decoder]
    for level, (stage, back) in enumerate(zip(net.encoder, reversed(shapes), strict=True)):
        forth = [(m.in_channels, m.out_channels) for m in stage if isinstance(m, nn.Conv2d)]
        mirrored = [(out, into) for into, out in reversed(forth)]
        assert back == (mirrored if level > 0 else mirrored[:-1])
    x = torch.randn(1, 3, 32, 40, requires_grad=True)
    net(x).sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("network", [SegNet, SegNetBasic, SegNetCompact])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "num_classes=0: must be an integer of at least 1; set data.num_classes"),
        ({"num_classes": 1.5}, "num_classes=1.5: must be an integer"),
        ({"num_classes": "two"}, "num_classes=two: must be an integer"),
        ({"num_classes": 1, "dropout": 1.0}, r"dropout=1.0: must lie in \[0, 1\)"),
        ({"num_classes": 1, "dropout": -0.1}, r"dropout=-0.1: must lie in \[0, 1\)"),
        ({"num_classes": 1, "dropout": float("nan")}, r"dropout=nan: must lie in \[0, 1\)"),
        ({"num_classes": 1, "dropout": None}, r"dropout=None: must lie in \[0, 1\)"),
    ],
)
def test_bad_arguments(network, arguments, message):
    with pytest.raises(ValueError, match=message):
        network(**arguments)


@pytest.mark.parametrize("widths", [(8, 8), 8, (8, 8, 8, 8, 0), (8, 8, 8, 8, 8.5), "12345", (8, 8, 8, 8, True)])
def test_bad_widths(widths):
    with pytest.raises(ValueError, match=r"widths=.*: must be 5 positive channel counts"):
        SegNet(1, widths)


@pytest.mark.parametrize("width", [0, -4, 2.5, "8", None])
def test_bad_width(width):
    with pytest.raises(ValueError, match=f"width={width}: must be a positive number of channels"):
        SegNetBasic(1, width)
