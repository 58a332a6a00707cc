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
static float load_value(const struct load_job *job, i64 i)
{
    u64 aligned = 0;
    i64 size = dtype_bytes(job->dtype);
    memcpy(&aligned, job->from + i * size, (size_t)size);
    return (float)dtype_get(job->dtype, &aligned, 0);
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
            to[c - begin] = load_value(job, job->transposed ? column * job->all_rows + row
                                                            : row * job->all_columns + column);
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

int hf_check_weights(const struct model_spec *s, const char *folder, struct arena *a)
{
    struct weights w;
    i64 n;
    const struct param_desc *p = params_of(s, a, &n);
    int rc = weights_open(&w, folder);
    for (i64 i = 0; i < n && rc >= 0; i++) {
        const struct weights_entry *e;
        i64 pieces = params_foreign_count(s, &p[i]);
        for (i64 k = 0; k < pieces && rc >= 0; k++) {
            struct foreign_piece piece = params_foreign(s, &p[i], k);
            rc = find_piece(&e, &w, &p[i], &piece, folder);
        }
    }
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

/* Tensors of the whole model, wherever its parts are. */
static i64 tensors_of(const struct model_spec *s)
{
    struct arena a;
    i64 n, count = 0;
    arena_init(&a);
    const struct param_desc *all = params_of(s, &a, &n);
    for (i64 i = 0; i < n; i++)
        count += params_foreign_count(s, &all[i]);
    arena_fini(&a);
    return count;
}

int hf_load_weights(struct model *m, const char *folder, struct pool *pool)
{
    struct weights w;
    i64 used = tensors_of(&m->spec);
    int rc = weights_open(&w, folder);
    for (i64 i = 0; i < m->n_params && rc >= 0; i++)
        rc = load_param(m, &m->params[i], &w, folder, pool);
    i64 head = m->spec.tied && weights_find(&w, "lm_head.weight") ? 1 : 0;
    if (rc >= 0 && w.n > used + head)
        log_line(LOG_WARN, "%s: %lld tensors are not part of the model and were left out",
                 folder, (long long)(w.n - used - head));
    weights_close(&w);
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
