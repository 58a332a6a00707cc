#include "plan/machine_file.h"

#include "base/err.h"
#include "base/option.h"
#include "base/sys.h"
#include "base/text.h"
#include "plan/plan_files.h"
#include "plan/machine_impl.h"
#include "plan/quantity.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct reader {
    struct plan_machine *m;
    struct arena *a;
    const struct yaml_node *sources; /* name: text; NULL: none */
    struct plan_fact *facts;         /* [MACHINE_FACTS] */
};

enum form { FORM_VALUE, FORM_BAND, FORM_TEXT, FORM_SKIP };

/* One key: "peak.bf16" is bf16 in the map peak. */
struct value_row {
    const char *key;
    enum form form;
    enum quantity kind;
    size_t offset;
};

#define DEVICE(field) offsetof(struct plan_device, field)
#define MACHINE(field) offsetof(struct plan_machine, field)
#define TIER(field) offsetof(struct plan_tier, field)

static const struct value_row device_rows[] = {
    { "name", FORM_TEXT, 0, DEVICE(name) },
    { "family", FORM_TEXT, 0, DEVICE(family) },
    { "summary", FORM_SKIP, 0, 0 },
    { "sources", FORM_SKIP, 0, 0 },
    { "peak.fp32", FORM_VALUE, QUANTITY_PEAK, DEVICE(peak[PLAN_FP32]) },
    { "peak.fp16", FORM_VALUE, QUANTITY_PEAK, DEVICE(peak[PLAN_FP16]) },
    { "peak.bf16", FORM_VALUE, QUANTITY_PEAK, DEVICE(peak[PLAN_BF16]) },
    { "peak.fp8", FORM_VALUE, QUANTITY_PEAK, DEVICE(peak[PLAN_FP8]) },
    { "peak.fp4", FORM_VALUE, QUANTITY_PEAK, DEVICE(peak[PLAN_FP4]) },
    { "reached.fp32", FORM_VALUE, QUANTITY_FLOPS, DEVICE(reached[PLAN_FP32]) },
    { "reached.fp16", FORM_VALUE, QUANTITY_FLOPS, DEVICE(reached[PLAN_FP16]) },
    { "reached.bf16", FORM_VALUE, QUANTITY_FLOPS, DEVICE(reached[PLAN_BF16]) },
    { "reached.fp8", FORM_VALUE, QUANTITY_FLOPS, DEVICE(reached[PLAN_FP8]) },
    { "reached.fp4", FORM_VALUE, QUANTITY_FLOPS, DEVICE(reached[PLAN_FP4]) },
    { "memory.size", FORM_VALUE, QUANTITY_BYTES, DEVICE(memory_sold_bytes) },
    { "memory.usable", FORM_VALUE, QUANTITY_BYTES, DEVICE(memory_bytes) },
    { "memory.rate", FORM_VALUE, QUANTITY_RATE, DEVICE(memory_bytes_per_s) },
    { "link.node", FORM_VALUE, QUANTITY_LINK, DEVICE(link_bytes_per_s) },
    { "link.network", FORM_VALUE, QUANTITY_LINK, DEVICE(network_bytes_per_s) },
    { "power.idle", FORM_VALUE, QUANTITY_WATTS, DEVICE(idle_w) },
    { "power.peak", FORM_VALUE, QUANTITY_WATTS, DEVICE(peak_w) },
    { "launch", FORM_VALUE, QUANTITY_SECONDS, DEVICE(launch_s) },
    { 0 },
};

static const struct value_row machine_rows[] = {
    { "name", FORM_TEXT, 0, MACHINE(name) },
    { "summary", FORM_TEXT, 0, MACHINE(summary) },
    { "device", FORM_SKIP, 0, 0 },
    { "tiers", FORM_SKIP, 0, 0 },
    { "sources", FORM_SKIP, 0, 0 },
    { "host", FORM_SKIP, 0, 0 },
    { "price", FORM_SKIP, 0, 0 },
    { "algorithms", FORM_SKIP, 0, 0 },
    { "collective_start", FORM_VALUE, QUANTITY_SECONDS, MACHINE(call_s) },
    { "pue", FORM_VALUE, QUANTITY_RATIO, MACHINE(pue) },
    { "location", FORM_TEXT, 0, MACHINE(location) },
    { "measured", FORM_TEXT, 0, MACHINE(measured) },
    { "carbon_g_per_kwh", FORM_VALUE, QUANTITY_RATIO, MACHINE(grid_g_per_kwh) },
    { 0 },
};

static const struct value_row tier_rows[] = {
    { "name", FORM_TEXT, 0, TIER(name) },
    { "size", FORM_SKIP, 0, 0 },
    { "bandwidth", FORM_BAND, QUANTITY_LINK, TIER(bytes_per_s) },
    { "latency", FORM_BAND, QUANTITY_SECONDS, TIER(latency_s) },
    { "sum_latency", FORM_VALUE, QUANTITY_SECONDS, TIER(sum_latency_s) },
    { "pieces", FORM_VALUE, QUANTITY_BYTES, TIER(piece_bytes) },
    { "oversubscription", FORM_VALUE, QUANTITY_RATIO, TIER(oversubscription) },
    { "wiring", FORM_SKIP, 0, 0 },
    { "axes", FORM_SKIP, 0, 0 },
    { "switch_sums", FORM_SKIP, 0, 0 },
    { 0 },
};

/* --- values ------------------------------------------------------------------------- */

static int want_text(const struct reader *r, const struct yaml_node *node, const char **out)
{
    if (node->kind != YAML_SCALAR || yaml_is_null(node) || !*node->text)
        return err_set(ERR_CONFIG, "%s: '%s' needs a value", yaml_where(node, r->a),
                       node->key ? node->key : "item");
    *out = node->text;
    return OK;
}

/* A source is named in `sources`, or said outright. */
static int read_source(const struct reader *r, const struct yaml_node *node, const char **out)
{
    TRY(want_text(r, node, out));
    if (strchr(*out, ' '))
        return OK;
    const struct yaml_node *said = r->sources ? yaml_get(r->sources, *out) : NULL;
    if (said)
        return want_text(r, said, out);
    struct nearest nearest = { .typed = *out };
    for (const struct yaml_node *s = r->sources ? r->sources->first : NULL; s; s = s->next)
        nearest_offer(&nearest, s->key);
    const char *found = nearest_found(&nearest);
    return err_set(ERR_CONFIG, "%s: no source '%s' among this file's sources%s%s%s",
                   yaml_where(node, r->a), *out, found ? "; did you mean '" : "",
                   found ? found : "", found ? "'?" : "");
}

static int add_fact(struct reader *r, const char *key, const char *value,
                    const struct yaml_node *node)
{
    struct plan_fact *f = &r->facts[r->m->n_facts];
    if (r->m->n_facts == MACHINE_FACTS)
        return err_set(ERR_LIMIT, "%s: more than %d values", yaml_where(node, r->a),
                       MACHINE_FACTS);
    *f = (struct plan_fact){ .key = key, .value = value };
    const struct yaml_node *source = yaml_get(node, "source");
    if (source)
        TRY(read_source(r, source, &f->source));
    const struct yaml_node *verified = yaml_get(node, "verified");
    if (verified) {
        const char *word;
        TRY(want_text(r, verified, &word));
        if (strcmp(word, "yes") != 0 && strcmp(word, "no") != 0)
            return err_set(ERR_CONFIG, "%s: verified is yes or no, not '%s'",
                           yaml_where(verified, r->a), word);
        f->verified = strcmp(word, "yes") == 0;
    }
    r->m->n_facts++;
    return OK;
}

static int check_value_keys(const struct reader *r, const struct yaml_node *node, bool band)
{
    static const char *const keys[] = { "value", "source", "verified", "note", "lo", "hi" };
    i64 n = COUNT_OF(keys) - (band ? 0 : 2);
    for (const struct yaml_node *c = node->first; c; c = c->next) {
        struct nearest nearest = { .typed = c->key };
        bool known = false;
        for (i64 i = 0; i < n; i++) {
            known |= strcmp(c->key, keys[i]) == 0;
            nearest_offer(&nearest, keys[i]);
        }
        if (!known)
            return option_unknown_key(c->key, nearest_found(&nearest), yaml_key_where(c, r->a));
    }
    return OK;
}

static int read_end(const struct reader *r, const struct yaml_node *node, const char *key,
                    enum quantity kind, double *out)
{
    const char *text;
    const struct yaml_node *end = yaml_get(node, key);
    if (!end)
        return OK;
    TRY(want_text(r, end, &text));
    return quantity_parse(text, kind, yaml_where(end, r->a), out, NULL);
}

/* "450 GB/s one-way", or {value: .., source: .., verified: yes, lo: .., hi: ..}. */
static int read_value(struct reader *r, const struct value_row *row,
                      const struct yaml_node *node, const char *key, void *target)
{
    const struct yaml_node *is = node->kind == YAML_MAP ? yaml_get(node, "value") : node;
    const char *text;
    double value;
    if (node->kind == YAML_MAP)
        TRY(check_value_keys(r, node, row->form == FORM_BAND));
    if (!is)
        return err_set(ERR_CONFIG, "%s: '%s' has no value", yaml_where(node, r->a), key);
    TRY(want_text(r, is, &text));
    TRY(quantity_parse(text, row->kind, yaml_where(is, r->a), &value, NULL));
    if (row->form == FORM_BAND) {
        struct plan_band *band = target;
        *band = (struct plan_band){ value, value, value };
        TRY(read_end(r, node, "lo", row->kind, &band->lo));
        TRY(read_end(r, node, "hi", row->kind, &band->hi));
        if (band->lo > band->mid || band->hi < band->mid)
            return err_set(ERR_CONFIG, "%s: of '%s', lo must not be above the value nor hi below",
                           yaml_where(node, r->a), key);
        if (band->lo != band->hi) {
            char lo[48], hi[48];
            quantity_text(band->lo, row->kind, lo, sizeof lo);
            quantity_text(band->hi, row->kind, hi, sizeof hi);
            text = arena_printf(r->a, "%s (%s to %s)", text, lo, hi);
        }
    } else {
        *(double *)target = value;
    }
    return add_fact(r, key, text, node);
}

/* --- maps by rows ------------------------------------------------------------------- */

static int unknown(const struct reader *r, const struct value_row *rows, const char *key,
                   const struct yaml_node *node)
{
    struct nearest nearest = { .typed = key };
    for (; rows->key; rows++) {
        const char *dot = strchr(rows->key, '.');
        nearest_offer(&nearest, rows->key);
        if (dot) /* a map's own name */
            nearest_offer(&nearest, arena_strndup(r->a, rows->key, dot - rows->key));
    }
    return option_unknown_key(key, nearest_found(&nearest), yaml_key_where(node, r->a));
}

static bool begins(const struct value_row *rows, const char *prefix)
{
    size_t n = strlen(prefix);
    for (; rows->key; rows++)
        if (strncmp(rows->key, prefix, n) == 0 && rows->key[n] == '.')
            return true;
    return false;
}

/* before: "tier node " for facts; prefix: "peak." of nested keys. */
static int read_map(struct reader *r, const struct value_row *rows, const char *before,
                    const char *prefix, const struct yaml_node *map, void *target)
{
    if (map->kind != YAML_MAP)
        return err_set(ERR_CONFIG, "%s: a map of keys was expected", yaml_where(map, r->a));
    for (const struct yaml_node *c = map->first; c; c = c->next) {
        const char *key = arena_printf(r->a, "%s%s", prefix, c->key);
        const struct value_row *row = rows;
        while (row->key && strcmp(row->key, key) != 0)
            row++;
        if (!row->key && !*prefix && begins(rows, key)) {
            TRY(read_map(r, rows, before, arena_printf(r->a, "%s.", key), c, target));
            continue;
        }
        if (!row->key)
            return unknown(r, rows, key, c);
        if (row->form == FORM_TEXT)
            TRY(want_text(r, c, (const char **)((char *)target + row->offset)));
        else if (row->form != FORM_SKIP)
            TRY(read_value(r, row, c, arena_printf(r->a, "%s%s", before, key),
                           (char *)target + row->offset));
    }
    return OK;
}

/* --- devices ------------------------------------------------------------------------ */

static int read_device(struct reader *r, const struct yaml_node *map)
{
    struct plan_device *d = &r->m->device;
    const struct yaml_node *own = yaml_get(map, "sources"), *outer = r->sources;
    r->sources = own ? own : outer;
    TRY(read_map(r, device_rows, "", "", map, d));
    r->sources = outer;
    if (d->memory_bytes == 0)
        d->memory_bytes = d->memory_sold_bytes;
    return machine_check_device(d, yaml_where(map, r->a));
}

/* NULL where there is none of that name. */
static const char *file_of(const char *folder, const char *name, struct arena *a)
{
    char path[4096];
    const char *file = arena_printf(a, "%s.yaml", name);
    if (strpbrk(name, "/. :") || plan_file_find(path, sizeof path, folder, file) < 0)
        return NULL;
    return arena_strdup(a, path);
}

static int no_device(const char *name, const char *where, struct arena *a)
{
    const char **names, *found;
    i64 n = 0;
    struct nearest nearest = { .typed = name };
    if (plan_machine_names(true, &names, &n, a) == OK)
        for (i64 i = 0; i < n; i++)
            nearest_offer(&nearest, names[i]);
    found = nearest_found(&nearest);
    return err_set(ERR_CONFIG, "%s%sno device '%s' in machines/devices/%s%s%s; 'headway plan "
                   "machine' lists them", where ? where : "", where ? ": " : "", name,
                   found ? "; did you mean '" : "", found ? found : "", found ? "'?" : "");
}

static void begin(struct reader *r, struct plan_machine *out, struct arena *a)
{
    *out = (struct plan_machine){ .currency = "" };
    out->algorithms = 1u << NET_RING | 1u << NET_TREE | 1u << NET_DIRECT | 1u << NET_IN_SWITCH;
    *r = (struct reader){ .m = out, .a = a };
    r->facts = ARENA_ARRAY(a, struct plan_fact, MACHINE_FACTS);
    out->facts = r->facts;
}

int machine_device_load(struct plan_machine *out, const char *name, struct arena *a)
{
    struct reader r;
    const struct yaml_node *root;
    const char *path = file_of("machines/devices", name, a);
    if (!path)
        return no_device(name, NULL, a);
    begin(&r, out, a);
    TRY(yaml_load(path, a, &root));
    TRY(read_device(&r, root));
    out->name = out->device.name = name;
    out->node_ranks = 1;
    out->provenance = path;
    return OK;
}

static int find_device(struct reader *r, const struct yaml_node *root)
{
    const struct yaml_node *node = yaml_get(root, "device");
    const char *name;
    if (!node)
        return err_set(ERR_CONFIG, "%s: no device; write device: h100-sxm, or a map with its "
                       "peaks, memory and links", yaml_where(root, r->a));
    if (node->kind == YAML_MAP) {
        TRY(read_device(r, node));
        if (!r->m->device.name)
            r->m->device.name = "device";
        return machine_check_known(&r->m->device, yaml_where(node, r->a), r->a);
    }
    struct plan_machine known;
    TRY(want_text(r, node, &name));
    if (!file_of("machines/devices", name, r->a))
        return no_device(name, yaml_where(node, r->a), r->a);
    TRY(machine_device_load(&known, name, r->a));
    r->m->device = known.device;
    memcpy(r->facts, known.facts, sizeof *r->facts * (size_t)known.n_facts);
    r->m->n_facts = known.n_facts;
    return OK;
}

/* --- tiers -------------------------------------------------------------------------- */

/* "32 nodes": of what the tier below is called, of devices in the first. */
static int read_size(struct reader *r, int i, const struct yaml_node *tier)
{
    const struct yaml_node *node = yaml_get(tier, "size");
    const char *text, *of, *below = i ? r->m->tiers[i - 1].name : "device";
    double count;
    if (!node) {
        r->m->tiers[i].ranks = 0;
        return OK;
    }
    TRY(want_text(r, node, &text));
    TRY(quantity_parse(text, QUANTITY_COUNT, yaml_where(node, r->a), &count, &of));
    size_t n = strlen(below);
    if (strncmp(of, below, n) != 0 || (of[n] && strcmp(of + n, "s") != 0))
        return err_set(ERR_CONFIG, "%s: a tier counts what is in it: write '%.0f %ss'%s",
                       yaml_where(node, r->a), count, below,
                       *of ? "" : "; every quantity has its unit");
    r->m->tiers[i].ranks = (i64)count * (i ? r->m->tiers[i - 1].ranks : 1);
    return OK;
}

static int read_wiring(struct reader *r, struct plan_tier *t, const struct yaml_node *tier)
{
    const struct yaml_node *node = yaml_get(tier, "wiring"), *axes = yaml_get(tier, "axes");
    const struct yaml_node *sums = yaml_get(tier, "switch_sums");
    const char *name = "switch", *count = "1", *yes = "no";
    if (node)
        TRY(want_text(r, node, &name));
    if (axes)
        TRY(want_text(r, axes, &count));
    if (sums)
        TRY(want_text(r, sums, &yes));
    t->reduces = strcmp(yes, "yes") == 0;
    if (sums && !t->reduces && strcmp(yes, "no") != 0)
        return err_set(ERR_CONFIG, "%s: switch_sums is yes or no", yaml_where(sums, r->a));
    while (t->wiring < PLAN_WIRINGS && strcmp(plan_wiring_names[t->wiring], name) != 0)
        t->wiring++;
    if (t->wiring == PLAN_WIRINGS)
        return err_set(ERR_CONFIG, "%s: no wiring '%s'; it is switch (also a fat tree, with its "
                       "oversubscription), rail, torus or mesh", yaml_where(node, r->a), name);
    t->axes = atoi(count);
    if (t->axes < 1 || t->axes > 3 || (axes && t->wiring != PLAN_TORUS))
        return err_set(ERR_CONFIG, "%s: axes are those of a torus: 1, 2 or 3",
                       yaml_where(axes, r->a));
    return OK;
}

static int read_tier(struct reader *r, const struct yaml_node *node)
{
    int i = r->m->n_tiers;
    struct plan_tier *t = &r->m->tiers[i];
    const struct yaml_node *name = yaml_get(node, "name");
    if (i == PLAN_TIERS)
        return err_set(ERR_CONFIG, "%s: more than %d tiers", yaml_where(node, r->a), PLAN_TIERS);
    if (i && r->m->tiers[i - 1].ranks == 0)
        return err_set(ERR_CONFIG, "%s: tier '%s' has no size, so nothing can be around it; only "
                       "the last tier may leave it out", yaml_where(node, r->a),
                       r->m->tiers[i - 1].name);
    if (!name || name->kind != YAML_SCALAR)
        return err_set(ERR_CONFIG, "%s: a tier needs a name, such as node", yaml_where(node, r->a));
    machine_tier_begin(r->m, i);
    TRY(read_map(r, tier_rows, arena_printf(r->a, "%s.", name->text), "", node, t));
    TRY(read_size(r, i, node));
    TRY(read_wiring(r, t, node));
    t->reached = t->piece_bytes > 0;
    r->m->n_tiers++;
    machine_tier_settle(r->m, i, yaml_get(node, "latency") != NULL);
    return machine_check_tier(r->m, i, yaml_where(node, r->a));
}

/* --- machines ----------------------------------------------------------------------- */

int plan_price_parse(const char *text, const char *where, double *amount, const char **currency,
                     struct arena *a)
{
    char *end;
    double value = strtod(text, &end);
    while (*end == ' ')
        end++;
    size_t n = strcspn(end, "/");
    if (end == text || !(value >= 0 && value < 1e9) || n < 1 || n > 8 ||
        strcmp(end + n, "/h") != 0)
        return err_set(ERR_CONFIG, "%s: '%s' is no price; write what one device costs in an hour, "
                       "such as 4.2 USD/h", where, text);
    *amount = value;
    *currency = arena_strndup(a, end, (i64)n);
    return OK;
}

int plan_price_find(const char *text, const struct plan_machine *m, double *amount,
                    const char **currency, struct arena *a)
{
    const struct yaml_node *root, *price;
    if (sys_file_bytes(text) < 0)
        return plan_price_parse(text, "--price", amount, currency, a);
    TRY(yaml_load(text, a, &root));
    price = yaml_get(root, m->name);
    if (!price)
        price = yaml_get(root, m->device.name);
    if (!price || price->kind != YAML_SCALAR)
        return err_set(ERR_CONFIG, "%s has no price of %s; add a line '%s: 4.2 USD/h'", text,
                       m->device.name, m->device.name);
    return plan_price_parse(price->text, yaml_where(price, a), amount, currency, a);
}

static int read_host(struct reader *r, const struct yaml_node *root)
{
    const struct yaml_node *node = yaml_get(root, "host");
    const char *text, *of;
    double count;
    if (!node)
        return OK;
    TRY(want_text(r, node, &text));
    TRY(quantity_parse(text, QUANTITY_COUNT, yaml_where(node, r->a), &count, &of));
    if (strncmp(of, "device", 6) != 0)
        return err_set(ERR_CONFIG, "%s: host is how many devices share one: write '%.0f devices'",
                       yaml_where(node, r->a), count);
    r->m->node_ranks = (i64)count;
    return OK;
}

static int read_algorithms(struct reader *r, const struct yaml_node *list)
{
    if (!list)
        return OK;
    r->m->algorithms = 1u << NET_DIRECT;
    for (const struct yaml_node *c = list->first; c; c = c->next) {
        struct nearest nearest = { .typed = c->kind == YAML_SCALAR ? c->text : "" };
        int at = 0;
        while (at < NET_ALGORITHMS && strcmp(net_algorithm_names[at], nearest.typed) != 0)
            nearest_offer(&nearest, net_algorithm_names[at++]);
        if (at == NET_ALGORITHMS)
            return err_set(ERR_CONFIG, "%s: no algorithm '%s'; there are ring, tree, doubling, "
                           "hierarchical, direct and in-switch", yaml_where(c, r->a),
                           nearest.typed);
        r->m->algorithms |= 1u << at;
    }
    return OK;
}

int plan_machine_read(struct plan_machine *out, const struct yaml_node *root, struct arena *a)
{
    struct reader r;
    const char *text;
    begin(&r, out, a);
    if (root->kind != YAML_MAP)
        return err_set(ERR_CONFIG, "%s: a machine is a map: device, tiers", yaml_where(root, a));
    r.sources = yaml_get(root, "sources");
    if (yaml_get(root, "peak")) { /* a device alone */
        TRY(read_device(&r, root));
        out->node_ranks = 1;
        if (!out->device.name)
            out->device.name = root->file;
        out->name = out->device.name;
        out->provenance = root->file;
        return machine_check_known(&out->device, root->file, a);
    }
    TRY(find_device(&r, root));
    TRY(read_map(&r, machine_rows, "", "", root, out));
    TRY(read_host(&r, root));
    TRY(read_algorithms(&r, yaml_get(root, "algorithms")));
    const struct yaml_node *price = yaml_get(root, "price"), *tiers = yaml_get(root, "tiers");
    if (price) {
        TRY(want_text(&r, price, &text));
        TRY(plan_price_parse(text, yaml_where(price, a), &out->price_per_hour, &out->currency, a));
    }
    if (!tiers || tiers->kind != YAML_LIST || tiers->count == 0)
        return err_set(ERR_CONFIG, "%s: no tiers; write a list, from the node outwards",
                       yaml_where(tiers ? tiers : root, a));
    for (const struct yaml_node *t = tiers->first; t; t = t->next)
        TRY(read_tier(&r, t));
    if (!out->name)
        out->name = root->file;
    out->provenance = root->file;
    return machine_check_whole(out, root->file);
}

int plan_machine_load(struct plan_machine *out, const char *name, struct arena *a)
{
    const struct yaml_node *root;
    if (strcmp(name, "here") == 0)
        return machine_here(out, a);
    bool is_file = strchr(name, '.') && sys_file_bytes(name) >= 0;
    const char *path = is_file ? name : file_of("machines", name, a);
    if (path) {
        TRY(yaml_load(path, a, &root));
        return plan_machine_read(out, root, a);
    }
    if (strpbrk(name, " :"))
        return plan_machine_line(out, name, a);
    if (file_of("machines/devices", name, a))
        return machine_device_load(out, name, a);
    const char **names;
    struct nearest nearest = { .typed = name };
    for (int devices = 0; devices < 2; devices++) {
        i64 n = 0;
        TRY(plan_machine_names(devices, &names, &n, a));
        for (i64 i = 0; i < n; i++)
            nearest_offer(&nearest, names[i]);
    }
    const char *found = nearest_found(&nearest);
    return err_set(ERR_CONFIG, "no machine '%s'%s%s%s: it is neither a file nor a name in "
                   "machines/, nor a line such as \"h100-sxm node:8 pod:32x50GB/s\"; 'headway plan "
                   "machine' lists the names", name, found ? " (did you mean '" : "",
                   found ? found : "", found ? "'?)" : "");
}

int plan_machine_names(bool devices, const char ***names, i64 *n, struct arena *a)
{
    return plan_file_names(devices ? "machines/devices" : "machines", names, n, a);
}
