#!/usr/bin/env python3
"""Writes tests/vectors/: small models of Hugging Face's transformers and what they compute.

    make_vectors.py [--out tests/vectors] [--seed 0] [FAMILY ...]

For each family a folder that transformers loads (config.json, model.safetensors in fp32, random
weights), and expect.safetensors:

    ids, targets   i32 (4, B, T)  four batches; everything below but the curves is of batch 0
    logits         f64 (B, T, V)
    loss           f64 (1)        mean cross-entropy over all tokens
    grad.NAME      f32            gradient of every parameter, rounded from f64
    curve64        f64 (100)      losses of 100 AdamW steps that cycle through the four batches
    curve32        f64 (100)      the same run by the peer in fp32: how far rounding alone leads

Mixtral has besides, with the losses that keep its router balanced (AUX, Z) added to the loss:

    aux.losses     f64 (2)        balance loss and z-loss, means over sequences (tokens) and layers
    aux.grad.NAME  f32            gradient of every parameter


The model runs in double throughout: transformers demotes norms and rotary angles to fp32 by
itself, which `double_only` prevents. Llama has packed.safetensors besides: rows of two documents
each, whose logits are those of each document alone. rope/expect.safetensors has rotary
frequencies as transformers forms them.
"""
import argparse
import contextlib
import copy
import sys
from pathlib import Path

import peer

np = peer.need("numpy")
torch = peer.need("torch")
transformers = peer.need("transformers")
safetensors = peer.need("safetensors.torch")

B, T, VOCAB, STEPS, CYCLE = 2, 32, 256, 100, 4
ADAMW = {"lr": 1e-3, "betas": (0.9, 0.95), "eps": 1e-8}
DECAY = 0.1  # of tensors with two dimensions or more

# Wavelengths of head size 16 are 6.3, 20, 63, 199 ... tokens; with these limits (16 and 64) the
# first is kept, two are blended and the rest are divided, so that every branch is taken.
LLAMA3_SCALING = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0,
                  "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                  "original_max_position_embeddings": 64}
PLAIN = {"rope_type": "default", "rope_theta": 10000.0}

AUX, Z = 0.5, 0.1
# Where experts are chosen, the best one left out must be this far behind the last one taken, in
# standard deviations: bf16 may round by a hundredth of one, and must not choose otherwise.
MARGIN = 0.03


def llama_like(**other):
    """Settings that Llama's relatives share: grouped queries, an odd hidden width."""
    return {"vocab_size": VOCAB, "hidden_size": 64, "intermediate_size": 100,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
            "max_position_embeddings": 128, "rope_parameters": PLAIN,
            "tie_word_embeddings": False, "bos_token_id": 0, "eos_token_id": 0} | other


FAMILIES = {
    "gpt2": transformers.GPT2Config(
        vocab_size=VOCAB, n_positions=64, n_embd=64, n_layer=2, n_head=4, bos_token_id=0,
        eos_token_id=0, attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0),
    "llama": transformers.LlamaConfig(
        **llama_like(rms_norm_eps=1e-5, rope_parameters=LLAMA3_SCALING)),
    "mistral": transformers.MistralConfig(**llama_like(rms_norm_eps=1e-5, sliding_window=8)),
    "qwen2": transformers.Qwen2Config(**llama_like(tie_word_embeddings=True)),
    "qwen3": transformers.Qwen3Config(
        **llama_like(num_hidden_layers=3, hidden_size=48, head_dim=16, num_attention_heads=4)),
    "mixtral": transformers.MixtralConfig(
        **llama_like(hidden_size=32, intermediate_size=24, rms_norm_eps=1e-5),
        num_local_experts=4, num_experts_per_tok=2),
    "qwen3_moe": transformers.Qwen3MoeConfig(
        **llama_like(hidden_size=32, head_dim=16), moe_intermediate_size=20, num_experts=5,
        num_experts_per_tok=2, norm_topk_prob=False),
    "dots1": transformers.Dots1Config(
        **llama_like(hidden_size=32, head_dim=16, num_hidden_layers=3), moe_intermediate_size=20,
        n_routed_experts=5, n_shared_experts=2, num_experts_per_tok=2, first_k_dense_replace=1,
        norm_topk_prob=True, routed_scaling_factor=2.5, sliding_window=None),
    "deepseek_v3": transformers.DeepseekV3Config(
        **llama_like(hidden_size=32, num_hidden_layers=3, num_key_value_heads=4), q_lora_rank=24,
        kv_lora_rank=20, qk_nope_head_dim=12, qk_rope_head_dim=8, v_head_dim=10,
        moe_intermediate_size=20, n_routed_experts=5, n_shared_experts=1, num_experts_per_tok=2,
        first_k_dense_replace=1, n_group=1, topk_group=1, norm_topk_prob=True,
        routed_scaling_factor=2.5),
}

# The released models' shapes, for their frequencies only.
ROPE = {
    "llama2-7b": {"head_dim": 128, "rope_theta": 10000.0, "rope_type": "default"},
    "llama3.1-8b": LLAMA3_SCALING | {"head_dim": 128, "rope_theta": 500000.0,
                                     "original_max_position_embeddings": 8192},
    "llama3.2-1b": LLAMA3_SCALING | {"head_dim": 64, "rope_theta": 500000.0, "factor": 32.0,
                                     "original_max_position_embeddings": 8192},
    "vector-llama": LLAMA3_SCALING | {"head_dim": 16},
}


@contextlib.contextmanager
def double_only():
    """Inside, whatever asks for fp32 gets f64."""
    to, to_float, softmax = torch.Tensor.to, torch.Tensor.float, torch.nn.functional.softmax

    def widen(x):
        return torch.float64 if x is torch.float32 else x

    torch.Tensor.to = lambda t, *a, **k: to(t, *map(widen, a),
                                            **{n: widen(x) for n, x in k.items()})
    torch.Tensor.float = torch.Tensor.double
    torch.nn.functional.softmax = lambda *a, dtype=None, **k: softmax(*a, dtype=widen(dtype), **k)
    try:
        yield
    finally:
        torch.Tensor.to, torch.Tensor.float = to, to_float
        torch.nn.functional.softmax = softmax


def random_model(config, seed):
    """Every parameter random, also the gains and biases that would start as ones and zeros: a
    mistake in one that is zero cannot be seen."""
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(
        config, attn_implementation="sdpa", experts_implementation="eager")
    with torch.no_grad():
        for name, p in model.named_parameters():
            gain = p.dim() == 1 and not name.endswith("bias")
            p.copy_(torch.randn_like(p) * 0.1 + (1.0 if gain else 0.0))
        for name, bias in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                bias.copy_(torch.randn_like(bias) * 0.1)
    return model.train()


@contextlib.contextmanager
def watched_routers(model):
    """A list that fills with (module, input rows) as routers run."""
    seen = []
    hooks = [m.register_forward_hook(lambda m, args, _: seen.append((m, args[0].flatten(0, -2))))
             for m in model.modules() if type(m).__name__.lower().endswith("topkrouter")]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def least_margin(model, ids):
    """How close any choice of experts was, in deviations of the scores; inf without experts."""
    with torch.no_grad(), watched_routers(model) as seen:
        model(input_ids=ids)
        margins = [torch.tensor(float("inf"))]
        for router, rows in seen:
            scores = rows @ router.weight.T
            if hasattr(router, "e_score_correction_bias"):
                scores = scores.sigmoid() + router.e_score_correction_bias
            best = scores.topk(router.top_k + 1, dim=-1).values
            margins.append((best[:, -2] - best[:, -1]).min() / scores.std())
    return min(margins).item()


def clear_model(config, seed):
    """A random model and batches whose experts are chosen clearly in the first batch."""
    for attempt in range(2000):
        model = random_model(config, seed + 1000 * attempt)
        ids, targets = random_batches(seed + 1000 * attempt)
        if least_margin(model, ids[0]) > MARGIN:
            return model, ids, targets
    sys.exit("no model chooses its experts clearly; lower MARGIN")


def random_batches(seed):
    rng = np.random.default_rng(seed)
    tokens = torch.from_numpy(rng.integers(VOCAB, size=(CYCLE, B, T + 1)))
    return tokens[..., :-1].contiguous(), tokens[..., 1:].contiguous()


def loss_of(model, ids, targets):
    logits = model(input_ids=ids, use_cache=False).logits
    return logits, torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def curve(model, ids, targets):
    """Losses of STEPS steps of AdamW, no clipping. Changes the model."""
    groups = [{"params": [p for p in model.parameters() if (p.dim() >= 2) == decays],
               "weight_decay": DECAY if decays else 0.0} for decays in (True, False)]
    optimizer = torch.optim.AdamW(groups, **ADAMW, foreach=False)
    losses = []
    for step in range(STEPS):
        _, loss = loss_of(model, ids[step % CYCLE], targets[step % CYCLE])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return torch.tensor(losses, dtype=torch.float64)


def expectations(model, ids, targets):
    """What the model, given in fp32, computes in double. `model` is used up."""
    single = copy.deepcopy(model)
    with double_only():
        model.double()
        logits, loss = loss_of(model, ids[0], targets[0])
        loss.backward()
    assert logits.dtype == torch.float64
    found = named_gradients(model, "grad.")
    if model.config.model_type == "mixtral":
        found |= with_router_losses(model, ids, targets)
    with double_only():
        found["curve64"] = curve(model, ids, targets)
    found["curve32"] = curve(single, ids, targets)
    return found | {"logits": logits.detach(), "loss": loss.detach().reshape(1)}


def foreign_experts(model, name, p):
    """Experts are one parameter in memory and many in files: (name in files, part)."""
    if not name.endswith((".gate_up_proj", ".down_proj")) or ".experts." not in name:
        yield name, p
        return
    prefix, kind = name.rsplit(".", 1)
    words = {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"}
    if model.config.model_type == "mixtral":
        words = {"gate": "w1", "up": "w3", "down": "w2"}
    for e, matrix in enumerate(p):
        parts = {"down": matrix}
        if kind == "gate_up_proj":
            parts = dict(zip(("gate", "up"), matrix.chunk(2)))
        for part, values in parts.items():
            yield f"{prefix}.{e}.{words[part]}.weight", values


def named_gradients(model, prefix):
    found = {}
    for name, p in model.named_parameters():
        for foreign, grad in foreign_experts(model, name, p.grad):
            if model.config.model_type == "mixtral":
                foreign = foreign.replace(".mlp.", ".block_sparse_moe.")
            found[prefix + foreign] = grad.float()
    return found


def router_losses(model, seen):
    """Each sequence and layer alone, by transformers' function for one layer of a whole batch."""
    aux, z = [], []
    balance = transformers.models.mixtral.modeling_mixtral.load_balancing_loss_func
    for router, rows in seen:
        logits = rows @ router.weight.T
        z.append(logits.logsumexp(-1).square().mean())
        aux += [balance((one,), router.num_experts, router.top_k) for one in logits.split(T)]
    return torch.stack(aux).mean(), torch.stack(z).mean()


def with_router_losses(model, ids, targets):
    """Gradients and losses when the router's own count. Changes the model's gradients."""
    model.zero_grad()
    with double_only(), watched_routers(model) as seen:
        _, loss = loss_of(model, ids[0], targets[0])
        aux, z = router_losses(model, seen)
        (loss + AUX * aux + Z * z).backward()
    return named_gradients(model, "aux.grad.") | {"aux.losses": torch.stack([aux, z]).detach()}


def packed(model, seed):
    """Rows of two documents: logits of each alone, which the peer's own packed run must equal."""
    lengths = ((13, 19), (20, 12))
    assert all(sum(row) == T for row in lengths)
    ids = random_batches(seed)[0][0]
    begin = torch.tensor([[0] * a + [a] * b for a, b in lengths])
    positions = torch.arange(T) - begin
    with double_only(), torch.no_grad():
        model.double()
        logits = torch.stack([
            torch.cat([model(input_ids=part[None]).logits[0] for part in row.split(counts)])
            for row, counts in zip(ids, lengths)])
        sees = (begin[:, :, None] == begin[:, None, :]) & torch.ones(T, T).tril().bool()
        together = model(input_ids=ids, position_ids=positions,
                         attention_mask=sees[:, None]).logits
    assert (together - logits).abs().max() < 1e-12
    return {"ids": ids.int(), "doc_begin": begin.int(), "positions": positions.int(),
            "logits": logits}


def rope_frequencies():
    """Radians per position, as transformers forms them in fp32."""
    found = {}
    for name, settings in ROPE.items():
        settings = dict(settings)
        config = transformers.LlamaConfig(
            num_attention_heads=1, head_dim=settings.pop("head_dim"), rope_parameters=settings)
        found[name] = transformers.models.llama.modeling_llama.LlamaRotaryEmbedding(config).inv_freq
    return found


def save(tensors, path):
    """One metadata entry only: the library writes several in random order."""
    made_by = f"torch {torch.__version__}, transformers {transformers.__version__}"
    path.parent.mkdir(parents=True, exist_ok=True)
    safetensors.save_file({name: t.contiguous() for name, t in tensors.items()}, path,
                          metadata={"made_by": made_by})


def make_family(family, folder, seed):
    seed = 100 * (seed + 1) + list(FAMILIES).index(family)
    model, ids, targets = clear_model(FAMILIES[family], seed)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    if family == "llama":
        save(packed(copy.deepcopy(model), seed + 50), folder / "packed.safetensors")
    tensors = expectations(model, ids, targets)
    assert all(t.isfinite().all() for t in tensors.values())
    save(tensors | {"ids": ids.int(), "targets": targets.int()}, folder / "expect.safetensors")
    apart = (tensors["curve64"] - tensors["curve32"]).abs().max()
    print(f"{family}: loss {tensors['loss'].item():.6f}, after {STEPS} steps "
          f"{tensors['curve64'][-1]:.6f}; fp32 departs by {apart:.1e}")


def main():
    o = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    o.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "vectors")
    o.add_argument("--seed", type=int, default=0, help="another one makes other models")
    o.add_argument("families", nargs="*", metavar="FAMILY", default=[*FAMILIES, "rope"],
                   help=f"of {', '.join(FAMILIES)}, rope (default: all)")
    args = o.parse_args()
    torch.set_num_threads(1)  # the same sums on every machine
    for family in args.families:
        if family == "rope":
            save(rope_frequencies(), args.out / "rope/expect.safetensors")
        elif family in FAMILIES:
            make_family(family, args.out / family, args.seed)
        else:
            sys.exit(f"there is no family {family}; there are {', '.join(FAMILIES)} and rope")


if __name__ == "__main__":
    main()
