#include "data/tokenizer_impl.h"

#include "base/err.h"
#include "base/sys.h"
#include "data/byte_alphabet.h"
#include "data/chat.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

/* Spells a vocabulary entry; the result is in scratch and ends in a zero. */
static const char *spell(struct buffer *scratch, const struct vocab_token *v)
{
    scratch->bytes = 0;
    int rc = v->raw ? buffer_add(scratch, v->bytes, v->length)
                    : byte_alphabet_spell(scratch, v->bytes, v->length);
    if (rc < 0 || buffer_add(scratch, "", 1) < 0)
        err_panic("out of memory for the spelling of one token");
    return (const char *)scratch->data;
}

/* Hugging Face numbers added tokens that the vocabulary lacks from the vocabulary's size
 * on. Where that would not give their ids, they are written into the vocabulary too. */
static bool added_follow_vocab(const struct tokenizer *t)
{
    i64 next = 0;
    for (i32 id = 0; id < t->size; id++)
        next += t->vocab[id].bytes != NULL;
    for (i64 i = 0; i < t->added_count; i++)
        if (!t->vocab[t->added[i].id].bytes && t->added[i].id != next++)
            return false;
    return true;
}

static void write_added(const struct tokenizer *t, struct json *out)
{
    json_key(out, "added_tokens");
    json_begin_array(out);
    for (i64 i = 0; i < t->added_count; i++) {
        const struct added_token *a = &t->added[i];
        json_begin_object(out);
        json_put_int(out, "id", a->id);
        json_put_str(out, "content", a->content);
        json_put_bool(out, "single_word", a->single_word);
        json_put_bool(out, "lstrip", a->lstrip);
        json_put_bool(out, "rstrip", a->rstrip);
        json_put_bool(out, "normalized", a->normalized);
        json_put_bool(out, "special", a->special);
        json_end(out);
    }
    json_end(out);
}

static void write_vocab(const struct tokenizer *t, struct json *out, struct buffer *scratch)
{
    bool follow = added_follow_vocab(t);
    i64 next_added = 0;
    json_key(out, "vocab");
    json_begin_object(out);
    for (i32 id = 0; id < t->size; id++) {
        while (next_added < t->added_count && t->added[next_added].id < id)
            next_added++;
        if (t->vocab[id].bytes)
            json_put_int(out, spell(scratch, &t->vocab[id]), id);
        else if (!follow && t->vocab[id].added)
            json_put_int(out, t->added[next_added].content, id);
    }
    json_end(out);
}

static void write_merges(const struct tokenizer *t, struct json *out, struct buffer *scratch)
{
    json_key(out, "merges");
    json_begin_array(out);
    for (i64 i = 0; i < t->rule_count; i++) {
        json_begin_array(out);
        json_str(out, spell(scratch, &t->vocab[t->rules[i].left]));
        json_str(out, spell(scratch, &t->vocab[t->rules[i].right]));
        json_end(out);
    }
    json_end(out);
}

static void write_part(struct json *out, const char *key, const char *literal)
{
    json_key(out, key);
    json_literal(out, literal);
}

void tokenizer_write(const struct tokenizer *t, struct json *out)
{
    struct buffer scratch = { 0 };
    json_begin_object(out);
    json_put_str(out, "version", "1.0");
    json_put_str(out, "truncation", NULL);
    json_put_str(out, "padding", NULL);
    write_added(t, out);
    write_part(out, "normalizer", t->normalizer_json);
    write_part(out, "pre_tokenizer", t->pre_tokenizer_json);
    write_part(out, "post_processor", t->post_processor_json);
    write_part(out, "decoder", t->decoder_json);
    json_key(out, "model");
    json_begin_object(out);
    json_put_str(out, "type", "BPE");
    json_put_str(out, "dropout", NULL);
    json_put_str(out, "unk_token", t->unknown);
    json_put_str(out, "continuing_subword_prefix", NULL);
    json_put_str(out, "end_of_word_suffix", NULL);
    json_put_bool(out, "fuse_unk", t->fuse_unknown);
    json_put_bool(out, "byte_fallback", false);
    json_put_bool(out, "ignore_merges", t->ignore_merges);
    write_vocab(t, out, &scratch);
    write_merges(t, out, &scratch);
    json_end(out);
    json_end(out);
    buffer_fini(&scratch);
}

static int write_whole(const char *path, const struct text *text)
{
    int fd = sys_open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (fd < 0)
        return err_set(ERR_SYS, "create %s: %s", path, strerror(errno));
    int failed = sys_write_full(fd, text->data, text->length) < 0 || sys_fsync(fd) < 0;
    if (failed)
        err_set(ERR_SYS, "write %s: %s", path, strerror(errno));
    if (sys_close(fd) < 0 && !failed)
        return err_set(ERR_SYS, "close %s: %s", path, strerror(errno));
    return failed ? ERR_SYS : OK;
}

/* Under a second name first, so that a full disk leaves no half of a file. */
static int replace_file(const char *path, const struct text *text)
{
    struct text temporary = { 0 };
    if (sys_is_channel(path))
        return sys_write_channel(path, text->data, text->length) == 0
                   ? OK : err_set(ERR_SYS, "write %s: %s", path, strerror(errno));
    text_printf(&temporary, "%s.tmp", path);
    int rc = write_whole(temporary.data, text);
    if (rc == OK && sys_rename(temporary.data, path) < 0)
        rc = err_set(ERR_SYS, "rename %s to %s: %s", temporary.data, path, strerror(errno));
    if (rc < 0)
        sys_unlink(temporary.data);
    text_fini(&temporary);
    return rc;
}

int tokenizer_save(const struct tokenizer *t, const char *path)
{
    struct json out;
    json_writer_init(&out);
    tokenizer_write(t, &out);
    int rc = replace_file(path, &out.out);
    json_writer_fini(&out);
    return rc;
}

static void put_token(struct json *out, const char *key, const struct tokenizer *t, i32 id)
{
    i64 bytes;
    const char *text = id < 0 ? NULL : (const char *)tokenizer_token(t, id, &bytes);
    char copy[256] = "";
    if (text)
        snprintf(copy, sizeof copy, "%.*s", (int)bytes, text);
    json_put_str(out, key, text ? copy : NULL);
}

static void put_chat_template(struct json *out, const struct tokenizer *t)
{
    i32 begin, end;
    struct text jinja = { 0 };
    tokenizer_separators(t, &begin, &end);
    chat_template(&jinja, t, begin);
    json_put_str(out, "chat_template", jinja.data);
    text_fini(&jinja);
}

int tokenizer_save_config(const struct tokenizer *t, i64 positions, const char *path)
{
    struct json out;
    json_writer_init(&out);
    json_begin_object(&out);
    json_put_str(&out, "tokenizer_class", "PreTrainedTokenizerFast");
    put_token(&out, "bos_token", t, tokenizer_bos(t));
    put_token(&out, "eos_token", t, tokenizer_eos(t));
    json_put_int(&out, "model_max_length", positions);
    json_put_bool(&out, "clean_up_tokenization_spaces", false);
    put_chat_template(&out, t);
    json_end(&out);
    text_add(&out.out, "\n");
    int rc = replace_file(path, &out.out);
    json_writer_fini(&out);
    return rc;
}

int tokenizer_save_generation(const struct tokenizer *t, const char *path)
{
    const i32 bos = tokenizer_bos(t), eos = tokenizer_eos(t), close = chat_style_of(t).close;
    struct json out;
    json_writer_init(&out);
    json_begin_object(&out);
    if (bos >= 0)
        json_put_int(&out, "bos_token_id", bos);
    json_key(&out, "eos_token_id");
    json_begin_array(&out);
    if (eos >= 0)
        json_int(&out, eos);
    if (close >= 0 && close != eos)
        json_int(&out, close);
    json_end(&out);
    json_end(&out);
    text_add(&out.out, "\n");
    int rc = replace_file(path, &out.out);
    json_writer_fini(&out);
    return rc;
}
