#include "train/checkpoint_span.h"

#include <string.h>

bool checkpoint_span_make(struct checkpoint_span *out, const struct checkpoint_box *file, i64 begin,
                          const struct checkpoint_tensor *memory)
{
    struct checkpoint_span s = { .begin = begin, .data = memory->data, .runs = 1 };
    i64 in_file = dtype_bytes(file->dtype), in_memory = in_file;
    bool together = true; /* the dimensions behind this one are whole in both */
    s.run = in_file;
    for (int d = file->rank - 1; d >= 0; d--) {
        i64 at = checkpoint_is_box(memory) ? memory->at[d] : 0;
        i64 first = i64_max(file->at[d], at);
        i64 count = i64_min(file->at[d] + file->dim[d], at + memory->dim[d]) - first;
        if (count <= 0)
            return false;
        s.begin += (first - file->at[d]) * in_file;
        s.data += (first - at) * in_memory;
        if (together) {
            s.run *= count;
        } else {
            s.count[s.rank] = count;
            s.in_file[s.rank] = in_file;
            s.in_memory[s.rank++] = in_memory;
            s.runs *= count;
        }
        together = together && count == file->dim[d] && count == memory->dim[d];
        in_file *= file->dim[d];
        in_memory *= memory->dim[d];
    }
    s.end = s.begin + s.run;
    for (int d = 0; d < s.rank; d++)
        s.end += (s.count[d] - 1) * s.in_file[d];
    *out = s;
    return true;
}

/* Where run i begins, counted from the first; dimension 0 turns fastest. */
static i64 place(const struct checkpoint_span *s, const i64 *step, i64 i)
{
    i64 at = 0;
    for (int d = 0; d < s->rank; d++) {
        at += i % s->count[d] * step[d];
        i /= s->count[d];
    }
    return at;
}

/* The first run that ends behind the byte of the file; runs are in its order. */
static i64 first_behind(const struct checkpoint_span *s, i64 byte)
{
    i64 low = 0, high = s->runs;
    while (low < high) {
        i64 middle = (low + high) / 2;
        if (s->begin + place(s, s->in_file, middle) + s->run > byte)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

void checkpoint_span_copy(const struct checkpoint_span *s, i64 offset, const u8 *data, i64 n)
{
    if (s->begin >= offset + n || s->end <= offset)
        return;
    for (i64 i = first_behind(s, offset); i < s->runs; i++) {
        i64 begin = s->begin + place(s, s->in_file, i);
        i64 from = i64_max(begin, offset), to = i64_min(begin + s->run, offset + n);
        if (begin >= offset + n)
            return;
        memcpy(s->data + place(s, s->in_memory, i) + (from - begin), data + (from - offset),
               (size_t)(to - from));
    }
}

void checkpoint_span_mark(const struct checkpoint_span *s, u8 *need)
{
    for (i64 i = 0; i < s->runs; i++) {
        i64 begin = s->begin + place(s, s->in_file, i);
        for (i64 c = begin / CHECKPOINT_CHUNK; c * CHECKPOINT_CHUNK < begin + s->run; c++)
            need[c] = 1;
    }
}
