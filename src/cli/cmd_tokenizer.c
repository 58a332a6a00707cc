/* Tokenizers: learn, use, import. */
#include "base/err.h"
#include "base/json.h"
#include "base/sys.h"
#include "cli/command.h"
#include "cli/progress.h"
#include "data/bpe_train.h"
#include "data/encoder.h"
#include "data/inputs.h"
#include "data/splitter.h"
#include "data/stream.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- train -------------------------------------------------------------------------- */

struct train_options {
    i64 vocab_size, min_count, threads;
    const char *pattern, *out;
    struct option_strings specials;
};

static const struct option train_table[] = {
    { "vocab_size", OPTION_FIELD(SIZE, struct train_options, vocab_size), "32000",
      .unit = "tokens", .min = 256, .max = 1 << 24,
      .help = "Size of the vocabulary, special tokens and the 256 bytes included." },
    { "pattern", OPTION_FIELD(STRING, struct train_options, pattern), "llama3",
      .help = "How text is cut into words first: gpt2, cl100k, llama3 or qwen2." },
    { "min_count", OPTION_FIELD(INT, struct train_options, min_count), "2", .min = 1,
      .max = 1e12, .help = "A pair that occurs less often is not merged." },
    { "specials", OPTION_FIELD(STRINGS, struct train_options, specials), "<|endoftext|>",
      .help = "Special tokens; they get the first ids. With <|begin_of_text|> and <|end_of_text|> "
              "each document has one before and one behind it; with <|endoftext|>, that before "
              "it." },
    { "threads", OPTION_FIELD(INT, struct train_options, threads), "0", .unit = "threads",
      .max = 4096, .help = "Threads; 0 is one per core. The result does not depend on it." },
    { "out", OPTION_FIELD(PATH, struct train_options, out), "tokenizer.json",
      .help = "File to write; Hugging Face's tokenizers read it too." },
    { 0 },
};

static void show_training(void *context, const char *stage, i64 done, i64 total)
{
    progress_update(context, total > 0 ? (double)done / (double)total : -1, stage);
}

static int add_input(struct bpe_trainer *t, struct splitter *splitter, const char *path, i64 *bytes)
{
    struct stream *stream;
    struct split_document document;
    TRY(stream_open(&stream, path));
    int rc = OK;
    splitter_begin(splitter, stream, path, FORMAT_AUTO);
    while (rc >= 0 && (rc = splitter_next(splitter, &document)) > 0) {
        rc = bpe_trainer_add(t, document.text, document.bytes);
        *bytes += document.bytes;
    }
    stream_close(stream);
    return rc;
}

static int train_from(struct invocation *v, struct bpe_trainer *trainer, struct tokenizer **out)
{
    struct inputs inputs;
    struct splitter *splitter;
    const struct splitter_options how = { .most = 4 << 20 };
    TRY(inputs_find(&inputs, v->args, v->n_args, v->arena));
    TRY(splitter_new(&splitter, &how));
    int rc = OK;
    i64 bytes = 0;
    for (i64 i = 0; i < inputs.count && rc >= 0; i++)
        rc = add_input(trainer, splitter, inputs.at[i].path, &bytes);
    splitter_free(splitter);
    if (rc >= 0 && bytes == 0)
        return err_set(ERR_FORMAT, "%s%s no text to learn from; give files that have some",
                       v->args[0], v->n_args > 1 ? " and what follows it hold" : " holds");
    return rc < 0 ? rc : bpe_trainer_finish(trainer, out);
}

/* Before text is read for hours. */
static int look_whether_writable(const char *out, struct arena *a)
{
    struct stat info;
    const char *slash = strrchr(out, '/');
    const char *folder = !slash ? "." : slash == out ? "/" : arena_strndup(a, out, slash - out);
    const bool exists = sys_stat(out, &info) == 0;
    if (exists && S_ISDIR(info.st_mode))
        return err_set(ERR_USAGE, "--out %s is a folder; name a file, such as %s/tokenizer.json",
                       out, out);
    if (!exists && (!sys_exists(folder) || !sys_may_write(folder)))
        return err_set(ERR_SYS, "create %s: %s", out, strerror(errno));
    return OK;
}

static int train(struct invocation *v)
{
    const struct train_options *o = v->options;
    struct progress progress;
    struct pool *pool;
    struct bpe_trainer *trainer = NULL;
    struct tokenizer *t = NULL;
    struct bpe_train_options how = {
        .vocab_size = o->vocab_size, .min_count = o->min_count, .pattern = o->pattern,
        .specials = o->specials.at, .special_count = o->specials.count,
        .progress = show_training, .context = &progress,
    };
    TRY(look_whether_writable(o->out, v->arena));
    TRY(pool_new(&pool, (int)(o->threads ? o->threads : sys_cpu_count()), false));
    progress_begin(&progress, v->terminal, "tokenizer");
    int rc = bpe_trainer_new(&trainer, &how, pool);
    if (rc >= 0)
        rc = train_from(v, trainer, &t);
    if (rc >= 0)
        rc = tokenizer_save(t, o->out);
    progress_end(&progress, rc < 0 ? "stopped" : "trained");
    if (rc >= 0)
        printf("%s: %d tokens%s\n", o->out, tokenizer_size(t),
               tokenizer_size(t) < o->vocab_size ? ": the text has no more pairs that repeat" : "");
    tokenizer_free(t);
    bpe_trainer_free(trainer);
    pool_free(pool);
    return rc;
}

/* --- encode ------------------------------------------------------------------------- */

struct encode_options {
    const char *tokenizer;
    int policy;
    bool ids, count, text_only;
};

static const struct option encode_table[] = {
    { "tokenizer", OPTION_FIELD(PATH, struct encode_options, tokenizer), "tokenizer.json",
      .help = "The tokenizer: a file, or a folder that holds one." },
    { "ids", OPTION_FIELD(BOOL, struct encode_options, ids), "no",
      .help = "Line by line: one JSON list of ids for each line of input." },
    { "count", OPTION_FIELD(BOOL, struct encode_options, count), "no",
      .help = "Print only how many tokens and bytes there were." },
    { "policy", OPTION_FIELD(CHOICE, struct encode_options, policy), "bytes",
      .choices = "reject|replace|bytes",
      .help = "What to do with bytes that are not UTF-8: refuse, replace by U+FFFD, or encode "
              "them byte by byte." },
    { "text_only", OPTION_FIELD(BOOL, struct encode_options, text_only), "no",
      .help = "Special tokens in the text are ordinary text." },
    { 0 },
};

/* What was read to its end, or not. */
static int whole_input(int rc)
{
    if (rc < 0 || !ferror(stdin))
        return rc;
    return err_set(ERR_SYS, "read standard input: %s", strerror(errno));
}

static void print_ids(const struct encoder *e)
{
    i64 n;
    const i32 *ids = encoder_ids(e, &n);
    putchar('[');
    for (i64 i = 0; i < n; i++)
        printf(i ? ", %d" : "%d", ids[i]);
    puts("]");
}

static int encode_lines(struct encoder *e, FILE *in)
{
    char *line = NULL;
    size_t capacity = 0;
    ssize_t n;
    int rc = OK;
    while (rc >= 0 && (n = getline(&line, &capacity, in)) >= 0) {
        encoder_clear(e);
        rc = encoder_text(e, line, n > 0 && line[n - 1] == '\n' ? n - 1 : n);
        if (rc >= 0)
            print_ids(e);
    }
    rc = whole_input(rc);
    sys_free(line);
    return rc;
}

/* All of standard input as one text. */
static int encode_all(struct encoder *e, const struct encode_options *o)
{
    struct buffer text = { 0 };
    i64 got = 1, tokens;
    int rc = OK;
    while (rc >= 0 && got > 0) {
        rc = buffer_reserve(&text, 1 << 16);
        got = rc < 0 ? 0 : (i64)fread(text.data + text.bytes, 1, 1 << 16, stdin);
        text.bytes += got;
    }
    rc = whole_input(rc);
    if (rc >= 0)
        rc = encoder_text(e, text.data, text.bytes);
    encoder_ids(e, &tokens);
    if (rc >= 0 && o->count)
        printf("%lld tokens, %lld bytes\n", (long long)tokens, (long long)text.bytes);
    else if (rc >= 0)
        print_ids(e);
    buffer_fini(&text);
    return rc;
}

static int encode(struct invocation *v)
{
    const struct encode_options *o = v->options;
    struct encoder_options how = { .policy = (enum utf8_policy)o->policy,
                                   .specials_as_text = o->text_only };
    struct tokenizer *t;
    struct encoder *e = NULL;
    if (o->ids && o->count)
        return err_set(ERR_USAGE, "give one of --ids and --count");
    TRY(tokenizer_open(&t, o->tokenizer));
    int rc = encoder_new(&e, t, &how);
    if (rc >= 0)
        rc = o->ids ? encode_lines(e, stdin) : encode_all(e, o);
    encoder_free(e);
    tokenizer_free(t);
    return rc;
}

/* --- decode ------------------------------------------------------------------------- */

struct decode_options {
    const char *tokenizer;
    bool skip_specials;
};

static const struct option decode_table[] = {
    { "tokenizer", OPTION_FIELD(PATH, struct decode_options, tokenizer), "tokenizer.json",
      .help = "The tokenizer: a file, or a folder that holds one." },
    { "skip_specials", OPTION_FIELD(BOOL, struct decode_options, skip_specials), "no",
      .help = "Leave special tokens away." },
    { 0 },
};

static int decode_line(const struct tokenizer *t, const char *line, i64 bytes, i64 number,
                       bool skip, struct buffer *out)
{
    json_t *list;
    char where[64];
    snprintf(where, sizeof where, "standard input, line %lld", (long long)number);
    TRY(json_parse(line, bytes, where, &list));
    int rc = json_is_array(list) ? OK : err_set(ERR_FORMAT, "%s: a list of ids is expected",
                                                where);
    for (size_t i = 0; i < json_array_size(list) && rc >= 0; i++) {
        const json_t *element = json_array_get(list, i);
        const i64 wide = (i64)json_integer_value(element);
        const i32 id = (i32)wide;
        if (!json_is_integer(element))
            rc = err_set(ERR_FORMAT, "%s: element %lld of the list is no id", where,
                         (long long)i + 1);
        else if (wide < 0 || wide >= tokenizer_size(t))
            rc = err_set(ERR_FORMAT, "%s: the tokenizer has no token %lld; its ids are below %d",
                         where, (long long)wide, tokenizer_size(t));
        else
            rc = tokenizer_decode(t, &id, 1, skip, out);
    }
    json_decref(list);
    return rc;
}

static int decode(struct invocation *v)
{
    const struct decode_options *o = v->options;
    struct tokenizer *t;
    struct buffer out = { 0 };
    char *line = NULL;
    size_t capacity = 0;
    ssize_t n;
    int rc = OK;
    TRY(tokenizer_open(&t, o->tokenizer));
    for (i64 i = 1; rc >= 0 && (n = getline(&line, &capacity, stdin)) >= 0; i++) {
        out.bytes = 0;
        rc = decode_line(t, line, n, i, o->skip_specials, &out);
        if (rc >= 0 && out.bytes > 0)
            fwrite(out.data, 1, (size_t)out.bytes, stdout);
        if (rc >= 0)
            putchar('\n');
    }
    rc = whole_input(rc);
    sys_free(line);
    buffer_fini(&out);
    tokenizer_free(t);
    return rc;
}

/* --- import ------------------------------------------------------------------------- */

struct import_options {
    const char *from, *out, *pattern;
    struct option_strings specials;
};

static const struct option import_table[] = {
    { "from", OPTION_FIELD(PATH, struct import_options, from), NULL,
      .help = "A tokenizer.json, vocab.json with merges.txt beside it, a tiktoken file, or a "
              "folder that holds one of them." },
    { "out", OPTION_FIELD(PATH, struct import_options, out), "tokenizer.json",
      .help = "File to write." },
    { "pattern", OPTION_FIELD(STRING, struct import_options, pattern), NULL,
      .help = "What vocab.json and tiktoken files do not say: gpt2, cl100k, llama3 or qwen2." },
    { "specials", OPTION_FIELD(STRINGS, struct import_options, specials), NULL,
      .help = "Nor these: special tokens, TEXT or TEXT=ID." },
    { 0 },
};

static int import(struct invocation *v)
{
    const struct import_options *o = v->options;
    struct tokenizer_import how = { o->pattern, o->specials.at, o->specials.count };
    struct tokenizer *t;
    if (!o->from)
        return err_set(ERR_USAGE, "say what to import: --from PATH");
    TRY(tokenizer_open_as(&t, o->from, &how));
    int rc = tokenizer_save(t, o->out);
    if (rc >= 0)
        printf("%s: %d tokens, SHA-256 %s\n", o->out, tokenizer_size(t), tokenizer_hash(t));
    tokenizer_free(t);
    return rc;
}

/* --- the command -------------------------------------------------------------------- */

static const struct example train_examples[] = {
    { "headway tokenizer train --vocab-size 8000 --out tok.json books/", "Learn from a folder." },
    { 0 } };
static const struct example encode_examples[] = {
    { "headway tokenizer encode --tokenizer tok.json --ids < lines.txt", "Ids of each line." },
    { "headway tokenizer encode --tokenizer tok.json --count < book.txt", "Only how many." },
    { 0 } };
static const struct example decode_examples[] = {
    { "echo '[72, 105]' | headway tokenizer decode --tokenizer tok.json", "Ids back to text." },
    { 0 } };
static const struct example import_examples[] = {
    { "headway tokenizer import --from ~/gpt2 --out tok.json", "vocab.json and merges.txt." },
    { 0 } };

static const struct command cmd_train_tokenizer = {
    .name = "train", .summary = "Learn a byte-level BPE vocabulary from text",
    .arguments = "PATH...",
    .description = "Each PATH is a file, a folder, or - for standard input; .gz and .zst are "
                   "unpacked on the way.",
    .options = train_table, .options_bytes = sizeof(struct train_options), .min_args = 1,
    .max_args = -1, .examples = train_examples, .run = train,
};
static const struct command cmd_encode = {
    .name = "encode", .summary = "Turn standard input into token ids",
    .options = encode_table, .options_bytes = sizeof(struct encode_options),
    .examples = encode_examples, .run = encode,
};
static const struct command cmd_decode = {
    .name = "decode", .summary = "Turn lists of ids on standard input into text",
    .options = decode_table, .options_bytes = sizeof(struct decode_options),
    .examples = decode_examples, .run = decode,
};
static const struct command cmd_import_tokenizer = {
    .name = "import", .summary = "Turn another program's tokenizer into a tokenizer.json",
    .options = import_table, .options_bytes = sizeof(struct import_options),
    .examples = import_examples, .run = import,
};

static const struct command *const subcommands[] = { &cmd_train_tokenizer, &cmd_encode,
                                                     &cmd_decode, &cmd_import_tokenizer, NULL };
static const struct example examples[] = {
    { "headway tokenizer train --vocab-size 8000 --out tok.json books/", "Learn from text." },
    { 0 } };

const struct command cmd_tokenizer = {
    .name = "tokenizer", .summary = "Train, use and import tokenizers",
    .description = "Byte-level BPE, as GPT-2, GPT-4, Llama 3 and Qwen use it; ids equal those "
                   "of Hugging Face's tokenizers.",
    .subcommands = subcommands, .examples = examples,
};
