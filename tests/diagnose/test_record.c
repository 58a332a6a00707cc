/* What training records, read back: one rank, several, resumed, and damaged in many ways. */
#define JOB_DIR "record-test"
#include "diagnose/runs.h"

#include "diagnose/measure_record.h"

/* Every task of every action has its span, and each lies in the step and names its row. */
static void check_rank(const struct record_step *s, const struct record_rank *k)
{
    i64 tasks = 0, expected = 0;
    CHECK(k->head && k->table && !k->incomplete);
    CHECK(k->begin_ns < k->end_ns && k->begin_ns >= k->window_begin_ns);
    for (i64 i = 0; i < k->n_spans; i++) {
        const struct record_span *p = &k->spans[i];
        CHECK(p->end_ns >= p->begin_ns && p->end_ns <= k->window_end_ns);
        if (p->kind != SPAN_TASK || p->step != (u32)s->step)
            continue;
        CHECK(p->task && p->begin_ns >= k->begin_ns && p->end_ns <= k->end_ns);
        tasks++;
    }
    for (int lane = 0, n = 0; lane < TRACE_LANES; lane++) {
        i64 its;
        const struct record_span *p = record_lane(k, lane, &its);
        for (i64 i = 0; i < its; i++)
            CHECK_EQ(p[i].lane, lane);
        n += (int)its;
        CHECK(lane < TRACE_LANES - 1 || n == k->n_spans);
    }
    for (i64 a = 0; a < k->table->n_actions; a++) {
        const struct record_segment *g = &k->table->segments[k->table->actions[a].segment];
        for (i64 i = g->first; i < g->first + g->n; i++) {
            const struct record_task *t = &k->table->tasks[i];
            bool turn = (!(t->flags & RECORD_FIRST_TURN) ||
                         k->table->actions[a].micro_batch == 0) &&
                        (!(t->flags & RECORD_LAST_TURN) ||
                         k->table->actions[a].micro_batch == k->table->micro_batches - 1);
            expected += turn && t->lane == LANE_COMPUTE && !(t->flags & RECORD_WAITS);
        }
    }
    CHECK_EQ(tasks, expected);
}

static void check_steps(struct record *r, i64 first, i64 n, int ranks)
{
    struct record_step s = { 0 };
    CHECK_EQ(r->n_steps, n);
    for (i64 i = 0; i < n; i++) {
        CHECK_EQ(r->steps[i], first + i);
        CHECK_OK(record_step(r, r->steps[i], &s));
        CHECK_EQ(s.n_ranks, ranks);
        CHECK_EQ(s.missing, 0);
        for (int k = 0; k < ranks; k++)
            check_rank(&s, &s.ranks[k]);
        CHECK(record_step_seconds(r, i) >= 1e-9 * (double)(s.end_ns - s.begin_ns));
    }
    CHECK_FAILS(record_step(r, first + n, &s), ERR_CONFIG, "not recorded");
    record_step_free(&s);
}

TEST(a_run_is_recorded_task_by_task)
{
    const char *sets[] = { "train.accumulate=2", NULL };
    struct record r;
    make_corpus();
    CHECK_OK(train("one", sets, false, NULL));
    open_run(&r, "one");
    CHECK_EQ(r.n_parts, 1);
    CHECK_EQ(r.n_damage, 0);
    check_steps(&r, 0, 8, 1);
    const struct record_head *h = r.parts[0].heads[0];
    CHECK_EQ(h->ranks, 1);
    CHECK_EQ(h->n_tables, 1);
    CHECK_STR(h->tables[0]->name, "step");
    CHECK_EQ(h->tables[0]->micro_batches, 2);
    CHECK(h->tables[0]->model_flops > 0);
    record_close(&r);
}

TEST(a_resumed_run_has_parts_and_each_step_once)
{
    const char *sets[] = { "train.steps=7", NULL }, *more[] = { "train.steps=12", NULL };
    struct record r;
    CHECK_OK(train("again", sets, false, NULL));
    CHECK_OK(train("again", more, true, NULL));
    open_run(&r, "again");
    CHECK_EQ(r.n_parts, 2);
    CHECK_EQ(r.n_damage, 0);
    check_steps(&r, 0, 12, 1);
    CHECK_EQ(r.parts[0].last_step, 6);
    CHECK_EQ(r.parts[1].first_step, 7);
    CHECK(r.parts[1].begin_ns >= r.parts[0].end_ns);
    record_close(&r);
}

/* --- several ranks ------------------------------------------------------------------ */

/* Every call has begun at all members before it ended at any. */
static void check_calls(const struct record_step *s)
{
    const struct record_rank *a = &s->ranks[0], *b = &s->ranks[1];
    i64 calls = 0, k = 0;
    for (i64 i = 0; i < a->n_spans; i++) {
        if (a->spans[i].kind != SPAN_CALL)
            continue;
        while (k < b->n_spans && b->spans[k].kind != SPAN_CALL)
            k++;
        CHECK(k < b->n_spans);
        calls++;
        CHECK_EQ(a->spans[i].lane, b->spans[k].lane);
        k++;
    }
    CHECK(calls > 0);
}

TEST(every_rank_is_recorded_with_its_groups)
{
    const char *sets[] = { "train.batch=4", NULL };
    struct record r;
    struct record_step s = { 0 };
    run_layout("two", "dp=2,zero=1", sets);
    open_run(&r, "two");
    CHECK_EQ(r.n_damage, 0);
    check_steps(&r, 0, 8, 2);
    for (int k = 0; k < 2; k++) {
        const struct record_head *h = r.parts[0].heads[k];
        CHECK_EQ(h->rank, k);
        CHECK_EQ(h->dp, k);
        CHECK_EQ(h->of_dp, 2);
        CHECK_EQ(h->groups[LANE_DP].n, 2);
        CHECK_EQ(h->groups[LANE_DP].ranks[1], 1);
        CHECK_EQ(h->groups[LANE_TP].n, 0);
    }
    CHECK_OK(record_step(&r, 5, &s));
    check_calls(&s);
    record_step_free(&s);
    record_close(&r);
}

TEST(processors_that_ranks_share_are_counted_once)
{
    struct measure_range range = { .last = -1 };
    struct measure *m;
    struct record r;
    struct arena a;
    open_run(&r, "two");
    arena_init(&a);
    for (int k = 0; k < 2; k++) {
        CHECK(r.parts[0].heads[k]->sharers >= 1);
        r.parts[0].heads[k]->cores = 2;
        r.parts[0].heads[k]->sharers = 1;
    }
    CHECK_OK(measure_record(&m, &r, JOB_DIR "/runs/two", &range, &a));
    CHECK_EQ(m->cores_per_node, 4); /* of their own */
    for (int k = 0; k < 2; k++)
        r.parts[0].heads[k]->sharers = 2;
    CHECK_OK(measure_record(&m, &r, JOB_DIR "/runs/two", &range, &a));
    CHECK_EQ(m->cores_per_node, 2);
    arena_fini(&a);
    record_close(&r);
}

TEST(stages_of_a_pipeline_are_recorded_with_their_boundary)
{
    const char *sets[] = { "train.batch=2", "train.accumulate=4", "eval.every=0", NULL };
    struct record r;
    run_layout("stages", "pp=2", sets);
    open_run(&r, "stages");
    CHECK_EQ(r.n_damage, 0);
    check_steps(&r, 0, 8, 2);
    CHECK_EQ(r.parts[0].heads[0]->n_boundaries, 1);
    CHECK_EQ(r.parts[0].heads[1]->boundaries[0].ranks[1], 1);
    record_close(&r);
}

TEST(an_outer_step_is_kept_apart)
{
    const char *sets[] = { "train.batch=4", "outer.every=4", "train.ema=0", NULL };
    struct record r;
    struct record_step s = { 0 };
    run_layout("islands", "islands=2", sets);
    open_run(&r, "islands");
    check_steps(&r, 0, 8, 2);
    CHECK_OK(record_step(&r, 3, &s));
    CHECK_STR(s.ranks[1].outer_table->name, "outer step");
    CHECK(s.ranks[1].n_outer > 0);
    CHECK_OK(record_step(&r, 4, &s));
    CHECK_EQ(s.ranks[1].n_outer, 0);
    record_step_free(&s);
    record_close(&r);
}

/* --- bounds and damage -------------------------------------------------------------- */

TEST(the_disk_stays_bounded_and_the_newest_steps_stay)
{
    const char *sets[] = { "trace.disk=200KiB", "trace.slow=0", "train.steps=60", "eval.every=0",
                           "checkpoint.every=0", NULL };
    struct record r;
    i64 bytes = 0;
    CHECK_OK(train("ring", sets, false, NULL));
    static const char *const files[] = { "rank-0.spans", "rank-0.old.spans" };
    for (int i = 0; i < 2; i++) {
        char path[256];
        snprintf(path, sizeof path, JOB_DIR "/runs/ring/trace/%s", files[i]);
        i64 n = sys_file_bytes(path);
        CHECK(n > 0);
        bytes += n;
    }
    CHECK(bytes <= 200 * 1024);
    open_run(&r, "ring");
    CHECK(r.n_steps < 60 && r.n_steps > 3);
    for (i64 i = 1; i <= 4; i++) /* before them there may be some that were kept */
        CHECK_EQ(r.steps[r.n_steps - i], 60 - i);
    record_close(&r);
}

static void copy_cut(const char *name, const u8 *bytes, i64 n)
{
    char path[256];
    snprintf(path, sizeof path, JOB_DIR "/%s/rank-0.spans", name);
    int fd = sys_open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    CHECK(fd >= 0 && sys_write_full(fd, bytes, n) == 0);
    sys_close(fd);
}

TEST(a_file_cut_anywhere_gives_the_steps_before_and_says_so)
{
    i64 bytes, steps = 0, opened = 0;
    u8 *whole = sys_map_file(JOB_DIR "/runs/one/trace/rank-0.spans", &bytes);
    CHECK(whole != NULL);
    CHECK_EQ(sys_mkdirs(JOB_DIR "/cut"), 0);
    for (i64 n = 0; n < bytes; n += 997) {
        struct record r;
        struct record_step s = { 0 };
        copy_cut("cut", whole, n);
        if (record_open(&r, JOB_DIR "/cut") < 0)
            continue;
        CHECK(r.n_damage > 0);
        CHECK(r.n_steps >= steps);
        steps = r.n_steps;
        opened++;
        for (i64 i = 0; i < steps; i++)
            CHECK_OK(record_step(&r, r.steps[i], &s));
        record_step_free(&s);
        record_close(&r);
    }
    CHECK(opened > 5 && steps >= 7);
    sys_unmap(whole, bytes);
}

TEST(damage_in_the_midst_costs_one_chunk)
{
    i64 bytes;
    u8 *whole = sys_map_file(JOB_DIR "/runs/one/trace/rank-0.spans", &bytes);
    u8 *copy = sys_alloc(bytes, 16);
    for (i64 at = bytes / 2; at < bytes - 16; at += bytes / 37) {
        struct record r;
        struct record_step s = { 0 };
        i64 sound = 0;
        memcpy(copy, whole, (size_t)bytes);
        copy[at] ^= 0x5a; /* one byte: a longer hole may touch two chunks */
        copy_cut("cut", copy, bytes);
        CHECK_OK(record_open(&r, JOB_DIR "/cut"));
        for (i64 i = 0; i < r.n_steps; i++)
            sound += record_step(&r, r.steps[i], &s) == OK && !s.ranks[0].incomplete;
        CHECK(sound >= 7);
        record_step_free(&s);
        record_close(&r);
    }
    sys_free(copy);
    sys_unmap(whole, bytes);
}

/* Every place of a file, its table of contents beside it: a bit of a head or table is put right, one
 * of a step costs that step at most, and neither is kept quiet. */
TEST(one_flipped_bit_costs_at_most_its_chunk)
{
    i64 bytes, toc_bytes;
    u8 *whole = sys_map_file(JOB_DIR "/runs/one/trace/rank-0.spans", &bytes);
    u8 *toc = sys_map_file(JOB_DIR "/runs/one/trace/rank-0.spans.toc", &toc_bytes);
    u8 *copy = sys_alloc(bytes, 16);
    int fd = sys_open(JOB_DIR "/cut/rank-0.spans.toc", O_WRONLY | O_CREAT | O_TRUNC, 0644);
    CHECK(fd >= 0 && sys_write_full(fd, toc, toc_bytes) == 0);
    sys_close(fd);
    for (i64 at = 5; at < bytes; at += bytes / 97) {
        struct record r;
        struct record_step s = { 0 };
        i64 sound = 0;
        bool told;
        memcpy(copy, whole, (size_t)bytes);
        copy[at] ^= (u8)(1 << at % 8);
        copy_cut("cut", copy, bytes);
        CHECK_OK(record_open(&r, JOB_DIR "/cut"));
        told = r.n_damage > 0;
        CHECK_EQ(r.n_steps, 8);
        for (i64 i = 0; i < r.n_steps; i++) {
            const bool good = record_step(&r, r.steps[i], &s) == OK;
            sound += good && !s.ranks[0].incomplete;
            told |= good && (s.ranks[0].incomplete || s.ranks[0].sample_lost);
        }
        CHECK(sound == 8 || (sound == 7 && r.n_damage == 0));
        CHECK(told || sound == 8 || r.n_damage == 0);
        record_step_free(&s);
        record_close(&r);
    }
    sys_unlink(JOB_DIR "/cut/rank-0.spans.toc");
    sys_free(copy);
    sys_unmap(toc, toc_bytes);
    sys_unmap(whole, bytes);
}

/* The payload of the first chunk of a kind. */
static i64 payload_of(const u8 *whole, i64 bytes, u32 kind)
{
    struct record_chunk c;
    for (i64 at = 0; at + RECORD_CHUNK_BYTES <= bytes; at = record_chunk_end(&c, at)) {
        memcpy(&c, whole + at, sizeof c);
        if (c.kind == kind)
            return at + RECORD_CHUNK_BYTES;
    }
    fail_msg("no such chunk");
    return 0;
}

/* Beyond a flipped bit: what is read by the head, or by the table, is read by another file's. */
TEST(a_head_and_a_table_are_taken_from_where_they_are_sound)
{
    static const u32 kinds[] = { RECORD_HEAD, RECORD_TABLE };
    static const char *const others[] = { "rank-0.kept.spans", "rank-1.spans" };
    const char *sets[] = { "train.steps=3", NULL };
    run_layout("alike", "dp=2", sets);
    for (int i = 0; i < 2; i++) {
        char path[256];
        struct record r;
        struct record_step s = { 0 };
        i64 bytes;
        snprintf(path, sizeof path, "rm -rf " JOB_DIR "/cut && cp -r " JOB_DIR "/runs/alike/trace "
                 JOB_DIR "/cut && rm -f " JOB_DIR "/cut/*kept* && cd " JOB_DIR "/cut && "
                 "{ test -e %s || cp rank-0.spans %s; }", others[i], others[i]);
        CHECK_EQ(system(path), 0);
        u8 *copy = sys_map_file(JOB_DIR "/runs/alike/trace/rank-0.spans", &bytes);
        u8 *damaged = sys_alloc(bytes, 16);
        memcpy(damaged, copy, (size_t)bytes);
        memset(damaged + payload_of(copy, bytes, kinds[i]) + 20, '#', 9);
        copy_cut("cut", damaged, bytes);
        CHECK_OK(record_open(&r, JOB_DIR "/cut"));
        CHECK_EQ(r.n_parts, 1);
        CHECK(r.n_damage > 0 && strstr(r.damage[0], "is damaged"));
        for (i64 k = 0; k < r.n_steps; k++) {
            CHECK_OK(record_step(&r, r.steps[k], &s));
            CHECK_EQ(s.missing, 0);
            check_rank(&s, &s.ranks[0]);
        }
        record_step_free(&s);
        record_close(&r);
        sys_free(damaged);
        sys_unmap(copy, bytes);
    }
}

/* An event of no bytes, as zeros in a file look like, is damage and no lack of memory. */
TEST(a_chunk_without_bytes_costs_nothing_else)
{
    struct record r;
    i64 bytes;
    u8 *whole = sys_map_file(JOB_DIR "/runs/one/trace/rank-0.spans", &bytes);
    CHECK_EQ(sys_remove_tree(JOB_DIR "/cut"), 0);
    CHECK_EQ(sys_mkdirs(JOB_DIR "/cut"), 0);
    copy_cut("cut", (const u8 *)"EVEN\0\0\0\0\0\0\0\0\0\0\0\0", 16);
    int fd = sys_open(JOB_DIR "/cut/rank-0.spans", O_WRONLY, 0);
    CHECK(fd >= 0 && sys_seek(fd, 0, SEEK_END) > 0 && sys_write_full(fd, whole, bytes) == 0);
    sys_close(fd);
    CHECK_OK(record_open(&r, JOB_DIR "/cut"));
    CHECK_EQ(r.n_steps, 8);
    CHECK(r.n_damage > 0);
    record_close(&r);
    sys_unmap(whole, bytes);
}

static void add_chunk(const char *name, int rank, u32 kind, const void *payload, i64 bytes)
{
    char path[256];
    const struct record_chunk chunk = { kind, record_checksum(kind, payload, bytes), (u64)bytes };
    snprintf(path, sizeof path, JOB_DIR "/%s/rank-%d.spans", name, rank);
    int fd = sys_open(path, O_WRONLY, 0);
    CHECK(fd >= 0 && sys_seek(fd, 0, SEEK_END) > 0);
    CHECK(sys_write_full(fd, &chunk, sizeof chunk) == 0);
    CHECK(sys_write_full(fd, payload, bytes) == 0);
    sys_close(fd);
}

/* The file of run "one", *bytes of it, mapped; that step of it, and when its process began. */
static u8 *file_of_one(i64 *bytes, i64 step, struct record_step *out, u64 *begun)
{
    struct record r;
    open_run(&r, "one");
    *begun = r.parts[0].heads[0]->begin_ns;
    CHECK_OK(record_step(&r, step, out));
    record_close(&r);
    return sys_map_file(JOB_DIR "/runs/one/trace/rank-0.spans", bytes);
}

/* A search that follows a step computes tasks of the same program, too. */
TEST(what_is_computed_behind_a_step_is_none_of_it)
{
    struct record r;
    struct record_step was = { 0 }, is = { 0 };
    i64 bytes;
    u64 begun;
    u8 *whole = file_of_one(&bytes, 7, &was, &begun);
    const u64 end = begun + (u64)was.ranks[0].window_end_ns;
    const struct {
        struct record_spans head;
        struct span span;
    } later = { { .step = 7, .n = 1, .begin_ns = end, .end_ns = end + 2000000 },
                { .begin_ns = end + 1000, .end_ns = end + 1000000, .step = 7, .kind = SPAN_TASK } };
    copy_cut("cut", whole, bytes);
    add_chunk("cut", 0, RECORD_SPANS, &later, sizeof later);
    CHECK_OK(record_open(&r, JOB_DIR "/cut"));
    CHECK_OK(record_step(&r, 7, &is));
    CHECK(!is.ranks[0].incomplete && is.ranks[0].window_end_ns > was.ranks[0].window_end_ns);
    CHECK_EQ(is.ranks[0].end_ns, was.ranks[0].end_ns);
    CHECK_EQ(is.ranks[0].n_spans, was.ranks[0].n_spans);
    record_step_free(&was);
    record_step_free(&is);
    record_close(&r);
    sys_unmap(whole, bytes);
}

/* Behind the file: at the time of its last step this rank was found to be so far off. */
static void add_clock(const char *name, int rank, u64 at_ns, i64 shift_ns)
{
    const struct record_clock clock = { at_ns, shift_ns };
    add_chunk(name, rank, RECORD_CLOCK, &clock, sizeof clock);
}

TEST(a_clock_that_drifts_is_put_right_in_a_straight_line)
{
    struct record r;
    struct record_step was = { 0 }, is = { 0 };
    i64 bytes;
    u64 begun;
    u8 *whole = file_of_one(&bytes, 5, &was, &begun);
    const i64 at = was.begin_ns, apart = 20000000;
    copy_cut("cut", whole, bytes);
    add_clock("cut", 0, begun + 2 * (u64)at, apart); /* from 0 soon after the begin */
    CHECK_OK(record_open(&r, JOB_DIR "/cut"));
    CHECK_OK(record_step(&r, 5, &is));
    /* Half way between the two: moved by half, give or take when the first was asked. */
    CHECK(is.begin_ns - at > 0 && is.begin_ns - at < apart / 2 + apart / 100);
    record_step_free(&was);
    record_step_free(&is);
    record_close(&r);
    sys_unmap(whole, bytes);
}

/* Many clocks, out of order and each said twice, among the spans of one step: time goes by half
 * as fast again there, for each span alike. */
TEST(each_span_is_put_right_by_the_clocks_around_it)
{
    enum { CLOCKS = 64 };
    struct record r;
    struct record_step was = { 0 }, is = { 0 };
    i64 bytes;
    u8 *whole = sys_map_file(JOB_DIR "/runs/one/trace/rank-0.spans", &bytes);
    copy_cut("cut", whole, bytes);
    CHECK_OK(record_open(&r, JOB_DIR "/cut"));
    const u64 begun = r.parts[0].heads[0]->begin_ns;
    CHECK_OK(record_step(&r, 5, &was));
    record_close(&r);
    const struct record_rank *x = &was.ranks[0], *y;
    const i64 from = x->window_begin_ns, long_ns = x->window_end_ns - from;
    for (i64 i = 0; i < 2 * (CLOCKS + 1); i++) {
        const i64 ns = long_ns * (i * 37 % (CLOCKS + 1)) / CLOCKS; /* 37 and 65: every one of them twice */
        add_clock("cut", 0, begun + (u64)(from + ns), ns / 2);
    }
    CHECK_OK(record_open(&r, JOB_DIR "/cut"));
    CHECK_OK(record_step(&r, 5, &is));
    y = &is.ranks[0];
    CHECK_EQ(y->n_spans, x->n_spans);
    for (i64 i = 0; i < x->n_spans; i++) {
        const i64 ns = x->spans[i].begin_ns - from;
        CHECK_EQ(y->spans[i].task_id, x->spans[i].task_id);
        if (ns >= 0 && ns <= long_ns)
            CHECK(llabs(y->spans[i].begin_ns - x->spans[i].begin_ns - ns / 2) <= 2); /* two roundings */
    }
    record_step_free(&was);
    record_step_free(&is);
    record_close(&r);
    sys_unmap(whole, bytes);
}

/* Two ranks that sum gradients in each step, ten seconds apart: one of the clocks is wrong. */
TEST(clocks_that_jumped_apart_are_told_and_who_waited_is_not_guessed)
{
    struct record r;
    struct record_step s = { 0 };
    open_run(&r, "two");
    const u64 begun = r.parts[0].heads[0]->begin_ns; /* rank 0 begins the record's clock */
    const i64 n = r.n_steps;
    for (i64 i = 0; i < n; i++)
        CHECK(!record_step_apart(&r, i));
    CHECK_OK(record_step(&r, 2, &s));
    const u64 third = begun + (u64)s.begin_ns; /* both read the same clock of the machine */
    record_close(&r);
    for (int back = 0; back < 2; back++) {
        add_clock("runs/two/trace", 1, third + (u64)back, back ? -10000000000 : 10000000000);
        open_run(&r, "two");
        CHECK_EQ(r.n_damage, 1);
        CHECK(strstr(r.damage[0], "the clocks of ranks 0 and 1 jumped apart: in"));
        CHECK(record_step_apart(&r, n - 1));
        CHECK_EQ(r.n_steps, n);
        CHECK_OK(record_step(&r, 3, &s));
        CHECK(s.apart && s.missing == 0);
        record_close(&r);
    }
    record_step_free(&s);
}

/* Behind a record's beginning, n steps without spans, each with a sample. */
static i64 append_steps(u8 *to, i64 at, i64 n)
{
    for (i64 i = 0; i < n; i++) {
        struct record_spans *h = (struct record_spans *)(to + at + RECORD_CHUNK_BYTES);
        *h = (struct record_spans){ .step = (u32)(1000 + i), .flags = RECORD_FIRST,
                                    .begin_ns = (u64)(1000 + i) << 40,
                                    .end_ns = (u64)(1001 + i) << 40 };
        *(struct record_chunk *)(to + at) = (struct record_chunk){
            RECORD_SPANS, record_checksum(RECORD_SPANS, h, sizeof *h), sizeof *h };
        at += RECORD_CHUNK_BYTES + (i64)sizeof *h;
        struct sample *s = (struct sample *)(to + at + RECORD_CHUNK_BYTES);
        *s = (struct sample){ .step = (u32)(1000 + i) };
        *(struct record_chunk *)(to + at) = (struct record_chunk){
            RECORD_SAMPLE, record_checksum(RECORD_SAMPLE, s, sizeof *s), sizeof *s };
        at += RECORD_CHUNK_BYTES + (i64)sizeof *s;
    }
    return at;
}

/* 48 bytes for a step, 32 for its sample, 16 for the list of steps: of 10 GB in chunks of 5 KB,
 * 0.2 GB. (It was 136, and twice that while the list grew.) */
TEST(the_index_of_a_long_record_is_small)
{
    enum { STEPS = 200000 };
    const i64 each = 2 * RECORD_CHUNK_BYTES + (i64)sizeof(struct record_spans) +
                     (i64)sizeof(struct sample);
    struct record r;
    i64 bytes;
    u8 *whole = sys_map_file(JOB_DIR "/runs/one/trace/rank-0.spans", &bytes);
    CHECK(whole != NULL);
    u8 *longer = sys_alloc(bytes + STEPS * each, 16);
    memcpy(longer, whole, (size_t)bytes);
    copy_cut("cut", longer, append_steps(longer, bytes, STEPS));
    sys_free(longer);
    const i64 before = sys_rss_bytes();
    CHECK_OK(record_open(&r, JOB_DIR "/cut"));
    const i64 taken = sys_rss_bytes() - before;
    CHECK(r.n_steps >= STEPS);
    CHECK(record_step_ranks(&r, r.n_steps - 1) == 1);
#ifndef __SANITIZE_ADDRESS__
    const i64 huge = 2 << 20; /* pages: how far either list may be rounded up by the system */
    if (taken > 105 * STEPS + 2 * huge)
        fail_msg("the index takes %.1f bytes a step", (double)taken / STEPS);
#endif
    (void)taken;
    record_close(&r);
    sys_unmap(whole, bytes);
}

/* Of the same shape, begun later: not a part of this run in which only that rank took part. */
TEST(a_file_of_another_run_is_told_and_left_out)
{
    const char *sets[] = { "train.batch=4", NULL };
    struct record r;
    struct record_step s = { 0 };
    i64 bytes;
    run_layout("mixed", "dp=2,zero=1", sets);
    run_layout("later", "dp=2,zero=1", sets);
    u8 *other = sys_map_file(JOB_DIR "/runs/later/trace/rank-1.spans", &bytes);
    int fd = sys_open(JOB_DIR "/runs/mixed/trace/rank-1.spans", O_WRONLY | O_TRUNC, 0644);
    CHECK(other && fd >= 0 && sys_write_full(fd, other, bytes) == 0);
    sys_close(fd);
    sys_unmap(other, bytes);
    open_run(&r, "mixed");
    CHECK_EQ(r.n_parts, 1);
    CHECK_EQ(r.n_damage, 2);
    CHECK(strstr(r.damage[0], "files of rank 1 are of another run"));
    CHECK(strstr(r.damage[1], "1 of 2 ranks have no file that can be read: 1"));
    CHECK_EQ(r.n_steps, 8);
    for (i64 i = 0; i < r.n_steps; i++) {
        CHECK_OK(record_step(&r, r.steps[i], &s));
        CHECK(s.ranks[0].head && !s.ranks[1].head);
    }
    record_step_free(&s);
    record_close(&r);
}

TEST(a_missing_rank_is_named)
{
    struct record r;
    struct record_step s = { 0 };
    CHECK_EQ(sys_unlink(JOB_DIR "/runs/two/trace/rank-1.spans"), 0); /* whose clock had jumped */
    open_run(&r, "two");
    CHECK_EQ(r.n_damage, 1);
    CHECK(strstr(r.damage[0], "1 of 2 ranks have no file that can be read: 1"));
    CHECK_OK(record_step(&r, 2, &s));
    CHECK_EQ(s.missing, 1);
    CHECK(s.ranks[0].head && !s.ranks[1].head);
    record_step_free(&s);
    record_close(&r);
}

TEST(what_is_no_record_is_refused)
{
    struct record r;
    CHECK_FAILS(record_open(&r, JOB_DIR "/nothing"), ERR_CONFIG, "nothing");
    CHECK_FAILS(record_open(&r, JOB_DIR "/text"), ERR_CONFIG, "is no run folder");
    copy_cut("cut", (const u8 *)"this is not a record, but a text", 32);
    CHECK_FAILS(record_open(&r, JOB_DIR "/cut"), ERR_FORMAT, "nothing of the record is sound");
    sys_remove_tree(JOB_DIR);
}

TEST_MAIN(ONE(a_run_is_recorded_task_by_task), ONE(a_resumed_run_has_parts_and_each_step_once),
          ONE(every_rank_is_recorded_with_its_groups),
          ONE(processors_that_ranks_share_are_counted_once),
          ONE(stages_of_a_pipeline_are_recorded_with_their_boundary),
          ONE(an_outer_step_is_kept_apart),
          ONE(the_disk_stays_bounded_and_the_newest_steps_stay),
          ONE(a_file_cut_anywhere_gives_the_steps_before_and_says_so),
          ONE(a_clock_that_drifts_is_put_right_in_a_straight_line),
          ONE(each_span_is_put_right_by_the_clocks_around_it),
          ONE(damage_in_the_midst_costs_one_chunk),
          ONE(one_flipped_bit_costs_at_most_its_chunk),
          ONE(a_head_and_a_table_are_taken_from_where_they_are_sound),
          ONE(a_chunk_without_bytes_costs_nothing_else),
          ONE(what_is_computed_behind_a_step_is_none_of_it),
          ONE(clocks_that_jumped_apart_are_told_and_who_waited_is_not_guessed),
          ONE(the_index_of_a_long_record_is_small),
          ONE(a_file_of_another_run_is_told_and_left_out),
          ONE(a_missing_rank_is_named),
          ONE(what_is_no_record_is_refused))
