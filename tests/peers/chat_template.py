#!/usr/bin/env python3
"""Compares how transformers renders conversations by an exported model's template with the tokens that
Headway trains on.

    chat_template.py HEADWAY WORK_FOLDER

In each style of src/data/chat.h: trains a tokenizer with its special tokens, prepares conversations, trains a
small model for a step, exports it, and reads the prepared tokens of each document beside those of
apply_chat_template on the export's tokenizer. Also: with add_generation_prompt the rendered tokens of a
question are those before the answer.
"""
import json
import struct
import subprocess
import sys
from pathlib import Path

import peer

STYLES = {
    "chatml": "<|endoftext|>,<|im_start|>,<|im_end|>",
    "llama3": "<|begin_of_text|>,<|end_of_text|>,<|start_header_id|>,<|end_header_id|>,<|eot_id|>",
    "plain": "<|endoftext|>",
}
HEADER_BYTES, COUNT_AT = 128, 16  # of a shard's header, of the number of tokens in it (src/data/shard.h)
RECIPE = """
model: {{spec: laptop-2m, override: {{layers: 1, width: 32, hidden: 48, heads: 2}}}}
data: {{sources: {0}/chats.jsonl, tokenizer: {0}/tok.json, val_fraction: 0, cache: {0}/cache}}
train: {{steps: 1, batch: 2, seq: 32, threads: 1}}
run: {{dir: {0}, name: run}}
"""


def conversations():
    for i in range(40):
        system = [{"role": "system", "content": "Be brief.\nAnd kind."}] if i % 3 == 0 else []
        turns = [{"role": role, "content": f"{role}'s line {turn} of {i}: naïve \\ {i * 7}"[:30 + i] + "\n\n"}
                 for turn in range(1 + i % 3) for role in ("user", "assistant")]
        yield system + turns


def documents(shard, first):
    """Tokens from each first token to the next."""
    raw = shard.read_bytes()
    [count] = struct.unpack_from("<q", raw, COUNT_AT)
    tokens = list(struct.unpack_from(f"<{count}H", raw, HEADER_BYTES))
    starts = [i for i, token in enumerate(tokens) if token == first] + [count]
    return [tokens[a:b] for a, b in zip(starts, starts[1:])]


def check(headway, folder, name):
    AutoTokenizer = peer.need("transformers").AutoTokenizer
    folder.mkdir(parents=True)
    chats = list(conversations())
    (folder / "chats.jsonl").write_text("".join(json.dumps({"messages": c}) + "\n" for c in chats))
    (folder / "text.txt").write_text("".join(m["content"] + "\n" for c in chats for m in c) * 3)
    (folder / "r.yaml").write_text(RECIPE.format(folder))

    def run(*command):
        subprocess.run([headway, *command], check=True, stdout=subprocess.DEVNULL)

    run("tokenizer", "train", folder / "text.txt", "--vocab-size", "400", "--specials", STYLES[name],
        "--out", folder / "tok.json", "--quiet")
    run("train", folder / "r.yaml", "--quiet")
    run("model", "export", folder / "run", "--out", folder / "hf")
    theirs = AutoTokenizer.from_pretrained(folder / "hf")

    def rendered(messages, **how):
        return theirs.apply_chat_template(messages, tokenize=True, return_dict=False, **how)

    first = rendered([{"role": "user", "content": ""}])[0]
    last = theirs.eos_token_id if theirs.eos_token_id != first else None
    wanted = [rendered(c) + ([last] if last is not None else []) for c in chats]
    [shard] = (folder / "cache").glob("**/train-*.shard")
    ours = documents(shard, first)
    differ = sum(document not in wanted for document in ours)
    for c in chats:
        question, whole = rendered(c[:-1], add_generation_prompt=True), rendered(c)
        differ += whole[:len(question)] != question
    print(f"{name}: {len(ours)} documents, {differ} differ")
    return differ == 0 and len(ours) == len(chats)


def main():
    headway, folder = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    ok = [check(headway, folder / name, name) for name in STYLES]
    sys.exit(0 if all(ok) else 1)


if __name__ == "__main__":
    main()
