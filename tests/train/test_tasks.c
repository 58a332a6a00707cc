/* Scores of text and of multiple-choice questions, beside rows that are asked one by one. */
#include "small_model.h"

#include "../data/small_tokenizer.h"
#include "base/rng.h"
#include "base/sys.h"
#include "train/tasks.h"

#include <fcntl.h>
#include <math.h>
#include <zstd.h>

enum { T = 24, VOCAB = 300 };

/* -log p of the last token of a row, by a program of its own. */
static double last_nll(struct scorer *one, const i32 *row, i64 n)
{
    scorer_row(one, 0, row, n, n - 2);
    scorer_run(one);
    return scorer_sum(one, 0);
}

/* --- text --------------------------------------------------------------------------- */

/* Token i of the text is predicted from tokens [first, i): rows of T whose last `stride`
 * places are asked, the very first row from its beginning. -1 is what stands before. */
static i64 first_of(i64 i, i64 stride)
{
    if (i < T - 1)
        return -1;
    i64 done = T - 1 + (i - (T - 1)) / stride * stride;
    return done - (T - stride);
}

TEST(every_token_of_a_text_is_asked_once_with_its_past)
{
    struct small_model m;
    struct scorer rows, one;
    i32 ids[100], row[T];
    small_model_open(&m, false, VOCAB, T, 0);
    CHECK_OK(scorer_init(&rows, m.model, &m.engine, 3, T, false, &m.arena));
    CHECK_OK(scorer_init(&one, m.model, &m.engine, 1, T, false, &m.arena));
    CHECK_OK(engine_commit(&m.engine));
    for (i64 i = 0; i < COUNT_OF(ids); i++)
        ids[i] = (i32)(rng_u64(&(struct rng){ 1, 1 }, (u64)i) % VOCAB);
    static const struct {
        i64 n, stride;
    } cases[] = { { 100, 5 }, { 100, 12 }, { 100, T - 1 }, { 100, 1 }, { 1, 12 },
                  { T - 1, 4 }, { T, 4 }, { 41, 17 } };
    for (i64 k = 0; k < COUNT_OF(cases); k++) {
        struct text_score sum = { 0 };
        double want = 0;
        i64 n = cases[k].n, stride = cases[k].stride;
        for (i64 i = 0; i < n; i++) {
            i64 first = first_of(i, stride), length = 0;
            for (i64 j = first; j <= i; j++)
                row[length++] = j < 0 ? 7 : ids[j];
            want += last_nll(&one, row, length);
        }
        CHECK_OK(tasks_score_text(&rows, ids, n, 7, stride, &sum));
        CHECK_EQ(sum.tokens, n);
        CHECK_NEAR(sum.nll, want, 1e-5 * want); /* fp32 losses, other batch shapes */
    }
    small_model_close(&m);
}

/* --- questions ---------------------------------------------------------------------- */

struct quiz {
    struct small_model m;
    struct scorer rows, one;
    struct tokenizer *tokenizer;
    struct encoder *encoder;
    bool always; /* BEFORE stands before contexts with text too */
};

static void quiz_open(struct quiz *q)
{
    struct encoder_options how = { .policy = UTF8_BYTES, .specials_as_text = true };
    q->always = false;
    q->tokenizer = train_small("gpt2", VOCAB, 1);
    CHECK(tokenizer_size(q->tokenizer) <= VOCAB);
    CHECK_OK(encoder_new(&q->encoder, q->tokenizer, &how));
    small_model_open(&q->m, true, VOCAB, T, 0);
    CHECK_OK(scorer_init(&q->rows, q->m.model, &q->m.engine, 2, T, false, &q->m.arena));
    CHECK_OK(scorer_init(&q->one, q->m.model, &q->m.engine, 1, T, false, &q->m.arena));
    CHECK_OK(engine_commit(&q->m.engine));
}

static void quiz_close(struct quiz *q)
{
    small_model_close(&q->m);
    encoder_free(q->encoder);
    tokenizer_free(q->tokenizer);
}

static i64 encode(struct quiz *q, const char *text, i32 *out)
{
    i64 n;
    encoder_clear(q->encoder);
    CHECK_OK(encoder_text(q->encoder, text, (i64)strlen(text)));
    const i32 *ids = encoder_ids(q->encoder, &n);
    CHECK(n > 0 && n <= 64);
    memcpy(out, ids, sizeof *ids * (size_t)n);
    return n;
}

enum { BEFORE = 3 }; /* what begins a document */

/* What an ending costs after a context: its tokens one by one, each after all before. */
static double plain_cost(struct quiz *q, const char *context, const char *ending, i64 *tokens)
{
    i32 ids[128] = { BEFORE };
    double cost = 0;
    i64 before = q->always || !*context;
    if (*context)
        before += encode(q, context, ids + before);
    *tokens = encode(q, ending, ids + before);
    for (i64 i = before; i < before + *tokens; i++) {
        i64 skip = i64_max(0, before + *tokens - T);
        cost += last_nll(&q->one, ids + skip, i + 1 - skip);
    }
    return cost;
}

static struct choice_score ask(struct quiz *q, const char *lines)
{
    struct choice_score score;
    int fd = sys_open("quiz.jsonl", O_WRONLY | O_CREAT | O_TRUNC, 0644);
    CHECK(sys_write_full(fd, lines, (i64)strlen(lines)) == 0);
    sys_close(fd);
    CHECK_OK(tasks_score_choices(&q->rows, q->encoder, BEFORE, q->always, "quiz.jsonl", &score));
    sys_unlink("quiz.jsonl");
    return score;
}

static const char *const endings[] = { "best of times", " the worst", "age", "winter of us",
                                       "12345", "a", "x == 0", "Light", "caf", "hope",
                                       "nothing", "Heaven" };
enum { ENDINGS = COUNT_OF(endings) };

/* {"ctx": ..., "endings": [...], "label": LABEL} */
static void add_question(struct text *out, const char *context, i64 n, const char *label)
{
    text_printf(out, "{\"ctx\":\"%s\",\"endings\":[", context);
    for (i64 i = 0; i < n; i++)
        text_printf(out, "%s\"%s\"", i ? "," : "", endings[i]);
    text_printf(out, "],\"label\":%s}\n", label);
}

static void check_choices(bool always)
{
    static const char *const contexts[] = { "It was the", "we had", "if (x", "",
                                            "It was the epoch of belief, it was the epoch" };
    struct quiz q;
    quiz_open(&q);
    q.always = always;
    for (i64 c = 0; c < COUNT_OF(contexts); c++) {
        i64 best = 0, best_mean = 0, tokens;
        double cost[ENDINGS], mean[ENDINGS];
        for (i64 i = 0; i < ENDINGS; i++) {
            char spaced[64];
            const char *space = !*contexts[c] || endings[i][0] == ' ' ? "" : " ";
            snprintf(spaced, sizeof spaced, "%s%s", space, endings[i]);
            cost[i] = plain_cost(&q, contexts[c], spaced, &tokens);
            mean[i] = cost[i] / (double)tokens;
            best = cost[i] < cost[best] ? i : best;
            best_mean = mean[i] < mean[best_mean] ? i : best_mean;
        }
        struct text all = { 0 };
        for (i64 label = 0; label < ENDINGS; label++) { /* each of them once as the answer */
            char text[24];
            snprintf(text, sizeof text, "%lld", (long long)label);
            add_question(&all, contexts[c], ENDINGS, text);
        }
        struct choice_score score = ask(&q, all.data);
        CHECK_EQ(score.questions, ENDINGS);
        CHECK_EQ(score.right, 1);
        CHECK_EQ(score.right_per_token, 1);
        text_clear(&all);
        char text[24];
        snprintf(text, sizeof text, "%lld", (long long)best);
        add_question(&all, contexts[c], ENDINGS, text);
        score = ask(&q, all.data);
        CHECK_EQ(score.right, 1);
        CHECK_EQ(score.right_per_token, best == best_mean);
        text_fini(&all);
    }
    quiz_close(&q);
}

TEST(choices_are_those_that_cost_least)
{
    check_choices(false);
    check_choices(true);
}

TEST(labels_are_numbers_text_or_letters)
{
    static const char *const wrong[] = { "12", "-1", "\"12\"", "\"1x\"", "\"\"", "\"a\"",
                                         "\"M\"", "\"AB\"", "1.0", "null", "\" \"" };
    struct quiz q;
    struct choice_score score;
    quiz_open(&q);
    i64 right[3] = { 0 };
    for (i64 i = 0; i < ENDINGS; i++) {
        char labels[3][16];
        struct text line = { 0 };
        snprintf(labels[0], 16, "%lld", (long long)i);
        snprintf(labels[1], 16, "\"%lld\"", (long long)i);
        snprintf(labels[2], 16, "\"%c\"", (int)('A' + i));
        for (int k = 0; k < 3; k++) {
            text_clear(&line);
            add_question(&line, "It was the", ENDINGS, labels[k]);
            right[k] += ask(&q, line.data).right * (i + 1);
        }
        text_fini(&line);
    }
    CHECK(right[0] > 0);
    CHECK_EQ(right[1], right[0]);
    CHECK_EQ(right[2], right[0]);
    for (i64 i = 0; i < COUNT_OF(wrong); i++) {
        struct text line = { 0 };
        add_question(&line, "It was the", ENDINGS, wrong[i]);
        int fd = sys_open("quiz.jsonl", O_WRONLY | O_CREAT | O_TRUNC, 0644);
        CHECK(sys_write_full(fd, line.data, line.length) == 0);
        sys_close(fd);
        CHECK_FAILS(tasks_score_choices(&q.rows, q.encoder, BEFORE, q.always, "quiz.jsonl", &score),
                    ERR_FORMAT, "quiz.jsonl:1: a question needs");
        text_fini(&line);
    }
    sys_unlink("quiz.jsonl");
    quiz_close(&q);
}

static int score_file(struct quiz *q, const void *bytes, i64 n)
{
    struct choice_score score;
    int fd = sys_open("quiz.jsonl", O_WRONLY | O_CREAT | O_TRUNC, 0644);
    CHECK(sys_write_full(fd, bytes, n) == 0);
    sys_close(fd);
    int rc = tasks_score_choices(&q->rows, q->encoder, BEFORE, q->always, "quiz.jsonl", &score);
    CHECK(rc < 0 || score.questions == 2);
    sys_unlink("quiz.jsonl");
    return rc;
}

TEST(questions_may_be_compressed_and_one_that_does_not_fit_is_named)
{
    struct quiz q;
    struct text lines = { 0 };
    char packed[4096];
    quiz_open(&q);
    add_question(&lines, "It was the", 2, "0");
    add_question(&lines, "It was", 2, "1");
    size_t n = ZSTD_compress(packed, sizeof packed, lines.data, (size_t)lines.length, 3);
    CHECK(!ZSTD_isError(n));
    CHECK_OK(score_file(&q, packed, (i64)n));
    text_printf(&lines, "{\"ctx\":\"a\",\"endings\":[\"a\",\"");
    for (int i = 0; i < T; i++)
        text_add(&lines, "x 1 ");
    text_add(&lines, "\"],\"label\":0}\n");
    CHECK_FAILS(score_file(&q, lines.data, lines.length), ERR_LIMIT,
                "quiz.jsonl:3: an ending of ");
    text_fini(&lines);
    quiz_close(&q);
}

TEST_MAIN(ONE(every_token_of_a_text_is_asked_once_with_its_past),
          ONE(choices_are_those_that_cost_least), ONE(labels_are_numbers_text_or_letters),
          ONE(questions_may_be_compressed_and_one_that_does_not_fit_is_named))
