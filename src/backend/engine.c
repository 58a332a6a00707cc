#include "backend/engine.h"

#include "base/sys.h"
#include "base/sys_share.h"

#include <errno.h>
#include <string.h>

int engine_init(struct engine *e, const char *backend, int threads, i64 trace_spans)
{
    *e = (struct engine){ 0 };
    arena_init(&e->arena);
    TRY(backend_init(&e->backend, backend));
    if (threads == 0)
        threads = sys_cpu_count();
    TRY(pool_new(&e->pool, threads, true));
    return trace_init(&e->trace, trace_spans);
}

void engine_fini(struct engine *e)
{
    pool_free(e->pool);
    pool_free(e->one_thread);
    trace_fini(&e->trace);
    sys_unmap(e->region, e->region_bytes);
    sys_unmap(e->workspace, e->workspace_bytes);
    sys_unmap(e->away, e->away_bytes);
    arena_fini(&e->arena);
    *e = (struct engine){ 0 };
}

int engine_add(struct engine *e, struct program *p)
{
    if (e->n_programs == ENGINE_PROGRAMS)
        return err_set(ERR_LIMIT, "more than %d batch shapes in one run; use fewer ramp steps",
                       ENGINE_PROGRAMS);
    assert(!e->region);
    TRY(backend_check(&e->backend, p, pool_threads(e->pool), &e->workspace_bytes));
    e->region_bytes = i64_max(e->region_bytes, p->memory.bytes);
    e->kept_bytes += program_kept_bytes(p);
    e->away_bytes = i64_max(e->away_bytes, p->away_bytes);
    e->programs[e->n_programs++] = p;
    return OK;
}

i64 engine_bytes(const struct engine *e)
{
    return e->region_bytes + e->workspace_bytes + e->kept_bytes;
}

int engine_commit(struct engine *e)
{
    e->region = sys_map_pages(e->region_bytes);
    e->workspace = sys_map_pages(e->workspace_bytes);
    if (!e->region || !e->workspace)
        return err_set(ERR_LIMIT, "no memory for %.2f GB of activations and workspace",
                       (double)engine_bytes(e) / 1e9);
    if (e->away_bytes > 0 && !(e->away = sys_map_scratch(e->away_folder, e->away_bytes)))
        return err_set(ERR_SYS, "no file of %.2f GB for activations in %s: %s; give another "
                       "offload.folder", 1e-9 * (double)e->away_bytes, e->away_folder,
                       strerror(errno));
    for (int i = 0; i < e->n_programs; i++) {
        program_bind_away(e->programs[i], e->away);
        program_bind(e->programs[i], e->region, &e->arena);
    }
    return OK;
}

struct run engine_context(struct engine *e, u64 step)
{
    return (struct run){
        .backend = &e->backend,
        .pool = e->pool,
        .workspace = e->workspace,
        .workspace_bytes = e->workspace_bytes,
        .step = step,
        .trace = &e->trace,
        .lanes = e->lanes,
        .inject = e->inject,
        .one_thread = e->one_thread,
    };
}

int engine_run(struct engine *e, const struct program *p, const struct backend *backend,
                u64 step)
{
    struct run x = engine_context(e, step);
    if (backend)
        x.backend = backend;
    return exec_program(p, &x);
}
