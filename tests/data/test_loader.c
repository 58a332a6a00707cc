#include "make_data.h"

#include "data/loader.h"
#include "ops/ops.h"
#include "ops/zigzag.h"
#include "support/cut_short.h"

#include <errno.h>

enum { MOST = 1 << 15 };

/* One micro-batch, as the op's kernel delivers it. */
static struct {
    i32 tokens[MOST], targets[MOST], positions[MOST], begin[MOST], sources[MOST];
    float weights[MOST], inv_weight;
} got;

static void run_kernel(struct loader *l, int micro_batch, i64 B, i64 T)
{
    void *const data[] = { got.tokens, got.targets, got.weights, got.positions, got.begin,
                           got.sources, &got.inv_weight };
    struct tensor out[7];
    struct task t = { 0 };
    for (int i = 0; i < 7; i++) {
        bool real = i == BATCH_WEIGHTS || i == BATCH_INV_WEIGHT;
        out[i] = (struct tensor){ .dtype = real ? DTYPE_F32 : DTYPE_I32, .rank = 1,
                                  .dim = { i == BATCH_INV_WEIGHT ? 1 : B * T },
                                  .data = data[i] };
        t.out[i] = &out[i];
    }
    struct kernel k = loader_kernel(l);
    struct run x = { .context = k.context, .micro_batch = micro_batch };
    CHECK(B * T <= MOST);
    k.run(&t, &x);
}

static u64 hash_batch(i64 n, u64 seed)
{
    seed = hash64(got.tokens, 4 * n, seed);
    seed = hash64(got.targets, 4 * n, seed);
    seed = hash64(got.positions, 4 * n, seed);
    seed = hash64(got.begin, 4 * n, seed);
    seed = hash64(got.sources, 4 * n, seed);
    seed = hash64(got.weights, 4 * n, seed);
    return hash64(&got.inv_weight, 4, seed);
}

static int start(struct loader *l, int micro_batches, i64 B, i64 T)
{
    struct loader_step step = { .micro_batches = micro_batches, .B = B, .T = T };
    return loader_start_step(l, &step);
}

/* Hash of everything that one step delivers. */
static u64 step_hash(struct loader *l, int micro_batches, i64 B, i64 T)
{
    u64 h = 0;
    CHECK_OK(start(l, micro_batches, B, T));
    for (int m = 0; m < micro_batches; m++) {
        run_kernel(l, m, B, T);
        h = hash_batch(B * T, h);
    }
    return h;
}

static struct loader_config config_of(const struct loader_source *s, i64 n, i64 window)
{
    return (struct loader_config){
        .sources = s, .n_sources = n, .window = window, .seed = 9, .vocab = MADE_VOCAB
    };
}

static struct loader *opened(const struct loader_config *c)
{
    struct loader *l;
    CHECK_OK(loader_open(&l, c));
    return l;
}

static u64 pair_hash(i32 token, i32 target)
{
    i32 pair[2] = { token, target };
    return hash64(pair, sizeof pair, 0);
}

/* A sum over all predictions that a data set asks for, in whatever order. */
static u64 all_predictions(const struct made *m, i64 *tokens)
{
    u64 sum = 0;
    *tokens = 0;
    for (i64 d = 0; d < m->documents; d++) {
        i64 n = made_length(m, d);
        for (i64 i = 0; i < n; i++)
            sum += pair_hash((i32)made_token(m, d, i),
                             i + 1 < n ? (i32)made_token(m, d, i + 1) : MADE_SEPARATOR);
        *tokens += n;
    }
    return sum;
}

/* Rows obey their own borders: a document begins with the separator or is continued. */
static void check_row(i64 at, i64 T)
{
    const i32 *tokens = got.tokens + at, *begin = got.begin + at;
    for (i64 t = 0; t < T && got.weights[at + t] > 0; t++) {
        CHECK_EQ(got.positions[at + t], t - begin[t]);
        CHECK_EQ(tokens[t] == MADE_SEPARATOR,
                 begin[t] == t && tokens[t] == MADE_SEPARATOR);
        if (t + 1 < T && begin[t + 1] == begin[t])
            CHECK_EQ(got.targets[at + t], tokens[t + 1]);
        else if (t + 1 < T && got.weights[at + t + 1] > 0 &&
                 tokens[t + 1] == MADE_SEPARATOR)
            CHECK_EQ(got.targets[at + t], MADE_SEPARATOR);
    }
}

static void check_epochs(const struct made *m, enum row_packing packing, i64 window,
                         i64 T)
{
    struct loader_source s = { .path = m->folder };
    struct loader_config c = config_of(&s, 1, window);
    c.packing = packing;
    struct loader *l = opened(&c);
    i64 tokens, parts = window / T;
    u64 want = all_predictions(m, &tokens);
    i64 rows = row_windows(loader_dataset(l, 0), window) * parts;
    CHECK_EQ(loader_dataset(l, 0)->tokens, tokens);
    for (int epoch = 0; epoch < 2; epoch++) {
        u64 sum = 0;
        i64 counted = 0;
        for (i64 row = 0, B; row < rows; row += B) {
            B = i64_min(rows - row, 100);
            CHECK_OK(start(l, 1, B, T));
            run_kernel(l, 0, B, T);
            for (i64 i = 0; i < B; i++)
                check_row(i * T, T);
            for (i64 t = 0; t < B * T; t++) {
                counted += got.weights[t] > 0;
                if (got.weights[t] > 0)
                    sum += pair_hash(got.tokens[t], got.targets[t]);
            }
        }
        CHECK_EQ(counted, tokens);
        CHECK(sum == want);
    }
    loader_close(l);
}

TEST(an_epoch_predicts_every_token_once)
{
    static const i64 longest[] = { 1, 3, 40, 700 };
    for (i64 k = 0; k < COUNT_OF(longest); k++) {
        struct made m = { .folder = fresh_folder("epoch"),
                          .documents = 15000 / (longest[k] + 9),
                          .longest = longest[k],
                          .shard_tokens = 3000,
                          .seed = (u64)k };
        make_data(&m);
        for (int packing = ROW_CONTIGUOUS; packing <= ROW_DOCUMENTS; packing++) {
            check_epochs(&m, packing, 16, 16);
            check_epochs(&m, packing, 64, 16);
            check_epochs(&m, packing, 1, 1);
        }
        sys_remove_tree(m.folder);
    }
}

/* Windows of 16 tokens without borders, each told by the hash of its tokens. Of a random order
 * about one stays where it was. */
TEST(every_epoch_has_an_order_of_its_own)
{
    enum { ROWS = 100, EPOCHS = 3 };
    struct made m = { .folder = fresh_folder("orders"), .documents = 1, .longest = 16 * ROWS,
                      .shard_tokens = 3000, .seed = 5 };
    u64 row[EPOCHS][ROWS];
    make_data(&m);
    struct loader_source s = { .path = m.folder };
    struct loader_config c = config_of(&s, 1, 16);
    struct loader *l = opened(&c);
    const i64 rows = row_windows(loader_dataset(l, 0), 16);
    CHECK(rows > ROWS / 2 && rows <= ROWS);
    for (int epoch = 0; epoch < EPOCHS; epoch++) {
        CHECK_OK(start(l, 1, rows, 16));
        run_kernel(l, 0, rows, 16);
        for (i64 r = 0; r < rows; r++)
            row[epoch][r] = hash64(got.tokens + 16 * r, 16 * sizeof(i32), 0);
        for (int before = 0; before < epoch; before++) {
            i64 alike = 0;
            for (i64 r = 0; r < rows; r++)
                alike += row[epoch][r] == row[before][r];
            CHECK(alike < rows / 8);
        }
    }
    loader_close(l);
    sys_remove_tree(m.folder);
}

static struct made standard(const char *name, u64 seed)
{
    struct made m = { .folder = fresh_folder(name), .documents = 400, .longest = 150,
                      .shard_tokens = 7000, .seed = seed, .masked = true };
    make_data(&m);
    return m;
}

TEST(order_depends_on_the_seed_and_on_nothing_else)
{
    struct made a = standard("order-a", 1), b = standard("order-b", 2);
    struct loader_source s[] = { { .name = "a", .path = a.folder, .weight = 2 },
                                 { .name = "b", .path = b.folder, .weight = 1 } };
    static const struct {
        int threads, ahead;
    } readers[] = { { 1, 1 }, { 2, 1 }, { 4, 3 }, { 3, 20 } };
    u64 want[60];
    for (i64 i = 0; i < COUNT_OF(readers); i++) {
        struct loader_config c = config_of(s, 2, 64);
        c.threads = readers[i].threads;
        c.steps_ahead = readers[i].ahead;
        c.packing = ROW_DOCUMENTS;
        struct loader *l = opened(&c);
        for (int step = 0; step < 60; step++) {
            u64 h = step_hash(l, 2, 3, 64);
            if (i == 0)
                want[step] = h;
            CHECK(h == want[step]);
            CHECK(step == 0 || h != want[0]);
        }
        loader_close(l);
    }
    struct loader_config c = config_of(s, 2, 64);
    c.packing = ROW_DOCUMENTS;
    c.seed++;
    struct loader *l = opened(&c);
    CHECK(step_hash(l, 2, 3, 64) != want[0]);
    loader_close(l);
    sys_remove_tree(a.folder);
    sys_remove_tree(b.folder);
}

TEST(a_run_resumed_at_any_step_sees_the_same_stream)
{
    enum { STEPS = 40 };
    struct made a = standard("resume-a", 1), b = standard("resume-b", 2);
    struct loader_source s[] = { { .name = "a", .path = a.folder, .max_epochs = 1.5 },
                                 { .name = "b", .path = b.folder } };
    struct loader_cursor at[STEPS];
    u64 want[STEPS];
    for (int packing = ROW_CONTIGUOUS; packing <= ROW_DOCUMENTS; packing++) {
        struct loader_config c = config_of(s, 2, 128);
        c.packing = packing;
        struct loader *l = opened(&c);
        for (int step = 0; step < STEPS; step++) {
            loader_get_cursor(l, &at[step]);
            want[step] = step_hash(l, 1, 7, step % 10 < 5 ? 128 : 32);
        }
        loader_close(l);
        for (int from = 0; from < STEPS; from += 3) {
            l = opened(&c);
            CHECK_OK(loader_seek(l, &at[from]));
            for (int step = from; step < STEPS; step++)
                CHECK(step_hash(l, 1, 7, step % 10 < 5 ? 128 : 32) == want[step]);
            loader_close(l);
        }
    }
    sys_remove_tree(a.folder);
    sys_remove_tree(b.folder);
}

TEST(a_run_goes_on_with_the_caps_that_its_recipe_has_then)
{
    struct made m = standard("caps", 1);
    struct loader_source s = { .path = m.folder, .max_epochs = 1 };
    struct loader_config c = config_of(&s, 1, 64);
    struct loader_cursor end;
    struct loader *l = opened(&c);
    const struct loader_step step = { .micro_batches = 1, .B = 1, .T = 64 };
    const i64 once = loader_places(l);
    while (!loader_ended(l, &step))
        CHECK_OK(loader_start_step(l, &step));
    loader_get_cursor(l, &end);
    loader_close(l);
    CHECK_EQ(end.position, once);
    for (int epochs = 1; epochs <= 3; epochs++) {
        s.max_epochs = epochs;
        l = opened(&c);
        CHECK_OK(loader_seek(l, &end));
        CHECK_EQ(loader_places(l), epochs * once);
        CHECK_EQ(loader_ended(l, &step), epochs == 1);
        loader_close(l);
    }
    sys_remove_tree(m.folder);
}

TEST(short_sequences_walk_through_the_same_windows)
{
    struct made m = standard("ramp", 1);
    struct loader_source s = { .path = m.folder };
    struct loader_config c = config_of(&s, 1, 64);
    static i32 whole[64 * 64];
    struct loader *l = opened(&c);
    CHECK_OK(start(l, 1, 64, 64));
    run_kernel(l, 0, 64, 64);
    memcpy(whole, got.tokens, sizeof whole);
    for (i64 T = 1; T <= 64; T *= 2) {
        CHECK_OK(loader_seek_position(l, 0));
        CHECK_OK(start(l, 1, 64 * 64 / T, T));
        run_kernel(l, 0, 64 * 64 / T, T);
        CHECK(memcmp(whole, got.tokens, sizeof whole) == 0);
    }
    CHECK_FAILS(start(l, 1, 1, 48), ERR_CONFIG, "does not divide");
    /* 3 rows of 1, then rows of 64: the position goes up to the next multiple of 64. */
    CHECK_OK(loader_seek_position(l, 0));
    CHECK_OK(start(l, 1, 3, 1));
    CHECK_OK(start(l, 1, 1, 64));
    run_kernel(l, 0, 1, 64);
    CHECK(memcmp(whole + 64, got.tokens, 64 * 4) == 0);
    loader_close(l);
    sys_remove_tree(m.folder);
}

/* Two ranks of 2 x 3 rows each: all twelve, alternating by micro-batch. */
TEST(ranks_may_take_turns_in_the_rows_of_a_step)
{
    enum { B = 3, T = 32, N = 2, ALL = 12 };
    struct made m = standard("turns", 3);
    struct loader_source s = { .name = "a", .path = m.folder, .weight = 1 };
    struct loader_config c = config_of(&s, 1, T);
    static i32 whole[ALL * T];
    struct loader *l = opened(&c);
    CHECK_OK(start(l, 1, ALL, T));
    run_kernel(l, 0, ALL, T);
    memcpy(whole, got.tokens, sizeof whole);
    for (i64 rank = 0; rank < 2; rank++) {
        CHECK_OK(loader_seek_position(l, 0));
        CHECK_OK(loader_start_step(l, &(struct loader_step){
            .micro_batches = N, .B = B, .T = T, .all_rows = ALL, .first_row = rank * B,
            .stride = 2 * B }));
        for (int i = 0; i < N; i++) {
            run_kernel(l, i, B, T);
            CHECK(memcmp(whole + (2 * i + rank) * B * T, got.tokens, B * T * sizeof *whole) == 0);
        }
    }
    loader_close(l);
    sys_remove_tree(m.folder);
}

TEST(mixtures_keep_their_proportions_and_caps)
{
    struct made a = standard("mix-a", 1), b = standard("mix-b", 2);
    struct loader_source s[] = { { .name = "a", .path = a.folder, .weight = 3 },
                                 { .name = "b", .path = b.folder, .weight = 1,
                                   .max_epochs = 2 } };
    struct loader_config c = config_of(s, 2, 32);
    struct loader *l = opened(&c);
    i64 windows = row_windows(loader_dataset(l, 1), 32), seen[2] = { 0 };
    CHECK_NEAR(loader_weight(l, 0), 0.75, 1e-12);
    for (i64 g = 0; g < 8 * windows + 400; g++) {
        CHECK_OK(start(l, 1, 1, 32));
        run_kernel(l, 0, 1, 32);
        for (int t = 0; t < 32; t++)
            CHECK_EQ(got.sources[t], got.sources[0]);
        seen[got.sources[0]]++;
        if (g < 8 * windows - 4)
            CHECK_NEAR(seen[0], 0.75 * (double)(g + 1), 2);
    }
    CHECK_EQ(seen[1], 2 * windows);
    CHECK_NEAR(loader_epochs(l, 1), 2, 1e-12);
    CHECK_EQ(loader_places(l), INT64_MAX);
    loader_close(l);
    s[0].max_epochs = 1;
    l = opened(&c);
    i64 total = loader_places(l) / 32;
    CHECK_EQ(total, 2 * windows + row_windows(loader_dataset(l, 0), 32));
    CHECK_OK(loader_seek_position(l, 32 * (total - 2)));
    CHECK_OK(start(l, 1, 2, 32));
    CHECK_FAILS(start(l, 1, 1, 32), ERR_LIMIT, "cap");
    loader_close(l);
    sys_remove_tree(a.folder);
    sys_remove_tree(b.folder);
}

/* By its name, its path's last part, its path, or that and a number. */
TEST(no_two_sources_are_called_alike)
{
    struct made m = standard("same", 1);
    const char *slash = strrchr(m.folder, '/'), *last = slash ? slash + 1 : m.folder;
    char one[600], two[900], third[620];
    snprintf(one, sizeof one, "%s/../%s", m.folder, last);
    snprintf(two, sizeof two, "%s/../%s", one, last);
    snprintf(third, sizeof third, "%s#3", one);
    struct loader_source s[] = { { .path = one }, { .path = two }, { .path = one },
                                 { .path = one, .name = "plain" }, { .path = two, .name = third } };
    const char *const names[] = { one, two, NULL, "plain", third };
    struct loader_config c = config_of(s, COUNT_OF(s), 32);
    struct loader *l = opened(&c);
    for (i64 i = 0; i < COUNT_OF(s); i++) {
        if (names[i])
            CHECK_STR(loader_source_name(l, i), names[i]);
        for (i64 k = 0; k < i; k++)
            CHECK(strcmp(loader_source_name(l, i), loader_source_name(l, k)) != 0);
    }
    loader_close(l);
    c.n_sources = 1;
    l = opened(&c);
    CHECK_STR(loader_source_name(l, 0), last);
    loader_close(l);
    sys_remove_tree(m.folder);
}

TEST(weights_follow_the_loss_mask)
{
    struct made m = standard("mask", 3);
    struct loader_source s = { .path = m.folder };
    i64 want = 0, total = 0;
    for (i64 d = 0; d < m.documents; d++) {
        i64 n = made_length(&m, d);
        for (i64 i = 1; i < n; i++)
            want += made_counts(&m, d, i);
        want += made_counts(&m, d, n - 1); /* the separator after it */
        total += n;
    }
    for (int packing = ROW_CONTIGUOUS; packing <= ROW_DOCUMENTS; packing++) {
        struct loader_config c = config_of(&s, 1, 50);
        c.packing = packing;
        c.loss_on_answers = true;
        struct loader *l = opened(&c);
        i64 rows = row_windows(loader_dataset(l, 0), 50);
        double sum = 0;
        for (i64 i = 0; i < rows; i++) {
            CHECK_OK(start(l, 1, 1, 50));
            run_kernel(l, 0, 1, 50);
            double row = 0;
            for (int t = 0; t < 50; t++)
                row += got.weights[t];
            CHECK_NEAR(loader_step_weight(l), row, 0);
            CHECK_NEAR(got.inv_weight, row > 0 ? (float)(1 / row) : 0, 0);
            sum += row;
        }
        CHECK_NEAR(sum, want, 0);
        CHECK_EQ(loader_dataset(l, 0)->loss_tokens, want); /* what `data info` says */
        loader_close(l);
        c.loss_on_answers = false;
        l = opened(&c);
        CHECK_OK(start(l, (int)rows, 1, 50));
        CHECK_NEAR(loader_step_weight(l), total, 0);
        loader_close(l);
    }
    sys_remove_tree(m.folder);
}

TEST(attention_may_cross_borders_when_told_so)
{
    struct made m = standard("cross", 3);
    struct loader_source s = { .path = m.folder };
    struct loader_config c = config_of(&s, 1, 50);
    c.border = ROW_BORDER_CROSS;
    struct loader *l = opened(&c);
    CHECK_OK(start(l, 1, 4, 50));
    run_kernel(l, 0, 4, 50);
    for (int t = 0; t < 4 * 50; t++)
        CHECK(got.begin[t] == 0 && got.positions[t] == t % 50);
    loader_close(l);
    sys_remove_tree(m.folder);
}

/* Documents that lie within one row, out of those no longer than a row. */
static double whole_share(const struct made *m, enum row_packing packing, i64 T)
{
    struct loader_source s = { .path = m->folder };
    struct loader_config c = config_of(&s, 1, T);
    c.packing = packing;
    struct loader *l = opened(&c);
    i64 rows = row_windows(loader_dataset(l, 0), T), fit = 0, whole = 0;
    for (i64 row = 0; row < rows; row++) {
        CHECK_OK(start(l, 1, 1, T));
        run_kernel(l, 0, 1, T);
        for (i64 t = 0; t < T; t++)
            if (got.tokens[t] == MADE_SEPARATOR && got.weights[t] > 0) {
                i64 end = t;
                while (end + 1 < T && got.begin[end + 1] == t)
                    end++;
                whole += end + 1 < T || got.targets[end] == MADE_SEPARATOR;
            }
    }
    for (i64 d = 0; d < m->documents; d++)
        fit += made_length(m, d) <= T;
    loader_close(l);
    return (double)whole / (double)fit;
}

TEST(packing_leaves_nine_of_ten_documents_whole)
{
    struct made m = { .folder = fresh_folder("whole"), .documents = 3000, .longest = 400,
                      .shard_tokens = 1 << 20, .seed = 8 };
    make_data(&m);
    double cut = whole_share(&m, ROW_CONTIGUOUS, 512);
    double packed = whole_share(&m, ROW_DOCUMENTS, 512);
    CHECK(cut < 0.7 && packed > 0.9);
    sys_remove_tree(m.folder);
}

TEST(files_without_documents_are_split_at_their_separator)
{
    enum { TOKENS = 103 };
    const char *folder = fresh_folder("nanogpt");
    char path[512];
    u16 ids[TOKENS];
    for (int i = 0; i < TOKENS; i++)
        ids[i] = (u16)(i % 10 == 3 ? 7 : 100 + i);
    snprintf(path, sizeof path, "%s/train.bin", folder);
    write_file(path, ids, sizeof ids);
    struct loader_source s = { .path = path, .separator = 7 };
    struct loader_config c = config_of(&s, 1, 25);
    struct loader *l = opened(&c);
    i64 counted = 0;
    CHECK_OK(start(l, 1, 5, 25));
    run_kernel(l, 0, 5, 25);
    for (int t = 0; t < 5 * 25; t++) {
        bool first = t % 25 == 0 || got.tokens[t] == 7;
        if (got.weights[t] == 0)
            continue;
        counted++;
        CHECK_EQ(got.begin[t], first ? t % 25 : got.begin[t - 1]);
        if (got.tokens[t] != 7)
            CHECK_EQ(got.targets[t], got.tokens[t] == 202 || (got.tokens[t] + 1) % 10 == 3
                                         ? 7
                                         : got.tokens[t] + 1);
    }
    CHECK_EQ(counted, TOKENS);
    loader_close(l);
    c.packing = ROW_DOCUMENTS;
    CHECK_FAILS(loader_open(&l, &c), ERR_CONFIG, "where documents begin");
    sys_remove_tree(folder);
}

TEST(evaluation_reads_everything_once_and_counts_bytes)
{
    struct made a = { .folder = fresh_folder("eval-a"), .split = "val", .documents = 70,
                      .longest = 90, .shard_tokens = 900, .seed = 1 };
    struct made b = { .folder = fresh_folder("eval-b"), .split = "val", .documents = 10,
                      .longest = 90, .shard_tokens = 900, .seed = 2 };
    static u16 token_bytes[MADE_VOCAB];
    i64 tokens_a, tokens_b;
    u64 want = 0, sum = 0;
    make_data(&a);
    make_data(&b);
    want += all_predictions(&a, &tokens_a);
    want += all_predictions(&b, &tokens_b);
    for (int i = 1; i < MADE_VOCAB; i++)
        token_bytes[i] = 3; /* as make_data says; the separator is no text */
    struct loader_source s[] = { { .path = a.folder }, { .path = b.folder } };
    struct loader_config c = config_of(s, 2, 40);
    c.token_bytes = token_bytes;
    struct loader *l;
    CHECK_OK(loader_open_eval(&l, &c, 0));
    i64 counted[2] = { 0 }, bytes[2] = { 0 }, last = -1;
    for (i64 at = 0; at < loader_places(l); at += 3 * 40) {
        CHECK_OK(start(l, 1, 3, 40));
        run_kernel(l, 0, 3, 40);
        for (int t = 0; t < 3 * 40; t++) {
            if (got.weights[t] == 0)
                continue;
            CHECK(got.sources[t] >= last);
            last = got.sources[t];
            counted[last]++;
            sum += pair_hash(got.tokens[t], got.targets[t]);
        }
        bytes[0] += loader_step_bytes(l)[0];
        bytes[1] += loader_step_bytes(l)[1];
    }
    CHECK_EQ(counted[0], tokens_a);
    CHECK_EQ(counted[1], tokens_b);
    CHECK(sum == want);
    CHECK_EQ(bytes[0], loader_dataset(l, 0)->text_bytes);
    CHECK_EQ(bytes[1], loader_dataset(l, 1)->text_bytes);
    loader_close(l);
    CHECK_OK(loader_open_eval(&l, &c, 800));
    CHECK(loader_places(l) > 700 && loader_places(l) <= 800 + 40);
    loader_close(l);
    struct made train = standard("eval-none", 1);
    s[0].path = train.folder;
    c.n_sources = 1;
    CHECK_OK(loader_open_eval(&l, &c, 0));
    CHECK_EQ(loader_places(l), 0);
    loader_close(l);
    sys_remove_tree(a.folder);
    sys_remove_tree(b.folder);
    sys_remove_tree(train.folder);
}

/* Places of one long document, found again by their tokens. */
TEST(a_part_of_the_held_out_text_is_taken_from_all_of_it)
{
    enum { W = 16, PARTS = 7 };
    struct made m = { .folder = fresh_folder("spread"), .split = "val", .documents = 1,
                      .longest = 3000, .shard_tokens = 900, .seed = 6 };
    const i64 length = made_length(&m, 0), all = ceil_div(length, W);
    make_data(&m);
    struct loader_source s = { .path = m.folder };
    struct loader_config c = config_of(&s, 1, W);
    struct loader *l;
    CHECK(all > 5 * PARTS);
    CHECK_OK(loader_open_eval(&l, &c, PARTS * W));
    CHECK_EQ(loader_places(l), PARTS * W);
    CHECK_OK(start(l, 1, PARTS, W));
    run_kernel(l, 0, PARTS, W);
    for (i64 row = 0; row < PARTS; row++)
        for (i64 t = 0; t < W; t++)
            CHECK_EQ(got.tokens[row * W + t],
                     (i32)made_token(&m, 0, row * all / PARTS * W + t));
    loader_close(l);
    sys_remove_tree(m.folder);
}

TEST(a_shard_cut_short_in_mid_run_stops_the_run_before_the_step)
{
    struct made m = standard("stop", 1);
    struct loader_source s = { .path = m.folder };
    struct loader_config c = config_of(&s, 1, 64);
    struct loader *l = opened(&c);
    struct loader_cursor before, after;
    struct loader_step step = { .micro_batches = 1, .B = 8, .T = 64 };
    CHECK_OK(loader_start_step(l, &step));
    cut_short(m.folder);
    int rc = OK;
    for (int i = 0; i < 20 && rc == OK; i++) {
        loader_get_cursor(l, &before);
        rc = loader_start_step(l, &step);
    }
    CHECK_EQ(rc, ERR_FORMAT);
    CHECK(strstr(err_message(), "truncated"));
    loader_get_cursor(l, &after);
    CHECK_EQ(before.position, after.position);
    CHECK_EQ(loader_start_step(l, &step), ERR_FORMAT);
    loader_close(l);
    sys_remove_tree(m.folder);
}

static int start_without_what_is_lost(struct loader *l, const struct loader_step *step)
{
    int rc = loader_start_step(l, step);
    while (rc < 0 && loader_failed_source(l) >= 0) {
        CHECK(loader_gives(l, loader_failed_source(l)));
        loader_leave_out(l, loader_failed_source(l));
        rc = loader_start_step(l, step);
    }
    return rc;
}

TEST(a_shard_cut_short_in_mid_run_can_be_left_out)
{
    struct made a = standard("skip-a", 1), b = standard("skip-b", 2);
    struct loader_source s[] = { { .path = a.folder }, { .path = b.folder } };
    struct loader_config c = config_of(s, 2, 64);
    struct loader *l = opened(&c);
    CHECK_OK(start(l, 1, 8, 64));
    cut_short(b.folder);
    for (int i = 0; i < 100; i++) {
        const struct loader_step step = { .micro_batches = 2, .B = 4, .T = 64 };
        CHECK_OK(start_without_what_is_lost(l, &step));
        for (int m = 0; m < 2; m++) {
            run_kernel(l, m, 4, 64);
            for (int t = 0; t < 4 * 64; t++)
                CHECK(i < 20 || got.sources[t] == 0);
        }
    }
    /* What the checkpoint would keep is enough to go on in the same way. */
    struct loader_cursor at;
    loader_get_cursor(l, &at);
    u64 want = step_hash(l, 1, 8, 64);
    loader_close(l);
    CHECK_EQ(at.limit[0], INT64_MAX);
    CHECK(at.limit[1] < 100);
    CHECK(sys_remove_tree(b.folder) == 0);
    make_data(&b);
    l = opened(&c);
    CHECK_OK(loader_seek(l, &at));
    CHECK(step_hash(l, 1, 8, 64) == want);
    cut_short(a.folder);
    int rc = OK;
    for (int i = 0; i < 100 && rc == OK; i++) {
        const struct loader_step step = { .micro_batches = 1, .B = 8, .T = 64 };
        rc = start_without_what_is_lost(l, &step);
    }
    CHECK_EQ(rc, ERR_LIMIT); /* no source is left */
    CHECK(!loader_gives(l, 0) && !loader_gives(l, 1));
    loader_close(l);
    sys_remove_tree(a.folder);
    sys_remove_tree(b.folder);
}

TEST(a_blank_step_counts_in_nothing_and_the_next_one_is_as_it_was)
{
    struct made m = standard("blank", 1);
    struct loader_source s = { .path = m.folder };
    struct loader_config c = config_of(&s, 1, 64);
    struct loader *l = opened(&c);
    struct loader_step step = { .micro_batches = 1, .B = 4, .T = 64 };
    step_hash(l, 1, 4, 64);
    u64 want = step_hash(l, 1, 4, 64);
    CHECK_OK(loader_seek_position(l, 0));
    CHECK_OK(loader_start_blank(l, &step));
    CHECK(loader_step_weight(l) == 0 && loader_step_bytes(l)[0] == 0);
    run_kernel(l, 0, 4, 64);
    for (int t = 0; t < 4 * 64; t++)
        CHECK(got.weights[t] == 0);
    CHECK(step_hash(l, 1, 4, 64) == want);
    loader_close(l);
    sys_remove_tree(m.folder);
}

TEST(data_that_does_not_fit_the_model_is_refused_before_any_work)
{
    struct made m = standard("refuse", 1);
    struct loader_source s = { .path = m.folder };
    struct loader_config c = config_of(&s, 1, 64);
    struct loader *l;
    c.vocab = 999;
    CHECK_FAILS(loader_open(&l, &c), ERR_MODEL, "vocabulary has 999");
    c.vocab = MADE_VOCAB;
    c.tokenizer_hash = 78;
    CHECK_FAILS(loader_open(&l, &c), ERR_CONFIG, "another tokenizer");
    c.tokenizer_hash = 77;
    CHECK_OK(loader_open(&l, &c));
    loader_close(l);
    s.path = fresh_folder("empty");
    CHECK_FAILS(loader_open(&l, &c), ERR_CONFIG, "no tokens in its train split");
    sys_remove_tree(s.path);
    char path[512];
    u16 ids[100] = { [70] = 1000 };
    snprintf(path, sizeof path, "%s/foreign.bin", m.folder);
    write_file(path, ids, sizeof ids);
    s.path = path;
    s.separator = -1;
    CHECK_OK(loader_open(&l, &c));
    CHECK_FAILS(start(l, 1, 2, 64), ERR_FORMAT, "vocabulary ends at 1000");
    loader_close(l);
    sys_remove_tree(m.folder);
}

TEST(steps_after_the_first_allocate_nothing)
{
    struct made m = standard("allocations", 1);
    struct loader_source s = { .path = m.folder };
    struct loader_config c = config_of(&s, 1, 64);
    c.packing = ROW_DOCUMENTS;
    c.threads = 2;
    struct loader *l = opened(&c);
    CHECK_OK(start(l, 2, 8, 64));
    u64 before = sys_op_count(SYS_ALLOC);
    for (int i = 0; i < 50; i++)
        CHECK_OK(start(l, 2, 8 - i % 3, 64));
    CHECK_EQ(sys_op_count(SYS_ALLOC), before);
    loader_close(l);
    sys_remove_tree(m.folder);
}

TEST(waiting_and_reading_leave_spans)
{
    struct made m = standard("spans", 1);
    struct loader_source s = { .path = m.folder };
    struct loader_config c = config_of(&s, 1, 64);
    struct trace trace;
    CHECK_OK(trace_init(&trace, 64));
    c.trace = &trace;
    struct loader *l = opened(&c);
    for (u64 i = 0; i < 5; i++) {
        const struct loader_step step = { .step = 10 + i, .micro_batches = 1, .B = 2, .T = 64 };
        CHECK_OK(loader_start_step(l, &step));
    }
    loader_close(l);
    const struct trace_ring *host = &trace.lanes[TRACE_HOST],
                            *load = &trace.lanes[TRACE_LOADER];
    CHECK_EQ(host->written, 5);
    CHECK(load->written >= 5);
    CHECK(host->spans[2].kind == SPAN_LOAD_WAIT && host->spans[2].step == 12);
    CHECK(load->spans[0].kind == SPAN_LOAD && load->spans[1].step == 11);
    trace_fini(&trace);
    sys_remove_tree(m.folder);
}

TEST(parts_of_cut_rows_are_those_rows)
{
    enum { B = 3, T = 48, CUT = 4, HERE = T / CUT };
    static i32 tokens[2 * B * T], begin[2 * B * T], positions[2 * B * T];
    struct made m = standard("cut", 5);
    struct loader_source source = { .path = m.folder };
    struct loader_config c = config_of(&source, 1, T);
    struct loader *l = opened(&c);
    struct loader_step step = { .micro_batches = 2, .B = B, .T = T };
    CHECK_OK(loader_start_step(l, &step));
    double weight = loader_step_weight(l);
    for (int mb = 0; mb < 2; mb++) {
        run_kernel(l, mb, B, T);
        memcpy(tokens + mb * B * T, got.tokens, sizeof tokens / 2);
        memcpy(begin + mb * B * T, got.begin, sizeof begin / 2);
        memcpy(positions + mb * B * T, got.positions, sizeof positions / 2);
    }
    step.cut = CUT;
    for (step.part = 0; step.part < CUT; step.part++) {
        struct zigzag part = zigzag_part(CUT, step.part, HERE);
        CHECK_OK(loader_seek_position(l, 0));
        CHECK_OK(loader_start_step(l, &step));
        CHECK(loader_step_weight(l) == (step.part == 0 ? weight : 0));
        for (int mb = 0; mb < 2; mb++) {
            run_kernel(l, mb, B, HERE);
            for (i64 i = 0; i < B * HERE; i++) {
                i64 at = (mb * B + i / HERE) * T + zigzag_place(&part, i % HERE);
                CHECK(got.tokens[i] == tokens[at] && got.begin[i] == begin[at] &&
                      got.positions[i] == positions[at]);
            }
        }
    }
    CHECK_FAILS(loader_start_step(l, &(struct loader_step){ .micro_batches = 1, .B = 1, .T = T,
                                                            .cut = 5 }),
                ERR_CONFIG, "cannot be cut into 10 chunks");
    loader_close(l);
    sys_remove_tree(m.folder);
}

TEST_MAIN(ONE(an_epoch_predicts_every_token_once), ONE(every_epoch_has_an_order_of_its_own),
          ONE(order_depends_on_the_seed_and_on_nothing_else),
          ONE(a_run_resumed_at_any_step_sees_the_same_stream),
          ONE(a_run_goes_on_with_the_caps_that_its_recipe_has_then),
          ONE(short_sequences_walk_through_the_same_windows),
          ONE(ranks_may_take_turns_in_the_rows_of_a_step),
          ONE(mixtures_keep_their_proportions_and_caps),
          ONE(no_two_sources_are_called_alike),
          ONE(weights_follow_the_loss_mask),
          ONE(attention_may_cross_borders_when_told_so),
          ONE(packing_leaves_nine_of_ten_documents_whole),
          ONE(files_without_documents_are_split_at_their_separator),
          ONE(evaluation_reads_everything_once_and_counts_bytes),
          ONE(a_part_of_the_held_out_text_is_taken_from_all_of_it),
          ONE(a_shard_cut_short_in_mid_run_stops_the_run_before_the_step),
          ONE(a_shard_cut_short_in_mid_run_can_be_left_out),
          ONE(a_blank_step_counts_in_nothing_and_the_next_one_is_as_it_was),
          ONE(data_that_does_not_fit_the_model_is_refused_before_any_work),
          ONE(steps_after_the_first_allocate_nothing),
          ONE(waiting_and_reading_leave_spans),
          ONE(parts_of_cut_rows_are_those_rows))
