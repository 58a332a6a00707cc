#include "machine/machine.h"

#include "base/err.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <hwloc.h>
#include <stdio.h>
#include <string.h>

enum { CACHE_BYTES = 1 << 16, CACHE_SCHEMA = 4 };

void machine_processor_name(char *out, size_t size)
{
    char line[256];
    snprintf(out, size, "unknown");
    FILE *f = sys_fopen("/proc/cpuinfo", "r");
    while (f && fgets(line, sizeof line, f)) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) == 0 && colon) {
            snprintf(out, size, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
            break;
        }
    }
    if (f)
        sys_fclose(f);
}

static void cache_sizes(struct machine *m)
{
    static const hwloc_obj_type_t types[] = { HWLOC_OBJ_L1CACHE, HWLOC_OBJ_L2CACHE,
                                              HWLOC_OBJ_L3CACHE };
    hwloc_topology_t t;
    /* Containers without /sys: the sizes stay unknown, and nobody need read about it. */
    sys_setenv_default("HWLOC_HIDE_ERRORS", "2");
    if (hwloc_topology_init(&t) != 0)
        return;
    if (hwloc_topology_load(t) == 0) {
        for (int i = 0; i < MACHINE_LEVELS - 1; i++) {
            hwloc_obj_t o = hwloc_get_obj_by_type(t, types[i], 0);
            m->level[i].bytes = o ? (i64)o->attr->cache.size : 0;
        }
    }
    hwloc_topology_destroy(t);
    m->level[MACHINE_LEVELS - 1].bytes = sys_memory_limit_bytes();
}

void machine_detect(struct machine *m, const char *backend, int threads)
{
    *m = (struct machine){ 0 };
    machine_processor_name(m->processor, sizeof m->processor);
    snprintf(m->backend, sizeof m->backend, "%s", backend);
    m->cores = sys_cpu_count();
    m->threads = threads;
    cache_sizes(m);
}

/* --- the cache ---------------------------------------------------------------------- */

/* $XDG_CACHE_HOME/headway/machine-HASH.json, or below ~/.cache; false without a home. */
static bool cache_path(const struct machine *m, char *folder, char *path, size_t size)
{
    char key[300];
    const char *base = sys_getenv("XDG_CACHE_HOME"), *home = sys_getenv("HOME");
    if (base && *base)
        snprintf(folder, size, "%s/headway", base);
    else if (home && *home)
        snprintf(folder, size, "%s/.cache/headway", home);
    else
        return false;
    snprintf(key, sizeof key, "%s|%s|%d|%d", m->processor, m->backend, m->cores, m->threads);
    u64 hash = hash64(key, (i64)strlen(key), CACHE_SCHEMA);
    snprintf(path, size, "%s/machine-%016llx.json", folder, (unsigned long long)hash);
    return true;
}

static double get(const json_t *o, const char *key)
{
    return json_number_value(json_object_get(o, key));
}

static void read_levels(struct machine *m, const json_t *o)
{
    const json_t *levels = json_object_get(o, "levels");
    for (size_t i = 0; i < MACHINE_LEVELS && i < json_array_size(levels); i++) {
        const json_t *l = json_array_get(levels, i);
        m->level[i].working_set = (i64)get(l, "working_set_bytes");
        m->level[i].read_one = get(l, "read_one_bytes_per_s");
        m->level[i].read_all = get(l, "read_all_bytes_per_s");
        m->level[i].copy_one = get(l, "copy_one_bytes_per_s");
        m->level[i].copy_all = get(l, "copy_all_bytes_per_s");
        m->level[i].latency_ns = get(l, "latency_ns");
    }
}

int machine_load(struct machine *m)
{
    char folder[2048], path[2200];
    json_t *o;
    if (!cache_path(m, folder, path, 2048) || !sys_exists(path))
        return err_set(ERR_CONFIG, "this machine was not measured yet; 'headway machine' does it");
    TRY(json_load(path, CACHE_BYTES, &o));
    m->clock_hz = get(o, "clock_hz");
    m->f32_one = get(o, "f32_one_flops");
    m->f32_all = get(o, "f32_all_flops");
    m->f32_split = json_is_true(json_object_get(o, "f32_split"));
    m->fma_one = get(o, "fma_one_flops");
    m->fma_all = get(o, "fma_all_flops");
    m->bf16_one = get(o, "bf16_one_flops");
    m->bf16_all = get(o, "bf16_all_flops");
    m->bf16_native = json_is_true(json_object_get(o, "bf16_native"));
    m->launch_ns = get(o, "launch_ns");
    read_levels(m, o);
    json_decref(o);
    if (!(m->f32_all > 0) || !(m->bf16_all > 0))
        return err_set(ERR_FORMAT, "%s is damaged; remove it and run 'headway machine'", path);
    return OK;
}

void machine_write_json(const struct machine *m, struct json *j)
{
    static const char *const names[] = { "L1", "L2", "L3", "DRAM" };
    json_begin_object(j);
    json_put_int(j, "schema", CACHE_SCHEMA);
    json_put_str(j, "processor", m->processor);
    json_put_str(j, "backend", m->backend);
    json_put_int(j, "cores", m->cores);
    json_put_int(j, "threads", m->threads);
    json_put_double(j, "clock_hz", m->clock_hz);
    json_put_double(j, "f32_one_flops", m->f32_one);
    json_put_double(j, "f32_all_flops", m->f32_all);
    json_put_bool(j, "f32_split", m->f32_split);
    json_put_double(j, "fma_one_flops", m->fma_one);
    json_put_double(j, "fma_all_flops", m->fma_all);
    json_put_double(j, "bf16_one_flops", m->bf16_one);
    json_put_double(j, "bf16_all_flops", m->bf16_all);
    json_put_bool(j, "bf16_native", m->bf16_native);
    json_put_double(j, "launch_ns", m->launch_ns);
    json_key(j, "levels");
    json_begin_array(j);
    for (int i = 0; i < MACHINE_LEVELS; i++) {
        const struct machine_level *l = &m->level[i];
        json_begin_object(j);
        json_put_str(j, "name", names[i]);
        json_put_int(j, "bytes", l->bytes);
        json_put_int(j, "working_set_bytes", l->working_set);
        json_put_double(j, "read_one_bytes_per_s", l->read_one);
        json_put_double(j, "read_all_bytes_per_s", l->read_all);
        json_put_double(j, "copy_one_bytes_per_s", l->copy_one);
        json_put_double(j, "copy_all_bytes_per_s", l->copy_all);
        json_put_double(j, "latency_ns", l->latency_ns);
        json_end(j);
    }
    json_end(j);
    json_end(j);
}

void machine_save(const struct machine *m)
{
    char folder[2048], path[2200], temporary[2210];
    struct json j;
    if (!cache_path(m, folder, path, 2048))
        return;
    json_writer_init(&j);
    j.indent = true;
    machine_write_json(m, &j);
    snprintf(temporary, sizeof temporary, "%s.tmp", path);
    sys_mkdirs(folder);
    int fd = sys_open(temporary, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    bool failed = fd < 0 || sys_write_full(fd, j.out.data, j.out.length) != 0;
    if (fd >= 0)
        failed = sys_close(fd) != 0 || failed;
    if (failed || sys_rename(temporary, path) != 0)
        log_line(LOG_WARN, "the machine's measurements could not be kept in %s: %s", folder,
                 strerror(errno));
    json_writer_fini(&j);
}
