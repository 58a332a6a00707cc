/* Whether a checkpoint is of the run that wants to go on from it (see session.h). */
#include "base/log.h"
#include "base/text.h"
#include "train/session.h"

#include <stdio.h>
#include <string.h>

/* Settings that change nothing that is learned. The model is compared by its spec. */
static const char *const free_settings[] = {
    "model.", "run.", "log.", "trace.", "eval.", "checkpoint.", "data.cache", "data.prefetch",
    "data.tokenizer", "data.on_missing", "train.threads",
};

/* Settings with which a run that has ended would do nothing else. */
static const char *const idle_settings[] = {
    "run.", "log.", "trace.", "checkpoint.", "data.cache", "data.prefetch", "train.threads",
    "train.steps", "train.tokens", "train.max_time",
};

/* --- what a checkpoint keeps -------------------------------------------------------- */

void session_data_identity(const struct dataset *d, char hex[17])
{
    snprintf(hex, 17, "%016llx", (unsigned long long)dataset_identity(d));
}

static json_t *data_json(const struct session *s)
{
    json_t *list = json_array();
    char hex[17];
    for (i64 i = 0; i < loader_sources(s->loader); i++) {
        session_data_identity(loader_dataset(s->loader, i), hex);
        json_array_append_new(list, json_string(hex));
    }
    return list;
}

/* With a state of their own in checkpoints; 0: there are no outer steps. */
static i64 islands_of(const struct session *s)
{
    return s->config->outer.every > 0 ? s->mesh.layout.islands : 0;
}

void session_put_identity(const struct session *s, json_t *o)
{
    struct text spec = { 0 }, recipe = { 0 };
    spec_write_yaml(&s->spec, &spec);
    recipe_write_yaml(s->request.recipe, &recipe);
    json_object_set_new(o, "spec", json_string(spec.data));
    json_object_set_new(o, "recipe", json_string(recipe.data));
    json_object_set_new(o, "data", data_json(s));
    json_object_set_new(o, "tokenizer",
                        json_string(s->tokenizer ? tokenizer_hash(s->tokenizer) : ""));
    json_object_set_new(o, "precision",
                        json_string(s->model->compute == DTYPE_BF16 ? "bf16" : "fp32"));
    json_object_set_new(o, "backend", json_string(s->engine.backend.name));
    json_object_set_new(o, "layout", json_string(s->layout_text));
    json_object_set_new(o, "islands", json_integer(islands_of(s)));
    text_fini(&spec);
    text_fini(&recipe);
}

/* --- comparing ---------------------------------------------------------------------- */

static bool begins_with_one(const char *key, const char *const *list, i64 n)
{
    for (i64 i = 0; i < n; i++)
        if (strncmp(key, list[i], strlen(list[i])) == 0)
            return true;
    return false;
}

static bool is_free(const char *key)
{
    return begins_with_one(key, free_settings, COUNT_OF(free_settings));
}

/* "heads was 4, is 2; ..." for every row of the table that differs. */
static void list_changes(const struct option *table, const void *then, const void *now,
                         bool settings, struct text *out)
{
    struct text a = { 0 }, b = { 0 };
    for (const struct option *o = table; o->key; o++) {
        if (settings ? is_free(o->key) : strcmp(o->key, "name") == 0)
            continue;
        text_clear(&a);
        text_clear(&b);
        text_add(&a, "");
        text_add(&b, "");
        option_format(o, then, &a);
        option_format(o, now, &b);
        if (strcmp(a.data, b.data) != 0)
            text_printf(out, "%s%s was %s, is %s", out->length ? "; " : "", o->key,
                        *a.data ? a.data : "not set", *b.data ? b.data : "not set");
    }
    text_fini(&a);
    text_fini(&b);
}

static int parse(struct session *s, const json_t *state, const char *key,
                 const struct yaml_node **root)
{
    const char *text = json_string_value(json_object_get(state, key));
    if (!text)
        return err_set(ERR_FORMAT, "the checkpoints in %s do not say what their %s was",
                       s->checkpoint_dir, key);
    text = arena_strdup(&s->arena, text);
    return yaml_parse(text, (i64)strlen(text), key, &s->arena, root);
}

static int check_model(struct session *s, const json_t *state)
{
    const struct yaml_node *root;
    struct model_spec then;
    struct text changes = { 0 };
    TRY(parse(s, state, "spec", &root));
    TRY(recipe_read_map(model_spec_options, &then, root, &s->arena));
    list_changes(model_spec_options, &then, &s->spec, false, &changes);
    if (changes.length == 0)
        return OK;
    int rc = err_set(ERR_CONFIG, "%s holds another model: %s; a run keeps its model, so give "
                     "another run.name, or model.from to start from its weights",
                     s->folder.path, changes.data);
    text_fini(&changes);
    return rc;
}

static int check_tokenizer(const struct session *s, const json_t *state)
{
    const char *then = json_string_value(json_object_get(state, "tokenizer"));
    const char *now = s->tokenizer ? tokenizer_hash(s->tokenizer) : "";
    if (!then || strcmp(then, now) == 0)
        return OK;
    return err_set(ERR_CONFIG, "%s was trained with another tokenizer (its SHA-256 begins "
                   "with %.12s, this one's with %.12s)", s->folder.path, then, now);
}

/* Each island has an optimizer state of its own, which no other number of them can share out. */
static int check_islands(const struct session *s, const json_t *state)
{
    i64 then = json_integer_value(json_object_get(state, "islands")), now = islands_of(s);
    if (then == now)
        return OK;
    if (then == 0 || now == 0)
        return err_set(ERR_CONFIG, "%s was trained %s outer steps (outer.every); go on "
                       "as it was, or give another run.name and model.from to start from "
                       "its weights", s->folder.path, then ? "with" : "without");
    return err_set(ERR_CONFIG, "%s has the optimizer state of %lld islands; resume with "
                   "layout.islands=%lld, or give another run.name and model.from to start from "
                   "the weights that they have in common", s->folder.path, (long long)then,
                   (long long)then);
}

static void compare_backend(const struct session *s, const json_t *state, struct text *out)
{
    const char *then = json_string_value(json_object_get(state, "backend"));
    if (then && strcmp(then, s->engine.backend.name) != 0)
        text_printf(out, "%sthe backend was %s, is %s", out->length ? "; " : "", then,
                    s->engine.backend.name);
}

/* Sums are made in another order then: the same run, but not to the last bit. */
static void compare_layout(const struct session *s, const json_t *state, struct text *out)
{
    const char *then = json_string_value(json_object_get(state, "layout"));
    if (then && strcmp(then, s->layout_text) != 0)
        text_printf(out, "%sthe layout was %s, is %s", out->length ? "; " : "", then,
                    s->layout_text);
}

/* The settings of the run that was; false when they cannot be read, which is said. */
static bool read_settings(struct session *s, const json_t *state, struct train_config *then)
{
    const struct yaml_node *root;
    struct recipe recipe;
    struct layout layout;
    struct option_group groups[] = { { train_options, then }, { layout_options, &layout } };
    recipe_init(&recipe, &s->arena, groups, COUNT_OF(groups));
    if (parse(s, state, "recipe", &root) >= 0 && recipe_apply(&recipe, root) >= 0)
        return true;
    log_line(LOG_WARN, "the settings cannot be compared with those before: %s", err_message());
    return false;
}

/* Each optimizer keeps a state of its own kind, and an average begins with the run. */
static int check_optimizer(const struct session *s, const struct train_config *then)
{
    static const char hint[] = "or give another run.name, and model.from to start from its weights";
    const struct train_config *now = s->config;
    const struct option *o = option_find(train_options, "optim.name");
    struct text was = { 0 }, is = { 0 };
    int rc = OK;
    option_format(o, then, &was);
    option_format(o, now, &is);
    if (now->optim.name != then->optim.name)
        rc = err_set(ERR_CONFIG, "%s keeps the state of another optimizer: optim.name "
                     "was %s, is %s; go on with optim.name=%s, %s",
                     s->folder.path, was.data, is.data, was.data, hint);
    else if (now->train.ema > 0 && then->train.ema == 0)
        rc = err_set(ERR_CONFIG, "%s keeps no average of its weights: train.ema was 0, "
                     "is %g; go on with train.ema=0, %s",
                     s->folder.path, now->train.ema, hint);
    text_fini(&was);
    text_fini(&is);
    return rc;
}

static void compare_data(const struct session *s, const json_t *state, struct text *out)
{
    const json_t *list = json_object_get(state, "data");
    char hex[17];
    for (i64 i = 0; i < i64_min(loader_sources(s->loader), (i64)json_array_size(list)); i++) {
        session_data_identity(loader_dataset(s->loader, i), hex);
        if (strcmp(json_string_value(json_array_get(list, (size_t)i)), hex) != 0)
            text_printf(out, "%ssource %s holds other text", out->length ? "; " : "",
                        loader_source_name(s->loader, i));
    }
}

int session_check_same(struct session *s, struct text *changes)
{
    json_t *state;
    i64 step;
    TRY(checkpoint_latest(s->checkpoint_dir, &step));
    if (step < 0)
        return OK; /* all are damaged, which loading says better */
    TRY(checkpoint_state(s->checkpoint_dir, step, &state));
    struct train_config then;
    bool settings = false;
    int rc = check_model(s, state);
    if (rc == OK)
        rc = check_tokenizer(s, state);
    if (rc == OK)
        rc = check_islands(s, state);
    if (rc == OK)
        settings = read_settings(s, state, &then);
    if (settings)
        rc = check_optimizer(s, &then);
    if (rc == OK) {
        if (settings)
            list_changes(train_options, &then, s->config, true, changes);
        compare_data(s, state, changes);
        compare_backend(s, state, changes);
        compare_layout(s, state, changes);
    }
    json_decref(state);
    return rc;
}

static bool same_but_for_idle(const struct train_config *then, const struct train_config *now)
{
    struct text a = { 0 }, b = { 0 };
    bool same = true;
    for (const struct option *o = train_options; o->key && same; o++) {
        text_clear(&a);
        text_clear(&b);
        text_add(&a, "");
        text_add(&b, "");
        option_format(o, then, &a);
        option_format(o, now, &b);
        same = strcmp(a.data, b.data) == 0 ||
               begins_with_one(o->key, idle_settings, COUNT_OF(idle_settings));
    }
    text_fini(&a);
    text_fini(&b);
    return same;
}

/* The limit that a run has come to at this step; NULL: none of them. */
static const char *limit_reached(const struct train_config *c, i64 step, double took)
{
    const i64 steps = schedule_steps(c);
    if (steps > 0 && step >= steps)
        return steps == c->train.steps ? "train.steps" : "train.tokens";
    return c->train.max_time > 0 && took >= c->train.max_time ? "train.max_time" : NULL;
}

bool session_would_be_idle(struct session *s, const json_t *state, i64 step, const char **limit)
{
    const double took = json_number_value(json_object_get(state, "elapsed"));
    struct train_config then;
    if (check_islands(s, state) < 0 || !read_settings(s, state, &then) ||
        !same_but_for_idle(&then, s->config))
        return false;
    *limit = limit_reached(s->config, step, took);
    if (*limit)
        return true;
    *limit = "max_epochs of its data";
    return !limit_reached(&then, step, took) && /* so its data ended it */
           session_has_same_data(s, json_object_get(state, "data"));
}
