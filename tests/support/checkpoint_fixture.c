#include "support/checkpoint_fixture.h"

#include "base/err.h"
#include "base/rng.h"

#include <string.h>

void fixture_init(struct fixture *f)
{
    static const struct checkpoint_tensor shapes[FIXTURE_TENSORS] = {
        { "param/w.weight", DTYPE_F32, 2, { 3, 7 }, NULL },
        { "param/b", DTYPE_BF16, 1, { 5 }, NULL },
        { "param/empty", DTYPE_F32, 2, { 0, 4 }, NULL },
        { "adamw.m/w.weight", DTYPE_F32, 2, { 3, 7 }, NULL },
        { "scaler/scale", DTYPE_F64, 0, { 0 }, NULL },
    };
    memcpy(f->tensor, shapes, sizeof shapes);
    for (int i = 0; i < FIXTURE_TENSORS; i++)
        f->tensor[i].data = f->data[i];
    memset(f->data, 0, sizeof f->data);
}

static i64 bytes_of(const struct checkpoint_tensor *t)
{
    i64 bytes = dtype_bytes(t->dtype);
    for (int d = 0; d < t->rank; d++)
        bytes *= t->dim[d];
    return bytes;
}

static u8 byte_of(i64 generation, int tensor, i64 i)
{
    return (u8)rng_u64(&(struct rng){ (u64)generation, (u64)tensor }, (u64)i);
}

void fixture_fill(struct fixture *f, i64 generation)
{
    for (int t = 0; t < FIXTURE_TENSORS; t++)
        for (i64 i = 0; i < bytes_of(&f->tensor[t]); i++)
            f->data[t][i] = byte_of(generation, t, i);
}

bool fixture_matches(const struct fixture *f, i64 generation)
{
    for (int t = 0; t < FIXTURE_TENSORS; t++)
        for (i64 i = 0; i < bytes_of(&f->tensor[t]); i++)
            if (f->data[t][i] != byte_of(generation, t, i))
                return false;
    return true;
}

int fixture_save(struct checkpoint_writer *w, struct fixture *f, i64 step, i64 generation)
{
    fixture_fill(f, generation);
    json_t *state = json_pack("{s:I}", "generation", (json_int_t)generation);
    int rc = checkpoint_begin(w, step, state);
    json_decref(state);
    return rc;
}

int fixture_load(const char *dir, i64 *step, i64 *generation)
{
    struct fixture f;
    json_t *state;
    fixture_init(&f);
    *step = CHECKPOINT_NEWEST;
    TRY(checkpoint_load(dir, step, f.tensor, FIXTURE_TENSORS, &state));
    *generation = json_integer_value(json_object_get(state, "generation"));
    json_decref(state);
    return fixture_matches(&f, *generation)
               ? OK
               : err_set(ERR_INTERNAL, "the tensors are not those of generation %lld",
                         (long long)*generation);
}

int fixture_open(struct checkpoint_writer **w, struct fixture *f, const char *dir, i64 resumed)
{
    fixture_init(f);
    return checkpoint_writer_new(w, dir, f->tensor, FIXTURE_TENSORS,
                                 &(struct checkpoint_options){ .resumed_step = resumed,
                                                               .max_missed = 3 });
}

int fixture_check(void *context, const char *folder, i64 mark)
{
    i64 step, generation;
    (void)context;
    if (checkpoint_verify(folder, -1, NULL, NULL) != 0)
        return -1;
    int rc = fixture_load(folder, &step, &generation);
    if (rc == ERR_USAGE && mark == 0)
        return 0;
    return rc == OK && generation >= mark ? 0 : -1;
}
