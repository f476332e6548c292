"""The authors' parameter names, as the golden files have them, to jbid's."""

from __future__ import annotations

import json

import jax.numpy as jnp
import numpy as np


def skip_params(weights: dict[str, np.ndarray], scales: int) -> dict:
    """Flax parameters of `jbid.nets.skip.Skip` from a PyTorch state of the published skip network."""
    params: dict[str, dict] = {}

    def conv(name, source):
        w = weights[f"{source}.weight"]
        params[name] = {"weight": jnp.asarray(w.transpose(2, 3, 1, 0)), "bias": jnp.asarray(weights[f"{source}.bias"])}

    def norm(name, source):
        params[name] = {k: jnp.asarray(weights[f"{source}.{t}"]) for k, t in (("scale", "weight"), ("bias", "bias"))}

    prefix = ""
    for i in range(scales):
        attention = any(key.startswith(f"{prefix}1.1.4.g.") for key in weights)
        after = 1 if attention else 0
        conv(f"skip{i}", f"{prefix}1.0.1.1"), norm(f"skip{i}_norm", f"{prefix}1.0.2")
        conv(f"down{i}", f"{prefix}1.1.1.1"), norm(f"down{i}_norm", f"{prefix}1.1.2")
        conv(f"deep{i}", f"{prefix}1.1.{4 + after}.1"), norm(f"deep{i}_norm", f"{prefix}1.1.{5 + after}")
        if attention:
            outer, params = params, {}
            conv("theta", f"{prefix}1.1.4.theta"), conv("phi", f"{prefix}1.1.4.phi.0")
            conv("g", f"{prefix}1.1.4.g.0"), conv("out", f"{prefix}1.1.4.W.0"), norm("norm", f"{prefix}1.1.4.W.1")
            outer[f"non_local{i}"], params = params, outer
        norm(f"merge{i}_norm", f"{prefix}2")
        conv(f"up{i}", f"{prefix}3.1"), norm(f"up{i}_norm", f"{prefix}4")
        conv(f"mix{i}", f"{prefix}6.1"), norm(f"mix{i}_norm", f"{prefix}7")
        prefix = f"{prefix}1.1.{7 + after}."
        if i == 0:
            conv("head", "9.1")
    return {"params": params}


def mlp_params(weights: dict[str, np.ndarray]) -> dict:
    """Flax parameters of `jbid.nets.mlp.KernelMLP` from the published kernel network's."""

    def linear(source):
        return {"weight": jnp.asarray(weights[f"{source}.weight"].T), "bias": jnp.asarray(weights[f"{source}.bias"])}

    return {"params": {"hidden0": linear("1"), "out": linear("3")}}


def drawn_weights(order: str, seed: int) -> dict[str, np.ndarray]:
    """The weights that a golden file names by `order` (name and shape of each, JSON) and `seed`: golden/README."""
    rng = np.random.default_rng(int(seed))
    weights = {}
    for name, shape in json.loads(order):
        if name.endswith("running_var"):
            value = rng.uniform(0.5, 1.5, shape)
        elif len(shape) >= 2:
            value = rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        else:
            value = 0.1 * rng.standard_normal(shape) + name.endswith("weight")
        weights[name] = np.asarray(value, np.float32)
    return weights


def _batch_norm(weights: dict[str, np.ndarray], source: str) -> tuple[dict, dict]:
    """Parameters and statistics of a batch norm."""
    at = {key: jnp.asarray(weights[f"{source}.{key}"]) for key in ("weight", "bias", "running_mean", "running_var")}
    return {"scale": at["weight"], "bias": at["bias"]}, {"mean": at["running_mean"], "var": at["running_var"]}


def generator_variables(weights: dict[str, np.ndarray]) -> dict:
    """Variables of `jbid.nets.kernel_gan.KernelGenerator` from the published generator's."""
    params, statistics = {}, {}
    sources = ("layer1.0", "layers.0.0", "layers.1.0", "layers.2")
    for i, source in enumerate(sources):
        # in, out, rows, columns
        params[f"convolutions_{i}"] = {"weight": jnp.asarray(weights[f"{source}.weight"].transpose(2, 3, 0, 1))}
    for i, source in enumerate(("layer1.1", "layers.0.1", "layers.1.1")):
        params[f"norms_{i}"], statistics[f"norms_{i}"] = _batch_norm(weights, source)
    return {"params": params, "batch_stats": statistics}


def discriminator_variables(weights: dict[str, np.ndarray]) -> dict:
    """Variables of `jbid.nets.kernel_gan.Discriminator` from the published discriminator's."""
    params, statistics = {}, {}
    for i, source in enumerate(("layers.0.0", "layers.1.0", "layers.2.0", "layers.3")):
        params[f"Convolution_{i}"] = {"weight": jnp.asarray(weights[f"{source}.weight"].transpose(2, 3, 1, 0))}
    for i, source in enumerate(("layers.1.1", "layers.2.1")):
        params[f"BatchNorm_{i}"], statistics[f"BatchNorm_{i}"] = _batch_norm(weights, source)
    return {"params": params, "batch_stats": statistics}


def encoder_variables(weights: dict[str, np.ndarray]) -> dict:
    """Variables of `jbid.nets.resnet.KernelEncoder` from the published initializer's."""

    def part(pairs):
        params, statistics = {}, {}
        for i, (conv, norm) in enumerate(pairs):
            params[f"Conv_{i}"] = {"kernel": jnp.asarray(weights[f"{conv}.weight"].transpose(2, 3, 1, 0))}
            params[f"BatchNorm_{i}"], statistics[f"BatchNorm_{i}"] = _batch_norm(weights, norm)
        return params, statistics

    params, statistics = part([("model.conv1", "model.bn1")])
    for i in range(8):
        source = f"model.layer{i // 2 + 1}.{i % 2}"
        pairs = [(f"{source}.conv{j}", f"{source}.bn{j}") for j in (1, 2)]
        if f"{source}.downsample.0.weight" in weights:
            pairs.append((f"{source}.downsample.0", f"{source}.downsample.1"))
        params[f"_Block_{i}"], statistics[f"_Block_{i}"] = part(pairs)
    head = {"weight": jnp.asarray(weights["model.fc.weight"].T), "bias": jnp.asarray(weights["model.fc.bias"])}
    return {"params": params | head, "batch_stats": statistics}


def wizard_variables(weights: dict[str, np.ndarray], front: int, back: int, blocks: int) -> dict:
    """Variables of `jbid.nets.kernel_wizard.KernelWizard` from the published operator family's."""

    def conv(source, kernel="kernel", transposed=False):
        w = weights[f"{source}.weight"].transpose(*((2, 3, 0, 1) if transposed else (2, 3, 1, 0)))
        bias = {"bias": jnp.asarray(weights[f"{source}.bias"])} if f"{source}.bias" in weights else {}
        return {kernel: jnp.asarray(w)} | bias

    def residual(source):
        return {f"Conv_{i}": conv(f"{source}.conv{i + 1}") for i in range(2)}

    e, k, r = "feature_extractor", "kernel_extractor.model", "recon_trunk"
    extractor = {"Conv_0": conv(f"{e}.0")}
    extractor |= {f"Convolution_{i}": conv(f"{e}.{2 * i + 2}", "weight") for i in range(2)}
    extractor |= {f"_Residual_{i}": residual(f"{e}.{6 + i}") for i in range(front)}
    kernels = {"Conv_0": conv(f"{k}.1")}
    kernels |= {f"Convolution_{i}": conv(f"{k}.{4 + 3 * i}", "weight") for i in range(5)}
    for i in range(blocks):
        kernels[f"_Mirrored_{i}"] = {f"Conv_{j}": conv(f"{k}.{19 + i}.conv_block.{1 + 4 * j}") for j in range(2)}
    adapter, level = {"Convolution_0": conv("adapter.model.down.0", "weight")}, "adapter.model"
    for i in range(1, 5):
        adapter[f"Transposed_{5 - i}"] = conv(f"{level}.up.1", "weight", True)
        level += ".submodule"
        adapter[f"Convolution_{i}"] = conv(f"{level}.down.1", "weight")
    adapter["Transposed_0"] = conv(f"{level}.up.1", "weight", True)
    reconstruction = {f"_Residual_{i}": residual(f"{r}.{i}") for i in range(back)}
    reconstruction |= {f"Conv_{i}": conv(f"{r}.{back + at}") for i, at in enumerate((0, 3, 6, 8))}
    parts = {"extractor": extractor, "kernels": kernels, "adapter": adapter, "reconstruction": reconstruction}
    return {"params": parts}
