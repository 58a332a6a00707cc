#include "data/tokenizer_impl.h"

#include "base/err.h"
#include "data/unicode.h"

#include <string.h>

static const char REPLACEMENT[] = "\xEF\xBF\xBD"; /* U+FFFD */

static int add_token(const struct tokenizer *t, i32 id, struct buffer *out)
{
    i64 bytes;
    const u8 *token = tokenizer_token(t, id, &bytes);
    if (!token)
        return err_set(ERR_FORMAT, "the tokenizer has no token %d; its ids are below %d", id,
                       t->size);
    return buffer_add(out, token, bytes);
}

int tokenizer_decode(const struct tokenizer *t, const i32 *ids, i64 count,
                     bool skip_specials, struct buffer *out)
{
    for (i64 i = 0; i < count; i++)
        if (!skip_specials || !tokenizer_is_special(t, ids[i]))
            TRY(add_token(t, ids[i], out));
    return OK;
}

void text_decoder_init(struct text_decoder *d, const struct tokenizer *t)
{
    *d = (struct text_decoder){ .tokenizer = t };
}

void text_decoder_fini(struct text_decoder *d)
{
    buffer_fini(&d->pending);
    buffer_fini(&d->out);
}

/* Moves what is certain from pending to out. */
static int flush(struct text_decoder *d, bool at_end)
{
    i64 at = 0;
    d->out.bytes = 0;
    while (at < d->pending.bytes) {
        const u8 *rest = d->pending.data + at;
        i64 left = d->pending.bytes - at, good = utf8_valid(rest, left);
        bool incomplete;
        TRY(buffer_add(&d->out, rest, good));
        at += good;
        if (good == left)
            break;
        int bad = utf8_bad_length(rest + good, left - good, &incomplete);
        if (incomplete && !at_end)
            break;
        TRY(buffer_add(&d->out, REPLACEMENT, 3));
        at += bad;
    }
    d->pending.bytes -= at;
    memmove(d->pending.data, d->pending.data + at, (size_t)d->pending.bytes);
    return OK;
}

int text_decoder_push(struct text_decoder *d, i32 id)
{
    TRY(add_token(d->tokenizer, id, &d->pending));
    return flush(d, false);
}

int text_decoder_end(struct text_decoder *d)
{
    d->out.bytes = 0;
    return d->pending.bytes ? flush(d, true) : OK;
}
