"""Small classic networks for 32x32 images, without batch norm."""

from __future__ import annotations

from torch import nn

from cbir.training.network.backbones.plan import Chain, refuse_factors, scaled

HIDDEN, LAYERS = 1024, 2


def mlp(size: int, width: float, depth: int) -> Chain:
    """A multilayer perceptron of the pixels: `depth` hidden layers of 1,024 units times `width`."""
    units = scaled(HIDDEN, width)
    return Chain(
        size,
        _hidden(3 * size * size, units),
        *(_hidden(units, units) for _ in range((depth or LAYERS) - 1)),
    )


def lenet(size: int, width: float, depth: int) -> Chain:
    """Two 5x5 convolutions with pooling and two hidden layers.

    After LeNet-5 (LeCun et al., "Gradient-based learning applied to document recognition", 1998),
    with ReLU, max pooling, and six times its convolution channels.
    """
    refuse_factors("lenet", 1.0, depth)
    first, second, third, fourth = (scaled(count, width) for count in (36, 96, 240, 168))
    side = ((size - 4) // 2 - 4) // 2
    return Chain(
        size,
        nn.Sequential(_convolution(3, first, 5), nn.MaxPool2d(2)),
        nn.Sequential(_convolution(first, second, 5), nn.MaxPool2d(2)),
        _hidden(second * side * side, third),
        _hidden(third, fourth),
    )


def alexnet(size: int, width: float, depth: int) -> Chain:
    """Five convolutions and two hidden layers with dropout.

    After AlexNet (Krizhevsky et al., "ImageNet classification with deep convolutional neural
    networks", 2012), for small images: stride 1, a 5x5 filter first, 2x2 pooling, and hidden layers
    of 1,024 units.
    """
    refuse_factors("alexnet", 1.0, depth)
    one, two, three, four = (scaled(count, width) for count in (64, 192, 384, 256))
    units, side = scaled(HIDDEN, width), size // 8
    return Chain(
        size,
        nn.Sequential(_convolution(3, one, 5, 2), nn.MaxPool2d(2)),
        nn.Sequential(_convolution(one, two, 5, 2), nn.MaxPool2d(2)),
        _convolution(two, three, 3, 1),
        _convolution(three, four, 3, 1),
        nn.Sequential(_convolution(four, four, 3, 1), nn.MaxPool2d(2)),
        nn.Sequential(_hidden(four * side * side, units), nn.Dropout(0.5)),
        _hidden(units, units),
    )


def _convolution(channels_in: int, channels_out: int, kernel: int, padding: int = 0) -> nn.Module:
    return _with_relu(nn.Conv2d(channels_in, channels_out, kernel, padding=padding))


def _hidden(units_in: int, units: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), *_with_relu(nn.Linear(units_in, units)))


def _with_relu(layer: nn.Conv2d | nn.Linear) -> nn.Sequential:
    """The layer and ReLU, started so that activations keep their size (He et al. 2015)."""
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return nn.Sequential(layer, nn.ReLU())
