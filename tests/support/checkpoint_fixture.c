#include "support/checkpoint_fixture.h"

#include "base/err.h"
#include "base/rng.h"

#include <string.h>

static const struct checkpoint_tensor shapes[FIXTURE_TENSORS] = {
    { .name = "param/w.weight", .dtype = DTYPE_F32, .rank = 2, .dim = { 3, 7 } },
    { .name = "param/b", .dtype = DTYPE_BF16, .rank = 1, .dim = { 5 } },
    { .name = "param/empty", .dtype = DTYPE_F32, .rank = 2, .dim = { 0, 4 } },
    { .name = "adamw.m/w.weight", .dtype = DTYPE_F32, .rank = 2, .dim = { 3, 7 } },
    { .name = "scaler/scale", .dtype = DTYPE_F64 },
};

void fixture_init(struct fixture *f)
{
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

/* --- shared by ranks ---------------------------------------------------------------- */

/* Box k of a rank: of which tensor, from where, how much. */
static const struct {
    int tensor;
    i64 at[2], dim[2];
} shares[FIXTURE_RANKS][FIXTURE_BOXES] = {
    { { 0, { 0, 0 }, { 2, 7 } }, { 0, { 2, 0 }, { 1, 3 } }, { 1, { 0 }, { 5 } },
      { 3, { 0, 0 }, { 3, 4 } } },
    { { 0, { 2, 3 }, { 1, 4 } }, { 2, { 0, 0 }, { 0, 4 } }, { 3, { 0, 4 }, { 3, 3 } },
      { 4, { 0 }, { 0 } } },
};

void fixture_part_init(struct fixture_part *f, int rank)
{
    *f = (struct fixture_part){ .n = FIXTURE_BOXES };
    for (int k = 0; k < FIXTURE_BOXES; k++) {
        const struct checkpoint_tensor *whole = &shapes[shares[rank][k].tensor];
        f->box[k] = *whole;
        f->box[k].data = f->data[k];
        memcpy(f->box[k].whole, whole->dim, sizeof whole->dim);
        memcpy(f->box[k].at, shares[rank][k].at, sizeof shares[rank][k].at);
        memcpy(f->box[k].dim, shares[rank][k].dim, sizeof shares[rank][k].dim);
    }
}

/* Byte i of a box is this one of the whole tensor's. */
static i64 byte_in_whole(const struct checkpoint_tensor *t, i64 i)
{
    i64 size = dtype_bytes(t->dtype), element = i / size;
    if (t->rank == 2)
        element = (t->at[0] + element / t->dim[1]) * t->whole[1] + t->at[1] + element % t->dim[1];
    else if (t->rank == 1)
        element += t->at[0];
    return element * size + i % size;
}

static int index_in_shapes(const struct checkpoint_tensor *t)
{
    int i = 0;
    while (strcmp(shapes[i].name, t->name) != 0)
        i++;
    return i;
}

void fixture_part_fill(struct fixture_part *f, i64 generation)
{
    for (i64 k = 0; k < f->n; k++)
        for (i64 i = 0; i < bytes_of(&f->box[k]); i++)
            f->data[k][i] = byte_of(generation, index_in_shapes(&f->box[k]),
                                    byte_in_whole(&f->box[k], i));
}

bool fixture_part_matches(const struct fixture_part *f, i64 generation)
{
    struct fixture_part expected = *f;
    fixture_part_fill(&expected, generation);
    return memcmp(expected.data, f->data, sizeof f->data) == 0;
}

int fixture_part_open(struct checkpoint_writer **w, struct fixture_part *f, const char *dir,
                      int rank, i64 resumed, double patience_s)
{
    fixture_part_init(f, rank);
    return checkpoint_writer_new(w, dir, f->box, f->n,
                                 &(struct checkpoint_options){ .resumed_step = resumed,
                                                               .max_missed = 3,
                                                               .patience_s = patience_s,
                                                               .rank = rank,
                                                               .ranks = FIXTURE_RANKS });
}

int fixture_part_save(struct checkpoint_writer *w, struct fixture_part *f, i64 step, u64 ticket,
                      i64 generation)
{
    fixture_part_fill(f, generation);
    json_t *state = json_pack("{s:I}", "generation", (json_int_t)generation);
    int rc = checkpoint_begin_part(w, step, ticket, state);
    json_decref(state);
    return rc;
}

/* --- promises ----------------------------------------------------------------------- */

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
