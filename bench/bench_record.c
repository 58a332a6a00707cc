/* bench_record - what recording costs a step, and how fast a large record is read.
 *
 *     bench_record overhead [--model laptop-2m] [--batch 4] [--seq 128] [--steps 400] [--threads 0]
 *     bench_record read RUN [--bytes 1000000000] [--steps 0] [--toc 1]
 *
 * overhead: one run in this process whose steps are recorded two by two: two with spans and their
 * record, two without. The second step of each pair is timed with what follows it; neighbouring
 * pairs are compared, so that a machine which others use does not matter. Processor time is that
 * of all threads, the one that writes included.
 *
 * read: the steps of RUN, a recorded run, are repeated until the files have so many bytes, with
 * tables of contents or (--toc 0) without. Then, each time behind emptied caches: reading all of it
 * once, opening it, the ladder and the critical path of its steps, and a diagnosis. Of all steps;
 * with --steps of so many, as `headway trace ladder` does with 1000, and of the
 * newest ones that `headway diagnose` takes by itself. */
#include "base/sys.h"
#include "diagnose/climb.h"
#include "diagnose/diagnosis.h"
#include "step_bench.h"
#include "trace/record_toc.h"
#include "train/session.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct options {
    const char *what, *run, *model;
    i64 batch, seq, steps, threads, bytes, toc;
};

static void fail(void)
{
    fprintf(stderr, "bench_record: %s\n", err_message());
    exit(1);
}

#define MUST(call)                                                                       \
    do {                                                                                 \
        if ((call) < 0)                                                                  \
            fail();                                                                      \
    } while (0)

/* --- overhead ----------------------------------------------------------------------- */

enum { MOST_STEPS = 100000 };

struct alternation {
    struct session *s;
    struct train_config *config;
    struct session_record *record;
    u64 last_ns;
    double last_cpu;
    double wall[MOST_STEPS], cpu[MOST_STEPS]; /* of the second step of each pair */
};

static bool is_on(i64 step)
{
    return step / 2 % 2 == 0;
}

/* Behind step status->step - 1, before what it has left is recorded. */
static void alternate(void *context, const struct train_status *status)
{
    struct alternation *a = context;
    const i64 done = status->step - 1;
    u64 now = sys_now_ns();
    double cpu = sys_cpu_seconds();
    if (done < 0)
        return;
    if (done % 2 == 1 && done / 2 < MOST_STEPS) {
        a->wall[done / 2] = 1e-9 * (double)(now - a->last_ns);
        a->cpu[done / 2] = cpu - a->last_cpu;
    }
    if (!a->record)
        a->record = a->s->record;
    const bool on = is_on(done + 1);
    a->s->record = on ? a->record : NULL;
    a->config->trace.level = on ? TRACE_TASKS : TRACE_OFF;
    a->last_ns = now;
    a->last_cpu = cpu;
}

/* Pair 2 k was recorded and 2 k + 1 was not: by how much is the first longer? */
static void tell_difference(const char *what, const double *seconds, i64 pairs)
{
    double *share = calloc((size_t)pairs, sizeof *share), *off = calloc((size_t)pairs, sizeof *off);
    i64 n = 0;
    for (i64 k = 5; 2 * k + 1 < pairs; k++, n++) {
        off[n] = seconds[2 * k + 1];
        share[n] = seconds[2 * k] / seconds[2 * k + 1] - 1;
    }
    double median_off = step_bench_median(off, n), median = step_bench_median(share, n);
    for (i64 i = 0; i < n; i++)
        share[i] = fabs(share[i] - median);
    double deviation = 1.4826 * step_bench_median(share, n);
    printf("%-10s %8.3f ms a step; recording costs %+.2f %% (standard error %.2f, %lld pairs)\n",
           what, 1e3 * median_off, 100 * median, 100 * deviation / sqrt((double)n), (long long)n);
    free(share);
    free(off);
}

static void write_text(const char *path, const char *text)
{
    int fd = sys_open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0 || sys_write_full(fd, text, (i64)strlen(text)) != 0 || sys_close(fd) != 0) {
        fprintf(stderr, "bench_record: cannot write %s\n", path);
        exit(1);
    }
}

static void overhead(const struct options *o)
{
    static struct alternation a;
    static struct session s;
    char folder[64], path[128], yaml[1024];
    struct train_config config;
    struct recipe recipe;
    struct arena arena;
    struct option_group group = { train_options, &config };
    arena_init(&arena);
    snprintf(folder, sizeof folder, "/tmp/bench-record-%lld", (long long)sys_process_id());
    sys_mkdirs(folder);
    snprintf(path, sizeof path, "%s/tokens.bin", folder);
    step_bench_write_tokens(path, 1 << 20, 32768);
    snprintf(yaml, sizeof yaml,
             "model: {spec: %s, override: {vocab: 32768}}\n"
             "data: {sources: %s, val_fraction: 0}\n"
             "train: {batch: %lld, seq: %lld, steps: %lld, threads: %lld}\n"
             "eval: {every: 0}\nlog: {every: 1000000}\ncheckpoint: {interval: 0}\n"
             "run: {dir: %s, name: run}\n", o->model, path, (long long)o->batch,
             (long long)o->seq, (long long)o->steps, (long long)o->threads, folder);
    snprintf(path, sizeof path, "%s/r.yaml", folder);
    write_text(path, yaml);
    recipe_init(&recipe, &arena, &group, 1);
    MUST(recipe_load(&recipe, path));
    const struct train_request request = {
        .config = &config, .recipe = &recipe, .recipe_path = "r.yaml", .backend = "auto",
        .hooks = { .context = &a, .progress = alternate } };
    a.s = &s;
    a.config = &config;
    MUST(session_open(&s, &request));
    printf("%s, %lld x %lld, %lld tasks a step\n", o->model, (long long)o->batch,
           (long long)o->seq, (long long)s.steps[0].program->n_tasks);
    MUST(session_train(&s));
    s.record = a.record;
    session_close(&s);
    tell_difference("wall", a.wall, o->steps / 2);
    tell_difference("processor", a.cpu, o->steps / 2);
    sys_remove_tree(folder);
    arena_fini(&arena);
}

/* --- reading ------------------------------------------------------------------------ */

/* One chunk, padded, into a file and into the table of its contents. */
static i64 put_chunk(FILE *out, FILE *toc, const u8 *chunk, i64 n, i64 at)
{
    struct record_entry e;
    struct record_place place = { .at = at + RECORD_CHUNK_BYTES };
    memcpy(&place.chunk, chunk, sizeof place.chunk);
    record_toc_enter(&e, &place, chunk + RECORD_CHUNK_BYTES);
    fwrite(chunk, 1, (size_t)n, out);
    fwrite(&e, sizeof e, 1, toc);
    return n;
}

/* Behind the begin of a file, its steps again and again, later each time: by *round_ns,
 * which the first rank's file sets, since ranks stay together. */
static i64 repeat_file(const char *from, const char *to, i64 bytes, i64 *round_ns)
{
    struct record_reader r;
    struct record_place p;
    i64 steps = 0, length, first_ns = 0, last_ns = 0, written = 0;
    u8 *data = sys_map_file(from, &length);
    char beside[200];
    snprintf(beside, sizeof beside, "%.180s" RECORD_TOC_SUFFIX, to);
    FILE *out = fopen(to, "wb"), *toc = fopen(beside, "wb");
    MUST(record_reader_open(&r, from));
    u8 *chunk = malloc((size_t)length);
    for (i64 round = 0; written < bytes; round++) {
        r.at = 0;
        while (record_reader_next(&r, &p) == 1 && written < bytes) {
            i64 begin = p.at - RECORD_CHUNK_BYTES, n = r.at - begin;
            memcpy(chunk, data + begin, (size_t)n);
            struct record_chunk *head = (struct record_chunk *)chunk;
            struct record_spans *h = (struct record_spans *)(head + 1);
            if (head->kind != RECORD_SPANS && head->kind != RECORD_SAMPLE && round > 0)
                continue;
            if (head->kind == RECORD_SAMPLE) {
                ((struct sample *)h)->step += (u32)(round * steps);
                head->checksum = record_checksum(head->kind, h, (i64)head->bytes);
            }
            if (head->kind == RECORD_SPANS) {
                if (round == 0) {
                    steps = h->step + 1 > steps ? h->step + 1 : steps;
                    first_ns = first_ns ? first_ns : (i64)h->begin_ns;
                    last_ns = (i64)h->end_ns;
                }
                if (round == 1 && *round_ns == 0)
                    *round_ns = last_ns - first_ns;
                u64 later = (u64)(round * *round_ns);
                struct span *s = (struct span *)(h + 1);
                h->step += (u32)(round * steps);
                h->begin_ns += later;
                h->end_ns += later;
                for (u32 i = 0; i < h->n; i++) {
                    s[i].step += (u32)(round * steps);
                    s[i].begin_ns += later;
                    s[i].end_ns += later;
                }
                head->checksum = record_checksum(head->kind, h, (i64)head->bytes);
            }
            written += put_chunk(out, toc, chunk, n, written);
        }
    }
    fclose(out);
    fclose(toc);
    record_reader_close(&r);
    sys_unmap(data, length);
    free(chunk);
    return written;
}

/* Out of the page cache. */
static void forget(const char *path)
{
    int fd = open(path, O_RDWR);
    if (fd < 0)
        return; /* a table that there is not */
    fsync(fd);
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    close(fd);
}

static void forget_all(char (*path)[160], int n)
{
    char beside[200];
    for (int i = 0; i < n; i++) {
        snprintf(beside, sizeof beside, "%.180s" RECORD_TOC_SUFFIX, path[i]);
        forget(path[i]);
        forget(beside);
    }
}

static double read_once(const char *path)
{
    static char buffer[1 << 20];
    u64 begin = sys_now_ns();
    int fd = open(path, O_RDONLY);
    while (read(fd, buffer, sizeof buffer) > 0)
        ;
    close(fd);
    return 1e-9 * (double)(sys_now_ns() - begin);
}

static double opening(const char *folder)
{
    u64 begin = sys_now_ns();
    struct record r;
    MUST(record_open(&r, folder));
    record_close(&r);
    return 1e-9 * (double)(sys_now_ns() - begin);
}

static double analyse(const char *folder, i64 most, struct ladder *l, i64 *recorded)
{
    u64 begin = sys_now_ns();
    struct record r;
    struct arena a;
    arena_init(&a);
    struct critical c = { .arena = &a };
    MUST(record_open(&r, folder));
    const struct climb_range range = { .last = INT64_MAX, .most = most };
    struct climb_choice chosen;
    *l = (struct ladder){ 0 };
    MUST(climb_record(&r, &range, l, &c, &chosen));
    *recorded = r.n_steps;
    record_close(&r);
    arena_fini(&a);
    return 1e-9 * (double)(sys_now_ns() - begin);
}

/* most: of the newest steps, 0 as many as `headway diagnose` takes by itself. */
static double diagnose(const char *folder, i64 most, i64 *steps)
{
    u64 begin = sys_now_ns();
    struct diagnosis d;
    MUST(diagnosis_open(&d, folder, &(struct measure_range){ .last = -1, .most = most }));
    *steps = d.measure->n_steps;
    diagnosis_close(&d);
    return 1e-9 * (double)(sys_now_ns() - begin);
}

static void read_large(const struct options *o)
{
    enum { MOST_RANKS = 1024 };
    static char path[MOST_RANKS][160];
    char folder[64];
    double cat = 0;
    i64 bytes = 0, recorded, steps, round_ns = 0;
    struct ladder l;
    snprintf(folder, sizeof folder, "/tmp/bench-record-%lld", (long long)sys_process_id());
    sys_mkdirs(folder);
    int ranks = 0;
    for (; ranks < MOST_RANKS; ranks++) {
        char from[2200];
        snprintf(from, sizeof from, "%s/trace/rank-%d.spans", o->run, ranks);
        if (!sys_exists(from))
            break;
        snprintf(path[ranks], sizeof path[0], "%s/rank-%d.spans", folder, ranks);
    }
    for (int i = 0; i < ranks; i++) {
        char from[2200];
        snprintf(from, sizeof from, "%s/trace/rank-%d.spans", o->run, i);
        bytes += repeat_file(from, path[i], o->bytes / ranks, &round_ns);
        snprintf(from, sizeof from, "%.180s" RECORD_TOC_SUFFIX, path[i]);
        if (!o->toc)
            sys_unlink(from);
    }
    forget_all(path, ranks);
    for (int i = 0; i < ranks; i++)
        cat += read_once(path[i]);
    forget_all(path, ranks);
    double seconds = opening(folder);
    printf("opened in %.2f s\n", seconds);
    forget_all(path, ranks);
    seconds = analyse(folder, o->steps, &l, &recorded);
    printf("%.2f GB, %d ranks, %lld steps: read once in %.2f s\n", 1e-9 * (double)bytes, ranks,
           (long long)recorded, cat);
    printf("ladder of %lld steps: %.2f s, %.1f times as long; peak memory %.0f MB\n",
           (long long)l.steps, seconds, seconds / cat, 1e-6 * (double)sys_peak_rss_bytes());
    forget_all(path, ranks);
    seconds = diagnose(folder, o->steps > 0 ? 0 : INT32_MAX, &steps);
    printf("diagnosis of %lld steps: %.2f s, %.1f times as long; peak memory %.0f MB\n",
           (long long)steps, seconds, seconds / cat, 1e-6 * (double)sys_peak_rss_bytes());
    sys_remove_tree(folder);
}

int main(int argc, char **argv)
{
    struct options o = { .model = "laptop-2m", .batch = 4, .seq = 128, .bytes = 1000000000,
                         .toc = 1 };
    o.what = argc > 1 ? argv[1] : "";
    bool reads = strcmp(o.what, "read") == 0 && argc > 2;
    o.run = reads ? argv[2] : NULL;
    o.steps = reads ? 0 : 400;
    for (int i = reads ? 3 : 2; i + 1 < argc; i += 2) {
        i64 n = atoll(argv[i + 1]);
        if (strcmp(argv[i], "--model") == 0)
            o.model = argv[i + 1];
        else if (strcmp(argv[i], "--batch") == 0)
            o.batch = n;
        else if (strcmp(argv[i], "--seq") == 0)
            o.seq = n;
        else if (strcmp(argv[i], "--steps") == 0)
            o.steps = n;
        else if (strcmp(argv[i], "--threads") == 0)
            o.threads = n;
        else if (strcmp(argv[i], "--bytes") == 0)
            o.bytes = n;
        else if (strcmp(argv[i], "--toc") == 0)
            o.toc = n;
    }
    if (!reads && strcmp(o.what, "overhead") != 0) {
        fprintf(stderr, "usage: bench_record overhead | read RUN (see bench/bench_record.c)\n");
        return 2;
    }
    if (reads)
        read_large(&o);
    else
        overhead(&o);
    return 0;
}
