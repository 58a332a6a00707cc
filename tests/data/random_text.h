/* tests/data/random_text.h - text that a tokenizer may stumble over. */
#ifndef HEADWAY_TEST_RANDOM_TEXT_H
#define HEADWAY_TEST_RANDOM_TEXT_H

#include "base/rng.h"
#include "data/buffer.h"
#include "data/unicode.h"

struct dice {
    struct rng key;
    u64 thrown;
};

static inline u32 throw(struct dice *d, u32 sides)
{
    return (u32)(rng_u64(&d->key, d->thrown++) % sides);
}

static inline u32 random_char(struct dice *d)
{
    static const char common[] = "etaoin shrdlu ETA '' 's'T'll're'VE'm  \n\n\t\r0123.,;:!?-()#";
    static const u16 rare[] = { 0x17F, 0x85, 0xA0, 0x2028, 0x3000, 0x180E, 0x200B, 0xFEFF, 0x301,
                                0x323, 0xE9, 0xC5, 0x2160, 0xB2, 0x660, 0x4E2D, 0xAC00, 0x212B };
    switch (throw(d, 8)) {
    case 0:
        return rare[throw(d, COUNT_OF(rare))];
    case 1: { /* any character but a surrogate or zero */
        u32 c = 1 + throw(d, 0x10FFFF);
        return c >= 0xD800 && c < 0xE000 ? ' ' : c;
    }
    case 2:
        return 0x80 + throw(d, 0x3000);
    case 3: { /* the ranges that the libraries may not know */
        const struct unicode_range *r =
            &unicode_since_14[throw(d, (u32)unicode_since_14_count)];
        return r->first + throw(d, r->last - r->first + 1);
    }
    default:
        return (u32)common[throw(d, sizeof common - 1)];
    }
}

/* Replaces what b held by well-formed text of up to 64 characters; now and then a run. */
static inline void random_text(struct dice *d, struct buffer *b)
{
    b->bytes = 0;
    for (u32 left = 1 + throw(d, 64); left > 0; left--) {
        u32 c = random_char(d), times = throw(d, 16) ? 1 : 1 + throw(d, 40);
        for (; times > 0; times--) {
            u8 bytes[4];
            int rc = buffer_add(b, bytes, utf8_put(c, bytes));
            assert(rc == 0);
            (void)rc;
        }
    }
}

#endif
