#include "base/err.h"
#include "base/json.h"
#include "base/text.h"
#include "plan/machine_impl.h"
#include "plan/quantity.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const plan_dtype_names[PLAN_DTYPES] = { "fp32", "fp16", "bf16", "fp8",
                                                       "fp4" };
const char *const plan_wiring_names[PLAN_WIRINGS] = { "switch", "rail", "torus", "mesh" };
const char *const net_algorithm_names[NET_ALGORITHMS] = { "ring", "tree", "doubling",
                                                          "hierarchical", "direct",
                                                          "in-switch" };

/* --- reading ------------------------------------------------------------------------ */

static int bad_tier(const char *word)
{
    return err_set(ERR_CONFIG, "--machine: '%s' is no tier; write NAME:COUNT, then xRATE (of one "
                   "device, one way), ~LATENCY, /OVERSUBSCRIPTION, +rail or +torus3 as needed, "
                   "such as pod:32x50GB/s~8us/2", word);
}

/* Up to what begins the next part: '~', '+', or a '/' before a digit. */
static const char *part_end(const char *p)
{
    while (*p && *p != '~' && *p != '+' && !(*p == '/' && isdigit((unsigned char)p[1])))
        p++;
    return p;
}

static int read_band(const char *from, const char *to, enum quantity kind, const char *where,
                     struct plan_band *band, struct arena *a)
{
    double value;
    const char *text = arena_printf(a, "%.*s%s", (int)(to - from), from,
                                    kind == QUANTITY_LINK ? " one-way" : "");
    TRY(quantity_parse(text, kind, where, &value, NULL));
    *band = (struct plan_band){ value, value, value };
    return OK;
}

static int read_wiring(struct plan_tier *t, const char *text, const char *word)
{
    if (strcmp(text, "sums") == 0) {
        t->reduces = true;
        return OK;
    }
    if (strcmp(text, "rail") == 0 || strcmp(text, "mesh") == 0) {
        t->wiring = *text == 'r' ? PLAN_RAIL : PLAN_MESH;
        return OK;
    }
    if (strncmp(text, "torus", 5) != 0 || !strchr("123", text[5]) || !text[5] || text[6])
        return bad_tier(word);
    t->wiring = PLAN_TORUS;
    t->axes = text[5] - '0';
    return OK;
}

/* "+pieces256MB", "+sum12us": of collectives that were timed. Anything else: how it is wired. */
static int read_more(struct plan_tier *t, const char *text, const char *word, const char *where)
{
    if (!strncmp(text, "sum", 3) && isdigit((unsigned char)text[3]))
        return quantity_parse(text + 3, QUANTITY_SECONDS, where, &t->sum_latency_s, NULL);
    if (!strncmp(text, "pieces", 6)) {
        TRY(quantity_parse(text + 6, QUANTITY_BYTES, where, &t->piece_bytes, NULL));
        t->reached = t->piece_bytes > 0;
        return OK;
    }
    return read_wiring(t, text, word);
}

/* What follows the count. */
static int read_parts(struct plan_tier *t, const char *p, const char *word, const char *where,
                      struct arena *a)
{
    while (*p) {
        const char *begin = p + 1, *end = part_end(begin);
        if (*p == 'x') {
            TRY(read_band(begin, end, QUANTITY_LINK, where, &t->bytes_per_s, a));
        } else if (*p == '~') {
            TRY(read_band(begin, end, QUANTITY_SECONDS, where, &t->latency_s, a));
        } else if (*p == '/') {
            struct plan_band over;
            TRY(read_band(begin, end, QUANTITY_RATIO, where, &over, a));
            t->oversubscription = over.mid;
        } else if (*p == '+') {
            TRY(read_more(t, arena_strndup(a, begin, end - begin), word, where));
        } else {
            return bad_tier(word);
        }
        p = end;
    }
    return OK;
}

/* "pod:32x50GB/s" */
static int read_tier(struct plan_machine *m, const char *word, struct arena *a)
{
    const char *colon = strchr(word, ':'), *where = arena_printf(a, "--machine '%s'", word);
    char *end;
    int i = m->n_tiers;
    if (!colon || colon == word || (!isdigit((unsigned char)colon[1]) && colon[1] != '*'))
        return bad_tier(word);
    if (i == PLAN_TIERS)
        return err_set(ERR_CONFIG, "%s: more than %d tiers", where, PLAN_TIERS);
    if (i && m->tiers[i - 1].ranks == 0)
        return err_set(ERR_CONFIG, "%s: the tier before it counts *, so nothing is around it",
                       where);
    long count = colon[1] == '*' ? 0 : strtol(colon + 1, &end, 10);
    if (colon[1] == '*')
        end = (char *)colon + 2;
    else if (count < 1 || count > 1000000000)
        return bad_tier(word);
    machine_tier_begin(m, i);
    struct plan_tier *t = &m->tiers[i];
    t->name = arena_strndup(a, word, colon - word);
    t->ranks = count * (i ? m->tiers[i - 1].ranks : 1);
    TRY(read_parts(t, end, word, where, a));
    m->n_tiers++;
    machine_tier_settle(m, i, strchr(word, '~') != NULL);
    return machine_check_tier(m, i, where);
}

static int read_setting(struct plan_machine *m, const char *word, struct arena *a)
{
    const char *is = strchr(word, '=') + 1, *where = arena_printf(a, "--machine '%s'", word);
    if (strncmp(word, "price=", 6) == 0)
        return plan_price_parse(is, where, &m->price_per_hour, &m->currency, a);
    if (strncmp(word, "pue=", 4) == 0)
        return quantity_parse(is, QUANTITY_RATIO, where, &m->pue, NULL);
    if (strncmp(word, "at=", 3) != 0)
        return err_set(ERR_CONFIG, "%s: no such setting; there are price=, pue= and at=", where);
    m->location = is;
    return OK;
}

static int read_word(struct plan_machine *m, const char *word, struct arena *a)
{
    if (strchr(word, '='))
        return read_setting(m, word, a);
    if (strncmp(word, "host:", 5) == 0) {
        m->node_ranks = atol(word + 5);
        return m->node_ranks >= 1 && m->node_ranks <= 1000000 ? OK : bad_tier(word);
    }
    return read_tier(m, word, a);
}

int plan_machine_line(struct plan_machine *out, const char *line, struct arena *a)
{
    char *copy = arena_strdup(a, line), *rest;
    char *word = strtok_r(copy, " ", &rest);
    if (!word)
        return err_set(ERR_CONFIG, "--machine: an empty line describes no machine");
    TRY(machine_device_load(out, word, a));
    out->node_ranks = 0;
    while ((word = strtok_r(NULL, " ", &rest)))
        TRY(read_word(out, word, a));
    out->name = arena_strdup(a, line);
    if (out->n_tiers > 0)
        return machine_check_whole(out, "--machine");
    out->node_ranks = 1;
    return OK;
}

/* --- writing ------------------------------------------------------------------------ */

static void add_quantity(struct text *out, const char *before, double value, enum quantity kind)
{
    char said[48];
    quantity_text(value, kind, said, sizeof said);
    text_add(out, before);
    for (const char *c = said; *c; c++)
        if (*c != ' ')
            text_add_bytes(out, c, 1);
}

static void add_tier(const struct plan_machine *m, int i, struct text *out)
{
    const struct plan_tier *t = &m->tiers[i];
    i64 inner = i ? m->tiers[i - 1].ranks : 1;
    if (m->unlimited && i == m->n_tiers - 1)
        text_printf(out, " %s:*", t->name);
    else
        text_printf(out, " %s:%lld", t->name, (long long)(t->ranks / inner));
    add_quantity(out, "x", t->bytes_per_s.mid, QUANTITY_RATE);
    add_quantity(out, "~", t->latency_s.mid, QUANTITY_SECONDS);
    if (t->oversubscription != 1)
        text_printf(out, "/%.6g", t->oversubscription);
    if (t->sum_latency_s > 0)
        add_quantity(out, "+sum", t->sum_latency_s, QUANTITY_SECONDS);
    if (t->piece_bytes > 0)
        add_quantity(out, "+pieces", t->piece_bytes, QUANTITY_BYTES);
    if (t->reduces)
        text_add(out, "+sums");
    if (t->wiring == PLAN_TORUS)
        text_printf(out, "+torus%d", t->axes);
    else if (t->wiring != PLAN_SWITCH)
        text_printf(out, "+%s", plan_wiring_names[t->wiring]);
}

const char *plan_machine_text(const struct plan_machine *m, struct arena *a)
{
    struct text out = { 0 };
    text_add(&out, m->device.name);
    for (int i = 0; i < m->n_tiers; i++)
        add_tier(m, i, &out);
    if (m->n_tiers > 0 && m->node_ranks != m->tiers[0].ranks)
        text_printf(&out, " host:%lld", (long long)m->node_ranks);
    const char *copy = arena_strdup(a, out.data);
    text_fini(&out);
    return copy;
}

int plan_machine_room(const struct plan_machine *m, i64 devices)
{
    i64 most = m->n_tiers ? m->tiers[m->n_tiers - 1].ranks : 1;
    if (devices <= most)
        return OK;
    if (m->n_tiers == 0)
        return err_set(ERR_USAGE, "%lld devices, but '%s' is one device with nothing around it; "
                       "describe how they are joined: --machine \"%s node:8 fabric:*x50GB/s\"",
                       (long long)devices, m->name, m->device.name);
    return err_set(ERR_USAGE, "%lld devices, but %s has %lld; say how many: --gpus %lld",
                   (long long)devices, m->name, (long long)most, (long long)most);
}

void plan_band_json(struct json *j, const char *key, const struct plan_band *b)
{
    if (b->mid == 0)
        return;
    json_key(j, key);
    json_begin_object(j);
    json_put_double(j, "p10", b->lo);
    json_put_double(j, "p50", b->mid);
    json_put_double(j, "p90", b->hi);
    json_end(j);
}

static void put_rates(struct json *j, const char *key, const double rates[PLAN_DTYPES])
{
    json_key(j, key);
    json_begin_object(j);
    for (int t = 0; t < PLAN_DTYPES; t++)
        if (rates[t] > 0)
            json_put_double(j, plan_dtype_names[t], rates[t]);
    json_end(j);
}

static void put_device(struct json *j, const struct plan_device *d)
{
    json_key(j, "device");
    json_begin_object(j);
    json_put_str(j, "name", d->name);
    json_put_str(j, "family", d->family);
    put_rates(j, "peak_flops_per_s", d->peak);
    put_rates(j, "reached_flops_per_s", d->reached);
    json_put_double(j, "memory_bytes", d->memory_bytes);
    json_put_double(j, "memory_bytes_per_s", d->memory_bytes_per_s);
    json_put_double(j, "link_bytes_per_s", d->link_bytes_per_s);
    json_put_double(j, "network_bytes_per_s", d->network_bytes_per_s);
    json_put_double(j, "idle_w", d->idle_w);
    json_put_double(j, "peak_w", d->peak_w);
    json_end(j);
}

static void put_tier(struct json *j, const struct plan_tier *t, bool open)
{
    json_begin_object(j);
    json_put_str(j, "name", t->name);
    if (open)
        json_put_str(j, "devices", NULL);
    else
        json_put_int(j, "devices", t->ranks);
    plan_band_json(j, "bytes_per_s", &t->bytes_per_s);
    plan_band_json(j, "latency_s", &t->latency_s);
    json_put_double(j, "oversubscription", t->oversubscription);
    json_put_double(j, "sum_latency_s", t->sum_latency_s > 0 ? t->sum_latency_s : t->latency_s.mid);
    json_put_double(j, "piece_bytes", t->piece_bytes);
    json_put_str(j, "wiring", plan_wiring_names[t->wiring]);
    json_end(j);
}

static void put_facts(struct json *j, const struct plan_machine *m)
{
    json_key(j, "values");
    json_begin_array(j);
    for (i64 i = 0; i < m->n_facts; i++) {
        json_begin_object(j);
        json_put_str(j, "key", m->facts[i].key);
        json_put_str(j, "value", m->facts[i].value);
        json_put_str(j, "source", m->facts[i].source);
        json_put_bool(j, "verified", m->facts[i].verified);
        json_end(j);
    }
    json_end(j);
}

void plan_machine_json(const struct plan_machine *m, struct json *j)
{
    json_begin_object(j);
    json_put_str(j, "name", m->name);
    put_device(j, &m->device);
    json_put_int(j, "host_devices", m->node_ranks);
    json_put_double(j, "collective_start_s", m->call_s);
    json_key(j, "tiers");
    json_begin_array(j);
    for (int i = 0; i < m->n_tiers; i++)
        put_tier(j, &m->tiers[i], m->unlimited && i == m->n_tiers - 1);
    json_end(j);
    put_facts(j, m);
    json_end(j);
}
