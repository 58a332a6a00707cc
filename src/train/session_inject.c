/* What run.inject asks for, as far as it concerns the loop (see base/inject.h): what is disturbed
 * between tasks, and what has to be there before the first of them. */
#include "base/err.h"
#include "base/log.h"
#include "base/sys.h"
#include "base/sys_share.h"
#include "base/text.h"
#include "ops/ops.h"
#include "train/inject_settings.h"
#include "train/session.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

int session_open_inject(struct session *s)
{
    const struct option_strings *texts = &s->config->run.inject;
    TRY(inject_read(&s->inject, texts->at, texts->count,
                    texts->count ? recipe_where(s->request.recipe, "run.inject") : NULL));
    TRY(inject_check_ranks(&s->inject, s->mesh.world ? s->mesh.world->n : 1));
    inject_begin(&s->inject, s->mesh.rank, (u64)s->config->train.seed);
    if (s->inject.kinds == 0)
        return OK;
    TRY(inject_check_ops(&s->inject));
    s->engine.inject = &s->inject;
    if (inject_has(&s->inject, INJECT_SERIAL))
        TRY(pool_new(&s->engine.one_thread, 1, false));
    return OK;
}

/* A pipeline's other stages have other ops: each is looked at without being it. */
int session_check_inject(struct session *s)
{
    const struct layout *l = &s->mesh.layout;
    int rc = OK;
    if (!inject_has_ops(&s->inject))
        return OK;
    const struct rank_view **views = ARENA_ARRAY(&s->arena, const struct rank_view *, l->pp);
    for (i64 p = 0; p < l->pp && rc >= 0; p++) {
        struct rank_view *v = ARENA_NEW(&s->arena, struct rank_view);
        rc = rank_view_new(v, l, &s->spec, s->config, p * layout_stride(l, AXIS_PP), &s->arena);
        views[p] = v;
    }
    if (rc >= 0)
        rc = inject_check_program(&s->inject, l, views);
    if (rc < 0 && s->mesh.world) /* all ranks looked alike */
        s->mesh.comm->together = true;
    return rc;
}

/* --- before the first step ---------------------------------------------------------- */

/* They end with this process, or are ended by it. */
static int start_neighbours(struct session *s, i64 n)
{
    for (; s->n_neighbours < n; s->n_neighbours++) {
        int pid = sys_fork();
        if (pid < 0)
            return err_set(ERR_SYS, "no process beside this one: %s", strerror(errno));
        s->neighbours[s->n_neighbours] = pid;
        if (pid > 0)
            continue;
        sys_die_with_parent();
        for (;;)
            sys_pause();
    }
    return OK;
}

/* In units of sigmoid scores, which lie within 0.1 of each other at the start. */
static const double bias_unit = 0.1;

static int skew_router(struct session *s, double exponent)
{
    const struct model *m = s->model;
    i64 found = 0;
    for (i64 i = 0; i < m->n_params; i++) {
        const struct param *p = &m->params[i];
        if (p->desc.kind != PARAM_BALANCE)
            continue;
        float *bias = p->master->data;
        for (i64 e = 0; e < tensor_count(p->master); e++)
            bias[e] = (float)(-bias_unit * exponent * log((double)(e + 1)));
        found++;
    }
    if (found == 0 && s->mesh.layout.pp == 1)
        return err_set(ERR_CONFIG, "router_zipf needs a model with experts and router.bias");
    return OK;
}

int session_begin_inject(struct session *s)
{
    const struct inject_fault *f;
    if ((f = inject_at(&s->inject, INJECT_ROUTER_ZIPF, 0)))
        TRY(skew_router(s, f->value));
    if ((f = inject_at(&s->inject, INJECT_NEIGHBOUR, 0)) && !s->request.dry_run)
        TRY(start_neighbours(s, (i64)f->value));
    return OK;
}

void session_end_inject(struct session *s)
{
    for (int i = 0; i < s->n_neighbours; i++)
        sys_kill(s->neighbours[i]);
    s->n_neighbours = 0;
}

/* --- between tasks ------------------------------------------------------------------ */

enum { PAGE = 4096 };

/* What a program does that takes its buffers anew in every step. */
static int churn(i64 bytes)
{
    char *memory = sys_alloc(bytes, 64);
    if (!memory)
        return err_set(ERR_LIMIT, "no memory for malloc_churn of %lld MiB",
                       (long long)(bytes >> 20));
    for (volatile char *at = memory; at < memory + bytes; at += PAGE)
        *at = 1;
    sys_free(memory);
    return OK;
}

/* Probes that came since the step before. All ranks must begin with the same step: what would have
 * begun by now comes too late. */
static void take_probes(struct session *s)
{
    char path[sizeof s->folder.path + 16], text[INJECT_PROBES_CHARS + 1];
    snprintf(path, sizeof path, "%s/" INJECT_PROBES_FILE, s->folder.path);
    i64 bytes = sys_file_bytes(path);
    if (bytes <= 0 || bytes == s->asked_bytes)
        return;
    int fd = sys_open(path, O_RDONLY | O_CLOEXEC, 0);
    i64 n = fd >= 0 ? sys_read_full(fd, text, INJECT_PROBES_CHARS) : 0;
    if (fd >= 0)
        sys_close(fd);
    text[i64_max(0, n)] = '\0';
    struct inject all = s->inject;
    if (inject_add_probes(&all, text) < 0)
        log_line(LOG_WARN, "%s; it is not heeded", err_message());
    if (s->asked_bytes == 0)
        s->asked = s->inject;
    s->asked_bytes = bytes;
    for (int i = s->asked.n; i < all.n; i++) {
        struct inject_fault *f = &s->asked.faults[s->asked.n++];
        *f = all.faults[i];
        if (s->steps_taken > 0 && f->first_step <= s->state.step)
            f->last_step = -1;
    }
    inject_begin(&s->asked, s->mesh.rank, (u64)s->config->train.seed);
    s->engine.inject = &s->asked;
}

int session_disturb(struct session *s)
{
    const struct inject_fault *f;
    u64 step = (u64)s->state.step;
    take_probes(s);
    if (s->inject.kinds == 0)
        return OK;
    if ((f = inject_at(&s->inject, INJECT_KILL, step)) && (double)s->disturbed >= f->value)
        sys_kill(sys_pid());
    s->disturbed++;
    double pause = inject_pause(&s->inject, step);
    if (pause > 0)
        sys_sleep_ns((u64)(1e9 * pause));
    if ((f = inject_at(&s->inject, INJECT_MALLOC_CHURN, step)))
        TRY(churn((i64)f->value));
    return OK;
}
