/* Before the first step: do all ranks run the same thing, on cores of their own, and is each
 * of them, and every link, as fast as the others (see session.h)? */
#include "base/hash.h"
#include "base/log.h"
#include "base/sys.h"
#include "base/text.h"
#include "machine/place.h"
#include "parallel/agree.h"
#include "parallel/preflight.h"
#include "train/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_FINDINGS = 4 };

/* What decides which calls a rank makes, beyond the recipe. */
static void add_request(const struct train_request *r, struct facts *f)
{
    const struct { const char *name; bool value; } flags[] = {
        { "--resume", r->resume }, { "--dry-run", r->dry_run },
        { "measuring of steps", r->measure }, { "--compute none", r->sleep != NULL },
        { "--layout auto", r->choose_layout },
    };
    for (i64 i = 0; i < COUNT_OF(flags); i++)
        facts_add(f, flags[i].name, flags[i].value ? "yes" : "no");
    facts_add(f, "--layout", r->layout ? layout_text(r->layout, f->arena) : "one rank");
}

/* The world, known before anything that a recipe could change. */
int session_meet(struct session *s)
{
    const char *backend = s->request.backend;
    bool best = !backend || strcmp(backend, "auto") == 0;
    struct facts f;
    TRY(mesh_meet(&s->mesh, s->request.comm));
    if (!s->mesh.world)
        return OK;
    facts_init(&f, &s->arena);
    facts_add_program(&f);
    facts_add(&f, "backend", best ? backend_best() : backend);
    TRY(mesh_same(&s->mesh, &f, "the program"));
    facts_init(&f, &s->arena);
    add_request(&s->request, &f);
    TRY(mesh_same(&s->mesh, &f, "the command line"));
    facts_init(&f, &s->arena);
    facts_add_recipe(&f, s->request.recipe);
    return mesh_same(&s->mesh, &f, "the recipe");
}

int session_check_data(struct session *s)
{
    struct facts f;
    char hex[17];
    if (!s->mesh.world || !s->loader) /* a dry run before the data are prepared has none */
        return OK;
    facts_init(&f, &s->arena);
    facts_add(&f, "tokenizer", s->tokenizer ? tokenizer_hash(s->tokenizer) : "none");
    for (i64 i = 0; i < loader_sources(s->loader); i++) {
        session_data_identity(loader_dataset(s->loader, i), hex);
        facts_add(&f, loader_source_name(s->loader, i), hex);
    }
    return mesh_same(&s->mesh, &f, "the data (by checksum)");
}

/* --- cores -------------------------------------------------------------------------- */

/* Ranks that a launcher put on cores of their own have other sets; else they share what there
 * is, rank by rank. */
int session_place(struct session *s)
{
    const struct comm *comm = s->request.comm;
    s->core_sharers = 1;
    if (!s->mesh.world || !comm->node || node_ranks(comm->node) < 2)
        return OK;
    int seats = node_ranks(comm->node);
    u64 own = machine_place_now();
    u64 *all = ARENA_ARRAY(&s->arena, u64, comm->size);
    TRY(mesh_gather(&s->mesh, &own, all, (i64)sizeof own));
    for (int seat = 0; seat < seats; seat++)
        if (all[node_rank_at(comm->node, seat)] != own)
            return OK;
    int seat = node_seat_of(comm->node, comm->rank), cores = sys_cpu_count();
    i64 threads = s->config->train.threads;
    bool placed = machine_place(seat, seats) > 0;
    s->core_sharers = placed ? 1 : seats;
    if (seat > 0 || s->request.sleep)
        return OK; /* told once, and of no matter where nothing is computed */
    if (!placed && seats > cores)
        log_line(LOG_WARN, "%d ranks share %d cores: each step waits for ranks to take turns",
                 seats, cores);
    else if (threads > sys_cpu_count())
        log_line(LOG_WARN, "each rank has %d of the %d cores, but train.threads is %lld: the "
                 "threads take turns", sys_cpu_count(), cores, (long long)threads);
    return OK;
}

/* --- speed -------------------------------------------------------------------------- */

static void tell_finding(const struct preflight *p, const struct preflight_finding *f)
{
    const struct preflight_rank *k = &p->ranks[f->rank];
    if (f->peer < 0)
        log_line(LOG_WARN, "preflight: rank %lld multiplies matrices at %.1f GFLOP/s, %.1f times "
                 "slower than the median rank; every step will wait for it", (long long)f->rank,
                 1e-9 * k->flops, f->times);
    else if (f->latency)
        log_line(LOG_WARN, "preflight: a small message between ranks %lld and %lld takes %.1f us, "
                 "%.1f times the median", (long long)f->rank, (long long)f->peer,
                 1e6 * k->latency_s, f->times);
    else
        log_line(LOG_WARN, "preflight: ranks %lld and %lld exchange %.3f GB/s, %.1f times slower "
                 "than the median", (long long)f->rank, (long long)f->peer,
                 1e-9 * k->bytes_per_s, f->times);
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Medians over ranks, which later exchanges are compared with (diagnose). */
static void put_preflight(struct run_folder *f, const struct preflight *p, struct arena *a)
{
    double *x[3];
    for (int k = 0; k < 3; k++)
        x[k] = ARENA_ARRAY(a, double, p->n);
    for (i64 r = 0; r < p->n; r++) {
        x[0][r] = p->ranks[r].flops;
        x[1][r] = p->ranks[r].latency_s;
        x[2][r] = p->ranks[r].bytes_per_s;
    }
    for (int k = 0; k < 3; k++)
        qsort(x[k], (size_t)p->n, sizeof *x[k], ascending);
    double latency, rate;
    preflight_sums(p, &latency, &rate);
    struct json *j = run_folder_begin_line(f, "preflight");
    json_put_double(j, "flops", x[0][p->n / 2]);
    json_put_double(j, "latency_s", x[1][p->n / 2]);
    json_put_double(j, "bytes_per_s", x[2][p->n / 2]);
    json_put_double(j, "sum_latency_s", latency);
    json_put_double(j, "sum_bytes_per_s", rate);
    struct preflight_link slowest;
    if (preflight_slowest(p, &slowest))
        preflight_put_link(&slowest, j);
    struct preflight_domains domains;
    if (preflight_find_domains(p->pairs, p->n, &domains)) {
        preflight_put_domains(&domains, j);
        log_line(LOG_INFO, "preflight: the ranks are in %lld domains: %.2f GB/s pass within them, "
                 "%.2f between them", (long long)domains.n, 1e-9 * domains.near_bytes_per_s,
                 1e-9 * domains.far_bytes_per_s);
    }
    run_folder_end_line(f);
}

static void tell(struct session *s, const struct preflight *p)
{
    struct preflight_finding found[MOST_FINDINGS];
    const struct preflight_rank *least = &p->ranks[0], *far = least, *thin = least;
    bool crowded = s->core_sharers > sys_cpu_count();
    for (i64 r = 1; r < p->n; r++) {
        const struct preflight_rank *k = &p->ranks[r];
        least = k->flops < least->flops ? k : least;
        far = k->latency_s > far->latency_s ? k : far;
        thin = k->bytes_per_s < thin->bytes_per_s ? k : thin;
    }
    char products[96] = "";
    if (!s->request.sleep)
        snprintf(products, sizeof products, " products at %.1f GFLOP/s or more (rank %lld);",
                 1e-9 * least->flops, (long long)(least - p->ranks));
    log_line(LOG_INFO, "preflight: %lld ranks;%s messages %.1f us at most (ranks %lld and "
             "%lld), %.2f GB/s at least (%lld and %lld)", (long long)p->n, products,
             1e6 * far->latency_s, (long long)(far - p->ranks), (long long)far->latency_peer,
             1e-9 * thin->bytes_per_s, (long long)(thin - p->ranks), (long long)thin->bytes_peer);
    i64 n = preflight_judge(p, crowded, found, MOST_FINDINGS);
    for (i64 i = 0; i < n; i++)
        tell_finding(p, &found[i]);
    put_preflight(&s->folder, p, &s->arena);
}

int session_preflight(struct session *s)
{
    struct preflight p;
    struct arena a;
    if (!s->mesh.world || !s->config->run.preflight)
        return OK;
    arena_init(&a);
    int rc = preflight_run(&p, &s->mesh, &s->engine, &s->inject, &a);
    if (rc >= 0 && session_leads(s))
        tell(s, &p);
    arena_fini(&a);
    return rc;
}
