/* Model specs, and weights from and to Hugging Face folders. */
#include "base/err.h"
#include "base/log.h"
#include "base/sys.h"
#include "cli/command.h"
#include "base/text.h"
#include "data/chat.h"
#include "data/tokenizer.h"
#include "model/hf.h"
#include "train/restore.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- list --------------------------------------------------------------------------- */

/* Of a file's name without ".yaml"; 0: it is no model. */
static int name_length(const char *file)
{
    size_t length = strlen(file);
    bool yaml = length > 5 && strcmp(file + length - 5, ".yaml") == 0;
    return yaml ? (int)length - 5 : 0;
}

static void print_row(const char *file, int width, struct arena *a)
{
    struct model_spec s;
    char name[256];
    snprintf(name, sizeof name, "%.*s", name_length(file), file);
    if (spec_load(&s, name, a) < 0) {
        log_line(LOG_WARN, "%s", err_message());
        return;
    }
    char vocab[24] = "any";
    if (s.vocab)
        snprintf(vocab, sizeof vocab, "%lld", (long long)s.vocab);
    printf("%-*s %-6s %9.1f M %4lld %6lld %5lld %5lld %8s %8lld\n", width, name,
           s.family == FAMILY_GPT2 ? "gpt2" : "llama", 1e-6 * (double)params_total(&s),
           (long long)s.layers, (long long)s.width, (long long)s.heads, (long long)s.kv_heads,
           vocab, (long long)s.positions);
}

static int list(struct invocation *v)
{
    char path[4096], **names;
    int width = 4;
    TRY(spec_find("gpt2-124m", path, sizeof path));
    *strrchr(path, '/') = '\0';
    int n = sys_list(path, &names);
    if (n < 0)
        return err_set(ERR_SYS, "cannot read the folder %s", path);
    for (int i = 0; i < n; i++)
        width = name_length(names[i]) > width ? name_length(names[i]) : width;
    printf("%-*s %-6s %11s %4s %6s %5s %5s %8s %8s\n", width, "name", "kind", "parameters", "L",
           "C", "H", "G", "V", "P");
    for (int i = 0; i < n; i++)
        if (name_length(names[i]) > 0)
            print_row(names[i], width, v->arena);
    sys_free(names);
    printf("\nV any: the tokenizer's vocabulary, whose embedding of V C parameters comes on "
           "top.\n");
    return OK;
}

static const struct example list_examples[] = {
    { "headway model list", "Every model in models/, with its size." }, { 0 } };

static const struct command cmd_list = {
    .name = "list", .summary = "List the known models",
    .description = "Vocabulary 0 is taken from the tokenizer when training starts.",
    .examples = list_examples, .run = list,
};

/* --- describe ----------------------------------------------------------------------- */

static int find_spec(struct model_spec *s, const char *what, struct arena *a)
{
    struct restore r;
    if (hf_is_folder(what))
        return hf_read_spec(s, what, a);
    struct stat st;
    if (sys_stat(what, &st) == 0 && S_ISDIR(st.st_mode)) {
        TRY(restore_find(&r, what, a));
        *s = r.spec;
        return OK;
    }
    return spec_load(s, what, a);
}

static bool is_first_sparse(const struct model_spec *s, i64 layer)
{
    return spec_is_sparse(s, layer) && !spec_is_sparse(s, layer - 1);
}

static void print_params(const struct model_spec *s, struct arena *a)
{
    i64 n;
    struct param_desc *p = params_of(s, a, &n);
    printf("\n%-32s %20s %6s  Hugging Face\n", "parameter", "shape", "decay");
    for (i64 i = 0; i < n; i++) {
        char shape[48];
        i64 parts = params_foreign_count(s, &p[i]);
        if (p[i].layer > 0 && !is_first_sparse(s, p[i].layer))
            continue; /* all dense blocks are alike, and all sparse ones */
        if (p[i].experts > 1)
            snprintf(shape, sizeof shape, "%lld of %lld x %lld", (long long)p[i].experts,
                     (long long)(p[i].dim[0] / p[i].experts), (long long)p[i].dim[1]);
        else if (p[i].rank == 2)
            snprintf(shape, sizeof shape, "%lld x %lld", (long long)p[i].dim[0],
                     (long long)p[i].dim[1]);
        else
            snprintf(shape, sizeof shape, "%lld", (long long)p[i].dim[0]);
        printf("%-32s %20s %6s ", p[i].name, shape, param_decays(&p[i]) ? "yes" : "no");
        for (i64 k = 0; k < parts / p[i].experts; k++) {
            struct foreign_piece piece = params_foreign(s, &p[i], k);
            printf(" %s%s", piece.name, piece.transposed ? " (transposed)" : "");
        }
        printf(p[i].experts > 1 ? " ...\n" : "\n");
    }
}

static int describe(struct invocation *v)
{
    struct model_spec s;
    struct text yaml = { 0 };
    TRY(find_spec(&s, v->args[0], v->arena));
    spec_write_yaml(&s, &yaml);
    printf("%s\n", yaml.data);
    text_fini(&yaml);
    printf("parameters          %lld\n", (long long)params_total(&s));
    if (s.experts > 0)
        printf("active per token    %lld\n", (long long)params_active(&s));
    printf("of them in products %lld (6 x that = %.1f MFLOP per token, attention apart)\n",
           (long long)params_matmul(&s), 6e-6 * (double)params_matmul(&s));
    if (s.vocab > 0) {
        printf("memory, fp32 AdamW  %.2f GB without activations\n",
               1e-9 * (double)model_bytes(&s, DTYPE_F32, MODEL_GRADS | MODEL_ADAM, 1));
        printf("memory, bf16 AdamW  %.2f GB without activations\n",
               1e-9 * (double)model_bytes(&s, DTYPE_BF16, MODEL_GRADS | MODEL_ADAM, 1));
    }
    print_params(&s, v->arena);
    return OK;
}

static const struct example describe_examples[] = {
    { "headway model describe gpt2-124m", "Its settings, counts, memory and parameters." },
    { 0 } };

static const struct command cmd_describe = {
    .name = "describe", .summary = "Show a model's settings, parameters and memory",
    .arguments = "MODEL",
    .description = "MODEL is a name from 'headway model list', a YAML file, a Hugging Face "
                   "folder, or a run.",
    .min_args = 1, .max_args = 1, .examples = describe_examples, .run = describe,
};

/* --- import ------------------------------------------------------------------------- */

struct import_options {
    const char *out;
};

static const struct option import_table[] = {
    { "out", OPTION_FIELD(PATH, struct import_options, out), NULL,
      .help = "File to write the spec to, such as models/NAME.yaml; without it, it is printed." },
    { 0 },
};

static int write_spec(const char *path, const struct text *yaml)
{
    int fd = sys_open(path, O_WRONLY | O_CREAT | O_EXCL, 0644);
    if (fd < 0)
        return err_set(ERR_SYS, "create %s: %s", path, strerror(errno));
    bool failed = sys_write_full(fd, yaml->data, yaml->length) != 0;
    int cause = errno;
    failed = sys_close(fd) != 0 || failed;
    if (failed)
        sys_unlink(path);
    return failed ? err_set(ERR_SYS, "write %s: %s", path, strerror(cause)) : OK;
}

static void print_next(const char *folder, const char *out, const struct model_spec *s)
{
    printf("%s: %lld parameters; every tensor is in %s with the right shape\n\n", out,
           (long long)params_total(s), folder);
    printf("its architecture, from random weights:  model: {spec: %s}\n"
           "its weights, to train on:               model: {from: %s}\n"
           "to try it:                              headway sample %s --prompt \"...\"\n", out,
           folder, folder);
}

static int import_spec(struct invocation *v)
{
    const struct import_options *o = v->options;
    const char *folder = v->args[0];
    struct model_spec s;
    struct text yaml = { 0 };
    TRY(hf_read_spec(&s, folder, v->arena));
    TRY(hf_check_weights(&s, folder, v->arena));
    TRY(hf_tell_dropout(folder, v->arena));
    text_printf(&yaml, "# From %s/config.json. To start from its weights: --set model.from=%s\n",
                folder, folder);
    spec_write_yaml(&s, &yaml);
    int rc = o->out ? write_spec(o->out, &yaml) : OK;
    if (rc >= 0 && o->out)
        print_next(folder, o->out, &s);
    else if (rc >= 0)
        printf("%s", yaml.data);
    text_fini(&yaml);
    return rc;
}

static const struct example import_examples[] = {
    { "headway model import gpt2/ --out models/my-gpt2.yaml",
      "A spec that recipes name: model: {spec: my-gpt2}." }, { 0 } };

static const struct command cmd_import = {
    .name = "import", .summary = "Turn a Hugging Face folder into a model spec",
    .arguments = "FOLDER",
    .description = "Reads config.json, checks that every tensor is there with the right shape, "
                   "and writes the spec as YAML. Nothing else is converted, because the folder "
                   "itself is read wherever a model is asked for: 'model.from' in a recipe, "
                   "'headway eval', 'headway sample'.",
    .options = import_table, .options_bytes = sizeof(struct import_options),
    .min_args = 1, .max_args = 1, .examples = import_examples, .run = import_spec,
};

/* --- export ------------------------------------------------------------------------- */

struct export_options {
    const char *out;
    bool in_bf16, ema, overwrite;
    i64 max_file;
};

static const struct option export_table[] = {
    { "out", OPTION_FIELD(PATH, struct export_options, out), NULL,
      .help = "Folder to write; made if absent." },
    { "bf16", OPTION_FIELD(BOOL, struct export_options, in_bf16), "no",
      .help = "Store bf16 instead of fp32." },
    { "ema", OPTION_FIELD(BOOL, struct export_options, ema), "no",
      .help = "Export the averaged weights." },
    { "max_file", OPTION_FIELD(SIZE, struct export_options, max_file), "5G", .unit = "bytes",
      .min = 1e6, .max = 1e15, .help = "Larger models become several files and an index." },
    { "overwrite", OPTION_FIELD(BOOL, struct export_options, overwrite), "no",
      .help = "Replace a model that the folder has already." },
    { 0 },
};

static int write_folder(const struct model *m, const struct restore *r,
                        const struct export_options *o)
{
    struct hf_export how = { o->in_bf16 ? DTYPE_BF16 : DTYPE_F32, o->max_file, -1, -1 };
    struct tokenizer *t = NULL;
    char path[4096];
    if (*r->tokenizer)
        TRY(tokenizer_open(&t, r->tokenizer));
    if (t) {
        how.bos = tokenizer_bos(t);
        how.eos = tokenizer_eos(t);
    }
    int rc = hf_write(m, o->out, &how);
    snprintf(path, sizeof path, "%s/tokenizer.json", o->out);
    if (rc >= 0 && t)
        rc = tokenizer_save(t, path);
    snprintf(path, sizeof path, "%s/tokenizer_config.json", o->out);
    if (rc >= 0 && t)
        rc = tokenizer_save_config(t, m->spec.positions, path);
    snprintf(path, sizeof path, "%s/generation_config.json", o->out);
    if (rc >= 0 && t && (tokenizer_eos(t) >= 0 || chat_style_of(t).close >= 0))
        rc = tokenizer_save_generation(t, path);
    tokenizer_free(t);
    return rc;
}

static bool has(const struct export_options *o, const char *name, struct arena *a)
{
    return sys_exists(arena_printf(a, "%s/%s", o->out, name));
}

/* The first file that somebody sees there, or NULL; .git and the like do not count. */
static int first_file(const char *folder, const char **name, struct arena *a)
{
    char **names;
    int n = sys_list(folder, &names);
    *name = NULL;
    if (n < 0)
        return errno == ENOENT ? OK : err_set(ERR_SYS, "list %s: %s", folder, strerror(errno));
    for (int i = 0; i < n && !*name; i++)
        if (names[i][0] != '.')
            *name = arena_strdup(a, names[i]);
    sys_free(names);
    return OK;
}

/* What a folder has is somebody's; only a model there may be replaced, when they say so. */
static int check_free(const struct export_options *o, struct arena *a)
{
    const char *file;
    TRY(first_file(o->out, &file, a));
    if (!file)
        return OK;
    const bool model = has(o, "model.safetensors", a) ||
                       has(o, "model.safetensors.index.json", a);
    if (!model)
        return err_set(ERR_USAGE, "%s has other files, such as %s; choose another folder", o->out,
                       file);
    return o->overwrite ? OK : err_set(ERR_USAGE, "%s has a model already; choose another folder, "
                                       "or replace the model in it with --overwrite", o->out);
}

static int export_model(struct invocation *v)
{
    const struct export_options *o = v->options;
    struct restore r;
    struct model *m = NULL;
    struct pool *pool;
    if (!o->out)
        return err_set(ERR_USAGE, "give the folder to write: --out FOLDER");
    TRY(check_free(o, v->arena));
    TRY(restore_find(&r, v->args[0], v->arena));
    TRY(pool_new(&pool, sys_cpu_count(), false));
    const bool made = !sys_exists(o->out);
    int rc = restore_model(&m, &r, DTYPE_F32, 1, o->ema, pool, v->arena);
    if (rc >= 0)
        rc = write_folder(m, &r, o);
    if (rc < 0 && made)
        sys_rmdir(o->out); /* empty, or it stays */
    model_free(m);
    pool_free(pool);
    if (rc >= 0)
        printf("%s\n", o->out);
    return rc;
}

static const struct example export_examples[] = {
    { "headway model export runs/demo --out demo-hf",
      "A folder that transformers loads: AutoModelForCausalLM.from_pretrained(\"demo-hf\")." },
    { 0 } };

static const struct command cmd_export = {
    .name = "export", .summary = "Write a model as a Hugging Face folder",
    .arguments = "MODEL",
    .description = "MODEL is a run, a folder of checkpoints, or one step-N of it. Writes "
                   "config.json and model.safetensors, and of its tokenizer tokenizer.json, "
                   "tokenizer_config.json, with the template by which it was shown conversations, "
                   "and generation_config.json, with the tokens at which its answers end.",
    .options = export_table, .options_bytes = sizeof(struct export_options),
    .min_args = 1, .max_args = 1, .examples = export_examples, .run = export_model,
};

static const struct command *const subcommands[] = { &cmd_list, &cmd_describe, &cmd_import,
                                                     &cmd_export, NULL };
static const struct example examples[] = {
    { "headway model list", "Every model in models/." }, { 0 } };

const struct command cmd_model = {
    .name = "model", .summary = "List, describe, import and export models",
    .description = "Models are data: a YAML file each in models/.",
    .subcommands = subcommands, .examples = examples,
};
