/* Tokenizer, data sets and loaders of a run (see session.h). */
#include "base/log.h"
#include "base/recipe.h"
#include "base/sys.h"
#include "data/ledger.h"
#include "train/schedule.h"
#include "train/session.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct source {
    const char *path, *name, *licence;
    const char *where; /* the path was given: file, line and column */
    double weight, max_epochs;
    i64 separator;
};

static const struct option source_options[] = {
    { "path", OPTION_FIELD(PATH, struct source, path), NULL,
      .help = "Prepared shards, or text: a file, a folder, jsonl, .gz, .zst." },
    { "name", OPTION_FIELD(STRING, struct source, name), NULL,
      .help = "What to call it in metrics, unlike any other; without it, the path's last part, or "
              "the path where others end alike." },
    { "licence", OPTION_FIELD(STRING, struct source, licence), NULL,
      .help = "Noted in the ledger." },
    { "weight", OPTION_FIELD(FLOAT, struct source, weight), "0", .max = 1e9,
      .help = "Share of samples, as weighed against the others'; where no source has "
              "one, all are in proportion to their tokens." },
    { "max_epochs", OPTION_FIELD(FLOAT, struct source, max_epochs), "0", .max = 1e9,
      .help = "Passes over it at most; 0 sets no limit." },
    { "separator", OPTION_FIELD(INT, struct source, separator), "-1", .min = -1, .max = 1e9,
      .help = "For shards of llm.c or nanoGPT: the token that begins documents; -1: none." },
    { 0 },
};

static int read_source(const struct yaml_node *n, struct source *out, struct arena *a)
{
    option_set_defaults(source_options, out, a);
    if (n->kind == YAML_SCALAR) {
        out->path = n->text;
        out->where = yaml_where(n, a);
    } else {
        TRY(recipe_read_map(source_options, out, n, a));
        const struct yaml_node *path = yaml_get(n, "path");
        out->where = yaml_where(path ? path : n, a);
    }
    if (!out->path || !*out->path)
        return err_set(ERR_CONFIG, "%s: a data source needs a path", out->where);
    return OK;
}

/* All sources are weighed against each other, or none is. */
static int check_weight(const struct yaml_node *n, const struct yaml_node *first,
                        const struct source *s, struct arena *a)
{
    const bool given = yaml_get(n, "weight") != NULL;
    if (given && s->weight == 0)
        return err_set(ERR_CONFIG, "%s: a source of weight 0 is never read; leave it out, or leave "
                       "every weight out for shares in proportion to tokens",
                       yaml_where(yaml_get(n, "weight"), a));
    if (given == (yaml_get(first, "weight") != NULL))
        return OK;
    return err_set(ERR_CONFIG, "%s: this source has %s weight, and the first has %s; "
                   "give every one of them a weight, or none",
                   yaml_where(n, a), given ? "a" : "no", given ? "none" : "one");
}

/* Metrics have one place for each name. */
static int check_name(const struct yaml_node *n, const struct source *sources, i64 count,
                      const struct source *s, struct arena *a)
{
    for (i64 i = 0; i < count && s->name; i++)
        if (sources[i].name && strcmp(sources[i].name, s->name) == 0)
            return err_set(ERR_CONFIG, "%s: source %lld is named \"%s\" already; give each another "
                           "name", yaml_where(yaml_get(n, "name"), a), (long long)i + 1, s->name);
    return OK;
}

/* "path", or a list of paths and maps. */
static int read_sources(struct session *s, struct source **out, i64 *n)
{
    const struct yaml_node *node = s->config->data.sources;
    const struct yaml_node *first = node->kind == YAML_LIST ? node->first : node;
    *out = ARENA_ARRAY(&s->arena, struct source, LOADER_SOURCES);
    *n = 0;
    for (const struct yaml_node *i = first; i; i = node->kind == YAML_LIST ? i->next : NULL) {
        if (*n == LOADER_SOURCES)
            return err_set(ERR_CONFIG, "%s: more than %d data sources", yaml_where(i, &s->arena),
                           LOADER_SOURCES);
        struct source *next = &(*out)[*n];
        TRY(read_source(i, next, &s->arena));
        TRY(check_weight(i, first, next, &s->arena));
        TRY(check_name(i, *out, (*n)++, next, &s->arena));
    }
    return *n > 0 ? OK : err_set(ERR_CONFIG, "%s: data.sources is empty",
                                 yaml_where(node, &s->arena));
}

static int check_there(const struct source *sources, i64 n)
{
    for (const struct source *i = sources; i < sources + n; i++)
        if (strcmp(i->path, "-") != 0 && !sys_exists(i->path))
            return err_set(ERR_SYS, "%s: data source %s: %s; a path counts from the "
                           "folder in which headway is started",
                           i->where, i->path, strerror(errno));
    return OK;
}

/* --- tokenizer ---------------------------------------------------------------------- */

/* The tokenizer named in the recipe, or beside the first source or model.from; none when
 * the data are shards that bring none. */
static int open_tokenizer(struct session *s, const struct source *first)
{
    char path[2200];
    if (s->config->data.tokenizer) {
        int rc = tokenizer_open(&s->tokenizer, s->config->data.tokenizer);
        const char *where = recipe_where(s->request.recipe, "data.tokenizer");
        return rc < 0 ? err_context(rc, "%s", where) : rc;
    }
    snprintf(path, sizeof path, "%s/tokenizer.json", first->path);
    if (sys_exists(path))
        return tokenizer_open(&s->tokenizer, path);
    return *s->from.tokenizer ? tokenizer_open(&s->tokenizer, s->from.tokenizer) : OK;
}

/* Bytes of text behind each token, for bits per byte; special tokens stand for none. */
static void count_token_bytes(struct session *s)
{
    i64 n = s->spec.vocab;
    if (!s->tokenizer)
        return;
    s->token_bytes = ARENA_ARRAY(&s->arena, u16, n);
    for (i64 id = 0; id < i64_min(n, tokenizer_size(s->tokenizer)); id++) {
        i64 bytes = 0;
        if (!tokenizer_is_special(s->tokenizer, (i32)id) &&
            tokenizer_token(s->tokenizer, (i32)id, &bytes))
            s->token_bytes[id] = (u16)i64_min(bytes, UINT16_MAX);
    }
}

/* --- raw text ----------------------------------------------------------------------- */

static bool tell_preparing(void *context, const struct prepare_progress *p)
{
    struct session *s = context;
    const struct train_hooks *hooks = &s->request.hooks;
    double fraction = p->total_bytes > 0 ? (double)p->input_bytes / (double)p->total_bytes : -1;
    if (hooks->preparing)
        hooks->preparing(hooks->context, fraction, "text to tokens");
    return !session_asked_to_stop(s);
}

/* A dry run prepares nothing: shards of an earlier run will do, without them the text has
 * at least to be there. */
static int look_at_text(struct session *s, const char *path, const char *shards)
{
    if (dataset_is_prepared(shards))
        return OK;
    log_line(LOG_INFO, "%s is text that training will prepare first; what is in it was not "
             "looked at", path);
    s->unprepared = true;
    return OK;
}

static const char *cache_folder(struct session *s)
{
    const char *given = s->config->data.cache;
    return given ? given : arena_printf(&s->arena, "%s/data", s->folder.path);
}

static const char *cached_shards(struct session *s, i64 source)
{
    return arena_printf(&s->arena, "%s/source-%lld", cache_folder(s), (long long)source);
}

/* The folder of shards that a source stands for: itself, or made from its text now. */
static int shards_of(struct session *s, const struct source *from, i64 index, const char **out)
{
    const struct train_config *c = s->config;
    struct prepare_progress result;
    if (dataset_is_prepared(from->path)) {
        *out = from->path;
        return OK;
    }
    if (!s->tokenizer)
        return err_set(ERR_CONFIG, "%s is raw text: give data.tokenizer, or make shards with "
                       "'headway data prepare'", from->path);
    const char *cache = cache_folder(s);
    *out = cached_shards(s, index);
    if (s->request.dry_run)
        return look_at_text(s, from->path, *out);
    if (sys_mkdirs(cache) != 0)
        return err_set(ERR_SYS, "make the folder %s: %s", cache, strerror(errno));
    struct prepare_config config = {
        .paths = &from->path, .n_paths = 1, .out = *out, .tokenizer = s->tokenizer,
        .tokenizer_path = c->data.tokenizer, .source = from->name, .licence = from->licence,
        .val_fraction = c->data.val_fraction, .invalid = UTF8_BYTES,
        .progress = tell_preparing, .context = s,
    };
    int rc = prepare_run(&config, &result);
    if (rc == ERR_STOPPED && !c->data.cache && !c->run.name)
        return err_set(rc, "stopped while text was made into tokens, of which nothing is "
                       "kept; with data.cache or run.name the same command would go on "
                       "from here");
    TRY(rc);
    s->prepared_here |= !c->data.cache;
    return OK;
}

static int find_data(struct session *s, const struct source *sources)
{
    TRY(check_there(sources, s->n_sources));
    return open_tokenizer(s, &sources[0]);
}

int session_open_data(struct session *s)
{
    struct source *sources;
    TRY(read_sources(s, &sources, &s->n_sources));
    int rc = find_data(s, sources);
    if (rc < 0 && s->request.dry_run && s->spec.vocab > 0) { /* memory does not depend on it */
        s->lacking = arena_strdup(&s->arena, err_message());
        s->lacking_rc = rc;
        s->unprepared = true;
        return OK;
    }
    TRY(rc);
    s->sources = ARENA_ARRAY(&s->arena, struct loader_source, s->n_sources);
    for (i64 i = 0; i < s->n_sources; i++) {
        const struct source *from = &sources[i];
        s->sources[i] = (struct loader_source){ .name = from->name, .path = from->path,
                                                .weight = from->weight,
                                                .max_epochs = from->max_epochs,
                                                .separator = (i32)from->separator };
        TRY(shards_of(s, from, i, &s->sources[i].path));
    }
    return OK;
}

bool session_has_same_data(struct session *s, const json_t *identities)
{
    struct source *sources;
    struct dataset d;
    char hex[17];
    i64 n;
    bool same = read_sources(s, &sources, &n) == OK && n == (i64)json_array_size(identities);
    for (i64 i = 0; i < n && same; i++) {
        const char *then = json_string_value(json_array_get(identities, (size_t)i));
        const char *path = dataset_is_prepared(sources[i].path) ? sources[i].path
                                                                : cached_shards(s, i);
        same = dataset_is_prepared(path) &&
               dataset_open(&d, path, "train", (i32)sources[i].separator, &s->arena) >= 0;
        if (same)
            session_data_identity(&d, hex);
        same = same && then && strcmp(then, hex) == 0;
    }
    return same;
}

/* --- loaders ------------------------------------------------------------------------ */

/* A source from which nothing was held out is fine; one whose held out shards are gone or damaged
 * is not. */
static int any_validation(struct session *s, bool *any)
{
    *any = false;
    for (i64 i = 0; i < s->n_sources; i++) {
        struct dataset d;
        TRY(dataset_open(&d, s->sources[i].path, "val", -1, &s->arena));
        if (d.n_shards == 0)
            TRY(ledger_fits(&d));
        *any |= d.tokens > 0;
    }
    return OK;
}

/* Training on answers needs somebody who marked them. Text without marks beside marked text may be
 * meant: all of it counts. */
static int check_answers(struct session *s)
{
    i64 marked = 0, counted = 0;
    if (s->config->data.loss_on != LOSS_ON_ANSWERS)
        return OK;
    const char *where = recipe_where(s->request.recipe, "data.loss_on");
    for (i64 i = 0; i < s->n_sources; i++) {
        const struct dataset *d = loader_dataset(s->loader, i);
        marked += d->has_mask;
        counted += d->has_mask ? d->loss_tokens : d->tokens;
    }
    if (marked == 0)
        return err_set(ERR_CONFIG, "%s: data.loss_on is answers, but no source marks any: prepare "
                       "lines with \"messages\" or \"prompt\" and \"answer\", or set it to all",
                       where);
    if (counted == 0)
        return err_set(ERR_CONFIG, "%s: data.loss_on is answers, but no token of the "
                       "data is part of one: only messages with the role \"assistant\" "
                       "are", where);
    for (i64 i = 0; i < s->n_sources; i++) {
        const struct dataset *d = loader_dataset(s->loader, i);
        if (!d->has_mask)
            log_line(LOG_WARN, "source %s marks no answers: all its text counts in the loss",
                     loader_source_name(s->loader, i));
        else if (d->loss_tokens == 0)
            log_line(LOG_WARN, "source %s has no answers: none of its tokens counts in the loss",
                     loader_source_name(s->loader, i));
    }
    return OK;
}

static struct loader_config loader_config_of(const struct session *s)
{
    const struct train_config *c = s->config;
    return (struct loader_config){
        .sources = s->sources,
        .n_sources = s->n_sources,
        .window = c->train.seq,
        .seed = (u64)c->data.seed,
        .packing = (enum row_packing)c->data.packing,
        .border = (enum row_border)c->data.border,
        .loss_on_answers = c->data.loss_on == LOSS_ON_ANSWERS,
        .vocab = (u32)s->spec.vocab,
        .tokenizer_hash = s->tokenizer ? dataset_tokenizer_id(tokenizer_hash(s->tokenizer)) : 0,
        .token_bytes = s->token_bytes,
        .threads = (int)c->data.threads,
        .inject = s->inject.kinds ? &s->inject : NULL,
        .steps_ahead = (int)c->data.prefetch,
    };
}

/* Who asked for no evaluation, or left it at that and holds out nothing, knows. */
static void warn_of_nothing_held_out(const struct session *s)
{
    const struct train_config *c = s->config;
    const bool given = recipe_where(s->request.recipe, "eval.every") != NULL;
    if (s->request.measure || c->eval.every == 0 || (!given && c->data.val_fraction == 0))
        return;
    log_line(LOG_WARN, "nothing is held out for validation, so that eval.every=%lld evaluates "
             "nothing; hold out documents (data.val_fraction of text, --val-fraction of headway "
             "data prepare), or set eval.every=0", (long long)c->eval.every);
}

/* Which of the limits that a recipe sets comes first, where that is not the one with a number. */
static void tell_where_data_end(const struct session *s)
{
    const i64 places = loader_places(s->loader), steps = schedule_steps(s->config);
    if (places == INT64_MAX || steps == 0)
        return;
    const i64 last = schedule_steps_within(s->config, places);
    if (last < steps)
        log_line(LOG_INFO, "the data sources have enough for %lld of %lld steps (max_epochs): the "
                 "run ends there, and so does the schedule of the learning rate",
                 (long long)last, (long long)steps);
}

int session_open_loaders(struct session *s)
{
    const struct train_config *c = s->config;
    if (s->unprepared)
        return OK;
    count_token_bytes(s);
    struct loader_config config = loader_config_of(s);
    config.trace = c->trace.level == TRACE_OFF ? NULL : &s->engine.trace;
    TRY(loader_open(&s->loader, &config));
    tell_where_data_end(s);
    TRY(check_answers(s));
    bool any = false;
    if (s->request.sleep)
        return OK;
    TRY(any_validation(s, &any));
    if (!any) {
        warn_of_nothing_held_out(s);
        return OK;
    }
    config.steps_ahead = 1;
    config.trace = NULL;
    config.inject = NULL;
    TRY(loader_open_eval(&s->eval_loader, &config, c->eval.tokens));
    return loader_open_eval(&s->final_loader, &config, 0);
}

static int open_rows(struct session *s)
{
    TRY(session_open_data(s));
    const struct loader_config config = loader_config_of(s);
    TRY(loader_open(&s->loader, &config));
    return check_answers(s);
}

bool session_has_text(const struct train_config *c, struct arena *a)
{
    struct source source;
    const struct yaml_node *n = c->data.sources;
    bool all = n != NULL;
    for (const struct yaml_node *i = n && n->kind == YAML_LIST ? n->first : n; i && all;
         i = n->kind == YAML_LIST ? i->next : NULL)
        all = read_source(i, &source, a) < 0 || sys_exists(source.path);
    return all;
}

int session_open_rows(struct session *s, const struct train_request *request,
                      const struct model_spec *spec, const char *folder)
{
    *s = (struct session){ .request = *request, .config = request->config, .spec = *spec,
                           .mesh = mesh_single(), .float_mode = sys_flush_subnormals() };
    arena_init(&s->arena);
    s->folder.metrics_fd = s->folder.log_fd = s->folder.lock_fd = s->folder.events.fd = -1;
    snprintf(s->folder.path, sizeof s->folder.path, "%s", folder);
    int rc = open_rows(s);
    if (rc < 0)
        session_close(s);
    return rc;
}

/* --- a source that vanished --------------------------------------------------------- */

/* What a rank could not read, for all others to know. */
struct lack {
    i64 source; /* -1: nothing */
    i64 rc;
    char why[512];
};

/* What any rank lacks: of each source one that says why, or NULL. */
static void sort_lacks(const struct lack *all, i64 ranks, const struct lack **of_source)
{
    for (i64 r = ranks - 1; r >= 0; r--)
        if (all[r].source >= 0)
            of_source[all[r].source] = &all[r];
}

/* An error of all ranks, which changes nothing, if no other source has more to give. */
static int leave_out(struct session *s, const struct lack *const *lacks)
{
    const struct lack *last = NULL;
    bool rest = false;
    for (i64 i = 0; i < loader_sources(s->loader); i++) {
        last = lacks[i] ? lacks[i] : last;
        rest |= !lacks[i] && loader_gives(s->loader, i);
    }
    if (!rest) {
        if (s->mesh.world)
            s->mesh.comm->together = true;
        return err_set((int)last->rc, "%s; no other source has more to give", last->why);
    }
    for (i64 i = 0; i < loader_sources(s->loader); i++) {
        if (!lacks[i])
            continue;
        loader_leave_out(s->loader, i);
        log_line(LOG_WARN, "source %s is skipped from here on: %s",
                 loader_source_name(s->loader, i), lacks[i]->why);
    }
    return OK;
}

static int leave_out_together(struct session *s, const struct lack *mine)
{
    const struct lack *of_source[LOADER_SOURCES] = { 0 };
    struct arena a;
    i64 ranks = s->mesh.world ? s->mesh.comm->size : 1;
    arena_init(&a);
    struct lack *all = ARENA_ARRAY(&a, struct lack, ranks);
    int rc = mesh_gather(&s->mesh, mine, all, sizeof *mine);
    if (rc == OK) {
        sort_lacks(all, ranks, of_source);
        rc = leave_out(s, of_source);
    }
    arena_fini(&a);
    return rc;
}

int session_start_data(struct session *s, const struct loader_step *step)
{
    struct loader_cursor here;
    loader_get_cursor(s->loader, &here);
    i64 position = round_up(here.position, step->T);
    for (;;) {
        struct lack mine = { .rc = loader_start_step(s->loader, step) };
        mine.source = mine.rc < 0 ? loader_failed_source(s->loader) : -1;
        if (s->config->data.on_missing == MISSING_STOP || (mine.rc < 0 && mine.source < 0))
            return (int)mine.rc;
        snprintf(mine.why, sizeof mine.why, "%s", mine.source >= 0 ? err_message() : "");
        double lacking = mine.source >= 0;
        TRY(mesh_max(&s->mesh, &lacking, 1));
        if (lacking == 0)
            return OK;
        TRY(loader_seek_position(s->loader, position));
        TRY(leave_out_together(s, &mine));
    }
}
