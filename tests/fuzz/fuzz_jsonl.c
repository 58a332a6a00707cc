/* Any bytes as an input of `data prepare`: decompressed, split in every way, and each
 * line read as a JSON document whose parts must lie within its text. */
#include "base/err.h"
#include "data/json_document.h"
#include "data/splitter.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t bytes);

static void read_line(struct json_document *d, const struct split_document *line)
{
    static const struct chat_style styles[] = {
        { "chatml", 1, -1, 2, "", "\n", "\n" },
        { "plain", -1, -1, -1, "### ", "\n", "\n\n" },
    };
    for (i64 i = 0; i < COUNT_OF(styles); i++) {
        if (json_document_parse(d, &styles[i], line->text, line->bytes, "fuzz",
                                line->line) < 0)
            continue;
        i64 at = 0;
        for (i64 k = 0; k < json_document_parts(d); k++) {
            const struct json_part *p = json_document_part(d, k);
            if (p->begin != at || p->bytes < 0)
                err_panic("part %lld begins elsewhere", (long long)k);
            at += p->bytes;
        }
        if (at != d->text.bytes)
            err_panic("the parts are not the text");
    }
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t bytes)
{
    enum { MOST = 64, LIMIT = 1 << 20 };
    static const struct splitter_options options[] = { { NULL, false, 0, MOST },
                                                       { "^a", false, 0, MOST },
                                                       { "^a", true, 20, MOST } };
    struct json_document d = { 0 };
    struct stream *stream;
    struct splitter *s;
    struct split_document part;
    const int ways[2] = { 4, (int)(bytes % 4) }; /* as jsonl, and as one kind of text */
    for (int i = 0; i < 2; i++) {
        int k = ways[i];
        enum text_format format = k < 3    ? FORMAT_TEXT
                                  : k == 3 ? FORMAT_PARAGRAPHS
                                           : FORMAT_JSONL;
        i64 total = 0;
        if (splitter_new(&s, &options[k % 3]) < 0)
            err_panic("%s", err_message());
        if (stream_open_memory(&stream, data, (i64)bytes, "fuzz") == OK) {
            splitter_begin(s, stream, "fuzz", format);
            while (total < LIMIT && splitter_next(s, &part) > 0) {
                total += part.bytes;
                if (format != FORMAT_JSONL && (part.bytes < 1 || part.bytes > MOST))
                    err_panic("a document of %lld bytes", (long long)part.bytes);
                if (format == FORMAT_JSONL)
                    read_line(&d, &part);
            }
            stream_close(stream);
        }
        splitter_free(s);
    }
    json_document_fini(&d);
    return 0;
}
