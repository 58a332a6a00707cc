"""GPT-2 and Llama in PyTorch, written as its users write them when they want speed.

Fused projections, scaled-dot-product attention, cross-entropy over every token, no dropout, the
head tied to the token embedding. Shapes are read from models/*.yaml.
"""
import re
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F


@dataclass
class Shape:
    family: str  # gpt2 or llama
    vocab: int
    positions: int
    layers: int
    width: int
    heads: int
    hidden: int
    kv_heads: int = 0  # 0 means heads
    theta: float = 10000.0


def read_shape(name):
    """The shape in models/NAME.yaml, so that both programs train the same model."""
    path = Path(__file__).resolve().parents[2] / "models" / f"{name}.yaml"
    values = dict(re.findall(r"^(\w+):\s*([\w.-]+)", path.read_text(), re.MULTILINE))
    if values["family"] not in ("gpt2", "llama"):
        raise ValueError(f"{path}: family {values['family']} is not written here in PyTorch")
    numbers = {f.name: int(values[f.name]) for f in fields(Shape)
               if f.type is int and f.name in values}
    shape = Shape(family=values["family"], **numbers)
    shape.kv_heads = shape.kv_heads or shape.heads
    return shape


class GPT2Block(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.heads = s.heads
        self.norm1 = nn.LayerNorm(s.width)
        self.qkv = nn.Linear(s.width, 3 * s.width)
        self.proj = nn.Linear(s.width, s.width)
        self.norm2 = nn.LayerNorm(s.width)
        self.up = nn.Linear(s.width, s.hidden)
        self.down = nn.Linear(s.hidden, s.width)

    def forward(self, x):
        B, T, C = x.shape
        q, k, v = (t.view(B, T, self.heads, C // self.heads).transpose(1, 2)
                   for t in self.qkv(self.norm1(x)).split(C, dim=2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(y.transpose(1, 2).reshape(B, T, C))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class GPT2(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.tokens = nn.Embedding(s.vocab, s.width)
        self.places = nn.Embedding(s.positions, s.width)
        self.blocks = nn.ModuleList(GPT2Block(s) for _ in range(s.layers))
        self.norm = nn.LayerNorm(s.width)
        self.head = nn.Linear(s.width, s.vocab, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, ids, targets):
        x = self.tokens(ids) + self.places.weight[: ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        logits = self.head(self.norm(x))
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


class LlamaBlock(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.heads, self.kv_heads, self.size = s.heads, s.kv_heads, s.width // s.heads
        self.norm1 = nn.RMSNorm(s.width, eps=1e-5)
        self.qkv = nn.Linear(s.width, (s.heads + 2 * s.kv_heads) * self.size, bias=False)
        self.proj = nn.Linear(s.width, s.width, bias=False)
        self.norm2 = nn.RMSNorm(s.width, eps=1e-5)
        self.gate_up = nn.Linear(s.width, 2 * s.hidden, bias=False)
        self.down = nn.Linear(s.hidden, s.width, bias=False)

    def rotate(self, x, cos, sin):
        a, b = x.chunk(2, dim=-1)
        return x * cos + torch.cat((-b, a), dim=-1) * sin

    def forward(self, x, cos, sin):
        B, T, C = x.shape
        heads = self.qkv(self.norm1(x)).view(B, T, -1, self.size).transpose(1, 2)
        q, k, v = heads.split((self.heads, self.kv_heads, self.kv_heads), dim=1)
        y = F.scaled_dot_product_attention(self.rotate(q, cos, sin), self.rotate(k, cos, sin), v,
                                           is_causal=True, enable_gqa=True)
        x = x + self.proj(y.transpose(1, 2).reshape(B, T, C))
        gate, up = self.gate_up(self.norm2(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)


class Llama(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.tokens = nn.Embedding(s.vocab, s.width)
        self.blocks = nn.ModuleList(LlamaBlock(s) for _ in range(s.layers))
        self.norm = nn.RMSNorm(s.width, eps=1e-5)
        self.head = nn.Linear(s.width, s.vocab, bias=False)
        self.head.weight = self.tokens.weight
        size = s.width // s.heads
        turns = s.theta ** -(torch.arange(0, size, 2) / size)
        angles = torch.outer(torch.arange(s.positions), torch.cat((turns, turns)))
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, ids, targets):
        x = self.tokens(ids)
        cos, sin = (t[: ids.shape[1]].to(x.dtype) for t in (self.cos, self.sin))
        for block in self.blocks:
            x = block(x, cos, sin)
        logits = self.head(self.norm(x))
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def build(name):
    """A model with random weights of deviation 0.02, as GPT-2 starts."""
    shape = read_shape(name)
    model = GPT2(shape) if shape.family == "gpt2" else Llama(shape)
    for parameter in model.parameters():
        if parameter.dim() >= 2:
            nn.init.normal_(parameter, std=0.02)
    return model, shape
