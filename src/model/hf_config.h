/* model/hf_config.h - config.json and our spec. Internal to hf.c's room. */
#ifndef HEADWAY_HF_CONFIG_H
#define HEADWAY_HF_CONFIG_H

#include "base/json.h"
#include "model/hf.h"

/* Fills the spec from a parsed config.json; where stands for the file in messages. */
int hf_config_read(struct model_spec *out, const json_t *config, const char *where,
                   struct arena *a);
/* Refuses specs that no family of Hugging Face expresses. */
int hf_config_write(const struct model_spec *s, const struct hf_export *how,
                    struct json *out);

#endif
