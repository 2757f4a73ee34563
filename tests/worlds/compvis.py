"""The networks of CompVis/latent-diffusion written out as equations, for checking the conversion against them.

Evaluating one on `Weights()` creates random weights under the original names on the way, so the same lines define the
checkpoint's layout and its outputs. Source: latent-diffusion, openaimodel.py, attention.py, model.py, quantize.py.
"""

import math

import torch
import torch.nn.functional as F


class Weights(dict):
    """Original name -> tensor; an absent one is drawn with the variance that keeps activations near 1."""

    def __init__(self, seed=0):
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)

    def of(self, name, *shape):
        if name not in self:
            fan_in = math.prod(shape[1:])
            value = torch.randn(shape, generator=self.generator, dtype=torch.float64)
            norm_or_bias = len(shape) == 1
            self[name] = (name.endswith("weight") + 0.1 * value) if norm_or_bias else value / math.sqrt(fan_in)
        assert tuple(self[name].shape) == shape, name
        return self[name]


def conv(w, name, x, channels, size=3, stride=1, padding=1):
    return F.conv2d(
        x,
        w.of(f"{name}.weight", channels, x.shape[1], size, size),
        w.of(f"{name}.bias", channels),
        stride=stride,
        padding=padding,
    )


def linear(w, name, x, channels, bias=True):
    return F.linear(x, w.of(f"{name}.weight", channels, x.shape[-1]), w.of(f"{name}.bias", channels) if bias else None)


def norm(w, name, x, eps):
    c = x.shape[1]
    return F.group_norm(x, 32, w.of(f"{name}.weight", c), w.of(f"{name}.bias", c), eps)


def timestep_embedding(t, dim):
    frequencies = torch.exp(-math.log(10000) * torch.arange(dim // 2, dtype=torch.float64) / (dim // 2))
    angles = t[:, None].double() * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def residual_block(w, name, x, embedding, channels):
    h = conv(w, f"{name}.in_layers.2", F.silu(norm(w, f"{name}.in_layers.0", x, 1e-5)), channels)
    h = h + linear(w, f"{name}.emb_layers.1", F.silu(embedding), channels)[:, :, None, None]
    h = conv(w, f"{name}.out_layers.3", F.silu(norm(w, f"{name}.out_layers.0", h, 1e-5)), channels)
    return h + (x if x.shape[1] == channels else conv(w, f"{name}.skip_connection", x, channels, 1, padding=0))


def self_attention(w, name, x, head_channels=32):
    """QKVAttentionLegacy: heads are split before q, k, v."""
    b, c, height, width = x.shape
    flat = norm(w, f"{name}.norm", x, 1e-5).reshape(b, c, -1)
    qkv = F.conv1d(flat, w.of(f"{name}.qkv.weight", 3 * c, c, 1), w.of(f"{name}.qkv.bias", 3 * c))
    heads = c // head_channels
    q, k, v = qkv.reshape(b * heads, 3 * head_channels, -1).split(head_channels, dim=1)
    weight = torch.einsum("bct,bcs->bts", q, k).div(math.sqrt(head_channels)).softmax(-1)
    a = torch.einsum("bts,bcs->bct", weight, v).reshape(b, c, -1)
    a = F.conv1d(a, w.of(f"{name}.proj_out.weight", c, c, 1), w.of(f"{name}.proj_out.bias", c))
    return x + a.reshape(x.shape)


def cross_attention(w, name, x, context):
    """One head of all channels."""
    c = x.shape[-1]
    q, k, v = (
        linear(w, f"{name}.to_{letter}", source, c, bias=False) for letter, source in (("q", x), ("k", context), ("v", context))
    )
    weight = (q @ k.transpose(1, 2) / math.sqrt(c)).softmax(-1)
    return linear(w, f"{name}.to_out.0", weight @ v, c)


def layer_norm(w, name, x):
    c = x.shape[-1]
    return F.layer_norm(x, (c,), w.of(f"{name}.weight", c), w.of(f"{name}.bias", c))


def spatial_transformer(w, name, x, context):
    b, c, height, width = x.shape
    h = conv(w, f"{name}.proj_in", norm(w, f"{name}.norm", x, 1e-6), c, 1, padding=0)
    h = h.reshape(b, c, -1).transpose(1, 2)
    block = f"{name}.transformer_blocks.0"
    normed = layer_norm(w, f"{block}.norm1", h)
    h = h + cross_attention(w, f"{block}.attn1", normed, normed)
    h = h + cross_attention(w, f"{block}.attn2", layer_norm(w, f"{block}.norm2", h), context)
    value, gate = linear(w, f"{block}.ff.net.0.proj", layer_norm(w, f"{block}.norm3", h), 8 * c).chunk(2, dim=-1)
    h = h + linear(w, f"{block}.ff.net.2", value * F.gelu(gate), c)
    return x + conv(w, f"{name}.proj_out", h.transpose(1, 2).reshape(x.shape), c, 1, padding=0)


def unet(w, x, t, channels, context=None, attention=(False, True), blocks=2):
    """UNetModel on levels of `channels`; `context` (B, L, D) makes it class-conditional."""

    def attend(name, h):
        return self_attention(w, name, h) if context is None else spatial_transformer(w, name, h, context)

    width = 4 * channels[0]
    emb = linear(w, "time_embed.2", F.silu(linear(w, "time_embed.0", timestep_embedding(t, channels[0]), width)), width)
    h = conv(w, "input_blocks.0.0", x, channels[0])
    skips, i = [h], 1
    for level, c in enumerate(channels):
        for _ in range(blocks):
            h = residual_block(w, f"input_blocks.{i}.0", h, emb, c)
            h = attend(f"input_blocks.{i}.1", h) if attention[level] else h
            skips, i = [*skips, h], i + 1
        if level < len(channels) - 1:
            h = conv(w, f"input_blocks.{i}.0.op", h, c, stride=2)
            skips, i = [*skips, h], i + 1
    h = residual_block(w, "middle_block.0", h, emb, channels[-1])
    h = residual_block(w, "middle_block.2", attend("middle_block.1", h), emb, channels[-1])
    i = 0
    for level, c in reversed(list(enumerate(channels))):
        for block in range(blocks + 1):
            h = residual_block(w, f"output_blocks.{i}.0", torch.cat([h, skips.pop()], dim=1), emb, c)
            h = attend(f"output_blocks.{i}.1", h) if attention[level] else h
            if level and block == blocks:
                h = F.interpolate(h, scale_factor=2, mode="nearest")
                h = conv(w, f"output_blocks.{i}.{2 if attention[level] else 1}.conv", h, c)
            i += 1
    return conv(w, "out.2", F.silu(norm(w, "out.0", h, 1e-5)), x.shape[1])


def vq_residual_block(w, name, x, channels):
    h = conv(w, f"{name}.conv1", F.silu(norm(w, f"{name}.norm1", x, 1e-6)), channels)
    h = conv(w, f"{name}.conv2", F.silu(norm(w, f"{name}.norm2", h, 1e-6)), channels)
    return h + (x if x.shape[1] == channels else conv(w, f"{name}.nin_shortcut", x, channels, 1, padding=0))


def vq_middle(w, name, x):
    c = x.shape[1]
    h = vq_residual_block(w, f"{name}.block_1", x, c)
    normed = norm(w, f"{name}.attn_1.norm", h, 1e-6)
    q, k, v = (conv(w, f"{name}.attn_1.{letter}", normed, c, 1, padding=0).flatten(2) for letter in "qkv")  # (B, C, T)
    weight = (q.transpose(1, 2) @ k / math.sqrt(c)).softmax(-1)
    a = (v @ weight.transpose(1, 2)).reshape(h.shape)
    return vq_residual_block(w, f"{name}.block_2", h + conv(w, f"{name}.attn_1.proj_out", a, c, 1, padding=0), c)


def vq_encode(w, x, channels, latent=3, blocks=2):
    h = conv(w, "encoder.conv_in", x, channels[0])
    for level, c in enumerate(channels):
        for block in range(blocks):
            h = vq_residual_block(w, f"encoder.down.{level}.block.{block}", h, c)
        if level < len(channels) - 1:
            h = conv(w, f"encoder.down.{level}.downsample.conv", F.pad(h, (0, 1, 0, 1)), c, stride=2, padding=0)
    h = vq_middle(w, "encoder.mid", h)
    h = conv(w, "encoder.conv_out", F.silu(norm(w, "encoder.norm_out", h, 1e-6)), latent)
    return conv(w, "quant_conv", h, latent, 1, padding=0)


def vq_decode(w, z, channels, codes=64, blocks=2):
    """Nearest codebook entry, then the decoder."""
    book = w.of("quantize.embedding.weight", codes, z.shape[1])
    flat = z.permute(0, 2, 3, 1).reshape(-1, z.shape[1])
    nearest = book[(flat[:, None] - book[None]).square().sum(-1).argmin(1)]
    z = nearest.reshape(z.shape[0], *z.shape[2:], z.shape[1]).permute(0, 3, 1, 2)
    h = conv(w, "decoder.conv_in", conv(w, "post_quant_conv", z, z.shape[1], 1, padding=0), channels[-1])
    h = vq_middle(w, "decoder.mid", h)
    for level, c in reversed(list(enumerate(channels))):
        for block in range(blocks + 1):
            h = vq_residual_block(w, f"decoder.up.{level}.block.{block}", h, c)
        if level:
            h = conv(w, f"decoder.up.{level}.upsample.conv", F.interpolate(h, scale_factor=2, mode="nearest"), c)
    return conv(w, "decoder.conv_out", F.silu(norm(w, "decoder.norm_out", h, 1e-6)), 3)
