#include "train/checkpoint_cover.h"

#include "base/err.h"

#include <stdlib.h>
#include <string.h>

/* Boxes are swept along one dimension: between two neighbouring cuts the same boxes are
 * there, and these must cover the remaining dimensions. */
struct sweep {
    const char *prefix, *name;
    const struct checkpoint_box *first;
    i64 begin[CHECKPOINT_RANK], end[CHECKPOINT_RANK]; /* the cut at hand, per dimension */
    i64 *cut[CHECKPOINT_RANK];                        /* scratch, for each dimension */
    const struct checkpoint_box **sorted[CHECKPOINT_RANK], **here[CHECKPOINT_RANK];
};

static int by_value(const void *a, const void *b)
{
    i64 x = *(const i64 *)a, y = *(const i64 *)b;
    return (x > y) - (x < y);
}

static bool is_empty(const struct checkpoint_box *b)
{
    for (int d = 0; d < b->rank; d++)
        if (b->dim[d] == 0)
            return true;
    return false;
}

/* "rows 3 to 7, columns 0 to 63": the cut at hand, up to dimension d, then all. */
static int tell(const struct sweep *s, int d, bool twice)
{
    struct text where = { 0 };
    for (int k = 0; k < s->first->rank; k++) {
        i64 begin = k <= d ? s->begin[k] : 0, end = k <= d ? s->end[k] : s->first->whole[k];
        text_printf(&where, "%s%lld to %lld", k ? ", " : "", (long long)begin,
                    (long long)end - 1);
    }
    int rc = err_set(ERR_FORMAT, "tensor %s/%s: its elements [%s] are in %s", s->prefix, s->name,
                     where.data ? where.data : "", twice ? "more than one file's box" : "no file");
    text_fini(&where);
    return rc;
}

/* Ascending cuts, each once, of dimension d of the boxes; returns how many. */
static i64 find_cuts(const struct sweep *s, const struct checkpoint_box *const *box, i64 n, int d)
{
    i64 *cut = s->cut[d], cuts = 0, kept = 0;
    cut[cuts++] = 0;
    cut[cuts++] = s->first->whole[d];
    for (i64 i = 0; i < n; i++) {
        cut[cuts++] = box[i]->at[d];
        cut[cuts++] = box[i]->at[d] + box[i]->dim[d];
    }
    qsort(cut, (size_t)cuts, sizeof *cut, by_value);
    for (i64 i = 0; i < cuts; i++)
        if (kept == 0 || cut[i] != cut[kept - 1])
            cut[kept++] = cut[i];
    return kept;
}

/* Boxes by where they begin in dimension d; a merge of what is there, so n log n. */
static void sort_boxes(const struct checkpoint_box **box, i64 n, int d,
                       const struct checkpoint_box **scratch)
{
    if (n < 2)
        return;
    i64 half = n / 2, a = 0, b = half;
    sort_boxes(box, half, d, scratch);
    sort_boxes(box + half, n - half, d, scratch);
    for (i64 i = 0; i < n; i++) {
        bool left = b == n || (a < half && box[a]->at[d] <= box[b]->at[d]);
        scratch[i] = box[left ? a++ : b++];
    }
    memcpy(box, scratch, sizeof *box * (size_t)n);
}

static int sweep(struct sweep *s, const struct checkpoint_box *const *box, i64 n, int d)
{
    const struct checkpoint_box **sorted = s->sorted[d], **here = s->here[d];
    i64 cuts = find_cuts(s, box, n, d), next = 0, count = 0;
    memcpy(sorted, box, sizeof *box * (size_t)n);
    sort_boxes(sorted, n, d, here);
    for (i64 i = 0; i + 1 < cuts; i++) {
        i64 stay = 0;
        s->begin[d] = s->cut[d][i];
        s->end[d] = s->cut[d][i + 1];
        for (i64 k = 0; k < count; k++)
            if (here[k]->at[d] + here[k]->dim[d] > s->begin[d])
                here[stay++] = here[k];
        for (count = stay; next < n && sorted[next]->at[d] == s->begin[d];)
            here[count++] = sorted[next++];
        if (count == 0 || (count > 1 && d == s->first->rank - 1))
            return tell(s, d, count > 1);
        if (d < s->first->rank - 1)
            TRY(sweep(s, here, count, d + 1));
    }
    return OK;
}

static bool same_tensor(const struct checkpoint_box *a, const struct checkpoint_box *b)
{
    return a->rank == b->rank && a->dtype == b->dtype &&
           memcmp(a->whole, b->whole, sizeof *a->whole * (size_t)a->rank) == 0;
}

int checkpoint_check_cover(const struct checkpoint_box *const *boxes, i64 n, const char *prefix)
{
    struct sweep s = { .prefix = prefix, .name = boxes[0]->name, .first = boxes[0] };
    struct arena a;
    i64 solid = 0, elements = 1;
    for (int d = 0; d < s.first->rank; d++)
        elements *= s.first->whole[d] > 0;
    arena_init(&a);
    const struct checkpoint_box **box = ARENA_ARRAY(&a, const struct checkpoint_box *, n);
    int rc = OK;
    for (i64 i = 0; i < n && rc == OK; i++) {
        if (!same_tensor(boxes[i], s.first))
            rc = err_set(ERR_FORMAT, "tensor %s/%s: files differ in its type or shape", prefix,
                         s.name);
        if (!is_empty(boxes[i]))
            box[solid++] = boxes[i];
    }
    for (int d = 0; d < s.first->rank; d++) {
        s.cut[d] = ARENA_ARRAY(&a, i64, 2 * n + 2);
        s.sorted[d] = ARENA_ARRAY(&a, const struct checkpoint_box *, n);
        s.here[d] = ARENA_ARRAY(&a, const struct checkpoint_box *, n);
    }
    if (rc == OK && s.first->rank == 0 && n > 1)
        rc = tell(&s, 0, true);
    else if (rc == OK && s.first->rank > 0 && elements > 0)
        rc = sweep(&s, box, solid, 0);
    arena_fini(&a);
    return rc;
}

/* --- all tensors -------------------------------------------------------------------- */

struct place {
    const struct checkpoint_box *box;
    const char *prefix;
};

static int by_tensor(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    int order = strcmp(x->prefix, y->prefix);
    return order ? order : strcmp(x->box->name, y->box->name);
}

int checkpoint_check_covers(const struct checkpoint_shard *shards, i64 n)
{
    struct arena a;
    i64 boxes = 0, total = 0;
    int rc = OK;
    arena_init(&a);
    for (i64 i = 0; i < n; i++)
        total += shards[i].boxes;
    struct place *place = ARENA_ARRAY(&a, struct place, total);
    const struct checkpoint_box **run = ARENA_ARRAY(&a, const struct checkpoint_box *, total);
    for (i64 i = 0; i < n; i++)
        for (i64 k = 0; k < shards[i].boxes; k++)
            place[boxes++] = (struct place){ &shards[i].box[k], shards[i].prefix };
    if (total > 0)
        qsort(place, (size_t)total, sizeof *place, by_tensor);
    for (i64 first = 0, end; first < total && rc == OK; first = end) {
        for (end = first; end < total && by_tensor(&place[first], &place[end]) == 0; end++)
            run[end - first] = place[end].box;
        rc = checkpoint_check_cover(run, end - first, place[first].prefix);
    }
    arena_fini(&a);
    return rc;
}
