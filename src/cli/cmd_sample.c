/* Text from a trained model. */
#include "base/err.h"
#include "base/sys.h"
#include "cli/command.h"
#include "data/encoder.h"
#include "data/json_document.h"
#include "train/restore.h"
#include "train/sample.h"

#include <stdio.h>
#include <string.h>

enum { TOKENS = 200 }; /* written at most when nobody says how many */

struct sample_options {
    const char *prompt, *chat, *system, *tokenizer, *backend;
    i64 tokens, top_k, seed, threads, count;
    double temperature, top_p;
    bool ema, in_bf16, no_stop;
};

#define FIELD(kind, name) OPTION_FIELD(kind, struct sample_options, name)

static const struct option options[] = {
    { "prompt", FIELD(STRING, prompt), "", .help = "Text to go on from." },
    { "chat", FIELD(STRING, chat), NULL,
      .help = "A question: it is laid out like the conversations in training, and the answer "
              "is written." },
    { "system", FIELD(STRING, system), NULL,
      .help = "With --chat: the system's message before it." },
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
    { "count", FIELD(INT, count), "1", .min = 1, .max = 1e6,
      .help = "How many texts, each below a line with its number and seed." },
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
    struct chat_style style;
    char ending[32];    /* what ends an answer where no token does; "": a token does */
    struct buffer held; /* text that may be the beginning of it */
    struct engine engine;
    struct model *model;
    struct sampler sampler;
};

/* --- what goes in ------------------------------------------------------------------- */

static int encode_question(struct writer *w)
{
    struct json_document d = { 0 };
    int rc = json_document_ask(&d, &w->style, w->o->system, w->o->chat);
    for (i64 i = 0; i < json_document_parts(&d) && rc >= 0; i++) {
        const struct json_part *p = json_document_part(&d, i);
        rc = p->special >= 0 ? encoder_push(w->encoder, p->special)
                             : encoder_text(w->encoder, d.text.data + p->begin, p->bytes);
    }
    json_document_fini(&d);
    return rc;
}

/* The tokens to go on from, which begin like a document in training where a question is
 * asked or the tokenizer has a token for that alone. A model needs at least one: an empty
 * prompt is the end of a document, after which a new one begins. */
static int encode_prompt(struct writer *w, i64 *n)
{
    i32 begin, end;
    tokenizer_separators(w->tokenizer, &begin, &end);
    encoder_clear(w->encoder);
    if (begin >= 0 && (w->o->chat || end >= 0))
        TRY(encoder_push(w->encoder, begin));
    if (w->o->chat)
        TRY(encode_question(w));
    else
        TRY(encoder_text(w->encoder, w->o->prompt, (i64)strlen(w->o->prompt)));
    encoder_ids(w->encoder, n);
    if (*n == 0)
        TRY(encoder_push(w->encoder, begin >= 0 ? begin : 0));
    encoder_ids(w->encoder, n);
    return OK;
}

static int feed_prompt(struct writer *w)
{
    i64 n;
    const i32 *ids = encoder_ids(w->encoder, &n);
    sampler_reset(&w->sampler);
    return sampler_feed(&w->sampler, ids, n);
}

/* --- what comes out ----------------------------------------------------------------- */

static void show(const void *text, i64 bytes)
{
    if (bytes > 0)
        fwrite(text, 1, (size_t)bytes, stdout);
    fflush(stdout);
}

/* Shows text but what may be the beginning of the ending; *ended when all of that is there. */
static int show_answer(struct writer *w, const struct buffer *text, bool *ended)
{
    const i64 whole = (i64)strlen(w->ending);
    TRY(buffer_add(&w->held, text->data, text->bytes));
    const char *at = (const char *)w->held.data;
    i64 clear = 0; /* bytes that cannot belong to the ending */
    while (clear < w->held.bytes &&
           memcmp(at + clear, w->ending, (size_t)i64_min(whole, w->held.bytes - clear)) != 0)
        clear++;
    *ended = w->held.bytes - clear >= whole;
    show(at, clear);
    memmove(w->held.data, at + clear, (size_t)(w->held.bytes - clear));
    w->held.bytes -= clear;
    return OK;
}

static int show_text(struct writer *w, bool *ended)
{
    const struct buffer *text = &w->decoder.out;
    *ended = false;
    if (*w->ending && text->bytes > 0)
        return show_answer(w, text, ended);
    show(text->data, text->bytes);
    return OK;
}

static bool ends(const struct writer *w, i32 id)
{
    return !w->o->no_stop && (id == tokenizer_eos(w->tokenizer) ||
                              (w->o->chat && w->style.close >= 0 && id == w->style.close));
}

static int write_tokens(struct writer *w, const struct sample_config *config)
{
    bool ended = false;
    for (i64 i = 0; i < w->tokens && !ended; i++) {
        i32 id = sampler_pick(&w->sampler, config);
        if (ends(w, id))
            break;
        TRY(text_decoder_push(&w->decoder, id));
        TRY(show_text(w, &ended));
        if (i + 1 < w->tokens && !ended)
            TRY(sampler_feed(&w->sampler, &id, 1));
    }
    if (ended)
        return OK;
    TRY(text_decoder_end(&w->decoder));
    TRY(show_text(w, &ended));
    const i64 after = (i64)strlen(w->style.after); /* of a message that was the last */
    if (!ended && w->held.bytes > 0 &&
        (w->held.bytes != after || memcmp(w->held.data, w->style.after, (size_t)after) != 0))
        show(w->held.data, w->held.bytes);
    return OK;
}

static int write_text(struct writer *w, u64 seed)
{
    struct sample_config config = { w->o->temperature, w->o->top_k, w->o->top_p, seed,
                                    tokenizer_size(w->tokenizer) };
    TRY(feed_prompt(w));
    if (!w->o->chat)
        fputs(w->o->prompt, stdout);
    text_decoder_init(&w->decoder, w->tokenizer);
    w->held.bytes = 0;
    int rc = write_tokens(w, &config);
    text_decoder_fini(&w->decoder);
    putchar('\n');
    return rc;
}

/* --- opening ------------------------------------------------------------------------ */

static int open_tokenizer(struct writer *w, const struct restore *r)
{
    struct encoder_options how = { .policy = UTF8_BYTES, .specials_as_text = w->o->chat != NULL };
    TRY(restore_tokenizer(&w->tokenizer, r, w->o->tokenizer));
    w->style = chat_style_of(w->tokenizer);
    if (w->o->chat && w->style.close < 0 && !w->o->no_stop)
        snprintf(w->ending, sizeof w->ending, "%s%s", w->style.after, w->style.before);
    return encoder_new(&w->encoder, w->tokenizer, &how);
}

/* How many tokens to write. The last of them needs no position: the model does not read it. */
static int choose_tokens(struct writer *w, i64 prompt, i64 positions)
{
    const i64 room = positions - prompt + 1, asked = w->o->tokens;
    if (room < 1)
        return err_set(ERR_USAGE, "the prompt has %lld tokens, the model only %lld "
                       "positions; give a shorter prompt",
                       (long long)prompt, (long long)positions);
    if (asked > room)
        return err_set(ERR_USAGE, "the prompt's %lld tokens and --tokens %lld do not fit in the "
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
    i64 prompt;
    TRY(encode_prompt(w, &prompt));
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
    buffer_fini(&w->held);
    encoder_free(w->encoder);
    tokenizer_free(w->tokenizer);
}

static int check_flags(const struct sample_options *o)
{
    if (o->chat && *o->prompt)
        return err_set(ERR_USAGE, "--chat asks a question, --prompt is text to go on "
                       "from: give one of them");
    if (o->system && !o->chat)
        return err_set(ERR_USAGE, "--system stands before a question; give that with --chat");
    return OK;
}

static int run(struct invocation *v)
{
    struct writer w = { .o = v->options };
    TRY(check_flags(w.o));
    int rc = open_writer(&w, v->args[0], v->arena);
    for (i64 i = 0; i < w.o->count && rc >= 0; i++) {
        if (w.o->count > 1) /* texts have blank lines of their own; the seed writes it again */
            printf("%s--- %lld of %lld, seed %lld ---\n", i > 0 ? "\n" : "", (long long)i + 1,
                   (long long)w.o->count, (long long)(w.o->seed + i));
        rc = write_text(&w, (u64)(w.o->seed + i));
    }
    close_writer(&w);
    return rc;
}

static const struct example examples[] = {
    { "headway sample runs/demo --prompt \"The history of\"", "Go on from a few words." },
    { "headway sample runs/chat --chat \"What is a bit?\"",
      "Ask a model that was trained to answer." },
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
