/* model/hf_keys.h - the keys of a config.json: read by type, and looked at for surprises.
 *
 * A reader remembers its first complaint in rc, so that a row of reads needs one check
 * after it. A key that is absent or null gives the fallback; a value of another type is
 * refused by name. Keys that are not read here or by the caller are ignored, except those
 * that change what a model computes: hf_keys_neutral knows them. */
#ifndef HEADWAY_HF_KEYS_H
#define HEADWAY_HF_KEYS_H

#include "base/json.h"

struct hf_keys {
    const json_t *object; /* NULL: every key is absent */
    const char *where;    /* the file, for messages */
    const char *prefix;   /* "rope_scaling." for keys of that object, or "" */
    int rc;
};

i64 hf_keys_integer(struct hf_keys *k, const char *key, i64 fallback);
double hf_keys_number(struct hf_keys *k, const char *key, double fallback);
bool hf_keys_truth(struct hf_keys *k, const char *key, bool fallback);
const char *hf_keys_string(struct hf_keys *k, const char *key, const char *fallback);
/* An object within, or one without keys. */
struct hf_keys hf_keys_object(struct hf_keys *k, const char *key, const char *prefix);

/* Refuses keys that ask for mathematics this program does not have, unless their value is
 * the one that changes nothing; how many experts there are, only where the family has none. */
int hf_keys_neutral(const struct hf_keys *k, bool sparse);
/* A list of the layers' numbers in some order, without gaps from 0 on: how many. */
i64 hf_keys_first_layers(struct hf_keys *k, const char *key);
/* layer_types must name one kind of attention for all layers: the one of the window. */
int hf_keys_layer_types(const struct hf_keys *k, i64 layers, bool window);
/* Refuses every key of the object that is not among the n known ones. */
int hf_keys_only(const struct hf_keys *k, const char *const *known, i64 n);

#endif
