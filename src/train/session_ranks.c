/* What the ranks of one run share: the layout, the folder, the clock (see session.h). */
#include "base/log.h"
#include "base/sys.h"
#include "comm/world.h"
#include "train/session.h"
#include "train/train_layout.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LEAST_PATIENCE_S 5.0 /* of a call, until it is looked into */

/* The leader chooses, the others are told. */
static int choose_layout(struct session *s, struct layout *l)
{
    const struct comm *comm = s->request.comm;
    struct text why = { 0 };
    i64 here = comm && comm->node ? node_ranks(comm->node) : 1;
    struct layout_budget budget =
        layout_budget_usual(comm ? comm->size : 1, sys_memory_limit_bytes() / here);
    char text[4096] = ""; /* with the name of a schedule's file */
    int rc = OK;
    if (session_leads(s))
        rc = train_layout_choose(l, l, &s->spec, s->config, &budget, &why);
    if (session_leads(s) && rc >= 0) {
        snprintf(text, sizeof text, "%s", layout_text(l, &s->arena));
        log_line(LOG_INFO, "layout: %s", why.data);
    }
    text_fini(&why);
    TRY(rc);
    TRY(mesh_tell(&s->mesh, text, sizeof text));
    if (session_leads(s))
        return OK;
    *l = layout_single();
    return strcmp(text, "single") == 0 ? OK : layout_parse(l, text, "layout", &s->arena);
}

int session_open_mesh(struct session *s)
{
    struct comm *comm = s->request.comm;
    struct layout single = layout_single();
    const struct layout *l = s->request.layout ? s->request.layout : &single;
    i64 ranks = comm ? comm->size : 1;
    if (s->request.choose_layout) {
        s->chosen = *l;
        l = &s->chosen;
        TRY(choose_layout(s, &s->chosen));
    }
    s->layout_text = layout_text(l, &s->arena);
    int rc = train_layout_check(l, &s->spec, s->config, ranks);
    const char *hint = rc < 0 && ranks == 1 && layout_ranks(l) > 1 ? comm_launch_hint() : NULL;
    if (hint)
        err_set(rc, "%s", arena_printf(&s->arena, "%s (%s)", err_message(), hint));
    if (rc < 0 && comm)
        comm->together = true; /* all ranks have the same recipe and say the same */
    TRY(rc);
    if (ranks > 1)
        return mesh_new(&s->mesh, l, &s->spec, comm);
    s->mesh.layout.exact = l->exact;
    s->mesh.layout.exact_context = l->exact_context;
    return OK;
}

int session_check_exact(const struct session *s)
{
    const char *name = s->engine.backend.name;
    if (!s->mesh.layout.exact)
        return OK;
    if (strcmp(name, "reference") == 0)
        return err_set(ERR_CONFIG, "the reference backend sums in double and cannot be exact: "
                       "choose another --backend, or leave layout.exact off");
    return OK;
}

bool session_leads(const struct session *s)
{
    return mesh_leads(&s->mesh);
}

int session_threads(const struct session *s)
{
    i64 wanted = s->config->train.threads;
    return (int)(wanted > 0 ? wanted : i64_max(1, sys_cpu_count() / s->core_sharers));
}

int session_share_folder(struct session *s)
{
    TRY(mesh_tell(&s->mesh, s->folder.path, sizeof s->folder.path));
    TRY(mesh_tell(&s->mesh, &s->over, sizeof s->over));
    if (!session_leads(s))
        run_folder_follow(&s->folder);
    return OK;
}

/* Until a step was timed (session_set_patience), waiting is no news, but a rank that is lost is. */
static void be_patient_at_first(struct session *s)
{
    atomic_store(&s->mesh.comm->untimed, true);
    atomic_store(&s->mesh.comm->patience_ns, (u64)(1e9 * LEAST_PATIENCE_S));
}

static int open_driver(struct session *s)
{
    i64 most = 1;
    be_patient_at_first(s);
    for (int i = 0; i < s->engine.n_programs; i++)
        most = i64_max(most, driver_calls(s->engine.programs[i]));
    TRY(driver_new(&s->driver, &s->mesh, most, true));
    s->engine.lanes = driver_lanes(s->driver);
    return OK;
}

int session_open_lanes(struct session *s)
{
    if (s->mesh.world)
        TRY(open_driver(s));
    if (!s->config->offload.optimizer && !s->config->offload.activations)
        return OK;
    TRY(away_lane_new(&s->away, s->engine.lanes));
    s->engine.lanes = away_lane_driver(s->away);
    return OK;
}
struct layout_rows session_full_rows(const struct session *s)
{
    return layout_rows(&s->mesh.layout, s->config->train.batch,
                       (int)schedule_full_micro_batches(s->config), s->mesh.row_rank);
}

void session_spread(const struct session *s, struct loader_step *step)
{
    i64 sharers = s->mesh.layout.islands * s->mesh.layout.dp;
    i64 rows = step->B * step->micro_batches;
    step->cut = s->mesh.layout.cp;
    step->part = s->mesh.cp_rank;
    step->pairs = layout_pairs(&s->mesh.layout);
    if (sharers == 1)
        return;
    struct layout_rows ours = { .B = step->B, .micro_batches = step->micro_batches };
    layout_place_rows(&s->mesh.layout, &ours, s->mesh.row_rank);
    step->all_rows = rows * sharers;
    step->first_row = ours.first;
    step->stride = ours.stride;
}

int session_share_weight(struct session *s)
{
    double weight = loader_step_weight(s->loader);
    TRY(mesh_sum(&s->mesh, &weight, 1));
    loader_set_weight(s->loader, weight);
    return OK;
}

/* Rows of other stages' layers still hold what these told of the step before. */
static int share_load(struct session *s)
{
    const struct model *m = s->model;
    i64 columns = s->io.load->dim[1];
    for (i64 i = 0; i < s->io.load->dim[0]; i++)
        if (!model_has_layer(&m->spec, &m->part, m->spec.dense_layers + i))
            memset((double *)s->io.load->data + i * columns, 0, sizeof(double) * (size_t)columns);
    return mesh_sum_stages(&s->mesh, s->io.load->data, tensor_count(s->io.load));
}

int session_share_sums(struct session *s)
{
    const struct model *m = s->model;
    if (!model_has_layer(&m->spec, &m->part, m->spec.layers - 1))
        memset(s->io.sums->data, 0, (size_t)tensor_bytes(s->io.sums)); /* the last stage's are */
    TRY(mesh_sum_stages(&s->mesh, s->io.sums->data, tensor_count(s->io.sums)));
    return s->io.load ? share_load(s) : OK;
}

int session_all_islands(struct session *s, bool *holds)
{
    double not = !*holds;
    if (s->mesh.layout.islands > 1)
        TRY(mesh_max(&s->mesh, &not, 1));
    *holds = not == 0;
    return OK;
}

bool session_in_common(const struct session *s)
{
    i64 every = s->config->outer.every;
    return every == 0 || s->state.step % every == 0;
}

static int by_seconds(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* A hang is named within five times the 99th percentile of the last steps, 3.5 seconds of which are
 * for asking ranks of other nodes; but patience is never less than LEAST_PATIENCE_S. */
void session_set_patience(struct session *s, double step_seconds)
{
    double sorted[SESSION_STEPS];
    if (!s->mesh.world)
        return;
    s->step_seconds[s->steps_timed++ % SESSION_STEPS] = step_seconds;
    i64 n = i64_min(SESSION_STEPS, s->steps_timed);
    memcpy(sorted, s->step_seconds, sizeof sorted);
    qsort(sorted, (size_t)n, sizeof *sorted, by_seconds);
    double seconds = 5 * sorted[(99 * n - 1) / 100] - 3.5;
    atomic_store(&s->mesh.comm->patience_ns,
                 (u64)(1e9 * (seconds > LEAST_PATIENCE_S ? seconds : LEAST_PATIENCE_S)));
    atomic_store(&s->mesh.comm->untimed, false);
}

int session_agree(struct session *s)
{
    double values[] = {
        s->state.elapsed + 1e-9 * (double)(sys_now_ns() - s->begin_ns),
        session_asked_to_stop(s), s->step_s,
    };
    TRY(mesh_max(&s->mesh, values, COUNT_OF(values)));
    s->clock = values[0];
    s->stopping = values[1] != 0;
    s->step_s = values[2];
    if (s->mesh.world && s->stopping)
        s->mesh.comm->together = true;
    return OK;
}
