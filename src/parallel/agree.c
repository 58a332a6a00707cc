#include "parallel/agree.h"

#include "base/err.h"
#include "base/hash.h"
#include "base/sys.h"
#include "base/text.h"

#include <stdio.h>
#include <string.h>

void facts_init(struct facts *f, struct arena *a)
{
    *f = (struct facts){ .arena = a };
}

void facts_add(struct facts *f, const char *name, const char *value)
{
    if ((f->n & (f->n - 1)) == 0) { /* a power of two: full */
        struct fact *more = ARENA_ARRAY(f->arena, struct fact, i64_max(1, 2 * f->n));
        if (f->n > 0)
            memcpy(more, f->at, sizeof *more * (size_t)f->n);
        f->at = more;
    }
    struct fact *fact = &f->at[f->n++];
    i64 length = (i64)strlen(value);
    snprintf(fact->name, sizeof fact->name, "%s", name);
    if (length < FACT_VALUE)
        snprintf(fact->value, sizeof fact->value, "%s", value);
    else
        snprintf(fact->value, sizeof fact->value, "%.32s... (hash %016llx)", value,
                 (unsigned long long)hash64(value, length, 0));
}

void facts_add_program(struct facts *f)
{
    char hex[65];
    facts_add(f, "version", HEADWAY_VERSION);
    if (sha256_file("/proc/self/exe", hex) < 0)
        snprintf(hex, sizeof hex, "unknown");
    hex[16] = '\0';
    facts_add(f, "program (SHA-256)", hex);
}

void facts_add_recipe(struct facts *f, const struct recipe *r)
{
    for (i64 i = 0; i < r->n_groups; i++) {
        for (const struct option *o = r->groups[i].table; o->key; o++) {
            struct text value = { 0 };
            option_format(o, r->groups[i].target, &value);
            facts_add(f, o->key, value.length ? value.data : "");
            text_fini(&value);
        }
    }
}

int odd_one(const struct fact *const *values, int ranks, int *usual)
{
    int most = 0;
    for (int r = 0; r < ranks; r++) {
        int same = 0;
        for (int k = 0; k < ranks; k++)
            same += strcmp(values[r]->value, values[k]->value) == 0;
        if (same > most) {
            most = same;
            *usual = r;
        }
    }
    for (int r = 0; r < ranks; r++)
        if (strcmp(values[r]->value, values[*usual]->value) != 0)
            return r;
    return -1;
}

static int differ(const struct fact *const *values, int ranks, int odd, int usual,
                  const char *where)
{
    int others = 0;
    for (int r = 0; r < ranks; r++)
        others += strcmp(values[r]->value, values[odd]->value) == 0;
    char more[40] = "";
    if (others > 1)
        snprintf(more, sizeof more, " (and %d more)", others - 1);
    return err_set(ERR_CONFIG, "rank %d%s does not run the same as rank %d: in %s, its "
                   "%s is '%s', not '%s'; start all ranks with the same program, command "
                   "line, recipe and data", odd, more, usual, where, values[odd]->name,
                   values[odd]->value, values[usual]->value);
}

/* All ranks have n facts of the same names. */
static int compare(const struct mesh *m, const struct facts *f, const struct fact *all,
                   int ranks, const char *where)
{
    const struct fact **values = ARENA_ARRAY(f->arena, const struct fact *, ranks);
    for (i64 i = 0; i < f->n; i++) {
        int usual = 0;
        for (int r = 0; r < ranks; r++)
            values[r] = &all[r * f->n + i];
        int odd = odd_one(values, ranks, &usual);
        m->comm->together = odd >= 0; /* all ranks see the same and end here */
        if (odd >= 0)
            return differ(values, ranks, odd, usual, where);
    }
    return OK;
}

static u64 hash_names(const struct facts *f)
{
    u64 hash = 0;
    for (i64 i = 0; i < f->n; i++)
        hash = hash64(f->at[i].name, (i64)strlen(f->at[i].name), hash);
    return hash;
}

struct outcome {
    int code;
    char text[1024];
};

static int tell_failure(const struct outcome *all, int ranks)
{
    int first = 0;
    bool same = true;
    while (all[first].code >= 0)
        first++;
    for (int r = 0; r < ranks; r++)
        same = same && strcmp(all[r].text, all[first].text) == 0;
    if (same)
        return err_set(all[first].code, "%s", all[first].text);
    return err_set(all[first].code, "rank %d: %s", first, all[first].text);
}

int mesh_all_well(const struct mesh *m, int rc, struct arena *a)
{
    if (!m->world)
        return rc;
    const int ranks = m->comm->size;
    struct outcome own = { .code = rc }, *all = ARENA_ARRAY(a, struct outcome, ranks);
    if (rc < 0)
        snprintf(own.text, sizeof own.text, "%s", err_message());
    TRY(mesh_gather(m, &own, all, (i64)sizeof own));
    for (int r = 0; r < ranks; r++)
        m->comm->together = m->comm->together || all[r].code < 0;
    return m->comm->together ? tell_failure(all, ranks) : OK;
}

int mesh_same(const struct mesh *m, const struct facts *f, const char *where)
{
    struct facts names;
    int ranks = m->comm ? m->comm->size : 1;
    char text[32];
    if (!m->world)
        return OK;
    facts_init(&names, f->arena);
    snprintf(text, sizeof text, "%lld, %016llx", (long long)f->n,
             (unsigned long long)hash_names(f));
    facts_add(&names, "list of settings", text);
    struct fact *all = ARENA_ARRAY(f->arena, struct fact, ranks * i64_max(1, f->n));
    TRY(mesh_gather(m, names.at, all, (i64)sizeof *all));
    TRY(compare(m, &names, all, ranks, where));
    TRY(mesh_gather(m, f->at, all, f->n * (i64)sizeof *all));
    return compare(m, f, all, ranks, where);
}
