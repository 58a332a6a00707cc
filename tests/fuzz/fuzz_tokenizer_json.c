/* Any bytes: refused, or a tokenizer that saves itself as one with the same hash, and
 * under which a text comes back as the bytes it was made of, as far as it has them. */
#include "base/err.h"
#include "data/encoder.h"
#include "data/tokenizer_impl.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const u8 *data, size_t bytes);

static void check_saving(const struct tokenizer *t)
{
    struct json out;
    struct tokenizer *again;
    json_writer_init(&out);
    tokenizer_write(t, &out);
    if (tokenizer_parse(&again, out.out.data, out.out.length, "saved") < 0)
        err_panic("what was saved does not open: %s", err_message());
    if (strcmp(tokenizer_hash(t), tokenizer_hash(again)) != 0)
        err_panic("what was saved opens as something else");
    tokenizer_free(again);
    json_writer_fini(&out);
}

static void check_encoding(const struct tokenizer *t, const u8 *text, i64 bytes)
{
    struct encoder *e;
    struct buffer out = { 0 };
    struct encoder_options o = { .policy = UTF8_BYTES, .add_template = true };
    i64 count;
    if (encoder_new(&e, t, &o) < 0)
        return;
    if (encoder_text(e, text, bytes) == OK) {
        const i32 *ids = encoder_ids(e, &count);
        if (tokenizer_decode(t, ids, count, false, &out) < 0)
            err_panic("an encoder made an id that cannot be decoded: %s", err_message());
    }
    buffer_fini(&out);
    encoder_free(e);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t bytes)
{
    static const char text[] = "Hello  world's 123 \xC3\xA9\xCC\x81<|e|> \xFF\n\n <|e|>x";
    struct tokenizer *t;
    if (tokenizer_parse(&t, data, (i64)bytes, "fuzz") < 0)
        return 0;
    check_saving(t);
    check_encoding(t, (const u8 *)text, (i64)sizeof text - 1);
    check_encoding(t, data, (i64)bytes);
    tokenizer_free(t);
    return 0;
}
