/* train/tasks.h - what a trained model is worth on text and on multiple-choice questions. */
#ifndef HEADWAY_TASKS_H
#define HEADWAY_TASKS_H

#include "data/encoder.h"
#include "train/score.h"

struct text_score {
    double nll;       /* nats, summed */
    i64 tokens, bytes;
};

/* Scores a text given as ids, every token once: rows of T tokens of which the last
 * `stride` (at most T - 1) are asked and the others are their past. A smaller stride gives
 * each token more past and costs more rows. The first token's predecessor is `before` (the
 * token that begins documents). */
int tasks_score_text(struct scorer *s, const i32 *ids, i64 n, i32 before, i64 stride,
                     struct text_score *sum);

struct choice_score {
    i64 questions, right;      /* by the sum over the ending */
    i64 right_per_token;       /* by the mean over its tokens */
    i64 cut;                   /* questions whose context was shortened to fit */
};

/* One question a line: {"ctx": text, "endings": [text ...], "label": index}, as HellaSwag's
 * files have it; an index may be text, and A stands for 0. "question"/"choices"/"answer" are
 * understood too. `before` (the token that begins documents) stands before every context if
 * `always`, else only where a context has no text. */
int tasks_score_choices(struct scorer *s, struct encoder *encoder, i32 before, bool always,
                        const char *path, struct choice_score *out);

#endif
