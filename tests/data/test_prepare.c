#include "make_data.h"

#include "base/log.h"
#include "data/bpe_train.h"
#include "data/dataset.h"
#include "data/ledger.h"
#include "data/json_document.h"
#include "data/prepare.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <zlib.h>

static struct tokenizer *tokenizer; /* 300 tokens, <|endoftext|> and ChatML's two */
static char corpus[64];             /* folder with some files of every kind */

/* --- a corpus ----------------------------------------------------------------------- */

static const char *const words[] = { "sun",   "river", "stone", "walks", "old", "blue",
                                     "sings", "over",  "the",   "and",   "é",   "漢字" };

static i64 make_sentence(char *out, size_t room, u64 number)
{
    const struct rng key = { number, 7 };
    i64 n = 0, count = 3 + (i64)(rng_u64(&key, 0) % 30);
    for (i64 i = 1; i <= count; i++)
        n += snprintf(out + n, room - (size_t)n, "%s%s",
                      words[rng_u64(&key, (u64)i) % 12], i < count ? " " : ".\n");
    return n;
}

static void write_gzip(const char *path, const void *bytes, i64 n)
{
    gzFile f = gzopen(path, "wb");
    CHECK(f && gzwrite(f, bytes, (unsigned)n) == n);
    gzclose(f);
}

static void make_corpus(void)
{
    static char file[1 << 20];
    char path[512];
    snprintf(corpus, sizeof corpus, "%s", fresh_folder("corpus"));
    for (int k = 0; k < 6; k++) {
        i64 n = 0;
        for (int i = 0; i < 300; i++) {
            char sentence[400];
            i64 bytes = make_sentence(sentence, sizeof sentence, (u64)(k * 290 + i));
            bool json = k >= 3; /* sentences of neighbouring files overlap: duplicates */
            n += snprintf(file + n, sizeof file - (size_t)n,
                          json ? "{\"text\": \"%.*s\\n\"}\n" : "%.*s\n\n", (int)bytes - 1,
                          sentence);
        }
        snprintf(path, sizeof path, "%s/%d%s%s", corpus, k, k >= 3 ? ".jsonl" : ".txt",
                 k % 2 ? ".gz" : "");
        if (k % 2)
            write_gzip(path, file, n);
        else
            write_file(path, file, n);
    }
}

static int set_up(void **state)
{
    (void)state;
    static const char *const specials[] = { "<|endoftext|>", "<|im_start|>",
                                            "<|im_end|>" };
    const struct bpe_train_options o = { .vocab_size = 300,
                                         .min_count = 2,
                                         .pattern = "gpt2",
                                         .specials = specials,
                                         .special_count = 3 };
    struct bpe_trainer *t;
    struct pool *pool;
    char sentence[400];
    CHECK_OK(pool_new(&pool, 1, false));
    CHECK_OK(bpe_trainer_new(&t, &o, pool));
    for (u64 i = 0; i < 200; i++)
        CHECK_OK(
            bpe_trainer_add(t, sentence, make_sentence(sentence, sizeof sentence, i)));
    CHECK_OK(bpe_trainer_finish(t, &tokenizer));
    bpe_trainer_free(t);
    pool_free(pool);
    make_corpus();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    sys_remove_tree(corpus);
    tokenizer_free(tokenizer);
    return 0;
}

static const char *const corpus_paths[] = { corpus };

static struct prepare_config config_for(const char *out)
{
    return (struct prepare_config){ .paths = corpus_paths, .n_paths = 1, .out = out,
                                    .tokenizer = tokenizer, .source = "made up",
                                    .licence = "CC0-1.0", .separator = "^$",
                                    .drop_separator = true, .invalid = UTF8_REPLACE,
                                    .val_fraction = 0.1, .shard_tokens = 6000,
                                    .sync_bytes = 5000, .unit_bytes = 1000,
                                    .threads = 1 };
}

/* A path that does not exist yet. */
static const char *no_folder(const char *name)
{
    const char *path = fresh_folder(name);
    sys_remove_tree(path);
    return path;
}

/* One hash of all names and contents of a folder. */
static u64 folder_hash(const char *folder)
{
    char **names, path[512], hex[65];
    u64 h = 0;
    int n = sys_list(folder, &names);
    CHECK(n > 0);
    for (int i = 0; i < n; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        CHECK_OK(sha256_file(path, hex));
        h = hash64(names[i], (i64)strlen(names[i]), h);
        h = hash64(hex, 64, h);
    }
    sys_free(names);
    return h;
}

static u64 wanted_hash(void)
{
    static u64 hash;
    struct prepare_progress p;
    const char *out = no_folder("wanted");
    struct prepare_config c = config_for(out);
    if (hash == 0) {
        CHECK_OK(prepare_run(&c, &p));
        hash = folder_hash(out);
        sys_remove_tree(out);
    }
    return hash;
}

static bool stop_soon(void *context, const struct prepare_progress *p)
{
    (void)p;
    return --*(int *)context > 0;
}

/* --- contents ----------------------------------------------------------------------- */

/* Decodes every document of a split, and checks its bytes and its hash. */
static i64 check_split(const char *folder, const char *split, struct arena *a)
{
    struct dataset d;
    struct dataset_reader r;
    struct buffer text = { 0 };
    u32 ids[2000];
    i64 begins[2], bytes = 0;
    CHECK_OK(dataset_open(&d, folder, split, -1, a));
    dataset_reader_init(&r, &d, 4);
    for (i64 k = 0; k < d.documents; k++) {
        CHECK_OK(dataset_begins(&r, k, 2, begins));
        CHECK_OK(dataset_tokens(&r, begins[0], begins[1] - begins[0], ids));
        CHECK_EQ(ids[0], tokenizer_find(tokenizer, "<|endoftext|>"));
        text.bytes = 0;
        CHECK_OK(tokenizer_decode(tokenizer, (i32 *)ids + 1, begins[1] - begins[0] - 1,
                                  false, &text));
        CHECK(text.bytes > 5 && memcmp(text.data + text.bytes - 2, ".\n", 2) == 0);
        bytes += text.bytes;
    }
    CHECK_EQ(bytes, d.text_bytes);
    buffer_fini(&text);
    dataset_reader_fini(&r);
    return d.documents;
}

TEST(every_document_is_there_once_and_decodes_to_its_text)
{
    const char *out = no_folder("contents");
    struct prepare_config c = config_for(out);
    struct prepare_progress p;
    struct arena a;
    arena_init(&a);
    CHECK_OK(prepare_run(&c, &p));
    CHECK_EQ(p.counts.documents, 5 * 290 + 300);
    CHECK_EQ(p.counts.duplicates, 6 * 300 - p.counts.documents);
    CHECK_EQ(p.input_bytes, p.total_bytes);
    i64 train = check_split(out, "train", &a), val = check_split(out, "val", &a);
    CHECK_EQ(train + val, p.counts.documents);
    CHECK_EQ(val, p.counts.val_documents);
    /* Binomial: 175 expected of 1750, standard deviation 12.5. */
    CHECK(val > 175 - 50 && val < 175 + 50);
    sys_remove_tree(out);
    arena_fini(&a);
}

/* All tokens are in one shard where it may have as many, in two where it may have one fewer. */
TEST(a_shard_has_no_more_tokens_than_it_may)
{
    i64 tokens = 6000;
    for (i64 less = -1; less < 2; less++) {
        struct prepare_progress p;
        struct dataset d;
        struct arena a;
        const char *out = no_folder("limit");
        struct prepare_config c = config_for(out);
        c.val_fraction = 0;
        c.shard_tokens = less < 0 ? 0 : tokens - less; /* 0: as by default, which is plenty */
        arena_init(&a);
        CHECK_OK(prepare_run(&c, &p));
        CHECK_OK(dataset_open(&d, out, "train", -1, &a));
        tokens = d.tokens;
        CHECK_EQ(d.n_shards, less == 1 ? 2 : 1);
        CHECK(less == 1 || d.shards[0].info.tokens == tokens);
        sys_remove_tree(out);
        arena_fini(&a);
    }
}

/* Four texts of the same lines, each cut in pieces that are all alike, and a short one twice: only
 * that one is a duplicate, whatever pieces say, and also when the work is taken up again. */
TEST(pieces_of_long_texts_are_no_duplicates)
{
    enum { LINES = 40, LINE = 32, TEXTS = 4 };
    char folder[256], path[512], text[LINES * LINE + 1];
    const char *out = no_folder("pieces");
    struct prepare_progress p;
    struct prepare_config c = config_for(out);
    const char *paths[] = { folder };
    snprintf(folder, sizeof folder, "%s", fresh_folder("repeats"));
    for (int i = 0; i < LINES; i++)
        snprintf(text + i * LINE, LINE + 1, "%s", "the sun walks over the old rive\n");
    for (int i = 0; i < TEXTS + 2; i++) {
        snprintf(path, sizeof path, "%s/%d.txt", folder, i);
        write_file(path, text, i < TEXTS ? LINES * LINE : 2 * LINE);
    }
    c.paths = paths;
    c.separator = NULL;
    c.most = 2 * LINE; /* a piece is the short text */
    c.unit_bytes = 300;
    c.sync_bytes = 1;
    for (int calls = 3; calls < 12; calls += 4) {
        c.progress = stop_soon;
        int left = calls;
        c.context = &left;
        CHECK_FAILS(prepare_run(&c, &p), ERR_STOPPED, "same command");
        c.progress = NULL;
        CHECK_OK(prepare_run(&c, &p));
        CHECK(p.resumed);
        CHECK_EQ(p.counts.duplicates, 1);
        CHECK_EQ(p.counts.text_bytes, TEXTS * LINES * LINE + 2 * LINE);
        CHECK_EQ(p.counts.documents, TEXTS * LINES / 2 + 1);
        CHECK_EQ(p.counts.cut, TEXTS * (LINES / 2 - 1));
        sys_remove_tree(out);
    }
    sys_remove_tree(folder);
}

TEST(threads_change_nothing)
{
    struct prepare_progress p;
    for (int threads = 2; threads <= 17; threads += 5) {
        const char *out = no_folder("threads");
        struct prepare_config c = config_for(out);
        c.threads = threads;
        CHECK_OK(prepare_run(&c, &p));
        CHECK(folder_hash(out) == wanted_hash());
        sys_remove_tree(out);
    }
}

TEST(the_ledger_tells_what_went_in_and_notices_damage)
{
    const char *out = no_folder("ledger");
    struct prepare_config c = config_for(out);
    struct prepare_progress p;
    json_t *ledger;
    char path[512];
    CHECK_OK(prepare_run(&c, &p));
    CHECK_OK(ledger_load(out, &ledger));
    CHECK_STR(json_string_value(json_object_get(ledger, "licence")), "CC0-1.0");
    const json_t *inputs = json_object_get(ledger, "inputs");
    i64 documents = 0, duplicates = 0;
    for (size_t i = 0; i < json_array_size(inputs); i++) {
        const json_t *input = json_array_get(inputs, i);
        char hex[65];
        CHECK_OK(sha256_file(json_string_value(json_object_get(input, "path")), hex));
        CHECK_STR(json_string_value(json_object_get(input, "sha256")), hex);
        documents += json_integer_value(json_object_get(input, "documents"));
        duplicates += json_integer_value(json_object_get(input, "duplicates"));
    }
    CHECK_EQ(json_array_size(inputs), 6);
    CHECK_EQ(documents, p.counts.documents);
    CHECK_EQ(duplicates, p.counts.duplicates);
    struct ledger_check check = { .inputs = true, .told = NULL };
    CHECK_OK(ledger_verify(out, ledger, &check));
    CHECK(check.shards > 4);
    CHECK_EQ(check.inputs_checked, 6);
    snprintf(path, sizeof path, "%s/train-00001.shard", out);
    int fd = sys_open(path, O_RDWR, 0);
    u8 byte;
    CHECK(sys_pread(fd, &byte, 1, 5000) == 1);
    byte ^= 4;
    CHECK(sys_seek(fd, 5000, SEEK_SET) == 5000 && sys_write_full(fd, &byte, 1) == 0);
    sys_close(fd);
    CHECK_EQ(ledger_verify(out, ledger, &check), ERR_FORMAT);
    CHECK(strstr(err_message(), "train-00001.shard"));
    json_decref(ledger);
    sys_remove_tree(out);
}

TEST(a_finished_data_set_is_kept_and_a_different_one_refused)
{
    const char *out = no_folder("again");
    struct prepare_config c = config_for(out);
    struct prepare_progress p;
    CHECK_OK(prepare_run(&c, &p));
    CHECK(!p.existed);
    CHECK_OK(prepare_run(&c, &p));
    CHECK(p.existed);
    c.val_fraction = 0.2;
    CHECK_FAILS(prepare_run(&c, &p), ERR_USAGE, "holds something else");
    sys_remove_tree(out);
}

/* --- what the loss counts ----------------------------------------------------------- */

static void add_token(struct buffer *out, u32 id)
{
    i64 n;
    const u8 *token = tokenizer_token(tokenizer, (i32)id, &n);
    CHECK_OK(buffer_add(out, token, n));
}

/* Text of one prepared line: the part with loss in [brackets]. */
static const char *prepared(const char *line)
{
    static struct buffer text;
    const char *out = no_folder("masks");
    char path[64];
    snprintf(path, sizeof path, "line-%d.jsonl", (int)getpid());
    write_text(path, line);
    const char *paths[] = { path };
    struct prepare_config c = config_for(out);
    struct prepare_progress p;
    struct arena a;
    struct dataset d;
    struct dataset_reader r;
    u32 ids[500];
    u8 mask[500], before = 0;
    c.paths = paths;
    c.val_fraction = 0;
    arena_init(&a);
    CHECK_OK(prepare_run(&c, &p));
    CHECK_OK(dataset_open(&d, out, "train", -1, &a));
    dataset_reader_init(&r, &d, 1);
    CHECK_OK(dataset_tokens(&r, 0, d.tokens, ids));
    CHECK_OK(dataset_mask(&r, 0, d.tokens, mask));
    text.bytes = 0;
    for (i64 i = 1; i <= d.tokens; i++) {
        u8 now = i < d.tokens && mask[i];
        if (now != before)
            CHECK_OK(buffer_add(&text, now ? "[" : "]", 1));
        before = now;
        if (i < d.tokens)
            add_token(&text, ids[i]);
    }
    CHECK_OK(buffer_add(&text, "", 1));
    dataset_reader_fini(&r);
    arena_fini(&a);
    sys_remove_tree(out);
    sys_unlink(path);
    return (const char *)text.data;
}

TEST(only_answers_count_in_the_loss)
{
    CHECK_STR(prepared("{\"text\": \"the sun\"}"), "[the sun]");
    CHECK_STR(prepared("{\"prompt\": \"2+2=\", \"answer\": \"4\"}"), "2+2=[4]");
    CHECK_STR(prepared("{\"instruction\": \"say\", \"output\": \"<|im_end|>\"}"),
              "say[<|im_end|>]");
    CHECK_STR(prepared("{\"instruction\": \"say\", \"input\": \"a\", \"output\": \"b\"}"),
              "say\na[b]");
    CHECK_STR(prepared("{\"instruction\": \"say\", \"input\": \"\", \"output\": \"b\"}"),
              "say[b]");
    CHECK_STR(prepared("{\"messages\": [{\"role\": \"user\", \"content\": \"a\"},"
                       "{\"role\": \"assistant\", \"content\": \"b\"},"
                       "{\"role\": \"user\", \"content\": \"c\"}]}"),
              "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n[b<|im_end|>]\n"
              "<|im_start|>user\nc<|im_end|>\n");
}

/* What is one text to who renders a prompt by a template is one text here, tokens across
 * included. */
TEST(neighbouring_texts_that_count_alike_are_one)
{
    static const char line[] = "{\"messages\": [{\"role\": \"user\", \"content\": \"a.\"},"
                               "{\"role\": \"assistant\", \"content\": \"b\"},"
                               "{\"role\": \"user\", \"content\": \"c\"}]}";
    const struct chat_style plain = { .open = -1, .middle = -1, .close = -1, .before = "### ",
                                      .after_role = "\n", .after = "\n\n" };
    static const char *const parts[] = { "### user\na.\n\n### assistant\n", "b\n\n",
                                         "### user\nc\n\n" };
    struct json_document d = { 0 };
    CHECK_OK(json_document_parse(&d, &plain, line, sizeof line - 1, "line", 1));
    CHECK_EQ(json_document_parts(&d), COUNT_OF(parts));
    for (i64 i = 0; i < COUNT_OF(parts); i++) {
        const struct json_part *p = json_document_part(&d, i);
        CHECK_EQ(p->counts, i == 1);
        CHECK_EQ(p->bytes, (i64)strlen(parts[i]));
        CHECK(memcmp((const char *)d.text.data + p->begin, parts[i], (size_t)p->bytes) == 0);
    }
    json_document_fini(&d);
}

/* --- bad input ---------------------------------------------------------------------- */

static int prepare_text(const char *name, const void *bytes, i64 n,
                        enum utf8_policy policy, struct prepare_progress *p)
{
    const char *out = no_folder("bad");
    char path[64];
    snprintf(path, sizeof path, "%d-%s", (int)getpid(), name);
    write_file(path, bytes, n < 0 ? (i64)strlen(bytes) : n);
    const char *paths[] = { path };
    struct prepare_config c = config_for(out);
    c.paths = paths;
    c.val_fraction = 0;
    c.invalid = policy;
    int rc = prepare_run(&c, p);
    CHECK_EQ(sys_exists(out), rc == OK);
    char partial[300];
    snprintf(partial, sizeof partial, "%s.partial", out);
    if (sys_exists(partial))
        sys_remove_tree(partial);
    if (rc == OK)
        sys_remove_tree(out);
    sys_unlink(path);
    return rc;
}

TEST(inputs_that_cannot_be_used_are_refused_in_one_sentence)
{
    static const char bad[] = "good\n\nb\xff\xc3 d\n";
    struct prepare_progress p;
    CHECK_FAILS(prepare_text("x.txt", bad, sizeof bad - 1, UTF8_REJECT, &p), ERR_FORMAT,
                "x.txt, document at line 3");
    CHECK_FAILS(prepare_text("x.jsonl", "{\"text\": \"a\"}\n{\"text\": }\n", -1, UTF8_REJECT, &p),
                ERR_FORMAT, "x.jsonl:2:10: ");
    CHECK_OK(prepare_text("x.txt", bad, sizeof bad - 1, UTF8_REPLACE, &p));
    CHECK_EQ(p.counts.malformed, 2);
    CHECK_OK(prepare_text("x.txt", bad, sizeof bad - 1, UTF8_BYTES, &p));
    CHECK_EQ(p.counts.malformed, 2);
    CHECK_FAILS(prepare_text("e.txt", " \n\n", 3, UTF8_REJECT, &p), ERR_FORMAT,
                "no text");
    CHECK_FAILS(prepare_text("x.jsonl", "{\"text\": \"a\"}\n{\"text\": 5}\n", -1,
                             UTF8_REJECT, &p),
                ERR_FORMAT, "line 2");
    CHECK_FAILS(prepare_text("x.jsonl", "{\"text\": \"a\"\n", -1, UTF8_REJECT, &p),
                ERR_FORMAT, "x.jsonl:1:12: ");
    CHECK_FAILS(prepare_text("x.jsonl", "{\"messages\": []}\n", -1, UTF8_REJECT, &p),
                ERR_FORMAT, "messages");
    CHECK_FAILS(prepare_text("x.jsonl", "{\"instruction\": \"a\", \"input\": 5, "
                             "\"output\": \"b\"}\n", -1, UTF8_REJECT, &p),
                ERR_FORMAT, "input of its instruction");
    CHECK_FAILS(prepare_text("x.gz", "\x1f\x8b\x08\x00junk", 8, UTF8_REJECT, &p),
                ERR_FORMAT, "ends in the middle");
}

TEST(bad_lines_are_left_out_and_counted_where_that_is_wanted)
{
    static const char lines[] = "{\"text\": \"sun\"}\nno document\n{\"text\": 5}\n"
                                "{\"text\": \"river\"}\n";
    char path[64];
    const char *paths[] = { path }, *out = no_folder("left-out");
    struct prepare_config c = config_for(out);
    struct prepare_progress p;
    snprintf(path, sizeof path, "bad-%d.jsonl", (int)getpid());
    write_file(path, lines, sizeof lines - 1);
    c.paths = paths;
    c.val_fraction = 0;
    c.skip_bad_lines = true;
    CHECK_OK(prepare_run(&c, &p));
    CHECK_EQ(p.counts.documents, 2);
    CHECK_EQ(p.counts.skipped, 2);
    sys_remove_tree(out);
    sys_unlink(path);
}

static char kept_warning[256];

static void keep_warning(void *context, enum log_level level, const char *line)
{
    (void)context;
    if (level == LOG_WARN)
        snprintf(kept_warning, sizeof kept_warning, "%s", line);
}

TEST(text_that_is_hardly_any_is_told)
{
    char bytes[300];
    struct prepare_progress p;
    for (int i = 0; i < COUNT_OF(bytes); i++)
        bytes[i] = i % 100 ? 'a' : '\xff';
    log_add_sink(keep_warning, NULL, LOG_WARN);
    CHECK_OK(prepare_text("rare.txt", bytes, 300, UTF8_BYTES, &p));
    CHECK(p.counts.malformed == 3 && !*kept_warning);
    bytes[1] = '\xff';
    CHECK_OK(prepare_text("often.txt", bytes, 300, UTF8_BYTES, &p));
    CHECK(strstr(kept_warning, "4 places in 300 bytes are not UTF-8"));
    log_remove_sink(keep_warning, NULL);
}

/* --- interruptions ------------------------------------------------------------------ */

/* Runs prepare in a process of its own, with a fault armed. Its wait status. */
static int run_child(const struct prepare_config *c, const char *fault)
{
    fflush(NULL);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        struct prepare_progress p;
        sys_fault_arm(fault);
        _exit(prepare_run(c, &p) == OK ? 0 : 1);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    return status;
}

/* As a second process does, that prepares the same folder: flock tells descriptors apart. */
TEST(two_that_prepare_the_same_folder_do_not_write_into_each_other)
{
    const char *out = no_folder("both");
    struct prepare_config c = config_for(out);
    struct prepare_progress p;
    char partial[300], kept[320];
    snprintf(partial, sizeof partial, "%s.partial", out);
    snprintf(kept, sizeof kept, "%s/train-00000.shard", partial);
    CHECK(sys_mkdirs(partial) == 0);
    write_file(kept, "of the first", 12);
    int first = sys_open(partial, O_RDONLY | O_DIRECTORY, 0);
    CHECK(first >= 0 && sys_lock(first) == 0);
    CHECK_FAILS(prepare_run(&c, &p), ERR_USAGE, "another process is preparing");
    CHECK_EQ(sys_file_bytes(kept), 12);
    CHECK(!sys_exists(out));
    sys_close(first);
    CHECK_OK(prepare_run(&c, &p)); /* whoever was killed holds no lock, and left nothing of use */
    CHECK(folder_hash(out) == wanted_hash());
    CHECK(!sys_exists(partial));
    sys_remove_tree(out);
}

TEST(what_no_preparation_made_is_not_removed)
{
    const char *out = no_folder("foreign");
    struct prepare_config c = config_for(out);
    struct prepare_progress p;
    char partial[300], thesis[320];
    snprintf(partial, sizeof partial, "%s.partial", out);
    snprintf(thesis, sizeof thesis, "%s/thesis.tex", partial);
    CHECK(sys_mkdirs(partial) == 0);
    write_file(thesis, "of somebody", 11);
    CHECK_FAILS(prepare_run(&c, &p), ERR_USAGE, "holds thesis.tex");
    CHECK_EQ(sys_file_bytes(thesis), 11);
    CHECK(sys_unlink(thesis) == 0);
    CHECK_OK(prepare_run(&c, &p));
    CHECK(folder_hash(out) == wanted_hash());
    sys_remove_tree(out);
}

/* Kills at a random system call, again and again, until a run comes through. */
TEST(killed_at_any_moment_it_goes_on_to_the_same_data)
{
    static const char *const ops[] = { "write", "fsync",  "rename",
                                       "open",  "unlink", "mkdir" };
    const struct rng key = { 11, 3 };
    u64 draw = 0;
    i64 kills = 0;
    for (int round = 0; round < 12; round++) {
        const char *out = no_folder("kill");
        struct prepare_config c = config_for(out);
        c.threads = 1 + round % 3;
        for (int attempt = 0;; attempt++) {
            char fault[64];
            CHECK(attempt < 40);
            snprintf(fault, sizeof fault, "%s:%d:KILL", ops[rng_u64(&key, draw) % 6],
                     1 + (int)(rng_u64(&key, draw + 1) % (attempt % 2 ? 3 : 50)));
            draw += 2;
            int status = run_child(&c, attempt < 30 ? fault : NULL);
            if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
                break;
            CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
            kills++;
        }
        CHECK(folder_hash(out) == wanted_hash());
        sys_remove_tree(out);
    }
    CHECK(kills > 20);
}

TEST(a_full_disk_leaves_no_data_set_and_loses_no_work)
{
    for (int nth = 1; nth < 60; nth += 3) {
        const char *out = no_folder("full");
        struct prepare_config c = config_for(out);
        struct prepare_progress p;
        char fault[64];
        snprintf(fault, sizeof fault, "write:%d:ENOSPC:repeat", nth);
        CHECK(sys_fault_arm(fault) == 0);
        int rc = prepare_run(&c, &p);
        sys_fault_arm(NULL);
        if (rc < 0) {
            CHECK_EQ(rc, ERR_SYS);
            CHECK(strstr(err_message(), "No space left"));
            CHECK(!sys_exists(out));
            CHECK_OK(prepare_run(&c, &p));
        }
        CHECK(folder_hash(out) == wanted_hash());
        sys_remove_tree(out);
    }
}

TEST(a_request_to_stop_is_obeyed_and_the_work_taken_up_again)
{
    const char *out = no_folder("stop");
    struct prepare_config c = config_for(out);
    struct prepare_progress p;
    int calls = 3;
    c.progress = stop_soon;
    c.context = &calls;
    CHECK_FAILS(prepare_run(&c, &p), ERR_STOPPED, "same command");
    calls = 1000;
    CHECK_OK(prepare_run(&c, &p));
    CHECK(p.resumed);
    CHECK(folder_hash(out) == wanted_hash());
    sys_remove_tree(out);
}

int main(void)
{
    const struct CMUnitTest all_tests[] = {
        ONE(every_document_is_there_once_and_decodes_to_its_text),
        ONE(a_shard_has_no_more_tokens_than_it_may),
        ONE(pieces_of_long_texts_are_no_duplicates), ONE(threads_change_nothing),
        ONE(the_ledger_tells_what_went_in_and_notices_damage),
        ONE(a_finished_data_set_is_kept_and_a_different_one_refused),
        ONE(only_answers_count_in_the_loss),
        ONE(neighbouring_texts_that_count_alike_are_one),
        ONE(bad_lines_are_left_out_and_counted_where_that_is_wanted),
        ONE(text_that_is_hardly_any_is_told),
        ONE(inputs_that_cannot_be_used_are_refused_in_one_sentence),
        ONE(two_that_prepare_the_same_folder_do_not_write_into_each_other),
        ONE(what_no_preparation_made_is_not_removed),
        ONE(killed_at_any_moment_it_goes_on_to_the_same_data),
        ONE(a_full_disk_leaves_no_data_set_and_loses_no_work),
        ONE(a_request_to_stop_is_obeyed_and_the_work_taken_up_again),
    };
    return cmocka_run_group_tests(all_tests, set_up, tear_down);
}
