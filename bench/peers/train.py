"""Training steps of a small LLaMA in PyTorch, for bench/train.ts to stand beside.

  python3 train.py '{"threads": 2, "ternary": false, "dim": 256, "layers": 6, "heads": 8, "ffn": 688,
                     "vocabulary": 4096, "time": 256, "batch": 8}'

Prints PyTorch's version; then, for every number of steps that comes in on a line, the seconds of each step as JSON.
Float32, AdamW, RMSNorm, RoPE (neighbours), SwiGLU, no bias, untied head; the ternary linear layers train straight through.
"""

import json
import math
import sys
import time

import torch
from torch.nn.functional import cross_entropy, embedding, linear, silu

shape = json.loads(sys.argv[1])
torch.set_num_threads(shape["threads"])
torch.manual_seed(0)
dim, heads, ffn, vocabulary = shape["dim"], shape["heads"], shape["ffn"], shape["vocabulary"]
length, batch = shape["time"], shape["batch"]
head_dim = dim // heads


def weight(rows, cols):
    return torch.nn.Parameter(torch.randn(rows, cols) * 0.02)


def gain():
    return torch.nn.Parameter(torch.ones(dim))


table, last_gain, head = weight(vocabulary, dim), gain(), weight(vocabulary, dim)
blocks = [
    dict(
        attention_gain=gain(), qkv=weight(3 * dim, dim), out=weight(dim, dim),
        ffn_gain=gain(), gate=weight(ffn, dim), up=weight(ffn, dim), down=weight(dim, ffn),
    )
    for _ in range(shape["layers"])
]
parameters = [table, last_gain, head] + [w for block in blocks for w in block.values()]
optimizer = torch.optim.AdamW(parameters, lr=1e-3)

positions, pairs = torch.arange(length).float(), torch.arange(0, head_dim, 2)
angles = torch.outer(positions, 10000.0 ** (-pairs / head_dim))
cosines, sines = angles.cos(), angles.sin()
unseen = torch.full((length, length), -1e9).triu(1)


def project(x, w):
    if shape["ternary"]:
        scale = w.abs().mean() + 1e-5
        levels = (w / scale).round().clamp(-1, 1) * scale
        w = w + (levels - w).detach()
    return linear(x, w)


def norm(x, g):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * g


def rope(x):
    first, second = x[..., ::2], x[..., 1::2]
    return torch.stack((first * cosines - second * sines, first * sines + second * cosines), -1).flatten(-2)


def forward(ids):
    x = embedding(ids, table)
    for w in blocks:
        qkv = project(norm(x, w["attention_gain"]), w["qkv"])
        q, k, v = qkv.view(batch, length, 3, heads, head_dim).permute(2, 0, 3, 1, 4)
        weights = (rope(q) @ rope(k).transpose(-1, -2) / math.sqrt(head_dim) + unseen).softmax(-1)
        x = x + project((weights @ v).transpose(1, 2).reshape(batch, length, dim), w["out"])
        h = norm(x, w["ffn_gain"])
        x = x + project(silu(project(h, w["gate"])) * project(h, w["up"]), w["down"])
    return linear(norm(x, last_gain), head)


def step():
    ids = torch.randint(0, vocabulary, (batch, length + 1))
    start = time.perf_counter()
    loss = cross_entropy(forward(ids[:, :-1]).view(-1, vocabulary), ids[:, 1:].reshape(-1))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return time.perf_counter() - start


print(torch.__version__, flush=True)
for line in sys.stdin:
    print(json.dumps([step() for _ in range(int(line))]), flush=True)
