/* How good a model is: on text, on held-out shards, on multiple-choice questions. */
#include "base/err.h"
#include "base/json.h"
#include "base/rng.h"
#include "base/sys.h"
#include "cli/command.h"
#include "data/loader.h"
#include "data/stream.h"
#include "model/safetensors.h"
#include "train/evaluate.h"
#include "train/restore.h"
#include "train/tasks.h"
#include "train/train_config.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

struct eval_options {
    const char *data, *text, *choices, *tokenizer, *backend, *logits_out;
    i64 seq, batch, stride, tokens, threads, seed;
    int loss_on; /* enum train_loss_on */
    bool ema, in_bf16, json;
};

#define FIELD(kind, name) OPTION_FIELD(kind, struct eval_options, name)

static const struct option options[] = {
    { "data", FIELD(PATH, data), NULL,
      .help = "Evaluate on the validation split of prepared shards." },
    { "text", FIELD(PATH, text), NULL,
      .help = "Evaluate on a text file (also .gz, .zst, or - for standard input), as one "
              "document." },
    { "choices", FIELD(PATH, choices), NULL,
      .help = "Answer multiple-choice questions: jsonl (also .gz, .zst, or -) with ctx, endings "
              "and label on each line, such as HellaSwag's." },
    { "seq", FIELD(SIZE, seq), "0", .unit = "tokens", .max = 1e7,
      .help = "Tokens in a row; 0 is the model's positions, at most 1024." },
    { "batch", FIELD(INT, batch), "8", .unit = "rows", .min = 1, .max = 1e5,
      .help = "Rows at a time." },
    { "stride", FIELD(SIZE, stride), "0", .unit = "tokens", .max = 1e7,
      .help = "With --text: tokens asked per row; the rest of the row is their past. 0 is half "
              "a row." },
    { "tokens", FIELD(SIZE, tokens), "0", .unit = "tokens", .max = 1e15,
      .help = "With --data: about so many tokens; 0 is all." },
    { "loss_on", FIELD(CHOICE, loss_on), "all", .choices = "all|answers",
      .help = "With --data: the tokens that count, as data.loss_on in training." },
    { "tokenizer", FIELD(PATH, tokenizer), NULL,
      .help = "Tokenizer; without it, the one beside the model." },
    { "ema", FIELD(BOOL, ema), "no", .help = "Use the averaged weights." },
    { "bf16", FIELD(BOOL, in_bf16), "no", .help = "Compute in bf16." },
    { "logits_out", FIELD(PATH, logits_out), NULL,
      .help = "Write the logits of two rows of random tokens, and the tokens, to a safetensors "
              "file, to compare with another program." },
    { "seed", FIELD(INT, seed), "1", .max = 9e18, .help = "Of these random tokens." },
    { "json", FIELD(BOOL, json), "no", .help = "Print one JSON object." },
    { "threads", FIELD(INT, threads), "0", .unit = "threads", .max = 4096,
      .help = "Threads; 0 is one per core." },
    { "backend", FIELD(STRING, backend), "auto", .help = "Kernels, as in 'headway train'." },
    { 0 },
};

struct evaluation {
    const struct eval_options *o;
    struct arena *arena;
    struct restore restore;
    struct engine engine;
    struct model *model;
    struct tokenizer *tokenizer; /* NULL until needed */
    struct encoder *encoder;
    i64 T;
    struct json out;
};

static int open_tokenizer(struct evaluation *e)
{
    struct encoder_options how = { .policy = UTF8_BYTES, .specials_as_text = true };
    TRY(restore_tokenizer(&e->tokenizer, &e->restore, e->o->tokenizer));
    return encoder_new(&e->encoder, e->tokenizer, &how);
}

static int open_model(struct evaluation *e, const char *path)
{
    const struct eval_options *o = e->o;
    TRY(restore_find(&e->restore, path, e->arena));
    i64 positions = e->restore.spec.positions;
    e->T = o->seq ? o->seq : i64_min(positions, 1024);
    if (e->T > positions)
        return err_set(ERR_USAGE, "--seq %lld is longer than the model's %lld positions",
                       (long long)e->T, (long long)positions);
    if (e->T < 2)
        return err_set(ERR_USAGE, "--seq must be at least 2");
    if (o->stride >= e->T)
        return err_set(ERR_USAGE, "--stride %lld leaves nothing of a row of %lld tokens before "
                       "what is asked; give %lld or less", (long long)o->stride, (long long)e->T,
                       (long long)e->T - 1);
    TRY(engine_init(&e->engine, o->backend, (int)o->threads, 64));
    return restore_model(&e->model, &e->restore, o->in_bf16 ? DTYPE_BF16 : DTYPE_F32, e->T,
                         o->ema, e->engine.pool, e->arena);
}

/* --- what is asked ------------------------------------------------------------------ */

static int put_result(struct evaluation *e, double loss, i64 tokens, i64 bytes)
{
    if (!isfinite(loss))
        return err_set(ERR_MODEL, "the model's loss is %f: it overflows on this text", loss);
    double bits = bytes > 0 ? loss * (double)tokens / log(2) / (double)bytes : NAN;
    json_put_double(&e->out, "loss", loss);
    json_put_double(&e->out, "perplexity", exp(loss));
    json_put_double(&e->out, "bits_per_byte", bits);
    json_put_int(&e->out, "tokens", tokens);
    json_put_int(&e->out, "bytes", bytes);
    if (e->o->json)
        return OK;
    printf("loss            %.5f nats per token\n", loss);
    printf("perplexity      %.3f\n", exp(loss));
    if (bytes > 0)
        printf("bits per byte   %.5f\n", bits);
    printf("tokens, bytes   %lld, %lld\n", (long long)tokens, (long long)bytes);
    return OK;
}

static int eval_text(struct evaluation *e)
{
    struct scorer s;
    struct text_score sum = { 0 };
    struct buffer text = { 0 };
    i64 n, stride = e->o->stride ? e->o->stride : e->T / 2;
    TRY(open_tokenizer(e));
    int rc = stream_read_all(e->o->text, &text);
    if (rc >= 0)
        rc = encoder_text(e->encoder, text.data, text.bytes);
    const i64 bytes = text.bytes;
    buffer_fini(&text);
    TRY(rc);
    const i32 *ids = encoder_ids(e->encoder, &n);
    if (n == 0)
        return err_set(ERR_FORMAT, "%s is empty", e->o->text);
    const i64 rows = i64_min(e->o->batch, ceil_div(n, stride)); /* no more than there are */
    TRY(scorer_init(&s, e->model, &e->engine, rows, e->T, false, e->arena));
    TRY(engine_commit(&e->engine));
    i32 begin, end; /* the text begins as documents do in training */
    tokenizer_separators(e->tokenizer, &begin, &end);
    TRY(tasks_score_text(&s, ids, n, begin >= 0 ? begin : ids[0], stride, &sum));
    return put_result(e, sum.nll / (double)n, n, bytes);
}

/* Text bytes of each token, for bits per byte; 0 for special tokens. */
static u16 *token_bytes(struct evaluation *e)
{
    u16 *bytes = ARENA_ARRAY(e->arena, u16, e->restore.spec.vocab);
    for (i32 id = 0; id < tokenizer_size(e->tokenizer); id++) {
        i64 n = 0;
        if (!tokenizer_is_special(e->tokenizer, id) && tokenizer_token(e->tokenizer, id, &n))
            bytes[id] = (u16)i64_min(n, UINT16_MAX);
    }
    return bytes;
}

/* What counts can be what answers marked, where there are any. */
static int check_answers(const struct evaluation *e, struct loader *loader)
{
    const bool marked = loader_dataset(loader, 0)->has_mask;
    if (e->o->loss_on == LOSS_ON_ANSWERS && !marked)
        return err_set(ERR_CONFIG, "%s marks no answers; leave --loss-on out, or prepare chat or "
                       "prompt-answer jsonl", e->o->data);
    if (e->o->loss_on == LOSS_ON_ALL && marked && !e->o->json)
        printf("all tokens count; --loss-on answers counts those of answers\n");
    return OK;
}

/* A folder that may not be read holds shards, for all that is known. */
static int no_shards(const char *path)
{
    char **names;
    const int n = sys_list(path, &names);
    if (n < 0 && errno != ENOTDIR)
        return err_set(ERR_SYS, "list %s: %s", path, strerror(errno));
    if (n >= 0)
        sys_free(names);
    return err_set(ERR_USAGE, "%s holds no shards: give a folder that 'headway data prepare' made, "
                   "or text by --text", path);
}

static int eval_data(struct evaluation *e)
{
    struct evaluator evaluator;
    struct eval_result r;
    struct loader *loader;
    TRY(open_tokenizer(e));
    if (sys_exists(e->o->data) && !dataset_is_prepared(e->o->data))
        return no_shards(e->o->data);
    struct loader_source source = { .path = e->o->data, .separator = -1 };
    struct loader_config config = {
        .sources = &source, .n_sources = 1, .window = e->T, .border = ROW_BORDER_STOP,
        .vocab = (u32)e->restore.spec.vocab, .token_bytes = token_bytes(e),
        .tokenizer_hash = dataset_tokenizer_id(tokenizer_hash(e->tokenizer)),
        .loss_on_answers = e->o->loss_on == LOSS_ON_ANSWERS,
    };
    TRY(loader_open_eval(&loader, &config, e->o->tokens));
    const struct mesh mesh = mesh_single();
    const i64 rows = i64_min(e->o->batch, ceil_div(loader_places(loader), e->T));
    int rc = check_answers(e, loader);
    if (rc >= 0) /* no more rows than there are, but one */
        rc = evaluator_init(&evaluator, e->model, &e->engine, loader, i64_max(1, rows), e->T, &mesh,
                            e->arena);
    if (rc >= 0)
        rc = engine_commit(&e->engine);
    if (rc >= 0)
        rc = evaluator_run(&evaluator, &r);
    loader_close(loader);
    if (rc >= 0 && r.tokens == 0)
        return err_set(ERR_CONFIG, "%s has no tokens that count in its val split", e->o->data);
    return rc < 0 ? rc : put_result(e, r.loss, r.tokens, r.bytes);
}

static int eval_choices(struct evaluation *e)
{
    struct scorer s;
    struct choice_score score;
    TRY(open_tokenizer(e));
    TRY(scorer_init(&s, e->model, &e->engine, i64_min(e->o->batch, 4), e->T, false, e->arena));
    TRY(engine_commit(&e->engine));
    i32 begin, end; /* a token for the begin alone stands before prompts too (cmd_sample.c) */
    tokenizer_separators(e->tokenizer, &begin, &end);
    TRY(tasks_score_choices(&s, e->encoder, (i32)i64_max(0, begin), end >= 0, e->o->choices,
                            &score));
    double n = (double)score.questions;
    json_put_int(&e->out, "questions", score.questions);
    json_put_double(&e->out, "accuracy", (double)score.right / n);
    json_put_double(&e->out, "accuracy_per_token", (double)score.right_per_token / n);
    json_put_int(&e->out, "contexts_cut", score.cut);
    if (e->o->json)
        return OK;
    printf("questions            %lld\n", (long long)score.questions);
    printf("accuracy             %.4f\n", (double)score.right / n);
    printf("accuracy, per token  %.4f\n", (double)score.right_per_token / n);
    if (score.cut)
        printf("contexts cut         %lld\n", (long long)score.cut);
    return OK;
}

static int write_logits(struct evaluation *e, const struct scorer *s)
{
    struct safetensors_writer w;
    i64 rows = s->B * s->T;
    struct safetensors_tensor tensors[] = {
        { .name = "logits", .dtype = DTYPE_F32, .rank = 3, .dim = { s->B, s->T, s->vocab } },
        { .name = "input_ids", .dtype = DTYPE_I32, .rank = 2, .dim = { s->B, s->T } },
    };
    TRY(safetensors_create(&w, e->o->logits_out, tensors, 2, NULL, 0));
    for (int i = 0; i < 2; i++) { /* in the order of the file */
        bool logits = strcmp(tensors[i].name, "logits") == 0;
        TRY(safetensors_put(&w, logits ? s->logits->data : s->batch.tokens->data,
                            rows * 4 * (logits ? s->vocab : 1)));
    }
    return safetensors_commit(&w);
}

static int eval_logits(struct evaluation *e)
{
    enum { ROWS = 2, LONGEST = 64 };
    struct scorer s;
    i64 T = i64_min(e->T, LONGEST);
    struct rng key = { (u64)e->o->seed, rng_stream("logits") };
    TRY(scorer_init(&s, e->model, &e->engine, ROWS, T, true, e->arena));
    TRY(engine_commit(&e->engine));
    for (i64 b = 0; b < ROWS; b++) {
        i32 row[LONGEST];
        for (i64 i = 0; i < T; i++)
            row[i] = (i32)(rng_u64(&key, (u64)(b * T + i)) % (u64)s.vocab);
        scorer_row(&s, b, row, T, 0);
    }
    scorer_run(&s);
    return write_logits(e, &s);
}

static int run(struct invocation *v)
{
    struct evaluation e = { .o = v->options, .arena = v->arena };
    const struct eval_options *o = e.o;
    int asked = (o->data != NULL) + (o->text != NULL) + (o->choices != NULL) +
                (o->logits_out != NULL);
    if (asked != 1)
        return err_set(ERR_USAGE, "give one of --data, --text, --choices and --logits-out");
    if (o->stride && !o->text)
        return err_set(ERR_USAGE, "--stride is for --text");
    if ((o->tokens || o->loss_on == LOSS_ON_ANSWERS) && !o->data)
        return err_set(ERR_USAGE, "%s is for --data", o->tokens ? "--tokens" : "--loss-on");
    json_writer_init(&e.out);
    json_begin_object(&e.out);
    int rc = open_model(&e, v->args[0]);
    if (rc >= 0)
        rc = o->text ? eval_text(&e) : o->data ? eval_data(&e) : o->choices ? eval_choices(&e)
                                                                           : eval_logits(&e);
    json_end(&e.out);
    if (rc >= 0 && o->json)
        printf("%s\n", e.out.out.data);
    json_writer_fini(&e.out);
    model_free(e.model);
    engine_fini(&e.engine);
    encoder_free(e.encoder);
    tokenizer_free(e.tokenizer);
    return rc;
}

static const struct example examples[] = {
    { "headway eval runs/demo --data corpus/shards", "Loss on held-out documents." },
    { "headway eval runs/demo --text book.txt", "Bits per byte of a text." },
    { "headway eval ~/gpt2 --choices hellaswag_val.jsonl", "Accuracy on HellaSwag." },
    { 0 },
};

const struct command cmd_eval = {
    .name = "eval",
    .summary = "Evaluate a trained model",
    .arguments = "MODEL",
    .description = "MODEL is a run folder, a folder of checkpoints, one step-N of it, or a "
                   "Hugging Face folder. Prints loss in nats per token, perplexity, and bits "
                   "per byte of text, which can be compared across tokenizers.",
    .options = options,
    .options_bytes = sizeof(struct eval_options),
    .min_args = 1,
    .max_args = 1,
    .examples = examples,
    .run = run,
};
