/* The run's energy ledger (machine/energy.h): sampled when a step is logged. */
#include "base/log.h"
#include "base/sys.h"
#include "machine/units.h"
#include "train/session.h"

#include <stdio.h>
#include <string.h>

/* Lost with the machine: what was used since the ledger was last written. */
static const double write_every = 10;

void session_open_energy(struct session *s)
{
    const struct train_config *c = s->config;
    const struct energy_places at = { .powercap = c->energy.powercap, .cpuinfo = "/proc/cpuinfo",
                                      .nvml = c->energy.gpu ? "libnvidia-ml.so.1" : NULL };
    energy_meter_open(&s->energy.meter, &at);
}

static void ledger_path(const struct session *s, char *path, size_t size)
{
    snprintf(path, size, "%s/energy.json", s->folder.path);
}

/* Steps that were lost or done again took energy too, so the folder's ledger goes on, not one
 * that a checkpoint would have. */
static void read_ledger(struct session *s)
{
    struct energy_ledger *l = &s->energy.ledger;
    char path[2200];
    ledger_path(s, path, sizeof path);
    bool none = s->state.step == 0 && !sys_exists(path);
    if (s->request.resume && !none && energy_ledger_read(l, path) < 0)
        log_line(LOG_WARN, "the energy of earlier parts of this run is not known: %s",
                 err_message());
}

static int choose_factor(struct session *s)
{
    const struct train_config *c = s->config;
    struct energy_ledger *l = &s->energy.ledger;
    const char *where = recipe_where(s->request.recipe, "energy.location");
    int rc = carbon_choose(c->energy.location, c->energy.carbon_g_per_kwh, &l->carbon);
    l->pue = c->energy.pue;
    return rc < 0 && where ? err_context(rc, "%s", where) : rc;
}

int session_check_energy(struct session *s)
{
    return choose_factor(s);
}

static void describe(struct session *s)
{
    const struct energy_meter *m = &s->energy.meter;
    struct energy_ledger *l = &s->energy.ledger;
    snprintf(l->processor, sizeof l->processor, "%s", m->processor.name);
    snprintf(l->uncounted, sizeof l->uncounted, "%s", m->powercap.n > 0 ? "" : m->powercap.why);
    l->watts_per_cpu = m->processor.watts;
    l->ranks = s->energy.ranks;
    l->nodes = 0;
    for (i64 r = 0; r < l->ranks; r++)
        l->nodes += s->energy.before[r].node == r;
    l->cpus = (i64)energy_node_cpus(s->energy.before, l->ranks, s->energy.before[0].node);
    if (s->config->energy.gpu && m->nvml.n == 0)
        log_line(LOG_WARN, "energy.gpu: no GPU of this node counts its energy: %s", m->nvml.why);
}

static int gather(struct session *s, struct energy_sample *all)
{
    struct energy_sample own;
    energy_meter_sample(&s->energy.meter, &own);
    own.flops = s->energy.flops;
    own.bytes = s->energy.bytes;
    return mesh_gather(&s->mesh, &own, all, (i64)sizeof own);
}

/* Counts from where meters were opened: preparing is a part of the run. */
static void from_the_beginning(struct energy_sample *before, i64 ranks)
{
    for (i64 r = 0; r < ranks; r++) {
        struct energy_sample *b = &before[r];
        b->seconds = b->cpu_seconds = b->flops = b->bytes = 0;
        b->counted_j = b->unsure_j = b->gpu_j = 0;
    }
}

static void write_ledger(struct session *s)
{
    struct energy_ledger *l = &s->energy.ledger;
    struct json *j = &s->energy.text; /* kept: the loop allocates nothing */
    json_writer_clear(j);
    j->indent = true;
    l->written = sys_wall_seconds();
    energy_ledger_put(l, j);
    text_add(&j->out, "\n");
    if (run_folder_write(&s->folder, "energy.json", j->out.data, j->out.length) < 0)
        log_line(LOG_WARN, "the energy ledger: %s", err_message());
}

int session_sample_energy(struct session *s)
{
    struct energy_ledger *l = &s->energy.ledger;
    TRY(gather(s, s->energy.now));
    if (!session_leads(s))
        return OK;
    energy_add(&l->total, s->energy.before, s->energy.now, s->energy.ranks);
    memcpy(s->energy.before, s->energy.now, sizeof *s->energy.now * (size_t)s->energy.ranks);
    l->tokens = s->state.tokens;
    if (sys_wall_seconds() - l->written >= write_every)
        write_ledger(s);
    return OK;
}

int session_begin_energy(struct session *s)
{
    const struct comm *comm = s->request.comm;
    struct energy_ledger *l = &s->energy.ledger;
    i64 rank = comm ? comm->rank : 0, ranks = comm ? comm->size : 1;
    s->energy.ranks = ranks;
    s->energy.before = ARENA_ARRAY(&s->arena, struct energy_sample, ranks);
    s->energy.now = ARENA_ARRAY(&s->arena, struct energy_sample, ranks);
    energy_meter_sit(&s->energy.meter, comm && comm->node ? node_rank_at(comm->node, 0) : 0, rank);
    if (session_leads(s))
        read_ledger(s);
    TRY(choose_factor(s));
    TRY(gather(s, s->energy.before));
    from_the_beginning(s->energy.before, ranks);
    if (l->began == 0)
        l->began = sys_wall_seconds();
    describe(s);
    l->open = true;
    energy_ledger_put(l, &s->energy.text); /* takes the memory that it needs */
    return session_sample_energy(s); /* a run that dies in its first step has a ledger, too */
}

void session_put_energy(const struct session *s, struct json *j)
{
    const struct energy_total *t = &s->energy.ledger.total;
    char method[80];
    energy_method_text(t->methods, method, sizeof method);
    json_key(j, "energy");
    json_begin_object(j);
    json_put_double(j, "J", t->j);
    json_put_double(j, "lo", t->lo);
    json_put_double(j, "hi", t->hi);
    json_put_str(j, "method", method);
    json_put_str(j, "scope", energy_scope(t->methods));
    json_end(j);
}

static void say(const struct session *s)
{
    const struct energy_ledger *l = &s->energy.ledger;
    struct energy_gas gas = energy_gas(l);
    char j[3][64], g[64], method[80];
    unit_text(l->total.j, false, j[0], sizeof j[0]);
    unit_text(l->total.lo, false, j[1], sizeof j[1]);
    unit_text(l->total.hi, false, j[2], sizeof j[2]);
    unit_text(gas.g, true, g, sizeof g);
    energy_method_text(l->total.methods, method, sizeof method);
    log_line(LOG_INFO, "energy: %s, 90 %% between %s and %s (%s, %s), about %s%s", j[0], j[1],
             j[2], method, energy_scope(l->total.methods), g,
             l->carbon.assumed ? " at the world's mean: energy.location is not set" : "");
}

int session_end_energy(struct session *s)
{
    TRY(session_sample_energy(s));
    if (!session_leads(s))
        return OK;
    s->energy.ledger.open = false;
    write_ledger(s);
    say(s);
    return OK;
}
