#include "train/restore.h"

#include "base/err.h"
#include "base/log.h"
#include "base/recipe.h"
#include "base/sys.h"
#include "model/hf.h"
#include "train/checkpoint.h"
#include "train/model_boxes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* "…/step-120": its folder into r->path and its number; false for other names. */
static bool split_step(struct restore *r, const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    char *end;
    if (strncmp(name, "step-", 5) != 0)
        return false;
    r->step = strtoll(name + 5, &end, 10);
    if (*end || end == name + 5)
        return false;
    if (slash)
        snprintf(r->path, sizeof r->path, "%.*s", (int)(slash - path), path);
    else
        snprintf(r->path, sizeof r->path, ".");
    return true;
}

static int find_checkpoints(struct restore *r, const char *path)
{
    if (split_step(r, path))
        return OK;
    snprintf(r->path, sizeof r->path, "%s/checkpoints", path);
    if (!sys_exists(r->path))
        snprintf(r->path, sizeof r->path, "%s", path);
    struct stat st;
    const bool folder = sys_stat(path, &st) == 0 && S_ISDIR(st.st_mode);
    r->step = -1;
    if (folder)
        TRY(checkpoint_newest(r->path, &r->step));
    if (r->step < 0)
        return err_set(ERR_CONFIG, "%s is neither a Hugging Face folder (no config.json) nor a "
                       "run or a folder of checkpoints", path);
    return OK;
}

/* The run folder is the parent of its checkpoints. */
static void find_tokenizer(struct restore *r)
{
    const char *folders[] = { r->path, NULL };
    char parent[2048];
    snprintf(parent, sizeof parent, "%.2040s/..", r->path);
    folders[1] = parent;
    for (i64 i = 0; i < (r->hf ? 1 : 2); i++) {
        snprintf(r->tokenizer, sizeof r->tokenizer, "%s/tokenizer.json", folders[i]);
        if (sys_exists(r->tokenizer))
            return;
    }
    r->tokenizer[0] = '\0';
}

static int read_spec(struct restore *r, const json_t *state, struct arena *a)
{
    const char *text = json_string_value(json_object_get(state, "spec"));
    const struct yaml_node *root;
    char where[2100];
    if (!text)
        return err_set(ERR_FORMAT, "%s/step-%lld has no model spec in its state", r->path,
                       (long long)r->step);
    snprintf(where, sizeof where, "%.2000s/step-%lld", r->path, (long long)r->step);
    text = arena_strdup(a, text);
    TRY(yaml_parse(text, (i64)strlen(text), arena_strdup(a, where), a, &root));
    TRY(recipe_read_map(model_spec_options, &r->spec, root, a));
    return spec_check(&r->spec, where);
}

/* As shells complete the name of a folder. */
static const char *without_slashes(const char *path, struct arena *a)
{
    i64 n = (i64)strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    return arena_strndup(a, path, n);
}

int restore_find(struct restore *r, const char *path, struct arena *a)
{
    path = without_slashes(path, a);
    *r = (struct restore){ .hf = hf_is_folder(path) };
    if (r->hf) {
        snprintf(r->path, sizeof r->path, "%s", path);
        find_tokenizer(r);
        return hf_read_spec(&r->spec, path, a);
    }
    json_t *state;
    TRY(find_checkpoints(r, path));
    find_tokenizer(r);
    TRY(checkpoint_state(r->path, r->step, &state));
    int rc = read_spec(r, state, a);
    r->has_ema = json_is_true(json_object_get(state, "ema"));
    const char *hash = json_string_value(json_object_get(state, "tokenizer"));
    snprintf(r->trained_with, sizeof r->trained_with, "%s", hash ? hash : "");
    json_decref(state);
    return rc;
}

int restore_tokenizer(struct tokenizer **out, const struct restore *r, const char *given)
{
    const char *path = given ? given : r->tokenizer;
    if (!*path)
        return err_set(ERR_CONFIG, "%s has no tokenizer.json beside it; give --tokenizer", r->path);
    TRY(tokenizer_open(out, path));
    if (tokenizer_size(*out) > r->spec.vocab)
        return err_set(ERR_CONFIG, "%s has %d tokens, the model only %lld; give its own", path,
                       tokenizer_size(*out), (long long)r->spec.vocab);
    if (*r->trained_with && strcmp(r->trained_with, tokenizer_hash(*out)) != 0)
        log_line(LOG_WARN, "%s is not the tokenizer that the model was trained with: tokens mean "
                 "something else to it", path);
    return OK;
}

static int load_checkpoint(struct model *m, const struct restore *r, bool ema, struct arena *a)
{
    struct model_boxes boxes = model_boxes_weights(m, ema, a);
    i64 step = r->step;
    const struct checkpoint_want want = { .tensors = boxes.list, .n = boxes.n, .part = true };
    return boxes.part ? checkpoint_load_part(r->path, step, &want, NULL)
                      : checkpoint_load(r->path, &step, boxes.list, boxes.n, NULL);
}

static int check_finite(const struct model *m, const struct restore *r)
{
    i64 element;
    const struct param *p = model_first_not_finite(m, &element);
    if (!p)
        return OK;
    return err_set(ERR_NUMERIC, "%s: the weight %s is not finite (its element %lld is %f)%s",
                   r->path, p->desc.name, (long long)element, (double)*param_weight(p, element),
                   r->hf ? "" : "; take an earlier checkpoint");
}

int restore_weights(struct model *m, const struct restore *r, bool ema, struct pool *pool,
                    struct arena *a)
{
    if (ema && !r->has_ema)
        return err_set(ERR_CONFIG, "%s holds no averaged weights%s", r->path,
                       r->hf ? "; leave --ema out" : " (train.ema was off)");
    TRY(r->hf ? hf_load_weights(m, r->path, pool) : load_checkpoint(m, r, ema, a));
    TRY(check_finite(m, r));
    model_refresh_compute(m, pool);
    return OK;
}

int restore_model(struct model **out, const struct restore *r, enum dtype compute,
                  i64 positions, bool ema, struct pool *pool, struct arena *a)
{
    struct model *m;
    if (positions == 0)
        positions = r->spec.positions;
    TRY(model_new(&m, &r->spec, compute, MODEL_WEIGHTS, positions, a));
    int rc = restore_weights(m, r, ema, pool, a);
    if (rc < 0)
        model_free(m);
    else
        *out = m;
    return rc;
}
