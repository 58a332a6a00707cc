#include "plan/worked.h"

#include "base/err.h"
#include "base/text.h"
#include "base/yaml.h"
#include "plan/machine_file.h"
#include "plan/plan_files.h"

#include <math.h>
#include <string.h>

#define ROW(kind, field) OPTION_FIELD(kind, struct worked_row, field)

static const struct option row_options[] = {
    { "label", ROW(STRING, label), "", .help = "What the source calls the row." },
    { "model", ROW(STRING, model), NULL, .help = "A name in models/, or a file." },
    { "override", ROW(NODE, override), NULL, .help = "Keys of the model that differ." },
    { "machine", ROW(STRING, machine), NULL, .help = "As 'headway plan machine' takes them." },
    { "stack", ROW(STRING, stack), "megatron-lm", .help = "A name in machines/stacks." },
    { "gpus", ROW(INT, gpus), "0", .min = 0, .max = 1e9, .unit = "devices", .help = "Devices." },
    { "batch", ROW(INT, batch), "0", .min = 0, .max = 1e9, .unit = "rows",
      .help = "Rows of a step." },
    { "seq", ROW(INT, seq), "0", .min = 0, .max = 1 << 24, .unit = "tokens",
      .help = "Tokens of a row; 0: the model's longest." },
    { "dtype", ROW(CHOICE, dtype), "bf16", .choices = "fp32|fp16|bf16|fp8|fp4", .help = "Of products." },
    { "layout", ROW(STRING, layout), "", .help = "What the source says of it." },
    { "step", ROW(DURATION, step_s), "0", .unit = "seconds", .max = INFINITY,
      .help = "Published, of a step." },
    { "mfu", ROW(FLOAT, mfu), "0", .min = 0, .max = 100, .unit = "%", .help = "Published." },
    { "squares", ROW(BOOL, squares), "no",
      .help = "The published MFU counts attention as whole squares." },
    { "tokens_per_s", ROW(FLOAT, tokens_per_s), "0", .min = 0, .max = 1e9, .unit = "tokens/s",
      .help = "Published, of a device." },
    { "note", ROW(STRING, note), NULL, .help = "What differs from what is priced." },
    { 0 },
};

/* Keys of a map into a struct that has values already; `other`: keys that are somebody else's. */
static int apply(const struct option *table, void *target, const struct yaml_node *map,
                 const char *const *other, struct arena *a)
{
    if (map->kind != YAML_MAP)
        return err_set(ERR_CONFIG, "%s: a map of keys was expected", yaml_where(map, a));
    for (const struct yaml_node *c = map->first; c; c = c->next) {
        const struct option *o = option_find(table, c->key);
        const char *const *k = other;
        while (k && *k && strcmp(*k, c->key) != 0)
            k++;
        if (k && *k)
            continue;
        struct nearest nearest = { .typed = c->key };
        for (const struct option *t = table; t->key; t++)
            nearest_offer(&nearest, t->key);
        if (!o)
            return option_unknown_key(c->key, nearest_found(&nearest), yaml_key_where(c, a));
        TRY(option_set_node(o, target, c, a));
    }
    return OK;
}

/* The row's model: heads of another number have other sizes, unless it says so. */
static int settle_model(struct worked_row *r, const struct yaml_node *where, struct arena *a)
{
    if (!r->model || !r->machine || r->gpus < 1 || r->batch < 1)
        return err_set(ERR_CONFIG, "%s: a row needs model, machine, gpus and batch",
                       yaml_where(where, a));
    if (r->step_s <= 0 && r->mfu <= 0 && r->tokens_per_s <= 0)
        return err_set(ERR_CONFIG, "%s: a row needs what was published: step, mfu or tokens_per_s",
                       yaml_where(where, a));
    TRY(spec_load(&r->spec, r->model, a));
    if (!r->override)
        return OK;
    if (yaml_get(r->override, "heads") || yaml_get(r->override, "width"))
        r->spec.kv_heads = r->spec.head_size = 0;
    TRY(apply(model_spec_options, &r->spec, r->override, NULL, a));
    return spec_check(&r->spec, yaml_where(r->override, a));
}

int worked_load(struct worked_table *out, const char *path, struct arena *a)
{
    char found[4096];
    const struct yaml_node *root;
    TRY(plan_file_find(found, sizeof found, "recipes", path));
    TRY(yaml_load(found, a, &root));
    return worked_read(out, root, a);
}

int worked_read(struct worked_table *out, const struct yaml_node *root, struct arena *a)
{
    static const char *const own[] = { "about", "rows", NULL };
    struct worked_row shared = { 0 };
    option_set_defaults(row_options, &shared, a);
    shared.spec = (struct model_spec){ 0 };
    TRY(apply(row_options, &shared, root, own, a));
    const struct yaml_node *about = yaml_get(root, "about"), *rows = yaml_get(root, "rows");
    if (!rows || rows->kind != YAML_LIST || rows->count == 0)
        return err_set(ERR_CONFIG, "%s: no rows", yaml_where(root, a));
    *out = (struct worked_table){ .about = about && about->kind == YAML_SCALAR ? about->text : "",
                                  .rows = ARENA_ARRAY(a, struct worked_row, rows->count) };
    for (const struct yaml_node *r = rows->first; r; r = r->next) {
        struct worked_row *row = &out->rows[out->n++];
        *row = shared;
        TRY(apply(row_options, row, r, NULL, a));
        TRY(settle_model(row, r, a));
    }
    return OK;
}
