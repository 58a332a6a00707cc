#include "train/tasks.h"

#include "base/json.h"
#include "base/sys.h"
#include "data/stream.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { CHOICES = 64 };

/* --- text --------------------------------------------------------------------------- */

int tasks_score_text(struct scorer *s, const i32 *ids, i64 n, i32 before, i64 stride,
                     struct text_score *sum)
{
    i32 *row = sys_alloc(s->T * (i64)sizeof *row, 16);
    if (!row)
        return err_set(ERR_LIMIT, "no memory for a row of %lld tokens", (long long)s->T);
    for (i64 done = 0; done < n;) {
        i64 rows = 0;
        for (; rows < s->B && done < n; rows++) {
            i64 past = done == 0 ? 1 : i64_max(1, i64_min(s->T - stride, done + 1));
            i64 take = i64_min(done == 0 ? s->T - 1 : i64_min(stride, s->T - past), n - done);
            for (i64 i = 0; i < past + take; i++) {
                i64 at = done - past + i; /* -1 is what stands before the text */
                row[i] = at < 0 ? before : ids[at];
            }
            scorer_row(s, rows, row, past + take, past - 1);
            done += take;
        }
        for (i64 b = rows; b < s->B; b++)
            scorer_row(s, b, row, 0, 0);
        scorer_run(s);
        for (i64 b = 0; b < rows; b++)
            sum->nll += scorer_sum(s, b);
    }
    sum->tokens += n;
    sys_free(row);
    return OK;
}

/* --- multiple choice ---------------------------------------------------------------- */

struct question {
    const char *context, *ending[CHOICES];
    i64 n, label;
};

static const json_t *either(const json_t *o, const char *a, const char *b)
{
    const json_t *v = json_object_get(o, a);
    return v ? v : json_object_get(o, b);
}

/* The label is a number, text that holds one, as in HellaSwag's own files, or a letter
 * from A on; -1 for anything else. */
static i64 read_label(const json_t *v)
{
    const char *text = json_string_value(v);
    char *end;
    if (!text)
        return json_is_integer(v) ? (i64)json_integer_value(v) : -1;
    if (text[0] >= 'A' && text[0] <= 'Z' && !text[1])
        return text[0] - 'A';
    i64 label = strtoll(text, &end, 10);
    return end > text && !*end ? label : -1;
}

static int read_question(struct question *q, const json_t *o, const char *path, i64 line)
{
    const json_t *endings = either(o, "endings", "choices");
    q->context = json_string_value(either(o, "ctx", "question"));
    q->n = (i64)json_array_size(endings);
    q->label = read_label(either(o, "label", "answer"));
    if (!q->context || q->n < 2 || q->n > CHOICES || q->label < 0 || q->label >= q->n)
        return err_set(ERR_FORMAT, "%s:%lld: a question needs \"ctx\", 2 to %d \"endings\" and "
                       "a \"label\" that is one of them: a number from 0 or a letter from A",
                       path, (long long)line, CHOICES);
    for (i64 i = 0; i < q->n; i++) {
        q->ending[i] = json_string_value(json_array_get(endings, (size_t)i));
        if (!q->ending[i] || !*q->ending[i])
            return err_set(ERR_FORMAT, "%s:%lld: endings must be strings, none of them empty", path,
                           (long long)line);
    }
    return OK;
}

struct asker {
    struct scorer *scorer;
    struct encoder *encoder;
    i32 before;  /* what begins documents */
    bool always; /* it stands before every context, not only for one without text */
    i32 *row; /* [T] */
    struct choice_score *out;
    struct text spaced;
};

/* Context and ending as one row; returns how many tokens belong to the ending. */
static int fill_row(struct asker *a, const struct question *q, i64 ending, i64 *tokens,
                    bool *cut)
{
    i64 context, n;
    struct scorer *s = a->scorer;
    encoder_clear(a->encoder);
    if (a->always)
        TRY(encoder_push(a->encoder, a->before));
    TRY(encoder_text(a->encoder, q->context, (i64)strlen(q->context)));
    encoder_ids(a->encoder, &context);
    const bool begins = context == a->always;
    if (context == 0) {
        TRY(encoder_push(a->encoder, a->before));
        context = 1;
    }
    const char *text = q->ending[ending];
    text_clear(&a->spaced); /* an ending follows its context after a blank */
    text_printf(&a->spaced, "%s%s", begins || *text == ' ' ? "" : " ", text);
    TRY(encoder_text(a->encoder, a->spaced.data, a->spaced.length));
    const i32 *ids = encoder_ids(a->encoder, &n);
    *tokens = n - context;
    i64 skip = i64_max(0, n - s->T); /* the newest T tokens */
    *cut = *cut || skip > 0;
    if (*tokens < 1 || *tokens >= s->T || context - skip < 1)
        return err_set(ERR_LIMIT, "an ending of %lld tokens does not fit rows of %lld; give a "
                       "larger --seq", (long long)*tokens, (long long)s->T);
    memcpy(a->row, ids + skip, sizeof *ids * (size_t)(n - skip));
    return OK;
}

static int ask(struct asker *a, const struct question *q)
{
    struct scorer *s = a->scorer;
    double best = 0, best_mean = 0;
    i64 pick = 0, pick_mean = 0, tokens[CHOICES];
    bool cut = false;
    for (i64 i = 0; i < q->n; i += s->B) {
        i64 rows = i64_min(s->B, q->n - i);
        for (i64 b = 0; b < rows; b++) {
            TRY(fill_row(a, q, i + b, &tokens[i + b], &cut));
            i64 n;
            encoder_ids(a->encoder, &n);
            n = i64_min(n, s->T);
            scorer_row(s, b, a->row, n, n - tokens[i + b] - 1);
        }
        scorer_run(s);
        for (i64 b = 0; b < rows; b++) {
            double nll = scorer_sum(s, b), mean = nll / (double)tokens[i + b];
            if (!isfinite(nll))
                return err_set(ERR_MODEL, "the model's loss on an ending is %f", nll);
            bool first = i + b == 0;
            pick = first || nll < best ? i + b : pick;
            best = first || nll < best ? nll : best;
            pick_mean = first || mean < best_mean ? i + b : pick_mean;
            best_mean = first || mean < best_mean ? mean : best_mean;
        }
    }
    a->out->questions++;
    a->out->right += pick == q->label;
    a->out->right_per_token += pick_mean == q->label;
    a->out->cut += cut;
    return OK;
}

static int ask_line(struct asker *a, const char *text, i64 bytes, const char *path, i64 line)
{
    struct question q;
    json_t *o;
    if (bytes == 0)
        return OK;
    if (json_parse(text, bytes, path, &o) < 0)
        return err_set(ERR_FORMAT, "%s:%lld: not a JSON object", path, (long long)line);
    int rc = read_question(&q, o, path, line);
    if (rc >= 0 && (rc = ask(a, &q)) < 0)
        err_context(rc, "%s:%lld", path, (long long)line);
    json_decref(o);
    return rc;
}

int tasks_score_choices(struct scorer *s, struct encoder *encoder, i32 before, bool always,
                        const char *path, struct choice_score *out)
{
    struct buffer all = { 0 };
    i64 line = 1;
    *out = (struct choice_score){ 0 };
    struct asker a = { .scorer = s, .encoder = encoder, .before = before, .always = always,
                       .row = sys_alloc(s->T * (i64)sizeof(i32), 16), .out = out };
    int rc = a.row ? stream_read_all(path, &all)
                   : err_set(ERR_LIMIT, "no memory for a row of %lld tokens", (long long)s->T);
    const char *text = (const char *)all.data;
    for (i64 begin = 0; begin < all.bytes && rc >= 0; line++) {
        const char *newline = memchr(text + begin, '\n', (size_t)(all.bytes - begin));
        i64 length = newline ? newline - (text + begin) : all.bytes - begin;
        rc = ask_line(&a, text + begin, length, path, line);
        begin += length + 1;
    }
    sys_free(a.row);
    text_fini(&a.spaced);
    buffer_fini(&all);
    if (rc >= 0 && out->questions == 0)
        return err_set(ERR_FORMAT, "%s holds no questions", path);
    return rc;
}
