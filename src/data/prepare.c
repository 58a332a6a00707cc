#include "data/prepare.h"

#include "base/err.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/sys.h"
#include "data/dataset.h"
#include "data/hash_set.h"
#include "data/journal.h"
#include "data/ledger.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

enum { DEFAULT_MOST = 4 << 20, DEFAULT_SYNC = 64 << 20, DEFAULT_UNIT = 1 << 19,
       DEFAULT_SHARD_TOKENS = 500000000 };
static const char log_name[] = "inputs.jsonl";
/* Splits by a hash of the hash, so that it has nothing to do with the set of duplicates. */
static const u64 split_seed = 0x76616c; /* "val" */

struct work {
    struct prepare_config config; /* with the defaults filled in */
    struct arena arena;
    struct inputs inputs;
    char fingerprint[65];
    const char *partial; /* OUT.partial */
    struct shard like;
    i32 begin, end; /* tokens around a document */
    struct journal journal;
    i64 unsaved; /* bytes of text since the journal was saved */
    i64 done_bytes; /* of inputs before the one in hand */
    struct shard_writer train, val;
    struct hash_set seen;
    bool opened; /* partial belongs to this run */
    int lock; /* partial, locked: two that prepare the same would write into each other's */
    int log;
    struct json line;
    struct prepare_progress progress;
};

/* --- settings ----------------------------------------------------------------------- */

static int check_config(struct work *w)
{
    struct prepare_config *c = &w->config;
    if (c->most == 0)
        c->most = DEFAULT_MOST;
    if (c->shard_tokens == 0)
        c->shard_tokens = DEFAULT_SHARD_TOKENS;
    if (c->sync_bytes == 0)
        c->sync_bytes = DEFAULT_SYNC;
    if (c->unit_bytes == 0)
        c->unit_bytes = DEFAULT_UNIT;
    if (c->threads == 0)
        c->threads = sys_cpu_count();
    if (c->most < 64 || c->least > c->most)
        return err_set(ERR_USAGE, "documents of %lld to %lld bytes are impossible",
                       (long long)c->least, (long long)c->most);
    if (c->val_fraction < 0 || c->val_fraction >= 1)
        return err_set(ERR_USAGE, "a validation share of %g is not between 0 and 1",
                       c->val_fraction);
    return OK;
}

static void choose_separator(struct work *w)
{
    const struct tokenizer *t = w->config.tokenizer;
    tokenizer_separators(t, &w->begin, &w->end);
    i32 size = tokenizer_size(t);
    w->like = (struct shard){ .token_bytes = size <= 1 << 16 ? 2 : 4,
                              .tokenizer_hash = dataset_tokenizer_id(tokenizer_hash(t)),
                              .separator = w->end >= 0 ? -1 : w->begin,
                              .vocab = (u32)size };
}

/* SHA-256 of everything that the result depends on. */
static void take_fingerprint(struct work *w)
{
    const struct prepare_config *c = &w->config;
    struct text t = { 0 };
    text_printf(&t, "%s\n%s\n%d %s\n%d %lld %lld %d %d %d %.17g %lld %lld\n",
                HEADWAY_VERSION, tokenizer_hash(c->tokenizer), c->format,
                c->separator ? c->separator : "", c->drop_separator, (long long)c->least,
                (long long)c->most, c->invalid, c->skip_bad_lines, c->keep_duplicates,
                c->val_fraction, (long long)c->shard_tokens, (long long)c->unit_bytes);
    text_printf(&t, "%s\n%s\n", c->source ? c->source : "", c->licence ? c->licence : "");
    for (i64 i = 0; i < w->inputs.count; i++)
        text_printf(&t, "%s %lld %lld\n", w->inputs.at[i].path,
                    (long long)w->inputs.at[i].bytes,
                    (long long)w->inputs.at[i].mtime_ns);
    sha256_of(t.data, t.length, w->fingerprint);
    text_fini(&t);
}

/* --- where an earlier run got to ---------------------------------------------------- */

/* True when OUT is this very data set already; an error when it is anything else. */
static int check_out(struct work *w, bool *existed)
{
    const char *out = w->config.out;
    json_t *ledger;
    char **names;
    *existed = false;
    if (!sys_exists(out))
        return OK;
    int n = sys_list(out, &names);
    if (n < 0)
        return err_set(ERR_SYS, "list %s: %s", out, strerror(errno));
    sys_free(names);
    if (n == 0)
        return OK; /* an empty folder is replaced */
    if (ledger_load(out, &ledger) == OK) {
        const char *print = json_string_value(json_object_get(ledger, "fingerprint"));
        *existed = strcmp(print, w->fingerprint) == 0;
        json_decref(ledger);
        if (*existed)
            return journal_remove(out); /* a kill may have left it */
    }
    return err_set(ERR_USAGE,
                   "%s exists and holds something else; remove it, or choose another "
                   "folder",
                   out);
}

static bool resumable(const struct work *w)
{
    for (i64 i = 0; i < w->inputs.count; i++)
        if (w->inputs.at[i].bytes < 0)
            return false; /* a pipe cannot be read again */
    return true;
}

/* Whoever held the lock before may have finished meanwhile: then partial is OUT by now. */
static int lock_partial(struct work *w)
{
    if (sys_mkdirs(w->partial) != 0)
        return err_set(ERR_SYS, "create %s: %s", w->partial, strerror(errno));
    w->lock = sys_open(w->partial, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (w->lock < 0)
        return err_set(ERR_SYS, "open %s: %s", w->partial, strerror(errno));
    if (sys_lock(w->lock) != 0)
        return errno == EWOULDBLOCK
                   ? err_set(ERR_USAGE, "another process is preparing %s; wait until it has "
                                        "finished, or choose another folder", w->config.out)
                   : err_set(ERR_SYS, "lock %s: %s", w->partial, strerror(errno));
    TRY(check_out(w, &w->progress.existed));
    if (w->progress.existed)
        sys_rmdir(w->partial); /* which mkdirs made anew */
    return OK;
}

/* What a preparation writes until it is done; the ".tmp" of one is replaced by a rename. */
static bool is_ours(const char *name)
{
    static const char *const files[] = { log_name, "progress.json", "ledger.json",
                                         "tokenizer.json" };
    for (i64 i = 0; i < COUNT_OF(files); i++) {
        const size_t n = strlen(files[i]);
        if (strncmp(name, files[i], n) == 0 && (!name[n] || strcmp(name + n, ".tmp") == 0))
            return true;
    }
    return shard_writer_names(name);
}

/* The folder stays: it is locked. What no preparation made stays too, and is said. */
static int empty_partial(struct work *w)
{
    char **names;
    int n = sys_list(w->partial, &names), rc = OK;
    if (n < 0)
        return err_set(ERR_SYS, "list %s: %s", w->partial, strerror(errno));
    for (int i = 0; i < n && rc == OK; i++)
        if (!is_ours(names[i]))
            rc = err_set(ERR_USAGE, "%s, where the data are made, holds %s, which is not of it; "
                         "move that away, or choose another folder than %s", w->partial, names[i],
                         w->config.out);
    for (int i = 0; i < n && rc == OK; i++) {
        const char *path = arena_printf(&w->arena, "%s/%s", w->partial, names[i]);
        if (sys_remove_tree(path) != 0)
            rc = err_set(ERR_SYS, "remove %s: %s", path, strerror(errno));
    }
    sys_free(names);
    return rc;
}

static int open_partial(struct work *w)
{
    bool found = false;
    if (resumable(w))
        TRY(journal_load(&w->journal, w->partial, w->fingerprint, &found));
    if (!found)
        TRY(empty_partial(w));
    w->progress.resumed = found;
    w->progress.counts = w->journal.total;
    for (i64 i = 0; i < w->journal.input && i < w->inputs.count; i++)
        w->done_bytes += i64_max(0, w->inputs.at[i].bytes);
    return OK;
}

static int open_log(struct work *w)
{
    const char *path = arena_printf(&w->arena, "%s/%s", w->partial, log_name);
    w->log = sys_open(path, O_RDWR | O_CREAT, 0666);
    if (w->log < 0)
        return err_set(ERR_SYS, "create %s: %s", path, strerror(errno));
    i64 bytes = w->journal.log_bytes;
    if (sys_seek(w->log, 0, SEEK_END) < bytes)
        return err_set(ERR_FORMAT,
                       "%s is shorter than recorded; remove %s and prepare again", path,
                       w->partial);
    if (sys_truncate(w->log, bytes) != 0 || sys_seek(w->log, bytes, SEEK_SET) < 0)
        return err_set(ERR_SYS, "write %s: %s", path, strerror(errno));
    return OK;
}

static int remember(void *context, u64 hash)
{
    struct work *w = context;
    bool fresh;
    return hash == 0 ? OK : hash_set_add(&w->seen, hash, &fresh);
}

static int open_writers(struct work *w)
{
    const struct journal *j = &w->journal;
    const struct shard_writer_state *train = w->progress.resumed ? &j->train : NULL;
    const struct shard_writer_state *val = w->progress.resumed ? &j->val : NULL;
    i64 most = w->config.shard_tokens;
    TRY(shard_writer_open(&w->train, w->partial, "train", &w->like, most, train,
                          &w->arena));
    TRY(shard_writer_open(&w->val, w->partial, "val", &w->like, most, val, &w->arena));
    if (!w->config.keep_duplicates) {
        TRY(shard_writer_hashes(&w->train, remember, w));
        TRY(shard_writer_hashes(&w->val, remember, w));
    }
    return open_log(w);
}

static int save_journal(struct work *w)
{
    struct journal *j = &w->journal;
    TRY(shard_writer_sync(&w->train, &j->train));
    TRY(shard_writer_sync(&w->val, &j->val));
    if (sys_fsync(w->log) != 0)
        return err_set(ERR_SYS, "flush %s/%s: %s", w->partial, log_name, strerror(errno));
    w->unsaved = 0;
    return journal_save(j, w->partial, w->fingerprint);
}

/* --- units into shards -------------------------------------------------------------- */

static void count(struct prepare_counts *c, const struct unit_document *d, bool val)
{
    c->documents++;
    c->tokens += d->tokens;
    c->text_bytes += d->text_bytes;
    c->cut += d->cut;
    if (val) {
        c->val_documents++;
        c->val_tokens += d->tokens;
        c->val_bytes += d->text_bytes;
    }
}

static int write_document(struct work *w, const struct unit *u,
                          const struct unit_document *d)
{
    struct prepare_counts *counts[] = { &w->journal.total, &w->journal.in_input };
    bool fresh = true;
    if (d->tokens > 0 && !d->piece && !w->config.keep_duplicates)
        TRY(hash_set_add(&w->seen, d->hash, &fresh));
    double draw = (double)(hash64(&d->hash, sizeof d->hash, split_seed) >> 11) * 0x1p-53;
    bool val = draw < w->config.val_fraction;
    for (int i = 0; i < 2; i++) {
        if (d->tokens == 0)
            counts[i]->skipped++;
        else if (!fresh)
            counts[i]->duplicates++;
        else
            count(counts[i], d, val);
    }
    if (d->tokens == 0 || !fresh)
        return OK;
    return shard_writer_add(val ? &w->val : &w->train,
                            (const u32 *)u->ids.data + d->first, d->tokens, d->text_bytes,
                            d->piece ? 0 : d->hash);
}

static int finish_input(struct work *w, const struct unit *u)
{
    struct journal *j = &w->journal;
    json_writer_clear(&w->line);
    ledger_input_line(&w->line, &w->inputs.at[u->input], u->sha256, u->input_bytes,
                      &j->in_input);
    text_add(&w->line.out, "\n");
    if (sys_write_full(w->log, w->line.out.data, w->line.out.length) != 0)
        return err_set(ERR_SYS, "write %s/%s: %s", w->partial, log_name, strerror(errno));
    j->log_bytes += w->line.out.length;
    j->in_input = (struct prepare_counts){ 0 };
    j->input++;
    j->unit = 0;
    w->done_bytes += u->input_bytes;
    return OK;
}

static int write_unit(struct work *w, const struct unit *u)
{
    struct journal *j = &w->journal;
    const struct unit_document *d = (const struct unit_document *)u->documents.data;
    i64 n = u->documents.bytes / (i64)sizeof *d;
    for (i64 i = 0; i < n; i++)
        TRY(write_document(w, u, &d[i]));
    j->total.malformed += u->malformed;
    j->in_input.malformed += u->malformed;
    j->unit = u->number + 1;
    w->unsaved += u->text.bytes;
    w->progress.input_bytes = w->done_bytes + u->input_bytes;
    w->progress.counts = j->total;
    return u->last ? finish_input(w, u) : OK;
}

static bool wants_more(const struct work *w)
{
    return !w->config.progress || w->config.progress(w->config.context, &w->progress);
}

static int write_units(struct work *w, struct pipeline *p)
{
    struct unit *u;
    int rc;
    while ((rc = pipeline_next(p, &u)) > 0) {
        TRY(write_unit(w, u));
        if (w->unsaved >= w->config.sync_bytes)
            TRY(save_journal(w));
        if (!wants_more(w)) {
            TRY(save_journal(w));
            return err_set(ERR_STOPPED, "stopped; the same command goes on from here");
        }
    }
    return rc;
}

static int run_pipeline(struct work *w)
{
    const struct prepare_config *c = &w->config;
    const struct pipeline_config config = {
        .inputs = &w->inputs,
        .tokenizer = c->tokenizer,
        .format = c->format,
        .split = { c->separator, c->drop_separator, c->least, c->most },
        .invalid = c->invalid,
        .skip_bad_lines = c->skip_bad_lines,
        .begin = w->begin,
        .end = w->end,
        .unit_bytes = c->unit_bytes,
        .threads = c->threads,
        .first_input = w->journal.input,
        .first_unit = w->journal.unit,
    };
    struct pipeline *p;
    TRY(pipeline_start(&p, &config));
    int rc = write_units(w, p);
    pipeline_stop(p);
    return rc;
}

/* --- the end ------------------------------------------------------------------------ */

static int check_counts(const struct work *w)
{
    const struct prepare_counts *t = &w->journal.total;
    if (t->documents == 0)
        return err_set(ERR_FORMAT, "there is no text in %s", w->config.paths[0]);
    if (t->documents == t->val_documents)
        return err_set(ERR_USAGE,
                       "all %lld documents fell into validation; lower the "
                       "validation share, or split the text into more documents",
                       (long long)t->documents);
    if (w->config.val_fraction > 0 && t->val_documents == 0)
        log_line(LOG_WARN, "none of the %lld documents fell into validation; raise the "
                           "validation share, or split the text (--format paragraphs)",
                 (long long)t->documents);
    if (t->malformed > t->text_bytes / 100)
        log_line(LOG_WARN, "%lld places in %lld bytes are not UTF-8: is this text, or are files "
                           "of another kind among it?",
                 (long long)t->malformed, (long long)t->text_bytes);
    return OK;
}

static int finish_files(struct work *w)
{
    const struct ledger ledger = { &w->config, w->fingerprint, &w->journal.total,
                                   w->partial, log_name };
    TRY(check_counts(w));
    TRY(shard_writer_finish(&w->train));
    TRY(shard_writer_finish(&w->val));
    TRY(tokenizer_save(w->config.tokenizer,
                       arena_printf(&w->arena, "%s/tokenizer.json", w->partial)));
    TRY(ledger_write(&ledger));
    w->journal.finished = 1;
    return journal_save(&w->journal, w->partial, w->fingerprint);
}

static int remove_file(struct work *w, const char *name)
{
    const char *path = arena_printf(&w->arena, "%s/%s", w->partial, name);
    if (sys_exists(path) && sys_unlink(path) != 0)
        return err_set(ERR_SYS, "remove %s: %s", path, strerror(errno));
    return OK;
}

/* From here on nothing is needed but the shards and the ledger. */
static int commit(struct work *w)
{
    const char *out = w->config.out;
    TRY(shard_writer_clean(w->partial));
    TRY(remove_file(w, log_name));
    if (sys_fsync_dir(w->partial) != 0)
        return err_set(ERR_SYS, "flush %s: %s", w->partial, strerror(errno));
    if (sys_rename(w->partial, out) != 0)
        return err_set(ERR_SYS, "rename %s to %s: %s", w->partial, out, strerror(errno));
    char *parent = arena_strdup(&w->arena, out);
    char *slash = strrchr(parent, '/');
    if (slash)
        slash[slash == parent] = '\0';
    if (sys_fsync_dir(slash ? parent : ".") != 0)
        return err_set(ERR_SYS, "flush the folder of %s: %s", out, strerror(errno));
    return journal_remove(out);
}

static int work_through(struct work *w)
{
    TRY(check_config(w));
    TRY(inputs_find(&w->inputs, w->config.paths, w->config.n_paths, &w->arena));
    w->progress.total_bytes = w->inputs.bytes;
    choose_separator(w);
    take_fingerprint(w);
    TRY(check_out(w, &w->progress.existed));
    if (w->progress.existed)
        return OK;
    TRY(lock_partial(w));
    if (w->progress.existed)
        return OK;
    TRY(open_partial(w));
    w->opened = true;
    if (!w->journal.finished) {
        TRY(open_writers(w));
        TRY(run_pipeline(w));
        TRY(finish_files(w));
    }
    return commit(w);
}

static const char *without_slash(const char *path, struct arena *a)
{
    i64 n = (i64)strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    return arena_strndup(a, path, n);
}

int prepare_run(const struct prepare_config *c, struct prepare_progress *result)
{
    struct work w = { .config = *c, .lock = -1, .log = -1, .train.fd = { -1, -1, -1 },
                      .val.fd = { -1, -1, -1 } };
    arena_init(&w.arena);
    json_writer_init(&w.line);
    w.config.out = without_slash(c->out, &w.arena);
    w.partial = arena_printf(&w.arena, "%s.partial", w.config.out);
    int rc = work_through(&w);
    if (rc == ERR_SYS && sys_exists(w.partial))
        err_set(rc, "%s; once that is put right, the same command goes on from here",
                err_message());
    bool useless = rc < 0 && rc != ERR_SYS && rc != ERR_STOPPED && w.opened;
    *result = w.progress;
    shard_writer_close(&w.train);
    shard_writer_close(&w.val);
    if (w.log >= 0)
        sys_close(w.log);
    if (useless) /* other input or other settings would begin anew */
        sys_remove_tree(w.partial);
    if (w.lock >= 0)
        sys_close(w.lock);
    hash_set_fini(&w.seen);
    json_writer_fini(&w.line);
    arena_fini(&w.arena);
    return rc;
}
