/* Encoding and training beside Hugging Face's `tokenizers`, on the same text.
 *
 *     bench_tokenizer [--reps N] [--pattern gpt2|cl100k|llama3|qwen2] [FILE]
 *
 * FILE is UTF-8 text; default: 40 MB of made-up words. Training: a vocabulary of 32,000 on
 * two threads, from all of it. Encoding: one thread, MB/s of UTF-8, the first 8 MB, line by
 * line and in documents of 64 KiB, median of N (default 3). The peer is run by
 * bench/peers/tokenizer_speed.py, under $PYTHON (default python3), alternating with ours;
 * without it, ours stand alone. */
#include "base/err.h"
#include "base/json.h"
#include "base/pool.h"
#include "base/rng.h"
#include "base/sys.h"
#include "data/bpe_train.h"
#include "data/encoder.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MOST_REPEATS = 100,
    VOCAB = 32000,
    THREADS = 2,
    MADE_BYTES = 40 << 20,
    ENCODE_BYTES = 8000000,
    DOCUMENT_BYTES = 64 << 10, /* and up to the next line end, as the peer has it too */
};

static const char text_path[] = "build/bench-tokenizer.txt";
static const char part_path[] = "build/bench-tokenizer-part.txt";
static const char tokenizer_path[] = "build/bench-tokenizer.json";

struct options {
    int repeats;
    const char *pattern, *file; /* NULL: made-up words */
};

static void must(int rc)
{
    if (rc < 0) {
        fprintf(stderr, "bench_tokenizer: %s\n", err_message());
        exit(1);
    }
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, by_value);
    return v[n / 2];
}

/* --- text --------------------------------------------------------------------------- */

/* Word number i: syllables, so that words share parts as those of a language do. */
static void add_word(struct text *t, u64 i)
{
    static const char *const syllables[] = {
        "the", "er", "in", "re", "on", "at", "en", "ti", "al", "st", "or", "de", "li", "ar",
        "se", "an", "ing", "tion", "ment", "pro", "con", "ca", "ro", "mi", "lo", "ve", "un",
        "ous", "ph", "qu", "sch", "\xC3\xA9"
    };
    do {
        text_add(t, syllables[i % COUNT_OF(syllables)]);
        i /= COUNT_OF(syllables);
    } while (i > 0);
}

/* Zipf's law over a million words: rank = e^(u ln N). */
static void make_text(struct text *t)
{
    const struct rng key = { 1, rng_stream("bench_tokenizer") };
    static const char *const ends[] = { " ", " ", " ", " ", " ", " ", " ", ", ", ". ", ".\n", "; ",
                                        " (", "'s ", "-", " 1984 ", "\n\n" };
    for (u64 n = 0; t->length < MADE_BYTES; n++) {
        u64 rank = 1;
        for (double u = rng_uniform(&key, 2 * n) * 20; u >= 1; u -= 1) /* log2 of a million */
            rank *= 2;
        rank += rng_u64(&key, 2 * n + 1) % rank;
        add_word(t, rank);
        text_add(t, ends[rng_u64(&key, 2 * n + 1) >> 60]);
    }
}

static void write_text(const char *path, const char *text, i64 bytes)
{
    int fd = sys_open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (fd < 0 || sys_write_full(fd, text, bytes) < 0 || sys_close(fd) < 0)
        must(err_set(ERR_SYS, "write %s failed; run this in the project's folder", path));
}

/* Where the first line that ends at `least` bytes or later ends. */
static i64 line_end(const char *text, i64 bytes, i64 least)
{
    if (least > bytes)
        return bytes;
    const char *newline = memchr(text + least - 1, '\n', (size_t)(bytes - least + 1));
    return newline ? newline + 1 - text : bytes;
}

/* --- ours --------------------------------------------------------------------------- */

static double train(const char *pattern, const char *text, i64 bytes, struct tokenizer **out)
{
    const char *specials[] = { "<|endoftext|>" };
    const struct bpe_train_options o = { .vocab_size = VOCAB, .min_count = 1, .pattern = pattern,
                                         .specials = specials, .special_count = 1 };
    struct bpe_trainer *t;
    struct pool *pool;
    u64 begin = sys_now_ns();
    must(pool_new(&pool, THREADS, false));
    must(bpe_trainer_new(&t, &o, pool));
    must(bpe_trainer_add(t, text, bytes));
    must(bpe_trainer_finish(t, out));
    bpe_trainer_free(t);
    pool_free(pool);
    return 1e-9 * (double)(sys_now_ns() - begin);
}

/* In texts of this many bytes and up to the next line end. */
static double encode(const struct tokenizer *t, const char *text, i64 bytes, i64 unit,
                     i64 *tokens)
{
    struct encoder *e;
    u64 begin = sys_now_ns();
    must(encoder_new(&e, t, &(struct encoder_options){ 0 }));
    for (i64 at = 0, length; at < bytes; at += length) {
        length = line_end(text + at, bytes - at, unit);
        must(encoder_text(e, text + at, length));
    }
    encoder_ids(e, tokens);
    encoder_free(e);
    return 1e-6 * (double)bytes / (1e-9 * (double)(sys_now_ns() - begin));
}

/* --- the peer ----------------------------------------------------------------------- */

/* One measurement by the peer; negative without one. */
static double peer(const char *what, const char *text, const char *arguments, const char *key,
                   char version[32])
{
    char line[1024], answer[4096];
    const char *python = sys_getenv("PYTHON");
    json_t *json = NULL;
    snprintf(line, sizeof line, "%s bench/peers/tokenizer_speed.py %s --text %s %s --repeat 1 "
                                "--json 2>/dev/null", python ? python : "python3", what,
             text, arguments);
    FILE *pipe = popen(line, "r");
    size_t n = pipe ? fread(answer, 1, sizeof answer, pipe) : 0;
    int rc = pipe ? pclose(pipe) : -1;
    if (rc != 0 || json_parse(answer, (i64)n, "peer", &json) < 0)
        return -1;
    double value = json_number_value(json_object_get(json, key));
    const char *said = json_string_value(json_object_get(json_object_get(json, "versions"),
                                                         "tokenizers"));
    snprintf(version, 32, "%s", said ? said : "");
    json_decref(json);
    return value;
}

static void print_row(const char *what, const char *unit, double *ours, double *theirs, int n,
                      bool more_is_better)
{
    double low = ours[0], high = ours[0];
    for (int i = 1; i < n; i++) {
        low = ours[i] < low ? ours[i] : low;
        high = ours[i] > high ? ours[i] : high;
    }
    double a = median(ours, n), b = median(theirs, n);
    printf("| %s | %.1f %s (%.1f-%.1f) |", what, a, unit, low, high);
    if (b > 0)
        printf(" %.1f %s | %.1f x |\n", b, unit, more_is_better ? a / b : b / a);
    else
        printf(" not found | |\n");
}

static void measure_training(const struct options *o, const struct text *text)
{
    double ours[MOST_REPEATS], theirs[MOST_REPEATS];
    char arguments[64], version[32] = "";
    struct tokenizer *t;
    snprintf(arguments, sizeof arguments, "--vocab %d --threads %d --kind %s", VOCAB, THREADS,
             o->pattern);
    for (int i = 0; i < o->repeats; i++) {
        ours[i] = train(o->pattern, text->data, text->length, &t);
        if (i == 0)
            must(tokenizer_save(t, tokenizer_path));
        tokenizer_free(t);
        theirs[i] = peer("train", text_path, arguments, "median_s", version);
    }
    printf("| %s | Headway | tokenizers %s | ratio |\n|---|---|---|---|\n", o->pattern, version);
    print_row("train 32,000, 2 threads", "s", ours, theirs, o->repeats, false);
}

static void measure_encoding(const struct options *o, const struct text *text, i64 unit)
{
    double ours[MOST_REPEATS], theirs[MOST_REPEATS];
    char arguments[256], version[32];
    struct tokenizer *t;
    i64 tokens = 0, bytes = line_end(text->data, text->length, ENCODE_BYTES);
    must(tokenizer_open(&t, tokenizer_path));
    snprintf(arguments, sizeof arguments, "--tokenizer %s --unit %lld", tokenizer_path,
             (long long)unit);
    for (int i = 0; i < o->repeats; i++) {
        ours[i] = encode(t, text->data, bytes, unit, &tokens);
        theirs[i] = peer("encode", part_path, arguments, "mb_per_s", version);
    }
    print_row(unit == 1 ? "encode lines, 1 thread" : "encode documents, 1 thread", "MB/s", ours,
              theirs, o->repeats, true);
    if (unit > 1)
        printf("%lld tokens, %.2f bytes each\n", (long long)tokens,
               (double)bytes / (double)tokens);
    tokenizer_free(t);
}

static bool parse(struct options *o, int argc, char **argv)
{
    *o = (struct options){ .repeats = 3, .pattern = "gpt2" };
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--reps") && i + 1 < argc)
            o->repeats = atoi(argv[++i]);
        else if (!strcmp(argv[i], "--pattern") && i + 1 < argc)
            o->pattern = argv[++i];
        else if (argv[i][0] == '-' || o->file)
            return false;
        else
            o->file = argv[i];
    }
    return o->repeats >= 1 && o->repeats <= MOST_REPEATS;
}

int main(int argc, char **argv)
{
    struct options o;
    struct text text = { 0 };
    i64 bytes;
    if (!parse(&o, argc, argv)) {
        fprintf(stderr, "usage: bench_tokenizer [--reps 1..%d] [--pattern NAME] [FILE]\n",
                MOST_REPEATS);
        return 2;
    }
    if (o.file) {
        const char *file = sys_map_file(o.file, &bytes);
        if (!file)
            must(err_set(ERR_SYS, "cannot open %s", o.file));
        text_add_bytes(&text, file, bytes);
    } else {
        make_text(&text);
    }
    write_text(text_path, text.data, text.length);
    write_text(part_path, text.data, line_end(text.data, text.length, ENCODE_BYTES));
    printf("text: %s, %.1f MB\n", o.file ? o.file : "made-up words", 1e-6 * (double)text.length);
    measure_training(&o, &text);
    measure_encoding(&o, &text, 1);
    measure_encoding(&o, &text, DOCUMENT_BYTES);
    text_fini(&text);
    return 0;
}
