#include "plan/net_facts.h"

#include "base/csv.h"
#include "base/err.h"
#include "plan/plan_files.h"
#include "plan/quantity.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double large_bytes = 0x1p33;

struct columns { i64 system, ranks, op, payload, metric, value; };

/* "all_gather", "all_reduce_3_to_16_nodes_low" */
static bool read_op(const char *text, enum net_op *op)
{
    static const struct { const char *begins; enum net_op op; } names[] = {
        { "all_reduce", NET_ALLREDUCE }, { "all_gather", NET_ALLGATHER },
        { "reduce_scatter", NET_REDUCE_SCATTER }, { "all_to_all", NET_ALLTOALL },
        { "sendrecv", NET_SENDRECV },
    };
    for (i64 i = 0; i < COUNT_OF(names); i++)
        if (strncmp(text, names[i].begins, strlen(names[i].begins)) == 0) {
            *op = names[i].op;
            return true;
        }
    return false;
}

static double read_bytes(const char *text)
{
    double bytes;
    if (strcmp(text, "large") == 0)
        return large_bytes;
    return quantity_parse(text, QUANTITY_BYTES, "payload", &bytes, NULL) == OK ? bytes : 0;
}

static void predict(const struct plan_machine *m, struct net_fact *f)
{
    struct net_group g = { f->ranks, 1, 1 };
    if (f->op == NET_SENDRECV) /* between nodes: the last of one to the first of another */
        g = (struct net_group){ 2, f->ranks / 2, 1 };
    struct plan_band t = net_seconds(m, f->op, g, f->bytes, &f->how);
    double bus = net_bus_bytes(f->op, g.ranks, f->bytes);
    f->predicted = (struct plan_band){ bus / t.hi, bus / t.mid, bus / t.lo };
}

/* The row whose mean an end of a band belongs to. */
static struct net_fact *same(struct net_fact *facts, i64 n, const struct net_fact *f)
{
    for (i64 i = 0; i < n; i++)
        if (facts[i].op == f->op && facts[i].ranks == f->ranks && facts[i].bytes == f->bytes)
            return &facts[i];
    return NULL;
}

static void take_row(const struct csv *t, const struct columns *c, i64 row, struct net_fact *facts,
                     i64 *n)
{
    struct net_fact f = { .ranks = atoll(csv_cell(t, row, c->ranks)),
                          .bytes = read_bytes(csv_cell(t, row, c->payload)) };
    const char *metric = csv_cell(t, row, c->metric);
    double value = 1e9 * strtod(csv_cell(t, row, c->value), NULL);
    if (f.ranks == 0) /* "A100-class, 4 nodes" */
        f.ranks = strstr(csv_cell(t, row, c->system), "4 nodes") ? 32 : 0;
    if (strncmp(metric, "busbw_gbs", 9) != 0 || f.ranks < 2 || f.bytes <= 0 || value <= 0 ||
        !read_op(csv_cell(t, row, c->op), &f.op))
        return;
    struct net_fact *mean = same(facts, *n, &f);
    if (strcmp(metric, "busbw_gbs_p_lo") == 0 || strcmp(metric, "busbw_gbs_p_hi") == 0) {
        if (mean && metric[strlen(metric) - 2] == 'l')
            mean->least = value;
        else if (mean)
            mean->most = value;
        return;
    }
    f.measured = value;
    facts[(*n)++] = f;
}

int net_facts_of(const struct plan_machine *m, struct net_fact **facts, i64 *n, struct arena *a)
{
    char path[4096];
    struct csv t;
    if (!m->measured)
        return err_set(ERR_CONFIG, "%s names no measured system, so there is nothing to compare "
                       "with", m->name);
    TRY(plan_file_find(path, sizeof path, "facts", "network_calibration.csv"));
    TRY(csv_load(path, a, &t));
    struct columns c = { csv_column(&t, "system"), csv_column(&t, "n_gpus"), csv_column(&t, "op"),
                         csv_column(&t, "payload"), csv_column(&t, "metric"),
                         csv_column(&t, "value") };
    if (c.system < 0 || c.ranks < 0 || c.op < 0 || c.payload < 0 || c.metric < 0 || c.value < 0)
        return err_set(ERR_FORMAT, "%s lacks one of the columns system, n_gpus, op, payload, "
                       "metric, value", path);
    *facts = ARENA_ARRAY(a, struct net_fact, t.n_rows);
    *n = 0;
    for (i64 row = 0; row < t.n_rows; row++)
        if (strcmp(csv_cell(&t, row, c.system), m->measured) == 0)
            take_row(&t, &c, row, *facts, n);
    for (i64 i = 0; i < *n; i++)
        predict(m, &(*facts)[i]);
    return OK;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

struct net_errors net_facts_errors(const struct net_fact *facts, i64 n, struct arena *a)
{
    struct net_errors e = { .rows = n };
    double *all = ARENA_ARRAY(a, double, n);
    for (i64 i = 0; i < n; i++) {
        const struct net_fact *f = &facts[i];
        all[i] = fabs(f->predicted.mid / f->measured - 1);
        e.mean += all[i] / (double)n;
        e.bias += log(f->predicted.mid / f->measured) / (double)n;
        e.inside += f->measured >= f->predicted.lo && f->measured <= f->predicted.hi;
    }
    qsort(all, (size_t)n, sizeof *all, by_value);
    if (n > 0) {
        e.median = all[(n - 1) / 2];
        e.worst = all[n - 1];
    }
    return e;
}
