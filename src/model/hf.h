/* model/hf.h - Hugging Face folders: config.json and safetensors, both ways.
 *
 * Families: gpt2, llama (mistral when it has a sliding window), qwen2, qwen3; with experts
 * mixtral, qwen3_moe, dots1. A
 * config.json that asks for something our decoder does not do is refused by name, never
 * half-obeyed. The tokenizer's files are data/tokenizer.h's business. */
#ifndef HEADWAY_HF_H
#define HEADWAY_HF_H

#include "base/pool.h"
#include "model/model.h"

/* True when the folder has a config.json. */
bool hf_is_folder(const char *path);

/* config.json into a spec. */
int hf_read_spec(struct model_spec *out, const char *folder, struct arena *a);

/* One warning where config.json asks for dropout: training here has none. */
int hf_tell_dropout(const char *folder, struct arena *a);

/* Whether every tensor is there with the right shape, and a head that is said to be the embedding
 * is that; no other data are read. */
int hf_check_weights(const struct model_spec *s, const char *folder, struct arena *a);

/* All weights, converted to f32 masters, then the compute copies. As above, and tensors that
 * the model does not have are told in a warning. */
int hf_load_weights(struct model *m, const char *folder, struct pool *pool);

/* Writes config.json and model.safetensors (several files beyond max_file_bytes) in f32 or
 * bf16; with ema, the averaged weights. The folder is made. */
struct hf_export {
    enum dtype dtype;
    i64 max_file_bytes;
    i32 bos, eos; /* token ids, -1: none */
};
int hf_write(const struct model *m, const char *folder, const struct hf_export *how);

#endif
