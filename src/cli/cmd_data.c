/* Text into token shards, and what is in them. */
#include "base/err.h"
#include "base/sys.h"
#include "cli/command.h"
#include "cli/progress.h"
#include "data/dataset.h"
#include "data/ledger.h"
#include "data/prepare.h"

#include <stdio.h>
#include <string.h>

/* --- prepare ------------------------------------------------------------------------ */

struct prepare_options {
    const char *out, *tokenizer, *source, *licence, *separator;
    int format, invalid;
    bool drop_separator, skip_bad_lines, keep_duplicates;
    i64 least, most, shard_tokens, threads;
    double val_fraction;
};

#define FIELD(kind, name) OPTION_FIELD(kind, struct prepare_options, name)
static const struct option prepare_table[] = {
    { "out", FIELD(PATH, out), NULL, .help = "Folder to make; needed." },
    { "tokenizer", FIELD(PATH, tokenizer), NULL,
      .help =
          "A tokenizer.json, a folder that holds one, vocab.json with merges.txt, or a "
          "tiktoken file; needed." },
    { "format", FIELD(CHOICE, format), "auto", .choices = "auto|text|paragraphs|jsonl",
      .help =
          "What a document is: a whole file (text), what lies between blank lines "
          "(paragraphs), or a line (jsonl). auto takes jsonl by its name, else text." },
    { "separator", FIELD(STRING, separator), NULL,
      .help = "Regular expression; a line of text in which it matches begins a new "
              "document." },
    { "drop_separator", FIELD(BOOL, drop_separator), "no",
      .help = "Leave out what the separator matched at the start of a line." },
    { "least", FIELD(SIZE, least), "0", .unit = "bytes", .min = 0, .max = 1e9,
      .help = "Join documents that are shorter than this with those that follow." },
    { "most", FIELD(SIZE, most), "4MiB", .unit = "bytes", .min = 64, .max = 1e9,
      .help = "Cut longer documents into several, at the end of a line." },
    { "val_fraction", FIELD(FLOAT, val_fraction), "0.01", .max = 0.5,
      .help = "Share of documents held out for validation, chosen by the hash of their "
              "text." },
    { "invalid", FIELD(CHOICE, invalid), "replace", .choices = "reject|replace|bytes",
      .help = "Bytes that are no UTF-8: stop, put U+FFFD in their place, or keep them as "
              "they are. They are counted." },
    { "skip_bad_lines", FIELD(BOOL, skip_bad_lines), "no",
      .help =
          "Leave out lines of jsonl that are no documents, and count them, instead of "
          "stopping." },
    { "keep_duplicates", FIELD(BOOL, keep_duplicates), "no",
      .help = "Keep documents whose text was seen before." },
    { "source", FIELD(STRING, source), NULL,
      .help = "Where the text comes from, for the "
              "ledger." },
    { "licence", FIELD(STRING, licence), NULL, .help = "Its licence, for the ledger." },
    { "shard_tokens", FIELD(SIZE, shard_tokens), "500M", .unit = "tokens", .min = 1,
      .max = 1e12, .help = "Begin a new shard before this many tokens are exceeded." },
    { "threads", FIELD(INT, threads), "0", .max = 1024,
      .help =
          "Threads that encode; 0: as many as there are processors. The result does not "
          "depend on it." },
    { 0 },
};

/* "1.8 GB", "532 kB", "12 bytes". */
static const char *bytes_text(double bytes, char out[32])
{
    static const char *const units[] = { "bytes", "kB", "MB", "GB", "TB", "PB" };
    int unit = 0;
    for (; bytes >= 1000 && unit < 5; unit++)
        bytes /= 1000;
    snprintf(out, 32, unit && bytes < 10 ? "%.1f %s" : "%.0f %s", bytes, units[unit]);
    return out;
}

static bool show(void *context, const struct prepare_progress *p)
{
    char detail[128], size[32];
    double fraction =
        p->total_bytes > 0 ? (double)p->input_bytes / (double)p->total_bytes : -1;
    snprintf(detail, sizeof detail, "%lld documents  %.1f M tokens  %s",
             (long long)p->counts.documents, 1e-6 * (double)p->counts.tokens,
             bytes_text((double)p->counts.text_bytes, size));
    progress_update(context, fraction, detail);
    return true;
}

static void print_result(const char *out, const struct prepare_progress *p)
{
    const struct prepare_counts *c = &p->counts;
    char size[32];
    if (p->existed) {
        printf("%s was prepared before from the same text with the same settings\n", out);
        return;
    }
    printf("%s\n", out);
    printf("  train       %lld documents, %lld tokens\n",
           (long long)(c->documents - c->val_documents),
           (long long)(c->tokens - c->val_tokens));
    printf("  val         %lld documents, %lld tokens\n", (long long)c->val_documents,
           (long long)c->val_tokens);
    printf("  text        %s, %.2f bytes per token\n",
           bytes_text((double)c->text_bytes, size),
           (double)c->text_bytes / (double)i64_max(1, c->tokens));
    printf("  dropped     %lld duplicates", (long long)c->duplicates);
    if (c->skipped)
        printf(", %lld bad lines", (long long)c->skipped);
    printf("\n");
    if (c->malformed)
        printf("  not UTF-8   %lld places\n", (long long)c->malformed);
    if (c->cut)
        printf("  cut         %lld long documents\n", (long long)c->cut);
    printf("Next: headway data info %s\n", out);
}

static int run_prepare(struct invocation *v)
{
    const struct prepare_options *o = v->options;
    struct progress progress;
    struct prepare_progress result;
    struct tokenizer *tokenizer;
    if (!o->out || !o->tokenizer)
        return err_set(ERR_USAGE, "%s is needed: a %s",
                       o->out ? "--tokenizer" : "--out",
                       o->out ? "tokenizer.json, or a folder that holds one"
                              : "folder to make");
    TRY(tokenizer_open(&tokenizer, o->tokenizer));
    const struct prepare_config c = { .paths = v->args,
                                      .n_paths = v->n_args,
                                      .out = o->out,
                                      .tokenizer = tokenizer,
                                      .tokenizer_path = o->tokenizer,
                                      .source = o->source,
                                      .licence = o->licence,
                                      .format = o->format,
                                      .separator = o->separator,
                                      .drop_separator = o->drop_separator,
                                      .least = o->least,
                                      .most = o->most,
                                      .invalid = o->invalid,
                                      .skip_bad_lines = o->skip_bad_lines,
                                      .keep_duplicates = o->keep_duplicates,
                                      .val_fraction = o->val_fraction,
                                      .shard_tokens = o->shard_tokens,
                                      .threads = (int)o->threads,
                                      .progress = show,
                                      .context = &progress };
    progress_begin(&progress, v->terminal, "prepare");
    int rc = prepare_run(&c, &result);
    progress_end(&progress, rc < 0 ? "stopped" : "done");
    if (rc == OK)
        print_result(o->out, &result);
    tokenizer_free(tokenizer);
    return rc;
}

static const struct command cmd_prepare = {
    .name = "prepare",
    .summary = "Turn text into token shards",
    .arguments = "PATH...",
    .description =
        "Each PATH is a file, a folder (all files below it), or - for standard input; .gz, "
        ".dz and .zst are unpacked on the way. jsonl lines hold a text, messages of a chat, "
        "or a prompt and an answer (also called completion or response; question and answer; "
        "instruction, input and output); in the last two only what the assistant says counts in "
        "the loss.\n\n"
        "The result is a folder with shards for train and val and a ledger of what went in. "
        "Interrupted, by whatever, the same command goes on where it stopped.",
    .options = prepare_table,
    .options_bytes = sizeof(struct prepare_options),
    .min_args = 1,
    .max_args = -1,
    .examples =
        (const struct example[]){
            { "headway data prepare books/ --tokenizer tokenizer.json --out data/books",
              "Every file below books/ is a document." },
            { "headway data prepare gcide.dict.dz --separator '^\\S' --tokenizer tok "
              "--out data/gcide",
              "A dictionary whose headwords stand at the start of a line." },
            { "headway data prepare chats.jsonl.zst --tokenizer tok --out data/chats "
              "--licence CC-BY-4.0",
              "Chats, for fine-tuning on answers." },
            { 0 } },
    .run = run_prepare,
};

/* --- info --------------------------------------------------------------------------- */

struct info_options {
    bool verify, inputs;
};

static const struct option info_table[] = {
    { "verify", OPTION_FIELD(BOOL, struct info_options, verify), "yes",
      .help = "Read every shard and compare its checksums." },
    { "inputs", OPTION_FIELD(BOOL, struct info_options, inputs), "no",
      .help = "Compare the SHA-256 of every input file that is still there." },
    { 0 },
};

static void print_split(const struct dataset *d)
{
    char size[32];
    if (d->n_shards == 0)
        return;
    printf("  %-11s %lld tokens", d->split, (long long)d->tokens);
    if (d->has_documents)
        printf(" in %lld documents, %s of text", (long long)d->documents,
               bytes_text((double)d->text_bytes, size));
    printf(", %lld %s shard%s\n", (long long)d->n_shards,
           shard_kind_name(d->shards[0].info.kind), d->n_shards == 1 ? "" : "s");
    if (d->loss_tokens < d->tokens)
        printf("              %lld tokens count in the loss\n",
               (long long)d->loss_tokens);
}

/* A ledger may come from anybody. */
static void print_field(const json_t *from, const char *key, const char *otherwise)
{
    const char *value = json_string_value(json_object_get(from, key));
    struct text clean = { 0 };
    terminal_clean(&clean, value ? value : otherwise);
    printf("%s", clean.data);
    text_fini(&clean);
}

static void print_text(const json_t *ledger, const char *label, const char *key)
{
    printf("  %-11s ", label);
    print_field(ledger, key, "not stated");
    printf("\n");
}

/* The first digits of its SHA-256. */
static const char *hash_of(const json_t *file, char hex[17])
{
    const char *whole = json_string_value(json_object_get(file, "sha256"));
    const bool sound = whole && strspn(whole, "0123456789abcdef") == strlen(whole);
    snprintf(hex, 17, "%.16s", sound ? whole : "?");
    return hex;
}

static void print_input(const json_t *input)
{
    char hex[17];
    printf("    %s  ", hash_of(input, hex));
    print_field(input, "path", "?");
    printf("\n");
}

static void print_ledger(const json_t *ledger)
{
    const json_t *total = json_object_get(ledger, "total");
    const json_t *tokenizer = json_object_get(ledger, "tokenizer");
    const json_t *inputs = json_object_get(ledger, "inputs");
    char hex[17];
    print_text(ledger, "source", "source");
    print_text(ledger, "licence", "licence");
    printf("  tokenizer   %lld tokens, sha256 %s\n",
           (long long)json_integer_value(json_object_get(tokenizer, "size")),
           hash_of(tokenizer, hex));
    printf("  dropped     %lld duplicates, %lld bad lines\n",
           (long long)json_integer_value(json_object_get(total, "duplicates")),
           (long long)json_integer_value(json_object_get(total, "skipped")));
    printf("  not UTF-8   %lld places\n",
           (long long)json_integer_value(json_object_get(total, "malformed")));
    printf("  inputs      %lld\n", (long long)json_array_size(inputs));
    for (size_t i = 0; i < json_array_size(inputs); i++) {
        enum { SHOWN = 10 };
        if (i == SHOWN)
            printf("    ... and %lld more in ledger.json\n",
                   (long long)json_array_size(inputs) - SHOWN);
        if (i < SHOWN)
            print_input(json_array_get(inputs, i));
    }
}

static int verify(const char *path, const json_t *ledger, const struct info_options *o)
{
    struct ledger_check check = { .inputs = o->inputs };
    TRY(ledger_verify(path, ledger, &check));
    printf("  verified    %lld shards", (long long)check.shards);
    if (o->inputs)
        printf(", %lld inputs unchanged, %lld not found",
               (long long)check.inputs_checked, (long long)check.inputs_missing);
    printf("\n");
    return OK;
}

static int run_info(struct invocation *v)
{
    const struct info_options *o = v->options;
    const char *path = v->args[0];
    struct dataset train, val;
    TRY(dataset_open(&train, path, "train", -1, v->arena));
    TRY(dataset_open(&val, path, "val", -1, v->arena));
    const struct dataset *any = train.n_shards ? &train : &val;
    if (any->n_shards == 0)
        return err_set(ERR_USAGE,
                       "%s holds no shards; make some with headway data prepare", path);
    printf("%s\n", path);
    print_split(&train);
    print_split(&val);
    const char *ledger_path = arena_printf(v->arena, "%s/ledger.json", path);
    if (!any->has_documents || sys_file_bytes(ledger_path) < 0)
        return OK; /* llm.c, nanoGPT, or a single shard */
    json_t *ledger;
    TRY(ledger_load(path, &ledger));
    print_ledger(ledger);
    int rc = o->verify ? verify(path, ledger, o) : OK;
    json_decref(ledger);
    return rc;
}

static const struct command cmd_info = {
    .name = "info",
    .summary = "Show what is in a data set, and verify it",
    .arguments = "PATH",
    .description =
        "PATH is a folder that data prepare made, one shard, or shards of llm.c or "
        "nanoGPT. Checksums are compared unless --no-verify is given.",
    .options = info_table,
    .options_bytes = sizeof(struct info_options),
    .min_args = 1,
    .max_args = 1,
    .examples =
        (const struct example[]){
            { "headway data info data/books", "Counts, ledger, and checksums." },
            { "headway data info data/books --inputs",
              "Also whether the files it was made from are still the same." },
            { 0 } },
    .run = run_info,
};

const struct command cmd_data = {
    .name = "data",
    .summary = "Prepare text for training, and show what was prepared",
    .examples =
        (const struct example[]){
            { "headway data prepare corpus.txt --tokenizer tok --out data/corpus",
              "Text into shards." },
            { "headway data info data/corpus", "What is in them." },
            { 0 } },
    .subcommands = (const struct command *const[]){ &cmd_prepare, &cmd_info, NULL },
};
