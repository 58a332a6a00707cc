/* manifest.json and recipe.yaml: the run, understandable from its folder alone. */
#include "base/hash.h"
#include "base/log.h"
#include "base/sys.h"
#include "machine/machine.h"
#include "train/session.h"

#include <stdio.h>
#include <string.h>

static void put_machine(const struct session *s, struct json *j)
{
    char name[200];
    machine_processor_name(name, sizeof name);
    json_key(j, "machine");
    json_begin_object(j);
    json_put_str(j, "processor", name);
    json_put_int(j, "cores", sys_cpu_count());
    json_put_int(j, "threads", pool_threads(s->engine.pool));
    json_put_str(j, "backend", s->engine.backend.name);
    json_put_int(j, "memory_limit_bytes", sys_memory_limit_bytes());
    json_put_double(j, "peak_flops", s->request.hooks.peak_flops);
    json_end(j);
}

static void put_layout(const struct session *s, struct json *j)
{
    struct arena a;
    arena_init(&a);
    json_put_str(j, "layout", layout_text(&s->mesh.layout, &a));
    json_put_int(j, "ranks", layout_ranks(&s->mesh.layout));
    arena_fini(&a);
}

static void put_model(const struct session *s, struct json *j)
{
    json_key(j, "model");
    json_begin_object(j);
    json_put_str(j, "name", s->spec.name);
    json_put_int(j, "parameters", params_total(&s->spec));
    json_put_int(j, "matmul_parameters", params_matmul(&s->spec));
    json_put_double(j, "model_flops_per_step",
                    s->steps[s->n_steps - 1].program->cost.model_flops);
    json_put_str(j, "mfu_convention", "model FLOPs with causal-half attention over the "
                                      "measured dense peak in the run's precision");
    json_put_int(j, "predicted_peak_bytes", s->predicted_bytes);
    json_end(j);
}

static void put_data(const struct session *s, struct json *j)
{
    json_key(j, "data");
    json_begin_array(j);
    for (i64 i = 0; i < loader_sources(s->loader); i++) {
        const struct dataset *d = loader_dataset(s->loader, i);
        json_begin_object(j);
        json_put_str(j, "name", loader_source_name(s->loader, i));
        json_put_str(j, "path", d->path);
        json_put_double(j, "weight", loader_weight(s->loader, i));
        json_put_int(j, "tokens", d->tokens);
        json_put_int(j, "documents", d->documents);
        json_put_int(j, "text_bytes", d->text_bytes);
        json_end(j);
    }
    json_end(j);
    json_put_str(j, "tokenizer_sha256", s->tokenizer ? tokenizer_hash(s->tokenizer) : NULL);
}

static void put_binary(struct json *j)
{
    char hex[65];
    json_put_str(j, "headway", HEADWAY_VERSION);
    json_put_str(j, "compiler", __VERSION__);
    json_put_str(j, "binary_sha256", sha256_file("/proc/self/exe", hex) == OK ? hex : NULL);
}

static int write_recipe(const struct session *s)
{
    struct text yaml = { 0 };
    recipe_write_yaml(s->request.recipe, &yaml);
    int rc = run_folder_write(&s->folder, "recipe.yaml", yaml.data, yaml.length);
    text_fini(&yaml);
    return rc;
}

static int write_tokenizer(const struct session *s)
{
    char path[2200];
    snprintf(path, sizeof path, "%s/tokenizer.json", s->folder.path);
    return s->tokenizer ? tokenizer_save(s->tokenizer, path) : OK;
}

static void put_start(struct json *j, const json_t *segment)
{
    json_put_double(j, "started", json_number_value(json_object_get(segment, "started")));
    json_put_int(j, "from_step", json_integer_value(json_object_get(segment, "from_step")));
}

/* When the run began, and each time that it went on. */
static void put_segments(const struct session *s, struct json *j)
{
    json_t *segments, *now = json_object();
    if (run_folder_starts(s->folder.path, &segments) < 0)
        log_line(LOG_WARN, "this run's earlier starts are forgotten: %s", err_message());
    json_object_set_new(now, "started", json_real(sys_wall_seconds()));
    json_object_set_new(now, "from_step", json_integer(s->state.step));
    json_array_append_new(segments, now);
    put_start(j, json_array_get(segments, 0));
    json_key(j, "segments");
    json_begin_array(j);
    for (size_t i = 0; i < json_array_size(segments); i++) {
        json_begin_object(j);
        put_start(j, json_array_get(segments, i));
        json_end(j);
    }
    json_end(j);
    json_decref(segments);
}

int session_write_manifest(struct session *s)
{
    struct json j;
    json_writer_init(&j);
    j.indent = true;
    json_begin_object(&j);
    json_put_int(&j, "schema", 1);
    put_segments(s, &j);
    put_binary(&j);
    put_machine(s, &j);
    put_layout(s, &j);
    put_model(s, &j);
    put_data(s, &j);
    json_key(&j, "config");
    recipe_write_json(s->request.recipe, &j);
    json_end(&j);
    text_add(&j.out, "\n");
    int rc = run_folder_write(&s->folder, "manifest.json", j.out.data, j.out.length);
    json_writer_fini(&j);
    TRY(rc);
    TRY(write_tokenizer(s));
    return write_recipe(s);
}
