/* Text from a trained model. */
#include "base/err.h"
#include "base/sys.h"
#include "cli/command.h"
#include "data/encoder.h"
#include "train/restore.h"
#include "train/sample.h"

#include <stdio.h>
#include <string.h>

enum { TOKENS = 200 }; /* written at most when nobody says how many */

struct sample_options {
    const char *prompt, *tokenizer, *backend;
    i64 tokens, top_k, seed, threads, count;
    double temperature, top_p;
    bool ema, in_bf16, no_stop;
};

#define FIELD(kind, name) OPTION_FIELD(kind, struct sample_options, name)

static const struct option options[] = {
    { "prompt", FIELD(STRING, prompt), "", .help = "Text to go on from." },
    { "tokens", FIELD(INT, tokens), NULL, .unit = "tokens", .min = 1, .max = 1e7,
      .help = "How many tokens to write at most; without it, 200, or as many as the model has "
              "positions for." },
    { "temperature", FIELD(FLOAT, temperature), "0.8", .max = 100,
      .help = "Flattens (above 1) or sharpens the distribution; 0 always takes the likeliest "
              "token." },
    { "top_k", FIELD(INT, top_k), "0", .max = 1e9,
      .help = "Draw among the k likeliest tokens only; 0 is off." },
    { "top_p", FIELD(FLOAT, top_p), "0.95", .min = 0, .max = 1,
      .help = "Draw among the likeliest tokens that together reach this share." },
    { "seed", FIELD(INT, seed), "1", .max = 9e18, .help = "Equal seeds write equal texts." },
    { "count", FIELD(INT, count), "1", .min = 1, .max = 1e6, .help = "How many texts." },
    { "tokenizer", FIELD(PATH, tokenizer), NULL,
      .help = "Tokenizer; without it, the one beside the model." },
    { "ema", FIELD(BOOL, ema), "no", .help = "Use the averaged weights." },
    { "bf16", FIELD(BOOL, in_bf16), "no", .help = "Compute in bf16." },
    { "no_stop", FIELD(BOOL, no_stop), "no",
      .help = "Write on after the end-of-text token." },
    { "threads", FIELD(INT, threads), "0", .unit = "threads", .max = 4096,
      .help = "Threads; 0 is one per core." },
    { "backend", FIELD(STRING, backend), "auto", .help = "Kernels, as in 'headway train'." },
    { 0 },
};

struct writer {
    const struct sample_options *o;
    i64 tokens; /* to write at most */
    struct tokenizer *tokenizer;
    struct encoder *encoder;
    struct text_decoder decoder;
    struct engine engine;
    struct model *model;
    struct sampler sampler;
};

static void show(const struct buffer *text)
{
    fwrite(text->data, 1, (size_t)text->bytes, stdout);
    fflush(stdout);
}

/* The prompt's tokens; a model needs at least one, so an empty prompt is the end of a
 * document, after which a new one begins. */
static int feed_prompt(struct writer *w)
{
    i64 n;
    encoder_clear(w->encoder);
    TRY(encoder_text(w->encoder, w->o->prompt, (i64)strlen(w->o->prompt)));
    encoder_ids(w->encoder, &n);
    if (n == 0) {
        i32 end = tokenizer_eos(w->tokenizer);
        TRY(encoder_push(w->encoder, end >= 0 ? end : 0));
    }
    const i32 *ids = encoder_ids(w->encoder, &n);
    sampler_reset(&w->sampler);
    return sampler_feed(&w->sampler, ids, n);
}

static int write_text(struct writer *w, u64 seed)
{
    struct sample_config config = { w->o->temperature, w->o->top_k, w->o->top_p, seed,
                                    tokenizer_size(w->tokenizer) };
    i32 end = tokenizer_eos(w->tokenizer);
    TRY(feed_prompt(w));
    fputs(w->o->prompt, stdout);
    text_decoder_init(&w->decoder, w->tokenizer);
    int rc = OK;
    for (i64 i = 0; i < w->tokens && rc >= 0; i++) {
        i32 id = sampler_pick(&w->sampler, &config);
        if (id == end && !w->o->no_stop)
            break;
        rc = text_decoder_push(&w->decoder, id);
        if (rc >= 0)
            show(&w->decoder.out);
        if (rc >= 0 && i + 1 < w->tokens)
            rc = sampler_feed(&w->sampler, &id, 1);
    }
    if (rc >= 0)
        rc = text_decoder_end(&w->decoder);
    if (rc >= 0)
        show(&w->decoder.out);
    text_decoder_fini(&w->decoder);
    putchar('\n');
    return rc;
}

static int open_tokenizer(struct writer *w, const struct restore *r)
{
    const char *path = w->o->tokenizer ? w->o->tokenizer : r->tokenizer;
    struct encoder_options how = { .policy = UTF8_BYTES };
    if (!*path)
        return err_set(ERR_CONFIG, "%s has no tokenizer.json beside it; give --tokenizer",
                       r->path);
    TRY(tokenizer_open(&w->tokenizer, path));
    if (tokenizer_size(w->tokenizer) > r->spec.vocab)
        return err_set(ERR_MODEL, "%s has %d tokens, the model %lld", path,
                       tokenizer_size(w->tokenizer), (long long)r->spec.vocab);
    return encoder_new(&w->encoder, w->tokenizer, &how);
}

static i64 prompt_tokens(struct writer *w)
{
    i64 n = 0;
    if (encoder_text(w->encoder, w->o->prompt, (i64)strlen(w->o->prompt)) >= 0)
        encoder_ids(w->encoder, &n);
    return i64_max(1, n);
}

/* How many tokens to write. The last of them needs no position: the model does not read it. */
static int choose_tokens(struct writer *w, i64 prompt, i64 positions)
{
    const i64 room = positions - prompt + 1, asked = w->o->tokens;
    if (room < 1)
        return err_set(ERR_LIMIT, "the prompt has %lld tokens, the model only %lld positions; give a "
                       "shorter prompt", (long long)prompt, (long long)positions);
    if (asked > room)
        return err_set(ERR_LIMIT, "the prompt's %lld tokens and --tokens %lld do not fit in the "
                       "model's %lld positions; give --tokens %lld or less, or a shorter prompt",
                       (long long)prompt, (long long)asked, (long long)positions, (long long)room);
    w->tokens = asked > 0 ? asked : i64_min(TOKENS, room);
    return OK;
}

static int open_writer(struct writer *w, const char *path, struct arena *a)
{
    struct restore r;
    enum dtype compute = w->o->in_bf16 ? DTYPE_BF16 : DTYPE_F32;
    TRY(restore_find(&r, path, a));
    TRY(open_tokenizer(w, &r));
    const i64 prompt = prompt_tokens(w);
    TRY(choose_tokens(w, prompt, r.spec.positions));
    const i64 capacity = i64_min(r.spec.positions, prompt + w->tokens);
    TRY(engine_init(&w->engine, w->o->backend, (int)w->o->threads, 64));
    TRY(restore_model(&w->model, &r, compute, capacity, w->o->ema, w->engine.pool, a));
    TRY(sampler_init(&w->sampler, w->model, &w->engine, capacity, a));
    return engine_commit(&w->engine);
}

static void close_writer(struct writer *w)
{
    sampler_fini(&w->sampler);
    model_free(w->model);
    engine_fini(&w->engine);
    encoder_free(w->encoder);
    tokenizer_free(w->tokenizer);
}

static int run(struct invocation *v)
{
    struct writer w = { .o = v->options };
    int rc = open_writer(&w, v->args[0], v->arena);
    for (i64 i = 0; i < w.o->count && rc >= 0; i++)
        rc = write_text(&w, (u64)(w.o->seed + i));
    close_writer(&w);
    return rc;
}

static const struct example examples[] = {
    { "headway sample runs/demo --prompt \"The history of\"", "Go on from a few words." },
    { "headway sample runs/demo --temperature 0 --tokens 50", "The likeliest text." },
    { 0 },
};

const struct command cmd_sample = {
    .name = "sample",
    .summary = "Write text with a trained model",
    .arguments = "MODEL",
    .description = "MODEL is a run folder, a folder of checkpoints, one step-N of it, or a "
                   "Hugging Face folder. The text appears as it is written.",
    .options = options,
    .options_bytes = sizeof(struct sample_options),
    .min_args = 1,
    .max_args = 1,
    .examples = examples,
    .run = run,
};
