#include "model/hf.h"

#include "base/err.h"
#include "base/log.h"
#include "base/sys.h"
#include "model/hf_config.h"
#include "model/weights.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

enum { CONFIG_BYTES = 1 << 20, ROWS_AT_ONCE = 64 };

bool hf_is_folder(const char *path)
{
    char config[4096];
    snprintf(config, sizeof config, "%s/config.json", path);
    return sys_exists(config);
}

int hf_read_spec(struct model_spec *out, const char *folder, struct arena *a)
{
    char path[4096];
    json_t *config;
    snprintf(path, sizeof path, "%s/config.json", folder);
    TRY(json_load(path, CONFIG_BYTES, &config));
    int rc = hf_config_read(out, config, path, a);
    json_decref(config);
    return rc;
}

int hf_tell_dropout(const char *folder, struct arena *a)
{
    static const char *const keys[] = { "attention_dropout", "hidden_dropout", "attn_pdrop",
                                        "resid_pdrop", "embd_pdrop" };
    const char *asked = "";
    char path[4096];
    json_t *config;
    snprintf(path, sizeof path, "%s/config.json", folder);
    TRY(json_load(path, CONFIG_BYTES, &config));
    for (i64 i = 0; i < COUNT_OF(keys); i++) {
        double p = json_number_value(json_object_get(config, keys[i]));
        if (p != 0)
            asked = arena_printf(a, "%s%s%s %g", asked, *asked ? ", " : "", keys[i], p);
    }
    json_decref(config);
    if (*asked)
        log_line(LOG_WARN, "%s asks for dropout (%s); training here has none, so it is left out",
                 path, asked);
    return OK;
}

/* --- loading ------------------------------------------------------------------------ */

/* "transformer.wte.weight" is "wte.weight" in the first released GPT-2 files. */
static const struct weights_entry *find(const struct weights *w, const char *name)
{
    static const char prefix[] = "transformer.";
    const struct weights_entry *e = weights_find(w, name);
    if (!e && strncmp(name, prefix, strlen(prefix)) == 0)
        e = weights_find(w, name + strlen(prefix));
    return e;
}

static int check_shape(const struct safetensors_tensor *t, const struct param_desc *p,
                       const struct foreign_piece *piece, const char *folder)
{
    i64 rows = piece->transposed ? p->dim[1] : piece->rows;
    i64 columns = piece->transposed ? piece->rows : p->dim[1];
    bool fits = p->rank == 1 ? t->rank == 1 && t->dim[0] == piece->rows
                             : t->rank == 2 && t->dim[0] == rows && t->dim[1] == columns;
    if (t->dtype < 0 || t->dtype == DTYPE_I32 || t->dtype == DTYPE_I64 || t->dtype == DTYPE_U8)
        return err_set(ERR_FORMAT, "%s: %s is stored as %s; weights must be floating point",
                       folder, t->name, t->format);
    if (!fits)
        return err_set(ERR_FORMAT, "%s: %s has %lld x %lld values where config.json asks for "
                       "%lld x %lld", folder, t->name, (long long)t->dim[0],
                       (long long)(t->rank > 1 ? t->dim[1] : 1), (long long)rows,
                       (long long)(p->rank > 1 ? columns : 1));
    return OK;
}

struct load_job {
    const u8 *from;
    enum dtype dtype;
    const struct param *to;
    i64 row, rows, columns;      /* of the share */
    i64 begin, end;              /* elements of the share whose weights are here */
    i64 first_row, first_column; /* of the piece, where they begin in it */
    i64 all_rows, all_columns;   /* of the piece */
    bool transposed;
};

/* One element of possibly unaligned data. */
static double value_at(const u8 *data, enum dtype dtype, i64 i)
{
    u64 aligned = 0;
    i64 size = dtype_bytes(dtype);
    memcpy(&aligned, data + i * size, (size_t)size);
    return dtype_get(dtype, &aligned, 0);
}

static void load_rows(void *context, i64 block, int thread)
{
    const struct load_job *job = context;
    i64 last = i64_min(job->rows, (block + 1) * ROWS_AT_ONCE);
    (void)thread;
    for (i64 r = block * ROWS_AT_ONCE; r < last; r++) {
        i64 first = (job->row + r) * job->columns, row = job->first_row + r;
        i64 begin = i64_max(0, job->begin - first), end = i64_min(job->columns, job->end - first);
        float *to = begin < end ? param_weight(job->to, first + begin) : NULL;
        for (i64 c = begin; c < end; c++) {
            i64 column = job->first_column + c;
            i64 at = job->transposed ? column * job->all_rows + row
                                     : row * job->all_columns + column;
            to[c - begin] = (float)value_at(job->from, job->dtype, at);
        }
    }
}

static int find_piece(const struct weights_entry **out, const struct weights *w,
                      const struct param_desc *p, const struct foreign_piece *piece,
                      const char *folder)
{
    *out = find(w, piece->name);
    if (!*out)
        return err_set(ERR_FORMAT, "%s: the tensor %s is missing", folder, piece->name);
    return check_shape((*out)->tensor, p, piece, folder);
}

/* Equal shapes, which are floating point. */
static bool same_values(const struct weights_entry *x, const struct weights_entry *y)
{
    const i64 n = x->tensor->dim[0] * x->tensor->dim[1];
    const enum dtype a = (enum dtype)x->tensor->dtype, b = (enum dtype)y->tensor->dtype;
    const u8 *in_x = weights_data(x), *in_y = weights_data(y);
    if (a == b)
        return memcmp(in_x, in_y, (size_t)(n * dtype_bytes(a))) == 0;
    i64 i = 0;
    while (i < n && value_at(in_x, a, i) == value_at(in_y, b, i))
        i++;
    return i == n;
}

/* A head that the configuration says is the embedding, and that lies in the file all the same, must
 * be that: transformers from 5 on takes it, and those before the embedding. */
static int check_tied(const struct model_spec *s, const struct weights *w,
                      const struct param_desc *embedding, const char *folder)
{
    const struct weights_entry *head = weights_find(w, "lm_head.weight"), *e;
    struct foreign_piece piece = params_foreign(s, embedding, 0);
    if (!s->tied || !head)
        return OK;
    TRY(check_shape(head->tensor, embedding, &piece, folder));
    TRY(find_piece(&e, w, embedding, &piece, folder));
    if (same_values(head, e))
        return OK;
    return err_set(ERR_FORMAT, "%s: lm_head.weight differs from %s, and config.json says that they "
                   "are one (tie_word_embeddings); say false there to have both, or take "
                   "lm_head.weight out of the file", folder, piece.name);
}

/* All that this model asks for is there, wherever its parts are; tells of what it does not. */
static int check_tensors(const struct model_spec *s, const struct weights *w, const char *folder,
                         bool tell, struct arena *a)
{
    i64 n, others = 0;
    const char *other = NULL;
    const struct param_desc *p = params_of(s, a, &n);
    const struct weights_entry *e;
    bool *used = ARENA_ARRAY(a, bool, w->n + 1);
    for (i64 i = 0; i < n; i++) {
        for (i64 k = 0; k < params_foreign_count(s, &p[i]); k++) {
            struct foreign_piece piece = params_foreign(s, &p[i], k);
            TRY(find_piece(&e, w, &p[i], &piece, folder));
            used[e - w->entry] = true;
        }
        if (p[i].id == P_WTE)
            TRY(check_tied(s, w, &p[i], folder));
    }
    if (s->tied && (e = weights_find(w, "lm_head.weight")))
        used[e - w->entry] = true;
    for (i64 i = 0; i < w->n; i++) {
        others += !used[i];
        other = used[i] || other ? other : w->entry[i].tensor->name;
    }
    if (tell && others > 0)
        log_line(LOG_WARN, "%s: %lld of %lld tensors are not part of the model and were left out, "
                 "such as %s", folder, (long long)others, (long long)w->n, other);
    return OK;
}

int hf_check_weights(const struct model_spec *s, const char *folder, struct arena *a)
{
    struct weights w;
    int rc = weights_open(&w, folder);
    if (rc >= 0)
        rc = check_tensors(s, &w, folder, false, a);
    weights_close(&w);
    return rc;
}

/* What of a foreign piece is in this rank's share of the parameter. */
static void load_piece(struct param *p, const struct foreign_piece *piece,
                       const struct weights_entry *e, struct pool *pool)
{
    const struct param_shard *s = &p->shard;
    const struct shard_range here = param_weights_here(p);
    bool matrix = p->desc.rank == 2;
    struct load_job job = { .from = weights_data(e), .dtype = (enum dtype)e->tensor->dtype,
                            .to = p, .begin = here.begin, .end = here.begin + here.count,
                            .columns = matrix ? s->columns.count : 1,
                            .first_column = matrix ? s->columns.begin : 0,
                            .all_rows = piece->rows, .all_columns = matrix ? p->desc.dim[1] : 1,
                            .transposed = piece->transposed };
    i64 above = 0; /* rows of the share before these */
    for (i64 k = 0; k < s->experts.count * s->pieces; k++) {
        struct shard_range rows = s->rows[k % s->pieces];
        rows.begin += (s->experts.begin + k / s->pieces) * (p->desc.dim[0] / p->desc.experts);
        i64 first = i64_max(piece->row, rows.begin);
        job.rows = i64_min(piece->row + piece->rows, rows.begin + rows.count) - first;
        job.first_row = first - piece->row;
        job.row = above + first - rows.begin;
        if (job.rows > 0)
            pool_run(pool, ceil_div(job.rows, ROWS_AT_ONCE), load_rows, &job);
        above += rows.count;
    }
}

static int load_param(struct model *m, struct param *p, const struct weights *w,
                      const char *folder, struct pool *pool)
{
    i64 n = params_foreign_count(&m->spec, &p->desc);
    if (n == 0)
        return err_set(ERR_MODEL, "%s has no name in Hugging Face's families", p->desc.name);
    for (i64 i = 0; i < n; i++) {
        const struct weights_entry *e;
        struct foreign_piece piece = params_foreign(&m->spec, &p->desc, i);
        TRY(find_piece(&e, w, &p->desc, &piece, folder));
        load_piece(p, &piece, e, pool);
    }
    return OK;
}

int hf_load_weights(struct model *m, const char *folder, struct pool *pool)
{
    struct weights w;
    struct arena a;
    arena_init(&a);
    int rc = weights_open(&w, folder);
    if (rc >= 0)
        rc = check_tensors(&m->spec, &w, folder, true, &a);
    for (i64 i = 0; i < m->n_params && rc >= 0; i++)
        rc = load_param(m, &m->params[i], &w, folder, pool);
    weights_close(&w);
    arena_fini(&a);
    if (rc >= 0)
        model_refresh_compute(m, pool);
    return rc;
}

/* --- writing ------------------------------------------------------------------------ */

struct export_piece {
    struct foreign_piece piece; /* first: found again by its name's address */
    const struct param *param;
};

static i64 list_pieces(const struct model *m, const struct hf_export *how,
                       struct export_piece *pieces, struct safetensors_tensor *tensors)
{
    i64 n = 0;
    for (i64 i = 0; i < m->n_params; i++) {
        const struct param_desc *d = &m->params[i].desc;
        i64 parts = params_foreign_count(&m->spec, d);
        for (i64 k = 0; k < parts; k++, n++) {
            struct foreign_piece part = params_foreign(&m->spec, d, k);
            pieces[n] = (struct export_piece){ part, &m->params[i] };
            tensors[n] = (struct safetensors_tensor){ .name = pieces[n].piece.name,
                                                      .dtype = how->dtype, .rank = d->rank };
            tensors[n].dim[0] = part.transposed ? d->dim[1] : part.rows;
            tensors[n].dim[1] = part.transposed ? part.rows : d->dim[1];
        }
    }
    return n;
}

/* One piece, converted a stored row at a time. */
static int put_piece(struct weights_writer *w, const struct export_piece *e,
                     const struct safetensors_tensor *t, void *row)
{
    const struct tensor *source = e->param->master;
    i64 columns = e->param->desc.rank == 2 ? e->param->desc.dim[1] : 1;
    const float *from = (const float *)source->data + e->piece.row * columns;
    i64 out_rows = t->rank == 2 ? t->dim[0] : 1;
    i64 out_columns = t->rank == 2 ? t->dim[1] : t->dim[0];
    for (i64 r = 0; r < out_rows; r++) {
        for (i64 c = 0; c < out_columns; c++) {
            i64 at = e->piece.transposed ? c * columns + r : r * out_columns + c;
            dtype_set((enum dtype)t->dtype, row, c, (double)from[at]);
        }
        TRY(weights_put(w, row, out_columns * dtype_bytes((enum dtype)t->dtype)));
    }
    return OK;
}

static int write_weights(const struct model *m, const char *folder,
                         const struct hf_export *how, struct arena *a)
{
    static const struct safetensors_pair format = { "format", "pt" };
    struct weights_writer w;
    i64 n = 0;
    for (i64 i = 0; i < m->n_params; i++)
        n += params_foreign_count(&m->spec, &m->params[i].desc);
    struct export_piece *pieces = ARENA_ARRAY(a, struct export_piece, n);
    struct safetensors_tensor *tensors = ARENA_ARRAY(a, struct safetensors_tensor, n);
    n = list_pieces(m, how, pieces, tensors);
    i64 widest = 0; /* columns of what is stored */
    for (i64 i = 0; i < n; i++)
        widest = i64_max(widest, tensors[i].rank == 2 ? tensors[i].dim[1] : tensors[i].dim[0]);
    void *row = arena_alloc(a, widest * 8);
    TRY(weights_create(&w, folder, tensors, n, &format, 1, how->max_file_bytes));
    for (i64 i = 0; i < n; i++) {
        const struct export_piece *e = (const struct export_piece *)(const void *)tensors[i].name;
        int rc = put_piece(&w, e, &tensors[i], row);
        if (rc < 0) {
            weights_abort(&w);
            return rc;
        }
    }
    return weights_commit(&w);
}

/* Beside itself first: until the rename, what was there is whole. */
static int write_file(const char *folder, const char *name, const struct text *t)
{
    char path[4096], fresh[4096 + 4];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    snprintf(fresh, sizeof fresh, "%s.tmp", path);
    int fd = sys_open(fresh, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0)
        return err_set(ERR_SYS, "create %s: %s", fresh, strerror(errno));
    bool failed = sys_write_full(fd, t->data, t->length) != 0 || sys_fsync(fd) != 0;
    failed = sys_close(fd) != 0 || failed;
    if (!failed && sys_rename(fresh, path) == 0)
        return OK;
    int rc = err_set(ERR_SYS, "write %s: %s", path, strerror(errno));
    sys_unlink(fresh);
    return rc;
}

int hf_write(const struct model *m, const char *folder, const struct hf_export *how)
{
    struct json config;
    struct arena a;
    if (sys_mkdirs(folder) != 0)
        return err_set(ERR_SYS, "make %s: %s", folder, strerror(errno));
    arena_init(&a);
    json_writer_init(&config);
    int rc = hf_config_write(&m->spec, how, &config);
    if (rc >= 0)
        rc = write_weights(m, folder, how, &a);
    if (rc >= 0)
        rc = write_file(folder, "config.json", &config.out);
    json_writer_fini(&config);
    arena_fini(&a);
    return rc;
}
