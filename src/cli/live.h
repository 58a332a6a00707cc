/* cli/live.h - a run on one screen while it trains: a few lines that are rewritten in place.
 *
 *     train [==========----------]  57 %  step 69/120  0:05 left
 *     loss     5.9530  the run's curve  held-out 6.2945
 *     speed    14390 tokens/s  its curve  0.44 mJ/token
 *     peak     55 % [###############kkkkkkkkwwwd]  # model k kernels w waiting d data h host
 *     finding  too few micro-batches (B5): gives back 93 ms a step, 21 %
 *
 * Lines of the log pass above. Nothing of the terminal is switched, so there is nothing to restore
 * however the program ends. Letters, not colours, say what a part of a bar is. Curves are of
 * the whole run, in block characters where the locale has them. */
#ifndef HEADWAY_LIVE_H
#define HEADWAY_LIVE_H

#include "base/text.h"
#include "cli/progress.h"
#include "report/series.h"
#include "train/session.h"

/* Where a step's time goes, as shares of it, and what a diagnosis found; all 0 and "":
 * not known. */
struct live_diagnosis {
    double compute, wait, data, host; /* the rest is not known */
    char finding[240];
};

struct live {
    struct progress *progress; /* when to draw, and how long still */
    struct series loss, speed;
    struct train_status last;
    struct live_diagnosis diagnosis;
    bool utf8;
};

/* Whether this terminal has room: 60 columns and 12 rows. */
bool live_fits(const struct terminal *t);

void live_begin(struct live *l, struct progress *p);
void live_fini(struct live *l);

/* Draws when it is due; where the terminal has become too small, `plain` stands for all of it. */
void live_update(struct live *l, const struct train_status *s, const char *plain);
/* The same, whenever: the lines, none wider than width, between them "\n". */
void live_format(const struct live *l, int width, double elapsed_s, struct text *out);

/* As many characters as columns: the newest points last, each row's least at the bottom. */
void live_curve(const struct series *s, int columns, bool utf8, struct text *out);

#endif
